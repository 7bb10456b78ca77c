# SPDX-License-Identifier: Apache-2.0
"""The way of a model through a real Airflow: trained, judged, promoted or not, and scored with."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.support.openlineage_schemas import check_event

if TYPE_CHECKING:
    from demo.airflow_api import Json
    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e


@dataclass
class Promoted:
    """A first training, promoted, and the scoring run that followed."""

    run_id: str
    scoring: Json
    xcoms: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="module")
def promoted(cluster: Cluster) -> Promoted:
    for dag_id in ("e2e_scoring", "e2e_training"):
        cluster.airflow.unpause(dag_id)
    run_id = cluster.airflow.trigger("e2e_training", conf={"noise": 0.1})
    cluster.finish("e2e_training", run_id)
    scoring = cluster.eventually(lambda: cluster.airflow.dag_runs("e2e_scoring"))[0]
    scoring = cluster.finish("e2e_scoring", scoring["dag_run_id"])
    return Promoted(run_id, scoring, cluster.airflow.xcoms("e2e_training", run_id))


def test_a_promotion_triggers_the_dag_that_waits_for_the_champion(
    cluster: Cluster, promoted: Promoted
) -> None:
    assert promoted.xcoms["promote"]["promoted"] is True
    assert promoted.scoring["run_type"] == "asset_triggered"
    (event,) = cluster.airflow.upstream_asset_events("e2e_scoring", promoted.scoring["dag_run_id"])
    assert event["source_run_id"] == promoted.run_id
    extra = event["extra"]
    assert extra["version"] == "1"
    assert extra["previous_version"] is None
    assert extra["metrics"]["roc_auc"] > 0.9
    assert extra["mlflow_run_id"]


def test_mlflow_and_airflow_agree_about_the_champion(cluster: Cluster, promoted: Promoted) -> None:
    found = cluster.mlflow(
        "GET", "registered-models/alias", params={"name": "e2e_model", "alias": "champion"}
    )
    assert found["model_version"]["version"] == promoted.xcoms["promote"]["version"] == "1"


def test_xcoms_are_envelopes_that_a_reader_understands(cluster: Cluster, promoted: Promoted) -> None:
    envelope = promoted.xcoms["learn"]
    assert envelope["kind"] == "ml-artifact/v1"
    assert envelope["name"] == "e2e_learn"
    assert envelope["type"] == "pandas.DataFrame"
    assert envelope["producer"]["task_id"] == "learn"
    assert [column["name"] for column in envelope["schema"]["columns"]] == ["a", "b", "late"]
    assert envelope["preview"]
    assert "__classname__" not in envelope
    scores = cluster.airflow.xcom("e2e_scoring", promoted.scoring["dag_run_id"], "score")
    assert scores["name"] == "e2e_scores"
    assert promoted.xcoms["evaluate"]["metrics"]["roc_auc"] > 0.9
    assert promoted.xcoms["evaluate"]["rows"] == 500


@pytest.mark.parametrize("task_id", ["fit", "evaluate", "promote"])
def test_a_task_links_to_its_page_in_mlflow(cluster: Cluster, promoted: Promoted, task_id: str) -> None:
    links = cluster.airflow.extra_links("e2e_training", promoted.run_id, task_id)
    addresses = [address for address in links.values() if address]
    assert addresses
    for address in addresses:
        assert address.startswith(cluster.mlflow_url)
        assert httpx.get(address, trust_env=False).status_code == 200


def test_a_training_run_in_mlflow_knows_its_task_and_its_data(cluster: Cluster, promoted: Promoted) -> None:
    run_id = promoted.scoring and promoted.xcoms["promote"]["mlflow_run_id"]
    run = cluster.mlflow("GET", "runs/get", params={"run_id": run_id})["run"]
    assert run["info"]["status"] == "FINISHED"
    tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
    assert tags["airflow.dag_id"] == "e2e_training"
    assert tags["airflow.task_id"] == "fit"
    assert tags["airflow.dag_run_id"] == promoted.run_id
    assert {"key": "strength", "value": "1.0"} in run["data"]["params"]
    (used,) = run["inputs"]["dataset_inputs"]
    assert used["dataset"]["digest"] in promoted.xcoms["learn"]["digest"]


def test_workers_tell_openlineage_what_the_story_read_and_wrote(cluster: Cluster, promoted: Promoted) -> None:
    def told() -> dict[str, Json]:
        events = cluster.openlineage_events("e2e_training", "e2e_scoring")
        for event in events:
            check_event(event)
        return {each["job"]["name"]: each for each in events if each["eventType"] == "COMPLETE"}

    ends = cluster.eventually(lambda: "e2e_scoring.score" in (found := told()) and found)
    (scored_with,) = [each for each in ends["e2e_scoring.score"]["inputs"] if each["name"] == "e2e_model"]
    (promoted_to,) = [each for each in ends["e2e_training.promote"]["outputs"] if each["name"] == "e2e_model"]
    assert scored_with["facets"]["version"] == promoted_to["facets"]["version"]
    (learned_from,) = ends["e2e_training.fit"]["inputs"]
    assert learned_from["namespace"] == f"file://{cluster.artifacts}"
    assert learned_from["facets"]["version"]["datasetVersion"] == promoted.xcoms["learn"]["version_id"]
    quality = learned_from["inputFacets"]["dataQualityMetrics"]
    assert quality["rowCount"] == 2000
    assert {name: each["nullCount"] for name, each in quality["columnMetrics"].items()} == {
        "a": 0,
        "b": 0,
        "late": 0,
    }
    assert [each["name"] for each in ends["e2e_scoring.score"]["outputs"]] == ["e2e_scores"]


def test_a_rejection_succeeds_says_why_and_triggers_nothing(cluster: Cluster, promoted: Promoted) -> None:
    before = len(cluster.airflow.asset_events())
    run_id = cluster.airflow.trigger("e2e_training", conf={"noise": 1.0})
    cluster.finish("e2e_training", run_id)
    decision = cluster.airflow.xcom("e2e_training", run_id, "promote")
    assert decision["promoted"] is False
    assert "roc_auc" in " ".join(decision["reasons"])
    # The champion that was there judged the same rows.
    assert cluster.airflow.xcom("e2e_training", run_id, "evaluate")["baseline_metrics"]["roc_auc"] > 0.9
    assert not [
        e for e in cluster.airflow.asset_events(source_dag_id="e2e_training") if e["source_run_id"] == run_id
    ]
    assert len(cluster.airflow.asset_events()) == before
    assert len(cluster.airflow.dag_runs("e2e_scoring")) == 1
    found = cluster.mlflow(
        "GET", "registered-models/alias", params={"name": "e2e_model", "alias": "champion"}
    )
    assert found["model_version"]["version"] == "1"


def test_a_training_killed_by_sigkill_leaves_a_true_run_and_its_retry_continues_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    cluster.airflow.unpause("e2e_killed")
    run_id = cluster.airflow.trigger("e2e_killed", conf={"pid_file": str(pid_file)})
    pid = int(cluster.eventually(lambda: pid_file.exists() and pid_file.read_text().strip()))
    (run,) = cluster.mlflow_runs("e2e_killed")
    assert run["info"]["status"] == "RUNNING"

    os.kill(pid, signal.SIGKILL)

    def state() -> str:
        return str(cluster.airflow.task_instance("e2e_killed", run_id, "fit")["state"])

    def closed() -> str | None:
        (only,) = cluster.mlflow_runs("e2e_killed")
        status: str = only["info"]["status"]
        return status if status != "RUNNING" else None

    assert cluster.eventually(closed, timeout=8) == "KILLED"
    cluster.eventually(lambda: state() == "up_for_retry", timeout=9)
    cluster.finish("e2e_killed", run_id)
    (only,) = cluster.mlflow_runs("e2e_killed")
    assert only["info"]["run_id"] == run["info"]["run_id"]
    assert only["info"]["status"] == "FINISHED"
    assert cluster.airflow.task_instance("e2e_killed", run_id, "fit")["try_number"] == 2
