# SPDX-License-Identifier: Apache-2.0
"""
The XCom backend: values go to the artifact store, a small signed envelope goes to the XCom table.

Switched on by ``[core] xcom_backend = airflow_ml_provider.xcom.backend.ArtifactXComBackend``. Every Airflow
component imports this module, so nothing heavy is imported here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk.bases.xcom import BaseXCom

from airflow_ml_provider.exceptions import UnsupportedTypeError

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.refs import Artifact, ArtifactRef
    from airflow_ml_provider.artifacts.store import ArtifactStore
    from airflow_ml_provider.xcom.state import TaskState


class ArtifactXComBackend(BaseXCom):
    """
    Store what tasks return as typed, versioned, verified artifacts.

    JSON values up to ``[ml_provider] inline_max_bytes`` stay in the XCom table as they are. Whatever
    Airflow's own serialisation knows and we do not (time zones, assets, ...) goes through it unchanged.
    """

    @staticmethod
    def serialize_value(
        value: Any,
        *,
        key: str | None = None,
        task_id: str | None = None,
        dag_id: str | None = None,
        run_id: str | None = None,
        map_index: int | None = None,
    ) -> Any:
        """
        Return the JSON that goes into the XCom table.

        :raises UnsupportedTypeError: if no codec writes a part of the value.
        :raises StoreError: if the object storage refuses; nothing half-written is left for a retry to meet.
        """
        from airflow_ml_provider.artifacts.refs import Artifact, Producer
        from airflow_ml_provider.xcom import state as states

        if value is None or type(value) is bool:
            return value
        task = states.find(dag_id, run_id, task_id, map_index)
        artifact = _artifact_for(task, key) or Artifact(default_name(dag_id, task_id, key))
        producer = (
            Producer(
                dag_id=dag_id,
                run_id=run_id or "",
                task_id=task_id or "",
                map_index=-1 if map_index is None else map_index,
                try_number=task.try_number if task else 1,
                key=key or BaseXCom.XCOM_RETURN_KEY,
            )
            if dag_id
            else None
        )
        return _store().encode(
            value,
            name=artifact.name,
            producer=producer,
            effective_at=task.effective_at if task else None,
            data_interval=task.data_interval if task else None,
            format=artifact.format,
            preview=artifact.preview,
            on_write=(lambda ref: _note_write(task, ref)) if task else None,
            fallback=_airflow_serialize,
            # multiple_outputs pushes each value and then all of them together
            earlier=task.writes.values() if task else (),
        )

    @staticmethod
    def deserialize_value(result: Any) -> Any:
        """
        Return the value an XCom stands for; references for operators that ask for them.

        :raises SignatureError: if an envelope was not written by this deployment.
        :raises ArtifactNotFoundError: if the stored object is gone.
        :raises ArtifactCorruptError: if the stored object is not what was written.
        """
        from airflow_ml_provider.artifacts.envelope import has_nodes

        tree = result.value
        if not has_nodes(tree):
            return _airflow_deserialize(tree)

        from airflow_ml_provider.xcom import state as states

        task = states.current()
        return _store().decode(
            tree,
            as_refs=task is not None and _wants_refs(task),
            on_read=(lambda ref, _value: task.note_read(ref)) if task else None,
            fallback=_airflow_deserialize,
        )

    @classmethod
    def purge(cls, xcom: Any, *args: Any) -> None:
        """Leave the content alone: other runs may share it. Garbage collection removes what nobody needs."""


def default_name(dag_id: str | None, task_id: str | None, key: str | None) -> str:
    """Name the artifact of a task that declares none: ``<dag_id>.<task_id>``, other keys appended."""
    parts = [dag_id or "airflow", task_id or "xcom"]
    if key and key != BaseXCom.XCOM_RETURN_KEY:
        parts.append(key)
    return ".".join(parts)


def _artifact_for(task: TaskState | None, key: str | None) -> Artifact | None:
    if task is None or (key or BaseXCom.XCOM_RETURN_KEY) != BaseXCom.XCOM_RETURN_KEY:
        return None
    return task.artifact


def _note_write(task: TaskState, ref: ArtifactRef) -> None:
    """Remember a written version, and tell the asset events of its outlet which version it is."""
    from airflow_ml_provider.xcom import state as states

    task.writes[ref.version_id] = ref
    events = task.context.get("outlet_events")
    asset = states.outlet_assets(task.context.get("task")).get(ref.name)
    if events is None or asset is None:
        return
    events[asset].extra.update(
        {
            "version_id": ref.version_id,
            "digest": ref.digest,
            "type": ref.type,
            "size_bytes": ref.size_bytes,
            "effective_at": ref.effective_at.isoformat(),
        }
    )


def _wants_refs(task: TaskState) -> bool:
    operator = task.context.get("task")
    return bool(
        getattr(operator, "ml_lazy_artifacts", False)
        or getattr(getattr(operator, "operator_class", None), "ml_lazy_artifacts", False)
    )


def _store() -> ArtifactStore:
    from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook

    return ArtifactStoreHook().store


def _airflow_serialize(value: Any) -> Any:
    from airflow.sdk.serde import serialize

    try:
        return serialize(value)
    except TypeError as exc:
        name = f"{type(value).__module__}.{type(value).__qualname__}"
        raise UnsupportedTypeError(
            f"no codec writes a value of type {name}, nor does Airflow's own serialisation; register a codec "
            "for it (docs/artifacts.md), or return one that has a codec: pandas, numpy, pyarrow, "
            "scikit-learn, a dataclass, a pydantic model, bytes, or the pathlib.Path of a file"
        ) from exc


def _airflow_deserialize(value: Any) -> Any:
    from airflow.sdk.serde import deserialize

    return deserialize(value)
