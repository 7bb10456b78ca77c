# SPDX-License-Identifier: Apache-2.0
"""
What changed between two models: code, parameters, data, environment, metrics.

All of it is said by records and manifests. No user's data are loaded and neither MLflow nor git is asked.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_ml_provider.exceptions import (
    ArtifactError,
    ArtifactNotFoundError,
    ModelNotFoundError,
    StoreError,
)
from airflow_ml_provider.lineage import records
from airflow_ml_provider.lineage.answers import Version
from airflow_ml_provider.lineage.graph import MODEL, TASK, Graph, Lineage, Node

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.refs import ArtifactRef

Json = dict[str, Any]

SECTIONS = ("code", "params", "data", "environment", "metrics", "evaluations", "upstream")
# Further up than this a training is seldom explained; the answer says if it was cut off.
_MOST_UPSTREAM = 200
_CODE = ("function", "function_digest", "git.commit", "git.branch", "git.dirty", "bundle_version", "operator")
_STATISTICS = ("nulls", "min", "max", "mean")
_MACHINE = ("hostname",)


@dataclass(frozen=True)
class ModelDiff:
    """
    What differs between two models. Each section holds only what differs.

    :param code: Of the function that trained it: ``name``, ``before``, ``after``.
    :param source: The difference of the function's source as a unified diff, where both records hold it.
    :param data: What the trainings read, by artifact name: versions, schema, rows and column statistics.
    :param metrics: Of the trainings; ``delta`` where both are numbers.
    :param evaluations: The same of the latest evaluation of each.
    :param upstream: What differs further up: code, environment and outputs of the tasks before the training.
    :param notes: What is not known, and why.
    """

    before: Node
    after: Node
    code: tuple[Json, ...] = ()
    params: tuple[Json, ...] = ()
    data: tuple[Json, ...] = ()
    environment: tuple[Json, ...] = ()
    metrics: tuple[Json, ...] = ()
    evaluations: tuple[Json, ...] = ()
    upstream: tuple[Json, ...] = ()
    source: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def same(self) -> tuple[str, ...]:
        """The sections in which nothing differs."""
        return tuple(name for name in SECTIONS if not getattr(self, name))

    def to_json(self) -> Json:
        """Give plain JSON."""
        return {
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            **{name: [dict(row) for row in getattr(self, name)] for name in SECTIONS},
            "source": self.source,
            "same": list(self.same),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class _Side:
    """One of the two models."""

    node: Node
    record: Json
    above: Graph
    evaluation: Json
    evaluated_by: str | None


def diff_models(lineage: Lineage, before: str, after: str) -> ModelDiff:
    """
    Compare two models, or two versions of one.

    :param before: What :meth:`Lineage.find` takes and is a model, such as ``models:/flight_delay/2``.
    :raises ModelNotFoundError: if one of them is not known.
    """
    notes: list[str] = []
    sides = [_side(lineage, what, notes) for what in (before, after)]
    old, new = sides
    code = [(side.record.get("code") or {}) for side in sides]
    source = _source(*code)
    return ModelDiff(
        before=old.node,
        after=new.node,
        code=tuple(_rows(*({name: each.get(name) for name in _CODE} for each in code))),
        params=tuple(_rows(*((side.record.get("params") or {}) for side in sides))),
        data=tuple(_data(lineage, old, new, notes)),
        environment=tuple(_rows(*(_environment(side.record) for side in sides))),
        metrics=tuple(_with_delta(_rows(*((side.record.get("metrics") or {}) for side in sides)))),
        evaluations=tuple(_evaluations(old, new, notes)),
        upstream=tuple(_upstream(lineage, old, new)),
        source=source,
        notes=tuple(notes),
    )


def _side(lineage: Lineage, what: str, notes: list[str]) -> _Side:
    root = lineage.find(what)
    above = lineage.explore(root, direction="up", limit=_MOST_UPSTREAM, events=False)
    node = above.node(root)
    if node is None or node.kind != MODEL:
        raise ModelNotFoundError(f"{what!r} is no model; compare for example models:/<name>/2 with .../3")
    if node.missing:
        notes.append(f"{what}: {node.missing}")
    if above.truncated:
        notes.append(f"{what}: only {_MOST_UPSTREAM} of the nodes upstream of it were looked at")
    if above.hidden:
        notes.append(f"{what}: {above.hidden} nodes upstream of it are in DAGs that you may not see")
    trainings = [edge.source for edge in above.edges if edge.target == root and edge.kind == "trained"]
    found = [record for task in trainings if (record := lineage.record(task)) is not None]
    found.sort(key=lambda record: str(record.get("recorded_at")))
    evaluation, by = _latest_evaluation(lineage, node)
    return _Side(node, found[-1] if found else {}, above, evaluation, by)


def _latest_evaluation(lineage: Lineage, node: Node) -> tuple[Json, str | None]:
    """Return the evaluation of a model that was recorded last, and which task made it."""
    key = node.id.partition(":")[2]
    edges = [edge for edge in records.users_of_model(lineage.objects, key) if edge.get("role") == "evaluated"]
    for edge in sorted(edges, key=lambda edge: str(edge.get("recorded_at")), reverse=True):
        if not lineage.shows(edge["dag_id"]):
            continue
        try:
            record = lineage.objects.get_json(edge["record"])
        except ArtifactNotFoundError:
            continue
        if record.get("evaluation"):
            return record["evaluation"], f"{record['dag_id']}.{record['task_id']}"
    return {}, None


def _rows(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Json]:
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) != after.get(name):
            yield {"name": name, "before": before.get(name), "after": after.get(name)}


def _with_delta(rows: Iterable[Json]) -> Iterator[Json]:
    for row in rows:
        pair = (row["before"], row["after"])
        numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in pair)
        yield {**row, "delta": pair[1] - pair[0] if numbers else None}


def _source(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    texts = (before.get("source"), after.get("source"))
    if None in texts or texts[0] == texts[1]:
        return None
    old, new = (str(text).splitlines() for text in texts)
    return "\n".join(difflib.unified_diff(old, new, "before", "after", lineterm=""))


def _environment(record: Mapping[str, Any]) -> Json:
    """Return what a result may depend on; which machine it was is no such thing."""
    told = dict(record.get("environment") or {})
    packages = told.pop("packages", None) or {}
    return {**{name: told[name] for name in told if name not in _MACHINE}, **packages}


def _evaluations(old: _Side, new: _Side, notes: list[str]) -> Iterator[Json]:
    if not old.evaluation or not new.evaluation:
        for side in (old, new):
            if not side.evaluation:
                notes.append(f"{side.node.label}: no evaluation of it left a record")
        return
    data = [((side.evaluation.get("data") or {}).get("digest")) for side in (old, new)]
    if None in data or data[0] != data[1]:
        notes.append("the latest evaluations of the two were made on different data; compare them with care")
    yield from _with_delta(_rows(old.evaluation.get("metrics") or {}, new.evaluation.get("metrics") or {}))


def _data(lineage: Lineage, old: _Side, new: _Side, notes: list[str]) -> Iterator[Json]:
    """Compare what the trainings read, name by name and in the order they read it."""
    reads = [_by_name(_shown_reads(lineage, side)) for side in (old, new)]
    for name in dict.fromkeys((*reads[0], *reads[1])):
        pairs = [list(side.get(name) or ()) for side in reads]
        for place in range(max(len(pair) for pair in pairs)):
            before, after = (pair[place] if place < len(pair) else None for pair in pairs)
            if before and after and before["version_id"] == after["version_id"]:
                continue
            refs = [_ref(lineage, use, notes) for use in (before, after)]
            same = bool(before and after and before["digest"] == after["digest"])
            schemas = [(ref.schema or {}) if ref is not None else {} for ref in refs]
            row: Json = {
                "name": name,
                "before": _version(before, refs[0]),
                "after": _version(after, refs[1]),
                "same_content": same,
                "schema": [],
                "rows": None,
                "statistics": [],
            }
            if before and after and not same and None not in refs:
                row["schema"] = list(_columns(*schemas))
                counts = [schema.get("rows") for schema in schemas]
                if counts[0] != counts[1]:
                    row["rows"] = {"before": counts[0], "after": counts[1]}
                row["statistics"] = list(_statistics(*schemas))
            yield row


def _shown_reads(lineage: Lineage, side: _Side) -> list[Json]:
    """Return what a training read, without what DAGs wrote that the caller may not see."""
    uses = side.record.get("reads") or ()
    return [use for use in uses if lineage.shows((use.get("producer") or {}).get("dag_id"))]


def _by_name(uses: Iterable[Json]) -> dict[str, list[Json]]:
    found: dict[str, list[Json]] = {}
    for use in uses:
        found.setdefault(use["name"], []).append(use)
    return found


def _ref(lineage: Lineage, use: Json | None, notes: list[str]) -> ArtifactRef | None:
    if use is None:
        return None
    try:
        return lineage.store.get(use["name"], use["version_id"])
    except StoreError:
        raise
    except ArtifactError as exc:
        notes.append(f"{use['name']} {use['version_id']}: {' '.join(str(exc).split())}")
        return None


def _version(use: Json | None, ref: ArtifactRef | None) -> Json | None:
    if use is None:
        return None
    if ref is not None:
        return Version.of(ref).to_json()
    kept = ("name", "version_id", "type", "size_bytes", "digest", "producer")
    return {**{name: use.get(name) for name in kept}, "gone": True}


def _named_columns(schema: Mapping[str, Any]) -> dict[str, Json]:
    columns = schema.get("columns")
    if not isinstance(columns, list):
        return {}
    return {str(each["name"]): each for each in columns if isinstance(each, dict) and "name" in each}


def _columns(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Json]:
    old, new = (
        {name: each.get("type") for name, each in _named_columns(side).items()} for side in (before, after)
    )
    for row in _rows(old, new):
        yield {"column": row["name"], "before": row["before"], "after": row["after"]}


def _statistics(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Json]:
    old, new = _named_columns(before), _named_columns(after)
    for column in old:
        if column in new:
            told = [{name: side[column].get(name) for name in _STATISTICS} for side in (old, new)]
            for row in _rows(*told):
                yield {"column": column, **row}


def _upstream(lineage: Lineage, one: _Side, other: _Side) -> Iterator[Json]:
    """Compare the tasks before the trainings: their code, packages and what they made, by DAG and task."""
    tasks = [_tasks(lineage, side) for side in (one, other)]
    for name in dict.fromkeys((*tasks[0], *tasks[1])):
        before, after = (side.get(name) for side in tasks)
        if before is None or after is None:
            told = [None if side is None else str(side.get("run_id")) for side in (before, after)]
            yield {"name": name, "what": "task", "before": told[0], "after": told[1]}
            continue
        for part in _CODE:
            pair = [(side.get("code") or {}).get(part) for side in (before, after)]
            if pair[0] != pair[1]:
                yield {"name": name, "what": "code", "part": part, "before": pair[0], "after": pair[1]}
        for row in _rows(_environment(before), _environment(after)):
            yield {"name": name, "what": "environment", "part": row.pop("name"), **row}
        for row in _rows(before.get("params") or {}, after.get("params") or {}):
            yield {"name": name, "what": "params", "part": row.pop("name"), **row}
        old, new = (
            {use["name"]: use["digest"] for use in side.get("writes") or ()} for side in (before, after)
        )
        for row in _rows(old, new):
            yield {"name": name, "what": "data", "part": row.pop("name"), **row}


def _tasks(lineage: Lineage, side: _Side) -> dict[str, Json]:
    """Return the records of the tasks upstream of a training but not its own, the latest of each task."""
    own = (side.record.get("dag_id"), side.record.get("run_id"), side.record.get("task_id"))
    found: dict[str, Json] = {}
    for node in side.above.nodes:
        record = lineage.known_record(node.id) if node.kind == TASK else None
        if record is None or (node.dag_id, node.run_id, node.task_id) == own:
            continue
        name = f"{node.dag_id}.{node.task_id}"
        if node.map_index is not None and node.map_index >= 0:
            name = f"{name}[{node.map_index}]"
        known = found.get(name)
        if known is None or str(known.get("recorded_at")) < str(record.get("recorded_at")):
            found[name] = record
    return found
