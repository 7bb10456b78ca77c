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
from airflow_ml_provider.exceptions import StoreError, WebhookRefusedError
from airflow_ml_provider.tracking.watching import WATERMARK_KEY, Watermark, news_of
from airflow_ml_provider.tracking.webhooks import Delivery, verified

log = logging.getLogger(__name__)

URL_PREFIX = "/ml-provider"
ALIAS_SET = "model_version_alias.created"
_MAX_BODY = 1_000_000
_AT_ONCE = 4


def make_app() -> Any:
    """Make the app with the route ``POST /webhooks/mlflow/{mlflow_conn_id}``."""
    import anyio
    from fastapi import FastAPI, HTTPException, Request

    from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook

    # Of the API server's threads, which take the heartbeats of tasks too.
    at_once = anyio.CapacityLimiter(_AT_ONCE)
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
            return await anyio.to_thread.run_sync(receive, mlflow_conn_id, headers, body, limiter=at_once)
        except WebhookRefusedError as exc:
            # Why is for the log: who sends forged webhooks learns nothing, not even which connections exist.
            log.warning("Refused a webhook for the connection %r: %s", mlflow_conn_id, exc)
            raise HTTPException(401, "the webhook is not signed by the connection's webhook_secret") from None
        except StoreError:
            ArtifactStoreHook.forget()  # its keys may have been rotated: the repetition reads the connection
            raise

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
    asset_of_alias = select(AssetModel).where(
        AssetModel.uri == model_asset_uri(name, alias), AssetModel.active.has()
    )
    # Lets one of two API servers, or of two deliveries, announce a move.
    locked = asset_of_alias.with_for_update(of=AssetModel)
    unused: dict[str, Any] = {"announced": [], "ignored": f"no DAG uses the asset of {name}@{alias}"}
    with create_session() as session:
        asset = session.scalar(asset_of_alias)
        if asset is None:
            return unused
        known = _announced(asset.id, session)
    # No transaction is open meanwhile: a server that hangs would hold up whatever announces this asset.
    ledger = Ledger(ArtifactStoreHook().store.objects)
    if known is None:
        # Nobody watched so far: what is new is what the ledger does not know, before MLflow is asked.
        latest = ledger.latest_turn(name, alias)
        number = -1 if latest is None or latest.sequence is None else latest.sequence
        with create_session() as session:
            asset = session.scalar(locked)
            if asset is None:
                return unused
            known = _announced(asset.id, session) or Watermark(None, number)
            _remember(asset.id, known, session)
    extras, reached = news_of(MlflowHook(mlflow_conn_id).client, ledger, name, alias, known)
    with create_session() as session:
        asset = session.scalar(locked)
        if asset is None:
            return unused
        others = _announced(asset.id, session)
        extras = [extra for extra in extras if others is None or extra["sequence"] > others.sequence]
        for extra in extras:
            asset_manager.register_asset_change(asset=asset, extra=extra, session=session)
        if others is None or reached.sequence > others.sequence:
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
