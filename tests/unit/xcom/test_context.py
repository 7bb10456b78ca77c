# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, CronPartitionTimetable

from airflow_ml_provider.xcom.context import (
    effective_at_of,
    identity_of,
    partition_end_of,
    slice_of,
    triggering_extras,
)

FEBRUARY, MARCH = datetime(2013, 2, 1, tzinfo=UTC), datetime(2013, 3, 1, tzinfo=UTC)
RUN_AFTER = datetime(2026, 1, 1, tzinfo=UTC)
JUNE = "2013-06-01T00:00:00+00:00"


def event(timestamp: datetime, **extra: str) -> SimpleNamespace:
    return SimpleNamespace(timestamp=timestamp, extra=extra)


def run(run_type: str = "scheduled", **context: object) -> dict[str, object]:
    return {"dag_run": SimpleNamespace(run_type=run_type, run_after=RUN_AFTER), **context}


TRIGGERED = {"asset": [event(MARCH, effective_at=JUNE), event(FEBRUARY)]}


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        pytest.param(
            run(data_interval_start=FEBRUARY, data_interval_end=MARCH, logical_date=FEBRUARY),
            MARCH,
            id="interval",
        ),
        pytest.param(run(partition_key="2013-03", partition_date=None), MARCH, id="partition"),
        pytest.param(run(logical_date=FEBRUARY), FEBRUARY, id="logical date"),
        pytest.param(
            run("asset_triggered", triggering_asset_events=TRIGGERED),
            datetime(2013, 6, 1, tzinfo=UTC),
            id="event",
        ),
        pytest.param(
            run(
                "asset_triggered",
                triggering_asset_events={
                    "asset": [event(MARCH, from_trigger=True, payload={"effective_at": JUNE})]
                },
            ),
            datetime(2013, 6, 1, tzinfo=UTC),
            id="event of a watcher",
        ),
        pytest.param(
            run("scheduled", triggering_asset_events=TRIGGERED), RUN_AFTER, id="event of a cron run"
        ),
        pytest.param(run("manual"), RUN_AFTER, id="by hand: one moment for the whole run"),
    ],
)
def test_the_data_time_that_a_run_speaks_for(context, expected):
    assert effective_at_of(context) == expected


def partition(key: str, begins: str | None = None, schedule: Any = None) -> dict[str, Any]:
    date = None if begins is None else datetime.fromisoformat(begins)
    return {
        "partition_key": key,
        "partition_date": date,
        "dag": DAG("d", schedule=schedule, start_date=FEBRUARY),
    }


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        pytest.param(
            partition("x", "2013-05-14T00:00Z", CronPartitionTimetable("@daily", timezone="UTC")),
            "2013-05-15T00:00Z",
            id="by the timetable",
        ),
        pytest.param(
            # The clocks go forward on that day, which has 23 hours.
            partition("x", "2013-03-30T23:00Z", CronPartitionTimetable("@daily", timezone="Europe/Paris")),
            "2013-03-31T22:00Z",
            id="in its zone",
        ),
        pytest.param(
            partition("x", "2013-05-01T00:00Z", CronPartitionTimetable("@monthly", timezone=UTC)),
            "2013-06-01T00:00Z",
            id="a month",
        ),
        pytest.param(partition("2013-12"), "2014-01-01T00:00Z", id="key of a month"),
        pytest.param(partition("2013-12-31"), "2014-01-01T00:00Z", id="key of a day"),
        pytest.param(partition("eu-west"), None, id="key that is no date"),
        pytest.param({"data_interval_end": MARCH}, None, id="no partition"),
    ],
)
def test_where_the_data_of_a_partition_end(context, expected):
    found = partition_end_of(context)
    assert found == (expected and datetime.fromisoformat(expected))


def test_what_the_user_says_wins():
    assert effective_at_of(run(data_interval_start=FEBRUARY, data_interval_end=MARCH), FEBRUARY) == FEBRUARY


def test_extras_of_triggering_events_come_oldest_first():
    assert triggering_extras(run(triggering_asset_events=TRIGGERED)) == [{}, {"effective_at": JUNE}]


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        pytest.param(run(partition_key="a|b", logical_date=FEBRUARY), "a|b", id="partition key"),
        pytest.param(
            run(data_interval_start=FEBRUARY, data_interval_end=MARCH),
            "2013-03-01T00:00:00+00:00",
            id="interval",
        ),
        pytest.param(run(), None, id="no slice"),
    ],
)
def test_the_slice_of_a_run(context, expected):
    assert slice_of(context) == expected


def test_a_task_that_is_not_mapped_has_index_minus_one():
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=None, try_number=2)
    identity = identity_of(run(ti=ti))
    assert (identity.map_index, identity.try_number, identity.key) == (-1, 2, "d/r/t/-1")
