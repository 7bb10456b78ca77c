# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import time

import pytest

from airflow_ml_provider.exceptions import MlflowAccessError, MlflowUnavailableError, ModelNotFoundError
from airflow_ml_provider.tracking.client import ConnectedClient, connect
from airflow_ml_provider.tracking.session import Credentials
from tests.support.mlflow_server import free_port
from tests.support.stub_mlflow import stub_server

LABEL = "connection 'prod'"


def test_a_server_that_is_down_is_named_in_seconds():
    uri = f"http://127.0.0.1:{free_port()}"
    began = time.monotonic()
    with pytest.raises(MlflowUnavailableError, match=rf"connection 'prod' at {uri}: connection refused"):
        connect(uri, label=LABEL)
    assert time.monotonic() - began < 5


def test_a_gateway_without_a_server_behind_it_is_down():
    with (
        stub_server(health=(503, "no backend")) as stub,
        pytest.raises(MlflowUnavailableError, match="HTTP 503"),
    ):
        connect(stub.uri, label=LABEL)


def test_a_server_that_goes_away_later_is_named_too(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    client = ConnectedClient(f"http://ada:secret@127.0.0.1:{free_port()}", label=LABEL)
    with pytest.raises(MlflowUnavailableError, match=r"connection 'prod' at http://\*\*\*@127") as caught:
        client.get_run("abc")
    assert "secret" not in str(caught.value)


def test_a_client_sends_its_own_credentials_and_leaves_the_environment_alone():
    before = dict(os.environ)
    answers = {"health": (200, "OK"), "experiments/search": (200, {"experiments": []})}
    with stub_server(**answers) as stub:
        clients = [
            connect(stub.uri, Credentials(username="ada", password="one")),
            connect(stub.uri, Credentials(token="two")),
            connect(stub.uri, Credentials()),
        ]
        for client in clients:
            assert list(client.search_experiments()) == []
        sent = [header for _, path, _, header in stub.requests if "search" in path]
    assert sent == ["Basic YWRhOm9uZQ==", "Bearer two", None]
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, "You are not authenticated"),
        (403, {"error_code": "PERMISSION_DENIED", "message": "Permission denied"}),
    ],
)
def test_refused_credentials_name_the_connection(status, body):
    answers = {"health": (200, "OK"), "experiments/search": (status, body)}
    with (
        stub_server(**answers) as stub,
        pytest.raises(MlflowAccessError, match="credentials of connection 'prod'"),
    ):
        connect(stub.uri, Credentials(username="ada", password="secret"), label=LABEL).search_experiments()


def test_a_missing_model_is_a_lookup_error(client):
    with pytest.raises(ModelNotFoundError, match="nothing"):
        client.get_registered_model("nothing")
    with pytest.raises(LookupError):
        client.get_logged_model("m-nothing")


def test_other_errors_of_mlflow_pass_through(client):
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match="abc"):
        client.get_run("abc")
    assert not hasattr(client, "no_such_call")
