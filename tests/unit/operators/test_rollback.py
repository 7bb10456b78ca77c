# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from airflow_ml_provider.assets.assets import ModelAsset
from airflow_ml_provider.operators.rollback import RollbackModelOperator, _version

OPTIONS = {"task_id": "back", "registered_model_name": "flight_delay"}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"alias": "latest"}, "reserved by MLflow"),
        ({"registered_model_name": "a/b"}, "must not contain '/'"),
        ({"move_in_backfill": "yes"}, "move_in_backfill must be True or False"),
        ({"outlets": [ModelAsset("other")]}, "announces a move that this task does not make"),
    ],
)
def test_wrong_options_are_refused_when_the_dag_is_parsed(options, error):
    with pytest.raises((TypeError, ValueError), match=error):
        RollbackModelOperator(**{**OPTIONS, **options})


@pytest.mark.parametrize(
    ("given", "read"), [(3, "3"), (" 3 ", "3"), ("", None), (None, None), ("None", None)]
)
def test_a_version_is_a_number_and_nothing_is_the_one_before(given, read):
    assert _version(given) == read


def test_what_is_no_version_is_refused():
    with pytest.raises(ValueError, match="such as 3, got 'champion'"):
        _version("champion")
