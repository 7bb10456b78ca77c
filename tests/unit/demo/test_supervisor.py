# SPDX-License-Identifier: Apache-2.0
"""The supervisor with real processes: whatever happens to whom, nothing of ours stays."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from demo import supervisor
from demo.cluster import ROOT

SLEEP = "import time; time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); {SLEEP}"
# What Airflow's task supervisor does: a child in a process group of its own.
OWN_GROUP = f"import os; pid = os.fork(); os.setpgid(pid, pid); pid and print(pid, flush=True); {SLEEP}"
# What a watchdog does: it leaves the session.
DETACHED = (
    "import subprocess, sys;"
    f"p = subprocess.Popen([sys.executable, '-c', '{SLEEP}'], start_new_session=True);"
    f"print(p.pid, flush=True); {SLEEP}"
)


def eventually(what: Callable[[], Any], timeout: float = 20.0) -> Any:
    deadline = time.monotonic() + timeout
    while not (found := what()):
        assert time.monotonic() < deadline, f"waited {timeout} s in vain"
        time.sleep(0.02)
    return found


def lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class Supervised:
    """A supervisor process, spoken to as the cluster speaks to it."""

    def __init__(self, folder: Path, grace: float = 5.0) -> None:
        self.folder = folder
        self.token = secrets.token_hex(8)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "demo.supervisor", str(grace)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), supervisor.TREE_VARIABLE: self.token},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def say(self, **command: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        event: dict[str, Any] = json.loads(self.process.stdout.readline())
        return event

    def start(self, name: str, code: str, *, last: bool = False) -> int:
        """Start a Python program; returns its pid."""
        argv = [sys.executable, "-c", code]
        self.say(do="start", name=name, argv=argv, env=dict(os.environ), log=str(self.log(name)), last=last)
        event = self.hear()
        assert (event["event"], event["name"]) == ("started", name)
        return int(event["pid"])

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def first_line(self, name: str) -> str:
        """Wait for the first line that the program prints."""
        return str(eventually(lambda: "\n" in (text := self.log(name).read_text()) and text.split("\n")[0]))

    def close(self) -> None:
        """Say nothing more, as a program does that ends or is killed."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def members(self) -> list[psutil.Process]:
        tree = supervisor.Tree(self.process.pid, self.token, str(self.folder))
        return list(tree.members(leader_is_alive=self.process.poll() is None))


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    it = Supervised(tmp_path)
    yield it
    for process in it.members():
        process.kill()
    it.process.kill()
    it.process.wait()


def test_the_end_of_whoever_asked_ends_everything(supervised: Supervised) -> None:
    pids = [supervised.start("one", SLEEP), supervised.start("two", SLEEP)]
    supervised.close()
    assert supervised.process.wait(20) == 0
    assert not any(lives(pid) for pid in pids)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_everything(supervised: Supervised, number: signal.Signals) -> None:
    pid = supervised.start("one", SLEEP)
    supervised.process.send_signal(number)
    assert supervised.process.wait(20) == 0
    assert not lives(pid)


def test_children_in_process_groups_of_their_own_end_too(supervised: Supervised) -> None:
    pid = supervised.start("task", OWN_GROUP)
    child = int(supervised.first_line("task"))
    assert os.getpgid(child) != os.getpgid(pid)
    supervised.close()
    assert supervised.process.wait(20) == 0
    assert not lives(pid)
    assert not lives(child)


def test_what_left_the_session_ends_too(supervised: Supervised, monkeypatch: pytest.MonkeyPatch) -> None:
    supervised.start("task", DETACHED)
    watchdog = int(supervised.first_line("task"))
    assert os.getsid(watchdog) != supervised.process.pid
    supervised.close()
    assert supervised.process.wait(30) == 0
    assert not lives(watchdog)


def test_who_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    impatient = Supervised(tmp_path, grace=0.5)
    pid = impatient.start("deaf", DEAF)
    impatient.first_line("deaf")
    impatient.close()
    assert impatient.process.wait(20) == 0
    assert not lives(pid)


def test_what_others_depend_on_ends_last(supervised: Supervised) -> None:
    told = (
        "import signal, sys, time;"
        "signal.signal(signal.SIGTERM, lambda *_: (print(time.time(), flush=True), sys.exit()));"
    )
    supervised.start("mlflow", f"{told} print('ready', flush=True); {SLEEP}", last=True)
    supervised.start("scheduler", f"{told} print('ready', flush=True); {SLEEP}")
    for name in ("mlflow", "scheduler"):
        supervised.first_line(name)
    supervised.close()
    supervised.process.wait(20)
    ended = {name: float(supervised.log(name).read_text().split()[-1]) for name in ("mlflow", "scheduler")}
    assert ended["scheduler"] < ended["mlflow"]


def test_an_end_is_reported_with_its_code(supervised: Supervised) -> None:
    supervised.start("short", "raise SystemExit(7)")
    assert supervised.hear() == {"event": "exited", "name": "short", "code": 7}


def test_kept_processes_go_on_until_a_signal(supervised: Supervised) -> None:
    pid = supervised.start("one", SLEEP)
    supervised.say(do="keep")
    assert supervised.hear() == {"event": "kept"}
    supervised.close()
    assert supervised.process.stdout is not None
    supervised.process.stdout.close()
    with pytest.raises(subprocess.TimeoutExpired):
        supervised.process.wait(1)
    assert lives(pid)
    supervised.process.terminate()
    assert supervised.process.wait(20) == 0
    assert not lives(pid)


def test_members_are_still_found_when_the_supervisor_was_killed(supervised: Supervised) -> None:
    pids = {supervised.start("one", SLEEP), supervised.start("two", SLEEP)}
    supervised.process.kill()
    supervised.process.wait()
    assert {process.pid for process in supervised.members()} == pids


def test_a_session_with_a_used_pid_but_another_folder_is_not_ours(
    supervised: Supervised, tmp_path: Path
) -> None:
    supervised.start("one", SLEEP)
    elsewhere = supervisor.Tree(supervised.process.pid, "another token", str(tmp_path / "elsewhere"))
    assert list(elsewhere.members(leader_is_alive=False)) == []
