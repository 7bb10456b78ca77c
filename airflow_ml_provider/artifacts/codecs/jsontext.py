# SPDX-License-Identifier: Apache-2.0
"""
``json-v1``: what Python's own ``json`` carries exactly, in ASCII; ``tree-v1``: the same, holding encoded
parts.

NaN, infinities and integers of any length are written the way Python reads them back.
"""

from __future__ import annotations

import json
from typing import Any

from airflow_ml_provider.artifacts import preview
from airflow_ml_provider.artifacts.codecs.registry import Encoded, Stored
from airflow_ml_provider.artifacts.limits import any_length_of_int
from airflow_ml_provider.exceptions import ArtifactCorruptError


def dump(value: Any) -> Encoded:
    with any_length_of_int():
        text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    schema = {"length": len(value)} if isinstance(value, (str, list, dict)) else None
    return Encoded(
        parts=[memoryview(text.encode("ascii"))],
        schema=schema,
        preview=preview.of_json(value),
        type=type(value).__name__,
    )


def load(data: memoryview, info: Stored) -> Any:
    try:
        with any_length_of_int():
            return json.loads(bytes(data))
    except (ValueError, RecursionError) as exc:
        raise ArtifactCorruptError(f"{info.name!r} is not JSON as this store writes it: {exc}") from exc
