# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.objects import ObjectStore
from airflow_ml_provider.exceptions import ArtifactNotFoundError
from airflow_ml_provider.lineage.records import (
    TaskRecord,
    VersionUse,
    consumers_of,
    read_record,
    write_record,
)

READ_ID, WRITTEN_ID = (keys.new_version_id(datetime(2013, 3, day, tzinfo=UTC)) for day in (1, 2))
READ = VersionUse("flight_features", READ_ID, "blake3:" + "a" * 64, "pandas.DataFrame", 10)
WRITTEN = VersionUse("report/daily", WRITTEN_ID, "blake3:" + "b" * 64, "pandas.DataFrame", 20)
RECORD = TaskRecord(
    dag_id="dag/with slash",
    run_id="scheduled__2013-02-01T00:00:00+00:00",
    task_id="group.task",
    map_index=3,
    try_number=2,
    outcome="success",
    effective_at=datetime(2013, 3, 1, tzinfo=UTC),
    data_interval=(datetime(2013, 2, 1, tzinfo=UTC), datetime(2013, 3, 1, tzinfo=UTC)),
    reads=(READ,),
    writes=(WRITTEN,),
)


@pytest.fixture
def objects(tmp_path):
    return ObjectStore(f"file://{tmp_path}/root")


def read_back(objects):
    return read_record(objects, RECORD.dag_id, RECORD.run_id, RECORD.task_id, map_index=3, try_number=2)


def test_a_record_says_what_an_attempt_read_and_wrote_on_both_clocks(objects):
    write_record(objects, RECORD)
    found = read_back(objects)
    assert [use["version_id"] for use in found["reads"]] == [READ_ID]
    assert [use["name"] for use in found["writes"]] == ["report/daily"]
    assert found["effective_at"] == "2013-03-01T00:00:00+00:00"
    assert found["recorded_at"] == RECORD.recorded_at.isoformat()


def test_a_version_knows_who_read_it(objects):
    write_record(objects, RECORD)
    write_record(objects, replace(RECORD, task_id="other"))
    write_record(objects, replace(RECORD, task_id="reads nothing", reads=()))
    assert sorted(edge["task_id"] for edge in consumers_of(objects, READ_ID)) == ["group.task", "other"]
    assert list(consumers_of(objects, WRITTEN_ID)) == []


def test_a_record_written_twice_is_one_record(objects):
    write_record(objects, RECORD)
    write_record(objects, replace(RECORD, outcome="failed"))
    assert read_back(objects)["outcome"] == "failed"
    assert len(list(consumers_of(objects, READ_ID))) == 1


def test_a_missing_record_is_an_error(objects):
    with pytest.raises(ArtifactNotFoundError):
        read_back(objects)
