# SPDX-License-Identifier: Apache-2.0
"""From the state of a finished attempt to its lineage record."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_ml_provider.xcom.state import TaskState


def record_attempt(state: TaskState, task_instance: Any, outcome: str, error: Any = None) -> bool:
    """Write the record of an attempt that touched artifacts or models; return whether there was any."""
    if not (state.reads or state.writes or state.models_read or state.models_written):
        return False
    from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook
    from airflow_ml_provider.lineage.records import TaskRecord, VersionUse, write_record

    task = task_instance.task
    bundle = getattr(task_instance, "bundle_instance", None)
    record = TaskRecord(
        dag_id=state.dag_id,
        run_id=state.run_id,
        task_id=state.task_id,
        map_index=state.map_index,
        try_number=state.try_number,
        outcome=outcome,
        started_at=task_instance.start_date,
        effective_at=state.effective_at,
        data_interval=state.data_interval,
        reads=tuple(VersionUse.of(ref) for ref in state.reads.values()),
        writes=tuple(VersionUse.of(ref) for ref in state.writes.values()),
        models_read=tuple(state.models_read),
        models_written=tuple(state.models_written),
        inlets=tuple(_uri(asset) for asset in task.inlets),
        outlets=tuple(_uri(asset) for asset in task.outlets),
        code={
            "operator": f"{type(task).__module__}.{type(task).__qualname__}",
            "bundle": getattr(bundle, "name", None),
            "bundle_version": getattr(bundle, "version", None),
        },
        environment={
            "python": platform.python_version(),
            "hostname": task_instance.hostname or platform.node(),
        },
        error=f"{type(error).__name__}: {error}"[:500] if isinstance(error, BaseException) else None,
    )
    write_record(ArtifactStoreHook().store.objects, record)
    return True


def _uri(asset: Any) -> str:
    return str(getattr(asset, "uri", None) or getattr(asset, "name", None) or asset)
