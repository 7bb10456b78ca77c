# SPDX-License-Identifier: Apache-2.0
"""
``parquet-v1``: a Parquet file that DuckDB, Spark, polars and pandas open, for data frames and Arrow tables.

It holds the columns of ``arrow-v1`` under the names and in the types that other readers expect: periods by
their first moment, objects as the numbers, dates or lists that they are, categories as their values. What
Parquet has no place for (the exact schema, categories, index, labels, ``attrs``) stands under
``airflow_ml_provider`` in the file's metadata. A column that Parquet gives back differently, or that other
readers would not understand, is refused by name when it is written.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Hashable, Iterator
from typing import Any

import pyarrow as pa  # noqa: TID253 - this module is imported on first use
import pyarrow.compute as pc  # noqa: TID253
import pyarrow.parquet as pq  # noqa: TID253

from airflow_ml_provider.artifacts.codecs import arrow
from airflow_ml_provider.artifacts.codecs.registry import Encoded, Part, Stored
from airflow_ml_provider.artifacts.unpacking import UNPACKED, check_unpacked
from airflow_ml_provider.exceptions import ArtifactCorruptError, UnsupportedTypeError

_KEY = b"airflow_ml_provider"
_ROWS_PER_GROUP = 122_880  # as DuckDB writes
_LEAVE = "or leave the format out: arrow-v1 keeps it"
_Described = dict[str, Any]


def dump(value: Any) -> Encoded:
    marked = arrow.mark(value)
    exact = arrow.unified(marked.table)
    described = json.loads(exact.schema.metadata[_KEY])
    names, shown = _names(value, described, exact.schema)
    forms = dict(_forms(described))
    for where, dtype in zip(shown, described.get("dtypes", ()), strict=False):
        if dtype in ("Int128", "UInt128"):
            raise _refusal(where, dtype, "it has no type for such numbers")
    columns = []
    kept: _Described = {"schema": _text(exact.schema.serialize()), "turned": {}, "dictionaries": {}}
    unsure = []
    for position, column in enumerate(exact.columns):
        where = shown[position]
        try:
            column, how = _turn(column, forms.get(position), where)  # noqa: PLW2901
        except (pa.ArrowException, ValueError, OverflowError) as exc:
            raise _refusal(where, exact.schema.types[position], str(exc)) from exc
        if how:
            kept["turned"][str(position)] = how
        if pa.types.is_dictionary(exact.schema.types[position]):
            kept["dictionaries"][str(position)] = _text(_stream(_dictionary_of(exact.column(position))))
        if how or not _surely(exact.schema.types[position]):
            unsure.append(position)
        columns.append(column)
    metadata = {
        **exact.schema.metadata,
        **_pandas_metadata(value, described, names),
        _KEY: json.dumps(kept, sort_keys=True).encode("ascii"),
    }
    fields = [
        pa.field(name, column.type, field.nullable, field.metadata)
        for name, column, field in zip(names, columns, exact.schema, strict=True)
    ]
    table = pa.Table.from_arrays(columns, schema=pa.schema(fields, metadata=metadata))
    content = _written(table, shown)
    _check(exact, content, unsure, shown)
    schema = {**marked.schema, UNPACKED: _unpacked_bytes(pq.ParquetFile(pa.BufferReader(content)))}
    return Encoded([content], schema=schema, preview=marked.preview, type=marked.type)


def _refusal(where: str, kind: Any, why: str) -> UnsupportedTypeError:
    return UnsupportedTypeError(
        f"Parquet does not carry {where} of type {kind} exactly: {why}; convert it, {_LEAVE}"
    )


def _written(table: pa.Table, shown: list[str]) -> memoryview:
    try:
        return _file_of(table)
    except (pa.ArrowException, UnicodeError) as exc:
        for position, where in enumerate(shown):
            try:
                _file_of(table.select([position]))
            except (pa.ArrowException, UnicodeError) as own:
                raise _refusal(where, table.schema.types[position], str(own)) from own
        raise UnsupportedTypeError(f"Parquet does not carry this table: {exc}; {_LEAVE}") from exc


def _file_of(table: pa.Table) -> memoryview:
    texts = [
        field.name for field in table.schema if _is_text(field.type) or pa.types.is_dictionary(field.type)
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=1,
        row_group_size=_ROWS_PER_GROUP,
        use_dictionary=texts or False,  # of numbers they cost more than they save
    )
    return memoryview(sink.getvalue())


def _check(exact: pa.Table, content: memoryview, unsure: list[int], shown: list[str]) -> None:
    """Read those columns back that Parquet may have changed."""
    if not unsure:
        return
    source = _File(content, "the value")
    for position in unsure:
        try:
            back = source.read([position], None).column(0)
            why = "" if _equal(exact.column(position), back) else "it comes back differently"
        except (pa.ArrowException, ValueError) as exc:
            why = str(exc)
        if why:
            raise _refusal(shown[position], exact.schema.types[position], why)


def _equal(one: pa.ChunkedArray, other: pa.ChunkedArray) -> bool:
    if one.type != other.type:
        return False
    # Only NaN inside of lists and structs is unequal to itself.
    return bool(one.equals(other)) or (
        pa.types.is_nested(one.type) and repr(one.to_pylist()) == repr(other.to_pylist())
    )


def _surely(kind: pa.DataType) -> bool:
    """Tell whether every column of this type comes back as it was."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _surely(kind.value_type)
    if pa.types.is_struct(kind):
        return all(_surely(field.type) for field in kind)
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or _is_text(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_date32(kind)
        or pa.types.is_decimal128(kind)
        or (pa.types.is_timestamp(kind) and kind.unit != "s")
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


# -- names


def _names(value: Any, described: _Described, schema: pa.Schema) -> tuple[list[str], list[str]]:
    """Name the columns of the file, and say of each what it is."""
    names = list(schema.names)
    shown = [f"the column {name!r}" for name in names]
    index = described.get("index")
    if index is not None:
        labels: list[Hashable] = [value.name] if described["kind"] == "series" else list(value.columns)
        own = [described["column"]] if described["kind"] == "series" else described["columns"]
        for label, column in zip(labels, own, strict=True):
            names[column["at"]] = "values" if label is None else str(label)
            shown[column["at"]] = f"the column {label!r}"
        taken = {names[column["at"]] for column in own}
        levels = index.get("levels") or ([index["column"]] if "column" in index else [])
        for number, (level, label) in enumerate(zip(levels, value.index.names, strict=False)):
            usable = type(label) is str and label not in taken
            names[level["at"]] = label if usable else f"__index_level_{number}__"
            shown[level["at"]] = f"the index {label!r}" if label is not None else "the index"
            taken.add(names[level["at"]])
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as exc:
            raise UnsupportedTypeError(
                f"a Parquet file cannot name a column {name!r}, which is no Unicode text; rename it, {_LEAVE}"
            ) from exc
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise UnsupportedTypeError(
            f"a Parquet file names each column once, here are two columns {twice[0]!r}; rename one, {_LEAVE}"
        )
    return names, shown


def _pandas_metadata(value: Any, described: _Described, names: list[str]) -> dict[bytes, bytes]:
    """What ``pandas.read_parquet`` makes index, labels and nullable columns from."""
    if described["kind"] != "frame":
        return {}
    index = described["index"]
    levels = index.get("levels") or ([index["column"]] if "column" in index else [])
    if index["index"] == "range":
        start, stop, step = index["range"]
        name = value.index.name if isinstance(value.index.name, str) else None
        indexes: list[Any] = [{"kind": "range", "name": name, "start": start, "stop": stop, "step": step}]
    else:
        indexes = [names[level["at"]] for level in levels]
    columns = [
        _pandas_column(names[column["at"]], names[column["at"]], dtype, column)
        for column, dtype in zip(described["columns"], value.dtypes, strict=True)
    ]
    for level, label, number in zip(levels, value.index.names, range(len(levels)), strict=False):
        dtype = value.index.levels[number].dtype if "levels" in index else value.index.dtype
        columns.append(
            _pandas_column(label if isinstance(label, str) else None, names[level["at"]], dtype, level)
        )
    label_type = ("int64", "int64") if value.columns.dtype == "int64" else ("unicode", "object")
    name = value.columns.name if isinstance(value.columns.name, str) else None
    try:
        attributes = json.loads(json.dumps(value.attrs))
    except (TypeError, ValueError):
        attributes = {}
    facts = {
        "index_columns": indexes,
        "column_indexes": [
            {
                "name": name,
                "field_name": name,
                "pandas_type": label_type[0],
                "numpy_type": label_type[1],
                "metadata": None,
            }
        ],
        "columns": columns,
        "attributes": attributes,
        "creator": {"library": "airflow-ml-provider", "version": "1"},
        "pandas_version": "2.2.0",
    }
    return {b"pandas": json.dumps(facts, sort_keys=True).encode("ascii")}


def _pandas_column(label: str | None, name: str, dtype: Any, form: _Described) -> _Described:
    numpy_type, pandas_type = "object", "unicode"
    if form.get("as") in ("string", "masked"):
        numpy_type = str(dtype)
    elif form.get("as") == "datetimetz":
        numpy_type, pandas_type = f"datetime64[{dtype.unit}]", "datetimetz"
    elif form.get("as") == "numpy":
        numpy_type = pandas_type = str(dtype)
    return {
        "name": label,
        "field_name": name,
        "pandas_type": pandas_type,
        "numpy_type": numpy_type,
        "metadata": {"timezone": _zone_name(form["tz"])} if form.get("as") == "datetimetz" else None,
    }


# -- columns


def _forms(described: _Described) -> Iterator[tuple[int, _Described]]:
    """How pandas' columns were turned to Arrow, by position."""
    index = described.get("index", {})
    for column in [
        *described.get("columns", ()), described.get("column"), index.get("column"), *index.get("levels", ())
    ]:  # fmt: skip
        if isinstance(column, dict) and "at" in column:
            yield column["at"], column


def _turn(column: pa.ChunkedArray, form: _Described | None, where: str) -> tuple[Any, Any]:
    """Return a column as other readers expect it, and how to turn it back where a cast does not."""
    how: Any = None
    form = form or {}
    if form.get("as") == "period":
        column, how = _to_moments(column, form["dtype"]), {"period": form["dtype"]}
    elif form.get("as") == "objects" and form["form"] == "json":
        column, how = _to_items(column, where), "objects"
    elif form.get("as") == "datetimetz":
        column = column.cast(pa.timestamp(column.type.unit, tz=_zone_name(form["tz"])))
    else:
        _refuse_odd(form, where)
    if pa.types.is_dictionary(column.type) and not _is_text(column.type.value_type):
        decoded = [chunk.dictionary_decode() for chunk in column.chunks]
        column = pa.chunked_array(decoded, column.type.value_type)
    return column, how


def _refuse_odd(form: _Described, where: str) -> None:
    """Refuse what other readers would take for something else."""
    if "labels" in form:
        raise _refusal(where, "category", "it has no type for a level of categories")
    inner = [form.get("left"), form.get("right"), (form.get("of") or {}).get("column")]
    for part in [form, *(part for part in inner if part)]:
        if part.get("as") == "binary":
            raise _refusal(where, part["dtype"], "it has no type for such numbers")
        if part.get("as") == "sparse":
            raise _refusal(where, "sparse", "it has no sparse columns (.sparse.to_dense() makes one dense)")
        if part.get("as") == "period":
            raise _refusal(where, f"{form.get('as')} of {part['dtype']}", "it has no type for periods")
        if part.get("as") == "objects" and part["form"] == "json":
            raise _refusal(where, "object", "it has no type for mixed objects")
        if part is not form:
            _refuse_odd(part, where)


def _zone_name(zone: Any) -> str:
    kind, value = next(iter(zone.items()))
    if kind == "timezone":
        minutes, rest = divmod(abs(value[0]), 60_000_000)
        sign = "-" if value[0] < 0 else "+"
        return "UTC" if rest or not minutes else f"{sign}{minutes // 60:02}:{minutes % 60:02}"
    return value if isinstance(value, str) else "UTC"


def _to_moments(column: pa.ChunkedArray, dtype: str) -> Any:
    import pandas as pd

    ordinals = column.combine_chunks().to_numpy(zero_copy_only=False).copy()
    periods: Any = pd.arrays.PeriodArray(ordinals, dtype=pd.PeriodDtype(dtype))
    moments = pa.array(periods.to_timestamp(how="start"))
    # pandas 2 makes nanoseconds of all; some periods need them.
    with contextlib.suppress(pa.ArrowInvalid):
        moments = moments.cast(pa.timestamp("us"))
    return pa.chunked_array([moments])


def _from_moments(column: pa.ChunkedArray, dtype: str) -> Any:
    import pandas as pd

    moments: Any = pd.DatetimeIndex(column.to_numpy())
    return pa.chunked_array([pa.array(moments.to_period(pd.PeriodDtype(dtype).freq).asi8)])


def _to_items(column: pa.ChunkedArray, where: str) -> Any:
    """Cells of Python objects, of which each is JSON, in one type of Arrow's."""
    from airflow_ml_provider.artifacts.codecs import frames

    items = [frames.from_cell(text) for text in column.to_pylist()]
    try:
        found = pa.array(items)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        found = None
    if found is None or not _from_items(pa.chunked_array([found])).equals(column):
        raise _refusal(where, "object", "its cells are not all of one type that Parquet has")
    return pa.chunked_array([found])


def _from_items(column: pa.ChunkedArray) -> Any:
    from airflow_ml_provider.artifacts.codecs import frames

    cells = [frames.to_cell(item) for item in column.to_pylist()]
    return pa.chunked_array([pa.array(cells, pa.large_string())])


def _dictionary_of(column: pa.ChunkedArray) -> pa.Array:
    """The dictionary that all chunks share."""
    return column.chunk(0).dictionary if column.num_chunks else pa.array([], column.type.value_type)


def _encode(column: pa.ChunkedArray, kind: pa.DataType, dictionary: pa.Array) -> Any:
    """Values as positions in a dictionary of before."""
    arrays = []
    for chunk in column.chunks or [pa.array([], dictionary.type)]:
        values = chunk.dictionary_decode() if pa.types.is_dictionary(chunk.type) else chunk
        places = _places(values.cast(dictionary.type), dictionary)
        places = pc.if_else(values.is_null(), pa.scalar(None, places.type), places).cast(kind.index_type)
        arrays.append(pa.DictionaryArray.from_arrays(places, dictionary, ordered=kind.ordered))
    return pa.chunked_array(arrays, type=kind)


def _places(values: pa.Array, among: pa.Array) -> pa.Array:
    if not pa.types.is_struct(values.type):
        return pc.index_in(values, value_set=among)
    # Arrow looks up no structs: one number stands for the places of all fields.
    keys = [pa.array([0], pa.int64()).take(pa.array([0] * len(side), pa.int64())) for side in (values, among)]
    for number in range(values.type.num_fields):
        distinct = among.field(number).unique()
        for side, array in enumerate((values, among)):
            place = pc.index_in(array.field(number), value_set=distinct).cast(pa.int64())
            keys[side] = pc.add(pc.multiply(keys[side], len(distinct)), place)
    return pc.index_in(keys[0], value_set=keys[1])


# -- reading


class _File(arrow.Source):
    """The columns of a Parquet file as they were before it; by default all of its row groups."""

    private = False

    def __init__(self, content: memoryview, name: str, info: Stored | None = None) -> None:
        try:
            self._file = pq.ParquetFile(pa.BufferReader(pa.py_buffer(content)))
        except (pa.ArrowException, OSError) as exc:
            raise ArtifactCorruptError(f"{name!r} is no Parquet file: {exc}") from exc
        if info is not None:
            check_unpacked(_unpacked_bytes(self._file), info)
        self._groups = list(range(self._file.metadata.num_row_groups))
        try:
            kept = json.loads(self._file.schema_arrow.metadata[_KEY])
            self.schema: pa.Schema = pa.ipc.read_schema(pa.py_buffer(_bytes(kept["schema"])))
            self._turned: _Described = kept["turned"]
            self._dictionaries: dict[str, str] = kept["dictionaries"]
        except (KeyError, TypeError, ValueError) as exc:
            raise ArtifactCorruptError(f"{name!r} is a Parquet file that this store did not write") from exc
        self._names = self._file.schema_arrow.names

    def narrow(self, rows: slice) -> slice:
        """Read only the row groups that these rows are in from now on; return where they are in them."""
        counts = [self._file.metadata.row_group(number).num_rows for number in self._groups]
        start, stop, _step = rows.indices(sum(counts))
        stop = max(start, stop)
        first = last = passed = before = 0
        for number, count in enumerate(counts):
            if passed + count <= start:
                first, before = number + 1, passed + count
            if passed < stop:
                last = number + 1
            passed += count
        self._groups = self._groups[first : max(first, last)]
        metadata = dict(self.schema.metadata)
        described = json.loads(metadata[_KEY])
        if described.get("index", {}).get("index") == "range":
            whole = range(*described["index"]["range"])[before : before + sum(counts[first:last])]
            described["index"]["range"] = [whole.start, whole.stop, whole.step]
            metadata[_KEY] = json.dumps(described).encode("ascii")
            self.schema = self.schema.with_metadata(metadata)
        return slice(start - before, stop - before)

    def read(self, positions: list[int] | None, rows: slice | None) -> pa.Table:
        if positions is None:
            positions = list(range(len(self.schema)))
        found = self._file.read_row_groups(
            self._groups, columns=[self._names[number] for number in positions]
        )
        columns = [self._back(found.column(self._names[number]), number) for number in positions]
        table = pa.Table.from_arrays(
            columns,
            schema=pa.schema([self.schema.field(number) for number in positions], self.schema.metadata),
        )
        return table if rows is None else table[rows]

    def _back(self, column: pa.ChunkedArray, position: int) -> Any:
        kind = self.schema.field(position).type
        how = self._turned.get(str(position))
        if how == "objects":
            column = _from_items(column)
        elif how is not None:
            column = _from_moments(column, how["period"])
        if pa.types.is_dictionary(kind):
            text = self._dictionaries[str(position)]
            with pa.ipc.open_stream(pa.py_buffer(_bytes(text))) as reader:
                table = reader.read_all()
            values = table.column(0).combine_chunks()
            values = values.chunk(0) if isinstance(values, pa.ChunkedArray) else values
            return _encode(column, kind, values)
        # Types that differ in the names of items alone are equal, though not to people.
        return column if str(column.type) == str(kind) else column.cast(kind)


def load(data: memoryview, info: Stored) -> Any:
    return load_part(data, info, Part(None, None))


def load_part(data: memoryview, info: Stored, part: Part) -> Any:
    source = _File(data, info.name, info)
    rows = part.rows
    if rows is not None and len(source.schema):
        rows = source.narrow(rows)
    return arrow.restore(source, info, Part(part.columns, rows))


def _unpacked_bytes(file: pq.ParquetFile) -> int:
    """Sum the lengths of the pages once they are decompressed, and of the columns, in values."""
    found = file.metadata
    pages = sum(found.row_group(number).total_byte_size for number in range(found.num_row_groups))
    return int(pages + found.num_rows * found.num_columns)


def _stream(array: pa.Array) -> pa.Buffer:
    table = pa.table({"values": array})
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd" if table.nbytes > 512 else None)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _text(content: Any) -> str:
    return base64.b64encode(content).decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
