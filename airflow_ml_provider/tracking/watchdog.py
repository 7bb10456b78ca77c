# SPDX-License-Identifier: Apache-2.0
"""
Closes an MLflow run whose task process died without a word. A script, started by ``guard.py``.

Standard library only and started with ``python -I``: it must be there at once, whatever the task does to
its environment. It reads lines from standard input, first its orders as JSON, then one of

- ``done``: the task has closed the run itself;
- ``run <id>``: the run to watch is another one from now on;
- ``kill``: close the run as KILLED now; the task is being ended from outside;
- ``end <status>``: the task could not reach the server, close the run with this status.

The end of the input or a new parent process means that the task process is gone (SIGKILL, out of memory,
a crash of the interpreter): the run is closed as KILLED. It closes nothing that another try has taken over.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import select
import signal
import sys
import time
import urllib.error
import urllib.request
from typing import Any

POLL_SECONDS = 1.0
GIVE_UP_SECONDS = 300.0
REQUEST_SECONDS = 10.0
#: Of parents: a mapped task's and a DAG run's.
LEVELS = 2


def main() -> int:
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    lines = _Lines(0)
    first = lines.next_or_none(lambda: True)
    if first is None:
        return 0
    orders: dict[str, Any] = json.loads(first)

    def parent_lives() -> bool:
        return bool(os.getppid() == orders["parent_pid"])

    while True:
        line = lines.next_or_none(parent_lives)
        word, _, rest = (line or "kill").partition(" ")
        if word == "done":
            return 0
        if word == "run":
            orders["run_id"] = rest
        elif word == "end":
            return _close(orders, rest)
        elif word == "kill":
            return _close(orders, "KILLED")


class _Lines:
    """Lines from a descriptor, with an eye on who is at its other end."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = b""

    def next_or_none(self, wanted: Any) -> str | None:
        """The next line; None at the end of the input or when ``wanted()`` no longer holds."""
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._descriptor], [], [], POLL_SECONDS)
            if ready:
                more = os.read(self._descriptor, 65536)
                if not more:
                    return None
                self._buffer += more
            elif not wanted():
                # A process that the task forked may still hold the other end of the pipe.
                return None
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.decode()


def _close(orders: dict[str, Any], status: str) -> int:
    deadline = time.monotonic() + GIVE_UP_SECONDS
    pause = 0.5
    while True:
        try:
            _close_once(orders, status)
        except urllib.error.HTTPError as exc:
            if exc.code not in {408, 429} and exc.code < 500 and _is_mlflows(exc):
                return 1
        except (OSError, ValueError, KeyError, http.client.HTTPException):
            pass  # no answer, or not one of MLflow
        else:
            return 0
        if time.monotonic() > deadline:
            return 1
        time.sleep(pause)
        pause = min(pause * 2, 15.0)


def _close_once(orders: dict[str, Any], status: str) -> None:
    run_id = orders["run_id"]
    run = _request(orders, "GET", f"runs/get?run_id={run_id}")["run"]
    tags = {tag["key"]: tag["value"] for tag in run["data"].get("tags", ())}
    if run["info"]["status"] != "RUNNING":
        return
    if any(tags.get(key) != value for key, value in orders["tags"].items()):
        return  # another try has taken the run over
    body = {"run_id": run_id, "status": status, "end_time": int(time.time() * 1000)}
    _request(orders, "POST", "runs/update", body)
    _request(
        orders, "POST", "runs/set-tag", {"run_id": run_id, "key": "airflow.closed_by", "value": "watchdog"}
    )
    for _ in range(LEVELS if status in ("FAILED", "KILLED") else 0):
        parent_id = tags.get("mlflow.parentRunId")
        if not parent_id:
            return
        parent = _request(orders, "GET", f"runs/get?run_id={parent_id}")["run"]
        tags = {tag["key"]: tag["value"] for tag in parent["data"].get("tags", ())}
        if "airflow.parent" not in tags:
            return  # made by somebody else
        body = {"run_id": parent_id, "status": "FAILED", "end_time": int(time.time() * 1000)}
        _request(orders, "POST", "runs/update", body)


def _request(orders: dict[str, Any], method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    headers = {"Content-Type": "application/json"}
    if orders.get("username") and orders.get("password"):
        pair = f"{orders['username']}:{orders['password']}".encode()
        headers["Authorization"] = "Basic " + base64.b64encode(pair).decode()
    elif orders.get("token"):
        headers["Authorization"] = f"Bearer {orders['token']}"
    request = urllib.request.Request(  # noqa: S310 - the address is the task's own tracking server
        f"{orders['tracking_uri'].rstrip('/')}/api/2.0/mlflow/{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers=headers,
        method=method,
    )
    context = _tls(orders) if orders["tracking_uri"].startswith("https:") else None
    with urllib.request.urlopen(request, timeout=REQUEST_SECONDS, context=context) as answer:  # noqa: S310
        return json.loads(answer.read() or b"{}")


def _is_mlflows(error: urllib.error.HTTPError) -> bool:
    """Whether a refusal is MLflow's own, and not a proxy's 404 while MLflow restarts."""
    if error.code != 404:
        return True
    try:
        return "error_code" in json.loads(error.read())
    except (OSError, ValueError, TypeError, http.client.HTTPException):
        return False


def _tls(orders: dict[str, Any]) -> Any:
    import ssl

    if orders.get("insecure_tls"):
        return ssl._create_unverified_context()  # noqa: S323 - the connection says so
    return ssl.create_default_context(cafile=orders.get("ca_bundle"))


if __name__ == "__main__":
    sys.exit(main())
