# SPDX-License-Identifier: Apache-2.0
"""``airflow ml cache``: why a task computed or did not, and what to forget."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from airflow_ml_provider.caching.entries import Cache
from airflow_ml_provider.caching.key import CacheKey, changes
from airflow_ml_provider.cli.console import (
    WrongArgumentsError,
    command,
    one_line,
    say,
    show_document,
    show_rows,
    tracked,
)
from airflow_ml_provider.client import MLClient
from airflow_ml_provider.exceptions import ArtifactNotFoundError

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.refs import Producer
    from airflow_ml_provider.caching.entries import Entry
    from airflow_ml_provider.lineage.records import TaskRecord

_SHOWN_KEY = 12


@command
def explain_cache(args: Namespace) -> int:
    """Print what a task reused or computed lately and why, and what of its key differs from the last one."""
    client = MLClient()
    cache = Cache(client.store)
    decided = list(_decisions(client, args))
    last = cache.last(args.dag_id, args.task_id, args.map_index)
    if last is None and not decided:
        raise ArtifactNotFoundError(
            f"{_task(args)} computed nothing that the cache remembers; is it marked @ml.cached, and did it "
            "run? Of a mapped task choose one by --map-index"
        )
    entry = None if last is None else cache.get(last["key"])
    document: dict[str, Any] = {
        "dag_id": args.dag_id,
        "task_id": args.task_id,
        "map_index": args.map_index,
        "last": last and {name: last[name] for name in ("key", "producer", "recorded_at")},
        "entry": entry and {**_row(entry, cache), "missing": cache.missing(entry)},
        **_compared(args, cache, decided, last),
        "runs": decided,
    }
    if args.output in ("table", "plain"):
        _tell(document, args.output)
    else:
        show_document(document, args.output)
    return 0


@command
def clear_cache(args: Namespace) -> int:
    """Say which entries would be forgotten; with ``--delete``, forget them."""
    if not (args.all or args.dag or args.task or args.name or args.older_than_days is not None):
        raise WrongArgumentsError(
            "say which entries: --dag, --task, --name, --older-than-days, or --all for the whole cache"
        )
    cache = Cache(MLClient().store)
    number = len(cache.keys())
    chosen = [
        entry
        for entry in tracked(cache.entries(), "Reading the cache", number)
        if _is_chosen(entry, cache, args)
    ]
    rows = [_row(entry, cache) for entry in chosen]
    if args.output in ("table", "plain"):
        rows = [
            {**row, "key": row["key"][:_SHOWN_KEY], "producer": entry.producer}
            for row, entry in zip(rows, chosen, strict=True)
        ]
    show_rows(rows, args.output)
    if args.delete:
        cache.forget(chosen)
        say(f"forgot {len(chosen)} of {number} entries; their tasks compute again when they run next")
    else:
        say(f"{len(chosen)} of {number} entries would be forgotten; nothing was deleted, --delete does it")
    return 0


def _is_chosen(entry: Entry, cache: Cache, args: Namespace) -> bool:
    producer = entry.producer
    if args.dag and not _matches(producer.dag_id, args.dag):
        return False
    if args.task and not _matches(producer.task_id, args.task):
        return False
    if args.older_than_days is not None:
        age = datetime.now(UTC) - entry.recorded_at
        if age < timedelta(days=args.older_than_days):
            return False
    return not args.name or any(_matches(name, args.name) for name in cache.names_in(entry))


def _matches(text: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def _row(entry: Entry, cache: Cache) -> dict[str, Any]:
    return {
        "key": entry.key,
        "producer": _producer(entry.producer),
        "recorded_at": entry.recorded_at.isoformat(timespec="seconds"),
        "seconds": entry.seconds,
        "artifacts": cache.names_in(entry),
    }


def _producer(producer: Producer) -> dict[str, Any]:
    return {
        name: getattr(producer, name) for name in ("dag_id", "run_id", "task_id", "map_index", "try_number")
    }


def _task(args: Namespace) -> str:
    mapped = f"[{args.map_index}]" if args.map_index >= 0 else ""
    return f"{args.dag_id}.{args.task_id}{mapped}"


def _decisions(client: MLClient, args: Namespace) -> Iterator[dict[str, Any]]:
    """Yield what was decided in the latest runs, by their records."""
    runs = [run.run_id for run in client._pages(client.queries.runs, args.dag_id, limit=args.limit)]
    if args.run and args.run not in runs:
        runs.append(args.run)
    for run_id in tracked(runs, "Reading records"):
        for record in client.queries.attempts(args.dag_id, run_id, args.task_id, args.map_index):
            if record.cached:
                yield _decision(record, record.cached)


def _decision(record: TaskRecord, cached: dict[str, Any]) -> dict[str, Any]:
    return {
        "run_id": record.run_id,
        "try_number": record.try_number,
        "outcome": record.outcome,
        "hit": bool(cached.get("hit")),
        "why": cached.get("why", ""),
        "key": cached.get("key"),
        "recorded_at": record.recorded_at.isoformat(timespec="seconds"),
    }


def _compared(
    args: Namespace, cache: Cache, decided: list[dict[str, Any]], last: dict[str, Any] | None
) -> dict[str, Any]:
    """Compare the key of a run, or the code of now, with the last key that was computed under."""
    if last is None:
        return {"compared": None, "differences": None, "unknown": []}
    if args.run is None:
        return _compared_with_now(args, last)
    key = next((each["key"] for each in decided if each["run_id"] == args.run and each["key"]), None)
    if key is None:
        raise ArtifactNotFoundError(
            f"{_task(args)} left no record of a cache decision in run {args.run!r}; runs: airflow ml runs "
            f"list {args.dag_id}"
        )
    if key == last["key"]:
        return {"compared": f"run {args.run}", "differences": [], "unknown": []}
    entry = cache.get(key)
    if entry is None:
        say(
            f"the entry of run {args.run} is gone, and the parts of its key with it; the list says why it ran"
        )
        return {"compared": f"run {args.run}", "differences": None, "unknown": []}
    differences = changes(CacheKey(last["parts"], last["shown"]), entry.parts, entry.shown)
    return {"compared": f"run {args.run}", "differences": differences, "unknown": []}


def _compared_with_now(args: Namespace, last: dict[str, Any]) -> dict[str, Any]:
    from airflow_ml_provider.decorators.cached import CacheLayer
    from airflow_ml_provider.decorators.stacking import layers_of

    task = _find_task(args.dag_id, args.task_id)
    layers: tuple[Any, ...] = () if task is None else layers_of(task.operator_class)
    layer = next((each for each in layers if isinstance(each, CacheLayer)), None)
    if layer is None:
        if task is not None:
            say(f"{_task(args)} is not marked @ml.cached any more")
        return {"compared": None, "differences": None, "unknown": []}
    now = layer.code_key(task)
    # Arguments are known when the task runs; the rest is known here.
    known = {name: part for name, part in last["parts"].items() if name in now.parts or _is_code(name)}
    return {
        "compared": "now",
        "differences": changes(now, known, last["shown"]),
        "unknown": list(now.unknown),
    }


def _is_code(part: str) -> bool:
    return part.partition(" ")[0] in (
        "function",
        "class",
        "constant",
        "module",
        "file",
        "environment",
        "code",
    )


def _find_task(dag_id: str, task_id: str) -> Any | None:
    """Return a task as the DAG files of this machine have it; None, with a word, if they do not."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import BundleDagBag
    from airflow.sdk.definitions._internal.dag_parsing_context import _airflow_parsing_context_manager

    for bundle in DagBundlesManager().get_all_dag_bundles():
        try:
            bundle.initialize()
            with _airflow_parsing_context_manager(dag_id=dag_id):
                bag = BundleDagBag(dag_folder=bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)
        except Exception as exc:  # noqa: BLE001 - a bundle is anybody's code; the records are shown anyway
            say(f"the DAG bundle {bundle.name!r} cannot be read here: {one_line(exc)}")
            continue
        dag = bag.dags.get(dag_id)
        if dag is not None and task_id in dag.task_dict:
            return dag.get_task(task_id)
    say(f"{dag_id}.{task_id} is not in the DAG files of this machine, so its code is not compared with now's")
    return None


def _tell(document: dict[str, Any], output: str) -> None:
    runs = [{**run, "key": (run["key"] or "")[:_SHOWN_KEY]} for run in document["runs"]]
    show_rows(runs, output)
    last, entry = document["last"], document["entry"]
    if last is not None:
        who = last["producer"]
        print(
            f"last computed in run {who['run_id']}, try {who['try_number']}, under {last['key'][:_SHOWN_KEY]}"
        )
        if entry is None:
            print("that result is no longer in the cache")
        elif entry["missing"]:
            print(f"that result is not whole any more: {len(entry['missing'])} of its contents are gone")
        else:
            print(
                f"that result is in the cache: {', '.join(entry['artifacts']) or 'a value without artifacts'}"
            )
    if document["differences"]:
        print(f"against that, {document['compared']} differs in:")
        for difference in document["differences"]:
            print(f"  {difference}")
    elif document["differences"] is not None:
        now = document["compared"] == "now"
        print(
            "code, version, files and environment of now are those of it; arguments count when the task runs"
            if now
            else f"{document['compared']} has the same key"
        )
    for unknown in document["unknown"]:
        print(f"not part of the key: {unknown}")
