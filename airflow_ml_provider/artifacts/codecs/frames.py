# SPDX-License-Identifier: Apache-2.0
"""
pandas frames, series and indexes as Arrow columns, and back, exactly.

Each column is turned by its dtype here rather than by ``pyarrow.Table.from_pandas``, which changes what it
cannot express: NaN becomes null, mixed objects fail, labels become text. A column of Python objects that are
not all text, bytes or booleans is written cell by cell as JSON, typed. What no form carries raises and names
the column.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np  # noqa: TID253 - this module is imported on first use
import pandas as pd  # noqa: TID253
import pyarrow as pa  # noqa: TID253

from airflow_ml_provider.artifacts import preview
from airflow_ml_provider.artifacts.scalars import zone_from_json, zone_to_json
from airflow_ml_provider.artifacts.values import from_plain, to_plain
from airflow_ml_provider.exceptions import ArtifactCorruptError, UnsupportedFormatError, UnsupportedTypeError

Described = dict[str, Any]

_MAX_SCHEMA_COLUMNS = 200
# More columns than these are slow to work with where each has memory of its own.
_MAX_SEPARATE_COLUMNS = 100
# Forms of columns that do not share memory with the Arrow columns that they are made of.
_MADE_ANEW = frozenset({"masked", "datetimetz", "period", "objects", "arrays"})
_NAT = np.iinfo(np.int64).min


class _Columns:
    """Arrow columns in the making."""

    def __init__(self) -> None:
        self.arrays: list[Any] = []
        self.names: list[str] = []

    def add(self, name: str, array: Any) -> int:
        self.arrays.append(array)
        self.names.append(name)
        return len(self.arrays) - 1

    def table(self) -> pa.Table:
        return pa.Table.from_arrays(self.arrays, names=self.names)


def to_arrow(value: Any) -> tuple[pa.Table, Described, dict[str, Any], Any]:
    """Return the columns, the description of the rest, and the schema and preview for people."""
    columns = _Columns()
    if isinstance(value, pd.DataFrame):
        described = _describe_frame(value, columns)
        schema = {
            "columns": [
                {"name": preview.short(_label(name)), "type": preview.short(str(dtype))}
                for name, dtype in zip(value.columns[:_MAX_SCHEMA_COLUMNS], value.dtypes, strict=False)
            ],
            "rows": len(value),
        }
        if value.shape[1] > _MAX_SCHEMA_COLUMNS:
            schema["column_count"] = value.shape[1]
        shown = _preview(value)
    elif isinstance(value, pd.Series):
        if not isinstance(value.name, Hashable):
            raise UnsupportedTypeError(
                f"the series is called {value.name!r}, as no new series can be; rename it"
            )
        described = {
            "kind": "series",
            "index": _describe_index(value.index, columns, "the index"),
            "name": to_plain(value.name, "the series' name"),
            "attrs": _attrs(value),
            "flags": value.flags.allows_duplicate_labels,
            "column": _add(columns, "values", value.array, f"series {_label(value.name)!r}"),
        }
        schema = {
            "type": preview.short(str(value.dtype)),
            "rows": len(value),
            "name": preview.short(_label(value.name)),
        }
        shown = preview.fit(_cells(value.array))
    else:
        described = {"kind": "index", "index": _describe_index(value, columns, "the index")}
        schema = {"type": preview.short(str(value.dtype)), "rows": len(value)}
        shown = preview.fit(_cells(value))
    return columns.table(), described, schema, shown


def from_arrow(
    table: Picked, described: Described, rows: slice | None = None, *, private: bool = False
) -> Any:
    """
    Return what :func:`to_arrow` was given.

    :param rows: The positions that the columns in ``table`` are of. Indexes are built whole there and then
        cut, the way pandas cuts them.
    :param private: The memory of each column that may be written to is that column's alone: a frame of few
        columns takes it over.
    """
    index = _make_index(described["index"], table)
    if rows is not None:
        index = index[rows]
    if described["kind"] == "index":
        return index
    if described["kind"] == "series":
        array = _make(described["column"], table)
        series = pd.Series(
            array, index=index, name=from_plain(described["name"]), copy=True, dtype=array.dtype
        )
        return _finish(series, described)
    if described["kind"] != "frame":
        raise ArtifactCorruptError(f"a pandas object of the unknown kind {described['kind']!r}")
    arrays = {}
    takes_over = private and len(described["columns"]) <= _MAX_SEPARATE_COLUMNS
    for number, column in enumerate(described["columns"]):
        if takes_over and (taken := _taken_over(column, table)) is not None:
            arrays[number] = taken
            continue
        array = _make(column, table)
        if takes_over and column["as"] not in _MADE_ANEW:
            array = array.copy()
        # A bare array of objects would be looked through for text.
        arrays[number] = pd.Series(array, index=index, dtype=object) if array.dtype == object else array
    # Copying gathers columns of one type into blocks that the user may write to.
    frame = pd.DataFrame(arrays, index=index, copy=not takes_over)
    labels = _labels_from(described["labels"])
    frame.columns = labels.take(described["chosen"]) if "chosen" in described else labels
    return _finish(frame, described)


def _taken_over(column: Described, table: Picked) -> Any:
    """Return the memory of a column as an array that can be written to; None if it must be copied."""
    chunks = table.column(column["at"]).chunks
    if len(chunks) != 1:
        return None
    if column["as"] == "numpy":
        return _memory_of(chunks[0], column["dtype"])
    if column["as"] != "category":
        return None
    codes = _memory_of(chunks[0].indices, column["codes"])
    return None if codes is None else _categories(codes, chunks[0].dictionary, column)


def _memory_of(array: Any, dtype: str) -> Any:
    kind = np.dtype(dtype)
    if array.null_count or not pa.types.is_primitive(array.type) or array.type.bit_width != 8 * kind.itemsize:
        return None
    data = array.buffers()[1]
    if not data.is_mutable:
        return None
    return np.frombuffer(data, kind, count=len(array), offset=array.offset * kind.itemsize)


def choose(described: Described, wanted: Sequence[Any], whose: str) -> Described:
    """
    Describe the part of a frame with these columns, in their order; a label that stands twice gives both.

    :raises ValueError: if a label is not there, or is asked for twice.
    :raises TypeError: if it is no frame.
    """
    if described["kind"] != "frame":
        raise TypeError(f"{whose} is a {described['kind']}, which has no columns to choose from")
    labels = _labels_from(described["labels"])
    positions: list[int] = []
    for label in wanted:
        try:
            place: Any = labels.get_loc(label)
        except (KeyError, TypeError, ValueError, pd.errors.InvalidIndexError):
            raise _no_column(label, list(labels), whose) from None
        found = np.atleast_1d(np.arange(len(labels))[place]).tolist()
        if set(found) & set(positions):
            raise ValueError(f"the column {label!r} of {whose} is asked for twice")
        positions += found
    columns = [described["columns"][position] for position in positions]
    return {**described, "columns": columns, "chosen": np.array(positions, dtype=np.intp)}


def _no_column(label: Any, labels: Sequence[Any], whose: str) -> ValueError:
    shown = ", ".join(repr(_item(item)) for item in labels[:20])
    more = f" and {len(labels) - 20} more" if len(labels) > 20 else ""
    return ValueError(f"{whose} has no column {label!r}; it has {shown or 'none'}{more}")


def places(described: Described) -> tuple[list[int], list[int]]:
    """Positions of the Arrow columns that a description needs, in order: of columns, and of the index."""
    columns = [*described.get("columns", ()), *filter(None, [described.get("column")])]
    index = described["index"]
    levels = [*index.get("levels", ()), *filter(None, [index.get("column")])]
    return sorted(column["at"] for column in columns), sorted(level["at"] for level in levels)


class Picked:
    """Some columns, under the positions that they have in the whole."""

    def __init__(self, columns: dict[int, pa.ChunkedArray]) -> None:
        self._columns = columns

    def column(self, position: int) -> Any:
        return self._columns[position]


def _finish(made: Any, described: Described) -> Any:
    made.attrs = from_plain(described["attrs"])
    return made if described["flags"] else made.set_flags(allows_duplicate_labels=False)


def _attrs(value: Any) -> Any:
    return to_plain(dict(value.attrs), "attrs", sorts=True) if value.attrs else {}


def _label(name: Any) -> str:
    return name if isinstance(name, str) else repr(_item(name))


def _describe_frame(frame: pd.DataFrame, columns: _Columns) -> Described:
    plain = all(type(name) is str and _is_text(name) for name in frame.columns)
    # Some kinds of labels cannot be asked whether they are unique.
    plain = plain and len(set(frame.columns)) == frame.shape[1]
    found = []
    for number in range(frame.shape[1]):
        name = frame.columns[number]
        found.append(
            _add(
                columns,
                name if plain else str(number),
                frame.iloc[:, number].array,
                f"column {_label(name)!r}",
            )
        )
    return {
        "kind": "frame",
        "columns": found,
        "index": _describe_index(frame.index, columns, "the index"),
        "labels": _labels_to(frame.columns),
        "attrs": _attrs(frame),
        "flags": frame.flags.allows_duplicate_labels,
    }


def _labels_to(labels: pd.Index) -> Described:
    """Column labels stand beside the columns, for they have another length."""
    columns = _Columns()
    described = _describe_index(labels, columns, "the column labels")
    if not columns.arrays:
        return {"index": described}
    table = columns.table()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        if len(table):
            writer.write_table(table)
        else:  # without a batch, categories and levels are not written
            writer.write_batch(pa.RecordBatch.from_arrays(columns.arrays, schema=table.schema))
    try:
        pa.ipc.open_stream(sink.getvalue())
    except pa.ArrowException as exc:
        raise UnsupportedTypeError(
            f"the column labels of dtype {labels.dtype} cannot be stored exactly: {exc}; convert them"
        ) from exc
    return {"index": described, "ipc": base64.b64encode(sink.getvalue()).decode("ascii")}


def _labels_from(described: Described) -> Any:
    table = pa.table({})
    if "ipc" in described:
        table = pa.ipc.open_stream(base64.b64decode(described["ipc"])).read_all()
    return _make_index(described["index"], table)


# -- indexes


def _describe_index(index: pd.Index, columns: _Columns, where: str) -> Described:
    names = [to_plain(name, f"a name of {where}") for name in index.names]
    if type(index) is pd.RangeIndex:
        return {"index": "range", "range": [index.start, index.stop, index.step], "names": names}
    if type(index) is pd.MultiIndex:
        levelled: Any = index
        levels = []
        for number, (level, codes) in enumerate(zip(index.levels, index.codes, strict=True)):
            holder = _Columns()
            inner = _describe_index(level, holder, f"level {number} of {where}")
            name = f"__level_{number}__"
            found: Described = {"codes": str(codes.dtype)}
            if holder.arrays and pa.types.is_dictionary(holder.arrays[0].type):
                # No Arrow file holds a dictionary of a dictionary.
                levels.append({**found, "at": columns.add(name, _codes(codes)), "labels": _labels_to(level)})
                continue
            dictionary = _dictionary(codes, holder, level)
            levels.append({**found, "at": columns.add(name, dictionary), "of": inner})
        return {"index": "multi", "levels": levels, "names": names, "sortorder": levelled.sortorder}
    described = {
        "index": type(index).__name__,
        "names": names,
        "column": _add(columns, "__index__", index.array, where),
    }
    if isinstance(index, (pd.DatetimeIndex, pd.TimedeltaIndex)) and index.freq is not None:
        described["freq"] = _frequency(index, where)
    return described


def _frequency(index: Any, where: str) -> str:
    """Name a frequency that can be set again by its name."""
    freq, why = index.freq, ""
    try:
        if pd.tseries.frequencies.to_offset(freq.freqstr) != freq:
            why = "which its name does not tell in full"
        elif len(index) < 2 or index[0] + freq != index[1]:  # moments were rounded, or clocks changed
            index.copy().freq = freq
    except ValueError as exc:
        why = f"which pandas does not take back: {exc}"
    if why:
        raise UnsupportedTypeError(f"{where} has the frequency {freq!r}, {why}; set its freq to None first")
    name: str = freq.freqstr
    return name


def _make_index(described: Described, table: pa.Table | Picked) -> Any:
    names = [from_plain(name) for name in described["names"]]
    if described["index"] == "range":
        start, stop, step = described["range"]
        return pd.RangeIndex(start, stop, step, name=names[0])
    if described["index"] == "multi":
        levels: list[Any] = []
        codes = []
        for level in described["levels"]:
            array = _one(table.column(level["at"]))
            codes.append(_codes_back(array, level["codes"]))
            if "labels" in level:
                levels.append(_labels_from(level["labels"]))
                continue
            levels.append(_make_index(_first(level["of"]), pa.table({"level": array.dictionary})))
        return pd.MultiIndex(
            levels=levels, codes=codes, names=names, sortorder=described["sortorder"], verify_integrity=False
        )
    array = _make(described["column"], table)
    if isinstance(array, np.ndarray) and not array.flags.writeable:
        array = array.copy()
    index: Any = pd.Index(array, name=names[0], dtype=array.dtype, tupleize_cols=False)
    if described.get("freq") is not None:
        index.freq = described["freq"]
    if type(index).__name__ != described["index"]:
        raise UnsupportedFormatError(
            f"an index of type {described['index']} comes back as {type(index).__name__} in "
            f"pandas {pd.__version__}"
        )
    return index


def _first(described: Described) -> Described:
    """The same description for a table that holds nothing but this column."""
    if "column" not in described:
        return described
    return {**described, "column": {**described["column"], "at": 0}}


def _codes(codes: Any) -> pa.Array:
    codes = np.asarray(codes)
    return pa.array(codes, mask=_if_any(codes < 0))


def _if_any(mask: Any) -> Any:
    """Return a mask for Arrow, which copies all values where it is given one."""
    return mask if mask.any() else None


def _dictionary(codes: Any, holder: _Columns, values: pd.Index, *, ordered: bool = False) -> Any:
    """Codes and what they stand for, which is in the holder, or a range and so in none."""
    array = holder.arrays[0] if holder.arrays else pa.array(values.to_numpy())
    if pa.types.is_null(array.type):  # of which there is no dictionary
        array = array.cast(pa.bool_())
    return pa.DictionaryArray.from_arrays(_codes(codes), array, ordered=ordered)


def _codes_back(array: Any, dtype: str) -> Any:
    indices = array.indices if pa.types.is_dictionary(array.type) else array
    if indices.null_count:
        indices = indices.fill_null(-1)
    return indices.to_numpy(zero_copy_only=False).astype(dtype, copy=False)


def _one(column: Any) -> Any:
    """A column as one array."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    combined = column.combine_chunks()
    if isinstance(combined, pa.ChunkedArray):
        return combined.chunk(0) if combined.num_chunks else pa.array([], type=combined.type)
    return combined


# -- columns


def _add(columns: _Columns, name: str, array: Any, where: str) -> Described:
    try:
        stored, described = _turn(array, where)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError) as exc:
        raise UnsupportedTypeError(f"{where} of dtype {array.dtype} cannot be stored exactly: {exc}") from exc
    return {**described, "at": columns.add(name, stored)}


def _turn(array: Any, where: str) -> tuple[Any, Described]:  # noqa: PLR0911 - one for each dtype
    """Return a pandas array as an Arrow array, and what Arrow does not say about it."""
    if type(array) is pd.arrays.NumpyExtensionArray:
        return _turn_numpy(array.to_numpy(), where)
    dtype = array.dtype
    if isinstance(dtype, np.dtype):
        return _turn_numpy(np.asarray(array), where)
    if isinstance(dtype, pd.CategoricalDtype):
        holder = _Columns()
        inner = _describe_index(dtype.categories, holder, f"the categories of {where}")
        dictionary = _dictionary(array.codes, holder, dtype.categories, ordered=bool(dtype.ordered))
        return dictionary, {
            "as": "category",
            "of": inner,
            "ordered": dtype.ordered,
            "codes": str(array.codes.dtype),
        }
    if isinstance(dtype, pd.DatetimeTZDtype):
        try:
            zone = zone_to_json(dtype.tz)
        except UnsupportedTypeError as exc:
            raise UnsupportedTypeError(f"{where} of dtype {dtype} cannot be stored exactly: {exc}") from exc
        micros = array.asi8
        stored = pa.array(micros, mask=_if_any(micros == _NAT)).view(pa.timestamp(dtype.unit, tz="UTC"))
        return stored, {"as": "datetimetz", "unit": dtype.unit, "tz": zone}
    if isinstance(dtype, pd.PeriodDtype):
        return pa.array(array.asi8), {"as": "period", "dtype": str(dtype)}
    if isinstance(dtype, pd.IntervalDtype):
        left, inner_left = _turn(pd.Index(array.left).array, where)
        right, inner_right = _turn(pd.Index(array.right).array, where)
        stored = pa.StructArray.from_arrays([_one(left), _one(right)], names=["left", "right"])
        return stored, {"as": "interval", "closed": dtype.closed, "left": inner_left, "right": inner_right}
    if isinstance(dtype, pd.StringDtype):
        stored = _one(pa.array(array, type=pa.large_string()))
        missing = "nan" if dtype.na_value is not pd.NA else "NA"
        return stored, {"as": "string", "storage": dtype.storage, "na": missing}
    if isinstance(dtype, pd.ArrowDtype):
        found = _one(pa.array(array))
        # Arrow reads what an extension type wraps where nobody registered it.
        return found, {
            "as": "arrow",
            **({"type": str(found.type)} if "extension<" in str(found.type) else {}),
        }
    if isinstance(array, (pd.arrays.IntegerArray, pd.arrays.FloatingArray, pd.arrays.BooleanArray)):
        data: Any = array
        missing = _if_any(data._mask)
        values = data._data if missing is None else np.where(missing, data.dtype.type(0), data._data)
        # NaN is a number here, and NA is none.
        stored = pa.array(np.ascontiguousarray(values), mask=missing, from_pandas=False)
        return stored, {"as": "masked", "dtype": str(dtype)}
    if isinstance(dtype, pd.SparseDtype):
        return _turn_sparse(array, where)
    raise UnsupportedTypeError(
        f"{where} has the dtype {dtype}, which cannot be stored exactly; convert it with .astype(...)"
    )


def _turn_sparse(array: Any, where: str) -> tuple[Any, Described]:
    """A sparse column as runs: each value that it holds is one, and each gap between them is a null."""
    values, inner = _turn_numpy(np.asarray(array.sp_values), where)
    if values.null_count:
        raise UnsupportedTypeError(
            f"{where} of dtype {array.dtype} holds missing values among those that it stores, which cannot "
            "be stored exactly; call .sparse.to_dense() first"
        )
    at = array.sp_index.to_int_index().indices.astype(np.int64)
    ends = np.column_stack([at, at + 1]).ravel()
    holds = np.column_stack([np.full(len(at), -1), np.arange(len(at))]).ravel()
    # No gap of no length: where a value follows another.
    kept = np.diff(ends, prepend=0) > 0
    ends, holds = ends[kept], holds[kept]
    if len(array) and (not len(ends) or ends[-1] < len(array)):
        ends, holds = np.append(ends, len(array)), np.append(holds, -1)
    width = pa.int32() if len(array) < 1 << 31 else pa.int64()
    runs = values.take(pa.array(holds, mask=holds < 0))
    return pa.RunEndEncodedArray.from_arrays(pa.array(ends, width), runs), {
        "as": "sparse",
        "values": inner,
        "fill": to_plain(array.fill_value, f"the fill value of {where}"),
        "kind": array.kind,
    }


def _turn_numpy(values: Any, where: str) -> tuple[Any, Described]:
    dtype = values.dtype
    if dtype.kind == "O":
        return _turn_objects(values, where)
    if not dtype.isnative:
        raise UnsupportedTypeError(
            f"{where} has the byte order of another machine ({dtype}); convert it first"
        )
    if dtype.kind in "mM":
        unit = np.datetime_data(dtype)[0]
        if unit in ("s", "ms", "us", "ns") and np.datetime_data(dtype)[1] == 1:
            numbers = np.ascontiguousarray(values).view(np.int64)
            kind = pa.timestamp(unit) if dtype.kind == "M" else pa.duration(unit)
            stored = pa.array(numbers, mask=_if_any(numbers == _NAT)).view(kind)
            return stored, {"as": "numpy", "dtype": dtype.str}
    elif dtype.kind in "biu" or dtype.str[1:] in ("f2", "f4", "f8"):
        return pa.array(np.ascontiguousarray(values), from_pandas=False), {"as": "numpy", "dtype": dtype.str}
    if dtype.kind not in "cfmM":
        raise UnsupportedTypeError(f"{where} has the dtype {dtype}, which cannot be stored exactly")
    data = np.ascontiguousarray(values)
    stored = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(dtype.itemsize), len(data), [None, pa.py_buffer(data.tobytes())]
    )
    return stored, {"as": "binary", "dtype": dtype.str}


_UNIFORM = {str: ("text", pa.large_string()), bytes: ("bytes", pa.large_binary()), bool: ("bool", pa.bool_())}


def _turn_objects(values: Any, where: str) -> tuple[Any, Described]:
    """Return a column of Python objects; one of the simple forms, else JSON for each cell."""
    items = values.tolist()
    kinds = set(map(type, items))
    missing = "None"
    if float in kinds and len(kinds) == 2 and all(math.isnan(item) for item in items if type(item) is float):
        missing = "nan"
        uniform = kinds - {float}
        items = [None if type(item) is float else item for item in items]
    else:
        uniform = kinds - {type(None)}
    if len(uniform) == 1 and (form := _UNIFORM.get(next(iter(uniform)))):
        try:
            return pa.array(items, type=form[1]), {"as": "objects", "form": form[0], "missing": missing}
        except (UnicodeEncodeError, pa.ArrowInvalid):
            pass  # lone surrogates
    if not uniform:
        return pa.nulls(len(items)), {"as": "objects", "form": "missing", "missing": missing}
    arrays = _turn_arrays(values.tolist()) if kinds <= {np.ndarray, type(None)} else None
    if arrays is not None:
        return arrays
    cells = []
    for number, item in enumerate(values.tolist()):
        try:
            cells.append(to_cell(item))
        except UnsupportedTypeError as exc:
            raise UnsupportedTypeError(
                f"{where} of dtype object holds {type(item).__name__} in row {number}, which "
                "cannot be stored "
                "exactly; convert the column to one type (.astype(...)), or drop it"
            ) from exc
    return pa.array(cells, type=pa.large_string()), {"as": "objects", "form": "json", "missing": "None"}


def to_cell(item: Any) -> str:
    """
    One cell of a column of Python objects as JSON.

    :raises UnsupportedTypeError: if it cannot be carried exactly.
    """
    return json.dumps(to_plain(item, "cell"), separators=(",", ":"))


def from_cell(text: str) -> Any:
    return from_plain(json.loads(text))


def _turn_arrays(items: Sequence[Any]) -> tuple[Any, Described] | None:
    """Rows of one-dimensional arrays of one dtype, such as embeddings."""
    found = [item for item in items if item is not None]
    dtype = found[0].dtype
    if not all(item.ndim == 1 and item.dtype == dtype for item in found):
        return None
    if dtype.kind not in "iu" and dtype.str[1:] not in ("f2", "f4", "f8"):
        return None
    if not dtype.isnative:
        return None
    lengths = np.fromiter((0 if item is None else len(item) for item in items), np.int64, len(items))
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    mask = pa.array([item is None for item in items])
    stored = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(found)), mask=mask)
    return stored, {"as": "arrays", "dtype": dtype.str}


def _make(described: Described, table: pa.Table | Picked) -> Any:
    return _restore(_one(table.column(described["at"])), described)


def _restore(array: Any, described: Described) -> Any:  # noqa: PLR0911, PLR0912 - one for each form
    """Return an Arrow array as the pandas or numpy array that :func:`_turn` was given."""
    form = described["as"]
    dtype: Any
    if form == "numpy":
        dtype = np.dtype(described["dtype"])
        values = array.to_numpy(zero_copy_only=False)
        if values.dtype != dtype:
            raise ArtifactCorruptError(f"a column of dtype {dtype} came back as {values.dtype}")
        return values
    if form == "binary":
        dtype = np.dtype(described["dtype"])
        data = array.buffers()[1]
        start = array.offset * dtype.itemsize
        return (
            np.frombuffer(data, dtype, count=len(array), offset=start) if len(array) else np.empty(0, dtype)
        )
    if form == "objects":
        return _restore_objects(array, described)
    if form == "arrays":
        return _restore_arrays(array, np.dtype(described["dtype"]))
    if form == "category":
        return _categories(_codes_back(array, described["codes"]), array.dictionary, described)
    if form == "datetimetz":
        numbers = array.cast(pa.int64())
        numbers = numbers.fill_null(_NAT) if numbers.null_count else numbers
        stamps = numbers.to_numpy(zero_copy_only=False).view(f"M8[{described['unit']}]")
        zone = zone_from_json(described["tz"])
        return pd.DatetimeIndex(stamps.copy()).tz_localize("UTC").tz_convert(zone).array
    if form == "period":
        dtype = pd.PeriodDtype(described["dtype"])
        return pd.arrays.PeriodArray(array.to_numpy(zero_copy_only=False).copy(), dtype=dtype)
    if form == "interval":
        left = pd.Index(_restore(array.field(0), described["left"]))
        right = pd.Index(_restore(array.field(1), described["right"]))
        return pd.arrays.IntervalArray.from_arrays(left, right, closed=described["closed"])
    if form == "string":
        return _string_dtype(described).__from_arrow__(array)
    if form == "arrow":
        if described.get("type", str(array.type)) != str(array.type):
            raise UnsupportedFormatError(
                f"a column of the Arrow type {described['type']}, which is not registered here; import what "
                "defines it, or call pyarrow.register_extension_type"
            )
        dtype = pd.ArrowDtype(array.type)
        return dtype.__from_arrow__(pa.chunked_array([array]))
    if form == "sparse":
        return _restore_sparse(array, described)
    if form == "masked":
        dtype = pd.api.types.pandas_dtype(described["dtype"])
        mask = np.array(array.is_null())
        filled = array.fill_null(False if dtype.name == "boolean" else 0) if array.null_count else array
        values = filled.to_numpy(zero_copy_only=False).astype(dtype.numpy_dtype)
        return dtype.construct_array_type()(values, mask)
    raise UnsupportedFormatError(f"a column in the unknown form {form!r}; a newer release wrote it")


def _categories(codes: Any, values: Any, described: Described) -> Any:
    categories = _make_index(_first(described["of"]), pa.table({"level": values}))
    dtype = pd.CategoricalDtype(categories, ordered=described["ordered"])
    return pd.Categorical.from_codes(codes, dtype=dtype, validate=False)


def _restore_sparse(array: Any, described: Described) -> Any:
    first, count = array.find_physical_offset(), array.find_physical_length()
    runs = array.values.slice(first, count)
    holds = runs.is_valid()
    ends = array.run_ends.slice(first, count).filter(holds).to_numpy() - array.offset
    values = _restore(runs.filter(holds), described["values"])
    at = (ends - 1).astype(np.int32)
    fill = from_plain(described["fill"])
    made: Any = pd.arrays.SparseArray
    length, kind = len(array), described["kind"]
    if hasattr(made, "from_indices"):
        return made.from_indices(values, at, length, fill_value=fill, kind=kind, dtype=values.dtype)
    from pandas._libs import sparse  # pandas 2 has no public way

    index: Any = sparse.IntIndex(length, at)  # type: ignore[call-arg]
    index = index.to_block_index() if kind == "block" else index
    return made(values, sparse_index=index, fill_value=fill, dtype=pd.SparseDtype(values.dtype, fill))


def _string_dtype(described: Described) -> Any:
    if described["na"] == "NA":
        return pd.StringDtype(described["storage"])
    try:
        return pd.StringDtype(described["storage"], na_value=np.nan)
    except TypeError as exc:
        raise UnsupportedFormatError(
            f"text of the dtype 'str' needs pandas 2.3 or 3, here is {pd.__version__}; upgrade pandas, "
            "or write the column as object or 'string'"
        ) from exc


def _restore_objects(array: Any, described: Described) -> Any:
    missing = float("nan") if described["missing"] == "nan" else None
    made = np.empty(len(array), dtype=object)
    if described["form"] == "json":
        for number, text in enumerate(array.to_pylist()):
            made[number] = from_cell(text)
        return made
    if described["form"] == "missing":
        made[:] = missing
        return made
    found = array.to_numpy(zero_copy_only=False) if described["form"] != "bool" else array.to_pylist()
    made[:] = found
    if missing is not None and array.null_count:
        made[np.asarray(array.is_null())] = missing
    return made


def _restore_arrays(array: Any, dtype: Any) -> Any:
    flat = array.values.to_numpy(zero_copy_only=False).astype(dtype, copy=True)
    offsets = array.offsets.to_numpy()
    missing = np.asarray(array.is_null())
    made = np.empty(len(array), dtype=object)
    for number in range(len(array)):
        if not missing[number]:
            made[number] = flat[offsets[number] : offsets[number + 1]].copy()
    return made


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in name and not name.startswith("__")


def _preview(frame: pd.DataFrame) -> Any:
    labels: list[Hashable] = list(frame.columns[: preview.MAX_COLUMNS])
    columns = [_cells(frame.iloc[:, number].array) for number in range(len(labels))]
    names = [preview.short(_label(label)) for label in labels]
    return preview.fit([dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)])


def _cells(values: Any) -> list[Any]:
    found: list[Any] = []
    for number in range(min(len(values), preview.MAX_ROWS)):
        try:
            # One by one: pandas 2 crashes when it walks over moments with a zone that ns do not reach.
            found.append(preview.cell(_item(values[number])))
        except Exception:  # noqa: BLE001 - a preview never fails the task whose value it shows
            found.append(f"<{preview.short(str(values.dtype))}>")
    return found


def _item(item: Any) -> Any:
    return item.item() if isinstance(item, np.generic) and item.dtype.kind in "biuf" else item
