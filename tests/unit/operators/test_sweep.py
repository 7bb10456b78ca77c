# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_ml_provider.operators import SweepRunsOperator


@pytest.mark.parametrize("older_than", [timedelta(minutes=1), 60, 0.5])
def test_an_age_is_a_timedelta_or_seconds(older_than):
    assert SweepRunsOperator(task_id="sweep", older_than=older_than).older_than == older_than


def test_another_age_is_refused_when_the_dag_is_parsed():
    with pytest.raises(TypeError, match="timedelta or a number of seconds, got '5m'"):
        SweepRunsOperator(task_id="sweep", older_than="5m")
