# SPDX-License-Identifier: Apache-2.0
"""MLflow's exceptions in this package's words."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from airflow_ml_provider.exceptions import (
    MlflowAccessError,
    MlflowUnavailableError,
    ModelNotFoundError,
    TrackingError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Calls of MlflowClient whose "does not exist" is about a model.
_MODEL_CALLS = frozenset(
    {
        "get_registered_model",
        "get_model_version",
        "get_model_version_by_alias",
        "get_model_version_download_uri",
        "get_logged_model",
        "set_registered_model_alias",
    }
)
_MISSING_CODES = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"})
_REFUSED = frozenset({401, 403})
_GATEWAY = frozenset({502, 503, 504})


def without_password(address: str) -> str:
    """An address that may stand in messages and logs."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return address
    if "@" not in parts.netloc:
        return address
    return urlunsplit(parts._replace(netloc="***@" + parts.netloc.rpartition("@")[2]))


def is_missing(error: BaseException) -> bool:
    """Whether an error says that what was asked for does not exist."""
    if isinstance(error, ModelNotFoundError):
        return True
    if getattr(error, "error_code", None) in _MISSING_CODES:
        return True
    # A missing alias comes as INVALID_PARAMETER_VALUE.
    return "alias" in str(error) and "not found" in str(error)


def is_duplicate(error: BaseException) -> bool:
    """Whether an error says that what was to be created exists."""
    return getattr(error, "error_code", None) in {"RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"}


def unavailable(label: str, address: str, found: object) -> MlflowUnavailableError:
    """Name the connection and the address of a server that does not answer."""
    return MlflowUnavailableError(
        f"no answer from the MLflow server of {label} at {without_password(address)}: {found}; start the "
        f"server or correct the host of {label}, then retry the task"
    )


def refused(label: str, address: str, found: object) -> MlflowAccessError:
    """Name the connection whose credentials a server refused."""
    return MlflowAccessError(
        f"the MLflow server at {without_password(address)} refused the credentials of {label}: {found}; "
        f"correct the login and password (or the extra field token) of {label}, or grant the permission there"
    )


def translate(
    error: BaseException, *, label: str, address: str, call: str = "", args: Sequence[object] = ()
) -> TrackingError | None:
    """
    Give this package's error for one of MLflow's, or None for one that is better left alone.

    :param label: Where the address comes from, as a user knows it: ``connection 'mlflow_default'``.
    :param call: The method of MlflowClient that failed.
    """
    if isinstance(error, TrackingError):
        return None
    status_of = getattr(error, "get_http_status_code", None)
    status = status_of() if status_of is not None else None
    text = str(error).replace(address, without_password(address))
    if text.startswith("API request to") and ("failed with exception" in text or "timeout exception" in text):
        return unavailable(label, address, _cause(text))
    if status in _REFUSED:
        return refused(label, address, text)
    if status in _GATEWAY:
        return unavailable(label, address, text)
    if call in _MODEL_CALLS and is_missing(error):
        asked = ", ".join(repr(arg) for arg in args if isinstance(arg, str | int))
        return ModelNotFoundError(
            f"{call}({asked}) found nothing on {without_password(address)} ({label}): {text}"
        )
    return None


def _cause(text: str) -> str:
    for known in ("Connection refused", "Name or service not known", "timed out", "Max retries exceeded"):
        if known.lower() in text.lower():
            return known.lower()
    return text
