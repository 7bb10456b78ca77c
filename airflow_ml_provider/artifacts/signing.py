# SPDX-License-Identifier: Apache-2.0
"""Signatures that tell this deployment's envelopes and manifests from anybody else's."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_ml_provider.exceptions import SignatureError

FIELD = "signature"
_PREFIX = "hmac-sha256:"


class Signer:
    """
    Sign JSON documents with HMAC-SHA256 (RFC 2104).

    :param key: At least 16 bytes, the same for all workers of a deployment.
    :param verify_with: Earlier keys of the deployment: what they signed is accepted, nothing is signed with
        them.
    """

    def __init__(self, key: bytes, verify_with: Sequence[bytes] = ()) -> None:
        if not all(isinstance(each, bytes) and len(each) >= 16 for each in (key, *verify_with)):
            raise ValueError("a signing key is at least 16 bytes long")
        self._key = key
        self._verify_with = tuple(verify_with)

    def __repr__(self) -> str:
        return "Signer()"

    def sign(self, doc: Mapping[str, Any]) -> str:
        """Return the signature of ``doc`` without its own ``signature`` field."""
        return _signature(self._key, _text(doc))

    def signed(self, doc: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``doc`` with its signature."""
        return {**doc, FIELD: self.sign(doc)}

    def verify(self, doc: Mapping[str, Any]) -> None:
        """
        Return if this deployment signed ``doc`` and nobody changed it since.

        :raises SignatureError: otherwise.
        """
        found = doc.get(FIELD)
        what = (
            f"the {doc.get('kind')!r} named {doc.get('name')!r}" if "name" in doc else repr(doc.get("kind"))
        )
        if not isinstance(found, str):
            raise SignatureError(
                f"{what} carries no signature, so this deployment did not write it; re-run its task"
            )
        try:
            text = _text(doc)
        except (TypeError, ValueError) as exc:
            raise SignatureError(f"{what} holds what no signed document holds; re-run its task") from exc
        given = found.encode("utf-8", "surrogatepass")
        keys = (self._key, *self._verify_with)
        if not any(hmac.compare_digest(_signature(key, text).encode(), given) for key in keys):
            raise SignatureError(
                f"{what} does not match its signature: it was edited, or written under another "
                "[ml_provider] signing_key or fernet key; re-run its task, or list the earlier key after "
                "the current one in that option"
            )


def _text(doc: Mapping[str, Any]) -> bytes:
    body = {key: value for key, value in doc.items() if key != FIELD}
    # Key order does not count: a PostgreSQL JSONB column does not keep it.
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii")


def _signature(key: bytes, text: bytes) -> str:
    return _PREFIX + hmac.new(key, text, hashlib.sha256).hexdigest()
