# SPDX-License-Identifier: Apache-2.0
"""
Metrics over steps: the one thing that the pages ask MLflow for.

Asked by HTTP with short limits and not through MlflowClient, which would load MLflow into the API server and
waits for minutes. Whatever goes wrong is an answer of its own, in a few seconds.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooSlow
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_ml_provider.artifacts.objects import at_once
from airflow_ml_provider.artifacts.preview import short
from airflow_ml_provider.plugins.api.mlflow_pages import mlflow_pages
from airflow_ml_provider.plugins.api.shapes import Json, number
from airflow_ml_provider.settings import load_settings
from airflow_ml_provider.tracking.errors import without_password

if TYPE_CHECKING:
    from airflow_ml_provider.hooks.mlflow import MlflowHook

log = logging.getLogger(__name__)

SECONDS = 5.0
MOST_POINTS = 1000
MOST_METRICS = 20
# MLflow's own page asks this for the same purpose; servers before it, and hosted ones, have the second alone.
_SAMPLED = "metrics/get-history-bulk-interval"
_WHOLE = "metrics/get-history"
# Few, so that a server that hangs holds few threads; who waits for one in vain is told the same.
_threads = ThreadPoolExecutor(4, thread_name_prefix="ml-provider-mlflow")


class _NoAnswerError(Exception):
    """Why there are no metrics, for people."""


def metrics_over_steps(run_id: str | None) -> Json:
    """Return the metrics of an MLflow run over their steps, or why there are none."""
    if not run_id:
        return _answer("no_run", "This attempt has no MLflow run.")
    try:
        hook = _hook()
        future = _threads.submit(_ask, hook, run_id, time.monotonic() + SECONDS)
        return future.result(SECONDS + 1)
    except _NoAnswerError as exc:
        return _answer("unavailable", str(exc))
    except TooSlow:
        future.cancel()
        return _answer("unavailable", f"MLflow did not answer within {SECONDS:.0f} seconds.")


def _answer(state: str, message: str | None = None, run: Json | None = None, metrics: Any = ()) -> Json:
    return {"state": state, "message": message, "run": run, "metrics": list(metrics)}


def _hook() -> MlflowHook:
    """Read the connection, which is not MLflow's time but that of Airflow's database or secrets backend."""
    from airflow_ml_provider.hooks.mlflow import MlflowHook

    conn_id = load_settings().mlflow_conn_id
    hook = MlflowHook(conn_id)
    try:
        tracking_uri = hook.tracking_uri
    except Exception as exc:
        log.warning("no metrics over steps: reading the connection %r failed: %s", conn_id, exc)
        raise _NoAnswerError(f"The connection {conn_id!r} to MLflow cannot be read.") from exc
    if not tracking_uri.startswith(("http://", "https://")):
        raise _NoAnswerError("Metrics over steps are shown where MLflow is a server; this one is a database.")
    return hook


def _ask(hook: MlflowHook, run_id: str, deadline: float) -> Json:
    server = _Server(hook, deadline)
    found = server.get("runs/get", {"run_id": run_id})
    if found is None:
        return _answer("no_run", "MLflow has this run no more.")
    data, info = found["run"].get("data", {}), found["run"]["info"]
    names = sorted(metric["key"] for metric in data.get("metrics", ()))
    latest = {metric["key"]: metric for metric in data.get("metrics", ())}

    def series(name: str) -> Json:
        # One value has no history: most metrics of an evaluation.
        points = [latest[name]]
        if int(latest[name].get("step", 0)) > 0:
            points = server.history(run_id, name) or points
        return _series(name, points)

    shown = _answer(
        "ok",
        None
        if len(names) <= MOST_METRICS
        else f"{len(names)} metrics; these are the first {MOST_METRICS}, MLflow shows all.",
        {
            "run_id": run_id,
            "experiment_id": info.get("experiment_id"),
            "run_url": mlflow_pages().run(info.get("experiment_id"), run_id),
            "status": info.get("status"),
            "params": {item["key"]: short(item["value"], 500) for item in data.get("params", ())},
        },
    )
    shown["metrics"] = at_once(series, names[:MOST_METRICS])
    return shown


def _series(name: str, points: list[Any]) -> Json:
    every = -(-len(points) // MOST_POINTS)
    kept = points[::every]
    if kept[-1] is not points[-1]:
        kept.append(points[-1])
    return {
        "name": name,
        "points": [
            {
                "step": int(point.get("step", 0)),
                "time": datetime.fromtimestamp(int(point.get("timestamp", 0)) / 1000, UTC).isoformat(),
                "value": number(point.get("value")),
            }
            for point in kept
        ],
        "sampled": every > 1 or len(points) >= MOST_POINTS,
    }


class _Server:
    def __init__(self, hook: MlflowHook, deadline: float) -> None:
        self._address = hook.tracking_uri.rstrip("/")
        self._credentials = hook.credentials
        self._deadline = deadline

    def get(self, what: str, query: dict[str, Any]) -> Json | None:
        """Ask for something; None if the server has it not."""
        import requests

        left = self._deadline - time.monotonic()
        shown = without_password(self._address)
        if left <= 0:
            raise _NoAnswerError(f"MLflow at {shown} did not answer within {SECONDS:.0f} seconds.")
        given = self._credentials
        try:
            answer = requests.get(
                f"{self._address}/api/2.0/mlflow/{what}",
                params=query,
                timeout=(min(left, 2.0), left),
                auth=(given.username, given.password or "") if given.username else None,
                headers={"Authorization": f"Bearer {given.token}"} if given.token else None,
                verify=False if given.insecure_tls else given.ca_bundle or True,
                allow_redirects=False,
            )
        except requests.RequestException as exc:
            log.warning("MLflow at %s does not answer: %s", shown, exc)
            raise _NoAnswerError(f"MLflow does not answer at {shown}.") from exc
        if answer.status_code == 404:
            return None
        if answer.status_code in (401, 403):
            raise _NoAnswerError(f"MLflow at {shown} refuses the connection's credentials.")
        if answer.status_code != 200:
            raise _NoAnswerError(f"MLflow at {shown} answers with HTTP {answer.status_code}.")
        try:
            found = answer.json()
        except ValueError as exc:
            raise _NoAnswerError(f"What answers at {shown} is not MLflow.") from exc
        if not isinstance(found, dict):
            raise _NoAnswerError(f"What answers at {shown} is not MLflow.")
        return found

    def history(self, run_id: str, name: str) -> list[Any]:
        """All values of a metric, or evenly chosen ones, by step."""
        query = {"metric_key": name, "max_results": MOST_POINTS}
        found = self.get(_SAMPLED, {**query, "run_ids": run_id})
        if found is None:
            found = self.get(_WHOLE, {**query, "run_id": run_id, "max_results": 25_000}) or {}
        points = found.get("metrics", [])
        return sorted(points, key=lambda point: (int(point.get("step", 0)), int(point.get("timestamp", 0))))
