# SPDX-License-Identifier: Apache-2.0
"""Where an answer goes on, where that is more than one key: JSON, as one word of an address."""

# No "from __future__ import annotations" here: FastAPI reads the annotations of endpoints.

import base64
import json
import zlib
from typing import Annotated, Any

from fastapi import Query

_LONGEST = 6000  # addresses have their limits, and there is more in them
_MOST_READ = 1 << 20  # what so few characters may unpack to

WideCursor = Annotated[str | None, Query(max_length=_LONGEST)]


def written(place: Any) -> str | None:
    """Write a place down; None if it does not fit into an address."""
    text = base64.urlsafe_b64encode(zlib.compress(json.dumps(place).encode(), 9)).decode()
    return text if len(text) <= _LONGEST else None


def read(cursor: str) -> Any:
    """
    Read what :func:`written` wrote, or what somebody made up.

    :raises ValueError: if it is no cursor.
    """
    try:
        return json.loads(
            zlib.decompressobj().decompress(base64.urlsafe_b64decode(cursor.encode()), _MOST_READ)
        )
    except zlib.error as exc:
        raise ValueError("not packed") from exc
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc
