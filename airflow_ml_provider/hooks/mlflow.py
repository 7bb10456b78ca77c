# SPDX-License-Identifier: Apache-2.0
"""From an Airflow connection to MLflow."""

from __future__ import annotations

import functools
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from airflow.sdk import BaseHook

from airflow_ml_provider.exceptions import TrackingError
from airflow_ml_provider.tracking.errors import without_password
from airflow_ml_provider.tracking.session import Credentials, register_connector, session

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class _Address:
    tracking_uri: str
    credentials: Credentials
    registry_uri: str | None
    ui_url: str | None
    label: str


class MlflowHook(BaseHook):
    """
    Talk to the MLflow server of a connection.

    The connection's type is ``mlflow``. Its host is the tracking URI (``https://mlflow.example.com``,
    ``http://mlflow:5000``, ``sqlite:////path/mlflow.db``), login and password are for basic authentication.
    Extra fields: ``token`` (bearer token, in place of login and password), ``registry_uri`` (where models are
    registered, if elsewhere), ``ui_url`` (the address that browsers reach MLflow at, for links),
    ``ca_bundle`` (path of the certificates that sign the server's), ``webhook_secret`` and ``insecure_tls``.

    Without such a connection MLflow's own ``MLFLOW_TRACKING_*`` environment variables count, if
    ``MLFLOW_TRACKING_URI`` is set. There is no silent default: MLflow's own is a file in the working folder.

    A server that is down is reported by :class:`MlflowUnavailableError` within 20 seconds; one that goes away
    while a task talks to it after 3 retries, about 15 seconds when it refuses connections.

    .. versionadded:: 0.1.0

    :param mlflow_conn_id: Name of the connection.
    """

    conn_name_attr = "mlflow_conn_id"
    default_conn_name = "mlflow_default"
    conn_type = "mlflow"
    hook_name = "MLflow"

    def __init__(self, mlflow_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.mlflow_conn_id = mlflow_conn_id

    @functools.cached_property
    def _address(self) -> _Address:
        from airflow.sdk.exceptions import AirflowNotFoundException

        try:
            connection = self.get_connection(self.mlflow_conn_id)
        except AirflowNotFoundException as exc:
            return _from_environment(self.mlflow_conn_id, exc)
        return _from_connection(self.mlflow_conn_id, connection)

    async def aload(self) -> MlflowHook:
        """Read the connection without blocking the event loop, for triggers; gives the hook itself."""
        from airflow.sdk.exceptions import AirflowNotFoundException

        if "_address" not in self.__dict__:
            try:
                connection = await self.aget_connection(self.mlflow_conn_id)
            except AirflowNotFoundException as exc:
                self.__dict__["_address"] = _from_environment(self.mlflow_conn_id, exc)
            else:
                self.__dict__["_address"] = _from_connection(self.mlflow_conn_id, connection)
        return self

    @property
    def tracking_uri(self) -> str:
        """The server's address, without credentials; that of a database as it was given."""
        return self._address.tracking_uri

    @property
    def registry_uri(self) -> str:
        """Where models are registered; the tracking server unless the connection says otherwise."""
        return self._address.registry_uri or self._address.tracking_uri

    @property
    def credentials(self) -> Credentials:
        """How to be let in. Secrets do not show in its repr."""
        return self._address.credentials

    @functools.cached_property
    def client(self) -> MlflowClient:
        """
        A client that carries its own address and credentials, so that two hooks cannot mix servers.

        It has the methods of ``MlflowClient`` and blocks: call it in a thread from async code.

        :raises MlflowUnavailableError: if the server does not answer.
        """
        from airflow_ml_provider.tracking.client import connect

        address = self._address
        return connect(
            address.tracking_uri, address.credentials, registry_uri=address.registry_uri, label=address.label
        )

    def get_conn(self) -> MlflowClient:
        """The client, by the name that Airflow's hooks share."""
        return self.client

    def session(self) -> AbstractContextManager[None]:
        """Point MLflow's fluent functions at this server for the length of a ``with`` block."""
        address = self._address
        return session(
            address.tracking_uri, address.credentials, registry_uri=address.registry_uri, label=address.label
        )

    def run_url(self, experiment_id: str, run_id: str) -> str | None:
        """The page of a run; None for a store that has no pages."""
        return self._page(f"experiments/{quote(experiment_id, safe='')}/runs/{quote(run_id, safe='')}")

    def model_url(self, name: str, version: str | None = None) -> str | None:
        """The page of a registered model or of one version; None for a store that has no pages."""
        page = f"models/{quote(name, safe='')}"
        return self._page(page if version is None else f"{page}/versions/{quote(str(version), safe='')}")

    def home_url(self) -> str | None:
        """The address of MLflow's pages; None for a store that has none."""
        base = self._address.ui_url or self.tracking_uri
        return base.rstrip("/") if base.startswith(("http://", "https://")) else None

    def test_connection(self) -> tuple[bool, str]:
        """Say whether the server answers and lets us in, and what to do if not."""
        try:
            found = self.client.search_experiments(max_results=1)
        except Exception as exc:  # noqa: BLE001 - the answer is the message
            # MLflow quotes an address that it does not know, and that of a database has its password.
            return False, str(exc).replace(self.tracking_uri, without_password(self.tracking_uri))
        seen = f"the first experiment is {found[0].name!r}" if found else "there is no experiment yet"
        return True, f"MLflow at {without_password(self.tracking_uri)} answers; {seen}"

    def _page(self, path: str) -> str | None:
        base = self.home_url()
        return None if base is None else f"{base}/#/{path}"


def _from_connection(conn_id: str, connection: Any) -> _Address:
    label = f"connection {conn_id!r}"
    if not connection.host:
        raise TrackingError(
            f"{label} has no host; set it to the tracking URI, for example https://mlflow.example.com"
        )
    extra = connection.extra_dejson or {}
    uri, login, password = _split(
        connection.host, port=connection.port, schema=connection.schema, label=label
    )
    credentials = Credentials(
        username=connection.login or login,
        password=connection.password or password,
        token=extra.get("token") or None,
        insecure_tls=_truth(extra.get("insecure_tls")),
        ca_bundle=extra.get("ca_bundle") or None,
    )
    return _Address(uri, credentials, extra.get("registry_uri") or None, extra.get("ui_url") or None, label)


def _from_environment(conn_id: str, missing: Exception) -> _Address:
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        from airflow.sdk.exceptions import AirflowNotFoundException

        raise AirflowNotFoundException(
            f"there is no connection {conn_id!r} and MLFLOW_TRACKING_URI is not set; add one: airflow "
            f"connections add {conn_id} --conn-type mlflow --conn-host http://<host>:5000"
        ) from missing
    uri, login, password = _split(uri, port=None, schema=None, label="MLFLOW_TRACKING_URI")
    credentials = Credentials(login, password) if login else Credentials()
    registry_uri = os.environ.get("MLFLOW_REGISTRY_URI") or None
    return _Address(uri, credentials, registry_uri, None, "MLFLOW_TRACKING_URI in the environment")


def _split(
    host: str, *, port: int | None, schema: str | None, label: str
) -> tuple[str, str | None, str | None]:
    """The address with its port and without user and password, which go with the credentials."""
    host = host.strip()
    if host == "databricks" or host.startswith(("databricks:", "sqlite:", "postgresql", "mysql", "file:")):
        return host, None, None
    if "://" not in host:
        scheme = schema if schema in {"http", "https"} else "https" if port == 443 else "http"
        host = f"{scheme}://{host}"
    try:
        parts = urlsplit(host)
        own_port = parts.port
    except ValueError as exc:
        raise TrackingError(f"the host of {label} is no address: {without_password(host)!r}: {exc}") from exc
    if parts.scheme not in {"http", "https"}:
        return host, None, None
    place = parts.netloc.rpartition("@")[2]
    if port and own_port is None:
        place = f"{place}:{port}"
    # In a connection that is given as a URI, what follows the host arrives as its schema.
    below = "" if schema in {"http", "https"} else schema or ""
    address = urlunsplit((parts.scheme, place, (parts.path.strip("/") or below).rstrip("/"), "", ""))
    return address, _unquoted(parts.username), _unquoted(parts.password)


def _unquoted(text: str | None) -> str | None:
    return unquote(text) if text else None


def _truth(value: Any) -> bool:
    return value is True or str(value).strip().lower() in {"true", "1", "yes", "on"}


# ModelRef.load() is on the ground floor, which knows no connections.
register_connector(lambda mlflow_conn_id: MlflowHook(mlflow_conn_id).session())
