# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import sparse
from sklearn.linear_model import LinearRegression

from airflow_ml_provider.operators.train import (
    TrainModelOperator,
    fingerprint_of,
    finite,
    sample_for,
    split_result,
)


class Model:
    def predict(self, rows): ...


MODEL = Model()


def fit():
    return MODEL


@pytest.mark.parametrize(
    ("result", "metrics"),
    [
        pytest.param(MODEL, {}, id="a model"),
        pytest.param((MODEL, {}), {}, id="no metrics"),
        pytest.param((MODEL, {"auc": np.float64(0.5), "n": 3}), {"auc": 0.5, "n": 3.0}, id="with metrics"),
    ],
)
def test_a_model_may_come_with_metrics(result, metrics):
    assert split_result(result, "fit") == (MODEL, metrics)


@pytest.mark.parametrize(
    ("result", "named"),
    [
        pytest.param(None, "returned None, which is no model", id="forgotten return"),
        pytest.param({"auc": 0.5}, "returned a dict, which is no model", id="only metrics"),
        pytest.param((MODEL, 0.5), r"a tuple \(Model, float\)", id="bare number"),
        pytest.param((MODEL, {}, {}), r"a tuple \(Model, dict, dict\)", id="three"),
        pytest.param((MODEL, {"auc": "high"}), "metric 'auc' = 'high'", id="text as metric"),
        pytest.param((MODEL, {1: 0.5}), "metric 1 = 0.5", id="number as name"),
        pytest.param((None, {"auc": 0.5}), "returned None, which is no model", id="no model"),
    ],
)
def test_what_is_no_model_is_refused_by_name(result, named):
    with pytest.raises(TypeError, match=named):
        split_result(result, "fit")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"autolog": "yes"}, "autolog must be True, False or a dict"),
        ({"requirements": "scikit-learn"}, "requirements must be a list"),
        ({"experiment": " "}, "experiment must not be empty"),
        ({"model_name": ""}, "model_name must not be empty"),
        ({"max_depht": 3}, "max_depht"),
    ],
)
def test_wrong_options_are_refused_when_the_dag_is_parsed(options, error):
    with pytest.raises((TypeError, ValueError), match=error):
        TrainModelOperator(task_id="fit", python_callable=fit, **options)


def test_the_sample_is_the_argument_with_the_columns_of_the_model():
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [0.0, 1.0], "y": [1.0, 2.0]})
    model = LinearRegression().fit(frame[["b", "a"]], frame["y"])
    other = frame[["a"]]
    assert list(sample_for(model, [3, "x", other, frame]).columns) == ["b", "a"]
    assert sample_for(model, [3, other]) is None


def test_an_arrow_table_is_a_sample_too():
    table = pa.table({"a": [1.0, 2.0], "b": [0.0, 1.0], "y": [1.0, 2.0]})
    model = LinearRegression().fit(table.to_pandas()[["b", "a"]], [1, 2])
    assert list(sample_for(model, [table["a"], table.drop_columns("b"), table]).columns) == ["b", "a"]


def test_a_frame_of_polars_is_a_sample_that_a_signature_can_be_told_from():
    polars = pytest.importorskip("polars")
    from mlflow.models import infer_signature

    table = polars.DataFrame({"a": [1.0, 2.0], "b": [0.0, 1.0], "y": [1.0, 2.0]})
    model = LinearRegression().fit(table.select("b", "a"), [1, 2])
    sample = sample_for(model, [table["a"], table.drop("b"), table])
    assert infer_signature(sample).inputs.input_names() == ["b", "a"]


def test_a_model_that_was_fitted_on_an_array_takes_an_array_as_sample():
    rows = np.arange(6.0).reshape(3, 2)
    model = LinearRegression().fit(rows, [1, 2, 3])
    assert sample_for(model, [pd.DataFrame(rows), np.arange(3), rows]) is not None
    assert sample_for(object(), [rows]) is None


@pytest.mark.parametrize("kind", ["bsr", "coo", "csc", "csr", "dia", "dok", "lil"])
def test_a_sparse_matrix_of_any_kind_is_a_sample(kind):
    rows = sparse.csr_matrix(np.arange(400.0).reshape(200, 2)).asformat(kind)
    model = LinearRegression().fit(rows, np.arange(200))
    sample = sample_for(model, [rows])
    assert (sample.toarray() == rows.toarray()[:100]).all()


def test_the_fingerprint_follows_the_source():
    def one():
        return 1

    def two():
        return 2

    assert fingerprint_of(one) == fingerprint_of(one) != fingerprint_of(two)
    assert fingerprint_of(print) is None


def test_numbers_that_json_lacks_are_left_out():
    assert finite({"a": 1.0, "b": float("nan"), "c": float("inf")}) == {"a": 1.0}
