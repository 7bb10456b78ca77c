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
from airflow_ml_provider.exceptions import UnsupportedFormatError, UnsupportedTypeError
from tests.unit.artifacts.awkward_frames import AWKWARD, some_frame
from tests.unit.artifacts.sameness import same

Frame = pd.DataFrame


Sparse = pd.arrays.SparseArray


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
    "sparse": Frame(
        {
            "int": Sparse([0, 0, 1, 2, 0, 0]),
            "NaN": Sparse([np.nan, 1.5, np.nan, np.nan, -0.0, 2]),
            "zero": Sparse([0.0, 1, np.nan, 0, 0, 0], fill_value=0.0),
            "bool": Sparse([True, False, False, True, True, False]),
            "ones": Sparse([1, 1, 0, 1, 1, 1], fill_value=1, kind="block"),
            "block": Sparse([0, 0, 3, 4, 0, 5], kind="block"),
            "uint8": Sparse(np.array([0, 0, 0, 0, 255, 0], "u1")),
            "all": Sparse([1, 2, 3, 4, 5, 6]),
            "nothing": Sparse([0] * 6),
            "times": Sparse(np.array(["2020", "NaT", "NaT", "NaT", "NaT", "2021"], "M8[ns]")),
            "text": Sparse(np.array(["a", np.nan, "b", np.nan, np.nan, np.nan], dtype=object)),
            "complex": Sparse([0j, 1j, 0, 0, 0, 0]),
        }
    ),
    "sparse, no rows": Frame({"int": Sparse([]), "ones": Sparse(np.array([], "i1"), fill_value=1)}),
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


@pytest.mark.parametrize("name", AWKWARD)
def test_every_dtype_comes_back_as_it_was(store: ArtifactStore, name: str) -> None:
    frame = AWKWARD[name]
    for value in (frame, frame.index, frame.columns, *(frame.iloc[:, n] for n in range(frame.shape[1]))):
        ref = store.save(value, "task")
        assert same(value, ref.load())
        assert store.save(ref.load(), "task").digest == ref.digest


def test_text_that_an_older_pandas_lacks_is_an_error(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OlderStringDtype(pd.StringDtype):
        def __init__(self, storage: Any = None) -> None:
            super().__init__(storage)

    ref = store.save(Frame({"a": series(["x"], "str")}), "task")
    monkeypatch.setattr(pd, "StringDtype", OlderStringDtype)

    with pytest.raises(UnsupportedFormatError, match=r"dtype 'str' needs pandas 2.3 or 3, here is"):
        ref.load()


def test_a_preview_never_fails(store: ArtifactStore) -> None:
    frame = AWKWARD["seconds beyond all"]

    assert store.save(frame, "task").load().equals(frame)
    assert store.save(AWKWARD["zones beyond ns"], "task").preview[1] == {"s": "NaT", "ms": "NaT", "us": "NaT"}


@pytest.mark.parametrize("seed", range(25))
def test_frames_that_chance_made_come_back_as_they_were(store: ArtifactStore, seed: int) -> None:
    frame = some_frame(np.random.default_rng(seed))
    ref = store.save(frame, "task")

    assert same(frame, ref.load())
    assert store.save(ref.load(), "task").digest == ref.digest
    assert same(frame.iloc[1:-1], ref.load(rows=slice(1, -1)))


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
        (Frame({"thin": Sparse(np.array(["NaT", "2020"], "M8[s]"), fill_value=np.datetime64("2020", "s"))}), r"column 'thin' of dtype Sparse.*to_dense"),
        (Frame({"old": np.array([1, 2], dtype=">i4")}), r"column 'old' has the byte order"),
        (
            Frame({"a": [1]}, index=pd.date_range("2020", periods=1, freq=pd.offsets.CustomBusinessDay(holidays=["2020-01-02"]))),
            r"the index has the frequency",
        ),
        (Frame({"a": [1]}, index=pd.date_range("2020", periods=1, freq=pd.DateOffset(months=1))), r"the index has the frequency <DateOffset: months=1>.*set its freq to None"),
        (Frame({"a": [1, 2]}, index=pd.date_range("2020", periods=2, freq="3ms").as_unit("s")), r"the index has the frequency <3 \* Millis>.*set its freq to None"),
        (Frame({"a": [1]}, index=pd.date_range("2020", periods=1, freq="3ms").as_unit("s")), r"the index has the frequency <3 \* Millis>"),
        (Frame([[1]], columns=pd.Index(pd.arrays.ArrowExtensionArray(pa.DictionaryArray.from_arrays(pa.array([0]), pa.array([b"0" * 16], pa.uuid()))))), r"the column labels of dtype dictionary.*cannot be stored"),
        (Frame({"half": series(["\ud800"], pd.StringDtype("python"))}), r"column 'half' of dtype string cannot be stored exactly: .*surrogates"),
        (Frame({"twice": pd.Categorical.from_codes([0], pd.Index(pd.array(["a"], dtype=pd.ArrowDtype(pa.dictionary(pa.int8(), pa.string())))))}), r"the column 'twice' is of the type dictionary<values=dictionary.*does not read back"),
    ],
    ids=["object", "sparse", "byte order", "frequency", "frequency without a name", "frequency of others", "frequency of one", "labels", "surrogate", "dictionary of a dictionary"],
)  # fmt: skip
def test_what_arrow_cannot_carry_is_refused_by_column(store: ArtifactStore, frame: Any, message: str) -> None:
    with pytest.raises(UnsupportedTypeError, match=message):
        store.save(frame, "task")


@pytest.mark.parametrize("format", [None, "parquet"])
def test_attrs_keep_the_order_of_their_keys(store: ArtifactStore, format: str | None) -> None:
    frame = Frame({"a": [1]})
    frame.attrs = {"b": [{"d": 1, "c": ({"f": 1, "e": 2}, {"x": 1, "y": 2})}], "a": 1.5}

    back = store.save(frame, "task", format=format).load()

    assert repr(back.attrs) == repr(frame.attrs)


def test_labels_keep_their_categories_without_a_column(store: ArtifactStore) -> None:
    days = pd.CategoricalIndex(pd.to_datetime(["2020", "2021"], utc=True))
    frame = Frame([[1, 2]], columns=days).iloc[:, :0]

    assert same(frame, store.save(frame, "task").load())


def test_labels_keep_their_levels_without_a_column(store: ArtifactStore) -> None:
    frame = Frame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])).iloc[:, :0]

    back = store.save(frame, "task").load()

    assert [level.tolist() for level in back.columns.levels] == [["a", "b"], [1, 2]]


@pytest.mark.parametrize(
    "labels",
    [np.array([1, 2], "g"), pd.array(["1", "2"], dtype=pd.ArrowDtype(pa.json_()))],
    ids=["g", "json"],
)
def test_labels_that_pandas_cannot_look_up_come_back(store: ArtifactStore, labels: Any) -> None:
    frame = Frame([[1, 2]], columns=pd.Index(labels))

    assert same(frame, store.save(frame, "task").load())


def test_sparse_columns_are_stored_sparse(store: ArtifactStore) -> None:
    random = np.random.default_rng(0)
    values = np.where(random.random(1_000_000) < 0.001, random.random(1_000_000), 0)
    frame = Frame({"thin": Sparse(values, fill_value=0.0)})
    before = pa.total_allocated_bytes()
    ref = store.save(frame, "task")
    back = ref.load()

    assert ref.size_bytes < 40_000
    assert pa.total_allocated_bytes() - before < 100_000
    assert same(back, frame)
    assert back["thin"].array.nbytes == frame["thin"].array.nbytes


def test_a_sparse_column_keeps_the_zeros_that_it_stores(store: ArtifactStore) -> None:
    from scipy.sparse import csc_array

    frame = Frame.sparse.from_spmatrix(csc_array(([0.0, 1.5], ([1, 3], [0, 0])), shape=(5, 1)))
    array = frame.iloc[:, 0].array

    back = store.save(frame, "task").load().iloc[:, 0].array

    assert back.sp_values.tolist() == array.sp_values.tolist()
    assert back.sp_index.equals(array.sp_index)


ARRAYS: dict[str, pa.Array | pa.ChunkedArray] = {
    "numbers": pa.array([1, None, -3], pa.int8()),
    "no rows": pa.array([], pa.list_(pa.string())),
    "text": pa.array(["a", None, "é\0"]),
    "view": pa.array(["a", None, "long enough to stand elsewhere"], pa.string_view()),
    "null": pa.nulls(3),
    "nested": pa.array([{"x": [1, None], "y": {"z": "a"}}, None, {"x": None, "y": None}]),
    "map": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
    "union": pa.UnionArray.from_dense(pa.array([0, 1, 0], pa.int8()), pa.array([0, 0, 1], pa.int32()), [pa.array([1, 2]), pa.array(["a"])]),
    "dictionary": pa.DictionaryArray.from_arrays(pa.array([2, None, 0], pa.int8()), ["c", "unused", "a"], ordered=True),
    "dictionary by uint16": pa.DictionaryArray.from_arrays(pa.array([1, None, 0], pa.uint16()), ["a", "b"]),
    "run ends": pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["a", None])),
    "interval": pa.array([(1, 2, 3), None], pa.month_day_nano_interval()),
    "uuid": pa.array([b"0" * 16, None], pa.uuid()),
    "tensor": pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(12, dtype="f4").reshape(3, 2, 2)),
    "extension in a list": pa.ListArray.from_arrays([0, 1], pa.array([b"0" * 16], pa.uuid())),
    "chunks": pa.chunked_array([[1, 2], [], [None]]),
    "no chunks": pa.chunked_array([], pa.decimal128(5, 2)),
    "chunks of a dictionary": pa.chunked_array([pa.array(["x", "y"]).dictionary_encode(), pa.array(["y", "z"]).dictionary_encode()]),
}  # fmt: skip


@pytest.mark.parametrize("name", ARRAYS)
def test_arrow_arrays_come_back_as_they_were(store: ArtifactStore, name: str) -> None:
    array = ARRAYS[name]

    ref = store.save(array, "task")
    back = ref.load()

    assert type(back) is type(array)
    assert back.type.equals(array.type, check_metadata=True)
    assert back.equals(array) or repr(back.to_pylist()) == repr(array.to_pylist())
    back.validate(full=True)
    assert ref.load(rows=slice(1, 2)).to_pylist() == array.to_pylist()[1:2]
    assert ref.load(rows=0).type == array.type
    assert ref.type == f"pyarrow.{type(array).__name__}"
    with pytest.raises(TypeError, match="no columns to choose from"):
        ref.load(columns=["values"])


@pytest.mark.parametrize("name", [name for name in ARRAYS if name not in ("tensor", "extension in a list")])
def test_a_slice_stores_its_part_only(store: ArtifactStore, name: str) -> None:
    array = ARRAYS[name]
    if len(array) < 2:
        return
    large = (
        pa.concat_arrays([array] * 2000)
        if isinstance(array, pa.Array)
        else pa.chunked_array(array.chunks * 2000)
    )

    part = store.save(large.slice(2 * len(array), len(array)), "task")

    assert part.load().to_pylist() == array.to_pylist()
    assert part.size_bytes < 2500


class _Celsius(pa.ExtensionType):
    def __init__(self) -> None:
        super().__init__(pa.float64(), "tests.celsius")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: Any, serialized: Any) -> Any:
        return cls()


def test_an_extension_type_that_nobody_registered_is_an_error(store: ArtifactStore) -> None:
    array = pa.ExtensionArray.from_storage(_Celsius(), pa.array([1.5, None]))
    pa.register_extension_type(_Celsius())
    frame = Frame({"c": pd.arrays.ArrowExtensionArray(array)})
    values = (array, pa.table({"t": [1], "c": array[:1]}), frame)
    refs = [store.save(value, "task") for value in values]
    assert refs[0].load().equals(array)
    assert refs[2].load().dtypes["c"] == frame.dtypes["c"]
    pa.unregister_extension_type("tests.celsius")

    for ref in refs:
        with pytest.raises(UnsupportedFormatError, match=r"not registered here.*; import"):
            ref.load()


TABLES = {
    "table": pa.table({"a": [1, None], "b": [["x"], []]}).replace_schema_metadata({"k": "v"}),
    "no metadata": pa.table({"a": pa.chunked_array([[1], [2, 3]])}),
    "empty": pa.table({}),
    "no rows": pa.table({"a": pa.array([], pa.decimal128(10, 2))}),
    "dictionary": pa.table({"a": pa.array(["x", "y", "x"]).dictionary_encode()}),
    "batch": pa.record_batch({"a": [1, 2]}),
    "batch by uint16": pa.record_batch(
        {"a": ARRAYS["dictionary by uint16"], "b": pa.array([b"0" * 16] * 3, pa.uuid())}
    ),
    "empty batch": pa.record_batch({"a": pa.array([], pa.int8())}),
    "rows alone": pa.table({"a": [1, 2]}).select([]),
    "batch of rows alone": pa.record_batch({"a": [1, 2]}).select([]),
    "not null": pa.table({"a": [1]}, schema=pa.schema([pa.field("a", pa.int64(), nullable=False)])),
}


@pytest.mark.parametrize("name", TABLES)
def test_arrow_tables_come_back_with_their_schema(store: ArtifactStore, name: str) -> None:
    table = TABLES[name]

    back = store.save(table, "task").load()

    assert type(back) is type(table)
    assert back.num_rows == table.num_rows
    assert back.equals(table, check_metadata=True)
    assert back.schema.equals(table.schema, check_metadata=True)


@pytest.mark.parametrize("format", [None, "arrow-chunks", "parquet"])
def test_dictionaries_that_do_not_become_one_are_refused(store: ArtifactStore, format: str | None) -> None:
    parts = [pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array([text, None])) for text in "ab"]

    with pytest.raises(UnsupportedTypeError, match="dictionaries with nulls"):
        store.save(pa.table({"a": pa.chunked_array(parts)}), "task", format=format)


def test_a_series_whose_name_none_can_have_is_refused(store: ArtifactStore) -> None:
    frame = Frame([[1]], columns=pd.Index([{"a": 1}], dtype=object))

    assert store.save(frame, "task").load().columns.tolist() == [{"a": 1}]
    with pytest.raises(UnsupportedTypeError, match=r"the series is called \{'a': 1\}.*rename it"):
        store.save(frame.iloc[:, 0], "task")


@pytest.mark.parametrize("values", [pa.array([b"0" * 16], pa.uuid()), pa.array(["a"]).dictionary_encode()])
def test_an_arrow_type_that_files_do_not_keep_is_refused_by_name(store: ArtifactStore, values: Any) -> None:
    table = pa.table({"plain": [1], "odd": pa.DictionaryArray.from_arrays(pa.array([0]), values)})

    with pytest.raises(UnsupportedTypeError, match=r"the column 'odd' is of the type dictionary<"):
        store.save(table, "task")
