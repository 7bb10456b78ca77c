# SPDX-License-Identifier: Apache-2.0
"""
``pickle-v1``: any value by cloudpickle, for deployments that allow it.

Pickle protocol 5 with the large buffers of arrays beside the stream, each at a multiple of 64 bytes, so that
they are neither copied when they are written nor when they are read::

    number of buffers (8 bytes, little endian), their lengths (8 bytes each), length of the stream (8 bytes),
    stream, buffers, each of these followed by zeros up to the next multiple of 64
"""

from __future__ import annotations

import io
import pickle
import struct
from typing import Any

import cloudpickle  # type: ignore[import-untyped,unused-ignore]

from airflow_ml_provider.artifacts import classes
from airflow_ml_provider.artifacts.codecs.registry import Encoded, Stored, public_type_name, type_name
from airflow_ml_provider.exceptions import (
    ArtifactCorruptError,
    ClassChangedError,
    UnsupportedTypeError,
    UntrustedTypeError,
)

_ALIGNMENT = 64
# Smaller buffers stay in the stream: a part of its own costs more than the copy.
_BESIDE_FROM_BYTES = 4096
_PADDING = memoryview(bytes(_ALIGNMENT))


def dump(value: Any) -> Encoded:
    buffers: list[memoryview] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        """Tell pickle to leave a buffer in the stream."""
        raw = buffer.raw()
        if raw.nbytes < _BESIDE_FROM_BYTES:
            return True
        buffers.append(raw)
        return False

    try:
        stream = memoryview(cloudpickle.dumps(value, protocol=5, buffer_callback=keep))
    except Exception as exc:
        raise UnsupportedTypeError(
            f"a value of {type_name(type(value))} cannot be pickled: {exc}; return what it is made of, or "
            "save it to a file and return its Path"
        ) from exc
    lengths = [raw.nbytes for raw in buffers]
    head = struct.pack(f"<Q{len(lengths)}QQ", len(lengths), *lengths, stream.nbytes)
    parts = []
    for part in (memoryview(head), stream, *buffers):
        parts.append(part)
        if rest := -part.nbytes % _ALIGNMENT:
            parts.append(_PADDING[:rest])
    return Encoded(parts, schema={"class": type_name(type(value))}, type=public_type_name(type(value)))


def load(data: memoryview, info: Stored) -> Any:
    stream, buffers = _taken_apart(data, info.name)
    try:
        return _Unpickler(io.BytesIO(stream), buffers=buffers).load()
    except UntrustedTypeError:
        raise
    except (ImportError, AttributeError) as exc:
        raise ClassChangedError(
            f"{info.name!r} was pickled from a {info.type}, and what it is made of is not found here: {exc}; "
            "install or restore that, or re-run the task that wrote it"
        ) from exc
    except Exception as exc:
        exc.add_note(f"while unpickling {info.name!r}, a {info.type}")
        raise


def _taken_apart(data: memoryview, name: str) -> tuple[memoryview, list[memoryview]]:
    wrong = ArtifactCorruptError(f"{name!r} is not laid out as pickle-v1")
    if data.nbytes < 16:
        raise wrong
    (count,) = struct.unpack_from("<Q", data)
    if count > data.nbytes // 8:
        raise wrong
    *lengths, length = struct.unpack_from(f"<{count + 1}Q", data, 8) if 16 + 8 * count <= data.nbytes else [0]
    if len(lengths) != count:
        raise wrong
    if count and data.readonly:
        data = memoryview(bytearray(data))  # arrays come back writable
    parts = []
    offset = _padded(16 + 8 * count)
    for size in (length, *lengths):
        parts.append(data[offset : offset + size])
        offset += _padded(size)
    if offset != data.nbytes:
        raise wrong
    return parts[0], parts[1:]


def _padded(size: int) -> int:
    return size + -size % _ALIGNMENT


class _Unpickler(pickle.Unpickler):
    """Finds the classes of a DAG file under whatever name this process gave its module."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(module, name)
        except ModuleNotFoundError:
            try:
                return classes.find(f"{module}:{name}", ())
            except UntrustedTypeError:
                pass
            raise
