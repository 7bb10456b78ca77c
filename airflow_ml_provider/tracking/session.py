# SPDX-License-Identifier: Apache-2.0
"""
Which MLflow server this process talks to, and with which credentials.

MLflow's fluent functions (``mlflow.log_metric``, autologging, ``mlflow.sklearn.log_model``) take the server
from a module global and the credentials from environment variables. :func:`session` sets both and puts
back what was there. They are process-wide: threads of one task may share a session with one server, and a
second thread that asks for another server's credentials waits for the first to leave (60 s at most).

A server that does not answer must not hold a worker for MLflow's default of about four minutes: inside a
session a request is retried 3 times with 0, 4 and 8 seconds between and times out after 60 seconds, so a
refused connection costs about 15 seconds. ``MLFLOW_HTTP_REQUEST_MAX_RETRIES``,
``MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR`` and ``MLFLOW_HTTP_REQUEST_TIMEOUT`` in the worker's environment win.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from airflow_ml_provider.exceptions import MlflowUnavailableError
from airflow_ml_provider.tracking.errors import translate, without_password

#: Bounds on how long a server that is gone holds a worker; the worker's own environment wins.
REQUEST_LIMITS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
}
# A task's log is no terminal.
_QUIET = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_CREDENTIALS = (
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_INSECURE_TLS",
    "MLFLOW_TRACKING_SERVER_CERT_PATH",
)
_WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class Credentials:
    """How to be let in by a tracking server. Secrets do not show in the repr."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    insecure_tls: bool = False
    ca_bundle: str | None = None

    def environment(self) -> dict[str, str | None]:
        """The variables that MLflow reads, None for those that must not be set."""
        if self == Credentials():
            # Nothing given: what the worker's environment says, but never an outer session's secrets.
            return {name: _environment.base(name) for name in _CREDENTIALS}
        return {
            "MLFLOW_TRACKING_USERNAME": self.username,
            "MLFLOW_TRACKING_PASSWORD": self.password,
            "MLFLOW_TRACKING_TOKEN": self.token,
            "MLFLOW_TRACKING_INSECURE_TLS": "true" if self.insecure_tls else None,
            "MLFLOW_TRACKING_SERVER_CERT_PATH": self.ca_bundle,
        }

    @classmethod
    def from_environment(cls) -> Credentials:
        """What MLflow itself would use in this process."""
        username, password, token, insecure, ca_bundle = (
            os.environ.get(name) or None for name in _CREDENTIALS
        )
        return cls(username, password, token, str(insecure).lower() in {"true", "1"}, ca_bundle)


@dataclass
class _Frame:
    wanted: dict[str, str | None]
    saved: dict[str, str | None]
    holders: list[int]


class _Environment:
    """Sets environment variables for as long as somebody holds them; safe between threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frames: list[_Frame] = []

    def enter(self, wanted: dict[str, str | None]) -> _Frame | None:
        me = threading.get_ident()
        with self._changed:
            free = self._changed.wait_for(
                lambda: not self._frames or self._fits(wanted) or self._mine(me), timeout=_WAIT_SECONDS
            )
            if not free:
                # Of that kind, for it passes too: the other connection's server may be hanging.
                raise MlflowUnavailableError(
                    f"another thread of this process has held a session with another MLflow connection for "
                    f"{_WAIT_SECONDS:.0f} s; MLflow's settings are process-wide: use one connection at a time"
                )
            if self._frames and self._fits(wanted):
                self._frames[-1].holders.append(me)
                return self._frames[-1]
            saved = {name: os.environ.get(name) for name in wanted}
            _apply(wanted)
            self._frames.append(_Frame(wanted, saved, [me]))
            return self._frames[-1]

    def leave(self, frame: _Frame) -> None:
        with self._changed:
            with contextlib.suppress(ValueError):
                frame.holders.remove(threading.get_ident())
            while self._frames and not self._frames[-1].holders:
                _apply(self._frames.pop().saved)
            self._changed.notify_all()

    def base(self, name: str) -> str | None:
        """The value from before anybody entered."""
        with self._changed:
            for frame in self._frames:
                if name in frame.saved:
                    return frame.saved[name]
            return os.environ.get(name)

    def _fits(self, wanted: dict[str, str | None]) -> bool:
        return all(os.environ.get(name) == value for name, value in wanted.items())

    def _mine(self, me: int) -> bool:
        return any(me in frame.holders for frame in self._frames)


_environment = _Environment()


def _apply(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def request_environment(credentials: Credentials) -> Iterator[None]:
    """Hold the credentials and the limits on retries while a request runs."""
    wanted: dict[str, str | None] = {
        name: value for name, value in {**REQUEST_LIMITS, **_QUIET}.items() if name not in os.environ
    }
    wanted.update(credentials.environment())
    frame = _environment.enter(wanted) if wanted else None
    try:
        yield
    finally:
        if frame is not None:
            _environment.leave(frame)


@contextmanager
def session(
    tracking_uri: str,
    credentials: Credentials | None = None,
    *,
    registry_uri: str | None = None,
    label: str | None = None,
) -> Iterator[None]:
    """
    Point MLflow's fluent functions at a server, and put back what was there, on errors too.

    Nested sessions are fine, with the same or with another server. MLflow's errors for a server that is
    gone or refuses leave as :class:`MlflowUnavailableError` and :class:`MlflowAccessError`.

    :param registry_uri: Address of the model registry; the tracking server's where not given.
    :param label: Where the address comes from, for error messages.
    """
    import mlflow

    label = label or f"the address {without_password(tracking_uri)}"
    with request_environment(credentials or Credentials()):
        variables = {name: os.environ.get(name) for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")}
        before = _fluent_uris()
        mlflow.set_tracking_uri(tracking_uri)
        mlflow.set_registry_uri(registry_uri or tracking_uri)
        try:
            yield
        except mlflow.MlflowException as exc:
            better = translate(exc, label=label, address=tracking_uri)
            if better is None:
                raise
            raise better from exc
        finally:
            mlflow.set_tracking_uri(before[0])
            mlflow.set_registry_uri(before[1])
            _apply(variables)


def _fluent_uris() -> tuple[Any, Any]:
    # What was set, not what is resolved: setting a resolved default back would make it explicit.
    from mlflow.tracking._model_registry import utils as registry_utils
    from mlflow.tracking._tracking_service import utils as tracking_utils

    return getattr(tracking_utils, "_tracking_uri", None), getattr(registry_utils, "_registry_uri", None)


Connector = Callable[[str], AbstractContextManager[Any]]
_connector: Connector | None = None


def register_connector(connector: Connector) -> None:
    """
    Teach this floor, which knows no Airflow, to open a session from a connection id.

    :param connector: Given an ``mlflow_conn_id``, gives a context manager like :func:`session`.
    """
    global _connector  # noqa: PLW0603
    _connector = connector


@contextmanager
def session_for(*, mlflow_conn_id: str | None, tracking_uri: str | None) -> Iterator[None]:
    """Open a session by connection id where a connector is known, else by address, else change nothing."""
    if mlflow_conn_id and _connector is None and "airflow.sdk" in sys.modules:
        # The hook registers itself; a process that runs Airflow may not have imported it yet.
        importlib.import_module("airflow_ml_provider.hooks.mlflow")
    if mlflow_conn_id and _connector is not None:
        with _connector(mlflow_conn_id):
            yield
    elif tracking_uri:
        with session(tracking_uri):
            yield
    else:
        yield
