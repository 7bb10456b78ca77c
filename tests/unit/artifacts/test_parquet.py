# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501 - tables of values
"""Parquet: what comes back, what is refused, and what DuckDB, pandas and pyarrow see in the file."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_ml_provider.artifacts.codecs import parquet
from airflow_ml_provider.artifacts.codecs.registry import Stored
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import ArtifactCorruptError, UnsupportedTypeError
from tests.unit.artifacts.awkward_frames import AWKWARD, some_frame
from tests.unit.artifacts.sameness import same
from tests.unit.artifacts.test_frames import FRAMES, TABLES

Frame = pd.DataFrame

# Frames of the table of arrow-v1 that Parquet does not carry, and the columns of them that it does not.
REFUSED = {
    "duplicate columns": r"two columns 'a'",
    "duplicate index": r"the column 'a' of type object",
    "objects": r"the column 'mixed' of type object",
    "embeddings": r"the column 'f' of type object",
    "rare numbers": r"the column 'c16' of type <c16",
    "sparse": r"the column 'int' of type sparse .*to_dense",
    "sparse, no rows": r"the column 'int' of type sparse .*to_dense",
}
REFUSED_COLUMNS = {
    *(f"{name}.{label}" for name in FRAMES if name.startswith("sparse") for label in FRAMES[name].columns),
    *("duplicate index.a", "embeddings.f", "rare numbers.c16", "rare numbers.c8", "rare numbers.g"),
    *(f"objects.{name}" for name in ("mixed", "1 and True", "missing of all kinds", "decimal", "list", "dict")),
    *(f"objects.{name}" for name in ("tuple", "surrogate", "large")),
}  # fmt: skip
COLUMNS = {
    f"{name}.{label}": frame.iloc[:, place]
    for name, frame in FRAMES.items()
    for place, label in enumerate(frame.columns)
}


@pytest.mark.parametrize("name", [name for name in FRAMES if name not in REFUSED])
def test_a_frame_comes_back_exactly(store: ArtifactStore, name: str) -> None:
    frame = FRAMES[name]

    ref = store.save(frame, "task", format="parquet")

    assert (ref.format, ref.type) == ("parquet-v1", "pandas.DataFrame")
    assert same(ref.load(), frame)
    assert ref.digest == store.save(frame.copy(deep=True), "task", format="parquet").digest


@pytest.mark.parametrize("name", REFUSED)
def test_a_frame_that_parquet_does_not_carry_is_refused_by_column(store: ArtifactStore, name: str) -> None:
    with pytest.raises(UnsupportedTypeError, match=REFUSED[name]):
        store.save(FRAMES[name], "task", format="parquet")


def test_each_column_comes_back_exactly_or_is_known_to_be_refused(store: ArtifactStore) -> None:
    refused = set()
    for name, column in COLUMNS.items():
        for value in (column, column.to_frame("c")):
            try:
                ref = store.save(value, "task", format="parquet")
            except UnsupportedTypeError:
                refused.add(name)
            else:
                assert same(ref.load(), value), name
    assert refused == REFUSED_COLUMNS


REFUSED_AWKWARD = {
    *("seconds beyond all", "categories", "objects", "MultiIndex of many kinds"),
    *("sparse", "no rows"),
}


def test_a_frame_of_any_dtype_comes_back_exactly_or_is_known_to_be_refused(store: ArtifactStore) -> None:
    refused = set()
    for name, frame in AWKWARD.items():
        try:
            ref = store.save(frame, "task", format="parquet")
        except UnsupportedTypeError:
            refused.add(name)
        else:
            assert same(ref.load(), frame), name
    assert refused == REFUSED_AWKWARD


@pytest.mark.parametrize("seed", range(25))
def test_frames_that_chance_made_come_back_exactly_or_are_refused(store: ArtifactStore, seed: int) -> None:
    frame = some_frame(np.random.default_rng(seed))
    frame.columns = pd.Index([f"c{place}" for place in range(frame.shape[1])])
    kept = []
    for label in frame:
        try:
            store.save(frame[[label]].reset_index(drop=True), "task", format="parquet")
            kept.append(label)
        except UnsupportedTypeError as exc:
            assert repr(label) in str(exc)  # noqa: PT017
    frame = frame[kept].reset_index(drop=True)

    assert same(store.save(frame, "task", format="parquet").load(), frame)


ARROW: dict[str, pa.Array] = {
    "float16": pa.array(np.array([1, np.nan], "f2")),
    "date64": pa.array([0, None], pa.date64()),
    "time32": pa.array([1, None], pa.time32("s")),
    "time64": pa.array([1, None], pa.time64("ns")),
    "timestamp s": pa.array([1, None], pa.timestamp("s", "Europe/Rome")),
    "timestamp ns": pa.array([1, None], pa.timestamp("ns")),
    "duration": pa.array([1, None], pa.duration("ms")),
    "decimal256": pa.array([decimal.Decimal("1.10"), None], pa.decimal256(60, 2)),
    "decimal32": pa.array([decimal.Decimal("1.10"), None], pa.decimal32(5, 2)),
    "fixed binary": pa.array([b"ab", None], pa.binary(2)),
    "view": pa.array(["a", None], pa.string_view()),
    "null": pa.nulls(2),
    "map": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
    "struct": pa.array([{"x": 1, "y": ["a"]}, None]),
    "nested NaN": pa.array([[float("nan")], []], pa.list_(pa.float64())),
    "fixed list": pa.array([[1, 2], [3, None]], pa.list_(pa.int8(), 2)),
    "large list": pa.array([["a"], None], pa.large_list(pa.large_string())),
    "dictionary of numbers": pa.DictionaryArray.from_arrays(pa.array([1, 0, None], pa.int8()), [5.5, -1.0]),
    "unused in dictionary": pa.DictionaryArray.from_arrays([2, 0], ["c", "b", "a"], ordered=True),
    "uuid": pa.array([b"0" * 16, None], pa.uuid()),
}  # fmt: skip


@pytest.mark.parametrize("table", [*TABLES, *ARROW])
def test_a_table_comes_back_with_its_schema(store: ArtifactStore, table: str) -> None:
    value = TABLES[table] if table in TABLES else pa.table({"a": ARROW[table], "b.c": ARROW[table]})

    back = store.save(value, "task", format="parquet").load()

    assert type(back) is type(value)
    assert back.schema.equals(value.schema, check_metadata=True)
    assert [str(column.type) for column in back.columns] == [str(column.type) for column in value.columns]
    assert back.equals(value) or repr(back.to_pylist()) == repr(value.to_pylist())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (pa.table({"n": pa.array([(1, 2, 3)], pa.month_day_nano_interval())}), r"the column 'n' of type month_day"),
        (pa.table([[1], [2]], names=["a", "a"]), r"two columns 'a'"),
        (pa.table({"d": pa.DictionaryArray.from_arrays([0, 1], ["x", "x"])}), r"the column 'd'.*comes back differently"),
        (pa.table({"f": pa.array([[1, 2], None], pa.list_(pa.int8(), 2))}), r"the column 'f' of type fixed_size_list"),
        (pa.table({"s": pa.array([{}, None], pa.struct([]))}), r"the column 's' of type struct<>"),
        (Frame({"t": np.array([2**60], "M8[s]")}), r"the column 't' of type timestamp\[s\]"),
        (Frame({"a": [1]}, index=[1j]), r"the index of type <c16"),
        (Frame({"a": pd.Categorical(pd.PeriodIndex(["2020"], freq="Y"))}), r"the column 'a'.*no type for periods"),
        (Frame([[1]], columns=pd.Index(["\ud800"], dtype=object)), r"'\\ud800'"),
        (np.arange(3), r"'parquet-v1' does not store a numpy.ndarray"),
    ],
)  # fmt: skip
def test_what_parquet_does_not_keep_is_refused(store: ArtifactStore, value: Any, message: str) -> None:
    with pytest.raises(UnsupportedTypeError, match=message):
        store.save(value, "task", format="parquet")


PLAIN = Frame(
    {
        "number": [1, -2, 3],
        "float": [0.5, np.nan, -0.0],
        "text": ["a", None, "é"],
        "flag": pd.array([True, None, False], dtype="boolean"),
        "Int64": pd.array([1, None, 3], dtype="Int64"),
        "category": pd.Categorical(["x", "y", "x"], categories=["z", "y", "x"]),
        "bins": pd.cut([1, 2, 3], [0, 2, 4]),
        "when": pd.date_range("2020-10-24 23:00", periods=3, tz="UTC").tz_convert("Europe/Berlin"),
        "naive": np.array(["2013-05-01", "NaT", "1500-01-01"], "M8[s]"),
        "month": pd.PeriodIndex(["2020-01", None, "2020-03"], freq="M"),
        "day": [dt.date(2020, 1, 1), None, dt.date(1900, 1, 1)],
        "price": [decimal.Decimal("1.10"), decimal.Decimal("2.50"), None],
        "vector": [np.ones(2, "f4"), None, np.zeros(1, "f4")],
        7: ["not", "text", "name"],
    },
    index=pd.Index(["r1", "r2", "r3"], name="key"),
)


def test_duckdb_sees_natural_names_types_and_values(store: ArtifactStore) -> None:
    path = store.save(PLAIN, "task", format="parquet").path()
    with duckdb.connect() as connection:
        table = connection.read_parquet(str(path))
        types = dict(zip(table.columns, map(str, table.types), strict=True))
        connection.execute("SET TimeZone = 'UTC'")
        rows = connection.execute(
            "SELECT number, text, flag, \"Int64\", category, bins.left, epoch_ms(\"when\"), naive, month, day, price,"
            " vector, \"7\", float::VARCHAR FROM read_parquet(?) ORDER BY key",
            [str(path)],
        ).fetchall()  # fmt: skip

    assert types == {
        **{"number": "BIGINT", "float": "DOUBLE", "text": "VARCHAR", "flag": "BOOLEAN", "Int64": "BIGINT"},
        **{"category": "VARCHAR", "bins": 'STRUCT("left" BIGINT, "right" BIGINT)'},
        **{"when": "TIMESTAMP WITH TIME ZONE", "naive": "TIMESTAMP", "month": "TIMESTAMP", "day": "DATE"},
        **{"price": "DECIMAL(3,2)", "vector": "FLOAT[]", "7": "VARCHAR", "key": "VARCHAR"},
    }  # fmt: skip
    assert rows == [
        (1, "a", True, 1, "x", 0, 1603580400000, dt.datetime(2013, 5, 1), dt.datetime(2020, 1, 1), dt.date(2020, 1, 1), decimal.Decimal("1.10"), [1.0, 1.0], "not", "0.5"),
        (-2, None, None, None, "y", 0, 1603666800000, None, None, None, decimal.Decimal("2.50"), None, "text", "nan"),
        (3, "é", False, 3, "x", 2, 1603753200000, dt.datetime(1500, 1, 1), dt.datetime(2020, 3, 1), dt.date(1900, 1, 1), None, [0.0], "name", "-0.0"),
    ]  # fmt: skip


def test_pandas_opens_the_local_file_with_its_index(store: ArtifactStore) -> None:
    ref = store.save(PLAIN, "task", format="parquet")
    path = ref.path()
    found = pd.read_parquet(path)

    assert path.name == "task.parquet"
    assert same(ref.load(), PLAIN)
    assert found.index.equals(PLAIN.index)
    assert found.index.name == "key"
    assert list(found.columns) == [str(label) for label in PLAIN.columns]
    for label in ("number", "float", "text", "flag", "Int64", "category", "when", "naive", "day", "price"):
        assert found[label].equals(PLAIN[label].astype(found[label].dtype)), label
    assert found[["flag", "Int64"]].dtypes.tolist() == ["boolean", "Int64"]
    assert found["month"].tolist() == [pd.Timestamp("2020-01-01"), pd.NaT, pd.Timestamp("2020-03-01")]


@pytest.mark.parametrize(
    "name", ["plain", "no rows", "DatetimeIndex", "RangeIndex", "MultiIndex", "attrs", "slice"]
)
def test_pandas_reads_common_frames_as_they_were(store: ArtifactStore, name: str) -> None:
    found = pd.read_parquet(store.save(FRAMES[name], "task", format="parquet").path())

    assert found.shape == FRAMES[name].shape
    assert found.index.names == FRAMES[name].index.names
    assert found.index.equals(FRAMES[name].index)
    assert repr(found.to_numpy().tolist()) == repr(FRAMES[name].to_numpy().tolist())


@pytest.mark.parametrize("name", [name for name in FRAMES if name not in REFUSED])
def test_pyarrow_and_pandas_open_every_file(store: ArtifactStore, name: str) -> None:
    path = store.save(FRAMES[name], "task", format="parquet").path()

    assert pq.read_table(path).num_rows in (0, len(FRAMES[name]))
    assert pd.read_parquet(path).shape == FRAMES[name].shape


def test_a_table_is_its_own_columns_in_the_file(store: ArtifactStore) -> None:
    path = store.save(TABLES["table"], "task", format="parquet").path()

    assert pq.read_table(path).equals(TABLES["table"])
    assert pq.read_schema(path).metadata[b"k"] == b"v"


ROWS = [slice(0, 2), slice(1, None), slice(-1, None), slice(1, -1), slice(2, 1), slice(0, 99), slice(-99, 1)]


@pytest.mark.parametrize("group", [2, 1000])
@pytest.mark.parametrize("name", [name for name in FRAMES if name not in REFUSED])
def test_parts_are_those_of_the_whole(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch, name: str, group: int
) -> None:
    monkeypatch.setattr(parquet, "_ROWS_PER_GROUP", group)
    frame = FRAMES[name]
    ref = store.save(frame, "task", format="parquet")
    labels = list(frame.columns[::-2])
    places = list(range(frame.shape[1]))[::-2]

    for rows in ROWS:
        assert same(ref.load(rows=rows), frame.iloc[rows])
        assert same(ref.load(columns=labels, rows=rows), frame.iloc[rows, places])
    for rows in ROWS if frame.shape[1] else []:
        column = store.save(frame.iloc[:, 0], "task", format="parquet")
        assert same(column.load(rows=rows), frame.iloc[rows, 0])


def test_only_the_row_groups_and_columns_asked_for_are_read(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_ROWS_PER_GROUP", 10)
    read: list[Any] = []
    real = pq.ParquetFile.read_row_groups

    def noting(self: Any, groups: Any, columns: Any = None, **kwargs: Any) -> Any:
        read.append((groups, columns))
        return real(self, groups, columns=columns, **kwargs)

    table = pa.table({"a": range(100), "a.b": range(100), "c": range(100)})
    frame = Frame({"a": range(100), "b": range(100)}, index=[f"r{number}" for number in range(100)])
    refs = [store.save(value, "task", format="parquet") for value in (table, frame)]
    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", noting)

    assert refs[0].load(columns=["a.b"], rows=slice(25, 31)).to_pydict() == {"a.b": list(range(25, 31))}
    assert refs[1].load(columns=["b"], rows=slice(-5, None)).equals(frame[["b"]].iloc[-5:])
    assert read == [([2, 3], ["a.b"]), ([9], ["b", "__index_level_0__"])]
    with pytest.raises(ValueError, match=r"no column 'x'; it has 'a'"):
        refs[1].load(columns=["x"])


def test_a_parquet_file_of_others_is_refused(tmp_path: Any) -> None:
    pq.write_table(TABLES["no metadata"], tmp_path / "other.parquet")
    content = (tmp_path / "other.parquet").read_bytes()
    pq.write_table(
        TABLES["table"].replace_schema_metadata({"airflow_ml_provider": "{}"}), tmp_path / "made.parquet"
    )

    for data in ((tmp_path / "made.parquet").read_bytes(), content, content[:-1], b"", b"PAR1PAR1"):
        with pytest.raises(ArtifactCorruptError, match="'task' is"):
            parquet.load(memoryview(data), Stored("task", "pandas.DataFrame"))
