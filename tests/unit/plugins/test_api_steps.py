# SPDX-License-Identifier: Apache-2.0
"""Metrics over steps, from servers that answer, refuse, lie and hang."""

from __future__ import annotations

import base64
import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from airflow_ml_provider.plugins.api import steps

RUN = {
    "info": {"run_id": "r1", "experiment_id": "7", "status": "FINISHED"},
    "data": {
        "params": [{"key": "max_depth", "value": "6"}],
        "metrics": [
            {"key": "loss", "value": 0.25, "timestamp": 3000, "step": 2},
            {"key": "auc", "value": "NaN", "timestamp": 3000, "step": 0},
        ],
    },
}


class Mlflow:
    """What the server says, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, list[str]]]] = []
        self.authorization: str | None = None
        self.answers: dict[str, Any] = {"runs/get": {"run": RUN}}
        self.hangs = threading.Event()
        self.released = threading.Event()


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mlflow]:
    said = Mlflow()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            what = parts.path.removeprefix("/api/2.0/mlflow/")
            said.asked.append((what, parse_qs(parts.query)))
            said.authorization = self.headers.get("Authorization")
            if said.hangs.is_set():
                said.released.wait(30)
            answer = said.answers.get(what)
            status = answer if isinstance(answer, int) else 200 if answer is not None else 404
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    connect(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    yield said
    said.released.set()
    server.shutdown()
    server.server_close()


def connect(monkeypatch: pytest.MonkeyPatch, host: str, **further: Any) -> None:
    connection = {"conn_type": "mlflow", "host": host, **further}
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps(connection))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("airflow_ml_provider.plugins.api.mlflow_pages._known", None)


def points(*values: float) -> dict[str, Any]:
    return {
        "metrics": [
            {"key": "loss", "value": value, "timestamp": 1000 * step, "step": step}
            for step, value in enumerate(values)
        ]
    }


def test_histories_are_asked_for_where_there_is_one(mlflow: Mlflow, monkeypatch: Any) -> None:
    mlflow.answers["metrics/get-history-bulk-interval"] = points(1.0, 0.5, 0.25)

    found = steps.metrics_over_steps("r1")

    assert found["state"] == "ok"
    assert found["run"]["params"] == {"max_depth": "6"}
    assert found["run"]["run_url"].endswith("/#/experiments/7/runs/r1")
    auc, loss = found["metrics"]
    assert [point["value"] for point in loss["points"]] == [1.0, 0.5, 0.25]
    assert loss["points"][1] == {"step": 1, "time": "1970-01-01T00:00:01+00:00", "value": 0.5}
    assert auc["points"] == [{"step": 0, "time": "1970-01-01T00:00:03+00:00", "value": "NaN"}]
    assert [query["metric_key"] for what, query in mlflow.asked if "history" in what] == [["loss"]]


def test_a_server_without_sampling_is_asked_for_all_and_they_are_thinned(
    mlflow: Mlflow, monkeypatch: Any
) -> None:
    monkeypatch.setattr(steps, "MOST_POINTS", 10)
    mlflow.answers["metrics/get-history"] = points(*(float(value) for value in range(95)))

    loss = steps.metrics_over_steps("r1")["metrics"][1]

    assert loss["sampled"] is True
    assert len(loss["points"]) <= 11
    assert (loss["points"][0]["step"], loss["points"][-1]["step"]) == (0, 94)


def test_an_attempt_without_a_run_and_a_run_that_is_gone_are_no_failures(mlflow: Mlflow) -> None:
    assert steps.metrics_over_steps(None)["state"] == "no_run"
    del mlflow.answers["runs/get"]
    assert steps.metrics_over_steps("r1")["state"] == "no_run"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (500, "HTTP 500"),
        (302, "HTTP 302"),
        (401, "refuses the connection's credentials"),
        (b"<html>", "is not MLflow"),
        ([], "is not MLflow"),
    ],
)
def test_what_is_no_answer_is_told_in_a_sentence(mlflow: Mlflow, answer: Any, said: str) -> None:
    mlflow.answers["runs/get"] = answer
    found = steps.metrics_over_steps("r1")

    assert found["state"] == "unavailable"
    assert said in found["message"]


def test_a_server_that_hangs_holds_nobody_for_long(mlflow: Mlflow, monkeypatch: Any) -> None:
    monkeypatch.setattr(steps, "SECONDS", 0.5)
    mlflow.hangs.set()

    began = time.monotonic()
    found = steps.metrics_over_steps("r1")

    assert found["state"] == "unavailable"
    assert time.monotonic() - began < 10


def test_a_server_that_is_gone_is_told_without_its_password(monkeypatch: Any) -> None:
    connect(monkeypatch, "http://anna:hunter2@127.0.0.1:9")
    found = steps.metrics_over_steps("r1")

    assert found["state"] == "unavailable"
    assert "hunter2" not in json.dumps(found)


def test_a_database_is_not_asked(monkeypatch: Any, tmp_path: Any) -> None:
    connect(monkeypatch, f"sqlite:///{tmp_path}/mlflow.db")

    assert "is a database" in steps.metrics_over_steps("r1")["message"]


def test_credentials_of_the_connection_are_sent(mlflow: Mlflow, monkeypatch: Any) -> None:
    host = json.loads(os.environ["AIRFLOW_CONN_MLFLOW_DEFAULT"])["host"]
    connect(monkeypatch, host, login="anna", password="secret")
    steps.metrics_over_steps("r1")
    assert mlflow.authorization == "Basic " + base64.b64encode(b"anna:secret").decode()

    connect(monkeypatch, host, extra={"token": "t0ken"})
    steps.metrics_over_steps("r1")
    assert mlflow.authorization == "Bearer t0ken"
