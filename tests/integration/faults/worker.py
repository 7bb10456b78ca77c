# SPDX-License-Identifier: Apache-2.0
"""
A process that saves, reads or collects: ``python -m ... <what> <root> <name> <JSON of options> <seconds>``.

It says ``ready`` and begins when it is told to. Collections run ten minutes ahead of the clock with a grace
period of five, so that what was just written is old to them, and what they take away stays in the trash.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime, timedelta

import numpy as np

from airflow_ml_provider.artifacts.collection import Retention, execute, plan
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import ArtifactNotFoundError
from tests.integration.faults.values import KEY, assert_same, made, name_of

KINDS = ("frame", "tree", "bytes", "array", "table")


def save(store: ArtifactStore, name: str, end: float) -> int:
    """The same contents again and again, each loaded at once."""
    count = 0
    while time.monotonic() < end:
        for number in range(5):
            for kind in KINDS:
                value = made(kind, number, None)  # type: ignore[arg-type]
                ref = store.save(value, f"{name}.{name_of(kind, number)}")
                assert_same(kind, number, store.load(ref))
                count += 1
    return count


def read(store: ArtifactStore, name: str, end: float) -> int:
    """Whatever is the newest version of each name."""
    count = 0
    while time.monotonic() < end:
        for number in range(5):
            for kind in KINDS:
                try:
                    ref = store.get(f"{name}.{name_of(kind, number)}")
                except ArtifactNotFoundError:
                    continue  # not saved yet
                assert_same(kind, number, store.load(ref))
                count += 1
    return count


def collect(store: ArtifactStore, name: str, end: float) -> int:
    count = 0
    policy = Retention(keep_last=1, grace=timedelta(minutes=5))
    while time.monotonic() < end:
        then = datetime.now(UTC) + timedelta(minutes=10)
        outcome = execute(plan(store.objects, store.signer, policy=policy, now=then), now=then)
        count += outcome.removed.blobs + outcome.removed.versions + len(outcome.restored)
    return count


def save_once(store: ArtifactStore, name: str, end: float) -> int:
    """Content of 3 MB, or as many as the name says."""
    value = np.random.default_rng(0).bytes(int(name.partition("-")[2] or 3) * 1_000_000)
    assert store.save(value, name).load() == value
    return 1


if __name__ == "__main__":
    store = ArtifactStore(sys.argv[2], signing_key=KEY, options=json.loads(sys.argv[4]))
    print("ready", flush=True)
    sys.stdin.readline()
    work = {"save": save, "read": read, "collect": collect, "save_once": save_once}[sys.argv[1]]
    print(work(store, sys.argv[3], time.monotonic() + float(sys.argv[5])))
