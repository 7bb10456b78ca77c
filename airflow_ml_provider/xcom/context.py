# SPDX-License-Identifier: Apache-2.0
"""What a task's context says about who it is and which data time it speaks for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_ml_provider.tracking.identity import TaskIdentity


def data_interval_of(context: Mapping[str, Any]) -> tuple[datetime, datetime] | None:
    """Return the run's data interval; None for runs that have none (asset-triggered, partitioned)."""
    start, end = context.get("data_interval_start"), context.get("data_interval_end")
    return (start, end) if start is not None and end is not None else None


def run_type_of(context: Mapping[str, Any]) -> str:
    """Return ``scheduled``, ``manual``, ``backfill``, ``asset_triggered`` ..., or an empty string."""
    run_type = getattr(context.get("dag_run"), "run_type", "")
    return str(getattr(run_type, "value", run_type))


def triggering_extras(context: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the extras of the asset events that started this run, oldest first."""
    from airflow_ml_provider.assets.events import event_extra

    accessor = context.get("triggering_asset_events")
    if not accessor:
        return []
    events = [event for events in accessor.values() for event in events]
    events.sort(key=lambda event: event.timestamp)
    return [event_extra(event) for event in events]


def effective_at_of(context: Mapping[str, Any], explicit: datetime | None = None) -> datetime:
    """Return the data time this run speaks for (design: "Two clocks"), aware, in UTC."""
    from airflow_ml_provider.tracking.clocks import effective_at

    by_hand_or_event = run_type_of(context) in ("manual", "asset_triggered")
    return effective_at(
        data_interval=data_interval_of(context),
        partition_date=context.get("partition_date"),
        partition_key=context.get("partition_key"),
        logical_date=context.get("logical_date"),
        triggering_extras=triggering_extras(context) if by_hand_or_event else (),
        explicit=explicit,
        # The run's own wall clock, so that all of its tasks and tries speak for one moment.
        now=getattr(context.get("dag_run"), "run_after", None),
    )


def partition_end_of(context: Mapping[str, Any]) -> datetime | None:
    """
    Return where the data of the run's partition end: where the DAG's timetable begins the next one.

    By the timetable's cron expression, else by a key that is a day or a month. None for runs without a
    partition, and where neither says it.
    """
    from airflow_ml_provider.tracking.clocks import calendar_end, moment

    key = context.get("partition_key")
    if not key:
        return None
    timetable = getattr(context.get("dag"), "timetable", None)
    expression, begins = getattr(timetable, "expression", None), moment(context.get("partition_date"))
    if expression is None or begins is None:
        return calendar_end(key)
    from zoneinfo import ZoneInfo

    from croniter import croniter  # type: ignore[import-untyped, unused-ignore]

    named = getattr(timetable, "timezone", "UTC")
    zone = named if isinstance(named, tzinfo) else ZoneInfo(named)
    local = begins.astimezone(zone).replace(tzinfo=None)  # cron counts by the clock on the wall
    following: datetime = croniter(expression, local).get_next(datetime)
    return moment(following.replace(tzinfo=zone))


def slice_of(context: Mapping[str, Any]) -> str | None:
    """Label the slice of data of this run: its partition key or interval end; None if it has neither."""
    if key := context.get("partition_key"):
        return str(key)
    interval = data_interval_of(context)
    moment = interval[1] if interval else context.get("logical_date")
    return moment.isoformat() if moment is not None else None


def identity_of(context: Mapping[str, Any]) -> TaskIdentity:
    """Name the task instance and its attempt."""
    from airflow_ml_provider.tracking.identity import TaskIdentity

    ti = context["ti"]
    return TaskIdentity(
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=-1 if ti.map_index is None else ti.map_index,
        try_number=ti.try_number,
        slice=slice_of(context),
    )
