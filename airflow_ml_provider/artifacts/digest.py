# SPDX-License-Identifier: Apache-2.0
"""The hash that names content."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

# Below this, starting threads costs more than they save.
_THREADS_FROM_BYTES = 1 << 20
# The process whose threads these are.
_threads_pid: int | None = None


def _hasher(size_bytes: int) -> Any:
    global _threads_pid  # noqa: PLW0603
    from blake3 import blake3

    threads = 1
    if size_bytes >= _THREADS_FROM_BYTES:
        # The threads do not survive a fork, and a child would wait for them for ever.
        _threads_pid = _threads_pid or os.getpid()
        threads = blake3.AUTO if _threads_pid == os.getpid() else 1
    return blake3(max_threads=threads)


def digest_of(parts: Iterable[memoryview]) -> str:
    """Hash parts as if they were one: ``blake3:<64 hex>``."""
    parts = list(parts)
    hasher = _hasher(max((part.nbytes for part in parts), default=0))
    for part in parts:
        hasher.update(part)
    return f"blake3:{hasher.hexdigest()}"


class Following:
    """The hash of bytes that come one after the other, in a thread of its own while more of them come."""

    def __init__(self) -> None:
        self._hasher = _hasher(_THREADS_FROM_BYTES)
        self._thread: ThreadPoolExecutor | None = None
        self._last: Future[Any] | None = None

    def __enter__(self) -> Following:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._thread is not None:
            self._thread.shutdown()

    def add(self, part: memoryview) -> None:
        """Go on with these bytes, which stay as they are."""
        if part.nbytes < _THREADS_FROM_BYTES and self._thread is None:
            self._hasher.update(part)
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1)
        self._last = self._thread.submit(self._hasher.update, part)

    def digest(self) -> str:
        """Wait for the end, and return what :func:`digest_of` would."""
        if self._last is not None:
            self._last.result()
        return f"blake3:{self._hasher.hexdigest()}"


def digest_of_file(path: Path) -> str:
    """Hash a file without reading it into memory."""
    hasher = _hasher(path.stat().st_size)
    hasher.update_mmap(path)
    return f"blake3:{hasher.hexdigest()}"
