# SPDX-License-Identifier: Apache-2.0
"""The API server reads small objects once, and never shows what they were before they changed."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_ml_provider.artifacts.objects import ObjectStore, at_once
from airflow_ml_provider.exceptions import ArtifactNotFoundError
from airflow_ml_provider.plugins.api.remembered import Remembered, RememberingObjects


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    return ObjectStore(f"file://{tmp_path}")


def put(objects: ObjectStore, tmp_path: Path, key: str, doc: Any, age: float = 60.0) -> None:
    objects.put_json(key, doc, create_only=False)
    when = time.time() - age
    os.utime(tmp_path / key, (when, when))


def read(objects: ObjectStore, remembered: Remembered) -> list[Any]:
    one_request = RememberingObjects(objects, remembered)
    return [one_request.get_json(entry.key) for entry in one_request.list("a")]


def test_what_was_read_is_not_read_again(objects: ObjectStore, tmp_path: Path, mocker: Any) -> None:
    put(objects, tmp_path, "a/1.json", {"x": 1})
    remembered = Remembered()
    asked = mocker.spy(objects._backend, "get")

    assert [read(objects, remembered) for _ in range(3)] == [[{"x": 1}]] * 3
    assert asked.call_count == 1


def test_what_changed_is_read_again(objects: ObjectStore, tmp_path: Path) -> None:
    remembered = Remembered()
    put(objects, tmp_path, "a/1.json", {"x": 1})
    assert read(objects, remembered) == [{"x": 1}]

    put(objects, tmp_path, "a/1.json", {"x": 2}, age=30.0)
    assert read(objects, remembered) == [{"x": 2}]
    objects.delete(["a/1.json"])
    assert read(objects, remembered) == []


def test_what_changed_a_moment_ago_may_change_again_within_the_same_second(
    objects: ObjectStore, tmp_path: Path
) -> None:
    remembered = Remembered()
    put(objects, tmp_path, "a/1.json", {"x": 1}, age=0.0)
    before = (tmp_path / "a/1.json").stat()
    assert read(objects, remembered) == [{"x": 1}]

    objects.put_json("a/1.json", {"x": 2}, create_only=False)
    os.utime(tmp_path / "a/1.json", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert read(objects, remembered) == [{"x": 2}]


def test_what_no_list_named_is_asked_for(objects: ObjectStore, tmp_path: Path) -> None:
    put(objects, tmp_path, "a/1.json", {"x": 1})
    remembered = Remembered()
    read(objects, remembered)

    objects.delete(["a/1.json"])
    with pytest.raises(ArtifactNotFoundError):
        RememberingObjects(objects, remembered).get_json("a/1.json")


def test_it_forgets_what_was_not_asked_for_the_longest(
    objects: ObjectStore, tmp_path: Path, mocker: Any
) -> None:
    for number in range(4):
        put(objects, tmp_path, f"a/{number}.json", "x" * 100)
    remembered = Remembered(most_bytes=250)
    read(objects, remembered)
    asked = mocker.spy(objects._backend, "get")

    one_request = RememberingObjects(objects, remembered)
    entries = list(one_request.list("a"))
    one_request.get_json(entries[3].key)
    assert asked.call_count == 0
    one_request.get_json(entries[0].key)
    assert asked.call_count == 1
    assert remembered._held <= 250


def test_what_is_at_hand_takes_no_thread_and_order_is_kept(objects: ObjectStore, tmp_path: Path) -> None:
    for number in range(5):
        put(objects, tmp_path, f"a/{number}.json", number)
    remembered = Remembered()
    read(objects, remembered)
    for number in (1, 3):
        put(objects, tmp_path, f"a/{number}.json", -number, age=30.0)
    one_request = RememberingObjects(objects, remembered)
    threads = {}

    def get(key: str) -> Any:
        threads[key] = threading.current_thread()
        return one_request.get_json(key)

    keys = [entry.key for entry in one_request.list("a")]
    assert at_once(get, keys, one_request.at_hand) == [0, -1, 2, -3, 4]
    here = {key for key, thread in threads.items() if thread is threading.current_thread()}
    assert here == {"a/0.json", "a/2.json", "a/4.json"}
