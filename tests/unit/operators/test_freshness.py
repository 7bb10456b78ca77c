# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import timedelta

import pytest
from airflow.sdk import Asset

from airflow_ml_provider.operators import CheckModelFreshnessOperator

OPTIONS = {"task_id": "check", "registered_model_name": "iris", "max_age": timedelta(days=7)}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_age": 7}, "max_age must be a timedelta"),
        ({"max_age": timedelta(0)}, "more than no time"),
        ({"clock": "sun"}, "clock must be one of data, wall"),
        ({"on_stale": "mail"}, "on_stale must be one of fail, emit"),
        ({"on_stale": "emit"}, "needs the asset"),
        ({"outlets": [Asset("due")]}, "a task that fails emits no events"),
        ({"emit_in_backfill": 1}, "emit_in_backfill must be True or False"),
        ({"alias": "latest"}, "reserved by MLflow"),
        ({"registered_model_name": "a/b"}, "must not contain '/'"),
    ],
)
def test_wrong_options_are_refused_when_the_dag_is_parsed(options, error):
    with pytest.raises((TypeError, ValueError), match=error):
        CheckModelFreshnessOperator(**{**OPTIONS, **options})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clock": "wall"},
        {"on_stale": "emit", "outlets": [Asset("due")]},
        {"on_stale": "emit", "outlets": [Asset.ref(name="due")]},
        {"registered_model_name": "{{ params.name }}", "alias": "{{ params.alias }}"},
    ],
)
def test_options_that_make_sense_are_taken(options):
    CheckModelFreshnessOperator(**{**OPTIONS, **options})
