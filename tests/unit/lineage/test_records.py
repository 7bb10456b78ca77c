# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.objects import ObjectStore
from airflow_ml_provider.exceptions import ArtifactNotFoundError
from airflow_ml_provider.lineage.records import (
    RUNNING,
    TaskRecord,
    VersionUse,
    close_killed,
    consumers_of,
    event_id,
    makers_of_evaluation,
    makers_of_model,
    model_key,
    read_record,
    registered_version,
    registered_versions,
    runs_started_by,
    users_of_evaluation,
    users_of_model,
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


MODEL = {
    "model_uri": "models:/m-1",
    "model_id": "m-1",
    "registered_model_name": "flight delay/eu",
    "version": "10",
    "mlflow_run_id": "r1",
    "alias": None,
    "role": "scored",
}


def names(edges):
    return [edge["task_id"] for edge in edges]


def test_a_model_knows_who_made_and_who_used_it(objects):
    trained = {**MODEL, "role": "trained", "registered_model_name": None, "version": None}
    write_record(objects, replace(RECORD, task_id="fit", models_written=(trained,)))
    write_record(objects, replace(RECORD, task_id="score", models_read=(MODEL,)))
    assert [(edge["task_id"], edge["role"]) for edge in makers_of_model(objects, "m-1")] == [
        ("fit", "trained")
    ]
    assert [(edge["task_id"], edge["version"]) for edge in users_of_model(objects, "m-1")] == [
        ("score", "10")
    ]


def test_a_registered_version_is_found_without_mlflow_whoever_used_it(objects):
    for version in ("2", "10", "9"):
        used = {**MODEL, "version": version, "model_id": f"m-{version}"}
        write_record(objects, replace(RECORD, task_id=f"score{version}", models_read=(used,)))
    assert registered_version(objects, "flight delay/eu", "10")["model_key"] == "m-10"
    assert registered_version(objects, "flight delay/eu", "11") is None
    found = registered_versions(objects, "flight delay/eu")
    assert [each["version"] for each in found] == ["10", "9", "2"]
    assert [
        each["version"] for each in registered_versions(objects, "flight delay/eu", after="10", limit=1)
    ] == ["9"]


def test_a_version_that_is_registered_anew_is_the_new_model(objects):
    """MLflow counts from 1 again when a registered model was deleted."""

    def version_10():
        return registered_version(objects, "flight delay/eu", "10")["model_key"]

    anew = {**MODEL, "model_id": "m-2", "model_uri": "models:/m-2"}
    write_record(objects, replace(RECORD, task_id="register", models_written=(MODEL,)))
    write_record(objects, replace(RECORD, task_id="score", models_read=(anew,)))
    assert version_10() == "m-1", "who uses it only says what it was told"
    promote = replace(RECORD, task_id="promote", run_id="later", models_read=(anew,))
    already = set()
    write_record(objects, replace(promote, outcome=RUNNING), already=already)
    write_record(objects, replace(promote, models_written=(anew,)), already=already)
    assert version_10() == "m-2"
    write_record(objects, replace(RECORD, task_id="score", models_read=(MODEL,)))
    assert version_10() == "m-2"


@pytest.mark.parametrize(
    ("model", "key"),
    [
        (MODEL, "m-1"),
        ({**MODEL, "model_id": None}, "flight delay/eu/10"),
        ({"model_uri": "runs:/r1/model"}, "runs:/r1/model"),
        ({}, None),
    ],
)
def test_a_model_is_filed_under_the_best_name_it_has(model, key):
    assert model_key(model) == key


def test_an_evaluation_knows_who_measured_it_and_who_decided_by_it(objects):
    write_record(objects, replace(RECORD, task_id="evaluate", evaluation={"mlflow_run_id": "e1"}))
    write_record(objects, replace(RECORD, task_id="promote", promotion={"evaluation_run_id": "e1"}))
    assert names(makers_of_evaluation(objects, "e1")) == ["evaluate"]
    assert names(users_of_evaluation(objects, "e1")) == ["promote"]


@pytest.mark.parametrize("source", [None, {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": None}])
def test_an_asset_event_knows_the_runs_that_it_started(objects, source):
    uri, time = "mlflow://flight_delay/champion", "2013-05-01T00:00:00+00:00"
    event = {"uri": uri, "name": "x", "timestamp": time, "source": source, "extra": {"version": "3"}}
    for task_id in ("first", "second"):
        write_record(objects, replace(RECORD, task_id=task_id, triggered_by=(event,)))
    (run,) = runs_started_by(objects, uri, event_id(source, time))
    assert (run["run_id"], run["extra"]) == (RECORD.run_id, {"version": "3"})
    assert event_id({"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1}, None) == event_id(
        {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": None}, "later"
    )


def test_an_edge_is_written_once_by_an_attempt_that_is_recorded_twice(objects, monkeypatch):
    put = []
    real = objects.put_json
    monkeypatch.setattr(
        objects, "put_json", lambda key, *rest, **kw: put.append(key) or real(key, *rest, **kw)
    )
    known: set[str] = set()
    write_record(objects, replace(RECORD, outcome=RUNNING), already=known)
    assert len(put) == 2, "the record and one edge"
    put.clear()
    write_record(objects, replace(RECORD, models_read=(MODEL,)), already=known)
    assert sorted(key.partition("/")[0] for key in put) == ["models", "records", "registered"]
    assert next(consumers_of(objects, READ_ID))["task_id"] == RECORD.task_id


def test_a_version_that_is_handed_over_and_loaded_later_counts_as_read(objects):
    known: set[str] = set()
    handed = (replace(READ, loaded=False),)
    write_record(objects, replace(RECORD, outcome=RUNNING, reads=handed), already=known)
    assert next(consumers_of(objects, READ_ID))["use"] == "handed"
    write_record(objects, RECORD, already=known)
    assert next(consumers_of(objects, READ_ID))["use"] == "read"


def test_an_input_that_turns_out_to_be_what_is_evaluated_is_known_as_that(objects):
    known: set[str] = set()
    early = replace(
        RECORD,
        outcome=RUNNING,
        reads=(replace(READ, loaded=False),),
        models_read=({**MODEL, "role": "input"},),
    )
    write_record(objects, early, already=known)
    write_record(objects, replace(RECORD, models_read=({**MODEL, "role": "evaluated"},)), already=known)

    [edge] = users_of_model(objects, model_key(MODEL))
    assert (edge["role"], edge["outcome"]) == ("evaluated", "success")
    [edge] = consumers_of(objects, READ_ID)
    assert edge["use"] == "read"


def test_uses_of_a_version_say_how(objects):
    write_record(objects, replace(RECORD, task_id="a"))
    write_record(objects, replace(RECORD, task_id="b", reads=(replace(READ, loaded=False),)))
    write_record(objects, replace(RECORD, task_id="c", reads=(), reused=(READ,)))
    found = {edge["task_id"]: edge["use"] for edge in consumers_of(objects, READ_ID)}
    assert found == {"a": "read", "b": "handed", "c": "reused"}


def test_many_edges_are_read_several_at_a_time(objects, monkeypatch):
    for number in range(100):
        write_record(objects, replace(RECORD, map_index=number, models_read=(MODEL,)))
    read, both = objects.get_json, threading.Barrier(2)

    def with_another(key):
        both.wait(timeout=5)
        return read(key)

    monkeypatch.setattr(objects, "get_json", with_another)
    assert len(list(users_of_model(objects, "m-1"))) == 100


def test_an_attempt_that_was_killed_is_found_by_the_next_one(objects):
    before = {"dag_id": RECORD.dag_id, "run_id": RECORD.run_id, "task_id": RECORD.task_id, "map_index": 3}
    assert not close_killed(objects, {**before, "try_number": 2}, 3), "it left nothing"
    write_record(objects, replace(RECORD, outcome=RUNNING))
    assert close_killed(objects, {**before, "try_number": 2}, 3)
    found = read_back(objects)
    assert found["outcome"] == "killed"
    assert found["error"] == "its process ended without a word; try 3 found it so"
    assert found["reads"][0]["version_id"] == READ_ID
    assert not close_killed(objects, {**before, "try_number": 2}, 3), "it is said once"


def test_numbers_that_json_lacks_and_nested_times_are_text(objects):
    odd = replace(
        RECORD, metrics={"a": float("nan"), "b": float("-inf")}, run={"run_after": RECORD.effective_at}
    )
    write_record(objects, odd)
    found = read_back(objects)
    assert found["metrics"] == {"a": "nan", "b": "-inf"}
    assert found["run"] == {"run_after": "2013-03-01T00:00:00+00:00"}
