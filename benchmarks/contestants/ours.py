# SPDX-License-Identifier: Apache-2.0
"""The artifact store as the XCom backend uses it: hashed, flushed to the disk, verified when read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from airflow_ml_provider.artifacts.store import ArtifactStore


class Contestant:
    """
    :param options: ``root`` and ``s3``, what reaches a bucket, else a folder; ``allow_pickle``; ``format``;
        ``fsync``, False to leave it to the system when bytes reach the disk, as all others do.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._stores: dict[str, ArtifactStore] = {}

    def begin(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)

    def _store(self, folder: Path) -> ArtifactStore:
        root = self._options.get("root")
        # A root for each save: content that is there already is not written again.
        where = f"{root}/{folder.name}" if root else f"file://{folder}"
        if where not in self._stores:
            self._stores[where] = ArtifactStore(
                where,
                signing_key=b"benchmark" * 4,
                options=self._options.get("s3"),
                allow_pickle=self._options.get("allow_pickle", False),
            )
        return self._stores[where]

    def save(self, value: Any, folder: Path) -> Any:
        flush = os.fsync
        if not self._options.get("fsync", True):
            os.fsync = lambda _: None
        try:
            envelope = self._store(folder).encode(value, name="value", format=self._options.get("format"))
        finally:
            os.fsync = flush
        return [str(folder), envelope]

    def load(self, token: Any) -> Any:
        return self._store(Path(token[0])).decode(token[1])

    def stored(self, token: Any) -> int:
        objects = self._store(Path(token[0])).objects
        return sum(entry.size_bytes for entry in objects.list(""))
