# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501 - tables of values
from __future__ import annotations

import datetime as dt
import decimal
import zoneinfo
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import UnsupportedTypeError
from tests.unit.artifacts.sameness import same

Frame = pd.DataFrame


def series(values: Any, dtype: Any = object) -> pd.Series:
    return pd.Series(values, dtype=dtype)


FRAMES: dict[str, pd.DataFrame] = {
    "plain": Frame({"i": [1, 2], "f": [np.nan, -0.0], "s": ["a", None], "b": [True, False]}),
    "empty": Frame(),
    "no rows": Frame({"a": series([], "int8"), "b": series([], "str"), "c": series([]), "d": series([], "M8[s]")}),
    "no columns": Frame(index=[3, 4]),
    "duplicate columns": Frame([[1, "x", 2.0]], columns=["a", "a", "b"]),
    "labels of mixed types": Frame([[1, 2, 3, 4]], columns=[0, "a", (1, 2), None]),
    "NaN as a label": Frame([[1, 2]], columns=["a", np.nan]),
    "dates as labels": Frame([[1, 2]], columns=pd.date_range("2020", periods=2)),
    "object labels": Frame([[1, 2]], columns=pd.Index(["a", "b"], dtype=object, name="labels")),
    "MultiIndex": Frame(
        np.arange(12).reshape(4, 3),
        index=pd.MultiIndex.from_product([["a", "b"], [1, 2]], names=["x", None]),
        columns=pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)]),
    ),
    "MultiIndex with gaps": Frame(
        {"v": [1, 2, 3]},
        index=pd.MultiIndex.from_arrays([["a", None, "b"], pd.to_datetime(["2020", None, "2021"])]),
    ).iloc[1:],
    "duplicate index": Frame({"a": ["x", 1]}, index=[7, 7]),
    "nullable": Frame(
        {
            "Int64": series([1, None], "Int64"),
            "UInt8": series([1, None], "UInt8"),
            "Float32": series([1.5, None], "Float32"),
            "boolean": series([True, None], "boolean"),
            "string": series(["x", None], "string"),
            "python": series(["x", None], pd.StringDtype("python")),
            "str python": series(["x", None], pd.StringDtype("python", na_value=np.nan)),
        }
    ),
    "categories": Frame(
        {
            "ordered": pd.Categorical(["x", "y", None], categories=["z", "y", "x"], ordered=True),
            "numbers": pd.Categorical([3, 1, 3]),
            "times": pd.Categorical([pd.Timestamp("2020", tz="UTC")] * 3),
            "intervals": pd.cut([1, 2, 3], 2),
            "ranges": pd.Categorical.from_codes([0, 1, -1], categories=pd.RangeIndex(3)),
        }
    ),
    "times": Frame(
        {
            "zone": pd.date_range("2020-10-24 23:00", periods=3, freq="h", tz="UTC").tz_convert("Europe/Berlin"),
            "zoneinfo": pd.date_range("2020", periods=3, tz=zoneinfo.ZoneInfo("Asia/Tokyo")),
            "offset": pd.date_range("2020", periods=3, tz=dt.timezone(dt.timedelta(hours=2))).as_unit("s"),
            "naive": pd.to_datetime(["2020-01-01", None, "2021-01-01"]),
            "ns": pd.date_range("2020", periods=3).as_unit("ns"),
            "delta": pd.to_timedelta([1, None, 3], unit="s"),
            "period": pd.PeriodIndex(["2020-01", None, "2020-03"], freq="M"),
            "nothing": series([pd.NaT] * 3, "datetime64[ns, UTC]"),
        }
    ),
    "objects": Frame(
        {
            "mixed": [1, "a", None],
            "bool and None": series([True, None, False]),
            "1 and True": series([1, True, 1.0]),
            "text and None": series(["a", None, "b"]),
            "text and NaN": series(["a", np.nan, "b"]),
            "None": series([None] * 3),
            "NaN": series([np.nan] * 3),
            "missing of all kinds": series([pd.NA, pd.NaT, None]),
            "decimal": [decimal.Decimal("1.10"), None, decimal.Decimal("-0")],
            "date": [dt.date(2020, 1, 1)] * 3,
            "list": [[1], [2, "a"], None],
            "dict": [{"a": 1}, {}, {2: 3}],
            "tuple": [(1, 2), (), None],
            "bytes": [b"a", b"\0", None],
            "surrogate": series(["\ud800", "b", "c"]),
            "large": series([2**70, -1, 0]),
        }
    ),
    "embeddings": Frame({"e": [np.ones(3, "f4"), None, np.zeros(0, "f4")], "f": [np.ones((2, 2)), 1, "a"]}),
    "rare numbers": Frame(
        {"c16": [1 + 2j, np.nan], "c8": series([1, 2], "c8"), "f2": series([1, 2], "f2"), "g": series([1, 2], "g")}
    ),
    "DatetimeIndex": Frame({"a": [1, 2]}, index=pd.date_range("2020", periods=2, freq="D", name="day")),
    "IntervalIndex": Frame({"a": [1, 2]}, index=pd.interval_range(0, 2, closed="left")),
    "RangeIndex": Frame({"a": [1, 2]}, index=pd.RangeIndex(5, 1, -2, name="r")),
    "CategoricalIndex": Frame({"a": [1, 2]}, index=pd.CategoricalIndex(["b", "a"], name="c")),
    "PeriodIndex": Frame({"a": [1, 2]}, index=pd.period_range("2020", periods=2, freq="Q")),
    "TimedeltaIndex": Frame({"a": [1, 2]}, index=pd.timedelta_range("1h", periods=2, freq="h")),
    "Arrow types": Frame(
        {
            "i": pd.array([1, None], dtype="int32[pyarrow]"),
            "l": pd.array([[1], None], dtype=pd.ArrowDtype(pa.list_(pa.int64()))),
            "t": pd.array([dt.datetime(2020, 1, 1), None], dtype=pd.ArrowDtype(pa.timestamp("us", "Europe/Rome"))),
            "s": pd.array(["a", None], dtype=pd.ArrowDtype(pa.string())),
        }
    ),
    "slice": Frame(np.arange(20).reshape(5, 4), columns=list("abcd"))[::2],
    "flags": Frame({"a": [1]}).set_flags(allows_duplicate_labels=False),
}  # fmt: skip
_attrs = Frame({"a": [1]})
_attrs.attrs = {"source": ("a", 1), "when": dt.date(2020, 1, 1)}
FRAMES["attrs"] = _attrs


@pytest.mark.parametrize("name", FRAMES)
def test_frames_series_and_indexes_come_back_as_they_were(store: ArtifactStore, name: str) -> None:
    frame = FRAMES[name]
    for value in (frame, frame.index, frame.columns, *(frame.iloc[:, n] for n in range(frame.shape[1]))):
        assert same(value, store.decode(store.encode(value, name="task")))


@pytest.mark.parametrize("name", FRAMES)
def test_equal_frames_are_stored_once(store: ArtifactStore, name: str) -> None:
    frame = FRAMES[name]

    assert store.save(frame, "task").digest == store.save(frame.copy(deep=True), "task").digest


def test_loaded_frames_can_be_written_to(store: ArtifactStore) -> None:
    back = store.save(FRAMES["plain"], "task").load()

    back.loc[0, "i"] = 7
    back["f"] += 1
    assert back.loc[0, "i"] == 7


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (Frame({"odd": series([object()])}), r"column 'odd' of dtype object holds object in row 0"),
        (Frame({"thin": pd.arrays.SparseArray([0, 0, 1])}), r"column 'thin' has the dtype Sparse.*to_dense"),
        (Frame({"old": np.array([1, 2], dtype=">i4")}), r"column 'old' has the byte order"),
        (
            Frame({"a": [1]}, index=pd.date_range("2020", periods=1, freq=pd.offsets.CustomBusinessDay(holidays=["2020-01-02"]))),
            r"the index has the frequency",
        ),
    ],
    ids=["object", "sparse", "byte order", "frequency"],
)  # fmt: skip
def test_what_arrow_cannot_carry_is_refused_by_column(store: ArtifactStore, frame: Any, message: str) -> None:
    with pytest.raises(UnsupportedTypeError, match=message):
        store.save(frame, "task")


TABLES = {
    "table": pa.table({"a": [1, None], "b": [["x"], []]}).replace_schema_metadata({"k": "v"}),
    "no metadata": pa.table({"a": pa.chunked_array([[1], [2, 3]])}),
    "empty": pa.table({}),
    "no rows": pa.table({"a": pa.array([], pa.decimal128(10, 2))}),
    "dictionary": pa.table({"a": pa.array(["x", "y", "x"]).dictionary_encode()}),
    "batch": pa.record_batch({"a": [1, 2]}),
    "empty batch": pa.record_batch({"a": pa.array([], pa.int8())}),
    "not null": pa.table({"a": [1]}, schema=pa.schema([pa.field("a", pa.int64(), nullable=False)])),
}


@pytest.mark.parametrize("name", TABLES)
def test_arrow_tables_come_back_with_their_schema(store: ArtifactStore, name: str) -> None:
    table = TABLES[name]

    back = store.save(table, "task").load()

    assert type(back) is type(table)
    assert back.equals(table, check_metadata=True)
    assert back.schema.equals(table.schema, check_metadata=True)
