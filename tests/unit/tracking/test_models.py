# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math

import pytest

from airflow_ml_provider.tracking.models import ModelRef


@pytest.mark.parametrize(
    ("text", "attributes"),
    [
        ("models:/m-0a1b", {"model_id": "m-0a1b", "registered_model_name": None, "alias": None}),
        ("models:/flight delay/3", {"registered_model_name": "flight delay", "version": "3", "alias": None}),
        ("models:/flight_delay@champion", {"registered_model_name": "flight_delay", "alias": "champion"}),
        ("runs:/abc/model", {"mlflow_run_id": "abc", "model_id": None}),
    ],
)
def test_a_uri_says_what_it_can(text, attributes):
    ref = ModelRef.coerce(text)
    assert ref.model_uri == text
    for name, value in attributes.items():
        assert getattr(ref, name) == value


@pytest.mark.parametrize(
    "text", ["", "models:/", "models:/name", "models:/a/b/c", "/tmp/model", "models:/x@"]
)
def test_text_that_names_no_model_is_refused(text):
    with pytest.raises(ValueError, match="names no model"):
        ModelRef.coerce(text)


def test_other_values_are_refused_by_type():
    with pytest.raises(TypeError, match="int"):
        ModelRef.coerce(7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="model_uri"):
        ModelRef.coerce({"version": "3"})


def test_a_reference_crosses_json_exactly():
    ref = ModelRef(
        "models:/m-1",
        "m-1",
        "run",
        "7",
        "sklearn",
        {"roc_auc": 0.7, "nan": math.inf},
        "model",
        effective_at="2013-06",
    )
    text = json.dumps(ref.to_json(), allow_nan=False)
    assert ModelRef.from_json(json.loads(text)) == ref
    assert ModelRef.coerce(json.loads(text)) == ref
    assert math.isnan(
        ModelRef.from_json(ModelRef("models:/m-1", metrics={"x": math.nan}).to_json()).metrics["x"]
    )


@pytest.mark.parametrize(
    ("address", "told"),
    [
        (
            "postgresql://mlflow:hunter2@db:5432/mlflow?sslmode=require",
            "postgresql://db:5432/mlflow?sslmode=require",
        ),
        ("https://someone:hunter2@mlflow.example/base", "https://mlflow.example/base"),
        ("sqlite:////srv/mlflow.db", "sqlite:////srv/mlflow.db"),
        ("databricks", "databricks"),
        (None, None),
    ],
)
def test_no_password_of_an_address_leaves_the_process(address, told):
    ref = ModelRef("models:/m-1", tracking_uri=address)
    assert ref.to_json()["tracking_uri"] == told
    assert ref.tracking_uri == address, "which loads it here"


def test_a_reference_of_a_later_release_can_be_read():
    assert ModelRef.from_json({"model_uri": "models:/m-1", "mood": "good", "version": 3}).version == "3"


def test_the_repr_is_small():
    ref = ModelRef("models:/m-1", "m-1", metrics=dict.fromkeys(map(str, range(1000)), 0.5)).at(
        version="3", registered_model_name="flight_delay"
    )
    assert repr(ref) == "ModelRef('models:/m-1', flight_delay v3)"
    assert hash(ref) == hash(ref)
