# SPDX-License-Identifier: Apache-2.0
"""Operators and decorators in DAGs, run by ``dag.test()`` against a real MLflow server."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pytest
from airflow.sdk import DAG, CronDataIntervalTimetable, get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException
from sklearn.linear_model import LogisticRegression

from airflow_ml_provider.artifacts.refs import Artifact, ArtifactRef
from airflow_ml_provider.assets.assets import ArtifactAsset, ModelAsset
from airflow_ml_provider.exceptions import (
    AliasMovedError,
    ArtifactNotFoundError,
    GateMetricError,
    LeakageError,
    ModelInputError,
    ModelNotFoundError,
    StaleEvaluationError,
)
from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook
from airflow_ml_provider.hooks.mlflow import MlflowHook
from airflow_ml_provider.lineage.diff import diff_models
from airflow_ml_provider.lineage.graph import Lineage
from airflow_ml_provider.lineage.records import read_record
from airflow_ml_provider.operators import (
    BatchPredictOperator,
    EvaluateModelOperator,
    PromoteModelOperator,
    RegisterModelOperator,
    RollbackModelOperator,
    TrainModelOperator,
    promote,
)
from airflow_ml_provider.tracking import moves
from airflow_ml_provider.tracking.gates import MetricGate
from airflow_ml_provider.tracking.ledger import Ledger
from airflow_ml_provider.tracking.models import ModelRef

FEBRUARY, MARCH, APRIL = (datetime(2013, month, 1, tzinfo=UTC) for month in (2, 3, 4))
MONTHLY = CronDataIntervalTimetable("@monthly", timezone="UTC")
_numbers = itertools.count()


def make_flights(rows: int = 200, seed: int = 0) -> pd.DataFrame:
    """Flights that are late mostly when it is windy."""
    random = np.random.default_rng(seed)
    wind, hour = random.normal(size=rows), random.integers(0, 24, size=rows).astype("float64")
    late = wind + random.normal(scale=0.5, size=rows) > 0
    return pd.DataFrame({"flight": np.arange(rows), "wind": wind, "hour": hour, "late": late})


def fit_flights(data: pd.DataFrame, wrong_way: bool = False) -> LogisticRegression:
    labels = ~data["late"] if wrong_way else data["late"]
    return LogisticRegression().fit(data[["wind", "hour"]], labels)


@pytest.fixture(autouse=True)
def _real_parts(artifact_root: Path, mlflow_server: str) -> None:
    """Every test has an artifact root of its own, and the session's server."""


@pytest.fixture
def client(mlflow_server: str) -> Any:
    return MlflowHook().client


@pytest.fixture
def name() -> str:
    """A name for a DAG, an experiment and a model that no other test uses."""
    return f"flights_{next(_numbers)}"


@pytest.fixture
def seen() -> list[Any]:
    return []


@pytest.fixture
def failures() -> list[BaseException]:
    """The exceptions that ended attempts of the DAG's tasks."""
    return []


@pytest.fixture
def dag(name: str, failures: list[BaseException]) -> DAG:
    def note(context: Any) -> None:
        failures.append(context["exception"])

    return DAG(
        name,
        schedule=MONTHLY,
        start_date=datetime(2013, 1, 1, tzinfo=UTC),
        catchup=False,
        default_args={"retry_delay": 0, "on_failure_callback": note, "on_retry_callback": note},
    )


def states(run: Any) -> dict[str, str]:
    return {
        f"{ti.task_id}[{ti.map_index}]" if ti.map_index >= 0 else ti.task_id: str(ti.state)
        for ti in run.get_task_instances()
    }


def events_of(asset: Any) -> list[dict[str, Any]]:
    """The extras of an asset's events, oldest first."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        return list(
            session.scalars(
                select(AssetEvent.extra)
                .join(AssetModel, AssetModel.id == AssetEvent.asset_id)
                .where(AssetModel.uri == asset.uri)
                .order_by(AssetEvent.timestamp)
            )
        )


def april(day: int) -> datetime:
    return datetime(2013, 4, day, tzinfo=UTC)


def runs_of(client: Any, experiment: str, filter_string: str = "") -> list[Any]:
    found = client.get_experiment_by_name(experiment)
    return client.search_runs([found.experiment_id], filter_string, order_by=["attributes.start_time ASC"])


def model_in(xcom_table: Callable[..., Any], run: Any, task_id: str, **kwargs: Any) -> ModelRef:
    value = xcom_table(run, task_id, **kwargs)
    return ModelRef.from_json(value.get("value", value))


@pytest.fixture
def champion_dag(dag: DAG, name: str) -> DAG:
    """Train, compare with the champion, promote; conf says how good the model is."""
    champion = ModelAsset(name)
    with dag:

        @task
        def features() -> Annotated[pd.DataFrame, Artifact("flights/features")]:
            return make_flights()

        @task
        def holdout() -> pd.DataFrame:
            return make_flights(seed=1)

        @task.train
        def fit(data: pd.DataFrame, dag_run=None):
            return fit_flights(data, wrong_way=bool(dag_run.conf.get("wrong_way")))

        model = fit(features())
        evaluation = EvaluateModelOperator(
            task_id="evaluate",
            model=model,
            data=holdout(),
            target="late",
            baseline=champion.model_uri,
            plots=False,
        )
        PromoteModelOperator(
            task_id="promote",
            model=model,
            evaluation=evaluation.output,
            registered_model_name=name,
            gates=[MetricGate("roc_auc", at_least=0.6), MetricGate("roc_auc", gain_over_baseline=0.0)],
            bootstrap=True,
            outlets=[champion],
            retries=1,
        )
    return dag


def test_a_trained_model_crosses_as_a_reference_with_its_run(dag, name, run_dag, xcom_table, client, seen):
    with dag:

        @task
        def features() -> Annotated[pd.DataFrame, Artifact("flight_features")]:
            return make_flights()

        @task.train(experiment="{{ dag.dag_id }}_experiment")
        def fit(data: pd.DataFrame, depth: int = 6, note: str = "plain"):
            seen.append(data)
            return fit_flights(data), {"rows": len(data)}

        @task
        def use(model):
            seen.append(model)
            seen.append(model.load().predict(make_flights(5)[["wind", "hour"]]))

        use(fit(features()))

    run = run_dag(dag, logical_date=FEBRUARY)
    assert states(run) == dict.fromkeys(["features", "fit", "use"], "success")
    frame, ref, predicted = seen
    pd.testing.assert_frame_equal(frame, make_flights())
    assert isinstance(ref, ModelRef)
    assert (ref.flavor, ref.name, ref.metrics) == ("sklearn", "fit", {"rows": 200.0})
    assert ref.effective_at == "2013-02-01T00:00:00+00:00"
    assert len(predicted) == 5

    (tracked,) = runs_of(client, f"{name}_experiment")
    assert tracked.info.run_id == ref.mlflow_run_id
    assert tracked.info.status == "FINISHED"
    assert tracked.data.params == {"depth": "6", "note": "plain"}
    tags = tracked.data.tags
    assert (tags["airflow.dag_id"], tags["airflow.task_id"]) == (name, "fit")
    assert tags["airflow.data_interval_end"] == "2013-02-01T00:00:00+00:00"
    assert tags["git.commit"]
    (used,) = tracked.inputs.dataset_inputs
    stored = ArtifactStoreHook().store.get("flight_features")
    assert used.dataset.name == "flight_features"
    assert stored.digest.removeprefix("blake3:").startswith(used.dataset.digest)

    logged = client.get_logged_model(ref.model_id)
    assert logged.source_run_id == ref.mlflow_run_id
    from mlflow.models import get_model_info

    with MlflowHook().session():
        info = get_model_info(ref.model_uri)
    assert info.signature.inputs.input_names() == ["wind", "hour"]
    link = xcom_table(run, "fit", key="_link_MlflowRunLink")
    assert link == MlflowHook().run_url(ref.experiment_id, ref.mlflow_run_id)


def test_a_parameter_annotated_as_reference_gets_it_unloaded(dag, name, run_dag, client, seen):
    with dag:

        @task
        def features():
            return make_flights()

        @task.train
        def fit(data: ArtifactRef, again: pd.DataFrame):
            seen.append((data, again))
            return fit_flights(data.load())

        data = features()
        fit(data, data)

    run = run_dag(dag, logical_date=FEBRUARY)
    assert states(run)["fit"] == "success"
    ((ref, frame),) = seen
    assert isinstance(ref, ArtifactRef)
    assert isinstance(frame, pd.DataFrame)
    (tracked,) = runs_of(client, name)
    assert len(tracked.inputs.dataset_inputs) == 1


def test_a_retry_goes_on_with_the_same_mlflow_run(dag, name, run_dag, xcom_table, client, failures):
    with dag:

        @task.train(retries=1)
        def fit(depth: int = 3, ti=None):
            if ti.try_number == 1:
                raise RuntimeError("out of disk")
            return fit_flights(make_flights())

        fit()

    run = run_dag(dag, logical_date=FEBRUARY)
    assert states(run) == {"fit": "success"}
    assert [str(error) for error in failures] == ["out of disk"]
    (tracked,) = runs_of(client, name)
    assert tracked.info.status == "FINISHED"
    assert tracked.data.tags["airflow.try_number"] == "2"
    assert model_in(xcom_table, run, "fit").mlflow_run_id == tracked.info.run_id


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        pytest.param(None, "returned None, which is no model", id="nothing"),
        pytest.param(object(), "no MLflow flavor here writes builtins.object", id="an object"),
    ],
)
def test_what_is_no_model_fails_the_task_and_its_run(dag, name, run_dag, client, failures, returned, message):
    with dag:
        TrainModelOperator(task_id="fit", python_callable=lambda: returned)

    run = run_dag(dag, logical_date=FEBRUARY)
    assert states(run) == {"fit": "failed"}
    assert message in str(failures[0])
    (tracked,) = runs_of(client, name)
    assert tracked.info.status == "FAILED"


def test_a_killed_task_leaves_a_killed_run(dag, name, run_dag, client):
    with dag:

        @task.train
        def fit():
            get_current_context()["ti"].task.on_kill()
            raise SystemExit(1)

        fit()

    run = run_dag(dag, logical_date=FEBRUARY)
    assert states(run) == {"fit": "failed"}
    (tracked,) = runs_of(client, name)
    assert tracked.info.status == "KILLED"


def test_mapped_trainings_are_children_of_one_run(dag, name, run_dag, xcom_table, client, seen):
    with dag:

        @task
        def features():
            return make_flights()

        @task.train
        def fit(data: pd.DataFrame, strength: float):
            return LogisticRegression(C=strength).fit(data[["wind", "hour"]], data["late"])

        @task
        def choose(models):
            seen.extend(models)

        choose(fit.partial(data=features()).expand(strength=[0.1, 1.0]))

    run = run_dag(dag, logical_date=FEBRUARY)
    assert set(states(run).values()) == {"success"}
    children = runs_of(client, name, "tags.`mlflow.parentRunId` LIKE '%'")
    assert sorted(child.data.params["strength"] for child in children) == ["0.1", "1.0"]
    assert len({child.data.tags["mlflow.parentRunId"] for child in children}) == 1
    assert len(runs_of(client, name)) == 3
    assert {ref.mlflow_run_id for ref in seen} == {child.info.run_id for child in children}


def test_results_of_a_mapped_task_reach_the_function_as_values(dag, name, run_dag, client, seen):
    with dag:

        @task
        def part(seed: int):
            return make_flights(50, seed)

        @task.train
        def fit(parts: list[pd.DataFrame], more: dict[str, list[pd.DataFrame]], pairs: list[Any]):
            frames = [*parts, *more["more"], *(item for pair in pairs for item in pair)]
            seen.append([type(item).__name__ for item in frames])
            return fit_flights(pd.concat(frames))

        first, second = (part.override(task_id=each).expand(seed=[1, 2]) for each in ("first", "second"))
        fit(first.concat(second), {"more": first}, first.zip(second))

    run = run_dag(dag, logical_date=FEBRUARY)
    assert set(states(run).values()) == {"success"}
    assert seen == [["DataFrame"] * 10]
    (tracked,) = runs_of(client, name)
    assert len(tracked.inputs.dataset_inputs) == 4


def test_an_async_function_trains_too(dag, name, run_dag, client):
    with dag:

        @task
        def features():
            return make_flights()

        @task.train
        async def fit(data: pd.DataFrame, depth: int = 6):
            return fit_flights(data)

        fit(features())

    run = run_dag(dag, logical_date=FEBRUARY)
    assert states(run)["fit"] == "success"
    (tracked,) = runs_of(client, name)
    assert (tracked.info.status, tracked.data.params) == ("FINISHED", {"depth": "6"})


def test_autologging_adds_what_the_library_knows_and_ends_with_the_task(
    dag, name, run_dag, xcom_table, client
):
    with dag:

        @task.train(autolog=True)
        def fit(depth: int = 6):
            return fit_flights(make_flights())

        fit()

    run = run_dag(dag, logical_date=FEBRUARY)
    assert states(run) == {"fit": "success"}
    (tracked,) = runs_of(client, name)
    assert tracked.data.params["solver"] == "lbfgs"
    assert tracked.data.params["depth"] == "6"
    assert "training_roc_auc" in tracked.data.metrics
    assert "training_roc_auc" in model_in(xcom_table, run, "fit").metrics
    logged = client.search_logged_models([tracked.info.experiment_id])
    assert len(logged) == 1
    with MlflowHook().session():
        fit_flights(make_flights())
    assert len(runs_of(client, name)) == 1


def test_a_model_that_the_function_logged_itself_is_not_logged_again(dag, name, run_dag, xcom_table, client):
    with dag:

        @task.train
        def returns_info():
            import mlflow

            return mlflow.sklearn.log_model(
                fit_flights(make_flights()), name="own", pip_requirements=["scikit-learn"]
            )

        @task.train
        def returns_model():
            import mlflow

            model = fit_flights(make_flights())
            mlflow.sklearn.log_model(model, name="own", pip_requirements=["scikit-learn"])
            return model, {"rows": 200}

        returns_info()
        returns_model()

    run = run_dag(dag, logical_date=FEBRUARY)
    assert set(states(run).values()) == {"success"}
    refs = [model_in(xcom_table, run, task_id) for task_id in ("returns_info", "returns_model")]
    logged = client.search_logged_models([refs[0].experiment_id])
    assert {model.model_id for model in logged} == {ref.model_id for ref in refs}
    assert [ref.name for ref in refs] == ["own", "own"]
    assert refs[1].metrics == {"rows": 200.0}
    assert refs[0].load().predict(make_flights(2)[["wind", "hour"]]).shape == (2,)


def test_another_model_that_the_function_logged_is_not_taken_for_the_one_it_returned(
    dag, name, run_dag, xcom_table, client
):
    with dag:

        @task.train
        def fit():
            import mlflow
            from sklearn.preprocessing import StandardScaler

            flights = make_flights()
            scaler = StandardScaler().fit(flights[["wind", "hour"]])
            mlflow.sklearn.log_model(scaler, name="scaler", pip_requirements=["scikit-learn"])
            return fit_flights(flights)

        fit()

    run = run_dag(dag, logical_date=FEBRUARY)
    assert set(states(run).values()) == {"success"}
    ref = model_in(xcom_table, run, "fit")
    assert ref.name == "fit"
    assert type(ref.load()).__name__ == type(fit_flights(make_flights())).__name__
    logged = client.search_logged_models([ref.experiment_id])
    assert sorted(model.name for model in logged) == ["fit", "scaler"]


def test_the_first_champion_needs_no_predecessor_and_the_next_must_be_better(
    champion_dag, name, run_dag, xcom_table, client
):
    champion = ModelAsset(name)
    first = run_dag(champion_dag, logical_date=FEBRUARY)
    assert set(states(first).values()) == {"success"}
    result = xcom_table(first, "promote")
    assert (result["promoted"], result["version"], result["previous_version"]) == (True, "1", None)
    assert client.get_model_version_by_alias(name, "champion").version == "1"
    ((extra),) = events_of(champion)
    model = model_in(xcom_table, first, "fit")
    assert (extra["version"], extra["kind"], extra["sequence"]) == ("1", "promotion", 0)
    assert extra["mlflow_run_id"] == model.mlflow_run_id
    assert extra["effective_at"] == "2013-02-01T00:00:00+00:00"
    assert extra["metrics"]["roc_auc"] > 0.9
    evaluation = xcom_table(first, "evaluate")
    assert (evaluation["baseline_version"], evaluation["baseline_metrics"]) == (None, None)
    assert evaluation["data"]["name"] == f"{name}.holdout"

    worse = run_dag(champion_dag, logical_date=MARCH, run_conf={"wrong_way": True})
    assert set(states(worse).values()) == {"success"}
    result = xcom_table(worse, "promote")
    assert result["promoted"] is False
    assert result["version"] is None
    assert any("below 0.6" in reason for reason in result["reasons"])
    assert client.get_model_version_by_alias(name, "champion").version == "1"
    assert len(events_of(champion)) == 1
    assert len(client.search_model_versions(f"name = '{name}'")) == 1
    rejected = model_in(xcom_table, worse, "fit")
    for tags in (
        client.get_run(rejected.mlflow_run_id).data.tags,
        client.get_logged_model(rejected.model_id).tags,
    ):
        assert tags["airflow.promotion"] == "rejected"
        assert "below 0.6" in tags["airflow.promotion.reason"]

    equal = run_dag(champion_dag, logical_date=APRIL)
    result = xcom_table(equal, "promote")
    assert (result["promoted"], result["version"], result["previous_version"]) == (True, "2", "1")
    evaluation = xcom_table(equal, "evaluate")
    assert evaluation["baseline_version"] == "1"
    assert evaluation["baseline_metrics"]["roc_auc"] == pytest.approx(evaluation["metrics"]["roc_auc"])
    assert [event["version"] for event in events_of(champion)] == ["1", "2"]
    version = client.get_model_version(name, "2")
    assert version.tags["airflow.previous_version.champion"] == "1"
    assert version.tags["airflow.effective_at"] == "2013-04-01T00:00:00+00:00"
    link = xcom_table(equal, "promote", key="_link_MlflowModelLink")
    assert link == MlflowHook().model_url(name, "2")

    moves = Ledger(ArtifactStoreHook().store.objects).history(name, "champion")
    assert [(move.version, move.previous_version) for move in moves] == [("2", "1"), ("1", None)]
    assert moves[0].actor["task_id"] == "promote"


@pytest.mark.parametrize(
    "broken",
    ["promote.where", "promote.register_version", "moves._set", "promote.make_move", "promote.note_model"],
)
def test_a_crash_anywhere_in_a_promotion_and_a_retry_end_as_without_it(
    champion_dag, name, run_dag, xcom_table, client, failures, monkeypatch, broken
):
    """Each step is done, then its process is lost before the next."""
    module, function = broken.split(".")
    home = {"promote": promote, "moves": moves}[module]
    original = getattr(home, function)
    calls = itertools.count()

    def crash_once(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if next(calls) == 0:
            raise ConnectionError("lost")
        return result

    monkeypatch.setattr(home, function, crash_once)
    run = run_dag(champion_dag, logical_date=FEBRUARY)
    assert [str(error) for error in failures] == ["lost"]
    assert set(states(run).values()) == {"success"}
    result = xcom_table(run, "promote")
    assert (result["promoted"], result["version"], result["previous_version"]) == (True, "1", None)
    assert len(client.search_model_versions(f"name = '{name}'")) == 1
    assert client.get_model_version_by_alias(name, "champion").version == "1"
    (move,) = Ledger(ArtifactStoreHook().store.objects).history(name, "champion")
    assert (move.sequence, move.evidence["gates"][0]["metric"], move.evidence["evaluation"]["rows"]) == (
        0,
        "roc_auc",
        200,
    )
    assert len(events_of(ModelAsset(name))) == 1


def test_a_crashed_second_promotion_remembers_what_it_replaced(
    champion_dag, name, run_dag, xcom_table, client, monkeypatch
):
    run_dag(champion_dag, logical_date=FEBRUARY)
    original = moves._set
    calls = itertools.count()

    def move_and_crash(*args: Any) -> Any:
        result = original(*args)
        if next(calls) == 0:
            raise ConnectionError("lost")
        return result

    monkeypatch.setattr(moves, "_set", move_and_crash)
    run = run_dag(champion_dag, logical_date=MARCH)
    result = xcom_table(run, "promote")
    assert (result["promoted"], result["version"], result["previous_version"]) == (True, "2", "1")
    history = Ledger(ArtifactStoreHook().store.objects).history(name, "champion")
    assert [(move.version, move.previous_version) for move in history] == [("2", "1"), ("1", None)]


def test_an_evaluation_is_stale_once_the_alias_moved(
    champion_dag, name, run_dag, client, failures, monkeypatch
):
    run_dag(champion_dag, logical_date=FEBRUARY)
    run_dag(champion_dag, logical_date=MARCH)
    before = promote.decide

    def somebody_moves_it_back(*args: Any, **kwargs: Any) -> Any:
        client.set_registered_model_alias(name, "champion", "1")
        return before(*args, **kwargs)

    monkeypatch.setattr(promote, "decide", somebody_moves_it_back)
    run = run_dag(champion_dag, logical_date=APRIL)
    assert states(run)["promote"] == "failed"
    assert isinstance(failures[-1], StaleEvaluationError)
    assert "compared with version 2" in str(failures[-1])
    assert "points at version 1 by now" in str(failures[-1])
    assert f"somebody moved {name}@champion from version 2 to version 1" in str(failures[-1])
    assert len(client.search_model_versions(f"name = '{name}'")) == 2
    assert len(events_of(ModelAsset(name))) == 2


def test_of_two_runs_that_promote_at_once_the_loser_names_the_winner(
    champion_dag, name, run_dag, xcom_table, client, failures, monkeypatch
):
    run_dag(champion_dag, logical_date=FEBRUARY)
    champion_dag.get_task("promote").retries = 0
    original = promote.make_move

    def somebody_is_faster(client: Any, book: Any, move: Any, standing: Any) -> Any:
        faster = replace(move, version="1", actor={"dag_id": "fast", "run_id": "r", "task_id": "promote"})
        client.create_model_version(name, source="s3://nowhere/model", await_creation_for=0)
        original(client, book, replace(faster, version="3"), standing)
        return original(client, book, move, standing)

    monkeypatch.setattr(promote, "make_move", somebody_is_faster)
    run = run_dag(champion_dag, logical_date=MARCH)
    assert states(run)["promote"] == "failed"
    assert isinstance(failures[-1], AliasMovedError)
    assert "fast.promote in run 'r' moved" in str(failures[-1])
    assert client.get_model_version_by_alias(name, "champion").version == "3"
    assert len(events_of(ModelAsset(name))) == 1


def test_promoting_what_is_champion_already_is_neither_a_move_nor_an_event(
    champion_dag, name, run_dag, xcom_table, client
):
    run_dag(champion_dag, logical_date=FEBRUARY)
    with DAG(f"{name}_again", schedule=None, default_args=champion_dag.default_args) as again:
        PromoteModelOperator(
            task_id="promote",
            model=f"models:/{name}@champion",
            registered_model_name=name,
            outlets=[ModelAsset(name)],
        )
    result = xcom_table(run_dag(again, logical_date=MARCH), "promote")
    assert (result["promoted"], result["moved"], result["version"]) == (True, False, "1")
    assert "points at version 1 already" in result["reasons"][-1]
    assert len(events_of(ModelAsset(name))) == 1
    assert len(Ledger(ArtifactStoreHook().store.objects).history(name, "champion")) == 1


def test_a_rollback_is_a_recorded_move_with_an_event_and_a_retry_goes_back_once(
    champion_dag, name, run_dag, xcom_table, client, failures, monkeypatch
):
    for month in (FEBRUARY, MARCH, APRIL):
        run_dag(champion_dag, logical_date=month)
    with DAG(f"{name}_back", schedule=None, default_args=champion_dag.default_args) as back:
        RollbackModelOperator(
            task_id="back",
            registered_model_name=name,
            version="{{ dag_run.conf.get('version', '') }}",
            reason="complaints from {{ dag_run.conf['who'] }}",
            outlets=[ModelAsset(name)],
            retries=1,
        )
    original = moves._set
    calls = itertools.count()

    def move_and_crash(*args: Any) -> Any:
        result = original(*args)
        if next(calls) == 0:
            raise ConnectionError("lost")
        return result

    monkeypatch.setattr(moves, "_set", move_and_crash)
    run = run_dag(back, logical_date=april(9), run_conf={"who": "ops"})
    result = xcom_table(run, "back")
    assert [str(error) for error in failures] == ["lost"]
    assert (result["rolled_back"], result["version"], result["previous_version"]) == (True, "2", "3")
    assert client.get_model_version_by_alias(name, "champion").version == "2"
    latest = Ledger(ArtifactStoreHook().store.objects).as_of(
        name, "champion", datetime(2013, 5, 1, tzinfo=UTC)
    )
    assert (latest.kind, latest.version, latest.reasons[0]) == ("rollback", "2", "complaints from ops")
    assert [event["version"] for event in events_of(ModelAsset(name))] == ["1", "2", "3", "2"]

    named = run_dag(back, logical_date=april(10), run_conf={"who": "qa", "version": 2})
    assert xcom_table(named, "back")["rolled_back"] is False
    assert len(events_of(ModelAsset(name))) == 4
    named = run_dag(back, logical_date=april(11), run_conf={"who": "qa", "version": 3})
    assert xcom_table(named, "back")["version"] == "3"
    missing = run_dag(back, logical_date=april(12), run_conf={"who": "qa", "version": 9})
    assert states(missing) == {"back": "failed"}
    assert isinstance(failures[-1], ModelNotFoundError)
    _as_run_type(monkeypatch, "backfill")
    run = run_dag(back, logical_date=april(13), run_conf={"who": "qa"})
    assert xcom_table(run, "back")["rolled_back"] is False
    assert client.get_model_version_by_alias(name, "champion").version == "3"
    assert len(events_of(ModelAsset(name))) == 5


def _as_run_type(monkeypatch: pytest.MonkeyPatch, run_type: str, events: Any = ()) -> None:
    """Let ``dag.test`` make runs of another type than manual, with what triggered them."""
    from airflow.models import dagrun
    from airflow.models.asset import AssetEvent
    from sqlalchemy import select

    original = dagrun.get_or_create_dagrun

    def make(**kwargs: Any) -> Any:
        made = original(**kwargs)
        made.run_type = run_type
        for event_id in events:
            session = kwargs["session"]
            made.consumed_asset_events.append(
                session.scalar(select(AssetEvent).where(AssetEvent.id == event_id))
            )
        kwargs["session"].commit()
        return made

    monkeypatch.setattr(dagrun, "get_or_create_dagrun", make)


def test_a_backfill_leaves_the_alias_alone(champion_dag, name, run_dag, xcom_table, client, monkeypatch):
    _as_run_type(monkeypatch, "backfill")
    run = run_dag(champion_dag, logical_date=FEBRUARY)
    assert set(states(run).values()) == {"success"}
    result = xcom_table(run, "promote")
    assert result["promoted"] is False
    assert any("move_in_backfill=True" in reason for reason in result["reasons"])
    assert client.search_model_versions(f"name = '{name}'") == []
    assert events_of(ModelAsset(name)) == []


def test_a_backfill_moves_the_alias_where_the_task_says_so(
    champion_dag, name, run_dag, xcom_table, client, monkeypatch
):
    champion_dag.get_task("promote").move_in_backfill = True
    _as_run_type(monkeypatch, "backfill")
    run = run_dag(champion_dag, logical_date=FEBRUARY)
    assert xcom_table(run, "promote")["promoted"] is True
    assert len(events_of(ModelAsset(name))) == 1


def test_a_remade_run_updates_the_evaluation_of_its_slice(champion_dag, name, run_dag, xcom_table, client):
    # The champion that the remade run meets learned from the month that both judge; that is no leakage.
    evaluations = []
    for _ in range(2):
        run = run_dag(champion_dag, logical_date=FEBRUARY)
        evaluations.append(xcom_table(run, "evaluate"))
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session
        from sqlalchemy import delete

        with create_session() as session:
            session.execute(delete(DagRun).where(DagRun.dag_id == name))
    assert evaluations[0]["mlflow_run_id"] == evaluations[1]["mlflow_run_id"]
    found = runs_of(client, name, "tags.`airflow.role` = 'evaluation'")
    assert len(found) == 1
    assert found[0].info.status == "FINISHED"


def test_a_remade_run_promotes_the_model_that_it_trained(champion_dag, name, run_dag, xcom_table, client):
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    found = []
    for _ in range(2):
        run = run_dag(champion_dag, logical_date=FEBRUARY, run_after=FEBRUARY)
        result = xcom_table(run, "promote")
        found.append((run.run_id, result["version"], result["previous_version"]))
        with create_session() as session:
            session.execute(delete(DagRun).where(DagRun.dag_id == name))
    assert found == [(run.run_id, "1", None), (run.run_id, "2", "1")]
    assert client.get_model_version_by_alias(name, "champion").version == "2"
    moves = Ledger(ArtifactStoreHook().store.objects).history(name, "champion")
    assert [(move.version, move.previous_version) for move in moves] == [("2", "1"), ("1", None)]


def test_an_alias_is_followed_to_what_it_was_in_data_time(
    champion_dag, name, failures, run_dag, xcom_table, client
):
    run_dag(champion_dag, logical_date=FEBRUARY)
    run_dag(champion_dag, logical_date=MARCH)
    assert client.get_model_version_by_alias(name, "champion").version == "2"

    with DAG(f"{name}_later", schedule=None, default_args=champion_dag.default_args) as later:

        @task.evaluate(
            model=ModelAsset(name), target="late", as_of="{{ dag_run.conf['when'] }}",
            baseline=ModelAsset(name), experiment=f"{name}_later", plots=False,
        )  # fmt: skip
        def judge(rows: int = 60):
            return make_flights(rows, seed=3)

        judge()

    run = run_dag(later, logical_date=None, run_after=FEBRUARY, run_conf={"when": "2013-02-14"})
    assert states(run) == {"judge": "success"}
    evaluation = xcom_table(run, "judge")
    assert (evaluation["version"], evaluation["baseline_version"], evaluation["rows"]) == ("1", "1", 60)
    assert evaluation["effective_at"] == "2013-02-14T00:00:00+00:00"
    tags = client.get_run(evaluation["mlflow_run_id"]).data.tags
    assert tags["airflow.effective_at"] == "2013-02-14T00:00:00+00:00"  # by which freshness is judged
    run = run_dag(later, logical_date=None, run_after=MARCH, run_conf={"when": "2013-03-01"})
    assert xcom_table(run, "judge")["version"] == "2"
    run = run_dag(later, logical_date=None, run_after=APRIL, run_conf={"when": "2013-01-31"})
    assert states(run) == {"judge": "failed"}
    assert isinstance(failures[-1], ModelNotFoundError)
    assert "pointed at no version as of 2013-01-31" in str(failures[-1])


def test_a_version_that_knows_the_data_fails_unless_allowed_by_name_or_declared(
    champion_dag, name, failures, run_dag, xcom_table, client
):
    """Of three monthly champions the last two learned from March or later."""
    for month in (FEBRUARY, MARCH, APRIL):
        run_dag(champion_dag, logical_date=month)
    with DAG(
        f"{name}_days", schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
        start_date=FEBRUARY, catchup=False, default_args=champion_dag.default_args,
    ) as days:  # fmt: skip

        @task
        def rows() -> Annotated[pd.DataFrame, Artifact("flights/day")]:
            return make_flights(60, seed=3)

        common = {"data": rows(), "target": "late", "plots": False}
        champion = f"models:/{name}@champion"
        EvaluateModelOperator(task_id="careless", model=champion, **common)
        EvaluateModelOperator(task_id="allowed", model=champion, allow_leakage=[name], **common)
        EvaluateModelOperator(task_id="then", model=champion, as_of="{{ data_interval_end }}", **common)

        @task.evaluate(
            model=champion, target="late", clock="wall", as_of="{{ data_interval_end }}", plots=False
        )
        def was_serving():
            return make_flights(60, seed=3)

        was_serving()

    run = run_dag(days, logical_date=datetime(2013, 3, 15, tzinfo=UTC))
    assert states(run) == {
        "rows": "success", "careless": "failed", "allowed": "success", "then": "success",
        "was_serving": "failed",
    }  # fmt: skip
    (leak,) = [error for error in failures if isinstance(error, LeakageError)]
    assert "version 3" in str(leak)
    assert f"allow_leakage=['{name}']" in str(leak)
    allowed = xcom_table(run, "allowed")
    assert (allowed["version"], len(allowed["leakage"])) == ("3", 1)
    then = xcom_table(run, "then")
    assert (then["version"], then["leakage"], then["as_of"]) == ("2", [], "2013-03-15T00:00:00+00:00")
    # In 2013 by the wall clock, nothing was serving yet: these champions were made today.
    (missing,) = [error for error in failures if isinstance(error, ModelNotFoundError)]
    assert "as of 2013-03-15T00:00:00+00:00 in wall time" in str(missing)

    client.set_model_version_tag(name, "3", "airflow.data_until", "2013-02-01T00:00:00+00:00")
    run = run_dag(days, logical_date=datetime(2013, 3, 16, tzinfo=UTC))
    assert states(run)["careless"] == "success"
    assert xcom_table(run, "careless")["version"] == "3"


def test_rows_that_speak_for_a_later_time_fail_unless_allowed(
    champion_dag, name, failures, run_dag, xcom_table
):
    run_dag(champion_dag, logical_date=FEBRUARY)
    later = ArtifactStoreHook().store.save(make_flights(60, seed=3), f"{name}/rows", effective_at=APRIL)
    with DAG(f"{name}_days", schedule=MONTHLY, start_date=FEBRUARY, catchup=False,
             default_args=champion_dag.default_args) as days:  # fmt: skip

        @task.evaluate(model=f"models:/{name}@champion", target="late", plots=False)
        def judge():
            return later

        @task.evaluate(model=f"models:/{name}@champion", target="late", plots=False,
                       allow_leakage=[f"{name}/rows"])  # fmt: skip
        def allowed():
            return later

        judge(), allowed()

    run = run_dag(days, logical_date=MARCH)
    assert states(run) == {"judge": "failed", "allowed": "success"}
    assert isinstance(failures[0], LeakageError)
    assert f"the artifact '{name}/rows' speaks for 2013-04-01" in str(failures[0])


def test_a_named_artifact_is_judged_on_as_it_was_at_the_runs_data_time(
    champion_dag, name, failures, run_dag, xcom_table
):
    run_dag(champion_dag, logical_date=FEBRUARY)
    store = ArtifactStoreHook().store
    for rows, when in ((60, MARCH), (70, APRIL), (80, datetime(2013, 5, 1, tzinfo=UTC))):
        store.save(make_flights(rows, seed=3), f"{name}/rows", effective_at=when)
    with DAG(f"{name}_months", schedule=MONTHLY, start_date=FEBRUARY, catchup=False,
             default_args=champion_dag.default_args) as months:  # fmt: skip
        common = {"model": f"models:/{name}@champion", "target": "late", "plots": False}
        EvaluateModelOperator(task_id="named", data=f"{name}/rows", **common)
        EvaluateModelOperator(task_id="asset", data=ArtifactAsset(f"{name}/rows"), **common)
        EvaluateModelOperator(task_id="nobody", data=f"{name}/nobody", **common)

    run = run_dag(months, logical_date=MARCH)
    assert states(run) == {"named": "success", "asset": "success", "nobody": "failed"}
    named, asset = xcom_table(run, "named"), xcom_table(run, "asset")
    assert named["rows"] == asset["rows"] == 60
    assert named["data"]["name"] == f"{name}/rows"
    assert isinstance(failures[0], ArtifactNotFoundError)
    record = read_record(store.objects, months.dag_id, run.run_id, "named", -1, 1)
    assert [use["version_id"] for use in record["reads"]] == [named["data"]["version_id"]]


def test_a_training_that_says_where_its_data_end_is_remembered_by_its_version(
    champion_dag, name, run_dag, xcom_table, client
):
    champion_dag.get_task("fit").data_until = "{{ data_interval_start }}"
    run = run_dag(champion_dag, logical_date=MARCH)
    start = run.data_interval_start.isoformat()
    assert model_in(xcom_table, run, "fit").data_until == start
    assert client.get_model_version(name, "1").tags["airflow.data_until"] == start


def test_in_a_backfill_aliases_are_followed_as_of_the_data_time(
    champion_dag, name, run_dag, xcom_table, monkeypatch
):
    for month in (FEBRUARY, MARCH, APRIL):
        run_dag(champion_dag, logical_date=month)
    with DAG(
        f"{name}_days", schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
        start_date=FEBRUARY, catchup=False, default_args=champion_dag.default_args,
    ) as days:  # fmt: skip

        @task.evaluate(model=f"models:/{name}@champion", target="late", plots=False)
        def judge():
            return make_flights(60, seed=3)

        judge()

    _as_run_type(monkeypatch, "backfill")
    run = run_dag(days, logical_date=datetime(2013, 3, 15, tzinfo=UTC))
    assert xcom_table(run, "judge")["version"] == "2"


def test_a_missing_model_fails_the_evaluation_and_says_what_there_is(dag, run_dag, failures):
    with dag:
        EvaluateModelOperator(task_id="evaluate", model="models:/nobody@champion", data=None, target="late")

    run = run_dag(dag, logical_date=FEBRUARY)
    assert states(run) == {"evaluate": "failed"}
    assert isinstance(failures[0], ModelNotFoundError)
    assert "'nobody'" in str(failures[0])


def test_a_baseline_named_by_a_missing_version_is_an_error(champion_dag, name, run_dag, failures):
    champion_dag.get_task("evaluate").baseline = "models:/nobody/3"
    run = run_dag(champion_dag, logical_date=FEBRUARY)
    assert states(run)["evaluate"] == "failed"
    assert isinstance(failures[0], ModelNotFoundError)


def test_registering_twice_makes_one_version(dag, name, run_dag, xcom_table, client, seen):
    with dag:

        @task.train
        def fit():
            return fit_flights(make_flights())

        model = fit()
        first, second = (
            RegisterModelOperator(
                task_id=task_id, model=model, registered_model_name=name, tags={"team": "{{ dag.dag_id }}"},
                description="Late flights",
            )
            for task_id in ("register", "again")
        )  # fmt: skip
        first >> second

        @task
        def use(registered):
            seen.append(registered)

        use(second.output)

    run = run_dag(dag, logical_date=FEBRUARY)
    assert set(states(run).values()) == {"success"}
    (version,) = client.search_model_versions(f"name = '{name}'")
    assert version.tags["team"] == name
    assert version.tags["airflow.dag_run_id"] == run.run_id
    assert version.description == "Late flights"
    (ref,) = seen
    assert (ref.registered_model_name, ref.version) == (name, "1")


def test_gates_open_for_no_model_whose_evaluation_was_skipped(champion_dag, name, run_dag, client, failures):
    run_dag(champion_dag, logical_date=FEBRUARY)
    with DAG(f"{name}_next", schedule=None, default_args=champion_dag.default_args) as following:

        @task.train
        def fit():
            return fit_flights(make_flights(), wrong_way=True), {"roc_auc": 0.99}

        @task.evaluate(model=(model := fit()), target="late", baseline=ModelAsset(name))
        def judge():
            raise AirflowSkipException("no rows")

        PromoteModelOperator(
            task_id="promote", model=model, evaluation=judge(), registered_model_name=name, bootstrap=True,
            gates=[MetricGate("roc_auc", at_least=0.6, gain_over_baseline=0.0)],
            trigger_rule="none_failed", outlets=[ModelAsset(name)],
        )  # fmt: skip

    run = run_dag(following, logical_date=MARCH)
    assert states(run) == {"fit": "success", "judge": "skipped", "promote": "failed"}
    assert isinstance(failures[-1], GateMetricError)
    assert "was skipped or returned nothing; nothing was promoted" in str(failures[-1])
    assert client.get_model_version_by_alias(name, "champion").version == "1"
    assert len(events_of(ModelAsset(name))) == 1


def test_promoting_without_gates_needs_no_evaluation(dag, name, run_dag, xcom_table, client):
    with dag:

        @task.train
        def fit():
            return fit_flights(make_flights())

        PromoteModelOperator(task_id="promote", model=fit(), registered_model_name=name, alias="shadow")

    run = run_dag(dag, logical_date=FEBRUARY)
    assert xcom_table(run, "promote")["reasons"] == ["no gate was given, so nothing was compared"]
    assert client.get_model_version_by_alias(name, "shadow").version == "1"


def test_a_model_asset_scores_with_the_version_that_started_the_run(
    champion_dag, name, run_dag, xcom_table, client, monkeypatch, seen
):
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    run_dag(champion_dag, logical_date=FEBRUARY)
    run_dag(champion_dag, logical_date=MARCH)
    champion = ModelAsset(name)
    with create_session() as session:
        first_event = session.scalar(
            select(AssetEvent.id)
            .join(AssetModel, AssetModel.id == AssetEvent.asset_id)
            .where(AssetModel.uri == champion.uri)
            .order_by(AssetEvent.timestamp)
        )

    with DAG(f"{name}_scoring", schedule=[champion]) as scoring:

        @task
        def flights():
            return make_flights(10).set_index(pd.Index(range(100, 110), name="id"))

        BatchPredictOperator(
            task_id="score",
            model=champion,
            data=flights(),
            artifact=Artifact(f"{name}/scores"),
            method="predict_proba",
            output_column="risk",
            keep_columns=["flight"],
        )

    run = run_dag(scoring, logical_date=None)
    assert states(run)["score"] == "success"
    assert xcom_table(run, "score", key="model")["version"] == "2"

    _as_run_type(monkeypatch, "asset_triggered", [first_event])
    run = run_dag(scoring, logical_date=None, run_after=APRIL)
    assert states(run)["score"] == "success"
    assert xcom_table(run, "score", key="model")["version"] == "1"
    store = ArtifactStoreHook().store
    scores = store.load(store.get(f"{name}/scores"))
    assert list(scores.columns) == ["flight", "risk"]
    assert list(scores.index) == list(range(100, 110))
    assert scores["risk"].between(0, 1).all()
    # What was scored because of a champion speaks for that champion's data time.
    assert store.get(f"{name}/scores").effective_at == FEBRUARY


def test_scoring_needs_the_columns_of_the_model_and_takes_empty_data(
    champion_dag, name, run_dag, failures, seen
):
    run_dag(champion_dag, logical_date=FEBRUARY)
    with DAG(f"{name}_scoring", schedule=None, default_args=champion_dag.default_args) as scoring:

        @task
        def lacking():
            return make_flights(10).drop(columns="wind")

        @task
        def empty():
            return make_flights(10).head(0)

        @task
        def plain():
            return make_flights(10)

        for source in (lacking, empty, plain):
            BatchPredictOperator(
                task_id=f"score_{source.function.__name__}", model=f"models:/{name}@champion", data=source()
            )

    run = run_dag(scoring)
    found = states(run)
    assert (found["score_lacking"], found["score_empty"], found["score_plain"]) == (
        "failed",
        "success",
        "success",
    )
    assert isinstance(failures[0], ModelInputError)
    assert "needs the columns ['wind']" in str(failures[0])
    store = ArtifactStoreHook().store
    empty_scores = store.load(store.get(f"{name}_scoring.score_empty"))
    assert (list(empty_scores.columns), len(empty_scores)) == (["prediction"], 0)
    scores = store.load(store.get(f"{name}_scoring.score_plain"))
    assert scores["prediction"].dtype == empty_scores["prediction"].dtype == bool


def test_what_made_and_used_a_model_is_in_the_lineage_records(champion_dag, name, run_dag, xcom_table):
    run = run_dag(champion_dag, logical_date=FEBRUARY)
    model = model_in(xcom_table, run, "fit")
    objects = ArtifactStoreHook().store.objects

    def record(task_id: str) -> Any:
        return read_record(objects, name, run.run_id, task_id, -1, 1)

    fit, evaluate, promotion = record("fit"), record("evaluate"), record("promote")
    (made,) = fit["models_written"]
    assert (made["model_id"], made["role"]) == (model.model_id, "trained")
    assert (fit["mlflow_run_id"], fit["experiment_id"]) == (model.mlflow_run_id, model.experiment_id)
    assert fit["code"]["source"]
    assert fit["environment"]["packages"]["scikit-learn"]
    assert [use["name"] for use in fit["reads"]] == ["flights/features"]
    (used,) = evaluate["models_read"]
    assert (used["model_id"], used["role"]) == (model.model_id, "evaluated")
    assert evaluate["metrics"]["roc_auc"] == evaluate["evaluation"]["metrics"]["roc_auc"]
    assert evaluate["evaluation"]["mlflow_run_id"] == evaluate["mlflow_run_id"]
    (made,) = promotion["models_written"]
    assert (made["version"], made["role"]) == ("1", "promoted")
    assert promotion["promotion"]["verdict"] == "promoted"
    assert promotion["promotion"]["evaluation_run_id"] == evaluate["mlflow_run_id"]

    lineage = Lineage(ArtifactStoreHook().store)
    champion = lineage.find(f"models:/{name}@champion")
    assert champion == f"model:{model.model_id}" == lineage.find(f"models:/{name}/1")
    graph = lineage.explore(champion)
    tasks = {node.task_id for node in graph.nodes if node.kind == "task"}
    assert tasks == {"features", "fit", "evaluate", "promote"}
    assert not [node.missing for node in graph.nodes if node.missing]
    kinds = {edge.kind for edge in graph.edges}
    assert {"trained", "evaluated", "measured", "decided", "promoted"} <= kinds
    assert graph.node(champion).registered_model_name == name

    second = run_dag(champion_dag, logical_date=MARCH)
    other = model_in(xcom_table, second, "fit")
    found = diff_models(lineage, f"models:/{name}/1", f"models:/{other.model_id}")
    assert found.before.model_id == model.model_id
    assert found.source is None, "the same function"
    (data,) = found.data
    assert (data["name"], data["same_content"]) == ("flights/features", True)


def test_another_xcom_backend_gets_plain_json(monkeypatch):
    from airflow.sdk.bases.xcom import BaseXCom
    from airflow.sdk.execution_time import xcom

    from airflow_ml_provider.operators.base import to_xcom

    ref = ModelRef("models:/m-1", model_id="m-1")
    assert to_xcom(ref) is ref
    monkeypatch.setattr(xcom, "XCom", BaseXCom)
    assert ModelRef.from_json(to_xcom(ref)) == ref
