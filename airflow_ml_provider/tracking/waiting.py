# SPDX-License-Identifier: Apache-2.0
"""Which version of a registered model somebody waits for, and whether it is there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_ml_provider.tracking.errors import is_missing
from airflow_ml_provider.tracking.registry import version_ref

if TYPE_CHECKING:
    from airflow_ml_provider.tracking.models import ModelRef

_VERSIONS_A_PAGE = 100


@dataclass(frozen=True)
class Wanted:
    """
    What a version must be like; it must fulfil all that is given.

    :param alias: It is the one that this alias points at.
    :param min_version: Its number is at least this.
    :param tags: It has these tags with these values; a value of None is any value.
    :param metrics: Its metrics, by name, are at least these.
    """

    registered_model_name: str
    alias: str | None = None
    min_version: int | None = None
    tags: dict[str, str | None] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lowest = self.min_version
        if lowest is not None and (isinstance(lowest, bool) or not isinstance(lowest, int) or lowest < 1):
            raise ValueError(f"min_version must be a version's number from 1, got {lowest!r}")
        for name in ("tags", "metrics"):
            if not isinstance(getattr(self, name), Mapping):
                raise TypeError(f"{name} must be a dict, got {getattr(self, name)!r}")
        for name, least in self.metrics.items():
            if isinstance(least, bool) or not isinstance(least, int | float) or not math.isfinite(least):
                raise ValueError(f"the least value of the metric {name!r} must be a number, got {least!r}")

    def to_json(self) -> dict[str, Any]:
        """Give plain JSON; ``Wanted(**document)`` reads it."""
        return asdict(self)

    def __str__(self) -> str:
        """Say it in a sentence."""
        parts = [f"alias {self.alias!r}"] if self.alias else []
        if self.min_version is not None:
            parts.append(f"version at least {self.min_version}")
        parts += [f"tag {key!r}" + (f" = {value!r}" if value else "") for key, value in self.tags.items()]
        parts += [f"{name} at least {least}" for name, least in self.metrics.items()]
        return f"a version of {self.registered_model_name!r}" + (f" with {', '.join(parts)}" if parts else "")


def find_version(client: Any, wanted: Wanted) -> ModelRef | None:
    """
    Return the newest version that is as wanted and ready; None if there is none yet.

    A registered model that does not exist yet is waited for as well. Metrics are those of the model, then
    those of the run that made it; they are read for versions only that fulfil the rest.
    """
    for version in _candidates(client, wanted):
        if version.status not in (None, "READY") or not _numbered(version, wanted):
            continue
        tags = version.tags or {}
        if any(tags.get(key) is None or value not in (None, tags[key]) for key, value in wanted.tags.items()):
            continue
        ref = version_ref(client, version.name, str(version.version))
        metrics = {**_metrics_of_run(client, ref, wanted), **ref.metrics}
        if all(metrics.get(name, -math.inf) >= least for name, least in wanted.metrics.items()):
            return replace(ref, metrics=metrics)
    return None


def _candidates(client: Any, wanted: Wanted) -> Iterator[Any]:
    name = wanted.registered_model_name
    if wanted.alias is not None:
        try:
            version = client.get_model_version_by_alias(name, wanted.alias)
        except Exception as exc:
            if not is_missing(exc):
                raise
        else:
            yield version
        return
    quoted = "'" + name + "'" if "'" not in name else '"' + name + '"'
    token = None
    while True:
        page = client.search_model_versions(
            f"name = {quoted}",
            max_results=_VERSIONS_A_PAGE,
            order_by=["version_number DESC"],
            page_token=token,
        )
        for version in page:
            if not _numbered(version, wanted):
                return  # and all that follow are older
            yield version
        token = page.token
        if not token:
            return


def _numbered(version: Any, wanted: Wanted) -> bool:
    return wanted.min_version is None or int(version.version) >= wanted.min_version


def _metrics_of_run(client: Any, ref: ModelRef, wanted: Wanted) -> dict[str, float]:
    if ref.mlflow_run_id is None or all(name in ref.metrics for name in wanted.metrics):
        return {}
    try:
        return dict(client.get_run(ref.mlflow_run_id).data.metrics)
    except Exception as exc:
        if is_missing(exc):  # deleted; the version is still there
            return {}
        raise
