# SPDX-License-Identifier: Apache-2.0
"""Small JSON for people to look at, made once when a value is written."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Sequence
from typing import Any

from airflow_ml_provider.artifacts import limits

MAX_CHARS = 80
MAX_ROWS = 5
MAX_COLUMNS = 20
MAX_BYTES = 2048

MASK = "***"
# What is masked where a deployment names nothing else.
SECRET_NAMES = (
    "*password*",
    "*passwd*",
    "*passphrase*",
    "*secret*",
    "*api_key*",
    "*api-key*",
    "*apikey*",
    "*access_key*",
    "*private_key*",
    "*credential*",
    "*authorization*",
    "token",
    "*[_-]token",  # access_token, but neither n_tokens nor token_id
)


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
    if isinstance(value, dict):
        return f"<dict of {len(value)}>"  # its text would show what stands under names that are masked
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


def masked(shown: Any, patterns: Sequence[str], *, names: Sequence[str] = ()) -> Any:
    """
    Put ``***`` in place of what stands under a name that a pattern matches.

    :param shown: A preview: cells, in lists and in dicts by column or key, to any depth.
    :param patterns: Globs, compared without regard to case.
    :param names: What the value as a whole is called; if one of them matches, all of it is masked.
    """
    if not patterns or shown is None:
        return shown
    matches = re.compile("|".join(fnmatch.translate(pattern.lower()) for pattern in patterns)).match

    def walk(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: MASK if matches(str(key).lower()) else walk(part) for key, part in item.items()}
        return [walk(part) for part in item] if isinstance(item, list) else item

    return MASK if any(matches(name.lower()) for name in names) else walk(shown)
