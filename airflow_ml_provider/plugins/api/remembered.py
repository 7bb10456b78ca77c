# SPDX-License-Identifier: Apache-2.0
"""
Small objects that the API server read before: a list of 200 is then one list request, and not 201 requests.

An object counts as unchanged if a list of this very request tells the same size and time of change. A bucket
tells times by the second, so what changed in the last seconds is read again. Who may see an object is asked
after it is read, by whoever asks, for each request anew.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from airflow_ml_provider.artifacts.objects import Content, ObjectInfo, ObjectStore, OnRead

_MOST_BYTES = 64 << 20  # in each process of the API server
_MOST_BYTES_OF_ONE = 256 << 10
_SETTLED = timedelta(seconds=5)

_Key = tuple[str, str, datetime, int]


class Remembered:
    """
    The bytes of objects, those that were not asked for the longest forgotten first.

    :param most_bytes: How many to keep.
    """

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most = most_bytes
        self._held = 0
        self._bytes: OrderedDict[_Key, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, key: _Key) -> bool:
        return key in self._bytes

    def get(self, key: _Key) -> bytes | None:
        """Return what was kept; None if nothing is."""
        with self._lock:
            found = self._bytes.get(key)
            if found is not None:
                self._bytes.move_to_end(key)
            return found

    def keep(self, key: _Key, data: bytes) -> None:
        """Keep an object, unless it is large."""
        if len(data) > min(_MOST_BYTES_OF_ONE, self._most):
            return
        with self._lock:
            if key in self._bytes:
                return
            self._bytes[key] = data
            self._held += len(data)
            while self._held > self._most:
                _, gone = self._bytes.popitem(last=False)
                self._held -= len(gone)


class RememberingObjects(ObjectStore):
    """
    An object store for the length of one request.

    :param objects: The deployment's.
    :param remembered: What this process read before.
    """

    def __init__(self, objects: ObjectStore, remembered: Remembered) -> None:
        self.__dict__.update(objects.__dict__)
        self._remembered = remembered
        self._listed: dict[str, ObjectInfo] = {}

    def list(
        self, prefix: str, *, after: str | None = None, limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        for entry in super().list(prefix, after=after, limit=limit):
            self._listed[entry.key] = entry
            yield entry

    def at_hand(self, key: str) -> bool:
        place = self._place(key)
        return place is not None and place in self._remembered

    def get(self, key: str, *, at_most: int | None = None, on_read: OnRead | None = None) -> Content:
        place = self._place(key)
        if place is None or on_read is not None:  # content, which is large
            return super().get(key, at_most=at_most, on_read=on_read)
        found = self._remembered.get(place)
        if found is None:
            found = bytes(super().get(key, at_most=at_most))
            self._remembered.keep(place, found)
        return found

    def _place(self, key: str) -> _Key | None:
        """Where an object is remembered; None if it was not listed, or may be changing just now."""
        entry = self._listed.get(key)
        if entry is None or datetime.now(UTC) - entry.modified < _SETTLED:
            return None
        return self.root, key, entry.modified, entry.size_bytes
