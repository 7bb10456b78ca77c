# SPDX-License-Identifier: Apache-2.0
"""
Cache entries: what a task returned, under the key of what it depended on.

``cache/<key>.json`` holds the JSON that stands for the result in the XCom table, and so names the versions
that garbage collection keeps. ``cache/last/<dag>/<task>/<map index>.json`` holds the parts of the last key
that a task computed under, so that a miss can say what changed. Both are signed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.envelope import ARTIFACT, from_envelope, is_node
from airflow_ml_provider.artifacts.objects import at_once
from airflow_ml_provider.artifacts.refs import ArtifactRef, Producer
from airflow_ml_provider.caching.key import CacheKey, changes
from airflow_ml_provider.exceptions import ArtifactCorruptError, ArtifactNotFoundError, SignatureError

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.store import ArtifactStore

ENTRY = "ml-cache-entry/v1"
LAST = "ml-cache-last/v1"
# So many entries are read at once.
_BATCH = 256
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """
    A stored result.

    :param tree: JSON of the XCom table.
    :param type: ``list`` (or tuple) or ``dict``, which another task may be mapped over; None for others.
    :param length: Of a list or dict.
    :param blobs: Digests of the contents that the result is read from.
    """

    key: str
    producer: Producer
    recorded_at: datetime
    tree: Any
    type: str | None = None
    length: int | None = None
    blobs: tuple[str, ...] = ()
    seconds: float | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    shown: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """
    Whether to compute, and why.

    :param entry: What to reuse; None to compute.
    :param why: One sentence for people.
    :param replaces: There is an entry under the key, which is of no use.
    """

    entry: Entry | None
    why: str
    replaces: bool = False


class Cache:
    """The cache entries in an artifact store."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store

    def decide(
        self, key: CacheKey, task: Producer, *, ttl: timedelta | None = None, now: datetime | None = None
    ) -> Decision:
        """
        Look a result up: one request, and one for each content of a hit, or one more on a miss.

        :param task: Who asks; a miss is explained by what this task computed last.
        :param ttl: Older results are of no use.
        """
        location = keys.cache_key(key.text)
        try:
            entry = self._read(key.text)
        except ArtifactNotFoundError:
            return Decision(None, self._what_changed(key, task))
        except (SignatureError, ArtifactCorruptError) as exc:
            log.warning("%s is not used: %s", location, exc)
            return Decision(None, f"the entry {location} is not ours or damaged: {exc}", replaces=True)
        age = (now or datetime.now(UTC)) - entry.recorded_at
        if ttl is not None and age > ttl:
            return Decision(
                None, f"the result of {entry.producer} is {_about(age)} old, and ttl is {ttl}", replaces=True
            )
        gone = self._missing(entry.blobs)
        if gone:
            return Decision(
                None,
                f"the result of {entry.producer} is no longer whole: {len(gone)} of {len(entry.blobs)} "
                f"contents are gone, {gone[0]} first",
                replaces=True,
            )
        return Decision(entry, f"same code, arguments and environment as {entry.producer}")

    def remember(
        self,
        key: CacheKey,
        task: Producer,
        tree: Any,
        *,
        kind: str | None = None,
        length: int | None = None,
        written: Sequence[ArtifactRef] = (),
        seconds: float | None = None,
        replace: bool = False,
    ) -> bool:
        """
        Store a result; two requests.

        :param kind: ``list`` or ``dict``, if the result is one.
        :param written: Versions that the result is made of, besides those that ``tree`` shows.
        :param replace: Take the place of an entry; otherwise the first one stays.
        :returns: False if another task was faster, whose result stays under the key.
        """
        now = datetime.now(UTC).isoformat()
        refs = [*refs_of(tree, self._store), *written]
        blobs = sorted({blob for ref in refs for blob in ref.blobs})
        about = {
            "key": key.text,
            "producer": asdict(task),
            "recorded_at": now,
            "parts": dict(key.parts),
            "shown": dict(key.shown),
        }
        result = {"tree": tree, "type": kind, "length": length, "blobs": blobs, "seconds": seconds}
        objects, signer = self._store.objects, self._store.signer
        first = objects.put_json(
            keys.cache_key(key.text),
            signer.signed({"kind": ENTRY, **about, **result}),
            create_only=not replace,
        )
        last = keys.last_cache_key(task.dag_id, task.task_id, task.map_index)
        objects.put_json(last, signer.signed({"kind": LAST, **about}), create_only=False)
        return first

    def last(self, dag_id: str, task_id: str, map_index: int = -1) -> dict[str, Any] | None:
        """Return what a task computed last: key, parts and producer; None if it is not known."""
        try:
            doc: dict[str, Any] = self._store.objects.get_json(
                keys.last_cache_key(dag_id, task_id, map_index)
            )
            self._store.signer.verify(doc)
        except (ArtifactNotFoundError, ArtifactCorruptError, SignatureError):
            return None
        return doc

    def keys(self) -> list[str]:
        """The keys of all entries: lists the whole cache."""
        names = (info.key.removeprefix("cache/") for info in self._store.objects.list("cache"))
        return [name.removesuffix(".json") for name in names if "/" not in name]

    def get(self, key: str) -> Entry | None:
        """Return an entry; None if there is none that can be read."""
        try:
            return self._read(key)
        except ArtifactNotFoundError:
            return None
        except (ArtifactCorruptError, SignatureError) as exc:
            log.warning("%s cannot be read: %s", keys.cache_key(key), exc)
            return None

    def entries(self) -> Iterator[Entry]:
        """Yield every entry that can be read; lists the whole cache."""
        found = self.keys()
        for start in range(0, len(found), _BATCH):
            for entry in at_once(self.get, found[start : start + _BATCH]):
                if entry is not None:
                    yield entry

    def missing(self, entry: Entry) -> list[str]:
        """Digests of the contents of a result that are gone. One small request each."""
        return self._missing(entry.blobs)

    def names_in(self, entry: Entry) -> list[str]:
        """Names of the artifacts that a result shows."""
        return sorted({ref.name for ref in refs_of(entry.tree, self._store)})

    def forget(self, found: Sequence[Entry]) -> None:
        """Delete entries; their tasks compute again, and garbage collection may take their versions."""
        self._store.objects.delete([keys.cache_key(entry.key) for entry in found])

    def _read(self, key: str) -> Entry:
        doc = self._store.objects.get_json(keys.cache_key(key))
        if not isinstance(doc, dict) or doc.get("kind") != ENTRY or doc.get("key") != key:
            raise ArtifactCorruptError(f"{keys.cache_key(key)} is no cache entry of that key")
        self._store.signer.verify(doc)
        return Entry(
            key=key,
            producer=Producer(**doc["producer"]),
            recorded_at=datetime.fromisoformat(doc["recorded_at"]),
            tree=doc["tree"],
            type=doc["type"],
            length=doc["length"],
            blobs=tuple(doc["blobs"]),
            seconds=doc["seconds"],
            parts=doc["parts"],
            shown=doc["shown"],
        )

    def _missing(self, blobs: Sequence[str]) -> list[str]:
        def is_there(blob: str) -> bool:
            return self._store.objects.exists(keys.blob_key(blob))

        return [blob for blob, found in zip(blobs, at_once(is_there, blobs), strict=True) if not found]

    def _what_changed(self, key: CacheKey, task: Producer) -> str:
        last = self.last(task.dag_id, task.task_id, task.map_index)
        if last is None:
            return "this task has computed nothing yet that is remembered"
        found = changes(key, last["parts"], last["shown"])
        run = Producer(**last["producer"]).run_id
        if not found:
            return f"nothing changed since run {run}, but its result is no longer in the cache"
        return f"since run {run}: {'; '.join(found)}"


def refs_of(tree: Any, store: ArtifactStore) -> Iterator[ArtifactRef]:
    """Yield the artifacts that stand in JSON of the XCom table."""
    pending = [tree]
    while pending:
        item = pending.pop()
        if type(item) is dict:
            if is_node(item) and item["kind"] == ARTIFACT:
                yield from_envelope(item, store.signer)
                continue
            pending.extend(item.values())
        elif type(item) is list:
            pending.extend(item)


def _about(age: timedelta) -> str:
    return str(timedelta(seconds=round(age.total_seconds())))
