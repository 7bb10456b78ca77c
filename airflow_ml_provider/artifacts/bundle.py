# SPDX-License-Identifier: Apache-2.0
"""
A value of many parts as one piece of bytes, so that storing it takes as many requests as one of one part.

The parts are stored as always, in memory, by a copy of the store; what that wrote is laid out by
:mod:`.codecs.packed`. All envelopes inside are signed as they are outside.
"""

from __future__ import annotations

import copy
import json
import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_ml_provider.artifacts import keys, limits
from airflow_ml_provider.artifacts.codecs import packed, registry
from airflow_ml_provider.artifacts.objects import as_bytes, in_memory
from airflow_ml_provider.artifacts.refs import ArtifactRef
from airflow_ml_provider.exceptions import ArtifactCorruptError, ArtifactNotFoundError

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.objects import Content, ObjectInfo, ObjectStore, OnRead, Source
    from airflow_ml_provider.artifacts.store import ArtifactStore

KIND = "ml-bundle/v1"


def is_one_part(value: Any) -> bool:
    """Tell whether a store keeps a value as one version without parts of their own."""
    if isinstance(value, ArtifactRef) or (
        isinstance(value, dict) and registry.codec_of_dict(value) is not None
    ):
        return True
    return registry.codec_for(value) is not None or limits.grade(value) != limits.NOWHERE


def pack(store: ArtifactStore, value: Any, name: str) -> bytes:
    """
    Return a value and all its parts as bytes.

    :raises UnsupportedTypeError: if a part of it has no codec.
    """
    inner = _Memory(store.objects.root)
    ref = _on(store, inner).save(value, name, preview=False)
    found = list(inner.held.items())
    about = {
        "kind": KIND,
        "name": name,
        "value": keys.version_key(ref.name, ref.version_id),
        "keys": [key for key, _ in found],
    }
    return b"".join(packed.pack(about, [parts for _, parts in found]))


def unpack(store: ArtifactStore, data: bytes, name: str) -> Any:
    """
    Return the value that :func:`pack` was given.

    :raises ArtifactCorruptError: if the bytes are anything else.
    :raises SignatureError: if a part was not written by this deployment.
    """
    about, parts = packed.unpack(memoryview(data), name)
    if not isinstance(about, dict) or about.get("kind") != KIND or len(about.get("keys", ())) != len(parts):
        raise ArtifactCorruptError(f"{name} is no value of many parts; was it written by another release?")
    if about.get("name") != name:
        raise ArtifactCorruptError(f"{name} holds the value of {about.get('name')!r}")
    inner = _Memory(store.objects.root, behind=store.objects)
    inner.held = {key: [part] for key, part in zip(about["keys"], parts, strict=True)}
    reader = _on(store, inner)
    return reader.load(reader._manifest(about["value"]))


def _on(store: ArtifactStore, objects: _Memory) -> ArtifactStore:
    other = copy.copy(store)
    other.objects = objects  # type: ignore[assignment]
    return other


class _Memory:
    """
    What a store asks of its objects, for the time of one call.

    :param behind: Where what references in the value refer to is read.
    """

    is_local = False

    def __init__(self, root: str, behind: ObjectStore | None = None) -> None:
        self.root = root
        self.held: dict[str, list[memoryview]] = {}
        self._behind = behind

    def put(
        self,
        key: str,
        data: bytes | bytearray | memoryview | Path | list[memoryview],
        *,
        create_only: bool = True,
    ) -> bool:
        if create_only and key in self.held:
            return False
        if isinstance(data, Path):
            self.held[key] = [_mapped(data)]
        elif isinstance(data, (bytes, bytearray, memoryview)):
            self.held[key] = [as_bytes(memoryview(data))]
        else:
            self.held[key] = [as_bytes(part) for part in data]
        return True

    def get(self, key: str, *, at_most: int | None = None, on_read: OnRead | None = None) -> Content:
        parts = self.held.get(key)
        if parts is None:
            if self._behind is not None:
                return self._behind.get(key, at_most=at_most, on_read=on_read)
            raise ArtifactNotFoundError(f"{key} is not among the parts")
        content = parts[0] if len(parts) == 1 else memoryview(b"".join(parts))
        if on_read is not None:
            on_read(content)
        return content

    def source(self, key: str, *, at_most: int | None = None, end: int | None = None) -> Source:
        if key not in self.held and self._behind is not None:
            return self._behind.source(key, at_most=at_most, end=end)
        return in_memory(self.get(key))

    def fetch(self, key: str, target: Path, *, at_most: int | None = None) -> int:
        data = memoryview(self.get(key, at_most=at_most))
        with target.open("xb") as file:
            file.write(data)
        return data.nbytes

    def size(self, key: str) -> int | None:
        parts = self.held.get(key)
        return None if parts is None else sum(part.nbytes for part in parts)

    def exists(self, key: str) -> bool:
        return key in self.held

    def delete(self, found: Iterable[str]) -> None:
        for key in found:
            self.held.pop(key, None)

    def list(
        self, prefix: str, *, after: str | None = None, limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        return iter(())  # nothing is ever in the trash here

    def get_json(self, key: str) -> Any:
        return json.loads(bytes(self.get(key)))

    def put_json(self, key: str, doc: Any, create_only: bool = True) -> bool:
        text = json.dumps(doc, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        return self.put(key, text.encode("ascii"), create_only=create_only)


def _mapped(path: Path) -> memoryview:
    """Map a file, which may be removed right after; the mapping outlives it."""
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
