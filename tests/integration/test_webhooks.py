# SPDX-License-Identifier: Apache-2.0
"""A real MLflow server sends signed webhooks to our endpoint, which raises events in Airflow's database."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo.ports import free_ports
from tests.support.mlflow_server import mlflow_server_in

SECRET = "a secret that both know"
CONN = "mlflow_hooks"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    allowed = {"MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true"}
    with mlflow_server_in(tmp_path_factory.mktemp("mlflow-hooks"), env=allowed) as running:
        yield running.uri


@pytest.fixture
def endpoint(airflow_db: Path, artifact_root: Path, server: str, monkeypatch) -> Iterator[str]:
    """Serve the endpoint as the API server does; gives its address."""
    import uvicorn

    from airflow_ml_provider.plugins.lazy import LazyApp
    from airflow_ml_provider.plugins.webhooks import make_app

    connection = {"conn_type": "mlflow", "host": server, "extra": {"webhook_secret": SECRET}}
    monkeypatch.setenv(f"AIRFLOW_CONN_{CONN.upper()}", json.dumps(connection))
    [port] = free_ports(1)
    running = uvicorn.Server(
        uvicorn.Config(LazyApp(make_app), host="127.0.0.1", port=port, log_level="warning")
    )
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}/webhooks/mlflow/{CONN}"
    running.should_exit = True
    thread.join(10)


@pytest.fixture
def client(server: str) -> Any:
    from airflow_ml_provider.tracking.client import connect

    return connect(server)


@pytest.fixture
def model(client: Any, endpoint: str, run_dag: Any, request: Any) -> str:
    """A registered model whose champion is an asset that a DAG waits for."""
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.sdk import DAG

    from airflow_ml_provider import ModelAsset

    name = f"hooked_{request.node.name[:40]}"
    client.create_registered_model(name)
    for _ in range(3):
        client.create_model_version(name, "s3://nowhere/model")
    with DAG(f"waits_for_{name}", schedule=[ModelAsset(name)]) as dag:
        pass
    bag = DagBag(collect_dags=False)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)
    return name


def announced(name: str) -> list[str]:
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        events = session.scalars(
            select(AssetEvent)
            .join(AssetModel, AssetModel.id == AssetEvent.asset_id)
            .where(AssetModel.uri == f"mlflow://{name}/champion")
            .order_by(AssetEvent.id)
        )
        return [event.extra["version"] for event in events]


def eventually(name: str, expected: list[str], seconds: float = 20.0) -> float:
    began = time.monotonic()
    while announced(name) != expected:
        assert time.monotonic() - began < seconds, announced(name)
        time.sleep(0.02)
    return time.monotonic() - began


@contextlib.contextmanager
def webhook_to(client: Any, endpoint: str, secret: str = SECRET) -> Iterator[None]:
    from mlflow.entities.webhook import WebhookEvent

    made = client.create_webhook(
        "to-airflow", endpoint, [WebhookEvent.from_str("model_version_alias.created")], secret=secret
    )
    yield
    client.delete_webhook(made.webhook_id)


def deliver(endpoint: str, name: str, *, secret: str = SECRET, sent: int | None = None) -> httpx.Response:
    """Send what MLflow sends, signed by its own function."""
    from mlflow.webhooks.delivery import _generate_hmac_signature

    data = {"name": name, "alias": "champion", "version": "1"}
    body = json.dumps({"entity": "model_version_alias", "action": "created", "timestamp": "", "data": data})
    when = str(sent or int(time.time()))
    headers = {
        "X-MLflow-Delivery-Id": "d",
        "X-MLflow-Timestamp": when,
        "X-MLflow-Signature": _generate_hmac_signature(secret, "d", when, body),
    }
    return httpx.post(endpoint, content=body, headers=headers, trust_env=False, timeout=30)


def test_a_real_webhook_is_an_asset_event_within_a_second(client, endpoint, model):
    deliver(endpoint, model)  # the first request makes the app
    with webhook_to(client, endpoint):
        client.set_registered_model_alias(model, "champion", "2")
        eventually(model, ["2"])
        client.set_registered_model_alias(model, "champion", "3")
        seconds = eventually(model, ["2", "3"])
    assert seconds < 5  # 0.2 on a free machine
    print(f"announced after {seconds:.2f} s")
    # A delivery that is repeated, and one that comes late, announce nothing.
    assert deliver(endpoint, model).json() == {"announced": []}
    assert announced(model) == ["2", "3"]


def test_forged_and_old_webhooks_announce_nothing_and_learn_nothing(client, endpoint, model):
    client.set_registered_model_alias(model, "champion", "1")
    forged = deliver(endpoint, model, secret="guessed")
    old = deliver(endpoint, model, sent=int(time.time()) - 3_600)
    unknown = deliver(endpoint.replace(CONN, "no_such_connection"), model)
    unsigned = httpx.post(endpoint, content=b"{}", trust_env=False)
    assert {answer.status_code for answer in (forged, old, unknown, unsigned)} == {401}
    assert len({answer.text for answer in (forged, old, unknown, unsigned)}) == 1
    assert announced(model) == []
    assert deliver(endpoint, model).json() == {"announced": ["1"]}


def test_a_promotion_that_announces_itself_is_not_announced_by_its_webhook(client, endpoint, model):
    from datetime import UTC, datetime

    from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook
    from airflow_ml_provider.tracking.ledger import AliasMove, Ledger
    from airflow_ml_provider.tracking.moves import make_move, where
    from airflow_ml_provider.tracking.watching import ANNOUNCED_BY_TASK

    book, now = Ledger(ArtifactStoreHook().store.objects), datetime.now(UTC)
    move = AliasMove(
        registered_model_name=model,
        alias="champion",
        version="2",
        previous_version=None,
        effective_at=now,
        recorded_at=now,
        actor={"dag_id": "d", "run_id": "r", "task_id": "promote"},
        evidence={ANNOUNCED_BY_TASK: True},
    )
    make_move(client, book, move, where(client, book, model, "champion"))
    assert deliver(endpoint, model).json() == {"announced": []}


def test_no_transaction_waits_for_mlflow(client, endpoint, model, monkeypatch):
    """A row that is locked while MLflow hangs would hold up the promotion that moved the alias."""
    from airflow.utils import session as sessions

    from airflow_ml_provider.plugins import webhooks

    opened: list[object] = []
    seen: list[int] = []
    create_session, news_of = sessions.create_session, webhooks.news_of

    @contextlib.contextmanager
    def counted(*args, **kwargs):
        with create_session(*args, **kwargs) as session:
            opened.append(session)
            yield session
        opened.pop()

    def asked(*args):
        seen.append(len(opened))
        return news_of(*args)

    monkeypatch.setattr(sessions, "create_session", counted)
    monkeypatch.setattr(webhooks, "news_of", asked)
    client.set_registered_model_alias(model, "champion", "2")
    assert deliver(endpoint, model).json() == {"announced": ["2"]}
    assert seen == [0]


def test_a_move_that_another_announces_meanwhile_is_not_announced_again(client, endpoint, model, monkeypatch):
    from airflow_ml_provider.plugins import webhooks

    news_of, inner = webhooks.news_of, []

    def asked(*args):
        found = news_of(*args)
        if not inner:
            inner.append(None)
            inner.append(deliver(endpoint, model).json())
        return found

    monkeypatch.setattr(webhooks, "news_of", asked)
    client.set_registered_model_alias(model, "champion", "2")
    assert deliver(endpoint, model).json() == {"announced": []}
    assert inner[1] == {"announced": ["2"]}
    assert announced(model) == ["2"]
    client.set_registered_model_alias(model, "champion", "3")
    assert deliver(endpoint, model).json() == {"announced": ["3"]}


def test_an_alias_that_no_dag_waits_for_is_left_alone(client, endpoint):
    assert "no DAG uses" in deliver(endpoint, "unknown_model").json()["ignored"]


def test_the_api_server_serves_the_endpoint(airflow_db):
    from airflow.api_fastapi.app import init_plugins
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    app = FastAPI()
    init_plugins(app)
    answer = TestClient(app).post("/ml-provider/webhooks/mlflow/mlflow_default", content=b"{}")
    assert answer.status_code == 401
