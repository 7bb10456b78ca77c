# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import json
import threading

import pytest

from airflow_ml_provider.exceptions import MlflowAccessError, MlflowUnavailableError
from airflow_ml_provider.tracking import session
from airflow_ml_provider.tracking.models import ModelRef
from airflow_ml_provider.tracking.session import Credentials, request_environment
from airflow_ml_provider.tracking.waiting import Wanted
from airflow_ml_provider.triggers import model_version, poller
from airflow_ml_provider.triggers.model_version import ModelVersionTrigger

WANTED = Wanted("flight_delay", min_version=2).to_json()
FOUND = ModelRef("models:/flight_delay/2", version="2", registered_model_name="flight_delay")


class Hook:
    def __init__(self, conn_id):
        self.client = object()

    async def aload(self):
        return self


@pytest.fixture
def answers(monkeypatch):
    given: list[object] = []
    asked: list[object] = []

    def find(client, wanted):
        asked.append(wanted)
        answer = given.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(poller, "MlflowHook", Hook)
    monkeypatch.setattr(model_version, "find_version", find)
    given_and_asked = given, asked
    return given_and_asked


def trigger():
    return ModelVersionTrigger(WANTED, "server", poll_interval=0.01)


async def events_of(trigger):
    return [event.payload async for event in trigger.run()]


def test_a_trigger_survives_being_stored():
    path, kwargs = ModelVersionTrigger(WANTED, "other", 5).serialize()
    assert ModelVersionTrigger(**json.loads(json.dumps(kwargs))).serialize() == (path, kwargs)


def test_it_looks_until_the_version_is_there_and_through_an_outage(answers):
    answers[0].extend([None, MlflowUnavailableError("away"), None, FOUND])
    assert asyncio.run(events_of(trigger())) == [{"status": "found", "model": FOUND.to_json()}]
    assert len(answers[1]) == 4


def test_a_connection_that_hangs_does_not_end_the_wait_of_another(monkeypatch):
    held, leave = threading.Event(), threading.Event()

    def hang():
        with request_environment(Credentials(token="of the server that hangs")):
            held.set()
            leave.wait(30)

    class BusyHook(Hook):
        @property
        def client(self):
            asked.append(self)
            if len(asked) == 3:
                leave.set()
                hanging.join(30)
            with request_environment(Credentials(token="mine")):
                return object()

        @client.setter
        def client(self, _):
            pass

    asked: list[object] = []
    monkeypatch.setattr(session, "_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(poller, "MlflowHook", BusyHook)
    monkeypatch.setattr(model_version, "find_version", lambda client, wanted: FOUND)
    hanging = threading.Thread(target=hang)
    hanging.start()
    try:
        held.wait(30)
        assert asyncio.run(events_of(trigger())) == [{"status": "found", "model": FOUND.to_json()}]
    finally:
        leave.set()
        hanging.join(30)
    assert len(asked) == 3


def test_a_refusal_ends_the_wait_and_says_so(answers):
    answers[0].append(MlflowAccessError("wrong password"))
    [event] = asyncio.run(events_of(trigger()))
    assert event["status"] == "failed"
    assert "looking for a version of 'flight_delay' with version at least 2 failed" in event["message"]
    assert "wrong password" in event["message"]


def test_those_who_wait_for_the_same_share_the_request(answers):
    answers[0].append(FOUND)

    async def wait():
        return await asyncio.gather(*(events_of(trigger()) for _ in range(10)))

    assert asyncio.run(wait()) == [[{"status": "found", "model": FOUND.to_json()}]] * 10
    assert len(answers[1]) == 1
