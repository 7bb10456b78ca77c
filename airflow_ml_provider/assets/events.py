# SPDX-License-Identifier: Apache-2.0
"""What the events of our assets say, whoever raised them."""

from __future__ import annotations

from typing import Any


def event_extra(event: Any) -> dict[str, Any]:
    """
    Return what an asset event says, e.g. ``version`` and ``effective_at`` of a champion that moved.

    A task and the webhook say it in the event's ``extra``; Airflow wraps what a watcher says. This reads
    both, so that a DAG need not know who saw the move.

    .. versionadded:: 0.1.0

    :param event: One of ``triggering_asset_events[asset]`` or ``inlet_events[asset]``.
    """
    extra = dict(event.extra or {})
    payload = extra.get("payload")
    if extra.get("from_trigger") and isinstance(payload, dict):
        return dict(payload)
    return extra
