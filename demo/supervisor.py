# SPDX-License-Identifier: Apache-2.0
"""
Own the processes of one local cluster: start them, report their ends, end them all.

``python -m demo.supervisor`` is the leader of a session of its own, so that everything its children start
(executor workers, tasks in process groups of their own) is found and ended with it, whatever happens to the
program that asked for it: commands come as lines of JSON on stdin, and the end of stdin means "end
everything" unless ``keep`` was said before. Standard library and psutil only: it must start at once and
never fail to import.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped, unused-ignore]

TREE_VARIABLE = "AIRFLOW_ML_DEMO_TREE"  # in the environment of everything we start
TERMINATE_GRACE = 10.0  # seconds between SIGTERM and SIGKILL; idle executor workers ignore SIGTERM
DETACHED_GRACE = (
    4.0  # seconds for what left the session on purpose, such as a watchdog that closes an MLflow run
)
POLL_INTERVAL = 0.2  # seconds


@dataclass(frozen=True)
class Tree:
    """What marks a process as one of ours."""

    session: int  # the supervisor's pid
    token: str
    folder: str  # every component works in it

    def members(self, *, leader_is_alive: bool) -> Iterator[psutil.Process]:
        """
        Yield our living processes, the supervisor excepted.

        A session id cannot be given to others while its leader lives. Afterwards it can, so a process must
        then also work in our folder.
        """
        for process in psutil.process_iter():
            if process.pid in (self.session, os.getpid()):
                continue
            with contextlib.suppress(psutil.Error, OSError):
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                if os.getsid(process.pid) == self.session:
                    ours = leader_is_alive or process.cwd() == self.folder
                else:
                    ours = self.marks(process)
                if ours:
                    yield process

    def marks(self, process: psutil.Process) -> bool:
        """Tell whether a process outside our session was started by one of ours."""
        with contextlib.suppress(psutil.Error, OSError):
            return bool(process.environ().get(TREE_VARIABLE) == self.token)
        return False

    def in_session(self, process: psutil.Process) -> bool:
        try:
            return os.getsid(process.pid) == self.session
        except OSError:
            return False


def send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error, OSError):
            process.send_signal(number)


class Supervisor:
    """The loop: commands in, ends of processes out."""

    def __init__(self, tree: Tree, grace: float = TERMINATE_GRACE) -> None:
        self.tree = tree
        self.grace = grace
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.last: set[str] = set()
        self.keeps = False
        self.stopping = False

    def report(self, **event: Any) -> None:
        try:
            sys.stdout.write(json.dumps(event) + "\n")
            sys.stdout.flush()
        except OSError:
            # Whoever listened is gone; the end of stdin says so too, and is acted on there.
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115

    def start(self, *, name: str, argv: list[str], env: dict[str, str], log: str, last: bool = False) -> None:
        with open(log, "ab") as stream:
            self.children[name] = subprocess.Popen(
                argv,
                cwd=self.tree.folder,
                env={**env, TREE_VARIABLE: self.tree.token},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        if last:
            self.last.add(name)
        self.report(event="started", name=name, pid=self.children[name].pid)

    def obey(self, line: bytes) -> None:
        command = json.loads(line)
        match command.pop("do"):
            case "start":
                self.start(**command)
            case "keep":
                self.keeps = True
                self.report(event="kept")
            case "stop":
                self.stopping = True

    def run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
            rest = b""
            while not self.stopping:
                if selector.get_map() and selector.select(POLL_INTERVAL):
                    chunk = os.read(sys.stdin.fileno(), 1 << 16)
                    if not chunk:
                        selector.unregister(sys.stdin.fileno())
                        self.stopping = not self.keeps
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        self.obey(line)
                elif not selector.get_map():
                    time.sleep(POLL_INTERVAL)
                self.reap()
        self.end()

    def reap(self) -> None:
        for name, child in list(self.children.items()):
            if child.poll() is not None:
                del self.children[name]
                self.report(event="exited", name=name, code=child.returncode)

    def end(self) -> None:
        """End everything, what others depend on last."""
        kept = self.last_processes()
        self.end_these(kept, detached=False, grace=self.grace)
        self.wait_for_detached(kept)
        self.end_these(set(), detached=True, grace=self.grace / 2)
        self.report(event="stopped")

    def last_processes(self) -> set[int]:
        pids: set[int] = set()
        for name in self.last & self.children.keys():
            pids.add(self.children[name].pid)
            with contextlib.suppress(psutil.Error):
                pids |= {p.pid for p in psutil.Process(self.children[name].pid).children(recursive=True)}
        return pids

    def others(self, kept: set[int], *, detached: bool) -> list[psutil.Process]:
        self.reap()
        found = (p for p in self.tree.members(leader_is_alive=True) if p.pid not in kept)
        return [p for p in found if detached or self.tree.in_session(p)]

    def end_these(self, kept: set[int], *, detached: bool, grace: float) -> None:
        send(self.others(kept, detached=detached), signal.SIGTERM)
        deadline = time.monotonic() + grace
        while found := self.others(kept, detached=detached):
            if time.monotonic() > deadline:
                send(found, signal.SIGKILL)
            time.sleep(POLL_INTERVAL)

    def wait_for_detached(self, kept: set[int]) -> None:
        deadline = time.monotonic() + DETACHED_GRACE
        while self.others(kept, detached=True) and time.monotonic() < deadline:
            time.sleep(POLL_INTERVAL)


def main() -> int:
    grace = float(sys.argv[1]) if len(sys.argv) > 1 else TERMINATE_GRACE
    supervisor = Supervisor(Tree(os.getpid(), os.environ[TREE_VARIABLE], str(Path.cwd())), grace)

    def stop(*_: object) -> None:
        supervisor.stopping = True

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    supervisor.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
