# SPDX-License-Identifier: Apache-2.0
"""What an MLflow run says of a task's code and arguments, and what it keeps quiet."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import Context


def code_path(function: Callable[..., Any] | None, context: Context) -> str:
    """Return the file that a task's function is in; the DAG's file where there is none."""
    path: str | None = None
    if function is not None:
        try:
            path = inspect.getsourcefile(inspect.unwrap(function))
        except TypeError:
            path = None
    return path or context["dag"].fileloc


def code_tags(function: Callable[..., Any] | None, context: Context) -> dict[str, str]:
    """Name the code of a task, as tags: function, DAG bundle and its version, git state."""
    from airflow_ml_provider.tracking.code import code_state

    tags = {}
    if function is not None:
        plain = inspect.unwrap(function)
        tags["airflow.callable"] = f"{plain.__module__}.{getattr(plain, '__qualname__', plain)}"
    bundle = getattr(context["ti"], "bundle_instance", None)
    for option, told in (("name", "airflow.bundle"), ("version", "airflow.bundle_version")):
        if found := getattr(bundle, option, None):
            tags[told] = str(found)
    return {**tags, **code_state(code_path(function, context))}


def fingerprint_of(function: Callable[..., Any]) -> str | None:
    """Return a digest of a function's source; None where Python cannot find it."""
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):
        return None
    return hashlib.sha256(source.encode()).hexdigest()[:32]


def redacted(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments with ``***`` for what Airflow's own pages would not show either."""
    from airflow.sdk.log import redact

    return {name: redact(value, name) for name, value in arguments.items()}
