# SPDX-License-Identifier: Apache-2.0
"""What a network and a server do wrong on a bad day, in front of a real S3 server."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.objects import ObjectStore
from airflow_ml_provider.artifacts.refs import ArtifactRef
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import ArtifactCorruptError, StoreError
from tests.integration.faults.values import KEY
from tests.support import seaweed
from tests.support.fault_proxy import FAULTS, FaultProxy

pytestmark = pytest.mark.s3

OLD = b"an older value" * 100
NEW = b"a new value" * 100


def save(store: ArtifactStore, old: ArtifactRef) -> None:
    assert store.save(NEW, "flights").load() == NEW


def load(store: ArtifactStore, old: ArtifactRef) -> None:
    assert store.load(old) == OLD


def fetch(store: ArtifactStore, old: ArtifactRef) -> None:
    with store.open(old) as file:
        assert file.read() == OLD


def get(store: ArtifactStore, old: ArtifactRef) -> None:
    assert store.get("flights", old.version_id) == old


def latest(store: ArtifactStore, old: ArtifactRef) -> None:
    assert store.get("flights") == old


def remove(store: ArtifactStore, old: ArtifactRef) -> None:
    store.objects.delete(["blobs/absent", "blobs/too"])


def take_away(store: ArtifactStore, old: ArtifactRef) -> None:
    blob = keys.blob_key(old.digest)
    assert store.objects.move(blob, "trash/it")
    assert store.objects.move("trash/it", blob)


# Which request is broken, what a user does, and what the error says of it.
OPERATIONS: list[Any] = [
    pytest.param("put blobs", save, "write blobs/[0-9a-f]{2}/[0-9a-f]{64}", id="put blob"),
    pytest.param("put versions", save, r"write versions/flights/[0-9a-f-]+\.json", id="put manifest"),
    pytest.param("get blobs", load, "read blobs/[0-9a-f]{2}/[0-9a-f]{64}", id="get blob"),
    pytest.param("get blobs", fetch, "read blobs/[0-9a-f]{2}/[0-9a-f]{64}", id="copy blob"),
    pytest.param("get versions", get, r"read versions/flights/[0-9a-f-]+\.json", id="get manifest"),
    pytest.param("list versions", latest, "list versions/flights", id="list"),
    pytest.param("delete", remove, "delete blobs/absent and 1 more", id="delete"),
    pytest.param("copy trash", take_away, "copy blobs/[0-9a-f]{2}/[0-9a-f]{64} to trash/it", id="move"),
]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("operation", "act", "words"), OPERATIONS)
def test_a_fault_that_passes_is_not_noticed(
    store: ArtifactStore,
    direct: ArtifactStore,
    proxy: FaultProxy,
    operation: str,
    act: Callable[[ArtifactStore, ArtifactRef], None],
    words: str,
    fault: str,
) -> None:
    old = direct.save(OLD, "flights")
    proxy.inject(operation, fault, times=1)

    act(store, old)

    assert proxy.broken >= 1
    versions = direct.versions("flights")
    assert [ref.load() for ref in versions] == ([NEW, OLD] if act is save else [OLD])
    assert direct.usage().bytes_stored == sum(ref.size_bytes for ref in versions)


@pytest.mark.parametrize("fault", ["500", "503", "reset within", "lost answer", "stalled", "truncated"])
@pytest.mark.parametrize(("operation", "act", "words"), OPERATIONS)
def test_a_fault_that_stays_ends_in_an_error_that_names_the_object_and_the_operation(
    store: ArtifactStore,
    direct: ArtifactStore,
    proxy: FaultProxy,
    operation: str,
    act: Callable[[ArtifactStore, ArtifactRef], None],
    words: str,
    fault: str,
) -> None:
    if fault == "truncated" and operation.startswith("put"):
        pytest.skip("its answer has no body")
    if fault == "stalled" and operation not in ("put versions", "get blobs", "list versions"):
        pytest.skip("nothing but time that passes")
    old = direct.save(OLD, "flights")
    proxy.inject(operation, fault, times=10_000)
    began = time.monotonic()

    with pytest.raises(StoreError, match=f"cannot {words} in s3://.*; .*tried [0-9]+ times") as caught:
        act(store, old)

    assert time.monotonic() - began < 15
    assert store.objects._backend._options["secret_access_key"] not in str(caught.value)  # type: ignore[attr-defined]
    proxy.heal()
    assert direct.load(old) == OLD
    assert all(ref.load() in (OLD, NEW) for ref in direct.versions("flights"))
    act(store, old)


@pytest.mark.parametrize("fault", ["lost answer", "500 after"])
def test_a_put_whose_answer_was_lost_is_ours(store: ArtifactStore, proxy: FaultProxy, fault: str) -> None:
    proxy.inject("put other", fault, times=1)
    assert store.objects.put("lock", b"mine")
    assert not store.objects.put("lock", b"yours")
    proxy.inject("put other", fault, times=1)
    assert not store.objects.put("lock", b"yours")
    assert bytes(store.objects.get("lock")) == b"mine"


@pytest.mark.parametrize("fault", ["truncated", "stalled within"])
def test_a_large_read_goes_on_where_it_broke(
    store: ArtifactStore, direct: ArtifactStore, proxy: FaultProxy, tmp_path: Path, fault: str
) -> None:
    content = bytes(range(256)) * 100_000
    direct.objects.put("blobs/large", content)
    for read in (
        lambda: bytes(store.objects.get("blobs/large")),
        lambda: [store.objects.fetch("blobs/large", tmp_path / "copy"), (tmp_path / "copy").read_bytes()][1],
    ):
        # More than the client itself repeats.
        proxy.inject("get blobs", fault, times=5 if fault == "truncated" else 1)
        assert read() == content
    ranges = [request.headers["range"] for request in proxy.seen if "range" in request.headers]
    assert any(wanted != "bytes=0-" for wanted in ranges)


@pytest.mark.parametrize("after", [2, 4, 6])
def test_a_large_object_that_is_replaced_while_it_is_read_is_never_mixed(
    server: seaweed.S3Server, direct: ArtifactStore, proxy: FaultProxy, after: int
) -> None:
    options = {**server.options, "endpoint_url": proxy.endpoint_url, "max_retries": 8, "retry_timeout": 60}
    objects = ObjectStore(direct.objects.root, options)
    old, new = (byte * 20_000_000 for byte in (b"o", b"n"))

    def read(**how: Any) -> bytes:
        direct.objects.put("blobs/large", old, create_only=False)
        proxy.inject("get blobs", "truncated", times=5)
        proxy.at(after, lambda _: direct.objects.put("blobs/large", new, create_only=False) and None)
        try:
            return bytes(objects.get("blobs/large", **how))
        finally:
            proxy.heal()

    assert read() == new
    told: list[memoryview] = []
    # Who hashes it meanwhile was told of the beginning of the other one.
    with pytest.raises(ArtifactCorruptError, match="blobs/large was replaced by other content while"):
        read(on_read=told.append)
    assert told


@pytest.mark.parametrize(
    ("operation", "fault"),
    [
        ("start blobs", "reset before"),
        ("part blobs", "503"),
        ("part blobs", "half sent"),
        ("part blobs", "lost answer"),
        ("complete blobs", "500"),
        ("complete blobs", "lost answer"),
        ("complete blobs", "truncated"),
    ],
)
def test_an_upload_in_parts_survives(
    server: seaweed.S3Server,
    direct: ArtifactStore,
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
    fault: str,
) -> None:
    monkeypatch.setattr("airflow_ml_provider.artifacts.objects._PARTS_FROM_BYTES", 17 << 20)
    options = {**server.options, "endpoint_url": proxy.endpoint_url, "timeout": 20, "max_retries": 3}
    store = ArtifactStore(direct.objects.root, signing_key=KEY, options=options)
    value = bytes(range(256)) * (70 << 10)
    proxy.inject(operation, fault, times=2)

    store.save(value, "large")

    assert proxy.broken >= 1
    assert direct.get("large").load() == value


def test_an_upload_in_parts_that_cannot_end_leaves_nothing_visible(
    server: seaweed.S3Server, direct: ArtifactStore, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_ml_provider.artifacts.objects._PARTS_FROM_BYTES", 17 << 20)
    options = {**server.options, "endpoint_url": proxy.endpoint_url, "timeout": 20}
    store = ArtifactStore(direct.objects.root, signing_key=KEY, options=options)
    value = bytes(range(256)) * (70 << 10)
    proxy.inject("part blobs", "503", times=10_000)

    with pytest.raises(StoreError, match=r"cannot write blobs/.*SlowDown.*tried"):
        store.save(value, "large")

    assert not list(direct.objects.list(""))
    proxy.heal()
    assert store.save(value, "large").load() == value


def test_an_error_that_does_not_pass_is_not_repeated(server: seaweed.S3Server, proxy: FaultProxy) -> None:
    options = {**server.options, "endpoint_url": proxy.endpoint_url, "secret_access_key": "wrong"}
    objects = ObjectStore(server.root(), options)
    with pytest.raises(StoreError, match="refused the credentials"):
        objects.put("key", b"value")
    assert proxy.counts() == {"put other": 1}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_part_of_a_table_is_read_across_a_fault(
    store: ArtifactStore, direct: ArtifactStore, proxy: FaultProxy, fault: str
) -> None:
    table = pd.DataFrame({f"c{number}": np.arange(100_000.0) * 1.1 + number for number in range(12)})
    ref = direct.save(table, "flights")

    proxy.inject("get blobs", fault, times=2)

    pd.testing.assert_frame_equal(store.load(ref, columns=["c3", "c9"]), table[["c3", "c9"]])
    assert proxy.broken >= 1
