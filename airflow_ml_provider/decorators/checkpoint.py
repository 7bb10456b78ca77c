# SPDX-License-Identifier: Apache-2.0
"""``ml.checkpoint()``: what a running task has got done so far, for its next attempt."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_ml_provider.tracking.checkpoints import Attempt, Checkpoint, FolderValues, Options
from airflow_ml_provider.xcom import state as states

if TYPE_CHECKING:
    from airflow_ml_provider.tracking.checkpoints import OnClear, OnSuccess

log = logging.getLogger(__name__)

_in_folders: dict[tuple[Path, str], Checkpoint] = {}


def checkpoint(
    key: str = "default",
    *,
    keep: int | None = None,
    every: float | None = None,
    on_success: OnSuccess | None = None,
    on_clear: OnClear | None = None,
    folder: str | Path | None = None,
) -> Checkpoint:
    """
    Return the checkpoints of the running task, which its next attempt finds again.

    ``load(default)`` gives the state that was saved last, by this attempt or one before it; ``save(state,
    step=...)`` keeps one. They belong to the task instance: a retry goes on with them, whether the attempt
    before it failed, was killed or lost its worker; each mapped task instance has its own. They are removed
    when the task succeeds.

    Each call in one attempt returns the same object; options that are left out stay as they were.

    .. versionadded:: 0.1.0

    :param key: Tells several checkpoints of one task apart.
    :param keep: So many of the last ones stay, by default 2. The earlier ones are read if the last one is
        damaged.
    :param every: Seconds. A ``save()`` that comes earlier after the last one that was done does nothing.
    :param on_success: ``"clear"`` removes them when the task succeeds, ``"keep"`` leaves them for people.
    :param on_clear: ``"restart"`` begins anew when the task was cleared, ``"resume"`` goes on there too.
    :param folder: Where they are outside of a task, such as in a script. Inside of a task it means nothing.
    :raises RuntimeError: outside of a task without ``folder``.
    :raises ValueError: if an option is out of range.
    """
    if not isinstance(key, str) or not key or len(key) > 100 or not key.isprintable():
        raise ValueError(f"key is a text of 1 to 100 printable characters, got {key!r}")
    given = {"keep": keep, "every": every, "on_success": on_success, "on_clear": on_clear}
    given = {name: value for name, value in given.items() if value is not None}
    task = states.current()
    found = _of_task(task, key) if task is not None else _of_folder(folder, key)
    if given:
        found.options = replace(found.options, **given)  # type: ignore[arg-type]
    return found


def _of_task(task: states.TaskState, key: str) -> Checkpoint:
    known: Checkpoint | None = task.checkpoints.get(key)
    if known is not None:
        return known
    from airflow_ml_provider.artifacts.refs import Producer
    from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook

    made = Checkpoint(
        ArtifactStoreHook().store,
        task.context["task_state_store"],
        identity=(task.dag_id, task.task_id, task.run_id, str(task.map_index)),
        key=key,
        attempt=Attempt(generation_of(task.context["ti"]), task.try_number),
        producer=Producer(
            task.dag_id, task.run_id, task.task_id, task.map_index, task.try_number, f"checkpoint.{key}"
        ),
        options=Options(),
    )
    task.checkpoints[key] = made
    return made


def generation_of(ti: Any) -> str:
    """
    Name what all retries of a task instance share, and what is another after each clear.

    Airflow counts tries on when a task is cleared, and raises the number of the last try that is allowed to
    the tries made so far and the task's retries. A retry leaves it alone.
    """
    return str(getattr(ti, "max_tries", None) or 0)


def _of_folder(folder: str | Path | None, key: str) -> Checkpoint:
    if folder is None:
        raise RuntimeError(
            "ml.checkpoint() found no running task; it works in the function of a task, or in the execute() "
            "of an operator, and not at the top of a DAG file, in another thread or in the interpreter of "
            "@task.virtualenv. In a script, say where: ml.checkpoint(folder='...')"
        )
    from airflow_ml_provider.artifacts.store import ArtifactStore

    path = Path(folder).absolute()
    if (path, key) not in _in_folders:
        values = FolderValues(path)
        _in_folders[path, key] = Checkpoint(
            # Who may write to the folder may write what this process reads; the key finds damage alone.
            ArtifactStore((path / "artifacts").as_uri(), signing_key=b"checkpoints in a folder"),
            values,
            identity=("folder",),
            key=key,
            attempt=Attempt("folder"),
        )
    return _in_folders[path, key]
