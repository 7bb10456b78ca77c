# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import time
from datetime import UTC, datetime

import pytest

from airflow_ml_provider.artifacts.objects import ObjectStore
from airflow_ml_provider.exceptions import MlflowAccessError, MlflowUnavailableError, ModelNotFoundError
from airflow_ml_provider.tracking.client import ConnectedClient, connect
from airflow_ml_provider.tracking.ledger import AliasMove, Ledger
from airflow_ml_provider.tracking.moves import where
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


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(404, "404 page not found\n", id="Traefik without a backend"),
        pytest.param(404, "<html><title>404 Not Found</title></html>", id="nginx"),
        pytest.param(200, "<html>We are back soon</html>", id="maintenance page"),
        pytest.param(302, "moved", id="to a login page"),
    ],
)
def test_a_proxy_in_place_of_mlflow_does_not_say_that_an_alias_is_gone(tmp_path, status, body):
    answers = {"health": (200, "OK"), "registered-models/alias": (status, body)}
    ledger = Ledger(ObjectStore(str(tmp_path)))
    now = datetime(2026, 1, 1, tzinfo=UTC)
    move = AliasMove("flight_delay", "champion", "3", "2", effective_at=now, recorded_at=now, sequence=0)
    ledger.take_turn(move)
    ledger.record(move)
    with stub_server(**answers) as stub:
        client = connect(stub.uri, label=LABEL)
        with pytest.raises(MlflowUnavailableError, match=rf"HTTP {status}.* not in MLflow's words: '"):
            where(client, ledger, "flight_delay", "champion")
    assert list(ledger.turns("flight_delay", "champion")) == [move]


def test_the_error_that_a_server_repeats_is_named(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with stub_server(**{"runs/get": (500, "Internal Server Error")}) as stub:
        client = ConnectedClient(stub.uri, label=LABEL)
        with pytest.raises(MlflowUnavailableError, match="HTTP 500 at each try"):
            client.get_run("abc")


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
