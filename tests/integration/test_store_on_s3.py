# SPDX-License-Identifier: Apache-2.0
"""The artifact store on a real S3 server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pandas as pd
import pytest

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import ArtifactCorruptError, ArtifactNotFoundError, StoreError
from tests.support import seaweed

pytestmark = pytest.mark.s3

KEY = b"a key of the tests, 32 bytes long"


LOAD = """
import json, sys
from pathlib import Path
from airflow_ml_provider.artifacts.store import ArtifactStore

def peak():
    text = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("VmHWM"))

root, key, options = json.load(sys.stdin)
ref = ArtifactStore(root, signing_key=key.encode(), options=options).get("array")
before = peak()
value = ref.load()
print((peak() - before) / value.nbytes)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[seaweed.S3Server]:
    with seaweed.running(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture
def store(server: seaweed.S3Server, request: pytest.FixtureRequest) -> ArtifactStore:
    prefix = keys.segment(request.node.name)
    return ArtifactStore(server.root(f"deployments/{prefix}"), signing_key=KEY, options=server.options)


@pytest.mark.parametrize(
    "value",
    [
        pd.DataFrame({"a": [1, None], "t": pd.date_range("2020", periods=2, tz="UTC")}),
        np.asfortranarray(np.ones((300, 1000))),
        np.arange(12_000_000.0),  # written in parts
        b"",
        {"nested": [(1, {2}), float("nan")]},
    ],
    ids=["frame", "array", "large array", "nothing", "tree"],
)
def test_values_come_back_as_they_were(store: ArtifactStore, value: Any) -> None:
    back = store.decode(store.encode(value, name="flights/features é"))

    if isinstance(value, pd.DataFrame):
        pd.testing.assert_frame_equal(back, value)
    elif isinstance(value, np.ndarray):
        assert np.array_equal(back, value)
        assert back.flags.f_contiguous == value.flags.f_contiguous
        assert back.flags.writeable
    else:
        assert repr(back) == repr(value)


def test_files_and_folders_come_back(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights").write_bytes(b"x" * 5_000_000)

    refs = [store.save(tmp_path / "model", "folder"), store.save(tmp_path / "model/weights", "file")]

    assert (refs[0].load() / "weights").read_bytes() == b"x" * 5_000_000
    assert refs[1].load().read_bytes() == b"x" * 5_000_000


def test_versions_are_listed_newest_first(store: ArtifactStore) -> None:
    refs = [store.save(n, "a name/é") for n in range(5)]

    assert store.versions("a name/é", limit=3) == refs[:1:-1]
    assert store.get("a name/é") == refs[-1]
    assert list(store.names()) == ["a name/é"]
    assert store.as_of("a name/é", refs[2].recorded_at) == refs[2]
    assert store.as_of("a name/é", refs[2].recorded_at, clock="wall") == refs[2]
    assert store.usage().versions == 5


@pytest.mark.parametrize("size", [1000, 3_000_000])
def test_writers_of_one_content_share_it(store: ArtifactStore, size: int) -> None:
    value = np.random.default_rng(0).bytes(size)

    with ThreadPoolExecutor(8) as pool:
        refs = list(pool.map(lambda _number: store.save(value, "task"), range(16)))

    assert all(ref.load() == value for ref in refs)
    usage = store.usage()
    assert (usage.versions, usage.bytes_stored, usage.bytes_logical) == (16, size, 16 * size)


def test_one_of_many_creators_wins(store: ArtifactStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(lambda n: store.objects.put("lock", str(n).encode()), range(16)))

    assert created.count(True) == 1
    assert bytes(store.objects.get("lock")) == str(created.index(True)).encode()


def test_missing_and_changed_contents_are_told_apart(store: ArtifactStore) -> None:
    gone, changed = store.save(b"gone", "task"), store.save(b"changed", "task")
    raw = store.objects._backend.store  # type: ignore[attr-defined]
    obstore.delete(raw, keys.blob_key(gone.digest))
    obstore.put(raw, keys.blob_key(changed.digest), b"CHANGED")

    with pytest.raises(ArtifactNotFoundError, match="re-run that task"):
        gone.load()
    with pytest.raises(ArtifactCorruptError, match=changed.digest):
        changed.load()


@pytest.mark.parametrize(
    ("changes", "root", "message"),
    [
        ({"secret_access_key": "wrong-secret"}, None, "refused the credentials.*artifact_conn_id"),
        ({"access_key_id": "WRONGACCESSKEY"}, None, "refused the credentials.*artifact_conn_id"),
        ({"endpoint_url": "http://127.0.0.1:9"}, None, "no answer at http://127.0.0.1:9"),
        ({}, "s3://absent-bucket/x", "absent-bucket: there is no such bucket"),
    ],
    ids=["secret", "access key", "endpoint", "bucket"],
)
def test_refusals_say_what_to_do_and_no_secret(
    server: seaweed.S3Server, changes: dict[str, str], root: str | None, message: str
) -> None:
    options = {**server.options, **changes}
    store = ArtifactStore(root or server.root(), signing_key=KEY, options=options)
    ref = ArtifactStore(server.root(), signing_key=KEY, options=server.options).save(b"x", "task")

    for action in (
        lambda: store.save(b"small", "task"),
        lambda: store.save(bytes(2_000_000), "task"),
        lambda: store.load(ref),
        lambda: store.get("task"),
        lambda: list(store.names()),
    ):
        with pytest.raises(StoreError, match=message) as caught:
            action()
        shown = f"{caught.value!s} {caught.value.__cause__!s}"
        assert str(options["secret_access_key"]) not in shown
        assert str(options["access_key_id"]) not in shown


def test_a_fork_works_before_the_first_request_and_is_refused_after_it(store: ArtifactStore) -> None:
    options = store.objects._backend._options  # type: ignore[attr-defined]
    code = f"""
import os
from airflow_ml_provider.artifacts.store import ArtifactStore
store = ArtifactStore({store.objects.root!r}, signing_key={KEY!r}, options={options!r})
if (child := os.fork()) == 0:
    store.save(b"of the child", "forked")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert store.get("forked").load() == b"of the child"
if (child := os.fork()) == 0:
    try:
        store.get("forked")
    except OSError as exc:
        os._exit(7 if "spawn" in str(exc) else 1)
    os._exit(0)
assert os.waitpid(child, 0)[1] >> 8 == 7
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says there what a process took")
def test_a_large_array_takes_its_memory_once_while_it_is_read(
    server: seaweed.S3Server, store: ArtifactStore
) -> None:
    store.save(np.random.default_rng(0).random(12_000_000), "array")
    given = json.dumps([store.objects.root, KEY.decode(), server.options])
    done = subprocess.run(
        [sys.executable, "-c", LOAD], input=given, stdout=subprocess.PIPE, text=True, check=True
    )
    assert 1 <= float(done.stdout) < 1.6  # numpy, and what is in flight, are in it
