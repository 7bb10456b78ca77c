# SPDX-License-Identifier: Apache-2.0
"""What a task ran on: interpreter, packages, image, machine, and what it took of the machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_ml_provider.tracking.code import uncommitted_diff

if TYPE_CHECKING:
    from airflow_ml_provider.tracking.runs import TaskRun

PACKAGES_TAG = "environment.packages"
DIFF_TAG = "git.diff"
PACKAGES_FILE = "environment/requirements.txt"
DIFF_FILE = "code/uncommitted.diff"
_MEGABYTE = 1024 * 1024
# Airflow's KubernetesExecutor tells its workers nothing of their image but what they were configured with.
_REPOSITORY = "AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_REPOSITORY"
_IMAGE_TAG = "AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_TAG"

_log = logging.getLogger(__name__)


def environment_tags(image: str | None = None) -> dict[str, str]:
    """
    Describe the interpreter and the machine of this process.

    :param image: Of the container that the work is done in, where it is known.
    """
    tags = {
        "environment.python": platform.python_version(),
        "environment.platform": platform.platform(),
        "environment.host": platform.node(),
        "hardware.cpus": str(_cpus()),
    }
    if memory := _memory_megabytes():
        tags["hardware.memory_megabytes"] = str(memory)
    if image := image or image_of_worker(os.environ):
        tags["environment.image"] = image
    return tags


def image_of_worker(environment: Mapping[str, str]) -> str | None:
    """Name the image of a worker that the KubernetesExecutor started; None elsewhere."""
    repository = environment.get(_REPOSITORY)
    if not repository or "KUBERNETES_SERVICE_HOST" not in environment:
        return None
    tag = environment.get(_IMAGE_TAG)
    return f"{repository}:{tag}" if tag else repository


def installed_packages() -> str:
    """List the installed distributions as pip would: ``name==version``, a line each, sorted."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(name.lower(), f"{name}=={distribution.version}")
    return "".join(f"{found[name]}\n" for name in sorted(found))


def log_surroundings(run: TaskRun, *, code_path: str | Path | None, packages: bool = True) -> None:
    """
    Keep the installed packages and the uncommitted changes of the code as artifacts of a run.

    What an earlier try kept already is not sent again. It only informs, so a failure is logged.

    :param code_path: A file of the code; its repository's changes count. None: no changes are kept.
    """
    try:
        files: dict[str, str] = {}
        tags: dict[str, str] = {}
        if packages:
            files[PACKAGES_FILE] = installed_packages()
            tags[PACKAGES_TAG] = _digest(files[PACKAGES_FILE])
        diff = uncommitted_diff(code_path)
        if diff:
            files[DIFF_FILE] = diff
            tags[DIFF_TAG] = _digest(diff)
        if not diff and DIFF_TAG in run.tags_before:
            run.client.delete_tag(run.run_id, DIFF_TAG)
        new = {name: text for name, text in tags.items() if run.tags_before.get(name) != text}
        if not new:
            return
        with tempfile.TemporaryDirectory(prefix="mlflow-run-") as folder:
            for name, text in files.items():
                path = Path(folder, name)
                path.parent.mkdir()
                path.write_text(text)
            run.client.log_artifacts(run.run_id, folder)
        run.set_tags(new)
    except Exception:  # noqa: BLE001 - it only informs
        _log.exception("what MLflow run %s ran on was not kept; the task goes on", run.run_id)


class Usage:
    """What this process and its children take of the machine from now on."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._cpu_before = _cpu_seconds()

    def metrics(self) -> dict[str, float]:
        """
        Say how much it was, as MLflow's system metrics.

        ``system/task_seconds``, ``system/task_cpu_seconds`` and ``system/task_peak_memory_megabytes``, the
        most that the process or one of its children ever held at once.
        """
        return {
            "system/task_seconds": round(time.monotonic() - self._began, 3),
            "system/task_cpu_seconds": round(_cpu_seconds() - self._cpu_before, 3),
            "system/task_peak_memory_megabytes": round(_peak_megabytes(), 1),
        }


@contextmanager
def measured(run: TaskRun) -> Iterator[None]:
    """Log what the block takes of the machine. That only informs, so a failure is logged."""
    usage = Usage()
    try:
        yield
    finally:
        try:
            run.log_metrics(usage.metrics())
        except Exception:  # noqa: BLE001 - it only informs
            _log.exception("what MLflow run %s took of the machine was not kept", run.run_id)


def _cpu_seconds() -> float:
    import resource

    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def _peak_megabytes() -> float:
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
    peaks = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return max(peaks) * unit / _MEGABYTE


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_megabytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _MEGABYTE
    except (ValueError, OSError, AttributeError):
        return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
