# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

import pytest

from airflow_ml_provider.artifacts.objects import ObjectStore
from airflow_ml_provider.exceptions import ArtifactCorruptError, ArtifactNotFoundError


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    return ObjectStore((tmp_path / "a root").as_uri())


def test_create_only_leaves_what_is_there(objects: ObjectStore) -> None:
    assert objects.put("a/b", b"1")
    assert not objects.put("a/b", b"2")
    assert bytes(objects.get("a/b")) == b"1"
    assert objects.put("a/b", b"3", create_only=False)
    assert bytes(objects.get("a/b")) == b"3"
    assert objects.size("a/b") == 1
    objects.delete(["a/b", "a/c"])
    assert not objects.exists("a/b")
    with pytest.raises(ArtifactNotFoundError, match="a/b"):
        objects.get("a/b")


def test_lists_are_in_order_of_bytes(objects: ObjectStore) -> None:
    names = ["a/b/c", "a-b", "a/b-c", "a.b", "b", "a/bb", "a=/z", "B"]
    for name in names:
        objects.put(name, b"x")

    assert [entry.key for entry in objects.list("")] == sorted(names)
    assert [entry.key for entry in objects.list("a/")] == ["a/b-c", "a/b/c", "a/bb"]
    for after in sorted(names):
        assert [e.key for e in objects.list("", after=after)] == [n for n in sorted(names) if n > after]
    assert [entry.key for entry in objects.list("", after="a/b-c", limit=2)] == ["a/b/c", "a/bb"]
    assert list(objects.children("a")) == ["b"]
    assert list(objects.list("absent")) == []


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "../a", "a/../b", "a//b", "a\0", "a b", "é", "." * 2, "x" * 901]
)
def test_keys_stay_below_the_root(objects: ObjectStore, key: str) -> None:
    with pytest.raises(ValueError, match="key of the store"):
        objects.put(key, b"x")
    with pytest.raises(ValueError, match="key of the store"):
        objects.get(key)


def test_json_that_is_none_is_named(objects: ObjectStore) -> None:
    objects.put_json("a.json", {"a": 1})
    objects.put("b.json", b"{")

    assert objects.get_json("a.json") == {"a": 1}
    with pytest.raises(ArtifactCorruptError, match=r"b\.json"):
        objects.get_json("b.json")
    with pytest.raises(ValueError, match="JSON"):
        objects.put_json("c.json", float("nan"))


def test_unknown_options_are_named() -> None:
    with pytest.raises(ValueError, match=r"'acces_key'.*access_key_id"):
        ObjectStore("s3://bucket", {"acces_key": "x"})


def test_a_forked_child_does_not_write_into_what_its_parent_read(objects: ObjectStore) -> None:
    objects.put("blobs/large", bytes(2 << 20))
    data = memoryview(objects.get("blobs/large"))
    child = os.fork()
    if child == 0:
        data[0] = 1
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert data[0] == 0
