# SPDX-License-Identifier: Apache-2.0
"""An MlflowClient that brings its own credentials and speaks this package's errors."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

from airflow_ml_provider.tracking.errors import translate, unavailable
from airflow_ml_provider.tracking.session import Credentials, request_environment

if TYPE_CHECKING:
    from mlflow import MlflowClient

#: Seconds for the connection and for the answer of the first request to a server.
PROBE_TIMEOUT = (3.0, 6.0)
_PROBE_TRIES = 2
_PROBE_TRUSTED_SECONDS = 30.0
_alive: dict[str, float] = {}


class ConnectedClient:
    """
    MlflowClient, call for call, with an address and credentials of its own.

    MLflow reads credentials from the environment at every request, so each call holds them there while it
    runs. Its exceptions for a missing server, refused credentials and missing models leave as
    ``MlflowUnavailableError``, ``MlflowAccessError`` and ``ModelNotFoundError`` naming the connection.
    """

    def __init__(
        self,
        tracking_uri: str,
        credentials: Credentials | None = None,
        *,
        registry_uri: str | None = None,
        label: str | None = None,
    ) -> None:
        from mlflow import MlflowClient

        self.credentials = credentials or Credentials()
        self.label = label or f"the address {tracking_uri}"
        self.registry_uri = registry_uri
        self._address = tracking_uri
        with request_environment(self.credentials):
            self._client = MlflowClient(tracking_uri=tracking_uri, registry_uri=registry_uri or tracking_uri)

    @property
    def tracking_uri(self) -> str:
        """The address, as given."""
        return self._address

    def __repr__(self) -> str:
        return f"ConnectedClient({self.label})"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        found = getattr(self._client, name)
        if not callable(found):
            return found

        @functools.wraps(found)
        def call(*args: Any, **kwargs: Any) -> Any:
            from mlflow.exceptions import MlflowException

            with request_environment(self.credentials):
                try:
                    return found(*args, **kwargs)
                except MlflowException as exc:
                    better = translate(
                        exc,
                        label=self.label,
                        address=self._address,
                        call=name,
                        args=(*args, *kwargs.values()),
                    )
                    if better is None:
                        raise
                    raise better from exc

        return call


def connect(
    tracking_uri: str,
    credentials: Credentials | None = None,
    *,
    registry_uri: str | None = None,
    label: str | None = None,
) -> MlflowClient:
    """
    Give a client of a server that answers.

    An ``http(s)`` server is asked for a sign of life first, twice at most and for 9 seconds each, so that a
    server that is down is reported in under 20 seconds; one that answered in the last 30 seconds is not asked
    again.

    :raises MlflowUnavailableError: if it does not answer.
    """
    check_alive(tracking_uri, credentials or Credentials(), label=label or f"the address {tracking_uri}")
    client: Any = ConnectedClient(tracking_uri, credentials, registry_uri=registry_uri, label=label)
    return client


def check_alive(tracking_uri: str, credentials: Credentials, *, label: str) -> None:
    """Raise MlflowUnavailableError if an http(s) server gives no answer; 502, 503 and 504 are none."""
    if not tracking_uri.startswith(("http://", "https://")):
        return
    if time.monotonic() - _alive.get(tracking_uri, float("-inf")) < _PROBE_TRUSTED_SECONDS:
        return
    import requests

    verify: bool | str = False if credentials.insecure_tls else credentials.ca_bundle or True
    url = f"{tracking_uri.rstrip('/')}/health"
    found: object = None
    for _ in range(_PROBE_TRIES):
        try:
            answer = requests.get(url, timeout=PROBE_TIMEOUT, verify=verify, allow_redirects=False)
        except requests.RequestException as exc:
            found = _short(exc)
            continue
        if answer.status_code not in {502, 503, 504}:
            _alive[tracking_uri] = time.monotonic()
            return
        found = f"HTTP {answer.status_code}"
    raise unavailable(label, tracking_uri, found)


def _short(error: Exception) -> str:
    text = str(error)
    for known in (
        "Connection refused",
        "Name or service not known",
        "certificate verify failed",
        "timed out",
    ):
        if known.lower() in text.lower():
            return known.lower()
    return f"{type(error).__name__}: {text}"
