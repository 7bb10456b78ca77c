# SPDX-License-Identifier: Apache-2.0
"""
How much memory an Arrow IPC file takes once its buffers are decompressed, without decompressing any.

Each compressed buffer begins with the length that Arrow allocates for it, and fails on any other. Where the
buffers are is said by flatbuffers (format/File.fbs and Message.fbs of Arrow), of which the few fields that
matter are read here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from airflow_ml_provider.artifacts.unpacking import check_unpacked
from airflow_ml_provider.exceptions import ArtifactCorruptError

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.codecs.registry import Stored

_MAGIC = b"ARROW1"
_BLOCK_BYTES = 24  # offset, length of the metadata, length of the body
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3


def check_file(data: memoryview, info: Stored) -> None:
    """
    Return if an Arrow IPC file may be read.

    :raises ArtifactCorruptError: if it is none, or takes more memory than was signed when it was written.
    """
    try:
        claimed = unpacked_bytes(data)
    except (struct.error, ValueError, IndexError) as exc:
        raise ArtifactCorruptError(f"{info.name!r} is not a whole Arrow file: {exc}") from exc
    check_unpacked(claimed, info)


def unpacked_bytes(data: memoryview) -> int:
    """
    Sum the lengths of all buffers, decompressed, and of all columns, in values.

    :raises ValueError: if this is no Arrow IPC file.
    """
    if bytes(data[:6]) != _MAGIC or bytes(data[-6:]) != _MAGIC:
        raise ValueError("it does not begin and end as one")
    (length,) = struct.unpack_from("<i", data, len(data) - 10)
    footer = _root(data, len(data) - 10 - length)
    total = 0
    for field in (2, 3):  # dictionaries, record batches
        for block in _vector(data, footer, field, _BLOCK_BYTES):
            offset, metadata_length = struct.unpack_from("<qi", data, block)
            if not 0 <= offset <= len(data) - 8 or metadata_length < 8:
                raise ValueError(f"a block at {offset}")
            total += _message(data, offset, offset + metadata_length)
    return total


def _message(data: memoryview, offset: int, body: int) -> int:
    message = _root(data, offset + 8)  # behind the mark and the length
    kind = _field(data, message, 1)
    header = _follow(data, _field(data, message, 2))
    if kind is None or header is None or data[kind] not in (_DICTIONARY_BATCH, _RECORD_BATCH):
        raise ValueError("a message without a batch")
    if data[kind] == _DICTIONARY_BATCH:
        header = _follow(data, _field(data, header, 1))
        if header is None:
            raise ValueError("a dictionary without values")
    compressed = _field(data, header, 3) is not None
    total = 0
    for node in _vector(data, header, 1, 16):
        (values,) = struct.unpack_from("<q", data, node)
        if values < 0:
            raise ValueError(f"a column of {values} values")
        total += values
    for buffer in _vector(data, header, 2, 16):
        start, length = struct.unpack_from("<qq", data, buffer)
        if start < 0 or length < 0 or body + start + length > len(data):
            raise ValueError(f"a buffer of {length} bytes at {body + start}")
        if compressed and length >= 8:
            (unpacked,) = struct.unpack_from("<q", data, body + start)
            if unpacked < -1:
                raise ValueError(f"a buffer of {unpacked} bytes")
            length = length - 8 if unpacked == -1 else unpacked  # -1: not compressed after all
        total += length
    return total


def _root(data: memoryview, start: int) -> int:
    if not 0 <= start <= len(data) - 4:
        raise ValueError(f"a table at {start}")
    return start + int(struct.unpack_from("<I", data, start)[0])


def _field(data: memoryview, table: int, number: int) -> int | None:
    """Return where a field of a flatbuffers table is; None if it has its default."""
    (back,) = struct.unpack_from("<i", data, table)
    fields = table - int(back)
    if not 0 <= fields <= len(data) - 4:
        raise ValueError(f"a list of fields at {fields}")
    (length,) = struct.unpack_from("<H", data, fields)
    if 4 + 2 * number + 2 > length:
        return None
    (offset,) = struct.unpack_from("<H", data, fields + 4 + 2 * number)
    return table + int(offset) if offset else None


def _follow(data: memoryview, field: int | None) -> int | None:
    return None if field is None else field + int(struct.unpack_from("<I", data, field)[0])


def _vector(data: memoryview, table: int, number: int, size: int) -> Iterator[int]:
    """Yield where the structs of a vector are."""
    start = _follow(data, _field(data, table, number))
    if start is None:
        return
    (count,) = struct.unpack_from("<I", data, start)
    if start + 4 + count * size > len(data):
        raise ValueError(f"a list of {count} parts")
    yield from range(start + 4, start + 4 + count * size, size)
