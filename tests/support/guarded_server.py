# SPDX-License-Identifier: Apache-2.0
"""A second API server on the database and store of a running Airflow, which asks its users to log in."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from demo.ports import LOOPBACK, free_ports

PASSWORDS = {"anna": "anna's password", "guest": "guest's password"}
USERS = "anna:viewer,guest:"


@dataclass(frozen=True)
class GuardedServer:
    """Where it is."""

    url: str

    def client(self, user: str | None) -> httpx.Client:
        """A client of a user who logged in; None: of nobody."""
        made = httpx.Client(base_url=f"{self.url}/ml-provider/api/v1/", timeout=60, trust_env=False)
        if user is not None:
            login = {"username": user, "password": PASSWORDS[user]}
            answer = httpx.post(f"{self.url}/auth/token", json=login, timeout=60, trust_env=False)
            answer.raise_for_status()
            made.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        return made


@contextlib.contextmanager
def guarded_server(environment: Mapping[str, str], folder: Path) -> Iterator[GuardedServer]:
    """
    Start it, and end its process group at the end.

    :param environment: Of the running Airflow.
    :param folder: For its passwords and its log.
    """
    [port] = free_ports(1)
    passwords = folder / "passwords.json"
    passwords.write_text(json.dumps(PASSWORDS))
    own = {
        **environment,
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": USERS,
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://{LOOPBACK}:{port}",
    }
    log = folder / "api-server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", "api-server"],
            env=own,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        server = GuardedServer(f"http://{LOOPBACK}:{port}")
        _wait(server, process, log)
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(server: GuardedServer, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            answer = httpx.get(f"{server.url}/api/v2/version", timeout=30, trust_env=False)
            if answer.status_code == httpx.codes.OK:
                return
        time.sleep(0.2)
    raise RuntimeError(f"the API server does not answer:\n{log.read_text(errors='replace')[-3000:]}")
