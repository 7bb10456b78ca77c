# SPDX-License-Identifier: Apache-2.0
"""
``arrow-v1``: an Arrow IPC file, its buffers compressed with zstd.

Tables, record batches and arrays are stored as they are, arrays as a table of one column. Frames, series and
indexes of pandas and polars carry a description of what Arrow does not say, under ``airflow_ml_provider`` in
the schema's metadata. Any Arrow reader opens the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa  # noqa: TID253 - this module is imported on first use

from airflow_ml_provider.artifacts import preview
from airflow_ml_provider.artifacts.codecs import arrow_bounds
from airflow_ml_provider.artifacts.codecs.registry import Encoded, Part, Stored, type_name
from airflow_ml_provider.artifacts.unpacking import UNPACKED
from airflow_ml_provider.exceptions import ArtifactCorruptError, UnsupportedFormatError, UnsupportedTypeError

_KEY = b"airflow_ml_provider"
# A fifth smaller and slower than lz4 on disk; faster as soon as a network carries it.
_COMPRESSION = "zstd"
# Compressed in parallel by column; below this the threads cost more.
_SMALL_BYTES = 64 << 10


@dataclass(frozen=True)
class Marked:
    """A value as Arrow columns, with what else makes it under the metadata key of this store."""

    table: pa.Table
    schema: dict[str, Any]
    preview: Any
    type: str


class Source(Protocol):
    """
    Stored columns.

    ``private`` says that memory that can be written to belongs to one column of one reading alone.
    """

    private: bool
    schema: pa.Schema

    def read(self, positions: list[int] | None, rows: slice | None) -> pa.Table:
        """
        Return some columns, by ascending positions, all if None.

        :param rows: Positions, without a step; None for all.
        """

    def columns(self, positions: list[int], rows: slice, whole: list[int]) -> dict[int, pa.ChunkedArray]:
        """Return a part of the rows of some columns, and all rows of others; by position."""
        both = sorted({*positions, *whole})
        table = self.read(both, None) if both else pa.table({})  # an empty list would mean all
        return {
            position: column if position in whole else column[rows]
            for position, column in zip(both, table.columns, strict=True)
        }


def dump(value: Any) -> Encoded:
    marked = mark(value)
    try:
        content = file_of(marked.table)
    except pa.ArrowException as exc:
        raise UnsupportedTypeError(f"Arrow cannot write this table to a file: {exc}") from exc
    schema = {**marked.schema, UNPACKED: arrow_bounds.unpacked_bytes(content)}
    return Encoded([content], schema=schema, preview=marked.preview, type=marked.type)


def mark(value: Any) -> Marked:
    """
    Describe a value as Arrow columns, the same for equal values.

    :raises UnsupportedTypeError: if a part of it cannot be carried exactly; names the part.
    """
    marked = _mark(value)
    if not _comes_back(marked.table.schema):
        for field in marked.table.schema:
            if not _comes_back(pa.schema([field])):
                raise UnsupportedTypeError(
                    f"the column {field.name!r} is of the type {field.type}, which Arrow writes to a file "
                    "and does not read back; decode its dictionary (.dictionary_decode()), or .cast(...) it"
                )
    return marked


def _mark(value: Any) -> Marked:
    home = type_name(type(value)).split(".")[0]
    if isinstance(value, (pa.Array, pa.ChunkedArray)):
        return _mark_array(value)
    if home == "pyarrow":
        return _mark_table(value)
    if home == "polars":
        from airflow_ml_provider.artifacts.codecs import polars_frames as frames
    else:
        from airflow_ml_provider.artifacts.codecs import frames  # type: ignore[no-redef]

    table, described, schema, shown = frames.to_arrow(value)
    table = table.replace_schema_metadata({_KEY: json.dumps(described, sort_keys=True).encode("ascii")})
    return Marked(table, schema, shown, f"{home}.{type(value).__name__}")


def _mark_array(value: pa.Array | pa.ChunkedArray) -> Marked:
    kind = "chunked" if isinstance(value, pa.ChunkedArray) else "array"
    table = _compact(pa.table({"values": value}))
    described = {"kind": kind, **_described_extensions(table.schema)}
    return Marked(
        table.replace_schema_metadata({_KEY: json.dumps(described, sort_keys=True).encode("ascii")}),
        schema={"type": preview.short(str(value.type)), "rows": len(value)},
        preview=preview.fit([row["values"] for row in _preview(table) or []]),
        type=f"pyarrow.{type(value).__name__}",
    )


def _compact(table: pa.Table) -> pa.Table:
    """Leave out text that no row has: Arrow writes all that the views of a slice were cut from."""
    for number, field in enumerate(table.schema):
        is_text = pa.types.is_string_view(field.type)
        if is_text or pa.types.is_binary_view(field.type):
            whole = table.column(number).cast(pa.large_string() if is_text else pa.large_binary())
            table = table.set_column(number, field, whole.cast(field.type))
    return table


def _described_extensions(schema: pa.Schema) -> dict[str, Any]:
    """Say which types of others a schema has: where they are not registered, Arrow reads what they wrap."""
    found = sorted({name for kind in schema.types for name in _extensions(kind)})
    return {"extensions": found} if found else {}


def _extensions(kind: pa.DataType) -> Iterator[str]:
    if isinstance(kind, pa.BaseExtensionType):
        yield kind.extension_name
        yield from _extensions(kind.storage_type)
    elif pa.types.is_dictionary(kind):
        yield from _extensions(kind.value_type)
    elif pa.types.is_nested(kind):
        for number in range(kind.num_fields):
            yield from _extensions(kind.field(number).type)


def _comes_back(schema: pa.Schema) -> bool:
    """Tell whether Arrow reads the types that it writes; it does not, of dictionaries of dictionaries."""
    try:
        back = pa.ipc.read_schema(schema.serialize())
    except pa.ArrowException:
        return False
    return bool(back.equals(schema)) or all(
        # Where an extension type is not registered, the reading says so.
        one.equals(other) or set(_extensions(one.type)) != set(_extensions(other.type))
        for one, other in zip(schema, back, strict=True)
    )


def _mark_table(value: pa.Table | pa.RecordBatch) -> Marked:
    metadata = dict(value.schema.metadata or {})
    if _KEY in metadata:
        raise UnsupportedTypeError(
            f"the schema's metadata key {_KEY.decode()!r} is this store's own; remove it"
        )
    is_batch = isinstance(value, pa.RecordBatch)
    described = {
        "kind": "batch" if is_batch else "table",
        "metadata": value.schema.metadata is not None,
        **({"rows": value.num_rows} if value.num_rows and not value.num_columns else {}),
        **_described_extensions(value.schema),
    }
    table = _compact(pa.Table.from_batches([value]) if is_batch else value)
    return Marked(
        table.replace_schema_metadata({**metadata, _KEY: json.dumps(described, sort_keys=True).encode()}),
        schema={
            "columns": [
                {"name": preview.short(field.name), "type": preview.short(str(field.type))}
                for field in list(value.schema)[:200]
            ],
            "rows": value.num_rows,
        },
        preview=_preview(value),
        type=f"pyarrow.{type(value).__name__}",
    )


def _preview(value: pa.Table | pa.RecordBatch) -> Any:
    rows = []
    columns = [
        (preview.short(name), index) for index, name in enumerate(value.schema.names[: preview.MAX_COLUMNS])
    ]
    for number in range(min(preview.MAX_ROWS, value.num_rows)):
        try:
            rows.append({name: preview.cell(value.column(index)[number].as_py()) for name, index in columns})
        except Exception:  # noqa: BLE001 - a preview never fails the task whose value it shows
            break
    return preview.fit(rows)


def unified(table: pa.Table) -> pa.Table:
    """
    Give all chunks of a column the same dictionary.

    :raises UnsupportedTypeError: if Arrow cannot.
    """
    try:
        return table.unify_dictionaries()
    except pa.ArrowException as exc:
        raise UnsupportedTypeError(
            f"the dictionaries of this table's chunks do not become one: {exc}"
        ) from exc


def file_of(table: pa.Table) -> memoryview:
    """Write columns as an Arrow IPC file, the same bytes for equal columns."""
    large = table.nbytes > _SMALL_BYTES
    options = pa.ipc.IpcWriteOptions(
        compression=_COMPRESSION if table.nbytes > 512 else None, use_threads=large, unify_dictionaries=True
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        if table.num_rows:
            writer.write_table(table)
        else:  # without a batch, dictionaries are not written
            writer.write_batch(
                pa.RecordBatch.from_arrays([_whole(column) for column in table.columns], schema=table.schema)
            )
    return memoryview(sink.getvalue())


def load(data: memoryview, info: Stored) -> Any:
    return load_part(data, info, Part(None, None))


def load_part(data: memoryview, info: Stored, part: Part) -> Any:
    arrow_bounds.check_file(data, info)
    return restore(_File(pa.py_buffer(data)), info, part)


class _File(Source):
    private = False

    def __init__(self, content: pa.Buffer) -> None:
        self._content = content
        with pa.ipc.open_file(content) as reader:
            self.schema: pa.Schema = reader.schema

    def read(self, positions: list[int] | None, rows: slice | None) -> pa.Table:
        options = pa.ipc.IpcReadOptions(use_threads=True, included_fields=positions)
        with pa.ipc.open_file(self._content, options=options) as reader:
            return _read(reader, rows)


def restore(source: Source, info: Stored, part: Part) -> Any:
    """
    Make the value, or a part of it, out of the columns that :func:`mark` made of it.

    :raises ArtifactCorruptError: if the columns were not made by it.
    :raises ValueError: if there is no such column, or one is asked for twice.
    :raises TypeError: if the value has no columns to choose from.
    """
    metadata = dict(source.schema.metadata or {})
    try:
        described = json.loads(metadata.pop(_KEY))
    except (KeyError, ValueError) as exc:
        raise ArtifactCorruptError(f"{info.name!r} is an Arrow file that this store did not write") from exc
    kind = described["kind"]
    unknown = set(described.get("extensions", ())) - {
        name for found in source.schema.types for name in _extensions(found)
    }
    if unknown:
        raise UnsupportedFormatError(
            f"{info.name!r} holds Arrow extension types that are not registered here: "
            f"{', '.join(sorted(unknown))}; import what defines them, or call pyarrow.register_extension_type"
        )
    if kind in ("table", "batch"):
        positions = None if part.columns is None else chosen(source.schema, part.columns, repr(info.name))
        own = metadata if described["metadata"] else None
        if positions == [] or not len(source.schema):
            some = range(described.get("rows", 0))[part.rows or slice(None)]
            count = source.read([0], part.rows).num_rows if len(source.schema) else len(some)
            return _nothing(kind, count, own)
        return _restore_arrow(source, kind, own, positions, part.rows)
    if kind in ("array", "chunked", "polars-series"):
        if part.columns is not None:
            raise TypeError(f"{info.name!r} is an array or a series, which has no columns to choose from")
        table = source.read(None, part.rows)
        if kind == "chunked":
            return table.column(0)
        if kind == "array":
            return _whole(table.column(0))
    if kind.startswith("polars-"):
        return _restore_polars(source, described, info, part)
    from airflow_ml_provider.artifacts.codecs import frames

    if part.columns is not None:
        described = frames.choose(described, part.columns, repr(info.name))
    columns, of_index = frames.places(described)
    picked = frames.Picked(source.columns(columns, part.rows or slice(None), of_index))
    return frames.from_arrow(picked, described, part.rows, private=source.private)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    whole = column.combine_chunks()
    return whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole


def _restore_polars(source: Source, described: dict[str, Any], info: Stored, part: Part) -> Any:
    from airflow_ml_provider.artifacts.codecs import polars_frames

    if part.columns is None and (len(source.schema) or described["kind"] == "polars-series"):
        return polars_frames.from_arrow(source.read(None, part.rows), described)
    positions = chosen(source.schema, part.columns or [], repr(info.name))
    if not positions:
        return polars_frames.nothing(described["height"], part.rows)
    table = source.read(sorted(positions), part.rows)
    table = table.select([sorted(positions).index(position) for position in positions])
    return polars_frames.from_arrow(table, described, positions)


def _nothing(kind: str, count: int, metadata: dict[bytes, bytes] | None) -> Any:
    """So many rows of a table without a column."""
    schema = pa.schema([pa.field("", pa.null())], metadata=metadata)
    made = pa.Table if kind == "table" else pa.RecordBatch
    return made.from_arrays([pa.nulls(count)], schema=schema).select([])


def _restore_arrow(
    source: Source,
    kind: str,
    metadata: dict[bytes, bytes] | None,
    positions: list[int] | None,
    rows: slice | None,
) -> Any:
    table = source.read(None if positions is None else sorted(positions), rows)
    if positions is not None:
        table = table.select([sorted(positions).index(position) for position in positions])
    table = table.replace_schema_metadata(metadata)
    if kind == "table":
        return table
    return pa.RecordBatch.from_arrays([_whole(column) for column in table.columns], schema=table.schema)


def _read(reader: Any, rows: slice | None) -> pa.Table:
    """Read the batches up to the last row that is wanted."""
    if rows is None:
        return reader.read_all()
    if rows.stop is None or rows.stop < 0 or (rows.start or 0) < 0:
        return reader.read_all()[rows]
    batches: list[pa.RecordBatch] = []
    count = 0
    for number in range(reader.num_record_batches):
        if batches and count >= rows.stop:  # no rows have dictionaries too
            break
        batches.append(reader.get_batch(number))
        count += batches[-1].num_rows
    return pa.Table.from_batches(batches, schema=reader.schema)[rows]


def chosen(schema: pa.Schema, wanted: list[Any], whose: str) -> list[int]:
    """
    Find columns by name, in the order asked for; a name that stands twice gives both.

    :raises ValueError: if one is not there, or is asked for twice.
    """
    positions: list[int] = []
    for name in wanted:
        found = [position for position, label in enumerate(schema.names) if label == name]
        if not found:
            shown = ", ".join(map(repr, schema.names[:20]))
            more = f" and {len(schema) - 20} more" if len(schema) > 20 else ""
            raise ValueError(f"{whose} has no column {name!r}; it has {shown or 'none'}{more}")
        if set(found) & set(positions):
            raise ValueError(f"the column {name!r} of {whose} is asked for twice")
        positions += found
    return positions
