# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import pytest
from airflow.triggers.shared_stream import AdvanceItem, AdvanceOutcome

from airflow_ml_provider.exceptions import StoreError
from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook
from airflow_ml_provider.tracking.client import connect
from airflow_ml_provider.triggers import model_alias
from airflow_ml_provider.triggers.model_alias import AliasPoll, AliasPolls, ModelAliasTrigger


class State:
    """The state of an asset, as Airflow keeps it."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}
        self.broken = False

    def __getitem__(self, asset):
        return self

    async def aget(self, key, default=None):
        if self.broken:
            raise ConnectionError("no database")
        return self.kept.get(key, default)

    async def aset(self, key, value):
        self.kept[key] = json.loads(json.dumps(value))


@pytest.fixture
def state():
    return State()


@pytest.fixture
def client(tmp_path, monkeypatch, mlflow_store):
    from airflow_ml_provider.settings import load_settings

    monkeypatch.setenv(
        "AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps({"conn_type": "mlflow", "host": mlflow_store})
    )
    monkeypatch.setenv("AIRFLOW__ML_PROVIDER__ARTIFACT_ROOT", f"file://{tmp_path}/artifacts")
    monkeypatch.setattr(model_alias, "_SETTLE", 0.0)
    load_settings.cache_clear()
    yield connect(mlflow_store)
    load_settings.cache_clear()


@pytest.fixture(scope="module")
def mlflow_store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlflow")
    os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = str(folder / "artifacts")  # else ./mlruns
    yield f"sqlite:///{folder / 'mlflow.db'}"
    del os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"]


@pytest.fixture
def model(client, request):
    name = f"test-{abs(hash(request.node.nodeid))}"
    client.create_registered_model(name)
    for _ in range(3):
        client.create_model_version(name, "runs:/none/model")
    return name


def watcher(name, state):
    trigger = ModelAliasTrigger(name)
    trigger.asset_state_store = state
    return trigger


async def poll(trigger, version, *, stored=True):
    """Let a trigger see one poll, and Airflow store what it yields or not."""
    seen = AliasPoll({trigger.registered_model_name: {} if version is None else {"champion": version}})

    async def stream():
        yield seen

    found = [event.payload["version"] async for event in trigger.filter_shared_stream(stream())]
    if stored:
        await AliasPolls(None, 1.0).advance([AdvanceItem(seen, AdvanceOutcome(1, 0, 0))])
        while trigger._remembering:
            await asyncio.sleep(0)
    return found


def test_a_trigger_survives_being_stored():
    trigger = ModelAliasTrigger("flight_delay", "shadow", mlflow_conn_id="other", poll_interval=5)
    path, kwargs = trigger.serialize()
    assert path == f"{ModelAliasTrigger.__module__}.ModelAliasTrigger"
    json.dumps(kwargs)
    assert ModelAliasTrigger(**kwargs).serialize() == (path, kwargs)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"registered_model_name": "a/b"}, "must not contain"),
        ({"registered_model_name": "a", "alias": "latest"}, "reserved by MLflow"),
        ({"registered_model_name": "a", "poll_interval": 0}, "above 0 seconds"),
        ({"registered_model_name": "a", "poll_interval": True}, "above 0 seconds"),
    ],
)
def test_wrong_arguments_are_refused_when_the_dag_is_parsed(arguments, error):
    with pytest.raises(ValueError, match=error):
        ModelAliasTrigger(**arguments)


def test_watchers_of_one_server_share_a_poll():
    keys = {
        ModelAliasTrigger(name, alias).shared_stream_key()
        for name in ("flight_delay", "churn")
        for alias in ("champion", "shadow")
    }
    assert len(keys) == 1
    assert ModelAliasTrigger("churn", mlflow_conn_id="other").shared_stream_key() not in keys


def test_what_the_alias_points_at_first_is_no_event_and_each_move_is_one(client, model, state):
    async def watch():
        trigger = watcher(model, state)
        client.set_registered_model_alias(model, "champion", "1")
        found = [await poll(trigger, "1"), await poll(trigger, "1")]
        client.set_registered_model_alias(model, "champion", "2")
        found += [await poll(trigger, "2"), await poll(trigger, "2")]
        client.set_registered_model_alias(model, "champion", "1")
        return [*found, await poll(trigger, "1")]

    assert asyncio.run(watch()) == [[], [], ["2"], [], ["1"]]


def test_what_moved_while_the_triggerer_was_away_is_announced_when_it_is_back(client, model, state):
    async def watch():
        assert await poll(watcher(model, state), None) == []
        client.set_registered_model_alias(model, "champion", "3")
        after = watcher(model, state)
        return [await poll(after, "3"), await poll(after, "3"), await poll(watcher(model, state), "3")]

    assert asyncio.run(watch()) == [["3"], [], []]


def test_an_event_that_airflow_did_not_store_is_raised_again_after_a_restart(client, model, state):
    async def watch():
        assert await poll(watcher(model, state), None) == []
        client.set_registered_model_alias(model, "champion", "1")
        killed = watcher(model, state)
        assert await poll(killed, "1", stored=False) == ["1"]
        assert await poll(killed, "1", stored=False) == []  # not while it waits
        await killed.cleanup()
        return await poll(watcher(model, state), "1")

    assert asyncio.run(watch()) == ["1"]


def test_a_move_that_the_webhook_announced_is_not_announced_again(client, model, state):
    async def watch():
        trigger = watcher(model, state)
        assert await poll(trigger, None) == []
        client.set_registered_model_alias(model, "champion", "2")
        state.kept[model_alias.WATERMARK_KEY] = {"version": "2", "sequence": 0}
        return await poll(trigger, "2")

    assert asyncio.run(watch()) == []


def test_a_failure_delays_an_event_and_loses_none(client, model, state):
    async def watch():
        trigger = watcher(model, state)
        assert await poll(trigger, None) == []
        client.set_registered_model_alias(model, "champion", "2")
        state.broken = True
        assert await poll(trigger, "2") == []
        state.broken = False
        return await poll(trigger, "2")

    assert asyncio.run(watch()) == ["2"]


def test_a_store_that_refuses_is_opened_anew_with_the_connection_of_then(client, model, state, monkeypatch):
    """A triggerer runs for weeks, and keys are rotated meanwhile."""
    trigger = watcher(model, state)
    client.set_registered_model_alias(model, "champion", "1")
    before = ArtifactStoreHook().store

    def refuse(*_):
        raise StoreError("the server refused the credentials")

    with monkeypatch.context() as patch:
        patch.setattr(type(before.objects), "list", refuse)
        assert asyncio.run(poll(trigger, "1")) == []
    assert ArtifactStoreHook().store is not before


def test_a_server_that_is_away_does_not_end_the_polls(client, model, monkeypatch):
    answers = iter([ConnectionError("away"), {"m": {"champion": "1"}}])

    def ask(client):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(model_alias, "aliases_of_all_models", ask)

    async def first():
        async for found, _ in AliasPolls("mlflow_default", 0.01).open_stream():
            return found.aliases

    assert asyncio.run(first()) == {"m": {"champion": "1"}}
