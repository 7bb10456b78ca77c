# SPDX-License-Identifier: Apache-2.0
"""
Short forms of the parts of a piece.

Numbers are written as small integers where that gives the same bits back, which is several times faster than
a general compressor and mostly smaller: integers by their distance to the smallest one (frame of reference;
Goldstein, Ramakrishnan and Shaft, "Compressing relations and indexes", 1998) or to the one before (delta),
floats that came of decimals as these (ALP; Afroozeh, Kuffó and Boncz, "ALP: Adaptive lossless floating-point
compression", 2023). What gets smaller by lz4 or zstd, of these or of other parts, is compressed. Noise stays
as it is.

The form depends on nothing but the part and the compressor. It says itself what it is.
"""

from __future__ import annotations

import contextlib
import math
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from airflow_ml_provider.artifacts.objects import as_bytes

_MAGIC = b"AMLE"
_TOP = struct.Struct("<4sI")  # magic, parts
# kind, type, bytes a number, exponent, whether compressed, padding, length before and after, two numbers
_PART = struct.Struct("<BcBBB3xQQQQ")
_AS_IT_IS, _DISTANCES, _DELTAS, _DECIMALS, _DECIMALS_OR_NAN = range(5)
_INTEGERS = {b"b": 1, b"B": 1, b"h": 2, b"H": 2, b"i": 4, b"I": 4, b"q": 8, b"Q": 8}
_FLOATS = {b"f": 4, b"d": 8}
_WIDTHS = (0, 1, 2, 4, 8)
# Numbers that keep more than this share of their length are stored as they are.
_WORTH = 0.85
_SAMPLE_BYTES = 4096
_SAMPLE_ITEMS = 256
_TOO_SHORT = 64
_ALIGNED = 8
# 10 to this power times a price of some billions is still a whole number in a float.
_MAX_EXPONENT = 6
_EXACT = 2.0**52
_LEVEL = 1
_LZ4_MAGIC = b"\x04\x22\x4d\x18"


class _Short(NamedTuple):
    """Numbers as small ones without a sign: how they were made, and their memory."""

    kind: int
    width: int
    exponent: int
    base: int
    first: int
    numbers: Any


class Compressor(NamedTuple):
    """
    A general compressor.

    :param worth: Where it leaves a larger share than this, it is not used.
    """

    compress: Callable[[Any], bytes]
    worth: float


def encode(parts: Sequence[memoryview], compressor: Compressor) -> list[memoryview]:
    """
    Return a piece in a form that is shorter, or its parts as they are.

    :param parts: One format and one dimension each; what is numbers has the format of these.
    :param compressor: :data:`LZ4` or :data:`ZSTD`.
    """
    size = sum(part.nbytes for part in parts)
    rows: list[bytes] = []
    body: list[memoryview] = []
    at = _TOP.size + len(parts) * _PART.size
    is_shorter = False
    for part in parts:
        short = _short(part)
        data = as_bytes(part) if short is None else memoryview(short.numbers).cast("B")
        length, compressed = data.nbytes, False
        if _shrinks(data, compressor):
            made = compressor.compress(data)
            if len(made) < compressor.worth * length:
                # A copy, for what compressors return keeps the room that the worst case would have taken.
                data, compressed = memoryview(bytes(memoryview(made))), True
        is_shorter = is_shorter or compressed or short is not None
        kind, width, exponent, base, first, _ = short or _Short(_AS_IT_IS, 0, 0, 0, 0, None)
        code = _code(part) if short is not None else b"B"
        rows.append(_PART.pack(kind, code, width, exponent, compressed, length, data.nbytes, base, first))
        if gap := -at % _ALIGNED:
            body.append(memoryview(bytes(gap)))
        body.append(data)
        at += gap + data.nbytes
    if not is_shorter or at > _WORTH * size:
        return [as_bytes(part) for part in parts]
    return [memoryview(b"".join([_TOP.pack(_MAGIC, len(parts)), *rows])), *body]


def decode(stored: memoryview, targets: Sequence[memoryview]) -> None:
    """
    Write the parts of a piece to where they belong, whichever form they have.

    :param targets: As many as there were parts, of their lengths and of one byte an item; but a piece
        of an earlier form, compressed as one, is written to them one after the other.
    :raises ValueError: if it does not make what the targets hold.
    """
    size = sum(target.nbytes for target in targets)
    if stored[:4] != _MAGIC:
        _spread_over(expand(stored, size), targets)
        return
    try:
        _, count = _TOP.unpack_from(stored)
        if count != len(targets):
            raise ValueError(f"it has {count} parts in place of {len(targets)}")
        at = _TOP.size + count * _PART.size
        for number, target in enumerate(targets):
            row = _PART.unpack_from(stored, _TOP.size + number * _PART.size)
            at += -at % _ALIGNED
            if at + row[6] > stored.nbytes:
                raise ValueError("it ends too early")
            _decode_part(row, stored[at : at + row[6]], target)
            at += row[6]
    except struct.error as exc:
        raise ValueError(str(exc)) from exc


def _decode_part(row: tuple[Any, ...], data: memoryview, target: memoryview) -> None:
    import numpy as np

    kind, code, width, exponent, compressed, length, _, base, first = row
    if length > max(target.nbytes, 1):
        raise ValueError("a part is longer than what it stands for")
    content = expand(data, length) if compressed else data
    if len(content) != length:
        raise ValueError("a part has another length than it says")
    if kind == _AS_IT_IS:
        _spread_over(content, [target])
        return
    size = _INTEGERS.get(code) or _FLOATS.get(code)
    if size is None or width not in _WIDTHS or width >= size or target.nbytes % size:
        raise ValueError("its numbers have no form that is known")
    count = target.nbytes // size
    if length != width * (max(0, count - 1) if kind == _DELTAS else count):
        raise ValueError("it has more or fewer numbers than it should")
    numbers = np.frombuffer(content, f"<u{width}") if width else np.zeros((), np.uint8)
    modulus = 1 << 8 * size
    if kind == _DISTANCES and code in _INTEGERS:
        into = np.frombuffer(target, f"<u{size}")
        np.add(numbers, into.dtype.type(base % modulus), out=into, casting="unsafe")
    elif kind == _DELTAS and code in _INTEGERS:
        into = np.frombuffer(target, f"<u{size}")
        into[:1] = first % modulus
        np.add(numbers, into.dtype.type(base % modulus), out=into[1:], casting="unsafe")
        np.add.accumulate(into, out=into)
    elif kind in (_DECIMALS, _DECIMALS_OR_NAN) and code in _FLOATS and exponent <= _MAX_EXPONENT:
        floats = numbers.astype(np.float64)
        _from_decimals(floats, _signed(base), exponent)
        if kind == _DECIMALS_OR_NAN:
            floats[numbers == first] = np.nan
        np.frombuffer(target, f"<f{size}")[:] = floats
    else:
        raise ValueError("its numbers have no form that is known")


def _spread_over(content: memoryview | bytes, targets: Sequence[memoryview]) -> None:
    if len(content) != sum(target.nbytes for target in targets):
        raise ValueError("it has another length than it should")
    at = 0
    for target in targets:
        target[:] = content[at : at + target.nbytes]
        at += target.nbytes


# -- numbers


class _Room(threading.local):
    """Memory for what is counted out, one for each thread: to ask for new one takes as long as to count."""

    def __init__(self) -> None:
        self._memory: Any = None

    def of(self, count: int, dtype: str) -> Any:
        import numpy as np

        if self._memory is None or self._memory.nbytes < 8 * count:
            self._memory = np.empty(max(count, 1 << 14), np.uint64)
        return self._memory.view(dtype)[:count]


_room = _Room()


def _code(part: memoryview) -> bytes:
    native: str = part.format
    return ({"l": "q", "L": "Q"}.get(native, native) if part.itemsize == 8 else native).encode()


def _short(part: memoryview) -> _Short | None:
    code = _code(part)
    if not part.nbytes:
        return None
    if code in _INTEGERS and part.itemsize > 1:
        return _integers(part, code)
    if code in _FLOATS:
        return _floats(part, code)
    return None


def _integers(part: memoryview, code: bytes) -> _Short | None:
    import numpy as np

    size = _INTEGERS[code]
    signed, unsigned = f"<i{size}", f"<u{size}"
    values = np.frombuffer(part, signed if code.islower() else unsigned)
    lowest = int(values.min())
    width = _width(int(values.max()) - lowest)
    as_bits = values.view(unsigned)
    if width > 1:
        room = _room.of(len(values) - 1, unsigned)
        some = min(_SAMPLE_ITEMS, len(room))
        np.subtract(as_bits[1 : some + 1], as_bits[:some], out=room[:some])
        if _range_of(room[:some].view(signed))[1] < width:
            np.subtract(as_bits[1:], as_bits[:-1], out=room)
            smallest, narrower = _range_of(room.view(signed))
            if narrower < width:
                first = _unsigned(int(values[0]))
                steps = _narrowed(room, smallest, narrower)
                return _Short(_DELTAS, narrower, 0, _unsigned(smallest), first, steps)
    if width >= size:
        return None
    return _Short(_DISTANCES, width, 0, _unsigned(lowest), 0, _narrowed(as_bits, lowest, width))


def _range_of(values: Any) -> tuple[int, int]:
    """Return the smallest number, and the bytes that the distance to the largest one takes."""
    smallest = int(values.min())
    return smallest, _width(int(values.max()) - smallest)


def _narrowed(as_bits: Any, lowest: int, width: int) -> Any:
    import numpy as np

    if not width:
        return np.zeros(0, np.uint8)
    room = _room.of(len(as_bits), as_bits.dtype.str)  # as_bits may lie there
    np.subtract(as_bits, as_bits.dtype.type(lowest % (1 << 8 * as_bits.itemsize)), out=room)
    return room.astype(f"<u{width}")


def _floats(part: memoryview, code: bytes) -> _Short | None:
    import numpy as np

    size = _FLOATS[code]
    values = np.frombuffer(part, f"<f{size}")
    exponent = _exponent(values, size)
    if exponent is None:
        return None
    whole = _room.of(len(values), "<f8")
    with np.errstate(over="ignore", invalid="ignore"):
        np.multiply(values, 10.0**exponent, out=whole, dtype=np.float64)
        np.rint(whole, out=whole)
        lowest, highest = float(whole.min()), float(whole.max())
        missing = None
        if math.isnan(lowest):
            missing = np.isnan(whole)
            lowest, highest = float(np.fmin.reduce(whole)), float(np.fmax.reduce(whole))
    if not (lowest > -_EXACT and highest < _EXACT):  # nor where all are NaN
        return None
    base, span = int(lowest), int(highest) - int(lowest)
    width = _width(span + (missing is not None))
    if width >= size:
        return None
    whole -= base
    if missing is not None:
        whole[missing] = span + 1
    # From floats to integers with a sign is several times faster, and has the same bits.
    kept = whole.astype(
        f"<u{width or 1}" if width < 4 else f"<i{2 * width}" if (span + 1) >> 31 else f"<i{width}"
    )
    numbers = kept.astype(f"<u{width}") if kept.itemsize > width > 0 else kept.view(f"<u{width or 1}")
    _from_decimals(whole, base, exponent)
    if missing is not None:
        whole[missing] = np.nan
    again = whole if size == 8 else whole.astype(values.dtype)
    # By their bits: not every NaN is alike, and there is a zero below zero.
    if not (again.view(f"<u{size}") == values.view(f"<u{size}")).all():
        return None
    return _Short(
        _DECIMALS if missing is None else _DECIMALS_OR_NAN,
        width,
        exponent,
        _unsigned(base),
        0 if missing is None else span + 1,
        numbers if width else numbers[:0],
    )


def _exponent(values: Any, size: int) -> int | None:
    """Return the power of ten that makes some of the numbers whole; None if none does."""
    import numpy as np

    found = 0
    narrow = np.float32 if size == 4 else float
    for place in (0, len(values) // 3, len(values) // 2, len(values) - 1):
        number = float(values[place])
        if math.isnan(number):
            continue
        if not -_EXACT < number < _EXACT:
            return None
        while narrow(round(number * 10.0**found) / 10.0**found) != number:
            found += 1
            if found > _MAX_EXPONENT:
                return None
    return found


def _from_decimals(floats: Any, base: int, exponent: int) -> None:
    """
    Turn distances from ``base`` into what they stand for, where they lie: one way to check and to read.

    Whole numbers in floats are exact below 2**53, and one division rounds once everywhere (IEEE 754).
    """
    floats += float(base)
    if exponent:
        floats /= 10.0**exponent


def _width(span: int) -> int:
    """Bytes that hold the numbers from 0 to ``span``; as powers of two."""
    needed = (span.bit_length() + 7) // 8
    return needed if needed <= 2 else 4 if needed <= 4 else 8


def _unsigned(number: int) -> int:
    return number % (1 << 64)


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


# -- compressors


def _shrinks(data: memoryview, compressor: Compressor) -> bool:
    """Try some bytes in the middle: noise would take ten times as long to store, and to read."""
    size = data.nbytes
    if size < 2 * _SAMPLE_BYTES:
        return size > _TOO_SHORT
    middle = (size - _SAMPLE_BYTES) // 2 // 8 * 8
    sample = data[middle : middle + _SAMPLE_BYTES]
    return len(compressor.compress(sample)) < compressor.worth * _SAMPLE_BYTES


_local = threading.local()


def lz4(data: Any) -> bytes:
    import pyarrow as pa

    made: bytes = pa.Codec("lz4").compress(data, asbytes=True)
    return made


def _lz4_expanded(data: memoryview, length: int | None) -> memoryview:
    import pyarrow as pa

    # The default pool keeps what it was given, for many times the length of one piece.
    pool = pa.system_memory_pool()
    made = pa.Codec("lz4").decompress(data, decompressed_size=length, memory_pool=pool)
    return memoryview(made).cast("B")


def zstd(data: Any) -> bytes:
    import zstandard

    if not hasattr(_local, "compressor"):
        _local.compressor = zstandard.ZstdCompressor(level=_LEVEL)
    made: bytes = _local.compressor.compress(data)
    return made


# A disk takes bytes faster than lz4 makes them fewer: only where they become much fewer is it used.
LZ4 = Compressor(lz4, 0.6)
ZSTD = Compressor(zstd, 0.85)


def expand(data: memoryview, length: int | None) -> memoryview | bytes:
    """
    Decompress what :func:`zstd` or :func:`lz4` made.

    :param length: What must come of it; nothing is allocated for more.
    :raises ValueError: if something else would.
    """
    if data[:4] == _LZ4_MAGIC:
        import pyarrow as pa

        try:
            return _lz4_expanded(data, length)
        except (pa.ArrowException, OSError) as exc:
            raise ValueError(f"it does not hold the {length} bytes that it should: {exc}") from exc
    import zstandard

    if not hasattr(_local, "decompressor"):
        _local.decompressor = zstandard.ZstdDecompressor()
    with contextlib.suppress(zstandard.ZstdError):
        size = zstandard.frame_content_size(data)
        if length is None and 0 <= size <= len(data) * 2000 + 4096:
            length = size
        if size == length:
            made: bytes = _local.decompressor.decompress(data)
            if len(made) == length:
                return made
    raise ValueError(f"it does not hold the {length} bytes that it should")
