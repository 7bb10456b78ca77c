# SPDX-License-Identifier: Apache-2.0
"""``airflow ml runs``: what runs of a DAG measured, and what differs between them."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from airflow_ml_provider.cli.console import command, say, show_document, show_rows
from airflow_ml_provider.client import MLClient
from airflow_ml_provider.exceptions import ArtifactNotFoundError
from airflow_ml_provider.lineage.comparison import Compared, compare

if TYPE_CHECKING:
    from airflow_ml_provider.lineage.answers import Measured, Run
    from airflow_ml_provider.lineage.records import TaskRecord

_SHOWN_METRICS = 6


@command
def list_runs(args: Namespace) -> int:
    """Print the latest runs of a DAG that left records, and what they measured."""
    client = MLClient()
    runs, measured = client.runs_and_measured(args.dag_id, limit=args.limit + 1)
    if not runs:
        raise ArtifactNotFoundError(_no_run(client, args.dag_id))
    rows = [_row(run, measured[run.run_id], people=_for_people(args)) for run in runs[: args.limit]]
    show_rows(rows, args.output)
    if len(runs) > args.limit:
        say(f"there are more than {args.limit}; use --limit")
    return 0


@command
def compare_runs(args: Namespace) -> int:
    """Print what differs between runs: parameters, metrics, versions, models, code, environment."""
    client = MLClient()
    run_ids = list(dict.fromkeys(args.run_id))
    if len(run_ids) < 2:
        run_ids = _with_the_one_before(client, args.dag_id, run_ids)
    records = [_records(client, args.dag_id, run_id) for run_id in run_ids]
    found = [each for each in compare(records) if args.all or not each.same]
    if _for_people(args):
        show_rows([_line(each, run_ids) for each in found], args.output)
    else:
        document = {"dag_id": args.dag_id, "runs": run_ids, "rows": [each.to_json() for each in found]}
        show_document(document, args.output)
    if not found:
        say("no difference is on record")
    return 0


def _for_people(args: Namespace) -> bool:
    return args.output in ("table", "plain")


def _row(run: Run, measured: list[Measured], *, people: bool) -> dict[str, Any]:
    if not people:
        return {**run.to_json(), "measured": [row.to_json() for row in measured]}
    metrics = [
        f"{_task(row.task_id, row.map_index)}.{name}={value:.6g}"
        for row in measured
        for name, value in row.metrics.items()
    ]
    more = f", and {len(metrics) - _SHOWN_METRICS} more" if len(metrics) > _SHOWN_METRICS else ""
    return {
        "run_id": run.run_id,
        "run_type": run.run_type,
        "effective_at": run.effective_at and run.effective_at.isoformat(),
        "metrics": ", ".join(metrics[:_SHOWN_METRICS]) + more,
    }


def _line(each: Compared, run_ids: list[str]) -> dict[str, Any]:
    return {
        "task": _task(each.task_id, each.map_index),
        "what": each.what,
        "name": each.name,
        **{run_id: _short(value) for run_id, value in zip(run_ids, each.values, strict=True)},
    }


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def _task(task_id: str, map_index: int) -> str:
    return task_id if map_index < 0 else f"{task_id}[{map_index}]"


def _with_the_one_before(client: MLClient, dag_id: str, run_ids: list[str]) -> list[str]:
    """Choose the runs to compare: the latest two, or the one that is named and the one before it."""
    known: list[str] = []
    cursor = None
    while True:
        page = client.queries.runs(dag_id, limit=200, cursor=cursor)
        known.extend(run.run_id for run in page.items)
        at = known.index(run_ids[0]) if run_ids and run_ids[0] in known else None if run_ids else 0
        cursor = page.cursor
        if (at is not None and at + 1 < len(known)) or cursor is None:
            break
    if not known:
        raise ArtifactNotFoundError(_no_run(client, dag_id))
    if at is None:
        raise ArtifactNotFoundError(
            f"{dag_id} has no records of the run {run_ids[0]!r}; airflow ml runs list"
        )
    if at + 1 >= len(known):
        raise ArtifactNotFoundError(f"{known[at]!r} is the first run of {dag_id} on record: name another run")
    return [known[at + 1], known[at]]


def _records(client: MLClient, dag_id: str, run_id: str) -> list[TaskRecord]:
    found = client.records(dag_id, run_id, limit=10_000)
    if not found:
        raise ArtifactNotFoundError(
            f"{dag_id} left no records of the run {run_id!r}; runs: airflow ml runs list {dag_id}"
        )
    return found


def _no_run(client: MLClient, dag_id: str) -> str:
    known = client.queries.dags()
    shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    return f"no run of the DAG {dag_id!r} left a record; DAGs with records: {shown or 'none'}"
