# SPDX-License-Identifier: Apache-2.0
"""
What our tasks read and wrote, in the events of the openlineage provider.

That provider asks one of three for the data sets of a task and never adds them up: methods of the operator,
else what hooks reported, else declared inlets and outlets. So while its listener looks at an attempt that
touched artifacts or models, the operator has methods that give all of them together. The operators of which
the provider knows by name are never asked; for them all of it is reported as hooks do.

A listener of its own around the others: it is called first and ends last. Without the openlineage provider it
does nothing, and nothing of OpenLineage is imported.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.listeners import hookimpl

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.refs import ArtifactRef
    from airflow_ml_provider.lineage.openlineage import DataSet
    from airflow_ml_provider.xcom.state import TaskState

log = logging.getLogger(__name__)

_PROVIDER = "airflow.providers.openlineage.plugins.listener"
_ON_START = "get_openlineage_facets_on_start"
_ON_COMPLETE = "get_openlineage_facets_on_complete"
_ON_FAILURE = "get_openlineage_facets_on_failure"
_SCHEMES = ("ml-artifact://", "mlflow://")
# An asset for what no asset stands for; the data set itself travels beside it.
_CARRIER = "ml-artifact://mlflow"


@hookimpl(wrapper=True, tryfirst=True)
def on_task_instance_running(previous_state: Any, task_instance: Any) -> Iterator[None]:
    """Say which inputs an attempt was given."""
    with _reported(task_instance, ends=False):
        return (yield)


@hookimpl(wrapper=True, tryfirst=True)
def on_task_instance_success(previous_state: Any, task_instance: Any) -> Iterator[None]:
    """Say what a successful attempt read and wrote."""
    with _reported(task_instance):
        return (yield)


@hookimpl(wrapper=True, tryfirst=True)
def on_task_instance_failed(previous_state: Any, task_instance: Any, error: Any) -> Iterator[None]:
    """Say what a failed attempt read and wrote before it failed."""
    with _reported(task_instance):
        return (yield)


@hookimpl(wrapper=True, tryfirst=True)
def on_task_instance_skipped(previous_state: Any, task_instance: Any) -> Iterator[None]:
    """Say what a skipped attempt read before it skipped."""
    with _reported(task_instance):
        return (yield)


@contextmanager
def _reported(task_instance: Any, *, ends: bool = True) -> Iterator[None]:
    provider = sys.modules.get(_PROVIDER)
    if provider is None or type(task_instance).__module__ != "airflow.sdk.execution_time.task_runner":
        yield
        return
    undo: list[Callable[[], None]] = []
    try:
        if not ends:
            _forget_earlier_attempts()
        _report(task_instance, provider.get_openlineage_listener().extractor_manager, undo)
    except Exception:
        log.exception(
            "telling OpenLineage what %s read and wrote failed; its event lacks that, the task itself is not "
            "affected",
            task_instance,
        )
    try:
        yield
    finally:
        try:
            for step in reversed(undo):
                step()
            if ends:
                _note_end_of_attempt()
        except Exception:
            log.exception("taking back what OpenLineage was told of %s failed", task_instance)


def _report(task_instance: Any, manager: Any, undo: list[Callable[[], None]]) -> None:
    from airflow_ml_provider.xcom import state as states

    task = task_instance.task
    state = states.find(*states.key_of(task_instance))
    if not (state is not None and _touched(state)) and not _declares(task):
        return
    if task.task_type in manager.extractors:
        _report_as_hooks_do(state, task_instance, undo)
    else:
        _report_by_methods(state, task_instance, manager, undo)


def _touched(state: TaskState) -> bool:
    return any(
        (state.reads, state.writes, state.handed, state.reused, state.models_read, state.models_written)
    )


def _declares(task: Any) -> bool:
    return any(str(getattr(asset, "uri", "")).startswith(_SCHEMES) for asset in (*task.inlets, *task.outlets))


# -- operators that the provider asks


def _report_by_methods(
    state: TaskState | None, task_instance: Any, manager: Any, undo: list[Callable[[], None]]
) -> None:
    from airflow.utils.state import TaskInstanceState as Outcome

    task = task_instance.task
    start, complete, failure = (getattr(task, name, None) for name in (_ON_START, _ON_COMPLETE, _ON_FAILURE))

    # In the order in which the provider asks.
    def on_start() -> Any:
        return _together(start, state, task_instance, manager, Outcome.RUNNING)

    def on_complete(ti: Any) -> Any:
        own = (lambda: complete(ti)) if complete else start
        return _together(own, state, task_instance, manager, Outcome.SUCCESS)

    def on_failure(ti: Any) -> Any:
        own = (lambda: failure(ti)) if failure else (lambda: complete(ti)) if complete else start
        return _together(own, state, task_instance, manager, Outcome.FAILED)

    methods = {_ON_START: on_start, _ON_COMPLETE: on_complete, _ON_FAILURE: on_failure}
    # Of this one object: the class stays as it is, and so do other task instances.
    attributes = vars(task)
    before = {name: attributes[name] for name in methods if name in attributes}

    def restore() -> None:
        for name in methods:
            attributes.pop(name, None)
        attributes.update(before)

    undo.append(restore)
    attributes.update(methods)


def _together(
    own: Callable[[], Any] | None, state: TaskState | None, task_instance: Any, manager: Any, outcome: Any
) -> Any:
    """Add up what we saw, what the operator says of itself, what hooks reported and what is declared."""
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.providers.openlineage.utils.emission_policy import resolve_task_emission_policy

    task = task_instance.task
    policy = resolve_task_emission_policy(
        operator=task, dag_id=task_instance.dag_id, task_id=task_instance.task_id
    )
    found = OperatorLineage()

    def add(what: str, give: Callable[[], Any]) -> Any:
        # One that fails must not take the others with it. The provider would say it in one line at most.
        try:
            source = give()
        except Exception:
            log.exception("asking %s what %s read and wrote failed", what, task_instance)
            return None
        if source is not None:
            _add_missing(found.inputs, source.inputs)
            _add_missing(found.outputs, source.outputs)
            found.job_facets |= source.job_facets
            found.run_facets |= source.run_facets
        return source

    def declared() -> Any:
        lineage = OperatorLineage()
        manager.extract_inlets_and_outlets(lineage, task, task_instance)
        return lineage

    add("the artifact store", lambda: _seen(state, task, source_code=policy.include_source_code))
    spoken = add("its operator", own) if own is not None else None
    if policy.hook_lineage and not (spoken and (spoken.inputs or spoken.outputs)):
        add("hooks", lambda: manager.get_hook_lineage(task_instance, outcome))
    add("its inlets and outlets", declared)
    return found


def _seen(state: TaskState | None, task: Any, *, source_code: bool) -> Any:
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_ml_provider.lineage.openlineage_client import to_client

    found = OperatorLineage(job_facets=_job_facets(task, source_code=source_code))
    if state is not None:
        found.run_facets.update(_run_facets(state))
    for each in _data_sets(state, task):
        (found.inputs if each.side == "input" else found.outputs).append(to_client(each))
    return found


def _add_missing(found: list[Any], further: list[Any]) -> None:
    known = {(each.namespace, each.name) for each in found}
    found.extend(each for each in further if (each.namespace, each.name) not in known)


# -- operators that the provider knows by name


def _report_as_hooks_do(state: TaskState | None, task_instance: Any, undo: list[Callable[[], None]]) -> None:
    from airflow.sdk.lineage import get_hook_lineage_collector

    collector = get_hook_lineage_collector()
    before = _collected(collector)
    undo.append(lambda: _forget(collector, _collected(collector), before))
    task = task_instance.task
    reported = _data_sets(state, task)
    for each in reported:
        add = collector.add_input_asset if each.side == "input" else collector.add_output_asset
        add(each, uri=each.asset_uri or _CARRIER)
    for side, assets, add in (
        ("input", task.inlets, collector.add_input_asset),
        ("output", task.outlets, collector.add_output_asset),
    ):
        known = {each.asset_uri for each in reported if each.side == side}
        for asset in assets:
            uri = getattr(asset, "uri", None)
            if isinstance(uri, str) and uri not in known:
                about = {name: getattr(asset, name, None) for name in ("name", "group", "extra")}
                add(None, uri=uri, name=about["name"], group=about["group"], asset_extra=about["extra"])


# The collector is one for the process and nobody empties it: dag.test() runs many attempts in one.
_COLLECTED = ("_inputs", "_outputs", "_extra")
_of_earlier_attempts: dict[str, set[str]] = {}


def _note_end_of_attempt() -> None:
    if (collector := _collector()) is not None:
        _of_earlier_attempts.update(_collected(collector))


def _forget_earlier_attempts() -> None:
    if (collector := _collector()) is not None:
        _forget(collector, _of_earlier_attempts, {})
    _of_earlier_attempts.clear()


def _collector() -> Any:
    """Return the collector if there is one; making one imports what all providers know of assets."""
    module = sys.modules.get("airflow.sdk.lineage")
    made = module is not None and module.get_hook_lineage_collector.cache_info().currsize
    return module.get_hook_lineage_collector() if module is not None and made else None


def _collected(collector: Any) -> dict[str, set[str]]:
    return {name: set(getattr(collector, name, ())) for name in _COLLECTED}


def _forget(collector: Any, those: dict[str, set[str]], but: dict[str, set[str]]) -> None:
    for name, keys in those.items():
        entries = getattr(collector, name, {})
        for key in keys - but.get(name, set()):
            entries.pop(key, None)


# -- what there is to say


def _data_sets(state: TaskState | None, task: Any) -> list[DataSet]:
    from airflow_ml_provider.lineage import openlineage as words
    from airflow_ml_provider.settings import load_settings

    if state is None:
        return []
    root = load_settings().artifact_root
    about = _documentation(task)
    refs = state.model_refs
    reads, writes, reused = (_told(uses) for uses in (state.reads, state.writes, state.reused))
    handed = [ref for ref in _told(state.handed) if ref.version_id not in state.reads]
    return words.distinct(
        [
            *(words.artifact_data_set(ref, root, "input") for ref in reads),
            *(words.artifact_data_set(ref, root, "input", loaded=False) for ref in handed),
            *(words.model_data_set(_known(model, refs), "input") for model in state.models_read),
        ]
    ) + words.distinct(
        [
            *(
                words.artifact_data_set(ref, root, "output", description=_description(ref, about))
                for ref in writes
            ),
            *(words.artifact_data_set(ref, root, "output", loaded=False) for ref in reused),
            *(
                words.model_data_set(_known(model, refs), "output", description=about)
                for model in state.models_written
            ),
        ]
    )


def _told(uses: dict[str, ArtifactRef]) -> list[ArtifactRef]:
    """Leave out checkpoints: each run has names of its own for them, and nobody else reads them."""
    from airflow_ml_provider.artifacts.refs import CHECKPOINTS

    return [ref for ref in uses.values() if not ref.name.startswith(CHECKPOINTS)]


def _known(model: dict[str, Any], refs: dict[str, Any]) -> dict[str, Any]:
    """Add to a model of a lineage record what the reference knows beyond it."""
    ref = refs.get(model["model_uri"])
    return model if ref is None else {**ref.to_json(), **model}


def _documentation(task: Any) -> str | None:
    """Return what the DAG's author says of a task: its own documentation, else its function's."""
    for name in ("doc_md", "doc"):
        if isinstance(said := getattr(task, name, None), str) and said.strip():
            return inspect.cleandoc(said)
    function = getattr(task, "python_callable", None)
    return inspect.getdoc(function) if inspect.isroutine(function) else None


def _description(ref: Any, about: str | None) -> str:
    kind = f"`{ref.type}`"
    if ref.producer is not None:
        where = "" if ref.producer.key == "return_value" else f" under the key `{ref.producer.key}`"
        kind += f" from the task `{ref.producer.task_id}` of the DAG `{ref.producer.dag_id}`{where}"
    return f"{kind}.\n\n{about}" if about else f"{kind}."


def _run_facets(state: TaskState) -> dict[str, Any]:
    from airflow_ml_provider.lineage import openlineage as words
    from airflow_ml_provider.lineage.openlineage_client import to_facets

    facet = words.attempt_facet(
        effective_at=state.effective_at,
        data_interval=state.data_interval,
        mlflow_run_id=state.mlflow_run_id,
        experiment_id=state.experiment_id,
        metrics=state.metrics,
        cached=True if state.reused else None,
        evaluation=state.evaluation,
        promotion=state.promotion,
    )
    return to_facets({words.ATTEMPT_FACET: facet})


def _job_facets(task: Any, *, source_code: bool) -> dict[str, Any]:
    from airflow_ml_provider.lineage.openlineage_client import to_facets
    from airflow_ml_provider.tracking.location import code_location

    function = getattr(task, "python_callable", None)
    function = inspect.unwrap(function) if inspect.isroutine(function) else None
    facets: dict[str, Any] = {}
    path = getattr(getattr(task, "dag", None), "fileloc", None)
    if function is not None:
        try:
            path = inspect.getsourcefile(function) or path
            if source_code:
                facets["sourceCode"] = {"language": "python", "sourceCode": inspect.getsource(function)}
        except (OSError, TypeError):
            log.debug("Python does not find the source of %s", function, exc_info=True)
    if (location := code_location(path)) is not None:
        facets["sourceCodeLocation"] = location
    return to_facets(facets)
