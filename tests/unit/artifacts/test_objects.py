# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from airflow_ml_provider.artifacts.objects import ObjectStore, in_memory
from airflow_ml_provider.exceptions import ArtifactCorruptError, ArtifactNotFoundError, StoreError


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


def test_an_object_whose_creation_was_answered_late_counts_as_created(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS repeats a link whose answer was lost, and says then that the name is taken."""
    link = os.link

    def twice(source: str, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", twice)
    assert objects.put("a/b", b"1")

    def taken(source: str, target: Path) -> None:
        target.write_bytes(b"another's")
        link(source, target)

    monkeypatch.setattr(os, "link", taken)
    assert not objects.put("a/c", b"2")


def test_a_file_system_without_hard_links_is_not_taken_for_missing_rights(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: str, target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", source, None, target)

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StoreError, match=r"Operation not permitted; its file system must .*hard links"):
        objects.put("a/b", b"1")


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


PARTS: dict[str, list[bytes]] = {
    "nothing": [],
    "empty parts": [b"", b"a", b"", b"b", b""],
    "more parts than the system takes at once": [bytes([i % 256]) * (i % 9) for i in range(5000)],
    "larger than a batch": [bytes(range(256)) * 10_000, b"x", os.urandom(3 << 20)],
    "just a batch": [b"a" * (1 << 20), b"b" * (1 << 19), b"c" * (1 << 19), b"d"],
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_are_written_one_after_the_other(objects: ObjectStore, name: str) -> None:
    objects.put("a/b", [memoryview(part) for part in PARTS[name]])

    assert bytes(objects.get("a/b")) == b"".join(PARTS[name])


@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_what_the_system_did_not_write_at_once_is_written_after_it(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    # In place of a signal, or a disk that is nearly full: a call that writes less than it was given.
    monkeypatch.setattr(os, "writev", lambda fd, parts: os.write(fd, b"".join(parts)[:at_once]))
    parts = [b"abc", b"", b"defghijkl", b"mn"]

    objects.put("a/b", [memoryview(part) for part in parts])

    assert bytes(objects.get("a/b")) == b"".join(parts)


def test_a_files_blocks_are_written_one_after_the_other(objects: ObjectStore, tmp_path: Path) -> None:
    content = os.urandom((5 << 20) + 3)
    (tmp_path / "source").write_bytes(content)

    objects.put("a/b", tmp_path / "source")

    assert bytes(objects.get("a/b")) == content


def test_an_open_object_gives_any_of_its_parts(objects: ObjectStore) -> None:
    content = os.urandom(10_000)
    objects.put("a/b", content)
    source = objects.source("a/b")
    first, empty, second = bytearray(3), bytearray(), bytearray(5000)

    source.read_into(100, [memoryview(first), memoryview(empty), memoryview(second)])

    assert source.size_bytes == len(content)
    assert bytes(source.read(9_990, 10)) == content[9_990:]
    assert bytes(first + second) == content[100:5103]
    for at, size in ((9_991, 10), (20_000, 1)):
        with pytest.raises(ValueError, match=r"bytes|ends"):
            source.read(at, size)
    with pytest.raises(ValueError, match="ends at 10000"):
        source.read_into(9_000, [memoryview(bytearray(2000))])
    source.close()
    with pytest.raises(ArtifactNotFoundError, match="a/c"):
        objects.source("a/c")
    with pytest.raises(ArtifactCorruptError, match="at most 9,999"):
        objects.source("a/b", at_most=9_999)


def test_an_object_that_is_cut_off_while_it_is_read_is_an_error(objects: ObjectStore, tmp_path: Path) -> None:
    objects.put("a/b", bytes(10_000))
    source = objects.source("a/b")
    (tmp_path / "a root" / "a" / "b").chmod(0o600)
    os.truncate(tmp_path / "a root" / "a" / "b", 5000)

    with pytest.raises(ValueError, match="ends at 5000 although 10000"):
        source.read(4000, 2000)
    source.close()


@pytest.mark.parametrize("by", ["option", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_an_endpoint_that_is_no_address_is_refused_before_the_client_crashes(
    monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    options = {"access_key_id": "a", "secret_access_key": "b", "max_retries": 0}
    if by == "option":
        options["endpoint_url"] = "somebody:word@minio:9000"
    else:
        monkeypatch.setenv(by, "somebody:word@minio:9000")
    with pytest.raises(StoreError, match="s3://bucket: the endpoint must start with http://") as caught:
        ObjectStore("s3://bucket/prefix", options).get("key")
    assert "word" not in str(caught.value)


def test_of_an_object_in_memory_nothing_is_kept_or_read_after_it_was_closed() -> None:
    content = bytearray(b"0123456789")
    source = in_memory(memoryview(content))
    assert bytes(source.read(3, 4)) == b"3456"

    source.close()

    content.clear()  # which Python refuses where somebody still looks at it
    with pytest.raises(ValueError, match="not there any more"):
        source.read(3, 4)
