# SPDX-License-Identifier: Apache-2.0
"""
The endpoint of the API server that MLflow's webhooks are sent to.

MLflow cannot authenticate to Airflow's own REST API, so a webhook is let in by its signature. It is only a
hint: which alias may have moved. What is announced is what MLflow and the ledger say then, from where the
asset's state says it was announced to. So a delivery that is repeated announces nothing.
"""

# No "from __future__ import annotations" here: FastAPI would take the parameters for query fields.

import json
import logging
import time
from typing import Any

from airflow_ml_provider.assets.handlers import check_alias, check_registered_model_name, model_asset_uri
from airflow_ml_provider.exceptions import WebhookRefusedError
from airflow_ml_provider.tracking.watching import WATERMARK_KEY, Watermark, news_of
from airflow_ml_provider.tracking.webhooks import Delivery, verified

log = logging.getLogger(__name__)

URL_PREFIX = "/ml-provider"
ALIAS_SET = "model_version_alias.created"
_MAX_BODY = 1_000_000


def make_app() -> Any:
    """Make the app with the route ``POST /webhooks/mlflow/{mlflow_conn_id}``."""
    from fastapi import FastAPI, HTTPException, Request
    from starlette.concurrency import run_in_threadpool

    app = FastAPI(title="airflow-ml-provider", docs_url=None, redoc_url=None, openapi_url=None)

    @app.post("/webhooks/mlflow/{mlflow_conn_id}")
    async def mlflow_webhook(mlflow_conn_id: str, request: Request) -> dict[str, Any]:
        if int(request.headers.get("content-length") or 0) > _MAX_BODY:
            raise HTTPException(413, "too large for a webhook of MLflow")
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_BODY:
                raise HTTPException(413, "too large for a webhook of MLflow")
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            return await run_in_threadpool(receive, mlflow_conn_id, headers, body)
        except WebhookRefusedError as exc:
            # Why is for the log: who sends forged webhooks learns nothing, not even which connections exist.
            log.warning("Refused a webhook for the connection %r: %s", mlflow_conn_id, exc)
            raise HTTPException(401, "the webhook is not signed by the connection's webhook_secret") from None

    return app


def receive(mlflow_conn_id: str, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """
    Verify a webhook and announce the moves that it tells of.

    :returns: The versions that were announced.
    :raises WebhookRefusedError: if it is not to be trusted.
    """
    delivery = verified(headers, body, _secret_of(mlflow_conn_id), now=time.time())
    if delivery.event != ALIAS_SET:
        return {"announced": [], "ignored": delivery.event}
    return announce(mlflow_conn_id, delivery)


def announce(mlflow_conn_id: str, delivery: Delivery) -> dict[str, Any]:
    """Raise the asset event of each move of an alias that was not announced yet."""
    from airflow.assets.manager import asset_manager
    from airflow.models.asset import AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook
    from airflow_ml_provider.hooks.mlflow import MlflowHook
    from airflow_ml_provider.tracking.ledger import Ledger

    name, alias = str(delivery.data.get("name")), str(delivery.data.get("alias"))
    try:
        check_registered_model_name(name)
        check_alias(alias)
    except ValueError as exc:
        return {"announced": [], "ignored": str(exc)}
    with create_session() as session:
        # The lock lets one of two API servers, or of two deliveries, announce a move.
        asset = session.scalar(
            select(AssetModel)
            .where(AssetModel.uri == model_asset_uri(name, alias), AssetModel.active.has())
            .with_for_update(of=AssetModel)
        )
        if asset is None:
            return {"announced": [], "ignored": f"no DAG uses the asset of {name}@{alias}"}
        ledger = Ledger(ArtifactStoreHook().store.objects)
        known = _announced(asset.id, session)
        if known is None:
            # Nobody watched so far: what is new is what the ledger does not know.
            latest = ledger.latest_turn(name, alias)
            known = Watermark(None, -1 if latest is None or latest.sequence is None else latest.sequence)
        extras, reached = news_of(MlflowHook(mlflow_conn_id).client, ledger, name, alias, known)
        for extra in extras:
            asset_manager.register_asset_change(asset=asset, extra=extra, session=session)
        _remember(asset.id, reached, session)
    versions = [extra["version"] for extra in extras]
    log.info("Webhook %s: %s@%s, announced versions: %s", delivery.delivery_id, name, alias, versions)
    return {"announced": versions}


def _secret_of(mlflow_conn_id: str) -> str:
    from airflow.sdk import BaseHook

    try:
        connection = BaseHook.get_connection(mlflow_conn_id)
    except Exception as exc:
        raise WebhookRefusedError(f"reading the connection failed: {exc}") from exc
    if connection.conn_type != "mlflow":
        raise WebhookRefusedError(f"its type is {connection.conn_type!r}, not 'mlflow'")
    secret = (connection.extra_dejson or {}).get("webhook_secret")
    if not secret or not isinstance(secret, str):
        raise WebhookRefusedError("it has no webhook_secret; set it to the secret of the webhook in MLflow")
    return secret


def _announced(asset_id: int, session: Any) -> Watermark | None:
    from airflow._shared.state import AssetScope
    from airflow.state import get_state_backend

    stored = get_state_backend().get(AssetScope(asset_id=asset_id), WATERMARK_KEY, session=session)
    return None if stored is None else Watermark.from_json(json.loads(stored))


def _remember(asset_id: int, reached: Watermark, session: Any) -> None:
    from airflow._shared.state import AssetScope
    from airflow.state import get_state_backend

    get_state_backend().set(
        AssetScope(asset_id=asset_id), WATERMARK_KEY, json.dumps(reached.to_json()), session=session
    )
