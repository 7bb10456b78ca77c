# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import SimpleNamespace

import pytest

from airflow_ml_provider.assets.events import event_extra

MOVE = {"version": "3", "effective_at": "2013-05-01T00:00:00+00:00"}


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        pytest.param(MOVE, MOVE, id="a task or the webhook"),
        pytest.param({"from_trigger": True, "payload": MOVE}, MOVE, id="a watcher"),
        pytest.param({"payload": MOVE}, {"payload": MOVE}, id="somebody's own key"),
        pytest.param(
            {"from_trigger": True, "payload": "x"},
            {"from_trigger": True, "payload": "x"},
            id="other triggers",
        ),
        pytest.param(None, {}, id="nothing"),
    ],
)
def test_what_an_event_says_does_not_depend_on_who_raised_it(extra, expected):
    assert event_extra(SimpleNamespace(extra=extra)) == expected
