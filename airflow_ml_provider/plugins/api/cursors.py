# SPDX-License-Identifier: Apache-2.0
"""
Where an answer goes on, where that is more than one key: as one word of an address.

It is sealed, because it names what was not looked at: that may be of a DAG that the user may not see.
"""

# No "from __future__ import annotations" here: FastAPI reads the annotations of endpoints.

import base64
import json
import zlib
from typing import Annotated, Any

from cryptography.fernet import Fernet, InvalidToken
from fastapi import Query

from airflow_ml_provider.settings import derive_key, load_settings

_LONGEST = 6000  # addresses have their limits, and there is more in them

WideCursor = Annotated[str | None, Query(max_length=_LONGEST)]


def written(place: Any) -> str | None:
    """Write a place down; None if it does not fit into an address."""
    text = _seal().encrypt(zlib.compress(json.dumps(place).encode(), 9)).decode()
    return text if len(text) <= _LONGEST else None


def read(cursor: str) -> Any:
    """
    Read what :func:`written` wrote.

    :raises ValueError: if it is something else.
    """
    try:
        return json.loads(zlib.decompress(_seal().decrypt(cursor.encode())))
    except InvalidToken as exc:
        raise ValueError("not a cursor of this deployment") from exc


def _seal() -> Fernet:
    """All processes of the API server have the key."""
    key = derive_key(load_settings().signing_key, purpose=b"airflow-ml-provider cursors v1")
    return Fernet(base64.urlsafe_b64encode(key))
