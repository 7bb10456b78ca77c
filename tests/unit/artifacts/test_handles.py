# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501 - tables of values
"""Parts, streams and local files of a stored version."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from airflow_ml_provider.artifacts import keys, scratch
from airflow_ml_provider.artifacts.codecs import frames
from airflow_ml_provider.artifacts.refs import ArtifactRef
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import ArtifactCorruptError, ArtifactNotFoundError, UnboundReferenceError
from tests.unit.artifacts.sameness import same
from tests.unit.artifacts.test_frames import FRAMES, TABLES

ROWS = [slice(0, 2), slice(1, None), slice(-1, None), slice(1, -1), slice(2, 1), slice(0, 99), slice(-99, 1)]


@pytest.mark.parametrize("rows", ROWS, ids=str)
@pytest.mark.parametrize("name", FRAMES)
def test_rows_are_those_of_the_whole(store: ArtifactStore, name: str, rows: slice) -> None:
    frame = FRAMES[name]
    for value in (frame, *(frame.iloc[:, number] for number in range(frame.shape[1]))):
        assert same(store.save(value, "task").load(rows=rows), value.iloc[rows])
    assert same(store.save(frame.index, "task").load(rows=rows), frame.index[rows])


@pytest.mark.parametrize("name", FRAMES)
def test_columns_are_those_of_the_whole_in_their_order(store: ArtifactStore, name: str) -> None:
    frame = FRAMES[name]
    ref = store.save(frame, "task")
    labels = list(dict.fromkeys(frame.columns[::-1]))

    for wanted in (labels, labels[:1], labels[::2], []):
        # By position, for pandas does not find every label of its own.
        places = [n for label in wanted for n, own in enumerate(frame.columns) if repr(own) == repr(label)]
        assert same(ref.load(columns=wanted), frame.iloc[:, places])
        assert same(ref.load(columns=wanted, rows=1), frame.iloc[:1, places])


def test_an_interval_is_found_among_labels_that_stand_twice(store: ArtifactStore) -> None:
    labels = pd.IntervalIndex.from_tuples([(0, 1), (1, 2), (0, 1)])
    frame = pd.DataFrame([[1, 2, 3]], columns=labels)

    assert same(store.save(frame, "task").load(columns=[labels[1]]), frame.iloc[:, [1]])


@pytest.mark.parametrize("name", TABLES)
def test_parts_of_arrow_tables_are_of_the_whole(store: ArtifactStore, name: str) -> None:
    table = TABLES[name]
    ref = store.save(table, "task")
    for rows in (slice(0, 1), slice(1, None), slice(-1, None), slice(0, 0), slice(0, 99)):
        for names in ([], table.schema.names[:1], table.schema.names[::-1]):
            back = ref.load(columns=names, rows=rows)
            start, stop, _step = rows.indices(table.num_rows)
            expected = table.slice(start, max(0, stop - start)).select(names)
            assert type(back) is type(table)
            assert back.schema.equals(expected.schema, check_metadata=True)
            assert back.num_rows == expected.num_rows
            assert back.equals(expected)


def test_only_the_columns_asked_for_are_decoded(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = store.save(
        pd.DataFrame({name: np.random.default_rng(0).random(50_000) for name in "abcdef"}), "task"
    )
    made: list[Any] = []
    restore = frames._restore

    def counting(array: Any, described: Any) -> Any:
        made.append(array)
        return restore(array, described)

    monkeypatch.setattr(frames, "_restore", counting)
    before = pa.total_allocated_bytes()
    ref.load(columns=["b"], rows=10)

    assert [len(array) for array in made if len(array) != 6] == [10], "6 are the labels"
    assert pa.total_allocated_bytes() - before < 3 * 50_000 * 8


def test_a_table_of_many_batches_is_read_up_to_the_last_row(store: ArtifactStore) -> None:
    table = pa.table({"a": pa.chunked_array([[1, 2], [3], [4, 5, 6]])})

    back = store.save(table, "task").load(rows=slice(1, 3))

    assert back.column("a").to_pylist() == [2, 3]


@pytest.mark.parametrize(
    ("value", "part", "error", "message"),
    [
        (FRAMES["plain"], {"columns": ["i", "x"]}, ValueError, r"'task' has no column 'x'; it has 'i', 'f', 's', 'b'"),
        (TABLES["table"], {"columns": ["x"]}, ValueError, r"has no column 'x'; it has 'a', 'b'"),
        (FRAMES["plain"], {"columns": ["i", "i"]}, ValueError, r"'i' of 'task' is asked for twice"),
        (TABLES["table"], {"columns": ["a", "a"]}, ValueError, r"'a' of 'task' is asked for twice"),
        (FRAMES["plain"], {"columns": [["i"]]}, ValueError, r"no column \['i'\]"),
        (FRAMES["plain"], {"columns": "i"}, TypeError, r"a list of labels, got 'i'; write \['i'\]"),
        (FRAMES["plain"]["i"], {"columns": ["i"]}, TypeError, r"'task' is a series, which has no columns"),
        (FRAMES["plain"].index, {"columns": ["i"]}, TypeError, r"'task' is an? index, which has no columns"),
        (np.arange(3), {"columns": ["i"]}, TypeError, r"a numpy.ndarray stored as 'npy-v1', which has no columns"),
        ([1], {"rows": 1}, TypeError, r"a list stored as 'json-v1', which has no columns or rows"),
        (FRAMES["plain"], {"rows": -1}, ValueError, r"got -1; the last ones: slice\(-n, None\)"),
        (FRAMES["plain"], {"rows": slice(0, 4, 2)}, ValueError, r"without a step"),
        (FRAMES["plain"], {"rows": [0, 1]}, TypeError, r"a number or a slice of positions, got \[0, 1\]"),
        (FRAMES["plain"], {"rows": True}, TypeError, r"a number or a slice of positions, got True"),
    ],
)  # fmt: skip
def test_a_part_that_is_not_there_is_refused(
    store: ArtifactStore, value: Any, part: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        store.save(value, "task").load(**part)


def test_a_stream_gives_the_stored_bytes_and_can_seek(store: ArtifactStore) -> None:
    ref = store.save(b"x" * 3_000_000, "task")
    empty = scratch.folder()
    before = set(empty.parent.iterdir())

    with ref.open() as file:
        assert file.read(2) == b"xx"
        assert file.seek(-1, os.SEEK_END) == 2_999_999
        assert file.read() == b"x"
        assert set(empty.parent.iterdir()) == before, "nothing is left if the process dies now"
    with pytest.raises(OSError, match="write"), ref.open() as file:
        file.write(b"y")
    with store.save(np.arange(3), "task").open() as file:
        assert same(np.load(file), np.arange(3))


def test_a_local_file_has_the_suffix_of_its_format(store: ArtifactStore) -> None:
    assert store.save(b"abc", "team/raw é").path().name == "raw=20=C3=A9.bin"
    assert json.loads(store.save([1], "task").path().read_text()) == [1]
    with pa.ipc.open_file(str(store.save(TABLES["table"], "table").path())) as reader:
        assert reader.read_all().column("a").to_pylist() == [1, None]
    path = store.save(np.arange(3), "array").path()
    assert path.name == "array.npy"
    assert same(np.load(path), np.arange(3))


def test_a_stored_file_comes_to_where_it_is_wanted(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("#!/bin/sh")
    (tmp_path / "run.sh").chmod(0o755)
    ref = store.save(tmp_path / "run.sh", "task")

    assert ref.path().name == "run.sh"
    for _again in (1, 2):
        path = ref.path(tmp_path / "new/folder/copy")
        assert path == tmp_path / "new/folder/copy"
        assert path.read_text() == "#!/bin/sh"
        assert os.access(path, os.X_OK)
    assert os.listdir(path.parent) == ["copy"]
    with pytest.raises(IsADirectoryError, match=r"new.*is a folder; name the file"):
        ref.path(tmp_path / "new")


def test_a_stored_folder_comes_to_where_it_is_wanted(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/a").write_text("a")
    ref = store.save(tmp_path / "model", "task")

    assert (ref.path() / "a").read_text() == "a"
    assert (ref.path(str(tmp_path / "copy")) / "a").read_text() == "a"
    assert sorted(os.listdir(tmp_path)) == ["copy", "model", "root"]
    with pytest.raises(FileExistsError, match="copy"):
        ref.path(tmp_path / "copy")


def _open(ref: ArtifactRef) -> Any:
    with ref.open() as file:
        return file.read()


def _path(ref: ArtifactRef) -> Any:
    return ref.path()


def _part(ref: ArtifactRef) -> Any:
    return ref.load(rows=1)


@pytest.mark.parametrize("read", [_open, _path, _part])
def test_changed_and_missing_bytes_are_refused_before_any_is_given(
    store: ArtifactStore, tmp_path: Path, read: Any
) -> None:
    ref = store.save(FRAMES["plain"], "task")
    blob = tmp_path / "root" / keys.blob_key(ref.digest)
    content = blob.read_bytes()

    for wrong in (b"X" + content[1:], content[:-1], content + b"X"):
        blob.write_bytes(wrong)
        with pytest.raises(ArtifactCorruptError, match="damaged"):
            read(ref)
    blob.unlink()
    with pytest.raises(ArtifactNotFoundError, match="is gone"):
        read(ref)


def test_a_damaged_file_never_appears(store: ArtifactStore, tmp_path: Path) -> None:
    ref = store.save(b"abc", "task")
    (tmp_path / "root" / keys.blob_key(ref.digest)).write_bytes(b"abX")

    with pytest.raises(ArtifactCorruptError):
        ref.path(tmp_path / "to/copy")
    assert os.listdir(tmp_path / "to") == []


@pytest.mark.parametrize("read", [_open, _path, _part])
def test_each_kind_of_read_is_noted(store: ArtifactStore, read: Any) -> None:
    tree = store.encode({"a": FRAMES["plain"]}, name="task")
    read_by: list[ArtifactRef] = []
    ref = store.decode(tree, as_refs=True, on_read=lambda ref, _value: read_by.append(ref))["a"]
    assert read_by == []

    read(ref)

    assert read_by == [ref]


@pytest.mark.parametrize("read", [_open, _path, _part])
def test_a_reference_without_a_store_says_so(store: ArtifactStore, read: Any) -> None:
    import dataclasses

    with pytest.raises(UnboundReferenceError, match="not bound"):
        read(dataclasses.replace(store.save(FRAMES["plain"], "task"), _store=None))
