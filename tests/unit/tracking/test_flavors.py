# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from airflow_ml_provider.exceptions import UnsupportedTypeError
from airflow_ml_provider.tracking.flavors import flavor_of, log_model
from airflow_ml_provider.tracking.identity import TaskIdentity
from airflow_ml_provider.tracking.registry import register_version
from airflow_ml_provider.tracking.runs import task_run
from airflow_ml_provider.tracking.session import session

ROWS = 200


def frame() -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "a": random.normal(size=ROWS),
            "n": random.integers(0, 9, ROWS),
            "carrier": pd.Categorical(random.choice(list("ABC"), ROWS)),
        }
    )


def own_step(values):
    return values


@pytest.fixture
def opened(client, name):
    return lambda try_number=1: task_run(
        client, experiment=name, identity=TaskIdentity("d", "r1", "fit", try_number=try_number)
    )


@pytest.mark.parametrize(
    ("build", "serialization"),
    [
        pytest.param(
            lambda: HistGradientBoostingClassifier(max_iter=5, categorical_features="from_dtype"),
            "skops",
            id="boost",
        ),
        pytest.param(
            lambda: make_pipeline(
                make_column_transformer((OneHotEncoder(), ["carrier"]), (StandardScaler(), ["a", "n"])),
                HistGradientBoostingClassifier(max_iter=5),
            ),
            "skops",
            id="pipeline",
        ),
        pytest.param(
            lambda: make_pipeline(
                FunctionTransformer(own_step),
                HistGradientBoostingClassifier(max_iter=5, categorical_features="from_dtype"),
            ),
            "cloudpickle",
            id="own function",
        ),
        pytest.param(
            lambda: make_pipeline(
                FunctionTransformer(lambda values: values),
                HistGradientBoostingClassifier(max_iter=5, categorical_features="from_dtype"),
            ),
            "cloudpickle",
            id="lambda",
        ),
    ],
)
def test_a_model_of_scikit_learn_comes_back_and_predicts_the_same(client, opened, build, serialization):
    X = frame()
    y = (X.a > 0).astype(int)
    with opened() as run:
        model = build().fit(X, y)
        mlflow.log_metric("roc_auc", 0.7)
        ref = log_model(model, name="late", X_sample=X.assign(late=y))
    assert (ref.flavor, ref.name, ref.mlflow_run_id) == ("sklearn", "late", run.run_id)
    assert ref.metrics == {"roc_auc": 0.7}
    logged = client.get_logged_model(ref.model_id)
    assert logged.tags["airflow.serialization"] == serialization
    np.testing.assert_array_equal(ref.load().predict_proba(X), model.predict_proba(X))
    generic = ref.load(as_pyfunc=True)
    np.testing.assert_array_equal(generic.predict(X), model.predict(X))
    assert generic.metadata.get_input_schema().input_names() == ["a", "n", "carrier"]  # not the target
    with pytest.raises(mlflow.MlflowException, match="missing inputs"):
        generic.predict(X.drop(columns="a"))


def test_requirements_are_the_installed_versions_and_nothing_is_inferred(client, opened, monkeypatch):
    monkeypatch.setattr(
        mlflow.models, "infer_pip_requirements", lambda *a, **k: pytest.fail("inference takes seconds")
    )
    with opened():
        ref = log_model(LinearRegression().fit([[1.0], [2.0]], [1.0, 2.0]))
    with session(client.tracking_uri):
        path = mlflow.artifacts.download_artifacts(ref.model_uri)
    with open(os.path.join(path, "requirements.txt")) as text:
        lines = text.read().split()
    import sklearn

    assert f"scikit-learn=={sklearn.__version__}" in lines
    assert all("==" in line for line in lines)


def test_a_retry_leaves_one_model_in_the_run(client, opened, name):
    model = LinearRegression().fit([[1.0], [2.0]], [1.0, 2.0])
    with opened():
        first = log_model(model)
    with opened(2) as run:
        second = log_model(model)
        other = log_model(model, name="other")  # two models of one try are two models
    found = client.search_logged_models([run.experiment_id], filter_string=f"source_run_id = '{run.run_id}'")
    assert {item.model_id for item in found} == {second.model_id, other.model_id}
    assert first.model_id not in {second.model_id, other.model_id}


def test_a_retry_keeps_a_model_that_a_version_points_at(client, opened, name):
    model = LinearRegression().fit([[1.0], [2.0]], [1.0, 2.0])
    with opened():
        first = log_model(model)
    register_version(client, first, name)
    with opened(2) as run:
        second = log_model(model)
    found = client.search_logged_models([run.experiment_id], filter_string=f"source_run_id = '{run.run_id}'")
    assert {item.model_id for item in found} == {first.model_id, second.model_id}


def test_a_python_model_is_written_and_read(client, opened):
    class Doubler(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return model_input * 2

    with opened():
        ref = log_model(Doubler())
    assert ref.flavor == "pyfunc"
    assert ref.load().predict(pd.DataFrame({"a": [1, 2]})).a.tolist() == [2, 4]


class Booster:
    __module__ = "xgboost.core"


class Ranker:
    __module__ = "lightgbm.sklearn"


def test_libraries_are_told_by_class_names():
    assert flavor_of(Booster()) == "xgboost"
    assert flavor_of(Ranker()) == "lightgbm"
    assert flavor_of(LinearRegression()) == "sklearn"


def test_an_unknown_type_is_refused_by_name_before_anything_is_written(client, opened, name):
    with opened() as run, pytest.raises(UnsupportedTypeError, match=r"builtins\.dict.*scikit-learn, XGBoost"):
        log_model({"weights": [1]})
    assert client.search_logged_models([run.experiment_id]) == []


def test_what_the_training_took_of_the_machine_is_no_metric_of_the_model(client, name):
    with task_run(client, experiment=name, identity=TaskIdentity("d", "r", "fit")) as run:
        run.log_metrics({"rows": 3.0, "system/task_seconds": 1.0})
        ref = log_model(LinearRegression().fit([[0], [1]], [0, 1]))
    assert ref.metrics == {"rows": 3.0}
