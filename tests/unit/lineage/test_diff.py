# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pandas as pd
import pytest

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.refs import Producer
from airflow_ml_provider.exceptions import ModelNotFoundError
from airflow_ml_provider.lineage.diff import diff_models
from airflow_ml_provider.lineage.graph import Lineage
from tests.unit.lineage.history import History, flights, model, month


@pytest.fixture
def history(tmp_path):
    return History(tmp_path)


def training(history, number, frame, *, function="def fit(): ...", holdout=None, **more):
    run = f"training/run{number}"
    when = month(number)
    producer = Producer("training", f"run{number}", "features")
    features = history.store.save(frame, "features", producer=producer, effective_at=when)
    history.attempt(
        f"{run}/features", writes=["unrelated"], code={"function_digest": f"features{number // 2}"}
    )
    record = {
        "models_written": (model(f"m-{number}", "trained", str(number)),),
        "effective_at": when,
        "code": {"function_digest": str(hash(function)), "source": function, "git.commit": "abc"},
        "environment": {
            "python": "3.11.9",
            "hostname": f"host{number}",
            "packages": {"pandas": "3.0.0", "scikit-learn": f"1.{number}"},
        },
        "params": {"max_depth": number, "seed": 1},
        "metrics": {"train_auc": 0.5 + number / 10, "rows": 3},
    }
    history.attempt(f"{run}/fit", reads=[features], **{**record, **more})
    data = None if holdout is None else {"name": "holdout", "version_id": "v", "digest": holdout}
    history.attempt(
        f"{run}/evaluate",
        models_read=(model(f"m-{number}", "evaluated"),),
        evaluation={
            "mlflow_run_id": f"e{number}",
            "model_id": f"m-{number}",
            "metrics": {"roc_auc": 0.7 + number / 100},
            "data": data,
        },
    )
    return features


FRAME = pd.DataFrame({"distance": [1, 2, 3], "carrier": ["a", "b", "c"]})


def diff(history, before="models:/flight_delay/2", after="models:/flight_delay/4"):
    return diff_models(history.lineage, before, after)


def test_code_parameters_environment_and_metrics_that_differ_are_listed(history):
    training(history, 2, FRAME, holdout="blake3:same")
    training(history, 4, FRAME, function="def fit():\n    pass", holdout="blake3:same")
    found = diff(history)
    assert {row["name"] for row in found.code} == {"function_digest"}
    assert found.params == ({"name": "max_depth", "before": 2, "after": 4},)
    assert found.environment == ({"name": "scikit-learn", "before": "1.2", "after": "1.4"},)
    (metric,) = found.metrics
    assert (metric["name"], round(metric["delta"], 6)) == ("train_auc", 0.2)
    (evaluation,) = found.evaluations
    assert round(evaluation["delta"], 6) == 0.02
    assert found.source.splitlines()[-2:] == ["+def fit():", "+    pass"]
    assert found.notes == ()
    assert json.loads(json.dumps(found.to_json())) == found.to_json()


def test_data_of_the_same_content_say_so(history):
    training(history, 2, FRAME)
    training(history, 4, FRAME)
    (row,) = diff(history).data
    assert row["same_content"]
    assert (row["schema"], row["rows"], row["statistics"]) == ([], None, [])


def test_schema_and_rows_that_differ_are_listed_without_loading_data(history):
    training(history, 2, FRAME)
    other = FRAME.assign(distance=[0.5, 1.5, 2.5], extra=1).drop(columns="carrier").head(2)
    training(history, 4, other)
    found = list(history.store.objects.list("blobs"))
    history.store.objects.delete([entry.key for entry in found])
    (row,) = diff(history).data
    assert row["schema"] == [
        {"column": "distance", "before": "int64", "after": "float64"},
        {"column": "carrier", "before": "str", "after": None},
        {"column": "extra", "before": None, "after": "int64"},
    ]
    assert row["rows"] == {"before": 3, "after": 2}
    assert row["before"]["version_id"] != row["after"]["version_id"]


def test_a_training_data_set_that_is_gone_is_noted(history):
    features = training(history, 2, FRAME)
    training(history, 4, FRAME.head(1))
    history.store.objects.delete([keys.version_key("features", features.version_id)])
    found = diff(history)
    assert found.data[0]["before"]["gone"] is True
    assert found.data[0]["after"]["size_bytes"] > 0
    assert any(features.version_id in note for note in found.notes)


def test_what_changed_further_up_is_listed_by_task(history):
    training(history, 2, FRAME)
    training(history, 4, FRAME.head(1))
    changed = [row for row in diff(history).upstream if row["what"] == "code"]
    assert changed == [
        {
            "name": "training.features",
            "what": "code",
            "part": "function_digest",
            "before": "features1",
            "after": "features2",
        }
    ]


def test_evaluations_on_different_data_are_no_fair_comparison(history):
    training(history, 2, FRAME, holdout="blake3:a")
    training(history, 4, FRAME, holdout="blake3:b")
    assert "different data" in diff(history).notes[0]


def test_a_model_without_a_recorded_training_is_compared_as_far_as_known(history):
    training(history, 2, FRAME)
    history.attempt("scoring/r/score", models_read=(model("m-foreign", "scored", "9"),))
    found = diff(history, after="models:/flight_delay/9")
    assert (
        found.notes[0] == "models:/flight_delay/9: no record of its training: it came from outside of Airflow"
    )
    assert {row["name"] for row in found.params} == {"max_depth", "seed"}


def test_two_equal_models_differ_in_nothing(history):
    training(history, 2, FRAME, holdout="blake3:a")
    found = diff(history, after="models:/m-2")
    assert set(found.same) == {
        "code",
        "params",
        "data",
        "environment",
        "metrics",
        "evaluations",
        "upstream",
    }
    assert found.source is None


@pytest.mark.parametrize("what", ["models:/flight_delay/77", "training/run2/fit", "features"])
def test_what_is_no_model_is_refused(history, what):
    flights(history, 2)
    with pytest.raises(ModelNotFoundError):
        diff_models(history.lineage, what, "models:/flight_delay/2")


def test_what_the_caller_may_not_see_is_counted(history):
    training(history, 2, FRAME)
    training(history, 4, FRAME)
    own = Lineage(history.store, may_read=lambda dag_id: dag_id == "other")
    with pytest.raises(ModelNotFoundError):
        diff_models(own, "models:/flight_delay/2", "models:/flight_delay/4")


def test_statistics_of_columns_that_differ_are_listed(history):
    training(history, 2, FRAME)
    training(history, 4, FRAME.assign(distance=[1.0, 5.0, None]))
    (row,) = diff(history).data
    assert row["statistics"] == [
        {"column": "distance", "name": "nulls", "before": 0, "after": 1},
        {"column": "distance", "name": "max", "before": 3, "after": 5.0},
        {"column": "distance", "name": "mean", "before": 2.0, "after": 3.0},
    ]
