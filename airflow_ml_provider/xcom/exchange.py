# SPDX-License-Identifier: Apache-2.0
"""
What the XCom table holds for a value, and the value that stands for what it holds.

Plain functions: whichever methods Airflow calls on a backend, and under whatever names, all of the work is
here. :mod:`airflow_ml_provider.xcom.backend` translates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_ml_provider.artifacts import limits
from airflow_ml_provider.artifacts.envelope import ARTIFACT, is_node
from airflow_ml_provider.artifacts.refs import Artifact, ArtifactRef, Producer, part_name
from airflow_ml_provider.exceptions import UnsupportedTypeError
from airflow_ml_provider.settings import load_settings
from airflow_ml_provider.tracking.models import ModelRef
from airflow_ml_provider.xcom import reading
from airflow_ml_provider.xcom import state as states
from airflow_ml_provider.xcom.kept import Kept
from airflow_ml_provider.xcom.loading import load_refs, refs_in

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.store import ArtifactStore
    from airflow_ml_provider.xcom.state import TaskState

RETURN_KEY = "return_value"

# Marks of Airflow's own serialisation, of today and of Airflow 2.
_AIRFLOW_MARKS = ("__classname__", "__type")


def store(
    value: Any,
    *,
    dag_id: str | None,
    run_id: str | None,
    task_id: str | None,
    map_index: int | None,
    key: str | None,
    ti_id: object = None,
) -> Any:
    """
    Return the JSON that goes into the XCom table, storing what JSON does not carry.

    :param ti_id: The id of the task instance where Airflow tells it; finds the running task by itself.
    :raises UnsupportedTypeError: if no codec writes a part of the value.
    :raises StoreError: if the object storage refuses; nothing half-written is left for a retry to meet.
    """
    kind = type(value)
    if value is None or kind is bool:
        return value
    if isinstance(value, Kept):
        return value.tree
    key = key or RETURN_KEY
    task = states.find(dag_id, run_id, task_id, map_index, ti_id)
    tree = _stored(value, task, dag_id, run_id, task_id, map_index, key)
    if task is not None and key == RETURN_KEY and task.on_return is not None:
        task.on_return(value, tree)
    return tree


def _stored(
    value: Any,
    task: TaskState | None,
    dag_id: str | None,
    run_id: str | None,
    task_id: str | None,
    map_index: int | None,
    key: str,
) -> Any:
    kind = type(value)
    own = task.artifact if task is not None and key == RETURN_KEY else None
    small = (
        kind in (dict, list, str, int, float)
        # SQLite's JSON column keeps a bare 2.0 as the integer 2.
        and not (kind is float and value.is_integer())
        and limits.fits_inline(value, load_settings().inline_max_bytes)
    )
    if small and own is None:
        return value

    outputs = task is not None and _pushes_outputs_of(task)
    if outputs and key == RETURN_KEY and (own is None or own.format is None):
        value = _as_pushed(value, task)  # a format of the user's choice takes the whole value
    artifact = own or Artifact(derived_name(dag_id or "airflow", task_id or "xcom", key))
    if outputs and task is not None and task.artifact is not None and key != RETURN_KEY:
        # A part of the return value: called as it is inside of it.
        artifact = replace(task.artifact, name=derived_name(task.artifact.name, key), format=None)
    if small and own is not None and own.format is None:
        # A version of the name, else who reads that gets an older one that was longer.
        artifact = replace(artifact, format="json-v1")
    tree = _store().encode(
        value,
        name=artifact.name,
        producer=Producer(
            dag_id=dag_id,
            run_id=run_id or "",
            task_id=task_id or "",
            map_index=task.map_index if task else -1 if map_index is None else map_index,
            try_number=task.try_number if task else 1,
            key=key,
        )
        if dag_id
        else None,
        effective_at=task.effective_at if task else None,
        data_interval=task.data_interval if task else None,
        format=artifact.format,
        preview=artifact.preview,
        mask=artifact.mask,
        on_write=(lambda ref: _note_write(task, ref)) if task else None,
        fallback=_airflow_serialize,
        # The same content under the same name, pushed twice by one attempt, is one version.
        earlier=task.writes.values() if task else (),
    )
    if outputs and task is not None and key != RETURN_KEY:
        task.outputs[id(value)] = (value, tree)
    return tree


def load(stored: Any) -> Any:
    """
    Return the value that JSON of the XCom table stands for; references where the reader asks for them.

    :raises SignatureError: if an envelope was not written by this deployment.
    :raises ArtifactNotFoundError: if the stored object is gone.
    :raises ArtifactCorruptError: if the stored object is not what was written.
    """
    kind = type(stored)
    if kind is not dict and kind is not list:
        return stored if kind in (str, int, float, bool) else _airflow_deserialize(stored)
    nodes, marked = _look_through(stored)
    if not nodes:
        return _airflow_deserialize(stored) if marked else stored

    task = states.current()
    if task is None:
        return _decode(stored, None)
    how = reading.of(task)
    if how.one_element and (elements := _elements(stored, task, how)) is not None:
        return elements
    return _decoded(stored, task, how)


def derived_name(*parts: str) -> str:
    """
    Name an artifact after where it comes from: ``<dag_id>.<task_id>``, keys other than Airflow's appended.

    What names may not hold (long ids of tasks and groups, keys of any text) is shortened and replaced, as in
    the names of parts of a value.
    """
    return part_name(".".join(parts if parts[-1] != RETURN_KEY else parts[:-1]))


def _look_through(tree: Any) -> tuple[bool, bool]:
    """Tell whether anything in ``tree`` stands for another value, and whether Airflow wrote such a thing."""
    pending = [tree]
    marked = False
    for item in pending:
        if type(item) is dict:
            if "kind" in item and is_node(item):
                return True, marked
            if not marked and any(mark in item for mark in _AIRFLOW_MARKS):
                marked = True
            parts: Any = item.values()
        else:
            parts = item
        for part in parts:
            if type(part) is dict or type(part) is list:
                pending.append(part)
    return False, marked


def _decode(
    tree: Any,
    task: TaskState | None,
    *,
    as_refs: bool = False,
    on_model: Callable[[ModelRef], None] | None = None,
) -> Any:
    return _store().decode(
        tree,
        as_refs=as_refs,
        on_read=(lambda ref, _value: task.note_read(ref)) if task else None,
        on_value=on_model,
        fallback=_airflow_deserialize,
    )


def _decoded(tree: Any, task: TaskState, how: reading.Reading) -> Any:
    if how.keyed and type(tree) is dict and not is_node(tree):
        return {name: _argument(item, task, as_refs=how.takes_refs(name)) for name, item in tree.items()}
    return _argument(tree, task, as_refs=how.takes_refs())


def _argument(tree: Any, task: TaskState, *, as_refs: bool) -> Any:
    """Return what the task gets, and remember the references and models that it is handed."""
    models: list[ModelRef] = []
    value = _decode(tree, task, as_refs=as_refs, on_model=models.append)
    if as_refs:
        _note_handed(task, value)
    _note_models(task, models)
    return value


def _note_handed(task: TaskState, value: Any) -> None:
    for ref in refs_in(value):
        task.note_handed(ref)


def _note_models(task: TaskState, models: Iterable[ModelRef]) -> None:
    for model in models:
        task.note_model(model, "read", "input")


def _elements(tree: Any, task: TaskState, how: reading.Reading) -> Any:
    """Return a list or dict that loads an element when Airflow takes it, None if ``tree`` is neither."""
    if not is_node(tree):
        return reading.lazily(tree, lambda element: _decoded(element, task, how))
    if tree["kind"] != ARTIFACT or tree.get("format") != "tree-v1":
        return None
    # Too long for the table: the references of its parts are in the store.
    kept = _decode(tree, task, as_refs=True)
    if type(kept) not in (list, dict):
        return None

    def loaded(element: Any) -> Any:
        if how.keyed and type(element) is dict:
            value: Any = {name: load_refs(item, skip=how.takes_refs(name)) for name, item in element.items()}
        else:
            value = load_refs(element, skip=how.takes_refs())
        if how.refs:
            _note_handed(task, value)
        _note_models(task, _models_in(element))
        return value

    return reading.lazily(kept, loaded)


def _models_in(value: Any) -> Iterator[ModelRef]:
    if isinstance(value, ModelRef):
        yield value
    elif type(value) in (list, tuple, dict):
        for item in value.values() if type(value) is dict else value:
            yield from _models_in(item)


def _pushes_outputs_of(task: TaskState) -> bool:
    """
    Tell whether Airflow is pushing the return value of a task of multiple outputs, its parts first.

    It does so after the user's code ended, outside of the task's context: what has been written of a part
    is still what the part holds. A push by the user's code may be followed by a change of the value.
    """
    if not getattr(task.context.get("task"), "multiple_outputs", False):
        return False
    running = states.running()
    return running is None or states.key_of(running["ti"]) != task.key


def _as_pushed(value: Any, task: TaskState | None) -> Any:
    """Put references in place of the parts of a return value that were just stored under their keys."""
    if type(value) is not dict or task is None:
        return value
    writes = task.writes

    def known(part: Any, tree: Any) -> Any:
        if type(tree) is dict and is_node(tree):
            return writes.get(tree.get("version_id", ""), part) if tree["kind"] == ARTIFACT else part
        if type(part) is list and type(tree) is list:
            return [known(*pair) for pair in zip(part, tree, strict=True)]
        if type(part) is dict and type(tree) is dict:
            return {name: known(item, tree[name]) for name, item in part.items()}
        return part

    found = {
        name: known(part, task.outputs[id(part)][1]) if id(part) in task.outputs else part
        for name, part in value.items()
    }
    task.outputs.clear()
    return found


def _note_write(task: TaskState, ref: ArtifactRef) -> None:
    """Remember a written version."""
    task.note_written(ref)
    note_outlet(task, ref)


def note_outlet(task: TaskState, ref: ArtifactRef) -> None:
    """Tell the asset events of an artifact's outlet which version it is."""
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


def _store() -> ArtifactStore:
    from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook

    return ArtifactStoreHook().store


def _airflow_serialize(value: Any) -> Any:
    from airflow.sdk.serde import serialize

    try:
        return serialize(value)
    except TypeError as exc:
        name = f"{type(value).__module__}.{type(value).__qualname__}"
        raise UnsupportedTypeError(f"Airflow's own serialisation does not know {name} either") from exc


def _airflow_deserialize(value: Any) -> Any:
    from airflow.sdk.serde import deserialize

    return deserialize(value)
