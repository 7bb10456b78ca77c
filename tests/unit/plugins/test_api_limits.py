# SPDX-License-Identifier: Apache-2.0
"""What the endpoints leave of the API server to everybody else, workers and their heartbeats before all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from airflow_ml_provider.plugins.api import answers


@pytest.fixture
def back() -> Iterator[threading.Event]:
    """Set when the artifact store, which hangs, comes back."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def app(back: threading.Event) -> FastAPI:
    """Airflow's app with ours in it."""
    ours, airflow = FastAPI(), FastAPI()
    answers.handle_errors(ours)
    ours.add_middleware(answers.Guard)
    ours.get("/artifacts")(lambda: back.wait(60))
    airflow.mount("/ml-provider/api/v1", ours)
    airflow.get("/heartbeat")(lambda: "alive")
    return airflow


def in_one_loop(app: FastAPI, ask: Any) -> Any:
    async def run() -> Any:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://airflow") as client:
            return await ask(client)

    return asyncio.run(run())


def test_a_store_that_hangs_leaves_airflow_its_threads(app: FastAPI, back: threading.Event) -> None:
    async def ask(client: httpx.AsyncClient) -> Any:
        pages = [asyncio.create_task(client.get("/ml-provider/api/v1/artifacts")) for _ in range(100)]
        await asyncio.sleep(0.5)
        alive = await asyncio.wait_for(client.get("/heartbeat"), 5)
        back.set()
        return alive, await asyncio.gather(*pages)

    alive, pages = in_one_loop(app, ask)
    assert alive.json() == "alive"
    assert {page.status_code for page in pages} == {200}


def test_who_waits_in_vain_is_told_to_come_again(
    app: FastAPI, back: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "_WAIT_SECONDS", 0.1)

    async def ask(client: httpx.AsyncClient) -> Any:
        pages = [asyncio.create_task(client.get("/ml-provider/api/v1/artifacts")) for _ in range(30)]
        await asyncio.sleep(1)
        refused = [page.result() for page in pages if page.done()]
        back.set()
        await asyncio.gather(*pages)
        return refused, await client.get("/ml-provider/api/v1/artifacts")

    refused, later = in_one_loop(app, ask)
    assert refused
    assert {answer.status_code for answer in refused} == {503}
    assert refused[0].json()["code"] == "store_unavailable"
    assert "cache-control" in refused[0].headers
    assert later.status_code == 200
