# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar

import pytest

from airflow_ml_provider.triggers import poller as module
from airflow_ml_provider.triggers.poller import Poller, aliases_of_all_models, poller_for


class Hook:
    def __init__(self, conn_id):
        self.client = object()

    async def aload(self):
        return self


@pytest.fixture(autouse=True)
def _hook(monkeypatch):
    monkeypatch.setattr(module, "MlflowHook", Hook)


def counted(calls, result=None):
    def answer(client):
        calls.append(client)
        if isinstance(result, Exception):
            raise result
        return len(calls)

    return answer


def test_those_who_ask_at_the_same_time_share_one_request_and_its_answer():
    calls: list[object] = []

    async def ask():
        poller = Poller("server")
        return await asyncio.gather(*(poller.ask("aliases", counted(calls)) for _ in range(20)))

    assert asyncio.run(ask()) == [1] * 20
    assert len(calls) == 1


def test_an_answer_is_shared_for_as_long_as_the_asker_takes_it():
    calls: list[object] = []

    async def ask():
        poller = Poller("server")
        return [
            await poller.ask("aliases", counted(calls)),
            await poller.ask("aliases", counted(calls), max_age=60),
            await poller.ask("other", counted(calls), max_age=60),
            await poller.ask("aliases", counted(calls), max_age=-1),
        ]

    assert asyncio.run(ask()) == [1, 1, 2, 3]


def test_a_failure_reaches_all_who_asked_and_the_next_asks_again():
    calls: list[object] = []

    async def ask():
        poller = Poller("server")
        failed = await asyncio.gather(
            *(poller.ask("q", counted(calls, OSError("down"))) for _ in range(3)), return_exceptions=True
        )
        return failed, await poller.ask("q", counted(calls), max_age=60)

    failed, answer = asyncio.run(ask())
    assert [str(error) for error in failed] == ["down"] * 3
    assert answer == 2


def test_one_who_stops_waiting_does_not_take_the_answer_from_the_others():
    calls: list[object] = []

    async def ask():
        poller = Poller("server")
        leaving = asyncio.create_task(poller.ask("q", counted(calls)))
        staying = asyncio.create_task(poller.ask("q", counted(calls)))
        await asyncio.sleep(0)
        leaving.cancel()
        return await staying

    assert asyncio.run(ask()) == 1


def test_a_server_that_hangs_leaves_the_threads_of_other_triggers_alone():
    back = threading.Event()

    async def ask():
        poller = Poller("server")
        waiting = [
            asyncio.create_task(poller.ask(number, lambda client: back.wait(60))) for number in range(50)
        ]
        await asyncio.sleep(0.1)
        # What looks up a host's address, for whichever trigger, uses these threads.
        await asyncio.wait_for(asyncio.to_thread(int), 5)
        back.set()
        return await asyncio.gather(*waiting)

    try:
        assert asyncio.run(ask()) == [True] * 50
    finally:
        back.set()


def test_what_a_thread_logs_belongs_to_the_trigger_that_asked():
    trigger = ContextVar("trigger")

    async def ask():
        trigger.set("mine")
        return await Poller("server").ask("q", lambda client: trigger.get())

    assert asyncio.run(ask()) == "mine"


def test_a_loop_has_one_poller_for_each_connection():
    async def ask():
        return poller_for("a") is poller_for("a"), poller_for("a") is poller_for("b")

    assert asyncio.run(ask()) == (True, False)


def test_all_pages_of_models_are_read():
    class Page(list):
        token = None

    class Model:
        def __init__(self, name, aliases):
            self.name, self.aliases = name, aliases

    first, second = Page([Model("a", {"champion": 1})]), Page([Model("b", {})])
    first.token = "next"

    class Client:
        def search_registered_models(self, max_results, page_token):
            return {None: first, "next": second}[page_token]

    assert aliases_of_all_models(Client()) == {"a": {"champion": "1"}, "b": {}}
