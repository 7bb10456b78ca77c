# SPDX-License-Identifier: Apache-2.0
"""Outlets whose events are a verdict: emitted with one outcome of a task, and not with the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset
from airflow.sdk.definitions.asset import AssetRef

if TYPE_CHECKING:
    from airflow.sdk import Context


def is_asset(outlet: Any) -> bool:
    """Whether an outlet is an asset, of any kind, or the name or URI of one: its event is the same."""
    return isinstance(outlet, (Asset, AssetRef))


def announce(
    operator: Any, context: Context, extra: Mapping[str, Any], which: Callable[[Any], bool] = is_asset
) -> None:
    """Put what happened into the events of an operator's outlets."""
    for outlet in operator.outlets:
        if which(outlet):
            context["outlet_events"][outlet].extra.update(extra)


def silence(operator: Any, context: Context, which: Callable[[Any], bool] = is_asset) -> None:
    """Drop outlets of this attempt, so that its success is no event."""
    # Airflow reads them from the task it runs; the DAG's own list must stay as it is.
    operator.outlets = [outlet for outlet in operator.outlets if not which(outlet)]
    running = context["ti"].task
    if running is not operator:
        running.outlets = [outlet for outlet in running.outlets if not which(outlet)]
