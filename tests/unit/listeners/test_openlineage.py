# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from pluggy import HookimplMarker, HookspecMarker, PluginManager

from airflow_ml_provider.listeners import openlineage

PROVIDER = "airflow.providers.openlineage.plugins.listener"


class RuntimeTaskInstance:
    """As a task process has it."""

    def __init__(self, **task: Any) -> None:
        self.dag_id, self.run_id, self.task_id, self.map_index = "dag", "run", "task", -1
        self.task = SimpleNamespace(
            inlets=[], outlets=[SimpleNamespace(uri="ml-artifact://features")], task_type="Any", **task
        )


RuntimeTaskInstance.__module__ = "airflow.sdk.execution_time.task_runner"


class Specification:
    @HookspecMarker("airflow")
    def on_task_instance_success(self, previous_state: Any, task_instance: Any) -> None: ...


class Listener:
    """Looks at the operator while it is called, as the openlineage provider does."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    @HookimplMarker("airflow")
    def on_task_instance_success(self, previous_state: Any, task_instance: Any) -> None:
        self.seen.append(getattr(task_instance.task, "get_openlineage_facets_on_complete", None))


@pytest.fixture
def listener():
    return Listener()


@pytest.fixture
def succeed(listener):
    """Call the listeners of a success, ours among them."""
    manager = PluginManager("airflow")
    manager.add_hookspecs(Specification)
    manager.register(openlineage)
    manager.register(listener)
    return lambda ti: manager.hook.on_task_instance_success(previous_state=None, task_instance=ti)


@pytest.fixture
def provider(monkeypatch):
    module = ModuleType(PROVIDER)
    manager = SimpleNamespace(extractors={"PythonOperator": object})
    module.get_openlineage_listener = lambda: SimpleNamespace(extractor_manager=manager)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, PROVIDER, module)
    return module


def test_without_the_provider_nothing_is_imported_and_nothing_said(succeed, listener, monkeypatch, caplog):
    monkeypatch.delitem(sys.modules, PROVIDER, raising=False)
    for name in ("openlineage", "airflow.providers.openlineage"):
        monkeypatch.setitem(sys.modules, name, None)  # an import of it would fail
    succeed(RuntimeTaskInstance())
    assert listener.seen == [None]
    assert not caplog.records


def test_the_operator_tells_while_others_listen_and_not_after(provider, succeed, listener):
    ti = RuntimeTaskInstance()
    succeed(ti)
    assert callable(listener.seen[0])
    assert not hasattr(ti.task, "get_openlineage_facets_on_complete")


def test_an_operator_keeps_what_it_says_itself(provider, succeed, listener):
    own = object()
    ti = RuntimeTaskInstance(get_openlineage_facets_on_start=own)
    succeed(ti)
    assert ti.task.get_openlineage_facets_on_start is own


def test_a_failure_is_logged_and_the_others_are_called(provider, succeed, listener, caplog):
    def broken() -> Any:
        raise RuntimeError("the provider changed")

    provider.get_openlineage_listener = broken
    with caplog.at_level(logging.ERROR):
        succeed(RuntimeTaskInstance())
    assert listener.seen == [None]
    assert "the task itself is not affected" in caplog.text
    assert "the provider changed" in caplog.text


def test_a_row_of_the_database_is_left_alone(provider, succeed, listener):
    # Of another class, with no operator: a user set the state by hand, in the API server.
    row = SimpleNamespace(task=SimpleNamespace())
    succeed(row)
    assert listener.seen == [None]


def test_checkpoints_are_no_data_sets(tmp_path):
    from airflow_ml_provider.artifacts.store import ArtifactStore
    from airflow_ml_provider.xcom.state import TaskState

    store = ArtifactStore(f"file://{tmp_path}/root", signing_key=b"k" * 32)
    state = TaskState("dag", "run", "task")
    for name in (
        "features",
        "checkpoints/dag/task/run/-1/default",
        "kept-checkpoints/dag/task/run/-1/default",
    ):
        state.note_written(store.save({"a": 1}, name))
    found = openlineage._data_sets(state, RuntimeTaskInstance().task)
    assert [each.name for each in found] == ["features"]


class Collector:
    """Of hook lineage, as Airflow's own."""

    def __init__(self) -> None:
        self._inputs: dict[str, Any] = {"earlier": "s3://earlier"}
        self._outputs: dict[str, Any] = {}

    def add_input_asset(self, context: Any, uri: str, **about: Any) -> None:
        self._inputs[f"{uri} {len(self._inputs)}"] = uri

    def add_output_asset(self, context: Any, uri: str, **about: Any) -> None:
        self._outputs[f"{uri} {len(self._outputs)}"] = uri


def test_an_operator_that_is_not_asked_is_reported_as_hooks_do_and_taken_back(provider, monkeypatch):
    from airflow.sdk import lineage

    collector = Collector()
    monkeypatch.setattr(lineage, "get_hook_lineage_collector", lambda: collector)
    ti = RuntimeTaskInstance()
    ti.task.task_type = "PythonOperator"
    ti.task.inlets = [SimpleNamespace(uri="s3://declared")]  # a reference: neither name nor extra
    undo: list[Any] = []
    openlineage._report(ti, provider.get_openlineage_listener().extractor_manager, undo)
    assert list(collector._inputs.values()) == ["s3://earlier", "s3://declared"]
    assert list(collector._outputs.values()) == ["ml-artifact://features"]
    assert not hasattr(ti.task, "get_openlineage_facets_on_complete")
    for step in undo:
        step()
    assert (collector._inputs, collector._outputs) == ({"earlier": "s3://earlier"}, {})
