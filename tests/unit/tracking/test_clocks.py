# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from types import SimpleNamespace

import pytest

from airflow_ml_provider.tracking.clocks import effective_at, moment

MAY = datetime(2013, 5, 1, tzinfo=UTC)
JUNE = datetime(2013, 6, 1, tzinfo=UTC)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param({"data_interval": (MAY, JUNE)}, JUNE, id="end of the interval"),
        pytest.param({"data_interval": (MAY, MAY)}, MAY, id="an interval of no length"),
        pytest.param({"data_interval": SimpleNamespace(start=MAY, end=JUNE)}, JUNE, id="interval object"),
        pytest.param({"data_interval": (None, None), "logical_date": MAY}, MAY, id="interval without ends"),
        pytest.param({"data_interval": (MAY, JUNE), "partition_key": "2012-01"}, JUNE, id="interval first"),
        pytest.param({"partition_date": MAY, "partition_key": "2012-01"}, MAY, id="partition date first"),
        pytest.param({"partition_key": "2013-05"}, MAY, id="key of a month"),
        pytest.param(
            {"partition_key": "2013-05-01T00:00:00Z", "logical_date": JUNE}, MAY, id="key of a time"
        ),
        pytest.param({"partition_key": "eu-west", "logical_date": JUNE}, JUNE, id="key that is no date"),
        pytest.param({"partition_key": "20130501"}, NOW, id="key that only looks like one"),
        pytest.param({"logical_date": MAY}, MAY, id="logical date"),
        pytest.param(
            {
                "triggering_extras": [
                    {"effective_at": "2013-05-01T00:00:00+00:00"},
                    {},
                    {"effective_at": JUNE},
                ]
            },
            JUNE,
            id="latest of the events",
        ),
        pytest.param(
            {"triggering_extras": [{"effective_at": "soon"}, {"other": 1}]}, NOW, id="events without"
        ),
        pytest.param(
            {"data_interval": (MAY, JUNE), "explicit": "2013-05-01"}, MAY, id="what the user passes"
        ),
        pytest.param({}, NOW, id="wall clock"),
    ],
)
def test_the_data_time_of_a_run(arguments, expected):
    assert effective_at(**arguments, now=NOW) == expected


def test_the_answer_is_aware_and_in_utc():
    eastern = timezone(-timedelta(hours=4))
    found = effective_at(logical_date=datetime(2013, 5, 1, tzinfo=eastern))
    assert found == datetime(2013, 5, 1, 4, tzinfo=UTC)
    assert found.tzinfo is UTC
    assert effective_at().tzinfo is UTC


def test_an_explicit_time_that_is_none_is_refused():
    with pytest.raises(ValueError, match="'yesterday'"):
        effective_at(explicit="yesterday", now=NOW)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (date(2013, 5, 1), MAY),
        (datetime(2013, 5, 1), MAY),
        ("2013-05-01", MAY),
        ("", None),
        (7, None),
        (None, None),
    ],
)
def test_naive_times_count_as_utc(value, expected):
    assert moment(value) == expected
