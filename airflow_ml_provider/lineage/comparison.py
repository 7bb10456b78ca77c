# SPDX-License-Identifier: Apache-2.0
"""What differs between runs of a DAG, by their records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_ml_provider.lineage.answers import Json, latest_attempts, plain
from airflow_ml_provider.lineage.records import model_key

if TYPE_CHECKING:
    from airflow_ml_provider.lineage.records import TaskRecord, VersionUse

KINDS = ("outcome", "param", "metric", "read", "written", "model", "code", "environment")
# Where an attempt ran says nothing about what it did.
_PLACES = ("hostname",)


@dataclass(frozen=True)
class Compared:
    """
    One thing that runs have or have not in common.

    :param what: One of :data:`KINDS`.
    :param values: One a run; None where a run lacks it. Artifacts by version id, models by version or URI;
        a list of them where there are several of a name.
    :param same: Whether all runs agree; artifacts by content, not by version.
    """

    task_id: str
    map_index: int
    what: str
    name: str
    values: tuple[Any, ...]
    same: bool

    def to_json(self) -> Json:
        return {name: plain(getattr(self, name)) for name in self.__dataclass_fields__}


def compare(runs: Sequence[Sequence[TaskRecord]]) -> list[Compared]:
    """
    Lay the records of several runs side by side, those of each task instance's last attempt.

    :param runs: The records of each run.
    """
    tables = [dict(_facts(run)) for run in runs]
    places = sorted({place for table in tables for place in table}, key=_order)
    # Where a task left no record, that says it; what it ran with elsewhere differs from nothing.
    everywhere = set.intersection(*({place[:2] for place in table} for table in tables)) if tables else set()
    places = [place for place in places if place[:2] in everywhere or place[2] not in ("code", "environment")]
    found = []
    for place in places:
        cells = [table.get(place) for table in tables]
        marks = [None if cell is None else cell[0] for cell in cells]
        found.append(
            Compared(
                *place,
                tuple(None if cell is None else cell[1] for cell in cells),
                all(mark == marks[0] for mark in marks),
            )
        )
    return found


_Place = tuple[str, int, str, str]


def _facts(run: Sequence[TaskRecord]) -> Iterator[tuple[_Place, tuple[Any, Any]]]:
    """Yield where something stands, by what it is compared, and how it is shown."""
    for record in latest_attempts(run):
        for what, name, mark, shown in _of(record):
            yield (record.task_id, record.map_index, what, name), (mark, shown)


def _of(record: TaskRecord) -> Iterator[tuple[str, str, Any, Any]]:
    yield "outcome", "", record.outcome, record.outcome
    for name, value in record.params.items():
        yield "param", name, str(value), value  # MLflow keeps text, a decorator the number
    for name, value in record.metrics.items():
        yield "metric", name, str(value), value
    for what, uses in (("read", record.reads), ("written", (*record.writes, *record.reused))):
        for name, group in _by_name(uses).items():
            marks = sorted({use.digest for use in group})
            shown = group[0].version_id if len(group) == 1 else [use.version_id for use in group]
            yield what, name, marks, shown
    for how, models in (("read", record.models_read), ("written", record.models_written)):
        for name, same_part in _by_part(models).items():
            marks = sorted(str(model_key(model)) for model in same_part)
            called = [model.get("version") or model.get("model_uri") for model in same_part]
            yield "model", f"{how} {name}", marks, called[0] if len(called) == 1 else called
    yield from _flat("code", record.code)
    yield from _flat("environment", record.environment)


def _by_name(uses: Sequence[VersionUse]) -> dict[str, list[VersionUse]]:
    found: dict[str, list[VersionUse]] = {}
    for use in uses:
        found.setdefault(use.name, []).append(use)
    return found


def _by_part(models: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Group models by what a task did with them: one that chooses the best is handed several."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for index, model in enumerate(models):
        found.setdefault(_name(model, index), []).append(model)
    return found


def _name(model: Mapping[str, Any], index: int) -> str:
    return " ".join(
        str(part) for part in (model.get("role"), model.get("registered_model_name")) if part
    ) or (f"number {index + 1}")


def _flat(what: str, facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str, Any, Any]]:
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(what, value, f"{prefix}{name}.")
        elif name not in _PLACES and value is not None:
            yield what, f"{prefix}{name}", str(value), value


def _order(place: _Place) -> tuple[Any, ...]:
    task_id, map_index, what, name = place
    return task_id, map_index, KINDS.index(what), name
