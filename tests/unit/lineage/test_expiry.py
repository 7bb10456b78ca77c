# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from airflow_ml_provider.artifacts.objects import ObjectStore, _Folder
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import StoreError
from airflow_ml_provider.lineage.expiry import forget, old_records
from airflow_ml_provider.lineage.records import TaskRecord, VersionUse, write_record

NOW = datetime(2026, 6, 1, tzinfo=UTC)
MONTH = timedelta(days=30)
Write = Callable[..., TaskRecord]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def objects(root: Path) -> ObjectStore:
    return ObjectStore(root.as_uri())


@pytest.fixture
def use(root: Path) -> VersionUse:
    return VersionUse.of(ArtifactStore(root.as_uri(), signing_key=b"k" * 32).save(b"1", "flights"))


@pytest.fixture
def write(root: Path, objects: ObjectStore, use: VersionUse) -> Write:
    """Write what an attempt leaves that did all that one can, so many days before now."""

    def write(run_id: str, task_id: str = "fit", *, days: float = 90, try_number: int = 1) -> TaskRecord:
        model = {"model_id": "m-1", "model_uri": "models:/m-1", "role": "trained"}
        registered = {**model, "registered_model_name": "delay", "version": "1"}
        record = TaskRecord(
            "training",
            run_id,
            task_id,
            -1,
            try_number,
            "success",
            started_at=NOW - timedelta(days=days),
            run={"run_after": (NOW - timedelta(days=days)).isoformat()},
            triggered_by=({"uri": "s3://flights", "timestamp": "2026-01-01T00:00:00+00:00"},),
            reads=(use,),
            models_written=(registered,),
            models_read=({**model, "model_id": "m-0", "role": "baseline"},),
            metrics={"auc": 0.7},
            evaluation={"mlflow_run_id": "cafe"},
            promotion={"registered_model_name": "delay", "alias": "champion", "evaluation_run_id": "cafe"},
        )
        write_record(objects, record)
        stamp = (NOW - timedelta(days=days)).timestamp()
        os.utime(root / record.key, (stamp, stamp))
        return record

    return write


def every(objects: ObjectStore) -> set[str]:
    return {entry.key for entry in objects.list("")}


def expire(objects: ObjectStore, kept: tuple[str, ...] = ()) -> list[str]:
    found = old_records(
        objects, kept_for=MONTH, now=NOW, needed=lambda key: "needed" if key in kept else None
    )
    return [item.key for item in forget(objects, found)]


# What is known for ever: contents and versions are collected by other rules.
STAYS = ("blobs/", "versions/", "registered/", "decisions/")


def test_nothing_of_an_old_run_is_left_and_all_of_others(objects: ObjectStore, write: Write) -> None:
    young = write("young", days=29)
    before = every(objects)
    old = [write("old", task) for task in ("fit", "judge")]
    assert every(objects) - before  # the edges of it are other objects than those of the young one

    assert expire(objects) == [record.key for record in old]

    assert {key for key in every(objects) - before if not key.startswith(STAYS)} == set()
    assert before <= every(objects)
    assert objects.exists(young.key)
    assert expire(objects) == []


def test_a_run_is_as_old_as_its_last_attempt(objects: ObjectStore, write: Write) -> None:
    write("cleared", days=300)
    write("cleared", days=2, try_number=2)
    before = every(objects)
    assert expire(objects) == []
    assert every(objects) == before


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_what_is_needed_keeps_all_that_leads_to_it(objects: ObjectStore, write: Write, kept: int) -> None:
    records = [write("old", "fit"), write("old", "fit", try_number=2), write("old", "judge")]
    stays, others = records[kept], [record for record in records if record is not records[kept]]
    before = every(objects)

    assert expire(objects, kept=(stays.key,)) == [record.key for record in others]

    place = stays.key.removeprefix("records/")
    assert {key for key in before if key.endswith(place)} <= every(objects)
    for record in others:
        assert not any(key.endswith(record.key.removeprefix("records/")) for key in every(objects))
    rooms = [key.partition("/")[0] for key in every(objects)]
    assert (rooms.count("runs"), rooms.count("events"), rooms.count("metrics")) == (1, 1, 1)


def test_runs_go_many_at_a_time(objects: ObjectStore, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_ml_provider.lineage.expiry.BATCH", 4)
    records = [write(f"run-{number}", task) for number in range(5) for task in ("fit", "judge")]
    calls: list[list[str]] = []
    real = _Folder.delete
    monkeypatch.setattr(_Folder, "delete", lambda self, keys: calls.append(keys) or real(self, keys))
    assert expire(objects) == [record.key for record in records]
    assert len(calls) == 2 * 3
    assert {key for key in every(objects) if not key.startswith(STAYS)} == set()


def test_a_collection_that_is_interrupted_is_gone_on_with(
    objects: ObjectStore, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run in ("a", "b"):
        write(run)
    real, calls = _Folder.delete, []

    def fail(self: _Folder, keys: list[str]) -> None:
        calls.append(keys)
        if len(calls) == 2:  # edges are gone, the record is not
            raise StoreError("the disk went away")
        real(self, keys)

    monkeypatch.setattr(_Folder, "delete", fail)
    with pytest.raises(StoreError, match="went away"):
        expire(objects)
    monkeypatch.setattr(_Folder, "delete", real)
    assert len(expire(objects)) == 2
    assert {key for key in every(objects) if not key.startswith(STAYS)} == set()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"dag_id": "training"}', b'{"dag_id": 1, "run_id": null}']
)
def test_what_is_no_record_stays_with_the_lists_of_its_run(
    objects: ObjectStore, root: Path, write: Write, content: bytes
) -> None:
    odd, other = write("old", "odd"), write("old", "other")
    stamp = (root / odd.key).stat().st_mtime
    (root / odd.key).write_bytes(content)
    os.utime(root / odd.key, (stamp, stamp))
    assert expire(objects) == [other.key]
    assert objects.exists(odd.key)
    assert any(key.startswith("runs/") for key in every(objects))


def test_a_record_in_the_place_of_another_removes_nothing(
    objects: ObjectStore, root: Path, write: Write
) -> None:
    """Whoever can write there could let a collection delete what leads to others."""
    old, young = write("old"), write("young", days=1)
    stamp = (root / old.key).stat().st_mtime
    objects.put_json(old.key, young.to_json(), create_only=False)
    os.utime(root / old.key, (stamp, stamp))
    before = every(objects)
    assert expire(objects) == []
    assert every(objects) == before
