# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import json
import os

import mlflow
import pytest
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_ml_provider.exceptions import MlflowAccessError, MlflowUnavailableError, TrackingError
from airflow_ml_provider.hooks.mlflow import MlflowHook
from airflow_ml_provider.tracking.models import ModelRef
from airflow_ml_provider.tracking.session import Credentials, session_for
from tests.support.mlflow_server import free_port
from tests.support.stub_mlflow import stub_server


@pytest.fixture
def connection(monkeypatch):
    """Defines the connection ``mlflow_test`` and gives a hook on it."""

    def define(**fields) -> MlflowHook:
        monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_TEST", json.dumps({"conn_type": "mlflow", **fields}))
        return MlflowHook("mlflow_test")

    return define


@pytest.mark.parametrize(
    ("fields", "uri", "credentials"),
    [
        ({"host": "http://mlflow:5000/"}, "http://mlflow:5000", Credentials()),
        ({"host": "https://mlflow/base", "port": 8443}, "https://mlflow:8443/base", Credentials()),
        ({"host": "http://mlflow:5000", "port": 9}, "http://mlflow:5000", Credentials()),
        ({"host": "mlflow", "port": 5000}, "http://mlflow:5000", Credentials()),
        ({"host": "mlflow", "schema": "https"}, "https://mlflow", Credentials()),
        ({"host": "mlflow", "port": 443}, "https://mlflow:443", Credentials()),
        ({"host": "sqlite:////tmp/mlflow.db"}, "sqlite:////tmp/mlflow.db", Credentials()),
        ({"host": "http://ada:p%40ss@mlflow"}, "http://mlflow", Credentials("ada", "p@ss")),
        (
            {"host": "http://mlflow", "login": "ada", "password": "one"},
            "http://mlflow",
            Credentials("ada", "one"),
        ),
        (
            {
                "host": "http://mlflow",
                "extra": {"token": "t", "insecure_tls": "true", "ca_bundle": "/ca.pem"},
            },
            "http://mlflow",
            Credentials(token="t", insecure_tls=True, ca_bundle="/ca.pem"),
        ),
        (
            {"host": "http://mlflow", "extra": {"token": "", "insecure_tls": None}},
            "http://mlflow",
            Credentials(),
        ),
    ],
)
def test_a_connection_is_an_address_and_credentials(connection, fields, uri, credentials):
    hook = connection(**fields)
    assert hook.tracking_uri == uri
    assert hook.credentials == credentials


@pytest.mark.parametrize(
    ("given", "uri"),
    [
        ("mlflow://https://mlflow.example.com/base", "https://mlflow.example.com/base"),
        ("mlflow://https://mlflow.example.com:8443/a/b/", "https://mlflow.example.com:8443/a/b"),
        ("mlflow://mlflow:5000/base", "http://mlflow:5000/base"),
        ("mlflow://mlflow:5000/https", "https://mlflow:5000"),
        ("mlflow://https%3A%2F%2Fmlflow%2Fbase", "https://mlflow/base"),
        ("mlflow://mlflow:5000", "http://mlflow:5000"),
    ],
)
def test_a_connection_that_is_a_uri_keeps_its_path(monkeypatch, given, uri):
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_TEST", given)
    assert MlflowHook("mlflow_test").tracking_uri == uri


def test_pages_are_at_the_address_that_browsers_use(connection):
    hook = connection(host="http://mlflow:5000", extra={"ui_url": "https://ml.example.com/"})
    assert hook.run_url("7", "abc") == "https://ml.example.com/#/experiments/7/runs/abc"
    assert hook.model_url("flight delay") == "https://ml.example.com/#/models/flight%20delay"
    assert hook.model_url("m", "3") == "https://ml.example.com/#/models/m/versions/3"
    assert (
        connection(host="http://mlflow:5000").run_url("7", "abc")
        == "http://mlflow:5000/#/experiments/7/runs/abc"
    )
    assert connection(host="sqlite:////tmp/x.db").run_url("7", "abc") is None


def test_models_may_be_registered_elsewhere(connection):
    hook = connection(host="http://mlflow", extra={"registry_uri": "http://registry"})
    assert hook.registry_uri == "http://registry"
    with hook.session():
        assert mlflow.get_registry_uri() == "http://registry"
        assert mlflow.get_tracking_uri() == "http://mlflow"
    assert connection(host="http://mlflow").registry_uri == "http://mlflow"


def test_without_a_host_the_connection_is_named(connection):
    with pytest.raises(TrackingError, match=r"connection 'mlflow_test' has no host"):
        _ = connection().tracking_uri


def test_a_missing_connection_falls_back_to_mlflows_own_variable_only(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(AirflowNotFoundException, match=r"no connection 'nowhere' and MLFLOW_TRACKING_URI"):
        _ = MlflowHook("nowhere").tracking_uri
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://worker:5000")
    assert MlflowHook("nowhere").tracking_uri == "http://worker:5000"


def test_a_server_that_is_down_is_reported_by_the_connections_name(connection):
    hook = connection(host=f"http://127.0.0.1:{free_port()}", login="ada", password="hidden")
    with pytest.raises(MlflowUnavailableError, match="connection 'mlflow_test'") as caught:
        _ = hook.client
    assert "hidden" not in str(caught.value)
    works, message = hook.test_connection()
    assert not works
    assert "connection refused" in message


def test_refused_credentials_are_reported_by_the_connections_name(connection):
    with stub_server(**{"health": (200, "OK"), "experiments/search": (401, "who are you")}) as stub:
        hook = connection(host=stub.uri, login="ada", password="hidden")
        with pytest.raises(MlflowAccessError, match="connection 'mlflow_test'"):
            hook.client.search_experiments()
        assert hook.test_connection()[0] is False


def test_a_working_connection_says_so(connection):
    answers = {"health": (200, "OK"), "experiments/search": (200, {"experiments": []})}
    with stub_server(**answers) as stub:
        works, message = connection(host=stub.uri).test_connection()
        assert works, message
        assert stub.uri in message


def test_two_hooks_do_not_mix_servers(monkeypatch):
    answers = {"health": (200, "OK"), "experiments/search": (200, {"experiments": []})}
    with stub_server(**answers) as one, stub_server(**answers) as two:
        for name, stub in (("ONE", one), ("TWO", two)):
            fields = {"conn_type": "mlflow", "host": stub.uri, "extra": {"token": name}}
            monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps(fields))
        clients = [MlflowHook("one").client, MlflowHook("two").client]
        for client in clients:
            client.search_experiments()
        for stub, token in ((one, "ONE"), (two, "TWO")):
            sent = {header for _, path, _, header in stub.requests if "search" in path}
            assert sent == {f"Bearer {token}"}
    assert "MLFLOW_TRACKING_TOKEN" not in os.environ


def test_a_model_reference_finds_its_credentials_by_connection(connection):
    connection(host="http://mlflow", extra={"token": "t"})
    ref = ModelRef("models:/m-1", mlflow_conn_id="mlflow_test", tracking_uri="http://elsewhere")
    with session_for(mlflow_conn_id=ref.mlflow_conn_id, tracking_uri=ref.tracking_uri):
        assert mlflow.get_tracking_uri() == "http://mlflow"
        assert os.environ["MLFLOW_TRACKING_TOKEN"] == "t"


def test_a_trigger_reads_the_connection_without_blocking(connection):
    hook = connection(host="http://mlflow", extra={"token": "t"})
    loaded = asyncio.run(hook.aload())
    assert loaded is hook
    assert hook.tracking_uri == "http://mlflow"
    assert hook.credentials.token == "t"
