# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from airflow.sdk import Asset
from sklearn.linear_model import LinearRegression

from airflow_ml_provider.assets.assets import ModelAsset
from airflow_ml_provider.exceptions import ModelInputError
from airflow_ml_provider.operators.predict import (
    BatchPredictOperator,
    _columns,
    _no_predictions,
    features_of,
    model_of_run,
    predict_with,
)
from airflow_ml_provider.tracking.models import ModelRef

OPTIONS = {"task_id": "score", "model": "models:/m/1", "data": None}
CHAMPION = ModelAsset("flight_delay")


def event(day: int, **extra):
    return SimpleNamespace(timestamp=datetime(2013, 5, day, tzinfo=UTC), extra=extra)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"method": "transform"}, "method must be one of predict, predict_proba"),
        ({"artifact": "predictions"}, r"artifact must be an Artifact, e.g. Artifact\('predictions'\)"),
        ({"output_column": ""}, "output_column must be"),
        ({"keep_columns": "id"}, "keep_columns must be a list"),
        ({"batch": 3}, "batch"),
    ],
)
def test_wrong_options_are_refused_when_the_dag_is_parsed(options, error):
    with pytest.raises((TypeError, ValueError), match=error):
        BatchPredictOperator(**{**OPTIONS, **options})


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        pytest.param({}, CHAMPION, id="not asset-triggered"),
        pytest.param({CHAMPION: [event(1, version="3")]}, "models:/flight_delay/3", id="one event"),
        pytest.param(
            {CHAMPION: [event(9, version="5"), event(1, version="3")]}, "models:/flight_delay/5", id="latest"
        ),
        pytest.param(
            {CHAMPION: [event(1, from_trigger=True, payload={"version": "3"})]},
            "models:/flight_delay/3",
            id="seen by a watcher",
        ),
        pytest.param(
            {Asset(name="flight_delay@champion", uri=CHAMPION.uri): [event(1, version="3")]},
            "models:/flight_delay/3",
            id="as the scheduler knows it",
        ),
        pytest.param({ModelAsset("other"): [event(1, version="3")]}, CHAMPION, id="another model"),
        pytest.param({CHAMPION: [event(1)]}, CHAMPION, id="made by hand, without a version"),
    ],
)
def test_an_asset_means_the_version_that_started_the_run(events, expected):
    assert model_of_run(CHAMPION, {"triggering_asset_events": events}) == expected


def test_a_named_model_is_never_replaced_by_an_event():
    context = {"triggering_asset_events": {CHAMPION: [event(1, version="3")]}}
    assert model_of_run("models:/flight_delay@champion", context) == "models:/flight_delay@champion"


class Raw:
    def __init__(self, *classes):
        self.classes_ = np.array(classes)


class Loaded:
    def __init__(self, *classes):
        self.raw = Raw(*classes)

    def get_raw_model(self):
        return self.raw


@pytest.mark.parametrize(
    ("predicted", "method", "classes", "columns"),
    [
        (np.array([1, 0]), "predict", (), {"p": [1, 0]}),
        (pd.Series([1, 0], index=[7, 8]), "predict", (), {"p": [1, 0]}),
        (pd.DataFrame({"y": [1, 0]}), "predict", (), {"p": [1, 0]}),
        (pd.DataFrame({"y": [1, 0], "z": [2, 3]}), "predict", (), {"p_y": [1, 0], "p_z": [2, 3]}),
        (np.array([[1], [0]]), "predict", (), {"p": [1, 0]}),
        (np.array([[1, 2], [3, 4]]), "predict", (), {"p_0": [1, 3], "p_1": [2, 4]}),
        (np.array([[0.1, 0.9], [0.8, 0.2]]), "predict_proba", (False, True), {"p": [0.9, 0.2]}),
        (np.array([[1.0], [1.0]]), "predict_proba", (False,), {"p_False": [1.0, 1.0]}),
        (
            np.array([[0.1, 0.2, 0.7]]),
            "predict_proba",
            ("a", "b", "c"),
            {"p_a": [0.1], "p_b": [0.2], "p_c": [0.7]},
        ),
    ],
)
def test_predictions_get_named_columns(predicted, method, classes, columns):
    named = _columns(predicted, Loaded(*classes), method, "p")
    assert {name: list(values) for name, values in named.items()} == columns


@pytest.mark.parametrize(
    ("classes", "columns"),
    [((False, True), ["p"]), ((False,), ["p_False"]), (("a", "b", "c"), ["p_a", "p_b", "p_c"])],
)
def test_no_rows_give_the_columns_that_rows_would(classes, columns):
    found = _no_predictions(Loaded(*classes), "predict_proba", "p")
    assert {name: (len(values), str(values.dtype)) for name, values in found.items()} == dict.fromkeys(
        columns, (0, "float64")
    )


def generic(implementation):
    """What MLflow loads a model as, whatever its flavor."""
    from mlflow.models import Model
    from mlflow.pyfunc import PyFuncModel

    return PyFuncModel(
        model_meta=Model(flavors={"python_function": {"loader_module": "somewhere"}}),
        model_impl=implementation,
    )


class Wrapper:
    def predict_proba(self, features):
        return np.array([[0.25, 0.75]] * len(features))


def test_probabilities_come_from_a_python_model_too():
    model = generic(SimpleNamespace(python_model=Wrapper(), predict=None))
    predicted = predict_with(model, pd.DataFrame({"n": [1]}), "predict_proba", ModelRef("models:/m/1"))
    assert _columns(predicted, model, "predict_proba", "p")["p"].tolist() == [0.75]


def test_a_model_without_a_signature_gets_the_columns_that_it_was_trained_on():
    data = pd.DataFrame({"id": [7, 8], "b": [1.0, 2.0], "a": [3.0, 4.0]})
    fitted = LinearRegression().fit(data[["a", "b"]], [0, 1])
    implementation = SimpleNamespace(get_raw_model=lambda: fitted, predict=fitted.predict)
    features = features_of(generic(implementation), data, ModelRef("models:/m/1"))
    assert list(features.columns) == ["a", "b"]
    with pytest.raises(ModelInputError, match=r"models:/m/1 needs the columns \['b'\]"):
        features_of(generic(implementation), data.drop(columns="b"), ModelRef("models:/m/1"))
    nameless = LinearRegression().fit(data[["a", "b"]].to_numpy(), [0, 1])
    implementation = SimpleNamespace(get_raw_model=lambda: nameless, predict=nameless.predict)
    assert features_of(generic(implementation), data, ModelRef("models:/m/1")) is data


def test_a_model_of_another_library_without_probabilities_is_refused():
    with pytest.raises(ValueError, match=r"models:/m/1 \(.*\) has no predict_proba; use method='predict'"):
        predict_with(
            generic(SimpleNamespace(predict=None)), pd.DataFrame(), "predict_proba", ModelRef("models:/m/1")
        )
