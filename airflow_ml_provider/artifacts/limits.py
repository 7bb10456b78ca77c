# SPDX-License-Identifier: Apache-2.0
"""What JSON carries exactly: through Python, and through Airflow's channel and a PostgreSQL JSONB column."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import threading
from collections.abc import Iterator
from typing import Any

from airflow_ml_provider.artifacts.envelope import is_node

# How far a value passes as JSON.
EVERYWHERE = 0  # through the database as well
PYTHON = 1  # through Python's json only
NOWHERE = 2  # it needs another form

# Deeper trees could exhaust the stack of the one or the other reader on the way.
MAX_DEPTH = 100

_lock = threading.Lock()


@contextlib.contextmanager
def any_length_of_int() -> Iterator[None]:
    """Lift Python's limit of 4,300 digits between text and integers for the bytes of our own codecs."""
    with _lock:
        before = sys.get_int_max_str_digits()
        sys.set_int_max_str_digits(0)
        try:
            yield
        finally:
            sys.set_int_max_str_digits(before)


def grade_of_str(text: str) -> int:
    if text.isascii():
        return EVERYWHERE if "\0" not in text else PYTHON
    try:
        text.encode()
    except UnicodeEncodeError:
        # Two lone surrogates in a row come back from JSON as one character.
        return PYTHON if json.loads(json.dumps(text)) == text else NOWHERE
    return EVERYWHERE if "\0" not in text else PYTHON


def grade_of_int(number: int) -> int:
    return EVERYWHERE if -(1 << 63) <= number < (1 << 63) else PYTHON


def grade_of_float(number: float) -> int:
    # JSONB gives 1e16 back as an integer, and has no negative zero.
    if not -1e16 < number < 1e16 or (number == 0 and math.copysign(1, number) < 0):
        return PYTHON
    return EVERYWHERE


def grade(value: Any, depth: int = 0) -> int:  # noqa: PLR0911 - one for each type
    """
    Tell how far JSON carries ``value`` exactly, type and all.

    :returns: ``EVERYWHERE``, ``PYTHON`` or ``NOWHERE``.
    """
    kind = type(value)
    if kind is str:
        return grade_of_str(value)
    if kind is bool or value is None:
        return EVERYWHERE
    if kind is int:
        return grade_of_int(value)
    if kind is float:
        return grade_of_float(value)
    worst = EVERYWHERE if depth < MAX_DEPTH else PYTHON
    if kind is list:
        for item in value:
            worst = max(worst, grade(item, depth + 1))
            if worst == NOWHERE:
                break
        return worst
    if kind is dict:
        if is_node(value):
            worst = PYTHON  # a user's dict that looks like one of ours
        for key, item in value.items():
            if type(key) is not str:
                return NOWHERE
            worst = max(worst, grade_of_str(key), grade(item, depth + 1))
            if worst == NOWHERE:
                break
        return worst
    return NOWHERE


def fits_inline(value: Any, max_bytes: int) -> bool:
    """
    Tell whether ``value`` is of the grade ``EVERYWHERE``, and as compact JSON no longer than ``max_bytes``.

    One walk for what is small: an upper bound of its length is counted on the way.
    """
    bound = _bound(value, 0)
    return bound >= 0 and (bound <= max_bytes or len(_compact(value)) <= max_bytes)


_compact = json.JSONEncoder(separators=(",", ":")).encode


def _bound(value: Any, depth: int) -> int:  # noqa: PLR0911, PLR0912 - the hot path of every small XCom
    """Return an upper bound of the length of ``value`` as compact JSON, -1 if its grade is not EVERYWHERE."""
    kind = type(value)
    if kind is dict:
        if depth >= MAX_DEPTH or ("kind" in value and is_node(value)):
            return -1
        total = 2
        for key, item in value.items():
            if type(key) is not str or grade_of_str(key) != EVERYWHERE:
                return -1
            inner = type(item)
            if inner is float:
                if not -1e16 < item < 1e16 or (item == 0 and grade_of_float(item) != EVERYWHERE):
                    return -1
                total += 12 * len(key) + 28
                continue
            part = _bound(item, depth + 1)
            if part < 0:
                return -1
            total += part + 12 * len(key) + 4
        return total
    if kind is list:
        if depth >= MAX_DEPTH:
            return -1
        total = 2
        for item in value:
            if type(item) is str and item.isascii():
                if "\0" in item:
                    return -1
                total += 6 * len(item) + 3
                continue
            part = _bound(item, depth + 1)
            if part < 0:
                return -1
            total += part + 1
        return total
    if kind is str:
        return 12 * len(value) + 2 if grade_of_str(value) == EVERYWHERE else -1
    if kind is float:
        return 24 if grade_of_float(value) == EVERYWHERE else -1
    if kind is int:
        return 20 if grade_of_int(value) == EVERYWHERE else -1
    return 5 if value is None or kind is bool else -1
