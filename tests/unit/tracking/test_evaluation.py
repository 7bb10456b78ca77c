# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline

from airflow_ml_provider.exceptions import EmptyEvaluationError, ModelInputError
from airflow_ml_provider.tracking.evaluation import evaluate_model
from airflow_ml_provider.tracking.flavors import log_model
from airflow_ml_provider.tracking.identity import TaskIdentity
from airflow_ml_provider.tracking.runs import task_run

FEATURES = ["a", "b"]


def frame(rows: int = 300, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    data = pd.DataFrame(random.normal(size=(rows, 2)), columns=FEATURES)
    return data.assign(id=range(rows), late=(data.a + random.normal(size=rows) > 0.3).astype(int))


@pytest.fixture
def opened(client, name):
    return lambda task_id="evaluate", **options: task_run(
        client, experiment=name, identity=TaskIdentity("d", "r1", task_id, **options)
    )


@pytest.fixture
def models(opened):
    """A model and a baseline that knows one column less."""
    train = frame(seed=1)
    found = []
    for index, columns in enumerate((FEATURES, ["a"])):
        with opened(f"fit{index}"):
            model = HistGradientBoostingClassifier(max_iter=5 + index).fit(train[columns], train.late)
            found.append(log_model(model, X_sample=train))
    return found


def test_judging_again_lets_go_of_the_metrics_that_there_are_no_more(client, opened, models):
    data = frame()
    with opened() as run:
        evaluate_model(models[0], data, "late", run=run, baseline_uri=models[1], plots=False)
    with opened() as run:
        assert run.resumed
        again = evaluate_model(models[0], data[data.late == 1], "late", run=run, plots=False)
    metrics = client.get_run(run.run_id).data.metrics
    current = {name: value for name, value in metrics.items() if not np.isnan(value)}
    assert current == pytest.approx(again["metrics"])
    assert {"roc_auc", "baseline_roc_auc", "baseline_accuracy_score"} <= metrics.keys() - current.keys()


def test_a_model_and_its_baseline_are_judged_on_the_same_rows(client, opened, models):
    data = frame()
    with opened() as run:
        result = evaluate_model(models[0], data, "late", run=run, baseline_uri=models[1], about="May 2013")
    probability = models[0].load().predict_proba(data[FEATURES])[:, 1]
    assert result["metrics"]["roc_auc"] == pytest.approx(roc_auc_score(data.late, probability))
    assert result["metrics"]["log_loss"] == pytest.approx(log_loss(data.late, probability))
    other = models[1].load().predict_proba(data[["a"]])[:, 1]
    assert result["baseline_metrics"]["roc_auc"] == pytest.approx(roc_auc_score(data.late, other))
    assert result["rows"] == 300
    assert result["model_id"] == models[0].model_id
    assert result["baseline_uri"] == models[1].model_uri
    json.dumps(result, allow_nan=False)
    logged = client.get_run(run.run_id).data
    assert logged.metrics["roc_auc"] == pytest.approx(result["metrics"]["roc_auc"])
    assert logged.metrics["baseline_roc_auc"] == pytest.approx(result["baseline_metrics"]["roc_auc"])
    assert logged.tags["evaluation.rows"] == "300"
    assert logged.tags["evaluation.data"] == "May 2013"
    paths = {item.path for item in client.list_artifacts(run.run_id)}
    assert "roc_curve_plot.png" in paths
    assert not any(path.startswith("baseline") for path in paths)


def test_slices_and_confidence_are_measured_on_the_same_rows(client, opened, models):
    data = frame().assign(origin=["EWR", "JFK", None] * 100)
    options = {"slices": ["origin"], "bootstrap_draws": 200, "plots": False}
    with opened() as run:
        result = evaluate_model(models[0], data, "late", run=run, baseline_uri=models[1], **options)
    part = data[data.origin == "EWR"]
    probability = models[0].load().predict_proba(part[FEATURES])[:, 1]
    found = result["slices"]["origin"]["EWR"]
    assert found["rows"] == 100
    assert found["metrics"]["roc_auc"] == pytest.approx(roc_auc_score(part.late, probability))
    assert set(found["baseline_metrics"]) == {"accuracy_score", "log_loss", "roc_auc"}
    gain = result["metrics"]["roc_auc"] - result["baseline_metrics"]["roc_auc"]
    assert result["gains"]["roc_auc"][0] < gain < result["gains"]["roc_auc"][-1]
    json.dumps(result, allow_nan=False)
    assert "slices_and_gains.json" in {item.path for item in client.list_artifacts(run.run_id)}
    with (
        opened("other") as run,
        pytest.raises(ModelInputError, match=r"no columns \['carrier'\] to slice by"),
    ):
        evaluate_model(models[0], data, "late", run=run, slices=["carrier"], plots=False)
    with opened("more") as run, pytest.raises(ModelInputError, match="300 values in the column 'id'"):
        evaluate_model(models[0], data, "late", run=run, slices=["id"], plots=False)


def test_judging_again_updates_the_run(client, opened, models):
    for try_number, rows in ((1, 300), (2, 200)):
        with opened(try_number=try_number) as run:
            result = evaluate_model(models[0], frame(rows), "late", run=run, plots=False)
    logged = client.get_run(run.run_id).data
    assert logged.metrics["roc_auc"] == pytest.approx(result["metrics"]["roc_auc"])
    assert logged.metrics["example_count"] == 200
    assert logged.tags["evaluation.rows"] == "200"


def test_each_model_is_loaded_once(opened, models, monkeypatch):
    import mlflow

    real, loaded = mlflow.pyfunc.load_model, []
    monkeypatch.setattr(mlflow.pyfunc, "load_model", lambda uri, **k: loaded.append(uri) or real(uri, **k))
    with opened() as run:
        result = evaluate_model(models[0], frame(), "late", run=run, baseline_uri=models[0], plots=False)
    assert len(loaded) == 1
    assert result["metrics"] == result["baseline_metrics"]


def test_the_data_shows_as_the_artifact_it_came_from(client, opened, models):
    ref = SimpleNamespace(
        name="holdout",
        version_id="v1",
        digest="blake3:" + "ab" * 32,
        type="pandas.DataFrame",
        schema=None,
        uri="x",
    )
    with opened() as run:
        result = evaluate_model(
            models[0], frame(), "late", run=run, baseline_uri=models[1], dataset=ref, plots=False
        )
    assert result["data"] == {"name": "holdout", "version_id": "v1", "digest": ref.digest}
    inputs = client.get_run(run.run_id).inputs.dataset_inputs
    assert [item.dataset.name for item in inputs] == ["holdout"]


def test_rows_of_one_class_just_lack_what_they_leave_undefined(opened, models):
    data = frame()
    with opened() as run:
        result = evaluate_model(models[0], data[data.late == 1], "late", run=run)
    assert "roc_auc" not in result["metrics"]
    assert 0 < result["metrics"]["accuracy_score"] < 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        pytest.param(
            lambda data: data.drop(columns="late"),
            ModelInputError,
            r"no target column 'late'; its columns are: a, b, id",
            id="no target",
        ),
        pytest.param(lambda data: data.head(0), EmptyEvaluationError, "May 2013 has no rows", id="no rows"),
        pytest.param(
            lambda data: data.drop(columns="b"),
            ModelInputError,
            r"trained on columns .* lacks: b",
            id="no feature",
        ),
        pytest.param(
            lambda data: data.assign(late=data.late.where(data.id > 2)),
            ModelInputError,
            "3 of 300 rows",
            id="no truth",
        ),
        pytest.param(
            lambda data: data.assign(late=data.late + 1), ModelInputError, r"labels \[.*2.*\]", id="new label"
        ),
        pytest.param(lambda data: [1, 2], TypeError, "list", id="no frame"),
    ],
)
def test_data_that_cannot_be_judged_on_is_refused_by_name(opened, models, change, error, message):
    with opened() as run, pytest.raises(error, match=message):
        evaluate_model(models[0], change(frame()), "late", run=run, about="May 2013")


@pytest.mark.parametrize("kind", ["bool", "str", "category"])
def test_labels_of_any_kind(opened, kind):
    data = frame()
    data["late"] = {
        "bool": data.late == 1,
        "str": data.late.map({0: "in time", 1: "late"}),
        "category": pd.Categorical(data.late.map({0: "in time", 1: "late"})),
    }[kind]
    with opened("fit"):
        ref = log_model(
            HistGradientBoostingClassifier(max_iter=5).fit(data[FEATURES], data.late), X_sample=data
        )
    with opened() as run:
        assert evaluate_model(ref, data, "late", run=run, plots=False)["metrics"]["roc_auc"] > 0.5


def test_more_than_two_classes(opened):
    data = frame()
    data["late"] = pd.cut(data.a, 3, labels=["early", "in time", "late"]).astype(str)
    with opened("fit"):
        ref = log_model(DummyClassifier().fit(data[FEATURES], data.late), X_sample=data)
    with opened() as run:
        metrics = evaluate_model(ref, data, "late", run=run, baseline_uri=ref)["metrics"]
    assert metrics["roc_auc"] == pytest.approx(0.5)


@pytest.mark.parametrize("plots", [False, True])
def test_rows_that_lack_one_of_many_classes_lack_no_more_than_roc_auc(opened, plots):
    data = frame()
    data["late"] = pd.cut(data.a, 3, labels=["early", "in time", "late"]).astype(str)
    with opened("fit"):
        fitted = HistGradientBoostingClassifier(max_iter=5).fit(data[FEATURES], data.late)
        ref = log_model(fitted, X_sample=data)
    rows = data[data.late != "in time"]
    with opened() as run:
        metrics = evaluate_model(ref, rows, "late", run=run, plots=plots)["metrics"]
    assert "roc_auc" not in metrics
    assert metrics["accuracy_score"] == pytest.approx(fitted.score(rows[FEATURES], rows.late))
    expected = log_loss(rows.late, fitted.predict_proba(rows[FEATURES]), labels=list(fitted.classes_))
    assert metrics["log_loss"] == pytest.approx(expected)


def test_a_booster_is_measured_by_slice(opened):
    xgboost = pytest.importorskip("xgboost")
    data = frame().assign(group=["u", "v"] * 150)
    with opened("fit"):
        booster = xgboost.train({"max_depth": 2}, xgboost.DMatrix(data[FEATURES], label=data.late), 3)
        ref = log_model(booster, X_sample=data[FEATURES])
    with opened() as run:
        found = evaluate_model(ref, data, "late", "regressor", run=run, slices=["group"])
    assert {part["rows"] for part in found["slices"]["group"].values()} == {150}


@pytest.mark.parametrize("kind", ["classifier", "regressor", "pipeline"])
def test_a_lightgbm_model_of_categorical_columns_is_judged_as_it_predicts(opened, kind):
    lightgbm = pytest.importorskip("lightgbm")
    carriers = pd.Categorical(np.random.default_rng(2).choice(list("ABC"), 300))
    data = frame().assign(carrier=carriers, delay=lambda rows: rows.a + (carriers == "B"))
    names, options = ["a", "carrier"], {"n_estimators": 5, "verbose": -1}
    made = lightgbm.LGBMRegressor if kind == "regressor" else lightgbm.LGBMClassifier
    target = "delay" if kind == "regressor" else "late"
    estimator = made(**options)
    with opened("fit") as run:
        model = (make_pipeline(estimator) if kind == "pipeline" else estimator).fit(data[names], data[target])
        ref = log_model(model, X_sample=data)
    with opened() as run:
        found = evaluate_model(
            ref, data, target, "regressor" if kind == "regressor" else "classifier", run=run, plots=False
        )
    predicted = model.predict(data[names])
    if kind == "regressor":
        assert found["metrics"]["mean_absolute_error"] == pytest.approx(np.abs(predicted - data.delay).mean())
    else:
        assert found["metrics"]["accuracy_score"] == pytest.approx((predicted == data.late).mean())


def test_a_booster_of_lightgbm_gets_the_columns_that_it_was_trained_on_in_its_order(opened):
    lightgbm = pytest.importorskip("lightgbm")
    data = frame()
    booster = lightgbm.train({"verbose": -1}, lightgbm.Dataset(data[FEATURES], data.a), 5)
    with opened("fit") as run:
        ref = log_model(booster)
    with opened() as run:
        given = data[["b", "id", "a"]].assign(delay=data.a)
        found = evaluate_model(ref, given, "delay", "regressor", run=run, plots=False)
    error = np.abs(booster.predict(data[FEATURES]) - data.a).mean()
    assert found["metrics"]["mean_absolute_error"] == pytest.approx(error)


def test_slices_are_measured_of_all_rows_that_the_model_takes_as_the_whole_is(opened):
    data = frame().assign(delay=lambda rows: rows.a, stops=lambda rows: rows.id % 3)
    with opened("fit"):
        model = HistGradientBoostingRegressor(max_iter=5).fit(data[["a", "stops"]], data.delay)
        ref = log_model(model, X_sample=data)  # whose signature says that stops is an integer
    gaps = data.assign(stops=data.stops.where(data.id > 5))
    with opened() as run:
        found = evaluate_model(ref, gaps, "delay", "regressor", run=run, plots=False, slices=["late"])
    parts = found["slices"]["late"].values()
    total = sum(part["rows"] * part["metrics"]["mean_absolute_error"] for part in parts)
    assert total / 300 == pytest.approx(found["metrics"]["mean_absolute_error"])


def test_a_model_that_was_fitted_on_a_table_of_targets_is_judged(opened):
    data = frame().assign(delay=lambda rows: rows.a * 2 + rows.b)
    with opened("fit"):
        model = LinearRegression().fit(data[["a"]], data[["delay"]])
        ref = log_model(model, X_sample=data)
    with opened() as run:
        found = evaluate_model(ref, data, "delay", "regressor", run=run, baseline_uri=ref, slices=["late"])
    error = np.abs(model.predict(data[["a"]]).reshape(-1) - data.delay)
    assert found["metrics"]["mean_absolute_error"] == pytest.approx(error.mean())
    assert found["metrics"] == found["baseline_metrics"]
    late = found["slices"]["late"]["1"]["metrics"]
    assert late["mean_absolute_error"] == pytest.approx(error[data.late == 1].mean())


def test_columns_with_blanks_in_their_names_are_those_that_lightgbm_was_trained_on(opened):
    lightgbm = pytest.importorskip("lightgbm")
    names = ["wind speed", "b"]
    data = frame().rename(columns={"a": "wind speed"})
    model = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(data[names], data.late)
    with opened("fit"):
        ref = log_model(model, X_sample=data)
    loaded = ref.load(as_pyfunc=True)
    assert loaded.metadata.get_input_schema().input_names() == names
    with opened() as run:
        found = evaluate_model(ref, data[["id", "b", "late", "wind speed"]], "late", run=run, plots=False)
    assert found["metrics"]["accuracy_score"] == pytest.approx(model.score(data[names], data.late))


def test_a_regressor(opened):
    data = frame().assign(delay=lambda rows: rows.a * 3)
    with opened("fit"):
        ref = log_model(LinearRegression().fit(data[FEATURES], data.delay), X_sample=data)
    with opened() as run:
        result = evaluate_model(ref, data, "delay", "regressor", run=run, baseline_uri=ref)
    assert result["metrics"]["r2_score"] == pytest.approx(1.0)
    assert result["baseline_metrics"]["root_mean_squared_error"] == pytest.approx(0, abs=1e-9)
