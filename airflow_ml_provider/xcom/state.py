# SPDX-License-Identifier: Apache-2.0
"""
What the backend, the operators and the listener know about one task instance while it runs.

The state is keyed by task instance and never global to the process: ``dag.test`` runs many task instances
in one process, and XCom values are serialised outside of the task's context.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_ml_provider.artifacts.refs import CHECKPOINTS, Artifact
from airflow_ml_provider.xcom.context import data_interval_of, effective_at_of

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.refs import ArtifactRef
    from airflow_ml_provider.tracking.models import ModelRef

Key = tuple[str, str, str, int]

# What a task saves to go on from is gone when it succeeds; it is neither its input nor its output.


@dataclass
class TaskState:
    """One attempt of one task instance, as far as artifacts are concerned."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    try_number: int = 1
    effective_at: datetime | None = None
    data_interval: tuple[datetime, datetime] | None = None
    artifact: Artifact | None = None
    context: Mapping[str, Any] = field(default_factory=dict, repr=False)
    reads: dict[str, ArtifactRef] = field(default_factory=dict)
    writes: dict[str, ArtifactRef] = field(default_factory=dict)
    handed: dict[str, ArtifactRef] = field(default_factory=dict)
    """References among the inputs, whose content the attempt may never fetch."""
    reused: dict[str, ArtifactRef] = field(default_factory=dict)
    """What a cache hit returned."""
    models_read: list[dict[str, Any]] = field(default_factory=list)
    models_written: list[dict[str, Any]] = field(default_factory=list)
    model_refs: dict[str, ModelRef] = field(default_factory=dict)
    """What is known of those models beyond their names, by model URI."""
    params: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    mlflow_run_id: str | None = None
    experiment_id: str | None = None
    cached: dict[str, Any] | None = None
    evaluation: dict[str, Any] | None = None
    promotion: dict[str, Any] | None = None
    on_input: Callable[[], None] | None = field(default=None, repr=False)
    """Called when a running attempt met a version or a model that it did not know."""
    code: dict[str, Any] | None = None
    """What the attempt runs, once somebody asked for it."""
    edges: set[str] = field(default_factory=set, repr=False)
    """Reverse edges that are written, by key and part that the attempt plays."""
    ti_id: str | None = None
    earlier: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The record of this very attempt from before it was deferred, in another process."""
    outputs: dict[int, tuple[Any, Any]] = field(default_factory=dict, repr=False)
    """Parts of a return value that Airflow pushed already, by their ``id()``: the part and its JSON."""
    on_return: Callable[[Any, Any], None] | None = field(default=None, repr=False)
    """Gets the return value and its JSON, once all of it is stored."""
    checkpoints: dict[str, Any] = field(default_factory=dict, repr=False)
    """Those the attempt asked for, by key; each is told of the task's success."""

    @property
    def key(self) -> Key:
        return (self.dag_id, self.run_id, self.task_id, self.map_index)

    def note_read(self, ref: ArtifactRef) -> None:
        """Remember a version that the attempt loaded."""
        if ref.version_id not in self.reads:
            self.reads[ref.version_id] = ref
            if ref.version_id not in self.handed:
                self._met_input()

    def note_handed(self, ref: ArtifactRef) -> None:
        """Remember a version that the attempt was handed as a reference."""
        self.handed.setdefault(ref.version_id, ref)

    def note_written(self, ref: ArtifactRef) -> None:
        """Remember a version that the attempt stored."""
        self.writes[ref.version_id] = ref

    def note_reused(self, ref: ArtifactRef) -> None:
        """Remember a version that the attempt returns though another one made it."""
        self.reused.setdefault(ref.version_id, ref)

    def note_model(self, ref: ModelRef, direction: str, role: str) -> None:
        """
        Remember a model that the attempt made (``written``) or used (``read``).

        :param role: ``trained``, ``registered``, ``promoted``, ``evaluated``, ``baseline``, ``scored``,
            ``input`` (handed to the task), ``loaded`` ... What is known best and last counts.
        """
        self.model_refs[ref.model_uri] = ref
        known = self.models_written if direction == "written" else self.models_read
        entry = {
            "model_uri": ref.model_uri,
            "model_id": ref.model_id,
            "registered_model_name": ref.registered_model_name,
            "version": ref.version,
            "mlflow_run_id": ref.mlflow_run_id,
            "alias": ref.alias,
            "role": role,
        }
        for other in known:
            if _same_model(other, entry):
                if role == "input":
                    return
                other.update({name: value for name, value in entry.items() if value is not None})
                return
        known.append(entry)
        if direction == "read":
            self._met_input()

    def note_mlflow_run(self, mlflow_run_id: str, experiment_id: str | None = None) -> None:
        """Remember the MLflow run of the attempt; the last one counts."""
        self.mlflow_run_id, self.experiment_id = mlflow_run_id, experiment_id

    def recall(self, record: Mapping[str, Any]) -> None:
        """
        Take over what the attempt did before it was deferred.

        :param record: What was recorded of it then.
        """
        self.earlier = record
        self.params = {**record["params"], **self.params}
        metrics = {name: float(value) for name, value in record["metrics"].items()}
        self.metrics = {**metrics, **self.metrics}
        for known, before in (
            (self.models_read, record["models_read"]),
            (self.models_written, record["models_written"]),
        ):
            new = [model for model in known if not any(_same_model(other, model) for other in before)]
            known[:] = [*before, *new]
        for name in ("mlflow_run_id", "experiment_id", "cached", "evaluation", "promotion"):
            if getattr(self, name) is None:
                setattr(self, name, record[name])

    def _met_input(self) -> None:
        if self.on_input is not None:
            self.on_input()


_states: dict[Key, TaskState] = {}


def _same_model(known: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two entries are one model, of which one may not know its registered version yet."""
    if None in (known["model_id"], other["model_id"]):
        return bool(known["model_uri"] == other["model_uri"])
    both = [(each["registered_model_name"], each["version"]) for each in (known, other) if each["version"]]
    return bool(known["model_id"] == other["model_id"]) and len(set(both)) < 2


def note_read(ref: ArtifactRef, _value: Any = None) -> None:
    """Remember a version that the running task fetched by itself, such as ``store.get(...).load()``."""
    if not ref.name.startswith(CHECKPOINTS) and (state := current()) is not None:
        state.note_read(ref)


def note_written(ref: ArtifactRef) -> None:
    """Remember a version that the running task stored by itself."""
    if not ref.name.startswith(CHECKPOINTS) and (state := current()) is not None:
        state.note_written(ref)


def note_loaded_model(ref: ModelRef) -> None:
    """Remember a model that the running task loaded by itself."""
    if (state := current()) is not None:
        state.note_model(ref, "read", "loaded")


def key_of(ti: Any) -> Key:
    """Identify a task instance; Airflow writes -1 or None for one that is not mapped."""
    return (ti.dag_id, ti.run_id, ti.task_id, -1 if ti.map_index is None else ti.map_index)


def begin(context: Mapping[str, Any]) -> TaskState:
    """Return the state of the task instance in ``context``, starting a new one for a new attempt."""
    from airflow_ml_provider.hooks.artifact_store import observe

    observe(note_read, note_written)
    ti = context["ti"]
    state = _states.get(key_of(ti))
    ti_id = _id_of(ti)
    # The iterations of a task in a loop share all but the id.
    if state is None or state.try_number != ti.try_number or state.ti_id != ti_id:
        dag_id, run_id, task_id, map_index = key_of(ti)
        state = _states[key_of(ti)] = TaskState(
            dag_id, run_id, task_id, map_index, ti.try_number, ti_id=ti_id
        )
    state.context = context
    state.data_interval = data_interval_of(context)
    state.effective_at = effective_at_of(context)
    state.artifact = declared_artifact(context.get("task") or ti.task)
    return state


def _id_of(ti: Any) -> str | None:
    found = getattr(ti, "id", None)
    return None if found is None else str(found)


def find(
    dag_id: str | None,
    run_id: str | None,
    task_id: str | None,
    map_index: int | None,
    ti_id: object = None,
) -> TaskState | None:
    """
    Return the state of a running task instance, None if no task of that name runs in this process.

    :param ti_id: The id of the task instance, if it is known; the map index says nothing then.
    """
    if ti_id is not None:
        return next((state for state in _states.values() if state.ti_id == str(ti_id)), None)
    key = (dag_id or "", run_id or "", task_id or "", -1 if map_index is None else map_index)
    return _states.get(key)


def checkpoints_of(ti: Any) -> list[Any]:
    """Return the checkpoints that a task instance asked for."""
    state = _states.get(key_of(ti))
    return [] if state is None else list(state.checkpoints.values())


def waiting() -> list[TaskState]:
    """Return what is known of task instances that go on in another process, as far as this one knows."""
    return [
        state
        for state in _states.values()
        if getattr(state.context.get("ti"), "state", None) in ("deferred", "awaiting_input")
    ]


def end(ti: Any) -> TaskState | None:
    """Forget a task instance and return what was known about it."""
    return _states.pop(key_of(ti), None)


def running() -> Mapping[str, Any] | None:
    """Return the context of the task that runs right now; None outside of a task."""
    from airflow.sdk import get_current_context

    try:
        return get_current_context()
    except RuntimeError:
        return None


def current() -> TaskState | None:
    """Return the state of the task that runs right now; None outside of a task."""
    context = running()
    if context is None:
        return None
    return _states.get(key_of(context["ti"])) or begin(context)


def outlet_assets(task: Any) -> dict[str, Any]:
    """Map artifact names to the ``ml-artifact://`` assets among a task's outlets."""
    found = {}
    for outlet in getattr(task, "outlets", None) or ():
        uri = getattr(outlet, "uri", "")
        if isinstance(uri, str) and uri.startswith("ml-artifact://"):
            from urllib.parse import unquote

            found[unquote(uri.removeprefix("ml-artifact://"))] = outlet
    return found


def declared_artifact(task: Any) -> Artifact | None:
    """
    Find the artifact that a task's return value becomes.

    The operator's own ``artifact``, else ``Artifact(...)`` in the return annotation of its function, else the
    only ``ArtifactAsset`` among its outlets.
    """
    own = getattr(task, "artifact", None)
    if isinstance(own, Artifact):
        return own
    annotated = annotated_artifact(getattr(task, "python_callable", None))
    if annotated is not None:
        return annotated
    names = list(outlet_assets(task))
    return Artifact(names[0]) if len(names) == 1 else None


def annotated_artifact(function: Callable[..., Any] | None) -> Artifact | None:
    """
    Read ``Artifact(...)`` from a function's return annotation ``Annotated[T, Artifact(...)]``.

    Only the annotation's metadata counts, so ``T`` may be a name that exists for type checkers alone.
    """
    while (wrapped := getattr(function, "__wrapped__", None)) is not None:
        function = wrapped
    annotation = getattr(function, "__annotations__", {}).get("return")
    if isinstance(annotation, str):
        # The annotation is code of the DAG author's own module; names that only type checkers import
        # stand for themselves.
        names = _Lenient(getattr(function, "__globals__", {}))
        try:
            annotation = eval(annotation, {"__builtins__": __builtins__}, names)  # noqa: S307
        except Exception as exc:
            if "Annotated" not in annotation:
                return None  # whatever it is, it does not name an artifact
            name = getattr(function, "__qualname__", function)
            raise TypeError(
                f"reading the return annotation {annotation!r} of {name} failed: {exc}; "
                "write Annotated[<type>, Artifact('name')] with names of the module's top level"
            ) from exc
    for item in getattr(annotation, "__metadata__", ()) if typing.get_origin(annotation) else ():
        if isinstance(item, Artifact):
            return item
    return None


class _Lenient(dict[str, Any]):
    """Globals in which an unknown name is a placeholder that takes attributes and subscripts."""

    def __missing__(self, name: str) -> Any:
        import builtins

        return getattr(builtins, name, _Placeholder)


class _PlaceholderMeta(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls

    def __getitem__(cls, item: Any) -> Any:
        return cls


class _Placeholder(metaclass=_PlaceholderMeta):
    """Stands for a type that only type checkers know."""
