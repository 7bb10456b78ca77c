# SPDX-License-Identifier: Apache-2.0
"""
Whether a webhook comes from the MLflow server that shares a secret with us, and is fresh.

MLflow signs ``<delivery id>.<Unix time>.<body>`` by HMAC-SHA256 and sends ``v1,<base64>`` in the header
``X-MLflow-Signature``. A webhook without a secret is not signed, and refused.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_ml_provider.exceptions import WebhookRefusedError

#: Seconds between a delivery's time and ours, either way. MLflow signs a delivery once and may repeat it.
FRESH_SECONDS = 300.0
_SIGNATURE, _TIME, _DELIVERY = "x-mlflow-signature", "x-mlflow-timestamp", "x-mlflow-delivery-id"


@dataclass(frozen=True)
class Delivery:
    """A webhook that was verified."""

    delivery_id: str
    event: str
    """``<entity>.<action>``, such as ``model_version_alias.created``."""
    data: dict[str, Any]


def signature_of(body: bytes, delivery_id: str, sent: str, secret: str) -> str:
    """Sign a delivery as MLflow does."""
    signed = b".".join((delivery_id.encode(), sent.encode(), body))
    return "v1," + base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()


def verified(headers: Mapping[str, str], body: bytes, secret: str, *, now: float) -> Delivery:
    """
    Read a webhook.

    :param headers: By lower-case name.
    :param secret: What the webhook was created with in MLflow.
    :param now: Unix time.
    :raises WebhookRefusedError: unless it is signed by the secret, fresh, and what MLflow sends.
    """
    delivery_id, sent, signature = (headers.get(name, "") for name in (_DELIVERY, _TIME, _SIGNATURE))
    if not (delivery_id and sent and signature):
        raise WebhookRefusedError("the webhook is not signed; give it a secret in MLflow")
    if not secret:
        raise WebhookRefusedError("no secret to verify webhooks with")
    expected = signature_of(body, delivery_id, sent, secret)
    # Of several signatures, separated by blanks, any may be ours.
    if not any(hmac.compare_digest(expected.encode(), each.encode()) for each in signature.split(" ")):
        raise WebhookRefusedError("the signature is not that of the shared secret")
    try:
        age = now - int(sent)
    except ValueError:
        raise WebhookRefusedError(f"the time of the delivery is no Unix time: {sent!r:.50}") from None
    if abs(age) > FRESH_SECONDS:
        raise WebhookRefusedError(f"the delivery is {age:.0f} seconds old, at most {FRESH_SECONDS:.0f} pass")
    try:
        document = json.loads(body)
        return Delivery(delivery_id, f"{document['entity']}.{document['action']}", dict(document["data"]))
    except (ValueError, KeyError, TypeError) as exc:
        raise WebhookRefusedError(f"the body is not what MLflow sends: {exc!r}") from exc
