# SPDX-License-Identifier: Apache-2.0
"""``bytes-v1``: bytes as they are; what a memoryview makes of them stands in the signed schema."""

from __future__ import annotations

from typing import Any

from airflow_ml_provider.artifacts.codecs.registry import Encoded, Stored
from airflow_ml_provider.exceptions import UnsupportedTypeError


def dump(value: bytes | bytearray | memoryview) -> Encoded:
    if isinstance(value, memoryview):
        return _dump_view(value)
    return Encoded(
        parts=[memoryview(value)],
        schema={"length": len(value)},
        preview=_preview(value),
        type=type(value).__name__,
    )


def _dump_view(value: memoryview) -> Encoded:
    flat = value.cast("B") if value.c_contiguous and value.nbytes else memoryview(value.tobytes())
    schema = {
        "length": value.nbytes,
        "format": value.format,
        "shape": list(value.shape or ()),
        "readonly": value.readonly,
    }
    try:
        back = _view(flat, schema)
        kept = (back.format, back.shape) == (value.format, value.shape)
    except (TypeError, ValueError):
        kept = False
    if not kept:
        raise UnsupportedTypeError(
            f"a memoryview of format {value.format!r} and shape {value.shape} cannot be made from bytes; "
            "return bytes(view), or numpy.asarray(view)"
        )
    return Encoded(parts=[flat], schema=schema, preview=_preview(flat), type="memoryview")


def _preview(value: bytes | bytearray | memoryview) -> str:
    return f"{bytes(value[:40]).hex(' ', 4)}{' ...' if len(value) > 40 else ''}"


def load(data: memoryview, info: Stored) -> bytes | bytearray | memoryview:
    if info.type == "bytearray":
        return bytearray(data)
    if info.type == "memoryview":
        schema = info.schema or {}
        return _view(memoryview(bytes(data) if schema["readonly"] else bytearray(data)), schema)
    return bytes(data)


def _view(flat: memoryview, schema: dict[str, Any]) -> memoryview:
    shape = schema["shape"]
    if len(shape) == 1:
        return flat.cast(schema["format"])
    return flat.cast(schema["format"], shape)
