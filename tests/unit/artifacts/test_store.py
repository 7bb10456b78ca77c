# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from airflow_ml_provider.artifacts.refs import Artifact, ArtifactRef
from airflow_ml_provider.artifacts.store import ArtifactStore, Usage
from airflow_ml_provider.exceptions import (
    ArtifactNotFoundError,
    StoreError,
    UnboundReferenceError,
    UnsupportedFormatError,
)
from tests.unit.artifacts.conftest import KEY

DAY = timedelta(days=1)
MAY = datetime(2013, 5, 1, tzinfo=UTC)


class Counted:
    """Count the requests that a store makes."""

    def __init__(self, store: ArtifactStore) -> None:
        self.calls: list[str] = []
        self._backend = store.objects._backend
        store.objects._backend = self  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        self.calls.append(name)
        return getattr(self._backend, name)


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_a_save_takes_three_requests_and_a_load_one(store: ArtifactStore, size: int) -> None:
    for again in (False, True):
        counted = Counted(store)
        ref = store.save(b"x" * size, "task")
        assert len(counted.calls) <= 3, (again, counted.calls)
        counted.calls.clear()
        ref.load()
        assert len(counted.calls) == 1
        store.objects._backend = counted._backend


def test_equal_content_is_stored_once(store: ArtifactStore) -> None:
    for _ in range(3):
        ref = store.save(np.arange(1000), "task")
    store.save(np.arange(1000), "other")

    assert store.usage() == Usage(
        names=2, versions=4, bytes_logical=4 * ref.size_bytes, bytes_stored=ref.size_bytes
    )


def test_versions_come_newest_first(store: ArtifactStore) -> None:
    refs = [store.save(n, "task") for n in range(5)]

    assert store.versions("task") == refs[::-1]
    assert store.versions("task", limit=2) == [refs[4], refs[3]]
    assert store.get("task") == refs[4]
    assert store.get("task", refs[1].version_id).load() == 1
    assert store.versions("absent") == []


def test_what_held_at_a_data_time_does_not_depend_on_when_it_was_written(store: ArtifactStore) -> None:
    late = store.save("of 10 May", "task", effective_at=MAY + 9 * DAY)
    early = store.save("of 3 May", "task", data_interval=(MAY, MAY + 2 * DAY))
    again = store.save("of 3 May, again", "task", effective_at=MAY + 2 * DAY)

    assert store.as_of("task", MAY + 5 * DAY) == again
    assert store.as_of("task", MAY + 9 * DAY) == late
    assert store.as_of("task", early.recorded_at, clock="wall") == early
    assert store.as_of("task", datetime.now(UTC), clock="wall") == again
    with pytest.raises(ArtifactNotFoundError, match="2013-05-01"):
        store.as_of("task", MAY)
    with pytest.raises(ValueError, match="zone"):
        store.as_of("task", datetime(2013, 5, 1))


@pytest.mark.parametrize(
    "name", ["a", "flights/2013", "with blank é", "..", "x" * 200, "漢" * 200, "CON", "a=2Fb"]
)
def test_any_name_is_listed_as_it_was_given(store: ArtifactStore, name: str) -> None:
    store.save(1, name)

    assert list(store.names()) == [name]
    assert store.get(name).load() == 1


@pytest.mark.parametrize("name", ["", "/a", "a/", " a", "a\nb", "a\0", "x" * 201, "\ud800"])
def test_bad_names_are_refused(store: ArtifactStore, name: str) -> None:
    with pytest.raises(ValueError, match=r"artifact name|needs a name"):
        store.save(1, name)


@pytest.mark.parametrize("name", ["checkpoints/best", "kept-checkpoints/best"])
def test_a_result_is_not_named_as_checkpoints_are_which_go_by_age(name: str) -> None:
    with pytest.raises(ValueError, match=r"ml\.checkpoint\(\).*choose another name"):
        Artifact(name)
    assert Artifact("checkpoints").name == "checkpoints"


def test_parts_get_names_that_can_be_listed(store: ArtifactStore) -> None:
    store.encode({"a\nb": b"1", "x" * 300: b"2", "": b"3", "end/": b"4"}, name="task")

    assert sorted(store.names())[:3] == ["task.", "task.a_b", "task.end"]
    assert len(list(store.names())) == 4


def test_a_missing_version_is_no_empty_value(store: ArtifactStore) -> None:
    with pytest.raises(ArtifactNotFoundError, match="'absent'"):
        store.get("absent")
    with pytest.raises(ValueError, match="version id"):
        store.get("absent", "../../x")


def test_a_reference_made_by_hand_or_sent_elsewhere_says_so(store: ArtifactStore) -> None:
    import pickle

    ref = store.save("secret data", "task")
    sent = pickle.loads(pickle.dumps(ref))  # noqa: S301

    assert sent == ref
    assert "secret data" not in repr(ref)
    assert KEY not in pickle.dumps(ref)
    with pytest.raises(UnboundReferenceError, match="ml-artifact://task"):
        sent.load()


def test_an_unknown_format_is_named(store: ArtifactStore) -> None:
    with pytest.raises(UnsupportedFormatError, match=r"'parquet-v9'.*arrow-v1"):
        store.save(1, "task", format="parquet-v9")


def test_a_chosen_format_is_used(store: ArtifactStore) -> None:
    assert store.encode([1, 2], name="task", format="json-v1")["format"] == "json-v1"


def test_two_writers_of_one_content_both_succeed(tmp_path: Path) -> None:
    root = (tmp_path / "root").as_uri()
    value = np.random.default_rng(0).random(300_000)

    def write(_number: int) -> ArtifactRef:
        return ArtifactStore(root, signing_key=KEY).save(value, "task")

    with ThreadPoolExecutor(8) as pool:
        refs = list(pool.map(write, range(16)))

    assert len({ref.version_id for ref in refs}) == 16
    assert all(np.array_equal(ref.load(), value) for ref in refs)
    usage = ArtifactStore(root, signing_key=KEY).usage()
    assert (usage.versions, usage.bytes_stored) == (16, refs[0].size_bytes)
    assert not list((tmp_path / "root/.tmp").iterdir())


def test_a_writer_killed_at_any_moment_leaves_no_half_value(tmp_path: Path) -> None:
    root = tmp_path / "root"
    code = f"""
import os
from airflow_ml_provider.artifacts.store import ArtifactStore
store = ArtifactStore({root.as_uri()!r}, signing_key={KEY!r})
print("ready", flush=True)
while True:
    store.save(os.urandom(2_000_000), "task")
    print("saved", flush=True)
"""
    done = 0
    for round_number in range(6):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for _ in range(1 + round_number):
            assert process.stdout.readline() == "saved\n"
            done += 1
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()

    store = ArtifactStore(root.as_uri(), signing_key=KEY)
    versions = store.versions("task")
    assert len(versions) >= done
    assert all(len(ref.load()) == 2_000_000 for ref in versions)
    assert all(entry.size_bytes == 2_000_000 for entry in store.objects.list("blobs"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_root_that_is_not_writable_is_named(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(StoreError, match=r"closed.*Permission denied.*artifact_root"):
        ArtifactStore((tmp_path / "closed").as_uri(), signing_key=KEY).save(1, "task")


def test_a_root_that_cannot_be_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"artifact root .*/file.*artifact_root"):
        ArtifactStore((tmp_path / "file").as_uri(), signing_key=KEY).save(1, "task")


@pytest.mark.parametrize("root", ["", "relative/folder", "ftp://host/x", "s3://", "file://host/x"])
def test_a_root_of_another_kind_is_refused(root: str) -> None:
    with pytest.raises(ValueError, match=r"file://|s3://"):
        ArtifactStore(root, signing_key=KEY)


def test_a_file_changed_while_it_is_stored_is_refused(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "growing"
    path.write_bytes(b"x" * 100)
    put = store.objects.put

    def growing(key: str, data: Any, **options: Any) -> bool:
        with path.open("ab") as file:
            file.write(b"more")
        return put(key, data, **options)

    monkeypatch.setattr(store.objects, "put", growing)
    with pytest.raises(StoreError, match="written to while"):
        store.save(path, "task")
    assert list(store.objects.list("blobs")) == []
