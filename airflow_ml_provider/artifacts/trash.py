# SPDX-License-Identifier: Apache-2.0
"""
Content on its way out: away from its place, and still there for those who need it after all.

Garbage collection cannot know of a save that found its content in place and has not published its version
yet. So content first moves here, where every reader that misses it looks, and collections put it back or
delete it for good when nobody has named it for the grace period.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.exceptions import ArtifactNotFoundError

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.objects import ObjectStore

T = TypeVar("T")

_KEY = re.compile(r"trash/(?P<digest>[0-9a-f]{64})-(?P<since>[0-9]{8}T[0-9]{6})Z")
# The first release wrote these: no reader finds them, collections put them back or delete them.
_EARLIER_KEY = re.compile(r"trash/(?P<since>[0-9]{8}T[0-9]{6})Z-(?P<digest>[0-9a-f]{64})")
# Collections move content to and fro while a reader follows it.
_CHASES = 3


def key_of(digest: str, when: datetime) -> str:
    """Where content lies that was taken away at a time. The digest comes first, so that a reader finds it."""
    return f"trash/{keys.digest_hex(digest)}-{when:%Y%m%dT%H%M%S}Z"


def parse(key: str) -> tuple[str, datetime] | None:
    """Return the digest and the time of a key; None if no collection writes such a key."""
    match = _KEY.fullmatch(key) or _EARLIER_KEY.fullmatch(key)
    if match is None:
        return None
    since = datetime.strptime(match["since"], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    return f"blake3:{match['digest']}", since


def find(objects: ObjectStore, digest: str) -> str | None:
    """Return the key under which content lies in the trash, or None. One request."""
    first = f"trash/{keys.digest_hex(digest)}"
    found = next(objects.list("trash", after=first, limit=1), None)
    return found.key if found is not None and found.key.startswith(f"{first}-") else None


def read_content(objects: ObjectStore, digest: str, read: Callable[[str], T]) -> T:
    """
    Read content where it is: one request if it is in place, a few more if a collection took it away.

    :param read: Reads an object by its key.
    :raises ArtifactNotFoundError: if it is neither in place nor in the trash.
    """
    key = keys.blob_key(digest)
    for _ in range(_CHASES):
        try:
            return read(key)
        except ArtifactNotFoundError:
            taken = find(objects, digest)
        if taken is not None:
            try:
                return read(taken)
            except ArtifactNotFoundError:
                continue
        # Perhaps it was put back between the two looks.
        if not objects.exists(key):
            break
    return read(key)
