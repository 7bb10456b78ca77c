# SPDX-License-Identifier: Apache-2.0
"""
Records that are old enough to go, with all that leads to them.

A run is as old as its last record: what is cleared and runs again is young. The edges to a record go before
it: no walk over lineage meets an edge to nothing, and the next collection goes on with an interrupted one.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.collection import BATCH, Decision, span
from airflow_ml_provider.artifacts.objects import at_once
from airflow_ml_provider.exceptions import ArtifactCorruptError, ArtifactNotFoundError
from airflow_ml_provider.lineage.index import places_of
from airflow_ml_provider.lineage.records import edges_of, key_of

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.objects import ObjectInfo, ObjectStore


def old_records(
    objects: ObjectStore, *, kept_for: timedelta, now: datetime, needed: Callable[[str], str | None]
) -> Iterator[Decision]:
    """
    Decide about the records of runs that wrote none for a while; younger ones are not mentioned.

    Lists all records and reads none.

    :param kept_for: How long.
    :param now: Wall clock, with a zone.
    :param needed: Returns why a record stays all the same, by its key.
    """
    for _, entries in itertools.groupby(objects.list("records"), lambda entry: keys.run_of_record(entry.key)):
        of_run: list[ObjectInfo] = list(entries)
        age = now - max(entry.modified for entry in of_run)
        if age <= kept_for:
            continue
        for entry in of_run:
            why = needed(entry.key)
            gone = f"the last record of its run is {span(age)} old, and {span(kept_for)} are kept"
            yield Decision("record", entry.key, entry.size_bytes, why is None, why or gone)


def forget(objects: ObjectStore, decisions: Iterable[Decision]) -> list[Decision]:
    """
    Remove records, the edges to them, and what lists show of their runs when no record of a run stays.

    Which model a registered version is and what promotions decided stays.

    :param decisions: What :func:`old_records` said of all records of each run.
    :returns: What went. A record that cannot be read stays.
    :raises StoreError: if the storage refuses. What is done stays done.
    """
    gone: list[Decision] = []
    for batch in _batches(decisions):
        going = [item for item in batch if item.goes]
        read = zip(going, at_once(lambda item: _read(objects, item.key), going), strict=True)
        known = {item.key: doc for item, doc in read if doc is not None}
        stay: dict[str, set[str]] = defaultdict(set)
        for item in batch:
            if item.key not in known:
                stay[keys.run_of_record(item.key)].add(item.key)
        doomed = {
            key for own, doc in known.items() for key in _leading_to(doc, stay[keys.run_of_record(own)])
        }
        objects.delete(sorted(doomed))
        objects.delete(sorted(known))
        gone += [item for item in going if item.key in known]
    return gone


def _batches(decisions: Iterable[Decision]) -> Iterator[list[Decision]]:
    """Put whole runs together, so that many go in few requests."""
    batch: list[Decision] = []
    for _, of_run in itertools.groupby(decisions, lambda item: keys.run_of_record(item.key)):
        batch += of_run
        if len(batch) >= BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _leading_to(record: dict[str, Any], stay: set[str]) -> Iterator[str]:
    """Name what goes with a record where some others of its run stay."""
    for key, _ in edges_of(record):
        kind = key.partition("/")[0]
        if kind != "registered" and not (kind == "events" and stay):
            yield key
    places = places_of(record)
    if places is None:
        return
    of_run, measured = places
    if not stay:
        yield of_run
    if not any(_instance_of(key) == _instance_of(key_of(record)) for key in stay):
        yield measured


def _read(objects: ObjectStore, key: str) -> dict[str, Any] | None:
    try:
        found = objects.get_json(key)
        if isinstance(found, dict) and key_of(found) == key:
            list(edges_of(found))  # says whether it can be read
            return found
    except (ArtifactNotFoundError, ArtifactCorruptError, KeyError, TypeError, ValueError):
        pass
    return None


def _instance_of(key: str) -> str:
    return key.rpartition("/")[0]
