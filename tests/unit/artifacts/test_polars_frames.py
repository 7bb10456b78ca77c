# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501 - tables of values
"""polars: every dtype comes back, or is refused by column."""

from __future__ import annotations

import datetime as dt
import decimal
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from airflow_ml_provider.artifacts.codecs import polars_frames
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import UnsupportedFormatError, UnsupportedTypeError

D = decimal.Decimal
SERIES: dict[str, pl.Series] = {
    **{kind: pl.Series(kind, [1, None, 7], getattr(pl, kind)) for kind in polars_frames._NUMBERS},
    "large": pl.Series("large", [2**100, None, -(2**127)], pl.Int128),
    "float": pl.Series("float", [1.5, float("nan"), None, -0.0]),
    "Float32": pl.Series("Float32", [1.5, float("-inf")], pl.Float32),
    "String": pl.Series("String", ["x", None, "é\0", ""]),
    "Binary": pl.Series("Binary", [b"\xff", None, b""]),
    "Boolean": pl.Series("Boolean", [True, None, False]),
    "Null": pl.Series("Null", [None, None]),
    "Date": pl.Series("Date", [dt.date(1, 1, 1), None]),
    "Time": pl.Series("Time", [dt.time(23, 59, 59, 999999), None]),
    **{f"Datetime {unit}": pl.Series(unit, [0, None, -(2**62)]).cast(pl.Datetime(unit)) for unit in ("ms", "us", "ns")},
    "Datetime zone": pl.Series("z", [dt.datetime(2020, 10, 25), None]).dt.replace_time_zone("Europe/Berlin"),
    "Datetime UTC": pl.Series("z", [dt.datetime(2020, 10, 25), None]).dt.replace_time_zone("UTC"),
    **{f"Duration {unit}": pl.Series(unit, [0, None, -(2**62)]).cast(pl.Duration(unit)) for unit in ("ms", "us", "ns")},
    "Decimal": pl.Series("Decimal", [D("1.10"), None], pl.Decimal(10, 2)),
    "Decimal 38": pl.Series("Decimal 38", [D("-1.1"), None], pl.Decimal(38, 5)),
    "Categorical": pl.Series("c", ["x", None, "y", "x"], pl.Categorical),
    "Categorical of its own": pl.Series("c", ["x", None], pl.Categorical(pl.Categories("mine", "of tests", pl.UInt8))),
    "Enum": pl.Series("e", ["x", None, "z"], pl.Enum(["z", "y", "x"])),
    "Enum without values": pl.Series("e", [None], pl.Enum([])),
    "List": pl.Series("l", [[1, None], [], None]),
    "List of lists": pl.Series("l", [[["x"], None], [], None]),
    "List of Categorical": pl.Series("l", [["x", "y"], [None], None], pl.List(pl.Categorical)),
    "Struct": pl.Series("s", [{"x": 1, "y": ["a"]}, None, {"x": None, "y": None}]),
    "Struct of Enum": pl.Series("s", [{"x": "a"}, None], pl.Struct({"x": pl.Enum(["b", "a"])})),
    "Array": pl.Series("a", [[1, 2], None, [3, 4]], pl.Array(pl.Int32, 2)),
    "Array of arrays": pl.Series("a", [[[1, 2], [3, 4]], None], pl.Array(pl.Float32, (2, 2))),
    "Array of arrays, all there": pl.Series("a", [[[1, 2], [3, 4]], [[5, 6], [7, 8]]], pl.Array(pl.Int8, (2, 2))),
    "name with a NUL": pl.Series("a\0b", [1, 2]),
    "nested NaN": pl.Series("n", [[float("nan")]]),
    "no rows": pl.Series("", [], pl.List(pl.Enum(["x"]))),
    "chunks": pl.concat([pl.Series("a", ["x"]), pl.Series("a", ["y", None])], rechunk=False),
    "slice": pl.Series("a", ["x", "y", "z"], pl.Categorical)[1:],
}  # fmt: skip
FRAMES = {
    "all": pl.DataFrame([series.head(1).alias(name) for name, series in SERIES.items() if len(series)]),
    "empty": pl.DataFrame(),
    "no rows": pl.DataFrame(schema={"a": pl.Int8, "b": pl.Struct({"x": pl.Enum(["a"])}), "": pl.String}),
    "rows alone": pl.DataFrame(height=3),
    "name with a NUL": pl.DataFrame({"a\0b": [1, 2]}),
    "rows": pl.DataFrame({"a": [1, 2, 3], "b": ["x", None, "z"], "c": [[1], [], None]}),
}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, pl.Series):
        return (
            type(other) is pl.Series
            and one.dtype == other.dtype
            and one.equals(other, check_dtypes=True, check_names=True, null_equal=True)
            and (one.dtype.is_temporal() or repr(one.to_list()) == repr(other.to_list()))
        )
    return (
        type(one) is type(other) is pl.DataFrame
        and one.schema == other.schema
        and one.shape == other.shape
        and all(map(same, one.get_columns(), other.get_columns()))
    )


@pytest.mark.parametrize("name", SERIES)
def test_series_come_back_as_they_were(store: ArtifactStore, name: str) -> None:
    series = SERIES[name]
    ref = store.save(series, "task")

    assert (ref.format, ref.type) == ("arrow-v1", "polars.Series")
    assert same(ref.load(), series)
    assert same(ref.load(rows=slice(1, 2)), series[1:2])
    assert same(ref.load(rows=2), series[:2])
    assert ref.digest == store.save(series.clone(), "task").digest


@pytest.mark.parametrize("name", FRAMES)
def test_frames_come_back_as_they_were(store: ArtifactStore, name: str) -> None:
    frame = FRAMES[name]
    ref = store.save(frame, "task")

    assert (ref.format, ref.type) == ("arrow-v1", "polars.DataFrame")
    assert same(ref.load(), frame)
    assert ref.digest == store.save(frame.clone(), "task").digest


@pytest.mark.parametrize("format", ["arrow", "parquet"])
def test_parts_are_those_of_the_whole(store: ArtifactStore, format: str) -> None:
    frame = FRAMES["rows"]
    ref = store.save(frame, "task", format=format)

    for start, stop in ((0, 2), (1, 3), (2, 1), (-1, None), (0, 99)):
        part = frame[slice(start, stop)] if start != 2 else frame.clear()
        assert same(ref.load(rows=slice(start, stop)), part)
        assert same(ref.load(rows=slice(start, stop), columns=["c", "a"]), part.select("c", "a"))
    assert same(ref.load(columns=["b"]), frame.select("b"))
    assert ref.load(columns=[]).width == 0
    assert same(store.save(FRAMES["rows alone"], "task").load(rows=2), pl.DataFrame(height=2))
    with pytest.raises(ValueError, match=r"no column 'x'; it has 'a', 'b', 'c'"):
        ref.load(columns=["x"])
    with pytest.raises(TypeError, match="no columns to choose from"):
        store.save(frame["a"], "task", format=format).load(columns=["a"])


def test_parquet_keeps_polars_dtypes_too(store: ArtifactStore) -> None:
    refused = set()
    for name, series in SERIES.items():
        try:
            ref = store.save(series.to_frame("c"), "task", format="parquet")
        except UnsupportedTypeError:
            refused.add(name)
        else:
            assert same(ref.load(), series.to_frame("c")), name
            if not (series.dtype.is_float() or name.endswith((" ms", " us", " ns"))):
                assert pl.read_parquet(ref.path())["c"].equals(series.alias("c"), null_equal=True) or repr(pl.read_parquet(ref.path())["c"].to_list()) == repr(series.to_list()), name  # fmt: skip
    assert refused == {"Int128", "UInt128", "large", "Array", "Array of arrays"}


def test_duckdb_reads_a_frame_of_polars(store: ArtifactStore) -> None:
    path = store.save(FRAMES["rows"], "task", format="parquet").path()

    with duckdb.connect() as connection:
        assert connection.read_parquet(str(path)).fetchall() == FRAMES["rows"].rows()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (pl.DataFrame({"a": [1], "odd": pl.Series([object()], dtype=pl.Object)}), r"the column 'odd' has the dtype Object"),
        (pl.Series("odd", [[1]], pl.List(pl.Int128)), r"the series 'odd' of dtype List\(Int128\) cannot be stored"),
        (pl.Series("thin", [[], None], pl.Array(pl.Int8, 0)), r"the series 'thin' has the dtype Array"),
        (pl.Series("odd", [{"a\0b": 1}]), r"the series 'odd' of dtype Struct.* cannot be stored"),
        (pl.LazyFrame({"a": [1]}), r"LazyFrame is a plan and no data; call .collect\(\)"),
        ({"a": [pl.LazyFrame({"a": [1]})]}, r"call .collect\(\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_carried_is_refused(store: ArtifactStore, value: Any, message: str) -> None:
    with pytest.raises(UnsupportedTypeError, match=message):
        store.encode(value, name="task")


def test_a_preview_has_a_dict_for_each_row(store: ArtifactStore) -> None:
    assert store.save(FRAMES["rows"], "task").preview == [
        {"a": 1, "b": "x", "c": "[1]"},
        {"a": 2, "b": None, "c": "[]"},
        {"a": 3, "b": "z", "c": None},
    ]


def test_a_dtype_that_this_polars_lacks_is_an_error(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = store.save(pl.Series("a", [1], pl.UInt128), "task")
    monkeypatch.delattr(pl, "UInt128")

    with pytest.raises(UnsupportedFormatError, match=r"polars \S+ has no dtype UInt128"):
        ref.load()


def test_categories_reach_another_process(store: ArtifactStore, tmp_path: Path) -> None:
    ref = store.save(SERIES["Categorical of its own"], "task")
    code = (
        "import polars as pl, sys\n"
        "pl.Series(['other', 'y'], dtype=pl.Categorical)\n"
        "from airflow_ml_provider.artifacts.store import ArtifactStore\n"
        f"back = ArtifactStore({store.objects.root!r}, signing_key={store.signer._key!r})"
        f".get('task', {ref.version_id!r}).load()\n"
        "print(back.dtype == pl.Categorical(pl.Categories('mine', 'of tests', pl.UInt8)), back.to_list())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True ['x', None]\n"
