# SPDX-License-Identifier: Apache-2.0
"""
``arrow-chunks-v1``: the columns of ``arrow-v1`` in pieces, for tables from some megabytes on.

Rows are cut into stretches where the hash of a row is the least of its neighbourhood (Bjorner, Blass and
Gurevich, Content-dependent chunking for differential compression, the local maximum approach, 2010), so that
the same rows make the same stretches wherever they stand: rows that are appended, removed or inserted, and
columns that change, leave the other pieces as they are. A piece is one column, or a
few narrow ones, of one stretch: its values as they are in memory where all are there and of one width; of
text the lengths and then the characters; else an Arrow IPC message. The values of a dictionary are one piece.
The cut depends on nothing but the table, so that equal tables have equal digests.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa  # noqa: TID253 - this module is imported on first use

from airflow_ml_provider.artifacts.chunks import Cut, Pieces, spread
from airflow_ml_provider.artifacts.codecs import arrow
from airflow_ml_provider.artifacts.codecs.registry import Part, Stored
from airflow_ml_provider.exceptions import ArtifactCorruptError

# Smaller tables are one object and one request.
MIN_BYTES = 4 << 20
# Rows in a stretch, about, as a power of two, for tables up to 2 million rows; then more.
_ROWS_LOG2 = 13
_STRETCHES_LOG2 = 8
# Rows on either side of a cut whose hashes are greater, over those above; cuts are twice as far apart, on
# average. Where rows are cut whose hash begins with zeros, stretches differ more in length, so that a change
# falls into a longer one: a block of 1% costs 2.8% of a table then, and 2.2% so.
_REACH = 5 / 8
# Only hashes that are so small are compared: sixteen in a stretch.
_CANDIDATES_LOG2 = 4
# A piece is about so large at least, where columns are narrow, and at most, where rows are long.
_MIN_PIECE_BYTES = 64 << 10
_MAX_PIECE_BYTES = 2 << 20
# A hash of columns that take this share of different values in a sample tells rows apart.
_DISTINCT = 0.5
_SAMPLE = 4096
_MAX_KEYS = 4
# Rows that are hashed at once: their numbers stay in the processor's cache.
_BLOCK = 1 << 15
_MAX_SHORT_OFFSET = (1 << 31) - 1
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
    table = arrow.unified(table)
    bounds = _bounds(table)
    groups = _groups(table, bounds)
    dictionaries = [i for i, field in enumerate(table.schema) if pa.types.is_dictionary(field.type)]
    values = [table.column(i).chunk(0).dictionary for i in dictionaries]
    plain = [number for number, group in enumerate(groups) if _is_plain(table, group)]
    values_of = {number: [_Values(table.column(i)) for i in groups[number]] for number in plain}
    texts_of = {
        number: texts
        for number, group in enumerate(groups)
        if len(group) == 1 and (texts := _texts(table.column(group[0]))) is not None
    }
    header = {
        "rows": bounds,
        "groups": groups,
        "dictionaries": dictionaries,
        "plain": plain,
        "texts": list(texts_of),
    }
    stretches = len(bounds) - 1

    def parts(number: int, count: int) -> list[memoryview]:
        if number < len(dictionaries):
            return [memoryview(_message([values[number]]))]
        group, stretch = divmod(number - len(dictionaries), stretches)
        start, stop = bounds[stretch], bounds[stretch + count]
        if (columns := values_of.get(group)) is not None:
            return [column.rows(start, stop) for column in columns]
        if (texts := texts_of.get(group)) is not None:
            return texts.rows(start, stop)
        return [memoryview(_message([_rows_of(table.column(i), start, stop) for i in groups[group]]))]

    def joins(number: int) -> bool:
        group, stretch = divmod(number - len(dictionaries), stretches)
        return stretch > 0 and len(values_of.get(group, ())) == 1

    return Cut(
        header=json.dumps(header, separators=(",", ":")).encode() + b"\n" + bytes(table.schema.serialize()),
        count=len(dictionaries) + len(groups) * stretches,
        size_bytes=table.nbytes,
        parts=parts,
        joins=joins,
        is_long=lambda number: (
            number < len(dictionaries) or (number - len(dictionaries)) // stretches not in values_of
        ),
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
            self._texts = frozenset(header.get("texts", ()))
        except (ValueError, KeyError, TypeError, pa.ArrowException) as exc:
            raise ArtifactCorruptError(f"{info.name!r} has pieces that make no table: {exc}") from exc
        if pieces.count != len(self._dictionaries) + len(self._groups) * (len(self._bounds) - 1):
            raise ArtifactCorruptError(f"{info.name!r} has more or fewer pieces than its table needs")

    def read(self, positions: list[int] | None, rows: slice | None) -> pa.Table:
        order = list(range(len(self.schema))) if positions is None else positions
        found = self.columns(order, rows or slice(None), [])
        schema = pa.schema([self.schema.field(i) for i in order], metadata=self.schema.metadata)
        return pa.Table.from_arrays([found[i] for i in order], schema=schema)

    def columns(self, positions: list[int], rows: slice, whole: list[int]) -> dict[int, pa.ChunkedArray]:
        wanted = {*positions, *whole}
        start, stop, _ = rows.indices(self._bounds[-1])
        every = list(range(len(self._bounds) - 1))
        some = [
            number for number in every if self._bounds[number] < stop and self._bounds[number + 1] > start
        ]
        stretches = {
            number: some if set(whole).isdisjoint(group) else every
            for number, group in enumerate(self._groups)
            if not wanted.isdisjoint(group)
        }
        self._pieces.prepare(self._needed(stretches, wanted))
        found: dict[int, pa.ChunkedArray] = {}
        for group, columns in zip(
            stretches,
            spread(
                lambda group: self._group(group, stretches[group], wanted),
                stretches,
                lambda group: group not in self._plain,
            ),
            strict=True,
        ):
            first = self._bounds[stretches[group][0]] if stretches[group] else 0
            for position, column in columns.items():
                found[position] = (
                    column if position in whole else column.slice(start - first, max(0, stop - start))
                )
        self._pieces.release()  # before frames copy what was made of them
        return found

    def _needed(self, stretches: dict[int, list[int]], wanted: set[int]) -> Iterator[int]:
        """Yield the numbers of the pieces that columns consist of, by the stretches of their groups."""
        yield from (number for number, position in enumerate(self._dictionaries) if position in wanted)
        for group, numbers in stretches.items():
            yield from (self._first(group) + number for number in numbers)

    def _first(self, group: int) -> int:
        """Number of the first piece of a group."""
        return len(self._dictionaries) + group * (len(self._bounds) - 1)

    def _group(self, group: int, stretches: list[int], wanted: set[int]) -> dict[int, Any]:
        positions = self._groups[group]
        first = self._first(group)
        made = {}
        if group in self._plain:
            for position, column in zip(positions, self._values(group, first, stretches), strict=True):
                if position in wanted:
                    made[position] = self._with_dictionary(position, column)
            return made
        if group in self._texts:
            kind = self.schema.field(positions[0]).type
            return {positions[0]: self._text(kind, first, stretches)}
        schema = pa.schema([_stored_field(self.schema.field(i)) for i in positions])
        batches = [self._batch(first + number, schema) for number in stretches]
        for place, position in enumerate(positions):
            if position in wanted:
                column = _together([batch.column(place) for batch in batches], schema.field(place).type)
                made[position] = self._with_dictionary(position, column)
        return made

    def _rows(self, stretches: list[int]) -> int:
        return self._bounds[stretches[-1] + 1] - self._bounds[stretches[0]] if stretches else 0

    def _values(self, group: int, first: int, stretches: list[int]) -> list[pa.ChunkedArray]:
        kinds = [_stored_type(self.schema.field(i).type) for i in self._groups[group]]
        widths = [kind.bit_width // 8 for kind in kinds]
        rows = self._rows(stretches)
        buffers = [pa.allocate_buffer(rows * width) for width in widths]
        into = [_memory_of(buffer) for buffer in buffers]
        before = self._bounds[stretches[0]] if stretches else 0

        def targets(number: int, count: int) -> list[memoryview]:
            start, stop = (self._bounds[at - first] - before for at in (number, number + count))
            return [memory[start * width : stop * width] for memory, width in zip(into, widths, strict=True)]

        if stretches:
            self._pieces.read_into(first + stretches[0], len(stretches), targets)
        return [
            pa.chunked_array([pa.Array.from_buffers(kind, rows, [None, buffer], null_count=0)], kind)
            for kind, buffer in zip(kinds, buffers, strict=True)
        ]

    def _text(self, kind: pa.DataType, first: int, stretches: list[int]) -> pa.ChunkedArray:
        runs = self._runs_of_text(kind, first, stretches)
        return pa.chunked_array([self._text_of(kind, first, run) for run in runs], kind)

    def _runs_of_text(self, kind: pa.DataType, first: int, stretches: list[int]) -> Iterator[list[int]]:
        """Yield stretches whose text one array can hold."""
        some: list[int] = []
        size = 0
        for number in stretches:
            size += self._pieces.length(first + number)
            if some and size > _MAX_SHORT_OFFSET and not _has_long_offsets(kind):
                yield some
                some, size = [], self._pieces.length(first + number)
            some.append(number)
        yield some

    def _text_of(self, kind: pa.DataType, first: int, stretches: list[int]) -> pa.Array:
        import numpy as np

        rows = self._rows(stretches)
        lengths = np.empty(rows, np.int32)
        of_rows = [self._bounds[number + 1] - self._bounds[number] for number in stretches]
        sizes = [
            self._pieces.length(first + number) - 4 * count
            for number, count in zip(stretches, of_rows, strict=True)
        ]
        if min(sizes, default=0) < 0:
            raise ArtifactCorruptError(f"{self._whose} has pieces of other lengths than its rows need")
        content = pa.allocate_buffer(sum(sizes))
        into, row, at = _memory_of(content), 0, 0
        as_bytes = memoryview(cast("Any", lengths.view(np.uint8)))
        for number, count, size in zip(stretches, of_rows, sizes, strict=True):
            targets = [as_bytes[4 * row : 4 * (row + count)], into[at : at + size]]
            self._pieces.read_into(first + number, 1, lambda *_, targets=targets: targets)
            row, at = row + count, at + size
        missing = lengths < 0
        nulls = int(np.count_nonzero(missing))
        if nulls:
            lengths[missing] = 0
        offsets = np.empty(rows + 1, np.int64 if _has_long_offsets(kind) else np.int32)
        offsets[0] = 0
        offsets[1:] = lengths
        np.cumsum(offsets, out=offsets)
        if offsets[-1] != content.size:
            raise ArtifactCorruptError(f"{self._whose} has text that is not as long as it says")
        valid = pa.py_buffer(np.packbits(~missing, bitorder="little")) if nulls else None
        return pa.Array.from_buffers(kind, rows, [valid, pa.py_buffer(offsets), content], null_count=nulls)

    def _batch(self, number: int, schema: pa.Schema) -> pa.RecordBatch:
        return pa.ipc.read_record_batch(pa.py_buffer(self._pieces.read(number)), schema)

    def _with_dictionary(self, position: int, column: pa.ChunkedArray) -> pa.ChunkedArray:
        kind = self.schema.field(position).type
        if not pa.types.is_dictionary(kind):
            return column
        schema = pa.schema([pa.field("", kind.value_type)])
        values = self._batch(self._dictionaries.index(position), schema).column(0)
        return pa.chunked_array(
            [
                pa.DictionaryArray.from_arrays(part, values, ordered=kind.ordered)
                for part in column.chunks or [pa.array([], kind.index_type)]  # no rows have their values too
            ],
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


def _stored_type(kind: pa.DataType) -> pa.DataType:
    return kind.index_type if pa.types.is_dictionary(kind) else kind


def _stored_field(field: pa.Field) -> pa.Field:
    return field.with_type(_stored_type(field.type))


def _rows_of(column: pa.ChunkedArray, start: int, stop: int) -> pa.Array:
    parts = column.slice(start, stop - start).chunks
    if pa.types.is_dictionary(column.type):
        parts = [part.indices for part in parts]
    return parts[0] if len(parts) == 1 else pa.concat_arrays(parts)


def _is_plain(table: pa.Table, group: list[int]) -> bool:
    """Tell whether all values of some columns are there, and of whole bytes each."""
    kinds = [_stored_type(table.schema.field(position).type) for position in group]
    return all(pa.types.is_primitive(kind) and kind.bit_width % 8 == 0 for kind in kinds) and not any(
        table.column(position).null_count for position in group
    )


class _Values:
    """The memory of a column of one width."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        kind = _stored_type(column.type)
        self._format = _format_of(kind)
        width = kind.bit_width // 8
        parts = [part.indices if pa.types.is_dictionary(column.type) else part for part in column.chunks]
        self._width = width
        self._memories = [
            _memory_of(part.buffers()[1])[part.offset * width : (part.offset + len(part)) * width]
            for part in parts
            if len(part)
        ]

    def rows(self, start: int, stop: int) -> memoryview:
        found = _cut_out(self._memories, start * self._width, stop * self._width)
        whole = found[0] if len(found) == 1 else memoryview(b"".join(found))
        numbers: memoryview = cast("Any", whole).cast(self._format)
        return numbers


@dataclass(frozen=True)
class _Texts:
    """
    A column of text, of which rows are the length of each, -1 where there is none, and the characters of all.

    :param ends: Of each chunk the rows up to its end.
    :param limits: Of each chunk where its texts begin and end.
    :param missing: Of each chunk which texts are not there; None if all are.
    :param memories: The characters of each chunk.
    """

    ends: list[int]
    limits: list[Any]
    missing: list[Any]
    memories: list[memoryview]

    def rows(self, start: int, stop: int) -> list[memoryview]:
        import numpy as np

        lengths, content = [], []
        for number in range(bisect.bisect_right(self.ends, start), len(self.ends)):
            limits, missing = self.limits[number], self.missing[number]
            before = self.ends[number] - len(limits) + 1
            if before >= stop:
                break
            first, last = max(0, start - before), min(len(limits) - 1, stop - before)
            found = (limits[first + 1 : last + 1] - limits[first:last]).astype(np.int32)
            if missing is not None:
                found[missing[first:last]] = -1
            lengths.append(found)
            content.append(self.memories[number][limits[first] : limits[last]])
        return [
            memoryview(_joined(lengths)),
            content[0] if len(content) == 1 else memoryview(b"".join(content)),
        ]


def _texts(column: pa.ChunkedArray) -> _Texts | None:
    """Describe a column of text; None if it is none, or nulls hide text that its message would keep."""
    import numpy as np

    is_long = pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type)
    if not (is_long or pa.types.is_string(column.type) or pa.types.is_binary(column.type)):
        return None
    made = _Texts([], [], [], [])
    rows = 0
    for part in column.chunks:
        if not len(part):
            continue
        rows += len(part)
        _, offsets, data = part.buffers()
        limits: Any = np.frombuffer(offsets, np.int64 if is_long else np.int32)
        limits = limits[part.offset : part.offset + len(part) + 1]
        missing = None
        if part.null_count:
            missing = part.is_null().to_numpy(zero_copy_only=False)
            if (limits[1:][missing] != limits[:-1][missing]).any():
                return None
        if limits[-1] - limits[0] > _MAX_SHORT_OFFSET and np.diff(limits).max() > _MAX_SHORT_OFFSET:
            return None
        made.ends.append(rows)
        made.limits.append(limits)
        made.missing.append(missing)
        made.memories.append(memoryview(b"") if data is None else _memory_of(data))
    return made


def _cut_out(memories: list[memoryview], start: int, stop: int) -> list[memoryview]:
    """Return some bytes of memories that lie one after the other."""
    if len(memories) == 1:
        return [memories[0][start:stop]]
    found = []
    for memory in memories:
        if start < memory.nbytes and stop > 0:
            found.append(memory[max(0, start) : stop])
        start, stop = start - memory.nbytes, stop - memory.nbytes
    return found


def _memory_of(buffer: pa.Buffer) -> memoryview:
    return memoryview(buffer).cast("B") if buffer.size else memoryview(bytearray())


def _format_of(kind: pa.DataType) -> str:
    """How :class:`memoryview` names numbers of a type; bytes if they are none of these."""
    if pa.types.is_floating(kind):
        return {4: "f", 8: "d"}.get(kind.bit_width // 8, "B")
    named = {1: "b", 2: "h", 4: "i", 8: "q"}.get(kind.bit_width // 8, "B")
    return named.upper() if pa.types.is_unsigned_integer(kind) else named


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
            width = _stored_type(field.type).bit_width
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
    marks = _marks(table, log2)
    longest = average if marks is None else 4 * average
    bounds = [0]
    for mark in [*(marks or ()), count]:
        while mark - bounds[-1] > longest:
            bounds.append(bounds[-1] + longest)
        if mark != bounds[-1]:
            bounds.append(mark)
    return bounds


def _marks(table: pa.Table, log2: int) -> list[int] | None:
    """Return the rows whose hash is the least of their neighbourhood; None if no columns tell rows apart."""
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
    places, hashes = [], []
    small = np.uint64(64 - log2 + _CANDIDATES_LOG2)
    for start in range(0, count, _BLOCK):
        mixed = _mixed([key[start : start + _BLOCK] for key in chosen])
        found = np.flatnonzero(mixed >> small == 0)
        places.append(found + start)
        hashes.append(mixed[found])
    reach = round(_REACH * (1 << log2))
    return _least(np.concatenate(places).tolist(), np.concatenate(hashes).tolist(), reach)


def _least(places: list[int], hashes: list[int], reach: int) -> list[int]:
    """
    Return the places whose hash is the least of all within reach, the first of equal ones.

    :param places: Ascending.
    """
    after = [places[-1] + reach + 1] * len(places) if places else []  # where a lesser hash follows
    alone = []  # whether none as small comes shortly before
    rising: list[int] = []  # candidates that no later one is less than
    for number, found in enumerate(hashes):
        while rising and hashes[rising[-1]] > found:
            after[rising.pop()] = places[number]
        alone.append(not rising or places[number] - places[rising[-1]] > reach)
        rising.append(number)
    return [
        place
        for place, stands, lesser in zip(places, alone, after, strict=True)
        if stands and lesser - place > reach
    ]


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
