# SPDX-License-Identifier: Apache-2.0
"""The summary of what a small fake Airflow answers; MLflow is a real HTTP server with one route."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.settings import derive_key
from demo.errors import ApiError, DemoError
from demo.output import Output
from demo.summary import Summary, collect, deciding_reasons, decision_of, evaluation_of, short, show

FERNET_KEY = "a fernet key of nobody"


def run(dag_id: str, start: str, end: str, run_type: str) -> dict[str, Any]:
    return {
        "dag_id": dag_id,
        "dag_run_id": f"{run_type}__{start}",
        "run_type": run_type,
        "state": "success",
        "data_interval_start": f"{start}T00:00:00Z",
        "data_interval_end": f"{end}T00:00:00Z",
        "logical_date": None,
        "run_after": f"{end}T00:00:00Z",
    }


def evaluated(version: str | None, roc_auc: float, baseline: float | None = None) -> dict[str, Any]:
    return {
        "model_uri": "models:/m-1",
        "metrics": {"roc_auc": roc_auc},
        "baseline_metrics": None if baseline is None else {"roc_auc": baseline},
        "rows": 900,
        "version": version,
        "mlflow_run_id": "abc",
    }


def decided(promoted: bool, version: str | None, previous: str | None, **more: Any) -> dict[str, Any]:
    return {
        "promoted": promoted,
        "version": version,
        "previous_version": previous,
        "reasons": ["first", "second"],
        **more,
    }


class FakeAirflow:
    """Two trainings, one of which promotes; a training by hand; a scoring by hand, one by event; two days."""

    def __init__(self) -> None:
        self.runs = [
            run("training", "2013-02-01", "2013-03-01", "scheduled"),
            run("training", "2013-03-01", "2013-04-01", "scheduled"),
            run("training", "2013-02-01", "2013-03-01", "manual"),
            run("scoring", "2013-03-01", "2013-03-01", "asset_triggered"),
            run("scoring", "2013-03-02", "2013-03-02", "manual"),
            run("evaluation", "2013-03-06", "2013-03-07", "backfill"),
            run("evaluation", "2013-03-05", "2013-03-06", "backfill"),
        ]
        self.values: dict[str, dict[str, Any]] = {
            "training scheduled__2013-02-01": {
                "fit": {"kind": "ml-model/v1"},
                "evaluate": evaluated(None, 0.70, 0.65),
                "promote": decided(True, "2", "1"),
            },
            "training scheduled__2013-03-01": {
                "evaluate": evaluated(None, 0.60, 0.70),
                "promote": decided(
                    False,
                    None,
                    "2",
                    gates=[{"passed": True, "reason": "first"}, {"passed": False, "reason": "second"}],
                ),
            },
            "training manual__2013-02-01": {
                "evaluate": evaluated(None, 0.69, 0.70),
                "promote": decided(False, None, "2"),
            },
            "evaluation backfill__2013-03-05": {"evaluate": evaluated("1", 0.66)},
            "evaluation backfill__2013-03-06": {"evaluate": evaluated("2", 0.71)},
        }
        self.caches: dict[str, dict[str, Any]] = {
            "training manual__2013-02-01": {"features": {"hit": True}, "holdout": {"hit": False}},
        }
        self.events = [{"extra": {"registered_model_name": "delay", "alias": "champion", "version": "2"}}]

    def dag_runs(self, dag_id: str, **filters: Any) -> list[dict[str, Any]]:
        wanted = {"dag_id": dag_id, **filters}
        return [r for r in self.runs if all(r[name] == value for name, value in wanted.items())]

    def xcoms(self, dag_id: str, run_id: str, key: str = "return_value") -> dict[str, Any]:
        found = self.values if key == "return_value" else self.caches
        return found.get(f"{dag_id} {run_id}", {})

    def asset_events(self, **_: Any) -> list[dict[str, Any]]:
        return self.events


class FakeMlflow(BaseHTTPRequestHandler):
    version = "2"

    def do_GET(self) -> None:
        known = "name=delay&alias=champion" in self.path
        body = {"model_version": {"version": self.version}} if known else {"error_code": "NOT_FOUND"}
        content = json.dumps(body).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def mlflow_url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), FakeMlflow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def cluster(tmp_path: Path, mlflow_url: str) -> Any:
    return SimpleNamespace(
        airflow=FakeAirflow(),
        airflow_url="http://127.0.0.1:1",
        mlflow_url=mlflow_url,
        artifacts=tmp_path,
        fernet_key=FERNET_KEY,
        folder=tmp_path,
    )


def summed_up(cluster: Any) -> Summary:
    return collect(
        cluster,
        training="training",
        scoring="scoring",
        evaluation="evaluation",
        wall_seconds=12.34,
        seconds={"started": 1.0},
    )


def test_the_summary_counts_what_really_happened(cluster: Any) -> None:
    store = ArtifactStore(cluster.artifacts.as_uri(), signing_key=derive_key(FERNET_KEY.encode()))
    for _ in range(2):
        store.save(b"the same flights twice", "flights")
    summary = summed_up(cluster)
    assert (summary.training_runs, summary.promotions, summary.rejections) == (3, 1, 2)
    assert summary.scoring_runs_triggered_by_asset == 1
    assert [(e.date, e.model_version, e.rows) for e in summary.evaluations] == [
        ("2013-03-05", "1", 900),
        ("2013-03-06", "2", 900),
    ]
    assert (summary.artifacts, summary.artifact_names) == (2, 1)
    assert summary.bytes_logical == 2 * summary.bytes_stored > 0
    champion = summary.champion
    assert (champion.name, champion.version, champion.previous_version) == ("delay", "2", "1")
    assert (champion.metrics, champion.previous_metrics) == ({"roc_auc": 0.70}, {"roc_auc": 0.65})


def test_the_file_has_the_fields_that_readers_rely_on(cluster: Any, tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    summed_up(cluster).write(path)
    written = json.loads(path.read_text())
    assert {
        "training_runs",
        "champion",
        "promotions",
        "rejections",
        "scoring_runs_triggered_by_asset",
        "evaluations",
        "artifacts",
        "bytes_logical",
        "bytes_stored",
        "wall_seconds",
    } <= written.keys()
    assert {"name", "version", "metrics"} <= written["champion"].keys()
    assert {"date", "model_version", "metrics", "rows"} <= written["evaluations"][0].keys()


def test_the_tables_show_champion_decisions_and_days(cluster: Any) -> None:
    stream = io.StringIO()
    show(summed_up(cluster), Output(stream))
    text = stream.getvalue()
    for shown in (
        "delay version 2",
        "version 1 before it",
        "rejected",
        "2013-02 by hand",
        "second",
        "2013-03-05",
        "roc_auc 0.7100",
    ):
        assert shown in text


def test_what_a_run_reused_is_told_with_its_decision(cluster: Any) -> None:
    found = {d.run_id: (d.by_hand, d.reused) for d in summed_up(cluster).decisions}
    assert found == {
        "scheduled__2013-02-01": (False, ()),
        "scheduled__2013-03-01": (False, ()),
        "manual__2013-02-01": (True, ("features",)),
    }


def test_a_champion_that_no_run_promoted_is_an_error(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeMlflow, "version", "7")
    with pytest.raises(DemoError, match="delay@champion is version 7, which no training run promoted"):
        summed_up(cluster)


def test_no_event_of_a_model_is_an_error(cluster: Any) -> None:
    cluster.airflow.events = [{"extra": {}}]
    with pytest.raises(DemoError, match="no asset event of a model"):
        summed_up(cluster)


def test_an_alias_that_mlflow_does_not_know_is_an_error(cluster: Any) -> None:
    cluster.airflow.events[0]["extra"]["alias"] = "challenger"
    with pytest.raises(ApiError, match="no 'delay' with alias 'challenger'"):
        summed_up(cluster)


def test_an_evaluation_without_a_result_is_an_error(cluster: Any) -> None:
    cluster.airflow.values.pop("evaluation backfill__2013-03-05")
    with pytest.raises(DemoError, match="backfill__2013-03-05 succeeded, but left no evaluation"):
        evaluation_of(cluster.airflow, cluster.airflow.dag_runs("evaluation")[1])


def test_a_run_that_decided_nothing_has_no_decision(cluster: Any) -> None:
    assert decision_of(cluster.airflow, cluster.airflow.dag_runs("scoring")[0]) is None


@pytest.mark.parametrize(
    ("decision", "reasons"),
    [
        (decided(True, "1", None), ["first", "second"]),
        (decided(False, None, None, gates=[{"passed": False, "reason": "second"}]), ["second"]),
        (decided(True, "1", None, gates=[{"passed": True, "reason": "first"}]), ["first", "second"]),
    ],
)
def test_a_rejection_is_explained_by_what_failed(decision: dict[str, Any], reasons: list[str]) -> None:
    assert deciding_reasons(decision) == reasons


@pytest.mark.parametrize(
    ("metrics", "text"),
    [
        ({"roc_auc": 0.5, "other": 1.0}, "roc_auc 0.5000"),
        ({"b": 2.0, "a": 1.0}, "a 1.0000  b 2.0000"),
        ({}, "-"),
        (None, "-"),
    ],
)
def test_metrics_are_written_short(metrics: dict[str, float] | None, text: str) -> None:
    assert short(metrics) == text
