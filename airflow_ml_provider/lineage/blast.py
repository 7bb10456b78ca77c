# SPDX-License-Identifier: Apache-2.0
"""
The blast radius of a bad version: what came from it, and the commands that make exactly that again.

The commands are Airflow 3.3's own. ``airflow tasks clear`` takes logical dates and a part of a task's id
(``--task-regex`` looks for the text in the id, it is no regular expression), so each of them says whether it
clears more than what is affected, and what. Runs without a logical date (asset-triggered, partitioned) can be
cleared by the CLI as a whole only; the body for Airflow's REST API, which is exact, stands beside it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.objects import at_once
from airflow_ml_provider.lineage.graph import EVALUATION, MODEL, RUN, TASK, VERSION, Graph, Lineage, Node

Json = dict[str, Any]
_BACKFILLED = ("scheduled", "backfill")


@dataclass(frozen=True)
class AffectedRun:
    """
    A DAG run in which something came from the bad version.

    :param tasks: Ids of the tasks, those that ran first in front.
    :param instances: ``(task id, map index)``.
    """

    dag_id: str
    run_id: str
    tasks: tuple[str, ...]
    instances: tuple[tuple[str, int], ...]
    run_type: str | None = None
    logical_date: str | None = None
    data_interval: tuple[str, str] | None = None
    effective_at: str | None = None
    began_at: str | None = None

    def to_json(self) -> Json:
        """Give plain JSON."""
        return {
            "dag_id": self.dag_id,
            "run_id": self.run_id,
            "run_type": self.run_type,
            "logical_date": self.logical_date,
            "effective_at": self.effective_at,
            "tasks": [_shown(*instance) for instance in self.instances],
        }


@dataclass(frozen=True)
class Command:
    """
    A command of Airflow that makes something again. It asks before it clears; ``--yes`` answers that.

    :param purpose: ``origin``: the task that made the bad version; ``clear``: what came from it, in its own
        runs; ``backfill``: the same data intervals as backfill runs, which move no alias.
    :param exact: It makes again what is affected, and nothing else that left a record.
    :param note: What else it does, or what to mind.
    :param api: A request of Airflow's REST API that does the same, exactly.
    """

    purpose: str
    dag_id: str
    runs: tuple[str, ...]
    tasks: tuple[str, ...]
    argv: tuple[str, ...]
    exact: bool = True
    note: str | None = None
    api: tuple[Json, ...] = field(default=(), hash=False)

    @property
    def shell(self) -> str:
        """The command as a line for a shell."""
        return shlex.join(self.argv)

    def to_json(self) -> Json:
        """Give plain JSON."""
        return {
            "purpose": self.purpose,
            "dag_id": self.dag_id,
            "runs": list(self.runs),
            "tasks": list(self.tasks),
            "argv": list(self.argv),
            "shell": self.shell,
            "exact": self.exact,
            "note": self.note,
            "api": [dict(item) for item in self.api],
        }


@dataclass(frozen=True)
class Blast:
    """
    What came from a version, model or task.

    :param origin: The attempt that made it; None if no task did.
    :param aliases: Where aliases point at an affected model now, by the ledger.
    :param started: Runs that were started by an asset event of an affected task, and into which no bad data
        flowed.
    """

    root: Node
    origin: Node | None
    versions: tuple[Node, ...]
    predictions: tuple[Node, ...]
    models: tuple[Node, ...]
    evaluations: tuple[Node, ...]
    tasks: tuple[Node, ...]
    runs: tuple[AffectedRun, ...]
    aliases: tuple[Json, ...]
    started: tuple[Json, ...]
    commands: tuple[Command, ...]
    notes: tuple[str, ...] = ()
    hidden: int = 0
    truncated: bool = False

    def to_json(self) -> Json:
        """Give plain JSON."""
        groups = ("versions", "predictions", "models", "evaluations", "tasks", "runs", "commands")
        return {
            "root": self.root.id,
            "node": self.root.to_json(),
            "origin": None if self.origin is None else self.origin.to_json(),
            **{name: [item.to_json() for item in getattr(self, name)] for name in groups},
            "aliases": [dict(item) for item in self.aliases],
            "started": [dict(item) for item in self.started],
            "notes": list(self.notes),
            "hidden": self.hidden,
            "truncated": self.truncated,
        }


def blast_radius(lineage: Lineage, root: str, *, limit: int = 5000) -> Blast:
    """
    Say what came from a node, and what to run to make it again.

    :param root: The id of its node, see :meth:`Lineage.find`.
    :param limit: Look at so many nodes at most; the answer says if there are more.
    """
    graph = lineage.explore(root, direction="down", limit=limit, events=False)
    node = graph.node(root)
    if node is None:  # its DAG is not to be seen
        raise LookupError(f"{root!r} is not to be seen")
    origin = _origin(lineage, root, node)
    others = [each for each in graph.nodes if each.id != root]
    tasks = [each for each in others if each.kind == TASK]
    if node.kind == TASK:
        tasks.insert(0, node)
    runs = _runs_of(lineage, tasks, graph)
    versions = [each for each in others if each.kind == VERSION]
    started, more = _started(lineage, root, runs, limit)
    commands = [*_origin_commands(lineage, origin), *_commands(lineage, runs)]
    return Blast(
        root=node,
        origin=origin,
        versions=tuple(each for each in versions if not each.prediction),
        predictions=tuple(each for each in versions if each.prediction),
        models=tuple(each for each in others if each.kind == MODEL),
        evaluations=tuple(each for each in others if each.kind == EVALUATION),
        tasks=tuple(tasks),
        runs=tuple(runs),
        aliases=tuple(_aliases(lineage, [node, *others])),
        started=tuple(started),
        commands=tuple(commands),
        notes=tuple(_notes(graph, runs, commands)),
        hidden=graph.hidden,
        truncated=graph.truncated or more,
    )


def _origin(lineage: Lineage, root: str, node: Node) -> Node | None:
    if node.kind not in (VERSION, MODEL):
        return None
    above = lineage.explore(root, direction="up", depth=1, limit=20, events=False)
    return next((each for each in above.nodes if each.kind == TASK), None)


def _runs_of(lineage: Lineage, tasks: Iterable[Node], graph: Graph) -> list[AffectedRun]:
    """Group attempts by DAG run, the run that began first in front, and so its tasks."""
    found: dict[tuple[str, str], list[Node]] = {}
    for task in tasks:
        found.setdefault((str(task.dag_id), str(task.run_id)), []).append(task)
    ranks = {node.id: rank for rank, node in enumerate(graph.nodes)}
    runs = []
    for (dag_id, run_id), attempts in found.items():
        attempts.sort(key=lambda task: (_began(task), ranks.get(task.id, 0)))
        record: Mapping[str, Any] = next(
            (known for task in attempts if (known := lineage.record(task.id)) is not None), {}
        )
        run = record.get("run") or {}
        interval = record.get("data_interval")
        places = ((task.task_id, task.map_index) for task in attempts)
        instances = dict.fromkeys((str(name), -1 if index is None else index) for name, index in places)
        runs.append(
            AffectedRun(
                dag_id,
                run_id,
                tuple(dict.fromkeys(task_id for task_id, _ in instances)),
                tuple(instances),
                run_type=run.get("run_type"),
                logical_date=run.get("logical_date"),
                data_interval=(interval[0], interval[1]) if interval else None,
                effective_at=record.get("effective_at"),
                began_at=_began(attempts[0]),
            )
        )
    return sorted(runs, key=lambda run: (run.began_at or "", run.logical_date or "", run.run_id))


def _began(task: Node) -> str:
    return task.started_at or task.recorded_at or ""


def _started(lineage: Lineage, root: str, runs: Sequence[AffectedRun], limit: int) -> tuple[list[Json], bool]:
    """Return runs that asset events of what is affected started, and whether there are more."""
    graph = lineage.explore(root, direction="down", limit=limit)
    affected = {(run.dag_id, run.run_id) for run in runs}
    uris = {edge.target: graph.node(edge.source) for edge in graph.edges if edge.kind == "triggered"}
    found = []
    for node in graph.nodes:
        if node.kind == RUN and (node.dag_id, node.run_id) not in affected:
            event = uris.get(node.id)
            found.append(
                {"dag_id": node.dag_id, "run_id": node.run_id, "uri": None if event is None else event.uri}
            )
    return found, graph.truncated


def _aliases(lineage: Lineage, nodes: Iterable[Node]) -> Iterator[Json]:
    """Yield the aliases that point at one of these models now."""
    from airflow_ml_provider.tracking.ledger import Ledger

    ledger, now = Ledger(lineage.objects), datetime.now(UTC)
    bad: dict[str, set[str]] = {}
    ids = {node.model_id for node in nodes if node.kind == MODEL and node.model_id}
    for node in nodes:
        if node.kind == MODEL and node.registered_model_name:
            known = node.details.get("registered") or [f"{node.registered_model_name}/{node.version}"]
            for name, _, version in (each.rpartition("/") for each in known):
                bad.setdefault(name, set()).add(version)
    for name in sorted(bad):
        for alias in ledger.aliases_of(name):
            move = ledger.as_of(name, alias, now, clock="wall")
            if move is not None and (move.version in bad[name] or move.model_id in ids):
                yield {
                    "registered_model_name": name,
                    "alias": alias,
                    "version": move.version,
                    "since": move.effective_at.isoformat(),
                }


def _origin_commands(lineage: Lineage, origin: Node | None) -> Iterator[Command]:
    if origin is None:
        return
    for run in _runs_of(lineage, [origin], Graph(None, "down", (origin,), ())):
        for command in _clear([run], lineage):
            yield replace(command, purpose="origin")


def _commands(lineage: Lineage, runs: Sequence[AffectedRun]) -> Iterator[Command]:
    """Yield the commands for all runs: a DAG after the one whose results it used."""
    dags = dict.fromkeys(run.dag_id for run in runs)
    groups = [
        group for dag_id in dags for group in _groups(lineage, [run for run in runs if run.dag_id == dag_id])
    ]
    for group in groups:
        yield from _clear(group, lineage)
    for group in groups:
        yield from _backfill(group)


def _groups(lineage: Lineage, runs: Sequence[AffectedRun]) -> Iterator[list[AffectedRun]]:
    """
    Group runs that a range of dates selects, and no others.

    Their data intervals touch, so that no run of the schedule is between them, and no other run that left a
    record is.
    """
    dated = sorted((run for run in runs if run.logical_date), key=lambda run: str(run.logical_date))
    others = _other_dates(lineage, dated) if len(dated) > 1 else []
    group: list[AffectedRun] = []
    for run in dated:
        if group and not _follows(group[-1], run, others):
            yield group
            group = []
        group.append(run)
    if group:
        yield group
    yield from ([run] for run in runs if not run.logical_date)


def _follows(before: AffectedRun, run: AffectedRun, others: Sequence[str]) -> bool:
    if before.data_interval is None or run.data_interval is None:
        return False
    touch = before.data_interval[0] < before.data_interval[1] == run.data_interval[0]
    between = any(str(before.logical_date) < date < str(run.logical_date) for date in others)
    return touch and not between and set(before.tasks) == set(run.tasks)


def _other_dates(lineage: Lineage, runs: Sequence[AffectedRun]) -> list[str]:
    """Return the logical dates of the DAG's other runs that left records."""
    from airflow_ml_provider.lineage.index import runs_prefix

    own = {run.run_id for run in runs}
    found = [entry.key for entry in lineage.objects.list(runs_prefix(runs[0].dag_id))]
    unknown = [key for key in found if _run_id_in(key) not in own]
    entries = at_once(lineage.objects.get_json, unknown)
    return [str(entry["logical_date"]) for entry in entries if entry.get("logical_date")]


def _run_id_in(key: str) -> str | None:
    name = key.rpartition("/")[2].removesuffix(".json")
    return keys.text_of(name.partition("-")[2])


def _clear(group: Sequence[AffectedRun], lineage: Lineage) -> Iterator[Command]:
    first, last = group[0], group[-1]
    run_ids = tuple(run.run_id for run in group)
    api = tuple(_request(run) for run in group)
    recorded = {name for run in group for name in _recorded_tasks(lineage, run)}
    if not first.logical_date:
        more = sorted(recorded - set(first.tasks))
        notes = [f"clears the whole run, also {', '.join(more)}"] if more else ["clears the whole run"]
        if first.run_type == "asset_triggered":
            notes.append(
                "it reads what its events name, as it did; a task before it that emits its event again "
                "starts a new run"
            )
        whole = ("airflow", "dags", "clear", first.dag_id, "--run-id", first.run_id)
        yield Command("clear", first.dag_id, run_ids, first.tasks, whole, not more, "; ".join(notes), api)
        return
    for task_id in first.tasks:
        if any(other != task_id and other in task_id for other in first.tasks):
            continue  # the command for the other one takes this one too
        taken = tuple(other for other in first.tasks if task_id in other)
        also = sorted(name for name in recorded - set(first.tasks) if task_id in name)
        mapped = [name for name in taken if _is_partly_mapped(lineage, group, name)]
        notes = []
        if also:
            notes.append(f"also clears {', '.join(also)}, whose ids hold {task_id!r}")
        if mapped:
            notes.append(f"clears all mapped instances of {', '.join(mapped)}")
        argv = (
            *("airflow", "tasks", "clear", first.dag_id),
            *("--start-date", str(first.logical_date), "--end-date", str(last.logical_date)),
            *("--task-regex", task_id),
        )
        shown = "; ".join(notes) or None
        yield Command("clear", first.dag_id, run_ids, taken, argv, not notes, shown, api)


def _request(run: AffectedRun) -> Json:
    tasks: list[Any] = [
        task_id if map_index < 0 else [task_id, map_index] for task_id, map_index in run.instances
    ]
    return {
        "method": "POST",
        "path": f"/api/v2/dags/{quote(run.dag_id, safe='')}/clearTaskInstances",
        "json": {"dry_run": False, "only_failed": False, "dag_run_id": run.run_id, "task_ids": tasks},
    }


def _recorded_tasks(lineage: Lineage, run: AffectedRun) -> list[str]:
    folder = keys.run_records_prefix(run.dag_id, run.run_id).rstrip("/")
    return [name for each in lineage.objects.children(folder) if (name := keys.text_of(each)) is not None]


def _is_partly_mapped(lineage: Lineage, group: Sequence[AffectedRun], task_id: str) -> bool:
    for run in group:
        affected = {index for name, index in run.instances if name == task_id}
        if affected and min(affected) >= 0:
            place = (keys.segment(part) for part in (run.dag_id, run.run_id, task_id))
            found = {int(each) for each in lineage.objects.children("/".join(("records", *place)))}
            if found - affected:
                return True
    return False


def _backfill(group: Sequence[AffectedRun]) -> Iterator[Command]:
    """Yield a backfill of the data intervals of runs that a schedule made."""
    first, last = group[0], group[-1]
    if not first.logical_date or any(run.run_type not in _BACKFILLED for run in group):
        return
    yield Command(
        "backfill",
        first.dag_id,
        tuple(run.run_id for run in group),
        (),
        (
            *("airflow", "backfill", "create", "--dag-id", first.dag_id),
            *("--from-date", str(first.logical_date), "--to-date", str(last.logical_date)),
            *("--reprocess-behavior", "completed"),
        ),
        exact=False,
        note="in place of the clears of this DAG: it runs every task of these runs, and moves no alias",
    )


def _notes(graph: Graph, runs: Sequence[AffectedRun], commands: Sequence[Command]) -> Iterator[str]:
    if graph.truncated:
        yield f"only the first {len(graph.nodes)} nodes were looked at; there is more"
    if graph.hidden:
        yield f"{graph.hidden} more are in DAGs that you may not see; what came from those was not followed"
    if gone := sum(1 for node in graph.nodes if node.missing):
        yield f"{gone} of them are broken links: what came from those is known only as far as records tell"
    if len({run.dag_id for run in runs}) > 1:
        yield "run the commands in this order, each DAG's after the runs of the DAG before have ended"
    if any(not command.exact for command in commands if command.purpose == "clear"):
        yield "where a command clears more than what is affected, its REST request clears exactly that"


def _shown(task_id: str, map_index: int) -> str:
    return task_id if map_index < 0 else f"{task_id}[{map_index}]"
