# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from airflow_ml_provider.operators.base import data_time
from airflow_ml_provider.operators.evaluate import EvaluateModelOperator, asked_as_of, evaluation_key
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
        ({"slices": "origin"}, "slices must be a list of columns"),
        ({"bootstrap_draws": -1}, "bootstrap_draws must be a number"),
        ({"allow_leakage": True}, "allow_leakage must be a list of names"),
        ({"allow_leakage": "flight_delay"}, "allow_leakage must be a list of names"),
    ],
)
def test_wrong_options_are_refused_when_the_dag_is_parsed(options, error):
    with pytest.raises((TypeError, ValueError), match=error):
        EvaluateModelOperator(**{**OPTIONS, **options})


def run(run_type: str, **context: object) -> dict[str, object]:
    return {"dag_run": SimpleNamespace(run_type=run_type, run_after=JUNE), **context}


MAY, JUNE = datetime(2013, 5, 1, tzinfo=UTC), datetime(2013, 6, 1, tzinfo=UTC)
INTERVAL = {"data_interval_start": MAY, "data_interval_end": JUNE, "logical_date": MAY}
PARTITION = {"partition_key": "2013-05", "partition_date": MAY}


@pytest.mark.parametrize(
    ("context", "options", "expected"),
    [
        pytest.param(run("scheduled", **INTERVAL), {}, None, id="as it is now"),
        pytest.param(run("backfill", **INTERVAL), {}, JUNE, id="a backfill asks at its interval's end"),
        pytest.param(run("backfill", **PARTITION), {}, MAY, id="and of a partition at its date"),
        pytest.param(run("backfill", **INTERVAL), {"as_of": MAY}, MAY, id="unless told otherwise"),
        pytest.param(run("scheduled", **INTERVAL), {"clock": "wall"}, JUNE, id="the wall clock looks back"),
        pytest.param(run("manual"), {"clock": "wall"}, None, id="without a slice there is no time to ask"),
    ],
)
def test_when_the_aliases_of_an_evaluation_are_asked(context, options, expected):
    assert asked_as_of(EvaluateModelOperator(**{**OPTIONS, **options}), context) == expected


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
