# SPDX-License-Identifier: Apache-2.0
"""What stands in the XCom table for a value, and in the store for a version: small signed JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.refs import ArtifactRef, Producer, check_name
from airflow_ml_provider.exceptions import SignatureError

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.signing import Signer

ARTIFACT = "ml-artifact/v1"
OBJECT = "ml-object/v1"

# Kinds of other rooms: a name here, a class there, imported when the first one is read. A class has
# to_json() and a class method from_json(). Only classes of this package may stand here.
VALUE_KINDS = {"ml-model/v1": ("airflow_ml_provider.tracking.models", "ModelRef")}

_KIND = re.compile(r"ml-[a-z]+/v[0-9]+")
_FORMAT = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}-v[0-9]{1,4}")


def is_node(value: Any) -> bool:
    """Tell a dict that stands for another value from the user's own dicts."""
    if type(value) is not dict:
        return False
    kind = value.get("kind")
    return isinstance(kind, str) and _KIND.fullmatch(kind) is not None


def has_nodes(tree: Any) -> bool:
    """Tell whether anything in ``tree`` stands for another value."""
    pending = [tree]
    while pending:
        item = pending.pop()
        if type(item) is dict:
            if is_node(item):
                return True
            pending.extend(item.values())
        elif type(item) is list:
            pending.extend(item)
    return False


def check_format(text: str) -> str:
    """Return ``text`` if it names a format: lower-case words and a version, ``arrow-v1``."""
    if not isinstance(text, str) or not _FORMAT.fullmatch(text):
        raise ValueError(f"a format is named like 'arrow-v1', got {text!r}")
    return text


def to_envelope(ref: ArtifactRef, signer: Signer) -> dict[str, Any]:
    """Describe a version as signed JSON that a PostgreSQL JSONB column carries unchanged."""
    producer = ref.producer
    parts = {"parts": list(ref.parts)} if ref.parts else {}
    return signer.signed(
        {
            "kind": ARTIFACT,
            "name": ref.name,
            "version_id": ref.version_id,
            "digest": ref.digest,
            "format": ref.format,
            "type": ref.type,
            "size_bytes": ref.size_bytes,
            "producer": None
            if producer is None
            else {
                "dag_id": producer.dag_id,
                "run_id": producer.run_id,
                "task_id": producer.task_id,
                "map_index": producer.map_index,
                "try_number": producer.try_number,
                "key": producer.key,
            },
            "recorded_at": _to_text(ref.recorded_at),
            "effective_at": _to_text(ref.effective_at),
            "data_interval": None
            if ref.data_interval is None
            else [_to_text(when) for when in ref.data_interval],
            "schema": ref.schema,
            "preview": ref.preview,
            **parts,
        }
    )


def from_envelope(doc: Mapping[str, Any], signer: Signer) -> ArtifactRef:
    """
    Read a signed envelope.

    :raises SignatureError: if it was not signed with this deployment's key, was edited, or holds a name, id,
        digest or format that no store writes.
    """
    signer.verify(doc)
    try:
        if doc["kind"] != ARTIFACT:
            raise ValueError(f"not an artifact: {doc['kind']!r}")
        keys.digest_hex(doc["digest"])
        parts = tuple(doc.get("parts", ()))
        for part in parts:
            keys.digest_hex(part)
        interval = doc["data_interval"]
        size_bytes = doc["size_bytes"]
        if type(size_bytes) is not int or size_bytes < 0:
            raise ValueError(f"not a size: {size_bytes!r}")
        return ArtifactRef(
            name=check_name(doc["name"]),
            version_id=keys.check_version_id(doc["version_id"]),
            digest=doc["digest"],
            format=check_format(doc["format"]),
            type=str(doc["type"]),
            size_bytes=size_bytes,
            producer=None if doc["producer"] is None else Producer(**doc["producer"]),
            recorded_at=_to_time(doc["recorded_at"]),
            effective_at=_to_time(doc["effective_at"]),
            data_interval=None if interval is None else (_to_time(interval[0]), _to_time(interval[1])),
            schema=doc["schema"],
            preview=doc["preview"],
            parts=parts,
        )
    except (KeyError, TypeError, ValueError, IndexError) as exc:
        raise SignatureError(
            f"an envelope of kind {doc.get('kind')!r} is malformed: {exc}; re-run its task"
        ) from exc


def _to_text(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="microseconds")


def _to_time(text: str) -> datetime:
    when = datetime.fromisoformat(text)
    if when.tzinfo is None:
        raise ValueError(f"a time without a zone: {text!r}")
    return when.astimezone(UTC)
