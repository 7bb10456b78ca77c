# SPDX-License-Identifier: Apache-2.0
"""``bytes-v1``: bytes as they are."""

from __future__ import annotations

from airflow_ml_provider.artifacts.codecs.registry import Encoded, Stored


def dump(value: bytes | bytearray) -> Encoded:
    return Encoded(
        parts=[memoryview(value)],
        schema={"length": len(value)},
        preview=f"{bytes(value[:40]).hex(' ', 4)}{' ...' if len(value) > 40 else ''}",
        type=type(value).__name__,
    )


def load(data: memoryview, info: Stored) -> bytes | bytearray:
    return bytearray(data) if info.type == "bytearray" else bytes(data)
