# SPDX-License-Identifier: Apache-2.0
"""Garbage collection on a real S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from airflow_ml_provider.artifacts import keys, objects
from airflow_ml_provider.artifacts.collection import Retention, execute, plan
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import ArtifactNotFoundError
from tests.support import seaweed

pytestmark = pytest.mark.s3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[seaweed.S3Server]:
    with seaweed.running(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture
def store(server: seaweed.S3Server, request: pytest.FixtureRequest) -> ArtifactStore:
    prefix = keys.segment(request.node.name)
    return ArtifactStore(server.root(f"gc/{prefix}"), signing_key=b"k" * 32, options=server.options)


@pytest.mark.parametrize("largest_copy", [5 << 30, 1000], ids=["copied", "sent again"])
def test_an_object_is_moved(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch, largest_copy: int) -> None:
    monkeypatch.setattr(objects, "_COPIES_UP_TO_BYTES", largest_copy)
    content = bytes(range(256)) * 160_000
    store.objects.put("blobs/a", content)
    store.objects.put("trash/a", b"replaced")
    assert store.objects.move("blobs/a", "trash/a")
    assert not store.objects.exists("blobs/a")
    assert bytes(store.objects.get("trash/a")) == content
    assert not store.objects.move("blobs/a", "trash/a")


def test_a_collection_frees_what_nobody_needs_and_returns_what_somebody_does(store: ArtifactStore) -> None:
    old = [store.save(b"old %d" % number, "flights") for number in range(3)]
    new = store.save([b"part", {1}], "flights")
    policy, then = Retention(keep_last=1), datetime.now(UTC) + timedelta(days=10)
    outcome = execute(plan(store.objects, store.signer, policy=policy, now=then), now=then)
    assert (outcome.removed.versions, outcome.removed.blobs, outcome.freed_bytes) == (3, 3, 0)
    assert old[0].load() == b"old 0"  # from the trash

    # A save that found its content before it was taken away publishes late.
    again = store.save(b"old 1", "late")
    store.objects.delete([keys.blob_key(again.digest)])
    then += timedelta(days=2)
    outcome = execute(plan(store.objects, store.signer, policy=policy, now=then), now=then)
    assert outcome.restored == (keys.blob_key(again.digest),)
    assert outcome.freed_bytes == len(b"old 0") * 2
    assert again.load() == b"old 1"
    assert store.load(new) == [b"part", {1}]
    then += timedelta(days=2)
    execute(plan(store.objects, store.signer, policy=policy, now=then), now=then)
    assert not list(store.objects.list("trash"))
    assert again.load() == b"old 1"
    with pytest.raises(ArtifactNotFoundError):
        old[0].load()
