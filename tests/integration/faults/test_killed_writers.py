# SPDX-License-Identifier: Apache-2.0
"""Writers that die by SIGKILL in the middle of a save leave whole values, and leftovers that gc finds."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.collection import Retention, execute, plan
from airflow_ml_provider.artifacts.digest import digest_of
from airflow_ml_provider.artifacts.store import ArtifactStore
from tests.integration.faults.values import KEY, assert_same
from tests.integration.faults.writer_to_kill import CALLS
from tests.support import fault_proxy, seaweed

PROJECT = Path(__file__).parents[3]
SEED = 20130514


class Writers:
    """Writers one after the other, each in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start(
        self, root: str, options: dict[str, Any], *, first: int, dies_in: str = "", count: int = 0
    ) -> int:
        """Let a writer begin; returns its process id."""
        order = {"root": root, "options": options, "first": first, "dies_in": dies_in, "count": count}
        assert self._process.stdin
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._line())

    def end(self) -> str:
        """Wait until the writer is dead, and return in which call to the operating system it died."""
        how, _, where = self._line().partition(" ")
        assert how == "SIGKILL", f"the writer ended by itself: {how}"
        return where

    def _line(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, "the process of the writers ended"
        return line.strip()


@pytest.fixture(scope="module")
def writers() -> Iterator[Writers]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.integration.faults.writer_to_kill"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
    ) as process:
        yield Writers(process)
        assert process.stdin
        process.stdin.close()


def check(store: ArtifactStore, seen: set[str]) -> None:
    """Load every version that was not seen before, and compare every content with its name."""
    for entry in store.objects.list("versions"):
        if entry.key in seen:
            continue
        seen.add(entry.key)
        ref = store._manifest(entry.key)
        kind, _, number = ref.name.partition(".")
        if number.isdigit():  # a part of a tree is named after it
            assert_same(kind, int(number), store.load(ref))
        else:
            store.load(ref)
    for entry in store.objects.list("blobs"):
        if entry.key not in seen:
            seen.add(entry.key)
            assert keys.blob_key(digest_of([memoryview(store.objects.get(entry.key))])) == entry.key


def test_a_writer_killed_at_any_call_leaves_no_half_value(tmp_path: Path, writers: Writers) -> None:
    rng = random.Random(SEED)  # noqa: S311
    root = tmp_path / "root"
    store = ArtifactStore(root.as_uri(), signing_key=KEY)
    died_in: Counter[str] = Counter()
    seen: set[str] = set()
    leftovers: set[str] = set()
    for call in CALLS * 6:
        writers.start(root.as_uri(), {}, first=rng.randrange(30), dies_in=call, count=rng.randrange(1, 8))
        died_in[writers.end()] += 1
        check(store, seen)

        now = {f".tmp/{path.name}" for path in (root / ".tmp").glob("*")}
        found = plan(store.objects, store.signer, policy=Retention())
        assert {item.key for item in found.decisions if item.kind == "unfinished"} == now
        assert not found.problems
        leftovers |= now
        assert_same("bytes", 1, store.save(b"content 1", "after").load())

    assert died_in == dict.fromkeys(CALLS, 6)
    assert len(leftovers) >= 20
    assert len(seen) >= 40
    then = datetime.now(UTC) + timedelta(days=2)
    outcome = execute(plan(store.objects, store.signer, policy=Retention(), now=then), now=then)
    assert outcome.freed_bytes > 0
    assert not list((root / ".tmp").glob("*"))
    check(store, set())


@pytest.mark.s3
def test_a_writer_killed_in_any_request_leaves_no_half_value(tmp_path: Path, writers: Writers) -> None:
    rng = random.Random(SEED)  # noqa: S311
    ways = ("half sent", "", "reset before", "lost answer")
    hit: Counter[str] = Counter()
    seen: set[str] = set()
    with (
        seaweed.running(tmp_path / "seaweed") as server,
        fault_proxy.in_front_of(server.endpoint_url) as proxy,
    ):
        store = ArtifactStore(server.root("kills"), signing_key=KEY, options=server.options)
        options = {**server.options, "endpoint_url": proxy.endpoint_url}
        for number in range(16):
            way, pid = ways[number % 4], [0]

            def kill(request: fault_proxy.Request, way: str = way, pid: list[int] = pid) -> None:
                hit[f"{request.operation} {way}".strip()] += 1
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid[0], signal.SIGKILL)

            with proxy.holding():  # until it is known whom to kill
                proxy.at(rng.randrange(1, 25), kill, way)
                pid[0] = writers.start(store.objects.root, options, first=rng.randrange(30))
            writers.end()
            proxy.heal()
            check(store, seen)
            assert_same("bytes", 1, store.save(b"content 1", "after").load())
        then = datetime.now(UTC) + timedelta(days=2)
        execute(plan(store.objects, store.signer, policy=Retention(), now=then), now=then)
        check(store, set())

    assert sum(hit.values()) == 16, hit
    assert sum(count for name, count in hit.items() if name.startswith("put ")) >= 10, hit
    assert any(name.endswith("half sent") for name in hit), hit
