# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from airflow_ml_provider.operators.base import data_time
from airflow_ml_provider.operators.evaluate import EvaluateModelOperator, evaluation_key
from airflow_ml_provider.tracking.identity import TaskIdentity

OPTIONS = {"task_id": "evaluate", "model": "models:/m/1", "data": None, "target": "late"}


def identity(run_id: str, slice_: str | None, map_index: int = -1) -> TaskIdentity:
    return TaskIdentity("dag", run_id, "evaluate", map_index, slice=slice_)


def test_a_remade_backfill_run_finds_the_evaluation_of_its_slice():
    first = evaluation_key(identity("backfill__2013-05-14", "2013-05-14T00:00:00+00:00"))
    again = evaluation_key(identity("backfill__2013-05-14__again", "2013-05-14T00:00:00+00:00"))
    other_day = evaluation_key(identity("backfill__2013-05-15", "2013-05-15T00:00:00+00:00"))
    assert first == again != other_day


def test_without_a_slice_each_task_instance_has_its_own_evaluation():
    keys = {
        evaluation_key(identity("a", None)),
        evaluation_key(identity("b", None)),
        evaluation_key(identity("b", None, map_index=0)),
        evaluation_key(identity("b", "x", map_index=0)),
        evaluation_key(identity("b", "x", map_index=1)),
    }
    assert len(keys) == 5


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"model_type": "clasifier"}, "classifier, regressor, got 'clasifier'"),
        ({"target": ""}, "target must name"),
        ({"evaluator_config": "fast"}, "evaluator_config must be a dict"),
        ({"targets": "x"}, "targets"),
        ({"clock": "moon", "as_of": "2013-05-14"}, "clock must be 'data' or 'wall', got 'moon'"),
        ({"clock": "wall"}, "give as_of"),
        ({"slices": "origin"}, "slices must be a list of columns"),
        ({"bootstrap_draws": -1}, "bootstrap_draws must be a number"),
        ({"allow_leakage": True}, "allow_leakage must be a list of names"),
        ({"allow_leakage": "flight_delay"}, "allow_leakage must be a list of names"),
    ],
)
def test_wrong_options_are_refused_when_the_dag_is_parsed(options, error):
    with pytest.raises((TypeError, ValueError), match=error):
        EvaluateModelOperator(**{**OPTIONS, **options})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("2013-05-14", "2013-05-14T00:00:00+00:00"),
        ("2013-05-14 00:00:00+02:00", "2013-05-13T22:00:00+00:00"),
    ],
)
def test_data_time_is_read_as_utc(value, expected):
    found = data_time(value, option="as_of")
    assert (found and found.isoformat()) == expected


def test_text_that_is_no_time_is_refused():
    with pytest.raises(ValueError, match="as_of must be a datetime or ISO 8601 text, got 'last May'"):
        data_time("last May", option="as_of")
