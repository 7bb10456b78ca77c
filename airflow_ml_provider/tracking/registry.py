# SPDX-License-Identifier: Apache-2.0
"""
Model versions and aliases in MLflow's registry.

``client`` is an ``MlflowClient`` or what :func:`airflow_ml_provider.tracking.client.connect` gives.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from airflow_ml_provider.exceptions import ModelNotFoundError, TrackingError
from airflow_ml_provider.tracking.errors import is_duplicate, is_missing, without_password
from airflow_ml_provider.tracking.models import ModelRef
from airflow_ml_provider.tracking.session import session

#: Tag of a version that says which LoggedModel it is; by it a retry finds the version of the try before.
MODEL_ID_TAG = "airflow.model_id"
EFFECTIVE_AT_TAG = "airflow.effective_at"
#: Tag of a version that says where the data that it learned from end.
DATA_UNTIL_TAG = "airflow.data_until"
RECORDED_AT_TAG = "airflow.recorded_at"
# MLflow's own tag of a LoggedModel: the versions that its page shows.
_MODEL_VERSIONS_TAG = "mlflow.modelVersions"
_READY_SECONDS = 300

_log = logging.getLogger(__name__)


def register_version(
    client: Any,
    ref: ModelRef,
    registered_model_name: str,
    tags: Mapping[str, str] | None = None,
    *,
    description: str | None = None,
    ready_timeout: int = _READY_SECONDS,
) -> str:
    """
    Find the version that this model already is, else make one, and give its number.

    A retry therefore gets the version of the try before. The registered model is created if missing.

    :param tags: Set on the version, also on one that was found.
    :param ready_timeout: Seconds to wait until the version can be used.
    :raises ModelNotFoundError: if MLflow no longer has the model.
    """
    if not registered_model_name:
        raise ValueError("registered_model_name must not be empty")
    tags = {key: str(value) for key, value in (tags or {}).items()}
    if ref.effective_at is not None:
        tags.setdefault(EFFECTIVE_AT_TAG, ref.effective_at)
    if ref.data_until is not None:
        tags.setdefault(DATA_UNTIL_TAG, ref.data_until)
    marker = ref.model_id or ref.model_uri
    found = _version_of(client, registered_model_name, marker)
    if found is not None:
        for key, value in tags.items():
            if found.tags.get(key) != value:
                client.set_model_version_tag(registered_model_name, found.version, key, value)
        return str(found.version)
    logged = None if ref.model_id is None else _logged_model(client, ref.model_id)
    try:
        client.create_registered_model(registered_model_name)
    except Exception as exc:
        if not is_duplicate(exc):
            raise
    # A store without a server resolves the source by MLflow's global address, not by the client's.
    with session(client.tracking_uri, getattr(client, "credentials", None)):
        made = client.create_model_version(
            registered_model_name,
            source=ref.model_uri,
            run_id=ref.mlflow_run_id,
            tags={**tags, MODEL_ID_TAG: marker},
            description=description,
            model_id=ref.model_id,
            await_creation_for=ready_timeout,
        )
    if made.status == "FAILED_REGISTRATION":
        raise TrackingError(
            f"MLflow could not register version {made.version} of {registered_model_name!r}: "
            f"{made.status_message}"
        )
    if logged is not None:
        _show_on_model(client, logged, registered_model_name, str(made.version))
    return str(made.version)


def registered_version(client: Any, ref: ModelRef, registered_model_name: str) -> str | None:
    """The version of a registered model that this model already is; None if it is none yet."""
    if ref.version and ref.registered_model_name == registered_model_name:
        return ref.version
    found = _version_of(client, registered_model_name, ref.model_id or ref.model_uri)
    return None if found is None else str(found.version)


def alias_version(client: Any, registered_model_name: str, alias: str) -> str | None:
    """The version that an alias points at; None if the alias or the registered model does not exist."""
    try:
        return str(client.get_model_version_by_alias(registered_model_name, alias).version)
    except Exception as exc:
        if is_missing(exc):
            return None
        raise


def move_alias(client: Any, registered_model_name: str, alias: str, version: str) -> str | None:
    """
    Point an alias at a version and give the version that it pointed at before.

    :raises ModelNotFoundError: if there is no such version.
    """
    before = alias_version(client, registered_model_name, alias)
    if before == str(version):
        return before
    try:
        client.set_registered_model_alias(registered_model_name, alias, str(version))
    except Exception as exc:
        if is_missing(exc):
            raise ModelNotFoundError(
                f"{registered_model_name!r} has no version {version} for the alias {alias!r} to point at; "
                f"{_existing(client, registered_model_name)}"
            ) from exc
        raise
    return before


def version_details(client: Any, registered_model_name: str, version: str) -> Any:
    """
    Give MLflow's ``ModelVersion``.

    :raises ModelNotFoundError: if there is no such version, saying what there is.
    """
    return _get_version(client, ModelRef.coerce(f"models:/{registered_model_name}/{version}"))


def resolve_model_uri(client: Any, model: ModelRef | Mapping[str, Any] | str) -> ModelRef:
    """
    Follow a name to the model that it means now.

    :param model: ``models:/name@alias``, ``models:/name/3``, ``models:/m-...``, ``runs:/...`` or a ModelRef.
    :returns: A reference with a model id, and with a version where a registered model was named. Its
        ``model_uri`` no longer depends on an alias.
    :raises ModelNotFoundError: if there is none, saying what there is.
    """
    ref = ModelRef.coerce(model)
    if ref.registered_model_name and (ref.alias or (ref.version and ref.model_id is None)):
        return _from_version(client, ref, _get_version(client, ref))
    if ref.model_id is None:
        return ref
    return _from_logged(ref, _logged_model(client, ref.model_id))


def version_ref(client: Any, registered_model_name: str, version: str) -> ModelRef:
    """A reference to one version of a registered model."""
    return resolve_model_uri(client, f"models:/{registered_model_name}/{version}")


def _logged_model(client: Any, model_id: str) -> Any:
    try:
        return client.get_logged_model(model_id)
    except Exception as exc:
        if is_missing(exc):
            raise ModelNotFoundError(
                f"MLflow at {without_password(client.tracking_uri)} has no model {model_id!r}; it was "
                f"deleted or lives on another server, clear the task that trained it"
            ) from exc
        raise


def _get_version(client: Any, ref: ModelRef) -> Any:
    name = ref.registered_model_name
    try:
        if ref.alias:
            return client.get_model_version_by_alias(name, ref.alias)
        return client.get_model_version(name, ref.version)
    except Exception as exc:
        if is_missing(exc):
            what = f"alias {ref.alias!r}" if ref.alias else f"version {ref.version}"
            raise ModelNotFoundError(
                f"{ref.model_uri!r}: registered model {name!r} has no {what}; {_existing(client, name)}"
            ) from exc
        raise


def _from_version(client: Any, ref: ModelRef, version: Any) -> ModelRef:
    model_id = version.model_id or _id_in(version.source)
    resolved = replace(
        ref,
        model_uri=f"models:/{version.name}/{version.version}",
        registered_model_name=version.name,
        version=str(version.version),
        mlflow_run_id=version.run_id or ref.mlflow_run_id,
        model_id=model_id,
        tracking_uri=ref.tracking_uri or client.tracking_uri,
        effective_at=version.tags.get(EFFECTIVE_AT_TAG) or ref.effective_at,
        data_until=version.tags.get(DATA_UNTIL_TAG) or ref.data_until,
    )
    if model_id is None:
        return resolved
    try:
        return _from_logged(resolved, client.get_logged_model(model_id))
    except Exception as exc:
        if is_missing(exc):  # registered by other means, or its LoggedModel deleted: the version still loads
            return resolved
        raise


def _from_logged(ref: ModelRef, logged: Any) -> ModelRef:
    return replace(
        ref,
        name=ref.name or logged.name,
        mlflow_run_id=ref.mlflow_run_id or logged.source_run_id,
        experiment_id=ref.experiment_id or logged.experiment_id,
        flavor=ref.flavor or (logged.tags or {}).get("airflow.flavor"),
        metrics=ref.metrics or {metric.key: metric.value for metric in logged.metrics or []},
    )


def _version_of(client: Any, name: str, marker: str) -> Any | None:
    quoted = _quoted(name)
    found = client.search_model_versions(
        f"name = {quoted} AND tags.`{MODEL_ID_TAG}` = {_quoted(marker)}", max_results=10
    )
    usable = [version for version in found if version.status != "FAILED_REGISTRATION"]
    return min(usable, key=lambda version: int(version.version), default=None)


def _id_in(source: str | None) -> str | None:
    prefix = "models:/m-"
    return source.removeprefix("models:/") if source and source.startswith(prefix) else None


def _show_on_model(client: Any, logged: Any, name: str, version: str) -> None:
    try:
        shown = json.loads((logged.tags or {}).get(_MODEL_VERSIONS_TAG) or "[]")
        shown.append({"name": name, "version": version})
        client.set_logged_model_tags(logged.model_id, {_MODEL_VERSIONS_TAG: json.dumps(shown)})
    except Exception:  # noqa: BLE001 - the link only decorates the model's page
        _log.warning(
            "version %s of %r does not show on the page of %s", version, name, logged.model_id, exc_info=True
        )


def _existing(client: Any, name: str | None) -> str:
    """What there is, for the message about what there is not."""
    try:
        model = client.get_registered_model(name)
    except Exception as exc:
        if not is_missing(exc):
            raise
        names = [found.name for found in client.search_registered_models(max_results=10)]
        return f"that registered model does not exist; registered models: {', '.join(names) or 'none'}"
    aliases = ", ".join(f"{alias} -> {version}" for alias, version in sorted(model.aliases.items()))
    versions = client.search_model_versions(
        f"name = {_quoted(model.name)}", max_results=10, order_by=["version_number DESC"]
    )
    listed = ", ".join(str(version.version) for version in versions)
    return f"aliases: {aliases or 'none'}; latest versions: {listed or 'none'}"


def _quoted(text: str) -> str:
    if "'" not in text:
        return f"'{text}'"
    if '"' not in text:
        return f'"{text}"'
    raise ValueError(f"MLflow cannot search for a name with both kinds of quotes: {text!r}")
