# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from airflow_ml_provider.exceptions import LeakageError
from airflow_ml_provider.tracking.leakage import Horizon, model_leak, refuse, rows_leak
from airflow_ml_provider.tracking.models import ModelRef

DAY = Horizon(datetime(2013, 5, 14, tzinfo=UTC), datetime(2013, 5, 15, tzinfo=UTC))


@pytest.mark.parametrize(
    ("changes", "leaks"),
    [
        pytest.param({"effective_at": "2013-05-01"}, False, id="of an earlier month"),
        pytest.param({"effective_at": "2013-05-14T00:00:00+00:00"}, False, id="up to where the rows begin"),
        pytest.param({"effective_at": "2013-05-15"}, True, id="of that very day"),
        pytest.param({"effective_at": "2013-06-01"}, True, id="of later"),
        pytest.param({"effective_at": "2013-06-01", "data_until": "2013-05-01"}, False, id="declares less"),
        pytest.param({"effective_at": "2013-05-01", "data_until": "2013-05-20"}, True, id="declares more"),
        pytest.param({"effective_at": None}, False, id="says nothing"),
        pytest.param({"effective_at": "2013-06-01", "version": None}, False, id="no version yet"),
    ],
)
def test_which_models_know_what_they_are_judged_on(changes, leaks):
    given = {"registered_model_name": "flight_delay", "version": "3", **changes}
    found = model_leak(ModelRef("models:/flight_delay/3", **given), DAY)
    assert (found is not None) is leaks
    if found:
        assert "version 3 of 'flight_delay'" in found
        assert "judged on data from 2013-05-14T00:00:00+00:00" in found


@pytest.mark.parametrize(("day", "leaks"), [(14, False), (15, False), (16, True)])
def test_which_rows_speak_for_a_later_time(day, leaks):
    ref = SimpleNamespace(name="flights", version_id="v1", effective_at=datetime(2013, 5, day, tzinfo=UTC))
    assert (rows_leak(ref, DAY) is not None) is leaks  # type: ignore[arg-type]


def test_a_leak_is_an_error_unless_it_is_allowed_by_name():
    with pytest.raises(LeakageError, match=r"leakage: it knows; wait, .* allow_leakage=\['flight_delay'\]"):
        refuse("it knows", "flight_delay", ("other",), "wait")
    assert refuse("it knows", "flight_delay", ("flight_delay",), "wait") == "it knows"
    assert refuse(None, "flight_delay", (), "wait") is None
