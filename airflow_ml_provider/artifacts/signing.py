# SPDX-License-Identifier: Apache-2.0
"""Signatures that tell this deployment's envelopes and manifests from anybody else's."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

from airflow_ml_provider.exceptions import SignatureError

FIELD = "signature"
_PREFIX = "hmac-sha256:"


class Signer:
    """
    Sign JSON documents with HMAC-SHA256 (RFC 2104).

    :param key: At least 16 bytes, the same for all workers of a deployment.
    """

    def __init__(self, key: bytes) -> None:
        if not isinstance(key, bytes) or len(key) < 16:
            raise ValueError("a signing key is at least 16 bytes long")
        self._key = key

    def __repr__(self) -> str:
        return "Signer()"

    def sign(self, doc: Mapping[str, Any]) -> str:
        """Return the signature of ``doc`` without its own ``signature`` field."""
        body = {key: value for key, value in doc.items() if key != FIELD}
        # Key order does not count: a PostgreSQL JSONB column does not keep it.
        text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        return _PREFIX + hmac.new(self._key, text.encode("ascii"), hashlib.sha256).hexdigest()

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
            expected = self.sign(doc)
        except (TypeError, ValueError) as exc:
            raise SignatureError(f"{what} holds what no signed document holds; re-run its task") from exc
        if not hmac.compare_digest(expected.encode(), found.encode("utf-8", "surrogatepass")):
            raise SignatureError(
                f"{what} does not match its signature: it was edited, or written under another "
                f"[ml_provider] signing_key or fernet key; re-run its task"
            )
