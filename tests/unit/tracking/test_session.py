# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import threading

import mlflow
import pytest

from airflow_ml_provider.exceptions import MlflowUnavailableError
from airflow_ml_provider.tracking import session as sessions
from airflow_ml_provider.tracking.session import (
    REQUEST_LIMITS,
    Credentials,
    request_environment,
    session,
    session_for,
)

ONE = Credentials(username="ada", password="secret-1")
TWO = Credentials(token="secret-2", insecure_tls=True, ca_bundle="/ca.pem")


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("MLFLOW")}


@pytest.fixture(autouse=True)
def _environment_is_as_before():
    before = _environment()
    uris = sessions._fluent_uris()
    yield
    assert _environment() == before
    assert sessions._fluent_uris() == uris


def test_a_session_points_mlflow_at_a_server_with_credentials():
    with session("http://one:5000", ONE):
        assert mlflow.get_tracking_uri() == "http://one:5000" == mlflow.get_registry_uri()
        assert os.environ["MLFLOW_TRACKING_URI"] == "http://one:5000"
        assert os.environ["MLFLOW_TRACKING_USERNAME"] == "ada"
        assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "secret-1"
        for name, value in REQUEST_LIMITS.items():
            assert os.environ[name] == value


def test_sessions_nest_and_the_inner_one_ends_first():
    with session("http://one:5000", ONE):
        with session("http://two:5000", TWO, registry_uri="http://registry:5000"):
            assert mlflow.get_tracking_uri() == "http://two:5000"
            assert mlflow.get_registry_uri() == "http://registry:5000"
            assert os.environ["MLFLOW_TRACKING_TOKEN"] == "secret-2"
            assert os.environ["MLFLOW_TRACKING_INSECURE_TLS"] == "true"
            assert os.environ["MLFLOW_TRACKING_SERVER_CERT_PATH"] == "/ca.pem"
            assert "MLFLOW_TRACKING_USERNAME" not in os.environ
        assert mlflow.get_tracking_uri() == "http://one:5000"
        assert os.environ["MLFLOW_TRACKING_USERNAME"] == "ada"
        assert "MLFLOW_TRACKING_TOKEN" not in os.environ


def test_one_servers_password_never_goes_to_a_server_without_one(monkeypatch):
    with session("http://one:5000", ONE), session("http://two:5000", Credentials()):
        assert "MLFLOW_TRACKING_PASSWORD" not in os.environ


def test_without_credentials_the_workers_environment_counts():
    os.environ["MLFLOW_TRACKING_TOKEN"] = "worker"
    try:
        with session("http://one:5000"):
            assert os.environ["MLFLOW_TRACKING_TOKEN"] == "worker"
        with session("http://one:5000", ONE):
            assert "MLFLOW_TRACKING_TOKEN" not in os.environ
            with session("http://two:5000"):
                assert os.environ["MLFLOW_TRACKING_TOKEN"] == "worker"
        assert Credentials.from_environment() == Credentials(token="worker")
    finally:
        del os.environ["MLFLOW_TRACKING_TOKEN"]


def test_limits_in_the_workers_environment_win():
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "9"
    try:
        with session("http://one:5000"):
            assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "9"
    finally:
        del os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]


def test_an_error_leaves_the_environment_as_it_was():
    with pytest.raises(KeyboardInterrupt), session("http://one:5000", ONE):
        raise KeyboardInterrupt


def test_secrets_do_not_show():
    assert "secret" not in repr(ONE) + repr(TWO)


def test_threads_share_a_server_and_wait_for_another(monkeypatch):
    inside, leave, seen = threading.Event(), threading.Event(), []

    def hold():
        with request_environment(ONE):
            inside.set()
            leave.wait(10)

    def use(credentials):
        with request_environment(credentials):
            seen.append(os.environ.get("MLFLOW_TRACKING_USERNAME"))

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait(10)
    use(ONE)  # at once
    assert seen == ["ada"]
    other = threading.Thread(target=use, args=(TWO,))
    other.start()
    other.join(0.2)
    assert other.is_alive()  # waits: its token must not meet the first one's server
    leave.set()
    other.join(10)
    holder.join(10)
    assert seen == ["ada", None]


def test_waiting_for_another_server_ends(monkeypatch):
    monkeypatch.setattr(sessions, "_WAIT_SECONDS", 0.05)
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with request_environment(ONE):
            inside.set()
            leave.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait(10)
    try:
        with pytest.raises(MlflowUnavailableError, match="another thread"), request_environment(TWO):
            pytest.fail("entered")
    finally:
        leave.set()
        holder.join(10)


def test_a_connection_id_is_followed_by_the_registered_connector(monkeypatch):
    opened = []
    monkeypatch.setattr(
        sessions, "_connector", lambda conn_id: opened.append(conn_id) or session("http://one")
    )
    with session_for(mlflow_conn_id="prod", tracking_uri="http://two"):
        assert mlflow.get_tracking_uri() == "http://one"
    with session_for(mlflow_conn_id=None, tracking_uri="http://two"):
        assert mlflow.get_tracking_uri() == "http://two"
    assert opened == ["prod"]
