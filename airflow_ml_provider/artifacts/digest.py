# SPDX-License-Identifier: Apache-2.0
"""The hash that names content."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

# Below this, starting threads costs more than they save.
_THREADS_FROM_BYTES = 1 << 20


def _hasher(size_bytes: int) -> Any:
    from blake3 import blake3

    return blake3(max_threads=blake3.AUTO if size_bytes >= _THREADS_FROM_BYTES else 1)


def digest_of(parts: Iterable[memoryview]) -> str:
    """Hash parts as if they were one: ``blake3:<64 hex>``."""
    parts = list(parts)
    hasher = _hasher(max((part.nbytes for part in parts), default=0))
    for part in parts:
        hasher.update(part)
    return f"blake3:{hasher.hexdigest()}"


def digest_of_file(path: Path) -> str:
    """Hash a file without reading it into memory."""
    hasher = _hasher(path.stat().st_size)
    hasher.update_mmap(path)
    return f"blake3:{hasher.hexdigest()}"
