# SPDX-License-Identifier: Apache-2.0
"""A real MLflow tracking server on a free loopback port, for tests; started as the demo starts its own."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from demo.mlflow_server import ENVIRONMENT, server_command
from demo.ports import free_ports

START_SECONDS = 240.0
_STOP_SECONDS = 10.0


@dataclass(frozen=True)
class MlflowServer:
    """A running server. ``uri`` is what ``mlflow.set_tracking_uri`` takes."""

    uri: str
    folder: Path
    pid: int
    log: Path


@contextmanager
def mlflow_server_in(
    folder: Path, *, port: int | None = None, env: Mapping[str, str] | None = None
) -> Iterator[MlflowServer]:
    """
    Serve MLflow from a SQLite database and an artifact folder inside ``folder``.

    A folder that was served before goes on with what it holds. The server and all its children are gone
    when the block is left.

    :param port: A free one where not given.
    :raises RuntimeError: with the end of its log, if it does not answer ``/health`` in 240 seconds.
    """
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    uri = f"http://127.0.0.1:{port}"
    log = folder / "mlflow-server.log"
    environment = {
        **os.environ,
        **ENVIRONMENT,
        **(env or {}),
    }
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        environment.pop(name, None)
    command = server_command(folder, port)
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _wait_until_healthy(uri, process, log)
        yield MlflowServer(uri=uri, folder=folder, pid=process.pid, log=log)
    finally:
        _end(process)


def free_port() -> int:
    """A loopback port that nobody listens on."""
    return free_ports(1)[0]


def _wait_until_healthy(uri: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"mlflow server ended with {process.returncode}; its log ends:\n{_tail(log)}")
        with suppress(OSError), urllib.request.urlopen(f"{uri}/health", timeout=5) as answer:  # noqa: S310
            if answer.status == 200:
                return
        time.sleep(0.2)
    raise RuntimeError(f"mlflow server at {uri} is not healthy after {START_SECONDS:.0f} s:\n{_tail(log)}")


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
            break
    # Children that outlived their parent.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _tail(log: Path, lines: int = 30) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
