# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from airflow_ml_provider.exceptions import ModelNotFoundError
from airflow_ml_provider.tracking.flavors import log_model
from airflow_ml_provider.tracking.identity import TaskIdentity
from airflow_ml_provider.tracking.models import ModelRef
from airflow_ml_provider.tracking.registry import (
    alias_version,
    move_alias,
    register_version,
    resolve_model_uri,
    version_ref,
)
from airflow_ml_provider.tracking.runs import task_run


@pytest.fixture
def train(client, name):
    """Trains a model in a run of its own and gives its reference."""
    X = pd.DataFrame({"a": np.linspace(-1, 1, 20)})

    def fit(run_id: str = "r1") -> ModelRef:
        with task_run(client, experiment=name, identity=TaskIdentity("d", run_id, "fit")) as run:
            run.log_metrics({"roc_auc": 0.7})
            model = LogisticRegression().fit(X, X.a > 0)
            return log_model(model, X_sample=X, effective_at="2013-06-01T00:00:00+00:00")

    return fit


def test_a_model_becomes_one_version_however_often_it_is_registered(client, name, train):
    ref = train()
    assert register_version(client, ref, name, {"team": "delay"}) == "1"
    assert register_version(client, ref, name, {"team": "other"}) == "1"
    (version,) = client.search_model_versions(f"name = '{name}'")
    assert version.tags["team"] == "other"
    assert version.tags["airflow.model_id"] == ref.model_id
    assert version.tags["airflow.effective_at"] == "2013-06-01T00:00:00+00:00"
    assert version.run_id == ref.mlflow_run_id
    shown = json.loads(client.get_logged_model(ref.model_id).tags["mlflow.modelVersions"])
    assert shown == [{"name": name, "version": "1"}]


def test_another_model_is_another_version(client, name, train):
    assert [register_version(client, train(run), name) for run in ("r1", "r2")] == ["1", "2"]


def test_an_alias_moves_and_says_where_it_was(client, name, train):
    assert alias_version(client, name, "champion") is None  # no registered model either
    for run in ("r1", "r2"):
        register_version(client, train(run), name)
    assert alias_version(client, name, "champion") is None
    assert move_alias(client, name, "champion", "1") is None
    assert move_alias(client, name, "champion", "2") == "1"
    assert move_alias(client, name, "champion", "2") == "2"
    assert alias_version(client, name, "champion") == "2"
    with pytest.raises(ModelNotFoundError, match=r"no version 9.*champion -> 2.*versions: 2, 1"):
        move_alias(client, name, "champion", "9")


@pytest.mark.parametrize("form", ["models:/{name}@champion", "models:/{name}/1", "models:/{model_id}"])
def test_a_name_is_followed_to_the_model(client, name, train, form):
    trained = train()
    register_version(client, trained, name)
    move_alias(client, name, "champion", "1")
    found = resolve_model_uri(client, form.format(name=name, model_id=trained.model_id))
    assert found.model_id == trained.model_id
    assert found.flavor == "sklearn"
    assert found.metrics["roc_auc"] == 0.7
    assert found.mlflow_run_id == trained.mlflow_run_id
    assert "@" not in found.model_uri
    assert found.version == (None if "model_id" in form else "1")


def test_a_version_carries_the_data_time_it_speaks_for(client, name, train):
    register_version(client, train(), name)
    assert version_ref(client, name, "1").effective_at == "2013-06-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("models:/{name}@champion", r"no alias 'champion'; aliases: shadow -> 1; latest versions: 1"),
        ("models:/{name}/7", r"no version 7; aliases: shadow -> 1"),
        ("models:/{name}-other@champion", r"does not exist; registered models: "),
        ("models:/m-0123", "has no model 'm-0123'"),
    ],
)
def test_what_is_missing_is_named_with_what_there_is(client, name, train, uri, message):
    register_version(client, train(), name)
    move_alias(client, name, "shadow", "1")
    with pytest.raises(ModelNotFoundError, match=message):
        resolve_model_uri(client, uri.format(name=name))


def test_a_registered_model_whose_logged_model_is_gone_still_resolves(client, name, train):
    ref = train()
    register_version(client, ref, name)
    client.delete_logged_model(ref.model_id)
    assert resolve_model_uri(client, f"models:/{name}/1").model_id == ref.model_id


def test_a_registered_model_needs_a_name(client, train):
    with pytest.raises(ValueError, match="registered_model_name"):
        register_version(client, train(), "")
