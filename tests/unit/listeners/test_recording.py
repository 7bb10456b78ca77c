# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
import math
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Asset, AssetAlias

from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook
from airflow_ml_provider.lineage.records import RUNNING, read_record
from airflow_ml_provider.listeners import recording
from airflow_ml_provider.settings import load_settings
from airflow_ml_provider.tracking.models import ModelRef
from airflow_ml_provider.xcom.state import TaskState

NOON = datetime(2013, 5, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__ML_PROVIDER__ARTIFACT_ROOT", f"file://{tmp_path}/root")
    load_settings.cache_clear()
    yield ArtifactStoreHook().store
    load_settings.cache_clear()


@dataclass
class Task:
    """As much of a task as a record takes from it."""

    inlets: list[Any] = field(default_factory=list)
    outlets: list[Any] = field(default_factory=list)
    python_callable: Any = None
    dag: Any = None


def instance(task=None, **more):
    return SimpleNamespace(task=task or Task(), start_date=NOON, hostname="worker-1", **more)


def state(**more):
    context = {"dag_run": SimpleNamespace(run_type="scheduled", run_after=NOON, **more.pop("dag_run", {}))}
    return TaskState("d", "r", "t", context={**context, **more.pop("context", {})}, **more)


def saved(store: ArtifactStore, found: TaskState) -> dict[str, Any]:
    return read_record(store.objects, "d", "r", "t", -1, found.try_number)


def test_a_task_that_touched_nothing_leaves_nothing(store):
    assert not recording.record_attempt(state(), instance(), "success")
    assert not list(store.objects.list("records"))


@pytest.mark.parametrize(
    ("kept", "task"),
    [
        ({"metrics": {"auc": 0.7}}, Task()),
        ({"cached": {"hit": True}}, Task()),
        ({"mlflow_run_id": "r1"}, Task()),
        ({}, Task(inlets=[Asset("s3://lake/raw")])),
    ],
)
def test_what_was_measured_or_declared_is_worth_a_record(store, kept, task):
    assert recording.record_attempt(state(**kept), instance(task), "success")


def test_an_attempt_that_goes_on_in_another_process_keeps_what_it_did_before(store):
    """Deferred: what the first process saw is in its record, and the second one adds to it."""
    refs = {name: store.save(name.encode(), name) for name in ("pulled", "pushed", "returned")}
    model = ModelRef("models:/m-1", model_id="m-1")
    first = state(params={"depth": 3}, metrics={"auc": math.nan, "rows": 2.0}, mlflow_run_id="run-1")
    first.note_read(refs["pulled"])
    first.note_written(refs["pushed"])
    first.note_model(model, "read", "evaluated")
    recording.record_attempt(first, instance(), RUNNING)

    second = state(metrics={"rows": 3.0})
    second.note_handed(refs["pulled"])
    second.note_model(model, "read", "input")
    recording.recall_attempt(second)
    second.note_written(refs["returned"])
    assert recording.record_attempt(second, instance(), "success")

    found = saved(store, second)
    assert [(use["name"], use["loaded"]) for use in found["reads"]] == [("pulled", True)]
    assert [use["name"] for use in found["writes"]] == ["pushed", "returned"]
    assert [(used["model_id"], used["role"]) for used in found["models_read"]] == [("m-1", "evaluated")]
    assert (found["params"], found["metrics"]) == ({"depth": 3}, {"auc": "nan", "rows": 3.0})
    assert (found["mlflow_run_id"], found["outcome"]) == ("run-1", "success")


def test_an_attempt_that_left_no_record_before_it_was_deferred_has_none_to_recall(store):
    found = state()
    recording.recall_attempt(found)
    assert not recording.record_attempt(found, instance(), "success")


def test_secrets_in_parameters_and_errors_are_masked(store):
    from airflow.sdk.log import mask_secret

    mask_secret("hunter2secret")
    found = state(
        metrics={"auc": 0.7},
        params={"depth": 6, "api_key": "abc", "url": "https://u:hunter2secret@host", "long": "x" * 1000},
    )
    recording.record_attempt(found, instance(), "failed", ValueError("wrong: hunter2secret"))
    doc = saved(store, found)
    assert doc["params"]["depth"] == 6
    assert doc["params"]["api_key"] == "***"
    assert "hunter2secret" not in str(doc)
    assert len(doc["params"]["long"]) < 300


def test_the_events_that_started_the_run_name_versions_and_their_source(store):
    extra = {"version": "3", "effective_at": "2013-05-01", "note": "x" * 100, "metrics": {"auc": 1}}

    def event(day: int, task_id: str | None, extra: dict[str, Any]) -> Any:
        return SimpleNamespace(
            asset=SimpleNamespace(uri="mlflow://m/champion", name="m@champion"),
            extra=extra,
            source_task_id=task_id,
            source_dag_id="training",
            source_run_id="run",
            source_map_index=-1,
            timestamp=NOON.replace(day=day),
            partition_key=None,
        )

    watched = {"from_trigger": True, "payload": {"version": "4"}}
    found = state(
        metrics={"auc": 0.7},
        dag_run={"consumed_asset_events": [event(1, "promote", extra), event(2, None, watched)]},
    )
    recording.record_attempt(found, instance(), "success")
    newest, oldest = saved(store, found)["triggered_by"]
    assert (newest["source"], newest["extra"]) == (None, {"version": "4"})
    assert oldest["source"]["task_id"] == "promote"
    assert oldest["extra"] == {"version": "3", "effective_at": "2013-05-01"}


def test_the_events_of_a_success_are_those_of_its_outlets_and_aliases(store):
    from airflow.sdk.execution_time.context import OutletEventAccessors

    asset, silent, alias = Asset("s3://lake/out"), Asset("s3://lake/quiet"), AssetAlias("some")
    events = OutletEventAccessors()
    events[asset].extra.update({"version_id": "v1", "anything": 1})
    events[alias].add(Asset("s3://lake/found"))
    task = Task(outlets=[asset, silent, alias])
    found = state(context={"outlet_events": events})
    recording.record_attempt(found, instance(task), "success")
    assert [(each["uri"], each["extra"]) for each in saved(store, found)["emitted"]] == [
        ("s3://lake/out", {"version_id": "v1"}),
        ("s3://lake/quiet", {}),
        ("s3://lake/found", {}),
    ]
    assert silent not in set(events), "asking adds nothing to what Airflow sends"
    recording.record_attempt(found, instance(task), "failed")
    assert saved(store, found)["emitted"] == []


def test_the_source_of_a_function_is_kept_where_it_trained_a_model(store):
    def fit(depth):
        return depth

    found = state()
    found.note_model(ModelRef("models:/m-1", model_id="m-1"), "read", "scored")
    recording.record_attempt(found, instance(Task(python_callable=fit)), "success")
    code = saved(store, found)["code"]
    assert code["function_digest"]
    assert "source" not in code
    found.note_model(ModelRef("models:/m-2", model_id="m-2"), "written", "trained")
    recording.record_attempt(found, instance(Task(python_callable=fit)), "success")
    assert saved(store, found)["code"]["source"].strip().startswith("def fit(depth):")


def test_what_is_read_while_the_task_runs_is_recorded_at_once_but_not_each_time(store, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(recording.time, "monotonic", lambda: clock[0])
    refs = [store.save(b"x%d" % number, f"a{number}") for number in range(3)]
    found = state()
    recording.watch_attempt(found, instance())
    assert not list(store.objects.list("records")), "it has read nothing yet"
    found.note_read(refs[0])
    assert [use["name"] for use in saved(store, found)["reads"]] == ["a0"]
    assert saved(store, found)["outcome"] == "running"
    found.note_read(refs[1])
    assert len(saved(store, found)["reads"]) == 1
    clock[0] += 2
    found.note_read(refs[2])
    assert len(saved(store, found)["reads"]) == 3
    recording.record_attempt(found, instance(), "success")
    assert saved(store, found)["outcome"] == "success"


def test_a_store_that_refuses_while_the_task_runs_does_not_disturb_it(store, monkeypatch, caplog):
    ref = store.save(b"x", "a")
    found = state()
    recording.watch_attempt(found, instance())
    monkeypatch.setattr(recording, "record_attempt", lambda *args: 1 / 0)
    with caplog.at_level(logging.ERROR):
        found.note_read(ref)
    assert ref.version_id in found.reads
    assert "its end records it" in caplog.text


def test_the_next_try_closes_the_one_that_was_killed(store):
    first = state(metrics={"auc": 1.0})
    recording.record_attempt(first, instance(), "running")
    recording.close_attempt_before(state())
    assert saved(store, first)["outcome"] == "running", "the first try has none before it"
    recording.close_attempt_before(state(try_number=2))
    assert saved(store, first)["outcome"] == "killed"


@contextmanager
def hanging(store, method, monkeypatch):
    """Let a method of the store hang in the block; what it was asked for is done afterwards."""
    back = threading.Event()
    own = getattr(type(store.objects), method)

    def hang(*args, **kwargs):
        back.wait(30)
        return own(*args, **kwargs)

    monkeypatch.setattr(type(store.objects), method, hang)
    monkeypatch.setattr(recording, "_MOST_SECONDS_TO_ASK", 0.1)
    try:
        yield
    finally:
        back.set()
        while any(thread.name == "ml-provider-record" for thread in threading.enumerate()):
            time.sleep(0.01)


def test_a_store_that_hangs_does_not_keep_a_retry_from_its_work(store, monkeypatch, caplog):
    """Retries of tasks that have nothing to do with artifacts too: the try before may have."""
    first = state(metrics={"auc": 1.0})
    recording.record_attempt(first, instance(), "running")
    with hanging(store, "get", monkeypatch):
        began = time.monotonic()
        with caplog.at_level(logging.WARNING):
            recording.close_attempt_before(state(try_number=2))
        assert time.monotonic() - began < 5
        assert "goes on meanwhile" in caplog.text
    assert saved(store, first)["outcome"] == "killed"


def test_a_store_that_hangs_does_not_keep_a_process_whose_task_waits(store, monkeypatch, caplog):
    """Airflow may start the process that goes on at once, and fails the task if this one is still there."""
    waits = state(metrics={"auc": 1.0}, context={"ti": instance()})
    with hanging(store, "put_json", monkeypatch):
        with caplog.at_level(logging.WARNING):
            recording.pause_attempt(waits)
        assert "its record lacks that" in caplog.text
        assert not list(store.objects.list("records"))
    assert saved(store, waits)["outcome"] == "running"


def test_a_store_that_refuses_does_not_fail_a_retry(store, monkeypatch, caplog):
    monkeypatch.setattr(type(store.objects), "get", lambda *args, **kwargs: 1 / 0)
    recording.close_attempt_before(state(try_number=2))
    assert "closing the record of try 1 of" in caplog.text
    assert "ZeroDivisionError" in caplog.text
