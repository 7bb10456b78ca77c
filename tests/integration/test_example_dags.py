# SPDX-License-Identifier: Apache-2.0
"""The DAGs in ``dags/`` run, in the order in which their runs happen in the demo."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook
from airflow_ml_provider.hooks.mlflow import MlflowHook
from airflow_ml_provider.settings import load_settings

DAGS = Path(__file__).resolve().parents[2] / "dags"


@pytest.fixture(scope="module")
def dags(airflow_db: Path) -> Any:
    """The example DAGs, known to the metadata database."""
    from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db

    bag = BundleDagBag(dag_folder=DAGS, bundle_path=DAGS, load_op_links=False)
    assert bag.import_errors == {}
    sync_bag_to_db(bag, "dags-folder", None)
    return bag.dags


@pytest.fixture(scope="module")
def _one_store(tmp_path_factory: pytest.TempPathFactory, mlflow_server: str) -> Iterator[None]:
    """One artifact root for all tests of this file, beside the session's MLflow server."""
    root = tmp_path_factory.mktemp("example") / "artifacts"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__ML_PROVIDER__ARTIFACT_ROOT", f"file://{root}")
        load_settings.cache_clear()
        yield
    load_settings.cache_clear()


@pytest.fixture(scope="module")
def trained(dags: Any, _one_store: None) -> list[Any]:
    """Training runs for the data of February, March and April."""
    # A manual run is about the interval that ends at its logical date.
    return [
        dags["flight_delay_training"].test(logical_date=datetime(2013, month, 1, tzinfo=UTC))
        for month in (3, 4, 5)
    ]


def test_training_promotes_what_is_clearly_better_and_nothing_else(
    trained: list[Any], xcom_table: Callable[..., Any]
) -> None:
    assert [run.state for run in trained] == ["success"] * 3
    decisions = [xcom_table(run, "promote") for run in trained]
    assert [found["promoted"] for found in decisions] == [True, True, False], [
        found["reasons"] for found in decisions
    ]
    assert [found["version"] for found in decisions] == ["1", "2", None]
    assert all(0.6 <= found["metrics"]["roc_auc"] <= 0.8 for found in decisions)
    assert str(MlflowHook().client.get_model_version_by_alias("flight_delay", "champion").version) == "2"


@pytest.mark.usefixtures("trained")
def test_trying_another_depth_by_hand_computes_no_table_again(
    dags: Any, xcom_table: Callable[..., Any]
) -> None:
    run = dags["flight_delay_training"].test(
        logical_date=datetime(2013, 5, 15, tzinfo=UTC), run_conf={"max_depth": 2}
    )
    assert run.state == "success"
    for task_id in ("features", "holdout"):
        assert xcom_table(run, task_id, "cache")["hit"] is True, xcom_table(run, task_id, "cache")
    client = MlflowHook().client
    assert client.get_run(xcom_table(run, "fit")["mlflow_run_id"]).data.params["max_depth"] == "2"
    assert xcom_table(run, "promote")["promoted"] is False


@pytest.mark.usefixtures("trained")
def test_scoring_stores_predictions_for_each_flight_of_the_week(dags: Any) -> None:
    run = dags["flight_delay_scoring"].test(run_conf={"week_from": "2013-04-01"})
    assert run.state == "success"
    predictions = ArtifactStoreHook().store.get("flight_predictions").load()
    assert list(predictions.columns) == [
        "scheduled_at",
        "carrier",
        "flight_number",
        "origin",
        "dest",
        "late_probability",
    ]
    assert predictions["late_probability"].between(0, 1).all()
    assert (predictions["scheduled_at"].min().date(), predictions["scheduled_at"].max().date()) == (
        datetime(2013, 4, 1).date(),
        datetime(2013, 4, 7).date(),
    )
    client = MlflowHook().client
    experiment = client.get_experiment_by_name("flight_delay_scoring")
    assert experiment is not None
    (noted,) = client.search_runs([experiment.experiment_id], "tags.`airflow.task_id` = 'outlook'")
    assert noted.data.metrics["flights"] == len(predictions)
    assert noted.data.metrics["expected_late"] == pytest.approx(predictions["late_probability"].sum())


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize(
    ("day_after", "version"),
    [
        pytest.param(datetime(2013, 3, 31, tzinfo=UTC), "1", id="the last day of the first champion"),
        pytest.param(datetime(2013, 4, 1, tzinfo=UTC), "2", id="the day at whose end the second counts"),
        pytest.param(datetime(2013, 5, 20, tzinfo=UTC), "2", id="after a rejection"),
    ],
)
def test_a_day_is_judged_with_the_champion_of_that_day(
    day_after: datetime, version: str, dags: Any, xcom_table: Callable[..., Any]
) -> None:
    run = dags["flight_delay_evaluation"].test(logical_date=day_after)
    assert run.state == "success"
    evaluation = xcom_table(run, "evaluate")
    assert evaluation["version"] == version
    assert evaluation["data"]["name"] == "flight_day"
    assert evaluation["rows"] > 500


@pytest.mark.usefixtures("_one_store")
def test_the_plain_dag_reports_and_its_frames_are_artifacts(dags: Any) -> None:
    run = dags["plain_weather_report"].test(run_conf={"month": "2013-05"})
    assert run.state == "success"
    report = ArtifactStoreHook().store.get("plain_weather_report.report").load()
    delays = report.set_index(["origin", "weather"])["delay_minutes"].unstack()
    assert list(delays.index) == ["EWR", "JFK", "LGA"]
    assert (delays["wet"] > delays["dry"]).all()
    assert isinstance(report, pd.DataFrame)


@pytest.mark.usefixtures("_one_store")
def test_the_shortest_training_makes_a_champion(dags: Any) -> None:
    run = dags["iris_training"].test()
    assert run.state == "success"
    client = MlflowHook().client
    version = client.get_model_version_by_alias("iris", "champion")
    trained = client.get_run(version.run_id)
    assert trained.data.params == {"max_depth": "3"}
    assert [used.dataset.name for used in trained.inputs.dataset_inputs] == ["iris_training.flowers"]
