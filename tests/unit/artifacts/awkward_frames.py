# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501 - tables of values
"""Every dtype and shape of pandas that is easily changed on the way. Needs pandas 2.2 and no test library."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

Frame = pd.DataFrame


def series(values: Any, dtype: Any = object) -> pd.Series:
    return pd.Series(values, dtype=dtype)


NUMBERS = (
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
)
NULLABLE = (
    "Int8",
    "Int16",
    "Int32",
    "Int64",
    "UInt8",
    "UInt16",
    "UInt32",
    "UInt64",
    "Float32",
    "Float64",
    "boolean",
)
FREQUENCIES = ("Y", "Q-NOV", "M", "W-TUE", "D", "h", "min", "s", "ms", "us", "ns", "2M", "Y-MAR")
UNITS = ("s", "ms", "us", "ns")

AWKWARD: dict[str, pd.DataFrame] = {
    "numbers": Frame({kind: series([1, 0], kind) for kind in (*NUMBERS, "bool")}),
    "nullable": Frame({kind: series([1, None], kind) for kind in NULLABLE}),
    "NaN that is not NA": Frame({"a": pd.arrays.FloatingArray(np.array([np.nan, 1.0]), np.array([False, True]))}),
    "numbers below NA": Frame({"a": pd.arrays.IntegerArray(np.array([5, 1]), np.array([True, False]))}),
    "text": Frame({"pyarrow": series(["x", None], pd.StringDtype("pyarrow")), "python": series(["x", None], pd.StringDtype("python")), "object": series(["x", None])}),
    "odd text": Frame({"a": series(["é", "\0", "", None, "😀"])}),
    "times beyond ns": Frame({unit: np.array(["0001-01-01", "NaT", "9999-12-31"], f"M8[{unit}]") for unit in UNITS[:3]}),
    "zones beyond ns": Frame({unit: pd.Series(np.array(["0001-01-02", "NaT", "9999-12-30"], f"M8[{unit}]")).dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo") for unit in UNITS[:3]}),
    "seconds beyond all": Frame({"s": np.array([2**62, -(2**62)], "M8[s]"), "d": np.array([2**62, -(2**62)], "m8[s]")}),
    "spans": Frame({unit: np.array([1, "NaT", -1], f"m8[{unit}]") for unit in UNITS}),
    "periods": Frame({freq: pd.PeriodIndex(["2020-01-01", None], freq=freq) for freq in FREQUENCIES}),
    "intervals": Frame({closed: pd.arrays.IntervalArray.from_tuples([(0, 1), None, (2.5, 3)], closed=closed) for closed in ("left", "right", "both", "neither")}),
    "intervals of others": Frame({"times": pd.interval_range(pd.Timestamp("2020", tz="UTC"), periods=2, freq="D"), "spans": pd.interval_range(pd.Timedelta(0), periods=2, freq="h"), "int": pd.arrays.IntervalArray.from_breaks(np.array([1, 2, 3]))}),
    "categories": Frame(
        {
            "all missing": pd.Categorical([None, None]),
            "none": pd.Categorical([None, None], categories=[]),
            "bool": pd.Categorical([True, False]),
            "float": pd.Categorical([1.5, np.nan]),
            "mixed": pd.Categorical([1, "a"]),
            "Int64": pd.Categorical(pd.array([1, 2], dtype="Int64")),
            "string": pd.Categorical(pd.array(["a", "b"], dtype="string")),
            "tuples": pd.Categorical([(1, 2), (3, 4)]),
            "dates": pd.Categorical([dt.date(2020, 1, 1)] * 2),
            "periods": pd.Categorical(pd.PeriodIndex(["2020", "2021"], freq="Y")),
        }
    ),
    "categories without rows": Frame({"a": pd.Categorical([], categories=["x", "y"], ordered=True)}),
    "many categories": Frame({"a": pd.Categorical.from_codes(np.arange(200), categories=[f"c{number}" for number in range(200)])}),
    "objects": Frame(
        {
            "moments": series([pd.Timestamp("2020"), pd.Timestamp("2020", tz="UTC")]),
            "span": series([pd.Timedelta(1), None]),
            "period": series([pd.Period("2020-01", "M"), None]),
            "intervals": series([pd.Interval(0, 1), pd.Interval(-0.0, 1e300, closed="both")]),
            "interval of times": series([pd.Interval(pd.Timestamp("2020"), pd.Timestamp("2021")), None]),
            "numpy": series([np.int64(1), np.float32(2)]),
            "nested": series([{"a": [1, {2}]}, frozenset([1])]),
            "complex": series([1j, None]),
            "time": series([dt.time(1), dt.timedelta(1)]),
            "uuid": series([uuid.UUID(int=1), None]),
            "infinity": series([float("inf"), 1]),
        }
    ),
    "Arrow": Frame(
        {
            "dictionary": pd.array(["a", "b"], dtype=pd.ArrowDtype(pa.dictionary(pa.int8(), pa.string()))),
            "decimal": pd.array([None, None], dtype=pd.ArrowDtype(pa.decimal128(5, 2))),
            "struct": pd.array([{"a": 1}, None], dtype=pd.ArrowDtype(pa.struct([("a", pa.int64())]))),
            "null": pd.array([None, None], dtype=pd.ArrowDtype(pa.null())),
            "duration": pd.array([dt.timedelta(1), None], dtype=pd.ArrowDtype(pa.duration("ms"))),
            "date": pd.array([dt.date(2020, 1, 1), None], dtype=pd.ArrowDtype(pa.date32())),
            "bool": pd.array([True, None], dtype="bool[pyarrow]"),
            "large": pd.array(["a", None], dtype=pd.ArrowDtype(pa.large_string())),
        }
    ),
    "MultiIndex of many kinds": Frame(
        [[1, 2]],
        columns=pd.MultiIndex.from_tuples([("a", 1.5), (None, np.nan)], names=["x", ("y", 2)]),
        index=pd.MultiIndex.from_arrays([pd.Categorical(["q"], categories=["r", "q"]), pd.DatetimeIndex(["2020"], tz="UTC"), pd.interval_range(0, 1)]),
    ),
    "MultiIndex without rows": Frame(index=pd.MultiIndex.from_arrays([[], []], names=["a", "b"]), columns=pd.MultiIndex.from_arrays([[], []])),
    "MultiIndex of one twice": Frame({"a": [1, 2]}, index=pd.MultiIndex.from_tuples([("a", 1), ("a", 1)])),
    "labels": Frame([[1] * 6], columns=[1.5, True, dt.date(2020, 1, 1), pd.Timestamp("2020", tz="UTC"), b"x", pd.NaT]),
    "labels of a category": Frame([[1, 2]], columns=pd.CategoricalIndex(["a", "b"], name="c")),
    "labels of intervals": Frame([[1, 2]], columns=pd.interval_range(0, 2)),
    "labels of periods": Frame([[1, 2]], columns=pd.period_range("2020", periods=2, freq="M")),
    "labels of int8": Frame([[1, 2]], columns=pd.Index([1, 2], dtype="int8")),
    "labels of string": Frame([[1, 2]], columns=pd.Index(["a", "b"], dtype="string")),
    "labels of a range": Frame([[1, 2]], columns=pd.RangeIndex(2, 6, 2)),
    "labels like ours": Frame([[1, 2, 3, 4]], columns=pd.Index(["", "a.b", "__index__", "x\0y"], dtype=object)),
    "names of axes": Frame([[1]], index=pd.Index([7], name=("i", 1)), columns=pd.Index([8], name=("c", None))),
    "neither": Frame(index=pd.DatetimeIndex([], freq="D")),
    "rows alone": Frame(index=range(5)),
    "no rows": Frame({"t": pd.DatetimeIndex([], tz="UTC"), "p": pd.PeriodIndex([], freq="M"), "i": pd.arrays.IntervalArray.from_tuples([]), "c": pd.Categorical([]), "s": pd.array([], dtype="string"), "I": pd.array([], dtype="Int64"), "x": pd.arrays.SparseArray(np.array([], "i8"))}),
    "index of Arrow": Frame({"a": [1, 2]}, index=pd.Index([1, None], dtype="int64[pyarrow]")),
    "index of Int64": Frame({"a": [1, 2]}, index=pd.Index([1, None], dtype="Int64", name="n")),
    "index of string": Frame({"a": [1, 2]}, index=pd.Index(["a", None], dtype="string")),
    "index of months": Frame({"a": range(3)}, index=pd.date_range("2020", periods=3, freq="MS", tz="Europe/Berlin")),
    "index of the year 1": Frame({"a": [1]}, index=pd.DatetimeIndex(np.array(["0001"], "M8[s]"))),
    "strided": Frame(np.asfortranarray(np.arange(12.0).reshape(3, 4))[::-1, ::2]),
    "sparse": Frame({"zero": pd.arrays.SparseArray([0, 0, 1, 2]), "NaN": pd.arrays.SparseArray([np.nan, 1.5, np.nan, 2]), "one": pd.arrays.SparseArray([1, 1, 0, 1], fill_value=1, kind="block"), "bool": pd.arrays.SparseArray([True, False, True, True])}),
}  # fmt: skip


def some_frame(random: np.random.Generator) -> pd.DataFrame:
    """A frame of columns, rows and labels that chance picks from the table."""
    rows = int(random.integers(0, 40))
    parts = [column for frame in AWKWARD.values() for _label, column in frame.items() if len(column)]
    made = []
    for place in random.integers(0, len(parts), int(random.integers(0, 8))):
        picked = parts[place].reset_index(drop=True)
        made.append(picked.take(random.integers(0, len(picked), rows)).reset_index(drop=True))
    index = parts[int(random.integers(0, len(parts)))].reset_index(drop=True)
    frame = pd.concat(made, axis=1) if made else Frame(index=range(rows))
    kind = int(random.integers(0, 4))
    if kind == 1:
        frame.index = pd.Index(index.take(random.integers(0, len(index), rows)), tupleize_cols=False)
    elif kind == 2:
        frame.index = pd.MultiIndex.from_arrays([random.integers(0, 3, rows), random.random(rows).round(1)])
    elif kind == 3:
        frame.index = pd.date_range("2020", periods=rows, freq="15min", tz="Europe/Rome", name="when")
    return frame
