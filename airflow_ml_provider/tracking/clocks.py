# SPDX-License-Identifier: Apache-2.0
"""
The data time that a run speaks for.

Catch-up and backfill runs of last May happen today, so what they make carries two times: when it was
recorded, and the time of the data it is about. This module decides the second one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_YEAR_MONTH = re.compile(r"(\d{4})-(\d{2})")


def effective_at(
    *,
    data_interval: tuple[datetime | None, datetime | None] | Any | None = None,
    partition_date: datetime | None = None,
    partition_key: str | None = None,
    logical_date: datetime | None = None,
    triggering_extras: Iterable[Mapping[str, Any]] = (),
    explicit: datetime | str | None = None,
    now: datetime | None = None,
) -> datetime:
    """
    Say which moment of the data a run speaks for.

    The first of these that there is: what the user passed; the end of the data interval (of a zero-length
    one too); the partition's date, else its key where that is a date; the logical date; the latest
    ``effective_at`` in the extras of the asset events that triggered the run; the wall clock.

    :param data_interval: ``(start, end)`` or an object with ``start`` and ``end``.
    :param triggering_extras: The ``extra`` of each triggering asset event.
    :param explicit: A datetime or ISO 8601 text.
    :param now: The wall clock, for tests.
    :returns: An aware datetime in UTC. Naive input counts as UTC.
    :raises ValueError: if ``explicit`` is text that is no date.
    """
    if explicit is not None:
        found = moment(explicit)
        if found is None:
            raise ValueError(f"effective_at must be a datetime or ISO 8601 text, got {explicit!r}")
        return found
    known = (
        moment(_end(data_interval)),
        moment(partition_date),
        moment(partition_key),
        moment(logical_date),
        _inherited(triggering_extras),
    )
    for candidate in known:
        if candidate is not None:
            return candidate
    return moment(now) or datetime.now(UTC)


def moment(value: Any) -> datetime | None:
    """Read a datetime, a date or ISO 8601 text (``2013-05`` is its first day) as aware UTC, else None."""
    if isinstance(value, datetime):
        aware = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        # Airflow's contexts hold pendulum's subclass, whose differences have an arithmetic of their own.
        return aware if type(aware) is datetime else datetime.fromisoformat(aware.isoformat())
    if isinstance(value, date):
        return datetime.combine(value, time(), tzinfo=UTC)
    if not isinstance(value, str):
        return None
    text = value.strip()
    if month := _YEAR_MONTH.fullmatch(text):
        text = f"{month[1]}-{month[2]}-01"
    if not re.match(r"\d{4}-", text):  # "20130514" could be any identifier
        return None
    try:
        return moment(datetime.fromisoformat(text))
    except ValueError:
        return None


def calendar_end(key: str) -> datetime | None:
    """Return the end of the month or day that ``2013-05`` or ``2013-05-14`` names, in UTC, else None."""
    begins = moment(key)
    if begins is None:
        return None
    if _YEAR_MONTH.fullmatch(key.strip()):
        return (begins + timedelta(days=32)).replace(day=1)
    return begins + timedelta(days=1) if _DAY.fullmatch(key.strip()) else None


def _end(interval: Any) -> Any:
    if interval is None:
        return None
    if isinstance(interval, tuple | list):
        return interval[1]
    return getattr(interval, "end", None)


def _inherited(extras: Iterable[Mapping[str, Any]]) -> datetime | None:
    found = [
        when
        for extra in extras
        if isinstance(extra, Mapping) and (when := moment(extra.get("effective_at"))) is not None
    ]
    return max(found, default=None)
