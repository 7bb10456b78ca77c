# SPDX-License-Identifier: Apache-2.0
"""
``arrow-chunks-v1``: the columns of ``arrow-v1`` in pieces, for tables from some megabytes on.

Rows are cut into stretches where a hash of a row says so (content-defined chunking, Muthitacharoen et al.,
LBFS, 2001), so that the same rows make the same stretches wherever they stand: rows that are appended,
removed or inserted, and columns that change, leave the other pieces as they are. A piece is one column, or a
few narrow ones, of one stretch: its values as they are in memory where all are there and of one width, else
an Arrow IPC message. The values of a dictionary are one piece. The cut depends on nothing but the table, so
that equal tables have equal digests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa  # noqa: TID253 - this module is imported on first use

from airflow_ml_provider.artifacts.chunks import Cut, Pieces, spread
from airflow_ml_provider.artifacts.codecs import arrow
from airflow_ml_provider.artifacts.codecs.registry import Part, Stored
from airflow_ml_provider.exceptions import ArtifactCorruptError

# Smaller tables are one object and one request.
MIN_BYTES = 4 << 20
# Rows in a stretch, on average: as a power of two, for tables up to 2 million rows; then more.
_ROWS_LOG2 = 13
_STRETCHES_LOG2 = 8
# A piece is about so large at least, where columns are narrow, and at most, where rows are long.
_MIN_PIECE_BYTES = 64 << 10
_MAX_PIECE_BYTES = 2 << 20
# A hash of columns that take this share of different values in a sample tells rows apart.
_DISTINCT = 0.5
_SAMPLE = 4096
_MAX_KEYS = 4
# Rows that are hashed at once: their numbers stay in the processor's cache.
_BLOCK = 1 << 15
# The golden ratio's bits: multiplying spreads neighbouring values (Knuth, TAOCP 3, 6.4).
_MULTIPLIER = 0x9E3779B97F4A7C15


def split(value: Any, *, small: bool = False) -> Cut | None:
    """
    Cut a table; None if it is small, or of a type that is stored in one piece.

    :param small: Cut it even then.
    :raises UnsupportedTypeError: if a part of it cannot be carried exactly; names the part.
    """
    marked = arrow.mark(value)
    table = marked.table
    if (table.nbytes < MIN_BYTES and not small) or not len(table):
        return None
    if not all(_fits(field.type, top=True) for field in table.schema):
        return None
    table = table.unify_dictionaries()
    bounds = _bounds(table)
    groups = _groups(table, bounds)
    dictionaries = [i for i, field in enumerate(table.schema) if pa.types.is_dictionary(field.type)]
    values = [table.column(i).chunk(0).dictionary for i in dictionaries]
    plain = [number for number, group in enumerate(groups) if _is_plain(table, group)]
    header = {"rows": bounds, "groups": groups, "dictionaries": dictionaries, "plain": plain}
    widths = {number: table.schema.types[groups[number][0]].bit_width // 8 for number in plain}
    values_of = {
        number: _values(column, 0, len(column))[0]
        for number in plain
        if (column := table.column(groups[number][0])).num_chunks == 1
    }
    stretches = len(bounds) - 1

    def piece(number: int) -> list[memoryview]:
        if number < len(dictionaries):
            return [memoryview(_message([values[number]]))]
        group, stretch = divmod(number - len(dictionaries), stretches)
        start, stop = bounds[stretch], bounds[stretch + 1]
        if (memory := values_of.get(group)) is not None:
            return [memory[start * widths[group] : stop * widths[group]]]
        if group in plain:
            return _values(table.column(groups[group][0]), start, stop)
        return [memoryview(_message([_rows_of(table.column(i), start, stop) for i in groups[group]]))]

    return Cut(
        header=json.dumps(header, separators=(",", ":")).encode() + b"\n" + bytes(table.schema.serialize()),
        count=len(dictionaries) + len(groups) * stretches,
        size_bytes=table.nbytes,
        piece=piece,
        schema=marked.schema,
        preview=marked.preview,
        type=marked.type,
    )


def join(pieces: Pieces, info: Stored, part: Part | None = None) -> Any:
    """Make the value, or a part of it, out of its pieces."""
    return arrow.restore(_Columns(pieces, info), info, part or Part(None, None))


def whole(pieces: Pieces, info: Stored) -> memoryview:
    """Return the stored columns as one Arrow IPC file, as ``arrow-v1`` has them."""
    return arrow.file_of(_Columns(pieces, info).read(None, None))


class _Columns:
    """Stored pieces, read as columns; each column of values is made in memory of its own."""

    private = True

    def __init__(self, pieces: Pieces, info: Stored) -> None:
        self._pieces = pieces
        self._whose = repr(info.name)
        line, _, schema = pieces.header.partition(b"\n")
        try:
            header = json.loads(line)
            self.schema: pa.Schema = pa.ipc.read_schema(pa.py_buffer(schema))
            self._bounds: list[int] = header["rows"]
            self._groups: list[list[int]] = header["groups"]
            self._dictionaries: list[int] = header["dictionaries"]
            self._plain = frozenset(header["plain"])
        except (ValueError, KeyError, TypeError, pa.ArrowException) as exc:
            raise ArtifactCorruptError(f"{info.name!r} has pieces that make no table: {exc}") from exc
        if pieces.count != len(self._dictionaries) + len(self._groups) * (len(self._bounds) - 1):
            raise ArtifactCorruptError(f"{info.name!r} has more or fewer pieces than its table needs")

    def read(self, positions: list[int] | None, rows: slice | None) -> pa.Table:
        wanted = set(range(len(self.schema)) if positions is None else positions)
        start, stop, _ = (rows or slice(None)).indices(self._bounds[-1])
        numbers = [
            number
            for number in range(len(self._bounds) - 1)
            if self._bounds[number] < stop and self._bounds[number + 1] > start
        ]
        found: dict[int, Any] = {}
        groups = [number for number, group in enumerate(self._groups) if wanted & set(group)]
        for columns in spread(lambda group: self._group(group, numbers, wanted), groups):
            found.update(columns)
        self._pieces.release()  # before frames copy what was made of them
        order = sorted(wanted)
        schema = pa.schema([self.schema.field(i) for i in order], metadata=self.schema.metadata)
        table = pa.Table.from_arrays([found[i] for i in order], schema=schema)
        first = self._bounds[numbers[0]] if numbers else 0
        return table if rows is None else table.slice(start - first, max(0, stop - start))

    def _group(self, group: int, stretches: list[int], wanted: set[int]) -> dict[int, Any]:
        positions = self._groups[group]
        if group in self._plain:
            return {positions[0]: self._values(group, self.schema.field(positions[0]).type, stretches)}
        schema = pa.schema([_stored_field(self.schema.field(i)) for i in positions])
        first = len(self._dictionaries) + group * (len(self._bounds) - 1)
        batches = [self._batch(first + number, schema) for number in stretches]
        made = {}
        for place, position in enumerate(positions):
            if position in wanted:
                column = _together([batch.column(place) for batch in batches], schema.field(place).type)
                made[position] = self._with_dictionary(position, column)
        return made

    def _values(self, group: int, kind: pa.DataType, stretches: list[int]) -> pa.ChunkedArray:
        if not stretches:
            return pa.chunked_array([], kind)
        first = len(self._dictionaries) + group * (len(self._bounds) - 1) + stretches[0]
        rows = self._bounds[stretches[-1] + 1] - self._bounds[stretches[0]]
        size = rows * kind.bit_width // 8
        if self._pieces.length(first, len(stretches)) != size:
            raise ArtifactCorruptError(f"{self._whose} has pieces of other lengths than its rows need")
        buffer = pa.allocate_buffer(size)
        into, at = memoryview(buffer).cast("B"), 0
        for number in range(first, first + len(stretches)):
            part = self._pieces.read(number)
            into[at : at + len(part)] = part
            at += len(part)
        return pa.chunked_array([pa.Array.from_buffers(kind, rows, [None, buffer], null_count=0)], kind)

    def _batch(self, number: int, schema: pa.Schema) -> pa.RecordBatch:
        return pa.ipc.read_record_batch(pa.py_buffer(self._pieces.read(number)), schema)

    def _with_dictionary(self, position: int, column: pa.ChunkedArray) -> pa.ChunkedArray:
        kind = self.schema.field(position).type
        if not pa.types.is_dictionary(kind):
            return column
        schema = pa.schema([pa.field("", kind.value_type)])
        values = self._batch(self._dictionaries.index(position), schema).column(0)
        return pa.chunked_array(
            [pa.DictionaryArray.from_arrays(part, values, ordered=kind.ordered) for part in column.chunks],
            kind,
        )


def _fits(kind: pa.DataType, *, top: bool = False) -> bool:
    """Tell whether columns of a type can be cut, and each part be written as a message of its own."""
    if pa.types.is_dictionary(kind):
        return top and _fits(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return _fits(kind.storage_type)
    if (
        pa.types.is_union(kind)
        or pa.types.is_run_end_encoded(kind)
        or "view" in str(kind)  # the buffers of views are shared by all rows
    ):
        return False
    return all(_fits(kind.field(i).type) for i in range(kind.num_fields))


def _stored_field(field: pa.Field) -> pa.Field:
    return field.with_type(field.type.index_type) if pa.types.is_dictionary(field.type) else field


def _rows_of(column: pa.ChunkedArray, start: int, stop: int) -> pa.Array:
    parts = column.slice(start, stop - start).chunks
    if pa.types.is_dictionary(column.type):
        parts = [part.indices for part in parts]
    return parts[0] if len(parts) == 1 else pa.concat_arrays(parts)


def _is_plain(table: pa.Table, group: list[int]) -> bool:
    kind = table.schema.field(group[0]).type
    return (
        len(group) == 1
        and pa.types.is_primitive(kind)
        and kind.bit_width % 8 == 0
        and not table.column(group[0]).null_count
    )


def _values(column: pa.ChunkedArray, start: int, stop: int) -> list[memoryview]:
    """Return the memory of some rows."""
    width = column.type.bit_width // 8
    return [
        memoryview(part.buffers()[1]).cast("B")[part.offset * width : (part.offset + len(part)) * width]
        for part in column.slice(start, stop - start).chunks
        if len(part)
    ]


def _message(arrays: list[pa.Array]) -> pa.Buffer:
    # The default pool keeps what it was given, for many times the length of one message.
    batch = pa.RecordBatch.from_arrays(arrays, names=[""] * len(arrays))
    return batch.serialize(memory_pool=pa.system_memory_pool())


def _together(parts: list[pa.Array], kind: pa.DataType) -> pa.ChunkedArray:
    """Join stretches to one array, which frames take over without another copy, where one can hold them."""
    if len(parts) > 1 and (_has_long_offsets(kind) or sum(part.nbytes for part in parts) < 1 << 31):
        parts = [pa.concat_arrays(parts)]
    return pa.chunked_array(parts, kind)


def _has_long_offsets(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_primitive(kind) or pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
    )


def _groups(table: pa.Table, bounds: list[int]) -> list[list[int]]:
    """Put narrow columns together until a stretch of them makes a piece; wide ones stand alone."""
    rows = 1 << (max(1, (len(table) - 1) // (len(bounds) - 1)) - 1).bit_length()
    enough = 8 * _MIN_PIECE_BYTES // min(rows, 1 << _ROWS_LOG2)
    groups: list[list[int]] = []
    narrow: list[int] = []
    bits = 0
    for position, field in enumerate(table.schema):
        try:
            width = _stored_field(field).type.bit_width
        except ValueError:  # as long as its values
            width = 128
        if width >= enough:
            groups.append([position])
            continue
        if bits >= enough or not narrow:
            narrow = []
            groups.append(narrow)
            bits = 0
        narrow.append(position)
        bits += width
    return groups


def _bounds(table: pa.Table) -> list[int]:
    """Return where stretches begin, and the number of rows."""
    count = len(table)
    widest = max(column.nbytes for column in table.columns) / count
    log2 = max(_ROWS_LOG2, count.bit_length() - _STRETCHES_LOG2)
    log2 = max(6, min(log2, (_MAX_PIECE_BYTES // (1 << max(0, int(widest).bit_length()))).bit_length() - 1))
    average = 1 << log2
    shortest, longest = average // 4, average * 4
    marks = _marks(table, log2)
    if marks is None:
        shortest, longest = 1, average
    bounds = [0]
    for mark in [*(marks or ()), count]:
        while mark - bounds[-1] > longest:
            bounds.append(bounds[-1] + longest)
        if mark - bounds[-1] >= shortest or (mark == count and mark != bounds[-1]):
            bounds.append(mark)
    return bounds


def _marks(table: pa.Table, log2: int) -> list[int] | None:
    """Return the rows whose hash begins with so many zeros; None if no columns tell rows apart."""
    import numpy as np

    count = len(table)
    sample = np.linspace(0, count - 1, min(count, _SAMPLE), dtype=np.int64)
    chosen: list[Any] = []
    for values in _keys(table):
        chosen.append(values)
        if len(np.unique(_mixed([key[sample] for key in chosen]))) >= _DISTINCT * len(sample):
            break
        if len(chosen) == _MAX_KEYS:
            return None
    else:
        return None
    found = []
    for start in range(0, count, _BLOCK):
        hashes = _mixed([key[start : start + _BLOCK] for key in chosen])
        found.append(np.flatnonzero(hashes >> np.uint64(64 - log2) == 0) + start)
    marks: list[int] = np.concatenate(found).tolist()
    return marks


def _mixed(parts: list[Any]) -> Any:
    """Hash rows by the numbers of some columns."""
    import numpy as np

    hashes = parts[0].astype(np.uint64)
    hashes ^= hashes >> np.uint64(32)
    hashes *= np.uint64(_MULTIPLIER)
    for part in parts[1:]:
        hashes ^= part.astype(np.uint64, copy=False)
        hashes *= np.uint64(_MULTIPLIER)
    return hashes


def _keys(table: pa.Table) -> Iterator[Any]:
    """
    Yield columns as numbers of 64 bits: floats and times, then texts by their ends, then integers.

    The order is one of types, so that it stays when rows come and go. Integers are last, for some are row
    numbers, which say where a row stands and not what it is.
    """
    columns = [column for column in table.columns if not column.null_count]
    fixed = [c for c in columns if pa.types.is_primitive(c.type) and c.type.bit_width in (32, 64)]
    yield from (_numbers(column) for column in fixed if not pa.types.is_integer(column.type))
    for column in columns:
        if pa.types.is_large_string(column.type) or pa.types.is_string(column.type):
            yield _joined([_ends(part) for part in column.chunks])
    for column in fixed:
        if pa.types.is_integer(column.type) and not _counts_up(values := _numbers(column)):
            yield values


def _numbers(column: pa.ChunkedArray) -> Any:
    import numpy as np

    width = column.type.bit_width // 8
    parts = [
        np.frombuffer(part.buffers()[1], f"u{width}", len(part), part.offset * width)
        for part in column.chunks
        if len(part)
    ]
    return _joined(parts)


def _joined(parts: list[Any]) -> Any:
    import numpy as np

    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _counts_up(values: Any) -> bool:
    # Of arrays, which wrap around as numbers without a sign do.
    return bool((values[-1:] - values[:1] == len(values) - 1).all() and (values[1:] - values[:-1] == 1).all())


def _ends(texts: pa.Array) -> Any:
    """Return the last eight bytes of each text as a number."""
    import numpy as np

    _, offsets, data = texts.buffers()
    width = "i8" if pa.types.is_large_string(texts.type) else "i4"
    limits = np.frombuffer(offsets, width)[texts.offset : texts.offset + len(texts) + 1]
    content = np.frombuffer(data, "u1") if data is not None and data.size else np.zeros(1, "u1")
    made = np.zeros(len(texts), np.uint64)
    for back in range(1, 9):
        places = limits[1:] - back
        inside = places >= limits[:-1]
        letters = content[np.where(inside, places, 0)].astype(np.uint64)
        made = (made << np.uint64(8)) | np.where(inside, letters, np.uint64(0))
    return made
