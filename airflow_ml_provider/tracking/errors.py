# SPDX-License-Identifier: Apache-2.0
"""MLflow's exceptions in this package's words."""

from __future__ import annotations

import re
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
# MLflow answers with JSON, also where it refuses. While it restarts, a proxy answers in its place.
_NOT_MLFLOW = re.compile(
    r"API request to endpoint (?:(?P<path>\S+) failed with error code (?P<status>3\d\d|404|5\d\d) != \d+"
    r"|was successful but the response body was not in a valid JSON format)\. Response body: '(?P<body>.*)'",
    re.DOTALL,
)
_BODY_CHARACTERS = 200


def without_password(address: str, instead: str = "***@") -> str:
    """
    An address that may stand in messages and logs.

    :param instead: What stands in place of user and password; empty for an address that is still one.
    """
    try:
        parts = urlsplit(address)
    except ValueError:
        return address
    if "@" not in parts.netloc:
        return address
    return urlunsplit(parts._replace(netloc=instead + parts.netloc.rpartition("@")[2]))


def is_missing(error: BaseException) -> bool:
    """Whether an error says that what was asked for does not exist."""
    if isinstance(error, ModelNotFoundError):
        return True
    if getattr(error, "error_code", None) in _MISSING_CODES:
        return True
    if getattr(error, "error_code", None) != "INVALID_PARAMETER_VALUE":
        return False
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
    if status in _REFUSED:
        return refused(label, address, text)
    if (found := _outage(text, status)) is not None:
        return unavailable(label, address, found)
    if call in _MODEL_CALLS and is_missing(error):
        asked = ", ".join(repr(arg) for arg in args if isinstance(arg, str | int))
        return ModelNotFoundError(
            f"{call}({asked}) found nothing on {without_password(address)} ({label}): {text}"
        )
    return None


def _outage(text: str, status: int | None) -> str | None:
    """Say in what way a server is away, or another one answers for it; None if neither is so."""
    if text.startswith("API request to") and ("failed with exception" in text or "timeout exception" in text):
        return _cause(text)
    if (answer := _NOT_MLFLOW.match(text)) is not None:
        body = " ".join(answer["body"].split())[:_BODY_CHARACTERS]
        asked = f" to {answer['path']}" if answer["path"] else ""
        return (
            f"HTTP {answer['status'] or 200}{asked}, and not in MLflow's words: {body!r}; a proxy answers in "
            "its place, or the server is too old"
        )
    return text if status in _GATEWAY else None


def _cause(text: str) -> str:
    if answers := re.search(r"too many (\d{3}) error responses", text):
        return f"HTTP {answers[1]} at each try"
    for known in ("Connection refused", "Name or service not known", "timed out", "Max retries exceeded"):
        if known.lower() in text.lower():
            return known.lower()
    return text
