# SPDX-License-Identifier: Apache-2.0
"""Writers, readers and collections in processes of their own, at the same moment."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_ml_provider.artifacts import keys, trash
from airflow_ml_provider.artifacts.collection import Outcome, Retention, execute, plan
from airflow_ml_provider.artifacts.refs import ArtifactRef
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import ArtifactNotFoundError
from tests.integration.faults.values import KEY
from tests.support import seaweed
from tests.support.fault_proxy import FaultProxy, Request

PROJECT = Path(__file__).parents[3]


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, Any]]:
    """The root and the options of an empty store."""
    if request.param == "file":
        return (tmp_path / "root").as_uri(), {}
    server: seaweed.S3Server = request.getfixturevalue("server")
    return server.root(f"at-once/{keys.segment(request.node.name)}"), server.options


def at_once(place: tuple[str, dict[str, Any]], *work: tuple[str, str], seconds: float = 0) -> list[int]:
    """Start a process for each, let them begin together, and return how much each did."""
    root, options = place
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.integration.faults.worker"),
                *(what, root, name, json.dumps(options), str(seconds)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
        )
        for what, name in work
    ]
    try:
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        ended = [process.communicate(timeout=100) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, (_, errors) in zip(processes, ended, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [int(printed) for printed, _ in ended]


def opened(place: tuple[str, dict[str, Any]]) -> ArtifactStore:
    return ArtifactStore(place[0], signing_key=KEY, options=place[1])


def collected(store: ArtifactStore, days: float) -> Outcome:
    then = datetime.now(UTC) + timedelta(days=days)
    found = plan(store.objects, store.signer, policy=Retention(keep_last=1), now=then)
    return execute(found, now=then)


@pytest.mark.parametrize("megabytes", [1, 70], ids=["at once", "in parts"])
def test_writers_of_one_content_at_the_same_moment_share_it(
    place: tuple[str, dict[str, Any]], megabytes: int
) -> None:
    names = [f"{name}-{megabytes}" for name in ("one", "two")]
    at_once(place, *[("save_once", name) for name in names])

    store = opened(place)
    refs = [store.get(name) for name in names]
    assert refs[0].digest == refs[1].digest
    assert refs[0].load() == refs[1].load()
    assert len(list(store.objects.list("blobs"))) == 1


def test_nobody_misses_a_value_while_collections_run(place: tuple[str, dict[str, Any]]) -> None:
    did = at_once(
        place, ("save", "a"), ("save", "b"), ("read", "a"), ("collect", ""), ("collect", ""), seconds=6
    )

    assert min(did) > 0, did
    assert did[3] + did[4] >= 5, did  # the collections had something to take away
    assert did[2] >= 5, did


def test_what_is_published_after_a_collection_took_its_content_loads_at_once(
    place: tuple[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A save found its content in place, then a collection took it away, then the save published."""
    store, collector = opened(place), opened(place)
    value = [b"content" * 50_000, {1, 2}]
    store.save(value, "flights")
    store.save(b"new", "flights")
    found_it, took_it = threading.Event(), threading.Event()
    put_json = store.objects.put_json

    def late(key: str, doc: Any, create_only: bool = True) -> bool:
        found_it.set()
        assert took_it.wait(30)
        return put_json(key, doc, create_only)

    monkeypatch.setattr(store.objects, "put_json", late)
    refs: list[ArtifactRef] = []
    saver = threading.Thread(target=lambda: refs.append(store.save(value, "late")))
    saver.start()
    assert found_it.wait(30)
    assert collected(collector, days=10).removed.blobs >= 1
    took_it.set()
    saver.join()

    (ref,) = refs
    blob = keys.blob_key(ref.digest)
    assert not store.objects.exists(blob)
    assert store.load(ref) == value
    with store.open(ref) as file:
        assert len(file.read()) == ref.size_bytes
    # Nothing that a kept version needs is deleted, however late the next collection comes.
    assert blob in collected(collector, days=30).restored
    assert store.objects.exists(blob)
    collected(collector, days=60)
    assert not list(store.objects.list("trash"))
    assert store.load(ref) == value


@pytest.mark.s3
def test_a_collection_between_the_copy_and_the_deletion_of_another_loses_nothing(
    server: seaweed.S3Server, proxy: FaultProxy, direct: ArtifactStore
) -> None:
    """On S3 a move is two requests. Another collection that puts content back may come between them."""
    options = {**server.options, "endpoint_url": proxy.endpoint_url}
    slow = ArtifactStore(direct.objects.root, signing_key=KEY, options=options)
    direct.save(b"again", "flights")
    direct.save(b"new", "flights")
    refs: list[ArtifactRef] = []

    def in_between(request: Request) -> None:
        proxy.before("delete", with_content)  # the first deletion was of manifests

    def with_content(request: Request) -> None:
        refs.append(direct.save(b"again", "late"))
        collected(direct, days=10)

    proxy.before("delete", in_between)
    collected(slow, days=10)

    (ref,) = refs
    assert ref.load() == b"again"
    collected(direct, days=12)
    assert ref.load() == b"again"
    collected(direct, days=14)
    assert direct.objects.exists(keys.blob_key(ref.digest))
    assert ref.load() == b"again"


def test_a_reader_follows_content_that_is_put_back_between_its_two_looks(
    place: tuple[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(place)
    ref = store.save(b"content", "flights")
    blob, taken = keys.blob_key(ref.digest), trash.key_of(ref.digest, datetime.now(UTC))
    assert store.objects.move(blob, taken)
    find: Callable[..., Any] = trash.find

    def put_back_first(*args: Any) -> Any:
        store.objects.move(taken, blob)
        return find(*args)

    with monkeypatch.context() as patched:
        patched.setattr(trash, "find", put_back_first)
        assert ref.load() == b"content"

    def put_back_after(*args: Any) -> Any:
        found = find(*args)
        store.objects.move(taken, blob)
        return found

    assert store.objects.move(blob, taken)
    with monkeypatch.context() as patched:
        patched.setattr(trash, "find", put_back_after)
        assert ref.load() == b"content"

    store.objects.delete([blob, taken])
    with pytest.raises(ArtifactNotFoundError, match="gone"):
        ref.load()
