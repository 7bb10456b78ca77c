# SPDX-License-Identifier: Apache-2.0
"""The demo's processes: when something goes wrong it says what, fails, and leaves nothing running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from demo.cluster import ROOT, LocalCluster, read_state, running_in
from demo.ports import LOOPBACK

pytestmark = pytest.mark.e2e
FAILING_DAGS = Path(__file__).parent / "failing_dags"


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    # A shell starts its background jobs, and what they start, deaf to Ctrl-C; a demo in a terminal hears it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "demo", "--folder", str(folder), "--dags", str(FAILING_DAGS), *more],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)


def end(demo: subprocess.Popen[str], timeout: float = 400) -> tuple[int, str, str]:
    try:
        out, err = demo.communicate(timeout=timeout)
    except BaseException:
        demo.terminate()
        demo.communicate(timeout=60)
        raise
    return demo.returncode, out, err


def component(demo: subprocess.Popen[str], folder: Path, name: str) -> psutil.Process:
    """Wait until the demo has started a component."""

    def find() -> psutil.Process | None:
        assert demo.poll() is None, demo.communicate()
        for process in running_in(folder):
            with suppress(psutil.Error):  # it ended meanwhile
                if name in process.cmdline():
                    return process
        return None

    process: psutil.Process = eventually(find)
    return process


def eventually(what: Callable[[], Any], timeout: float = 60.0) -> Any:
    deadline = time.monotonic() + timeout
    while not (found := what()):
        assert time.monotonic() < deadline, f"waited {timeout} s in vain"
        time.sleep(0.1)
    return found


def left_in(folder: Path) -> list[list[str]]:
    """Return the command lines of whatever still lives in the demo's session or works in its folder."""
    state = read_state(folder)
    assert state is not None
    left = []
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if os.getsid(process.pid) == state["pid"] or process.cwd().startswith(str(folder)):
                left.append(process.cmdline())
        except (psutil.Error, OSError):
            continue
    return left


def test_a_failed_task_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    code, out, err = end(start(folder))
    assert code == 1, out + err
    assert "flight_delay_training.fit" in err
    assert "ValueError: the flights of January are missing" in err
    assert left_in(folder) == []


@pytest.mark.parametrize("name", ["server", "scheduler"])
def test_a_component_that_dies_is_named_with_the_end_of_its_log(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "demo"
    demo = start(folder)
    component(demo, folder, name).kill()
    code, out, err = end(demo)
    assert code == 1, out + err
    shown = {"server": "mlflow"}.get(name, name)
    assert f"{shown} ended by itself (SIGKILL). The end of {folder}/logs/{shown}.log:" in err
    assert left_in(folder) == []


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_a_signal_stops_everything(tmp_path: Path, number: signal.Signals, code: int) -> None:
    folder = tmp_path / "demo"
    demo = start(folder)
    component(demo, folder, "db" if number is signal.SIGKILL else "migrate")
    demo.send_signal(number)
    assert end(demo)[0] == code
    # Killed, the demo stops nothing itself; its supervisor does.
    eventually(lambda: left_in(folder) == [], timeout=30)


def test_a_second_demo_does_not_disturb_one_at_work(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    first = start(folder)
    component(first, folder, "migrate")
    code, _, err = end(start(folder))
    assert code == 1
    assert f"another demo is at work in {folder} (process {first.pid})" in err
    assert first.poll() is None
    first.terminate()
    end(first)
    assert left_in(folder) == []


def test_a_kept_cluster_serves_loopback_only_and_runs_on_until_it_is_stopped(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    cluster = LocalCluster(folder, FAILING_DAGS).start()
    try:
        cluster.keep()
        cluster.stop()  # what every way out of the demo calls
        assert httpx.get(f"{cluster.airflow_url}/api/v2/monitor/health", trust_env=False).status_code == 200
        assert httpx.get(f"{cluster.mlflow_url}/health", trust_env=False).status_code == 200
        listening = {
            connection.laddr
            for process in running_in(folder)
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {(LOOPBACK, cluster.airflow_port), (LOOPBACK, cluster.mlflow_port)}
    finally:
        stopped = subprocess.run(
            [sys.executable, "-m", "demo", "--stop", "--folder", str(folder)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert (stopped.returncode, stopped.stdout) == (0, f"stopped what ran in {folder}\n")
    assert left_in(folder) == []
