# SPDX-License-Identifier: Apache-2.0
"""Small JSON for people to look at, made once when a value is written."""

from __future__ import annotations

import json
from typing import Any

from airflow_ml_provider.artifacts import limits

MAX_CHARS = 80
MAX_ROWS = 5
MAX_COLUMNS = 20
MAX_BYTES = 2048


def short(text: str, limit: int = MAX_CHARS) -> str:
    """Cut text, and replace what a database cannot hold."""
    text = text[:limit] + "..." if len(text) > limit else text
    if limits.grade_of_str(text) != limits.EVERYWHERE:
        text = text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    return text


def cell(value: Any) -> Any:
    """One value as a JSON scalar: a number where JSON carries it exactly, else short text."""
    if value is None or type(value) is bool:
        return value
    if type(value) in (int, float) and limits.grade(value) == limits.EVERYWHERE:
        return value
    return short(value if type(value) is str else _text(value))


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception as exc:  # noqa: BLE001 - a preview never fails the task whose value it shows
        return f"<{type(value).__name__}: {type(exc).__name__}>"


def of_json(value: Any) -> Any:
    """The beginning of plain JSON: first elements, nested parts named only."""
    if type(value) is dict:
        items = list(value.items())[:MAX_COLUMNS]
        return fit({short(str(key)): _inner(item) for key, item in items})
    if type(value) is list:
        return fit([_inner(item) for item in value[:MAX_ROWS]])
    if type(value) is int and value.bit_length() > 256:
        return f"<int of {value.bit_length()} bits>"
    return cell(value)


def _inner(value: Any) -> Any:
    if type(value) in (dict, list):
        return f"<{type(value).__name__} of {len(value)}>"
    if type(value) is int and value.bit_length() > 256:
        return f"<int of {value.bit_length()} bits>"
    return cell(value)


def fit(shown: Any) -> Any:
    """Drop from the end of a list or dict until it is about 2 KiB of JSON; None if nothing is left."""
    while shown and len(json.dumps(shown)) > MAX_BYTES:
        if isinstance(shown, dict):
            shown = dict(list(shown.items())[:-1])
        elif isinstance(shown, list):
            shown = shown[:-1]
        else:
            return None
    return shown or None
