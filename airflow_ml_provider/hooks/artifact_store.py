# SPDX-License-Identifier: Apache-2.0
"""From Airflow's configuration and connections to the artifact store."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

from airflow_ml_provider.exceptions import SettingsError
from airflow_ml_provider.settings import Settings, load_settings

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.refs import ArtifactRef
    from airflow_ml_provider.artifacts.store import ArtifactStore

    OnRead = Callable[[ArtifactRef, Any], None]
    OnWrite = Callable[[ArtifactRef], None]


class ArtifactStoreHook(BaseHook):
    """
    Give tasks, the CLI and the XCom backend the deployment's artifact store.

    :param settings: What to connect to; by default the options of ``[ml_provider]``.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__()
        self.settings = settings or load_settings()

    @property
    def store(self) -> ArtifactStore:
        """The store, one for each root in a process."""
        return _store_for(self.settings)

    @staticmethod
    def forget() -> None:
        """Drop the stores of this process, so that a changed connection is read again."""
        _store_for.cache_clear()


@functools.lru_cache(maxsize=8)
def _store_for(settings: Settings) -> ArtifactStore:
    is_s3 = settings.artifact_root.startswith("s3://")
    return open_store(settings, s3_options(settings.artifact_conn_id) if is_s3 else None)


def open_store(settings: Settings, options: Mapping[str, Any] | None) -> ArtifactStore:
    """
    Make a store of settings.

    :param options: Of the object storage, credentials too.
    """
    from airflow_ml_provider.artifacts.store import ArtifactStore

    store = ArtifactStore(
        settings.artifact_root,
        signing_key=settings.signing_key,
        options=options,
        inline_max_bytes=settings.inline_max_bytes,
        allow_pickle=settings.allow_pickle,
        verify_on_read=settings.verify_on_read,
        previews=settings.previews,
        allowed_classes=settings.allowed_classes,
        mask=settings.preview_mask,
        max_artifact_bytes=settings.max_artifact_bytes or None,
        verify_with=settings.verify_with,
    )
    store.on_read, store.on_write = _tell_read, _tell_written
    return store


_observers: list[tuple[OnRead, OnWrite]] = []


def observe(on_read: OnRead, on_write: OnWrite) -> None:
    """
    Have functions called with what this process fetches and saves by stores of hooks from now on, once each.

    So what a task finds by name, and what it saves by itself, is in its record too.
    """
    if (on_read, on_write) not in _observers:
        _observers.append((on_read, on_write))


def _tell_read(ref: ArtifactRef, value: Any) -> None:
    for on_read, _ in _observers:
        on_read(ref, value)


def _tell_written(ref: ArtifactRef) -> None:
    for _, on_write in _observers:
        on_write(ref)


def s3_options(conn_id: str | None) -> dict[str, Any]:
    """
    Turn an Airflow AWS connection into options of the object store.

    Keys come from the connection through boto3, so assumed roles and profiles work as in the amazon
    provider. Without a connection the client finds the machine's own credentials.

    :raises SettingsError: if the connection is missing, of another type, with an endpoint that is no address
        or certificates that cannot be read, or the extra is not installed.
    """
    if conn_id is None:
        return {}
    try:
        from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook
    except ModuleNotFoundError as exc:
        if not (exc.name or "").startswith(("airflow.providers.amazon", "boto")):
            raise
        raise SettingsError(
            f"[ml_provider] artifact_conn_id = {conn_id} needs the amazon provider; "
            "run: pip install 'airflow-ml-provider[s3]'"
        ) from exc

    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        connection = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as exc:
        raise SettingsError(
            f"[ml_provider] artifact_conn_id names {conn_id!r}, and there is no such connection; correct the "
            f"option, or add it: airflow connections add {conn_id} --conn-type aws --conn-login <key id> "
            "--conn-password <secret key>"
        ) from exc
    if connection.conn_type != "aws":
        raise SettingsError(
            f"[ml_provider] artifact_conn_id names the connection {conn_id!r} of type "
            f"{connection.conn_type!r}; a connection of type 'aws' is needed"
        )
    hook: Any = AwsGenericHook(aws_conn_id=conn_id, client_type="s3")
    session = hook.get_session()
    options: dict[str, Any] = {}
    if region := hook.region_name or session.region_name:  # or what the client finds
        options["region"] = region
    endpoint = hook.conn_config.get_service_endpoint_url("s3") or hook.conn_config.endpoint_url
    if endpoint:
        if not endpoint.startswith(("http://", "https://")):
            raise SettingsError(
                f"the endpoint_url of the connection {conn_id!r} must start with http:// or https://, "
                f"got {endpoint!r}"
            )
        options["endpoint_url"] = endpoint
        options["allow_http"] = endpoint.startswith("http://")
    options |= _certificates(hook.verify, conn_id)
    if credentials := session.get_credentials():
        frozen = credentials.get_frozen_credentials()
        if frozen.token:
            # Temporary keys of an assumed role end before a long task does: they are asked for again.
            from obstore.auth.boto3 import Boto3CredentialProvider

            options["credential_provider"] = Boto3CredentialProvider(session)
        else:
            options["access_key_id"] = frozen.access_key
            options["secret_access_key"] = frozen.secret_key
    return options


def _certificates(verify: Any, conn_id: str) -> dict[str, Any]:
    """Turn what boto3 takes, a flag or a path, into options of the object store."""
    if not isinstance(verify, str):
        return {"allow_invalid_certificates": True} if verify is False else {}
    try:
        return {"root_certificate": Path(verify).read_text(encoding="ascii", errors="replace")}
    except OSError as exc:
        raise SettingsError(
            f"the extra field verify of the connection {conn_id!r} names the certificates {verify!r}, which "
            f"cannot be read: {exc.strerror}; correct the path"
        ) from exc
