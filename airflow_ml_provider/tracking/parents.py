# SPDX-License-Identifier: Apache-2.0
"""
Runs that group other runs: of a mapped task, and of a whole DAG run.

A parent is a folder without a process of its own. It is FINISHED from the start, so that it never stays
RUNNING for ever; when a run in it fails or is killed it becomes FAILED, and FINISHED again when a later try
mends the last failure. Whichever task instance comes first makes it. Instances start at the same time, so
several may find none and make one: each looks again, keeps the earliest and deletes its own if it came later.
MLflow has no create-if-absent, so one that is slow between its look and its making may still leave two, or
delete one that another instance has found meanwhile. Therefore each instance looks once more when it ends,
and goes where the others are (:func:`settle`).

Where a metric is named, a parent also shows its best run: the metric itself, ``airflow.best_run_id`` and a
description.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_ml_provider.tracking.gates import known_direction
from airflow_ml_provider.tracking.identity import KEY_TAG, TRY_TAG, TaskIdentity

PARENT_TAG = "mlflow.parentRunId"
#: Marks the runs that this package made as parents: ``mapped task`` or ``dag run``.
FOLDER_TAG = "airflow.parent"
BEST_RUN_TAG = "airflow.best_run_id"
BEST_METRIC_TAG = "airflow.best_metric"
_BEST_AT_TAG = "airflow.best_at"
_NOTE_TAG = "mlflow.note.content"
_FAILURES = ("FAILED", "KILLED")
# Sibling after sibling may find a better run; each of them looks for itself.
_ROUNDS = 5

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Best:
    """Which of several runs is the best one."""

    metric: str
    larger_is_better: bool

    @classmethod
    def of(cls, given: str | Sequence[str] | Best | None) -> Best | None:
        """
        Read what a user gave: a metric, or ``(metric, "max" or "min")``.

        :raises ValueError: if the direction is missing and MLflow does not know the metric.
        """
        if given is None or isinstance(given, Best):
            return given
        if isinstance(given, str) and given.strip():
            direction = known_direction(given)
            if direction is None:
                raise ValueError(
                    f"best={given!r} does not say whether larger is better; give ({given!r}, 'max') or "
                    f"({given!r}, 'min')"
                )
            return cls(given, direction)
        if (
            isinstance(given, (tuple, list))
            and len(given) == 2
            and all(isinstance(item, str) for item in given)
            and given[1] in ("max", "min")
        ):
            return cls(given[0], given[1] == "max")
        raise ValueError(f"best is the name of a metric, or (name, 'max' or 'min'), got {given!r}")


def find_parents(
    client: Any, experiment_id: str, identity: TaskIdentity, tags: Mapping[str, str], *, group: bool
) -> str | None:
    """
    Give the run that a new run of a task instance belongs into; None for one on its own.

    One request for each level where the parents exist, four where they have to be made.

    :param group: Whether a run of the DAG run comes above all of its tasks.
    """
    parent = None
    common = {name: value for name, value in identity.tags().items() if name != TRY_TAG}
    del common["airflow.map_index"]
    if group:
        top = {name: value for name, value in common.items() if name != "airflow.task_id"}
        name = f"{identity.dag_id} {identity.slice or identity.run_id}"
        wanted = {**tags, **top, FOLDER_TAG: "dag run"}
        parent = _find_parent(client, experiment_id, identity.group_key, wanted, name)
    if identity.mapped:
        wanted = {**tags, **common, FOLDER_TAG: "mapped task"}
        if parent is not None:
            wanted[PARENT_TAG] = parent
        name = f"{identity.task_id} {identity.slice or identity.run_id}"
        parent = _find_parent(client, experiment_id, identity.parent_key, wanted, name)
    return parent


def _find_parent(client: Any, experiment_id: str, key: str, tags: Mapping[str, str], name: str) -> str:
    found = _kept(client, experiment_id, key)
    if found is not None:
        return found
    made = client.create_run(
        experiment_id, tags={**tags, KEY_TAG: key, "mlflow.source.type": "JOB"}, run_name=name
    )
    own = str(made.info.run_id)
    client.set_terminated(own, status="FINISHED")
    rivals = _with_key(client, experiment_id, key, max_results=100)
    ids = [rival for rival in rivals if rival != own]
    # What is in use already was made by somebody who saw no rival, whatever the clocks say.
    used = next((rival for rival in ids if _has_runs(client, experiment_id, rival)), None)
    first = used or next(iter(rivals), own)
    if first != own:
        client.delete_run(own)
    return first


def settle(
    client: Any, experiment_id: str, run_id: str, parent_id: str, identity: TaskIdentity, *, group: bool
) -> str:
    """
    Make sure that a run which ends is where its siblings are; a parent that nobody is left in is deleted.

    One request, three for an instance of a mapped task in a group; three more for each one that moves.

    :returns: The id of the parent.
    """
    kept = _kept(client, experiment_id, identity.parent_key if identity.mapped else identity.group_key)
    if kept is not None and kept != parent_id and _move(client, experiment_id, run_id, parent_id, kept):
        parent_id = kept
    if group and identity.mapped:
        top = _kept(client, experiment_id, identity.group_key)
        above = client.get_run(parent_id).data.tags.get(PARENT_TAG)
        if top is not None and above is not None and above != top:
            _move(client, experiment_id, parent_id, above, top)
    return parent_id


def _move(client: Any, experiment_id: str, run_id: str, old: str, new: str) -> bool:
    if FOLDER_TAG not in client.get_run(old).data.tags:
        return False  # somebody else put the run there
    client.set_tag(run_id, PARENT_TAG, new)
    if not _has_runs(client, experiment_id, old):
        client.delete_run(old)
    return True


def _kept(client: Any, experiment_id: str, key: str) -> str | None:
    """The parent with a key, of several that were made at once the one that all agree on."""
    return next(iter(_with_key(client, experiment_id, key, max_results=1)), None)


def _with_key(client: Any, experiment_id: str, key: str, *, max_results: int) -> list[str]:
    found = client.search_runs(
        [experiment_id],
        filter_string=f"tags.`{KEY_TAG}` = '{key}'",
        max_results=max_results,
        order_by=["attributes.start_time ASC"],  # and by run id, as MLflow does
    )
    return [str(run.info.run_id) for run in found]


def _has_runs(client: Any, experiment_id: str, parent_id: str) -> bool:
    return bool(
        client.search_runs(
            [experiment_id], filter_string=f"tags.`{PARENT_TAG}` = '{parent_id}'", max_results=1
        )
    )


def mirror_status(client: Any, parent_id: str, *, failed: bool) -> None:
    """
    Tell the parents of a run how it ended: they are FAILED as long as a run in them is.

    :param failed: The run ended badly. Otherwise it mended an earlier failure, and the others count.
    """
    next_id: str | None = parent_id
    while next_id is not None:
        parent = client.get_run(next_id)
        if FOLDER_TAG not in parent.data.tags:
            return  # made by somebody else, who knows its status
        wanted = "FAILED" if failed or _has_failures(client, parent) else "FINISHED"
        if parent.info.status != wanted:
            client.set_terminated(next_id, status=wanted)
            if wanted == "FINISHED" and _has_failures(client, parent):  # one that failed meanwhile
                client.set_terminated(next_id, status="FAILED")
        next_id = parent.data.tags.get(PARENT_TAG)


def _has_failures(client: Any, parent: Any) -> bool:
    # A run that was superseded has lost its key; what it was does not count.
    return any(
        client.search_runs(
            [parent.info.experiment_id],
            filter_string=(
                f"tags.`{PARENT_TAG}` = '{parent.info.run_id}' and attributes.status = '{status}' "
                f"and tags.`{KEY_TAG}` LIKE '%'"
            ),
            max_results=1,
        )
        for status in _FAILURES
    )


def show_best(client: Any, parent_id: str, best: Best) -> str | None:
    """
    Let a parent show the best of its finished runs.

    Instances that end at the same time may overwrite each other's finding, so each looks again after it
    wrote: the last one to write finds what it wrote to be right. Two requests where the parent shows the best
    one already, five where it has to be told.

    :returns: The id of the best run; None if no finished run has the metric.
    """
    for _ in range(_ROUNDS):
        parent = client.get_run(parent_id)
        order = f"metrics.`{best.metric}` {'DESC' if best.larger_is_better else 'ASC'}"
        found = client.search_runs(
            [parent.info.experiment_id],
            filter_string=(
                f"tags.`{PARENT_TAG}` = '{parent_id}' and attributes.status = 'FINISHED' "
                f"and tags.`{KEY_TAG}` LIKE '%'"
            ),
            max_results=1,
            order_by=[order, "attributes.start_time ASC"],
        )
        value = found[0].data.metrics.get(best.metric) if found else None
        if value is None or value != value:  # noqa: PLR0124 - NaN
            return None
        run_id = str(found[0].info.run_id)
        shown = parent.data.tags.get(BEST_RUN_TAG), parent.data.metrics.get(best.metric)
        if shown == (run_id, value):
            return run_id
        _write_best(client, parent, found[0], best, value)
    _log.warning("the best run below %s changed %s times while it was noted", parent_id, _ROUNDS)
    return run_id


def _write_best(client: Any, parent: Any, run: Any, best: Best, value: float) -> None:
    from mlflow.entities import Metric, RunTag

    # The latest value of a metric counts by its time, and clocks of workers differ.
    at = max(int(time.time() * 1000), int(parent.data.tags.get(_BEST_AT_TAG, 0)) + 1)
    map_index = run.data.tags.get("airflow.map_index", "-1")
    which = run.info.run_name if map_index == "-1" else f"map index {map_index}"
    told = {
        BEST_RUN_TAG: str(run.info.run_id),
        BEST_METRIC_TAG: f"{best.metric} {'max' if best.larger_is_better else 'min'}",
        "airflow.best_map_index": map_index,
        _BEST_AT_TAG: str(at),
        _NOTE_TAG: f"Best run: {best.metric} = {value:.6g}, {which} (`{run.info.run_id}`)",
    }
    client.log_batch(
        parent.info.run_id,
        metrics=[Metric(best.metric, value, at, 0)],
        tags=[RunTag(name, text) for name, text in told.items()],
    )
