# SPDX-License-Identifier: Apache-2.0
"""
How much memory stored bytes may take once they are unpacked.

Compressed content says by itself how large it becomes, and whoever can write to the bucket can make it say
anything. So the writer's figure stands in the signed schema, and readers compare before they allocate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_ml_provider.exceptions import ArtifactCorruptError

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.codecs.registry import Stored
    from airflow_ml_provider.artifacts.refs import ArtifactRef

UNPACKED = "unpacked_bytes"
"""Field of a schema: the bytes that compressed content unpacks to."""

# For versions whose writer left no figure: far beyond what data compresses to, far below a bomb.
_MOST_PER_BYTE = 1024
_ALWAYS_BYTES = 1 << 30


def unpacked_limit(ref: ArtifactRef, max_artifact_bytes: int | None) -> int:
    """Return how many bytes a version may take in memory: what its writer signed, else a guess."""
    signed = (ref.schema or {}).get(UNPACKED)
    if type(signed) is not int:
        signed = max(_ALWAYS_BYTES, _MOST_PER_BYTE * ref.size_bytes)
    return signed if max_artifact_bytes is None else min(signed, max_artifact_bytes)


def check_unpacked(claimed: int, info: Stored) -> None:
    """
    Return if content may unpack to so many bytes.

    :raises ArtifactCorruptError: if that is more than its writer signed for.
    """
    if info.max_bytes is not None and not 0 <= claimed <= info.max_bytes:
        raise ArtifactCorruptError(
            f"the content of {info.name!r} claims to unpack to {claimed:,} bytes, and at most "
            f"{info.max_bytes:,} are allowed (what was signed when it was written, or [ml_provider] "
            "max_artifact_bytes); nothing was unpacked"
        )
