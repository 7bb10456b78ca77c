# SPDX-License-Identifier: Apache-2.0
"""Small objects that a process has read, for as long as lists say that they are the same."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.objects import ObjectInfo
    from airflow_ml_provider.artifacts.store import ArtifactStore

T = TypeVar("T")

# Manifests and rows are a few KiB each.
MOST = 4000
MOST_BYTES = 32 << 10
# S3 tells times in seconds: within one, an object can be replaced by another of the same length.
SETTLED_AFTER = timedelta(minutes=1)


class Memory:
    """
    What was made of objects that were read, the latest few thousand; safe for threads.

    An object counts as the same while a list shows the same length and time of modification.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str], tuple[int, datetime, Any]] = OrderedDict()

    def recall(self, entry: ObjectInfo, kind: str, make: Callable[[str], T]) -> T:
        """
        Return what ``make`` gave for this object before, or gives now. None is not remembered.

        :param entry: The object, as a list shows it.
        :param kind: Tells apart what is made of one object.
        """
        place = (kind, entry.key)
        with self._lock:
            found = self._known.get(place)
            if found is not None and found[:2] == (entry.size_bytes, entry.modified):
                self._known.move_to_end(place)
                return found[2]  # type: ignore[no-any-return]
        made = make(entry.key)
        settled = datetime.now(UTC) - entry.modified > SETTLED_AFTER
        if made is not None and settled and entry.size_bytes <= MOST_BYTES:
            with self._lock:
                self._known[place] = (entry.size_bytes, entry.modified, made)
                self._known.move_to_end(place)
                while len(self._known) > self._most:
                    self._known.popitem(last=False)
        return made


_memories: weakref.WeakKeyDictionary[ArtifactStore, Memory] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def memory_of(store: ArtifactStore) -> Memory:
    """Return the memory that all who ask one store share in this process."""
    with _lock:
        return _memories.setdefault(store, Memory())
