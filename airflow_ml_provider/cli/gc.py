# SPDX-License-Identifier: Apache-2.0
"""``airflow ml gc``: remove versions that retention lets go, and content that nobody refers to."""

from __future__ import annotations

import sys
from argparse import Namespace
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.configuration import conf

from airflow_ml_provider.artifacts.collection import Decision, Plan, Retention, Totals, execute, plan
from airflow_ml_provider.artifacts.refs import PASSING
from airflow_ml_provider.cli.console import FAILED, command, say, show_rows, working
from airflow_ml_provider.cli.protection import Needed
from airflow_ml_provider.lineage.expiry import forget, old_records

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.objects import ObjectStore


@command
def collect_garbage(args: Namespace) -> int:
    """Say what goes and why; with ``--delete``, remove it."""
    from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook

    policy = Retention(
        keep_last=args.keep_last,
        keep_for=None if args.keep_days is None else timedelta(days=args.keep_days),
        include=tuple(args.name or ("*",)),
        exclude=tuple(args.exclude or ()),
        passing=(f"{PASSING}*",),
        passing_for=_checkpoints_are_kept_for(args.checkpoint_days),
        grace=timedelta(hours=args.grace_hours),
    )
    store = ArtifactStoreHook().store
    needed = Needed(store.objects, strict=args.delete, models=policy.lets_go)
    with working("Looking at all versions and contents"):
        found = plan(store.objects, store.signer, policy=policy, protected=needed.version)

    decisions = list(found.decisions)
    records: list[Decision] = []
    if args.records_days is not None:
        with working("Looking at all records"):
            records = _old_records(store.objects, found, needed, policy, args.records_days)
    decisions += records
    rows = [_row(item) for item in decisions if args.verbose or item.goes or item.problem]
    words = "" if args.records_days is None else f", {sum(item.goes for item in records)} records"
    stay = _count(found.totals(goes=False))
    problems = list(found.problems)
    if args.delete:
        needed.look_again()  # a run may have been cleared, or an alias moved, while all was read
        with working(f"Removing {_count(found.totals())}{words}"):
            outcome = execute(found)
            gone = forget(store.objects, records)
        problems += _unreadable(store.objects, records, gone)
        words = words and f", {len(gone)} records"
        _show(rows, args.output)
        say(
            f"removed {_count(outcome.removed)}{words}; {stay} stay; "
            f"{_bytes(outcome.freed_bytes)} are free now, what went to the trash is after the grace period, "
            "by a later gc"
        )
        for key in outcome.restored:
            say(f"{key} was put back: a version refers to it")
    else:
        _show(rows, args.output)
        say(f"{_count(found.totals())}{words} would go, {stay} stay; nothing was deleted, --delete does it")
    for item in problems:
        say(f"look at {item.key}: {item.reason}")
    return FAILED if problems else 0


def _old_records(
    objects: ObjectStore, found: Plan, needed: Needed, policy: Retention, days: float
) -> list[Decision]:
    """Decide about the records of old runs; what wrote a version that stays is needed."""
    makers = found.makers_of_kept()

    def why(key: str) -> str | None:
        return "it wrote a version that stays" if key in makers else needed.record(key)

    kept_for = max(timedelta(days=days), policy.grace)
    return list(old_records(objects, kept_for=kept_for, now=datetime.now(UTC), needed=why))


def _unreadable(objects: ObjectStore, records: list[Decision], gone: list[Decision]) -> list[Decision]:
    """Name the records that should have gone and are there; of two collections one removes each."""
    went = {item.key for item in gone}
    return [
        replace(item, reason="it is no record, or damaged, and stays", problem=True)
        for item in records
        if item.goes and item.key not in went and objects.exists(item.key)
    ]


def _row(item: Decision) -> dict[str, Any]:
    return {
        "kind": item.kind,
        "decision": "goes" if item.goes else "stays",
        "object": item.key,
        "size_bytes": item.size_bytes,
        "reason": item.reason,
    }


def _show(rows: list[dict[str, Any]], output: str) -> None:
    show_rows(rows, output)
    sys.stdout.flush()  # the totals come after it on a terminal too


def _count(totals: Totals) -> str:
    return f"{totals.versions} versions, {totals.blobs} blobs, {_bytes(totals.bytes)}"


def _bytes(number: int) -> str:
    return f"{number:,} bytes"


def _checkpoints_are_kept_for(days: float | None) -> timedelta | None:
    """As asked; else as long as Airflow remembers them. It is told to do that for ever by 0."""
    if days is not None:
        return timedelta(days=days)
    remembered = conf.getint("state_store", "default_retention_days", fallback=30)
    return timedelta(days=remembered) if remembered else None
