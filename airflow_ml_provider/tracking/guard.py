# SPDX-License-Identifier: Apache-2.0
"""The task's side of the watchdog: starts it and tells it how things went."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from airflow_ml_provider.tracking.session import Credentials

_SCRIPT = Path(__file__).with_name("watchdog.py")
_GOODBYE_SECONDS = 5.0

_log = logging.getLogger(__name__)


class Guard:
    """
    A small process that closes a run as KILLED should this one die.

    It lives in a session of its own, so that a signal to the task's process group does not reach it.
    Credentials go to it over a pipe; arguments and environment can be read by others.
    """

    def __init__(
        self, *, tracking_uri: str, run_id: str, tags: Mapping[str, str], credentials: Credentials
    ) -> None:
        orders = {
            "tracking_uri": tracking_uri,
            "run_id": run_id,
            "tags": dict(tags),
            "parent_pid": os.getpid(),
            "username": credentials.username,
            "password": credentials.password,
            "token": credentials.token,
            "insecure_tls": credentials.insecure_tls,
            "ca_bundle": credentials.ca_bundle or _ca_bundle(),
        }
        self._owner = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(_SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # A session holds credentials in this process's environment; a child's can be read by others.
            env={name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")},
            start_new_session=True,
        )
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        self._descriptor = self._process.stdin.fileno()
        self.tell(json.dumps(orders))

    @property
    def pid(self) -> int:
        """The watchdog's process id."""
        return self._process.pid

    def tell(self, line: str) -> bool:
        """Write one line. Takes no lock, so that a signal handler may call it. False if nobody reads."""
        try:
            os.write(self._descriptor, line.encode() + b"\n")
        except OSError:
            return False
        return True

    def dismiss(self, line: str = "done", *, wait: bool = True) -> bool:
        """Write the last line and let the watchdog go. False if it was gone already."""
        if os.getpid() != self._owner:  # a forked child leaves its copy of the task's frame
            return True
        heard = self.tell(line)
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        if wait:
            try:
                self._process.wait(_GOODBYE_SECONDS)
            except subprocess.TimeoutExpired:
                _log.warning("the watchdog %s of the MLflow run did not end in time", self.pid)
        # A watchdog that goes on trying outlives this process; Popen would warn that it was not waited for.
        self._process.returncode = self._process.returncode or 0
        return heard


def start_guard(
    *, tracking_uri: str, run_id: str, tags: Mapping[str, str], credentials: Credentials
) -> Guard | None:
    """Start a watchdog for a run on an http(s) server; None for other stores, which it cannot reach."""
    if not tracking_uri.startswith(("http://", "https://")):
        return None
    given = credentials if credentials != Credentials() else Credentials.from_environment()
    try:
        return Guard(tracking_uri=tracking_uri, run_id=run_id, tags=tags, credentials=given)
    except OSError:
        _log.warning(
            "no watchdog for MLflow run %s: if this process is killed the run stays RUNNING until a retry",
            run_id,
            exc_info=True,
        )
        return None


def _ca_bundle() -> str | None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if os.environ.get(name):
            return os.environ[name]
    with contextlib.suppress(ImportError):
        import certifi

        return certifi.where()
    return None
