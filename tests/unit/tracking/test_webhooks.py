# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest
from mlflow.webhooks.delivery import _generate_hmac_signature

from airflow_ml_provider.exceptions import WebhookRefusedError
from airflow_ml_provider.tracking.webhooks import verified

SECRET = "shared"
NOW = 1_800_000_000.0
BODY = json.dumps(
    {
        "entity": "model_version_alias",
        "action": "created",
        "timestamp": "2027-01-15T08:00:00+00:00",
        "data": {"name": "flight_delay", "alias": "champion", "version": "3"},
    }
)


def headers(body=BODY, secret=SECRET, sent=int(NOW), delivery="d-1"):
    """Sign as MLflow does, by its own function."""
    return {
        "x-mlflow-delivery-id": delivery,
        "x-mlflow-timestamp": str(sent),
        "x-mlflow-signature": _generate_hmac_signature(secret, delivery, str(sent), body),
    }


def test_what_mlflow_signs_is_let_in():
    delivery = verified(headers(), BODY.encode(), SECRET, now=NOW + 60)
    assert (delivery.delivery_id, delivery.event) == ("d-1", "model_version_alias.created")
    assert delivery.data["version"] == "3"


@pytest.mark.parametrize("missing", ["x-mlflow-delivery-id", "x-mlflow-timestamp", "x-mlflow-signature"])
def test_a_webhook_without_a_signature_is_refused(missing):
    given = {name: value for name, value in headers().items() if name != missing}
    with pytest.raises(WebhookRefusedError, match="not signed"):
        verified(given, BODY.encode(), SECRET, now=NOW)


@pytest.mark.parametrize(
    ("given", "body", "secret"),
    [
        pytest.param(headers(secret="other"), BODY, SECRET, id="another secret"),
        pytest.param(headers(), BODY.replace("3", "4"), SECRET, id="another body"),
        pytest.param({**headers(), "x-mlflow-timestamp": str(int(NOW) + 1)}, BODY, SECRET, id="another time"),
        pytest.param({**headers(), "x-mlflow-delivery-id": "d-2"}, BODY, SECRET, id="another delivery"),
        pytest.param({**headers(), "x-mlflow-signature": "v1,"}, BODY, SECRET, id="empty signature"),
        pytest.param({**headers(), "x-mlflow-signature": "v1,é"}, BODY, SECRET, id="no base64"),
    ],
)
def test_what_was_not_signed_with_the_secret_is_refused(given, body, secret):
    with pytest.raises(WebhookRefusedError, match="signature is not that"):
        verified(given, body.encode(), secret, now=NOW)


def test_an_empty_secret_lets_nobody_in():
    with pytest.raises(WebhookRefusedError, match="no secret"):
        verified(headers(secret=""), BODY.encode(), "", now=NOW)


@pytest.mark.parametrize("seconds", [301, -301, 86_400])
def test_an_old_delivery_and_one_from_the_future_are_refused(seconds):
    with pytest.raises(WebhookRefusedError, match="seconds old"):
        verified(headers(), BODY.encode(), SECRET, now=NOW + seconds)
    verified(headers(), BODY.encode(), SECRET, now=NOW + 299)


@pytest.mark.parametrize("body", ["", "x", "[]", "{}", '{"entity": "a", "action": "b"}', '{"entity": 1}'])
def test_a_signed_body_that_mlflow_does_not_send_is_refused(body):
    with pytest.raises(WebhookRefusedError, match="not what MLflow sends"):
        verified(headers(body), body.encode(), SECRET, now=NOW)


def test_a_time_that_is_no_number_is_refused():
    with pytest.raises(WebhookRefusedError, match="no Unix time"):
        verified(headers(sent="soon"), BODY.encode(), SECRET, now=NOW)
