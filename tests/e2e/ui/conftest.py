# SPDX-License-Identifier: Apache-2.0
"""One real Airflow with a small story of two champions and a rejected challenger, and a real Chromium."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from demo.cluster import LocalCluster, airflow_command, tail
from tests.support.browser import browser
from tests.support.mlflow_server import mlflow_server_in

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HERE = Path(__file__).parent
START_SECONDS = 300.0


@dataclass(frozen=True)
class Story:
    """Where the UI is, and the runs of the story: trainings by the month of their data."""

    url: str
    trainings: dict[int, str]
    evaluations: list[str]


@contextmanager
def served_story(folder: Path) -> Iterator[Story]:
    """Run the story and serve its pages, until the block is left."""
    cluster = LocalCluster(folder, HERE / "dags")  # for its environment: nothing of it is started
    environment = cluster.environment()
    cluster.home.mkdir(parents=True)
    log = folder / "api-server.log"

    def run(command: list[str]) -> str:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}:\n{done.stderr[-5000:]}"
        return done.stdout

    with mlflow_server_in(folder / "mlflow", port=cluster.mlflow_port):
        run(airflow_command("db", "migrate"))
        told = json.loads(run([sys.executable, "-m", "tests.e2e.ui.run_story"]).splitlines()[-1])
        with log.open("ab") as out:
            server = subprocess.Popen(
                airflow_command("api-server"),
                env=environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_for(cluster.airflow_url, server, log)
            trainings = {int(month): run_id for month, run_id in told["trainings"].items()}
            yield Story(cluster.airflow_url, trainings, told["evaluations"])
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with suppress(httpx.HTTPError):
            if httpx.get(f"{url}/api/v2/version", trust_env=False, timeout=30).is_success:
                return
        assert server.poll() is None, f"the api-server ended by itself:\n{tail(log)}"
        assert time.monotonic() < deadline, f"the api-server does not answer:\n{tail(log)}"
        time.sleep(0.25)


@pytest.fixture(scope="package")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with served_story(tmp_path_factory.mktemp("ui") / "story") as served:
        yield served


# Not longer than here: its event loop runs in this thread, where the async tasks of other tests want theirs.
@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    found = browser()
    with sync_playwright() as playwright:
        started = found.launch(playwright)
        yield started
        started.close()


class Visit:
    """A page of the UI that remembers what the browser complained about."""

    def __init__(self, story: Story, page: Page) -> None:
        self.story = story
        self.page = page
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("console", self._listen)
        page.on("response", self._check)

    def _listen(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def _check(self, response: Any) -> None:
        if "/ml-provider/" in response.url and response.status >= 400:
            self.complaints.append(f"{response.status} {response.url}")

    def open(self, path: str) -> Page:
        """Open a path and wait until the ML page on it has loaded all that it shows."""
        self.page.goto(self.story.url + path)
        return self.settled()

    def settled(self) -> Page:
        self.page.get_by_test_id("ml-page").wait_for(timeout=120_000)
        self.page.wait_for_function(
            "() => !document.querySelector('[data-testid=ml-page] [role=status]')", timeout=120_000
        )
        return self.page

    def text(self) -> str:
        return str(self.page.get_by_test_id("ml-page").inner_text())

    def shot(self, name: str) -> None:
        """Keep a picture if somebody wants to look: set ML_PROVIDER_TEST_PICTURES to a folder."""
        if folder := os.environ.get("ML_PROVIDER_TEST_PICTURES"):
            self.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


@pytest.fixture
def visit(story: Story, chromium: Browser) -> Iterator[Visit]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, timezone_id="Europe/Berlin")
    context.set_default_timeout(120_000)
    it = Visit(story, context.new_page())
    yield it
    context.close()
    assert it.complaints == []
