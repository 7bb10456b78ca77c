# SPDX-License-Identifier: Apache-2.0
"""``@ml.cached``: a task that is not computed again while what it depends on is the same."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, overload

from airflow.sdk.definitions.context import KNOWN_CONTEXT_KEYS

from airflow_ml_provider.artifacts.envelope import is_node
from airflow_ml_provider.artifacts.refs import ArtifactRef, Producer
from airflow_ml_provider.decorators import stacking
from airflow_ml_provider.exceptions import UncacheableError
from airflow_ml_provider.links.cache import ReusedFromLink, task_instance_url
from airflow_ml_provider.operators.arguments import bound_to
from airflow_ml_provider.xcom import exchange
from airflow_ml_provider.xcom import state as states
from airflow_ml_provider.xcom.kept import kept

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context

    from airflow_ml_provider.artifacts.store import ArtifactStore
    from airflow_ml_provider.caching.entries import Decision, Entry
    from airflow_ml_provider.caching.key import CacheKey, KeyMaker

T = TypeVar("T")

log = logging.getLogger(__name__)

XCOM_KEY = "cache"

# What a function gets from Airflow as a handle: what it does with it is in no key.
_HANDLES = frozenset(
    {
        "asset_state_store",
        "conn",
        "dag",
        "dag_run",
        "exception",
        "inlet_events",
        "inlets",
        "outlet_events",
        "outlets",
        "task",
        "task_instance",
        "task_state_store",
        "ti",
        "triggering_asset_events",
        "var",
    }
)
_NO_OPTIONS = frozenset(
    {
        "kwargs_to_upstream",
        "multiple_outputs",
        "op_args",
        "op_kwargs",
        "python_callable",
        "show_return_value_in_logs",
    }
)


@overload
def cached(task: T, /) -> T: ...


@overload
def cached(
    *,
    ttl: timedelta | float | None = None,
    version: str | None = None,
    depends_on: Sequence[str | Path] = (),
    environment: Sequence[str] = ("python",),
    packages: Sequence[str] = (),
    ignore: Sequence[str] = (),
) -> Callable[[T], T]: ...


def cached(
    task: Any = None,
    /,
    *,
    ttl: timedelta | float | None = None,
    version: str | None = None,
    depends_on: Sequence[str | Path] = (),
    environment: Sequence[str] = ("python",),
    packages: Sequence[str] = (),
    ignore: Sequence[str] = (),
) -> Any:
    """
    Reuse what a task returned, as long as its code, arguments and environment are the same, and say so.

    ::

        @ml.cached(version="2", environment=["python", "pandas"])
        @task
        def features(raw: pd.DataFrame, data_interval_end=None): ...

    The code is the function's and that of the project's functions, classes and constants that it uses. Of
    artifacts among the arguments their content counts, and it is not loaded unless the task runs. A task
    that was cleared computes again.

    .. versionadded:: 0.1.0

    :param task: The task: what ``@task`` or another task decorator made, or an operator.
    :param ttl: Reuse no result older than this: a timedelta, or seconds.
    :param version: Another text is another key.
    :param depends_on: Files and folders whose content counts; relative to the file of the function.
    :param environment: ``"python"`` (the minor version) and names of installed distributions, whose versions
        count.
    :param packages: Installed packages whose code counts as the project's own.
    :param ignore: Parameters that do not count.
    """
    if isinstance(ttl, timedelta):
        seconds: float | None = ttl.total_seconds()
    else:
        seconds = ttl
    if seconds is not None and not (isinstance(seconds, (int, float)) and seconds > 0):
        raise ValueError(f"ttl must be a timedelta or a number of seconds above 0, got {ttl!r}")
    if version is not None and not isinstance(version, str):
        raise TypeError(f"version must be text, got {version!r}")
    for option, given in (
        ("depends_on", depends_on),
        ("environment", environment),
        ("packages", packages),
        ("ignore", ignore),
    ):
        if isinstance(given, str) or not all(isinstance(item, (str, Path)) for item in given):
            raise TypeError(f"{option} must be a list of names, got {given!r}")
    layer = CacheLayer(
        ttl=None if seconds is None else timedelta(seconds=seconds),
        version=version,
        depends_on=tuple(depends_on),
        environment=tuple(environment),
        packages=tuple(packages),
        ignore=frozenset(ignore),
    )
    return (lambda given: stacking.stack(given, layer)) if task is None else stacking.stack(task, layer)


@dataclass(frozen=True)
class CacheLayer(stacking.Layer):
    """What ``@ml.cached`` puts around a task."""

    ttl: timedelta | None = None
    version: str | None = None
    depends_on: tuple[str | Path, ...] = ()
    environment: tuple[str, ...] = ("python",)
    packages: tuple[str, ...] = ()
    ignore: frozenset[str] = frozenset()

    name: ClassVar[str] = "@ml.cached"
    links: ClassVar[Sequence[BaseOperatorLink]] = (ReusedFromLink(),)

    def check(self, operator_class: type, function: Callable[..., Any] | None) -> None:
        """Refuse functions whose result depends on what no key can hold."""
        if function is None:
            return
        called = getattr(function, "__name__", repr(function))
        for name, parameter in inspect.signature(function).parameters.items():
            if name in self.ignore:
                continue
            if parameter.kind is parameter.VAR_KEYWORD:
                raise UncacheableError(
                    f"@ml.cached cannot tell what {called} takes from **{name}, which Airflow fills with the "
                    "whole context of the run; name the parameters that it uses, or pass "
                    f"ignore=[{name!r}] if its result depends on none of them"
                )
            if name in _HANDLES:
                raise UncacheableError(
                    f"@ml.cached cannot tell what {called} does with {name!r}; take the values that it needs "
                    f"as arguments, or pass ignore=[{name!r}] if its result does not depend on it"
                )

    def run(self, operator: Any, context: Context, execute: Callable[[Context], Any]) -> Any:
        """Return the stored result, or compute one and store it."""
        from airflow_ml_provider.caching.entries import Cache

        if not operator.do_xcom_push:
            raise UncacheableError(
                f"@ml.cached reuses what a task returns, and {operator.task_id!r} has do_xcom_push=False; "
                "pass do_xcom_push=True (for pods it is off by default)"
            )
        store = _store()
        state = states.begin(context)
        stacking.materialise_inputs(operator)
        key = self.key_of(operator, context, state)
        me = Producer(state.dag_id, state.run_id, state.task_id, state.map_index, state.try_number)
        cache = Cache(store)
        decision = self._decide(cache, key, me, operator, context, store)
        if decision.entry is not None:
            return _reuse(decision.entry, decision, operator, context, state, store)
        log.info("Cache miss of %s: %s", operator.task_id, decision.why)
        for unknown in key.unknown:
            log.warning("Not part of the cache key of %s: %s", operator.task_id, unknown)
        _tell(context, {"hit": False, "key": key.text, "why": decision.why, "not_in_key": list(key.unknown)})

        started = time.monotonic()
        result = execute(context)
        seconds = round(time.monotonic() - started, 3)

        def remember(value: Any, tree: Any) -> None:
            state.on_return = None
            try:
                first = cache.remember(
                    key,
                    me,
                    tree,
                    kind=_kind_of(value),
                    length=len(value) if _kind_of(value) else None,
                    written=list(state.writes.values()),
                    seconds=seconds,
                    replace=decision.replaces,
                )
            except Exception:
                log.exception("the result of %s was not put into the cache", operator.task_id)
                return
            if not first:
                log.info("Another task computed the same at the same time; its result stays in the cache")

        if result is None or type(result) is bool:
            remember(result, result)
        else:
            # Airflow stores the result after this returns; before that there is nothing to refer to.
            state.on_return = remember
        return result

    def _decide(
        self, cache: Any, key: CacheKey, me: Producer, operator: Any, context: Context, store: ArtifactStore
    ) -> Decision:
        from airflow_ml_provider.caching.entries import Decision

        if was_cleared(context["ti"], operator):
            return Decision(None, "the task was cleared, so it computes again", replaces=True)
        decision: Decision = cache.decide(key, me, ttl=self.ttl)
        gone = None if decision.entry is None else _missing_model(decision.entry.tree, store)
        return decision if gone is None else Decision(None, gone, replaces=True)

    def key_of(self, operator: Any, context: Context, state: states.TaskState) -> CacheKey:
        """Collect what the result depends on."""
        from airflow_ml_provider.caching.key import KeyMaker

        maker = KeyMaker()
        function = getattr(operator, "python_callable", None)
        derived = exchange.derived_name(state.dag_id, state.task_id, exchange.RETURN_KEY)
        maker.add("result name", state.artifact.name if state.artifact else derived, show=True)
        maker.add("result parts", bool(getattr(operator, "multiple_outputs", False)))
        self._add_code(maker, stacking.below(operator), function, _folder_of(function, operator))
        if function is not None:
            for name, value in _arguments(function, operator, context):
                if name not in self.ignore:
                    maker.add_argument(name, value, packages=self.packages)
        templates = set(operator.template_fields)
        for name, given in sorted(_options(operator).items()):
            if name in self.ignore:
                continue
            if name in templates and function is None:
                maker.add_argument(name, getattr(operator, name, given), packages=self.packages)
            else:
                value = getattr(operator, name, given) if name in templates else given
                maker.add_option(name, value, packages=self.packages)
        return maker.key()

    def code_key(self, task: Any) -> CacheKey:
        """
        Collect what the result of a task of a DAG depends on, whatever it is run with: code, environment,
        version and files, as they are here and now.

        :param task: As the DAG has it, mapped or not.
        """
        from airflow_ml_provider.caching.key import KeyMaker

        maker = KeyMaker()
        function = getattr(task, "partial_kwargs", {}).get("python_callable") or getattr(
            task, "python_callable", None
        )
        self._add_code(maker, stacking.below_class(task.operator_class), function, _folder_of(function, task))
        return maker.key()

    def _add_code(self, maker: KeyMaker, operator_class: type, function: Any, folder: Path) -> None:
        from airflow_ml_provider.caching.values import name_of

        maker.add("operator", name_of(operator_class), show=True)
        maker.add("version", self.version, show=True)
        maker.add_class(operator_class, self.packages)
        if function is not None:
            maker.add_function(function, self.packages)
        maker.add_environment(self.environment)
        maker.add_files(self.depends_on, folder)


def was_cleared(ti: Any, operator: Any) -> bool:
    """
    Tell whether this attempt belongs to a clear and not to the first round of a task instance.

    A clear gives a task its retries again, counted from the tries it has had: ``max_tries`` rises above
    ``retries`` and stays there. A retry changes neither.
    """
    max_tries = getattr(ti, "max_tries", None)
    return max_tries is not None and ti.try_number > 1 and max_tries > (operator.retries or 0)


def _arguments(function: Any, operator: Any, context: Context) -> Iterator[tuple[str, Any]]:
    """Yield what a function is called with by its own choice: arguments, and what it takes of the context."""
    signature = inspect.signature(function)
    # Airflow fills what the context holds, so some may be missing still.
    bound = bound_to(signature, operator.op_args, operator.op_kwargs)
    values: Mapping[str, Any] = context
    for name, parameter in signature.parameters.items():
        if name in bound.arguments:
            if parameter.kind is parameter.VAR_KEYWORD:
                yield from bound.arguments[name].items()
            else:
                yield name, bound.arguments[name]
        elif name in values and name in KNOWN_CONTEXT_KEYS:
            yield name, values[name]


def _options(operator: Any) -> dict[str, Any]:
    """Return what an operator was made with, besides what every task has."""
    given: dict[str, Any] = getattr(operator, "_BaseOperator__init_kwargs", {})
    return {name: value for name, value in given.items() if name not in _every_tasks_options()}


def _every_tasks_options() -> set[str]:
    from airflow.sdk import BaseOperator

    return {*inspect.signature(BaseOperator).parameters, *_NO_OPTIONS}


def _folder_of(function: Any, operator: Any) -> Path:
    code = getattr(inspect.unwrap(function), "__code__", None) if function is not None else None
    path = code.co_filename if code is not None else operator.dag.fileloc
    return Path(path).parent


def _kind_of(value: Any) -> str | None:
    if isinstance(value, dict):
        return "dict"
    return "list" if isinstance(value, (list, tuple)) else None


def _store() -> ArtifactStore:
    from airflow.sdk.execution_time.xcom import XCom

    from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook
    from airflow_ml_provider.xcom.backend import ArtifactXComBackend

    if not issubclass(XCom, ArtifactXComBackend):
        raise UncacheableError(
            "@ml.cached keeps references to stored results, so it needs [core] xcom_backend = "
            "airflow_ml_provider.xcom.backend.ArtifactXComBackend; here it is "
            f"{XCom.__module__}.{XCom.__qualname__}"
        )
    return ArtifactStoreHook().store


def _reuse(
    entry: Entry,
    decision: Decision,
    operator: Any,
    context: Context,
    state: states.TaskState,
    store: ArtifactStore,
) -> Any:
    from airflow_ml_provider.caching.entries import refs_of

    url = task_instance_url(entry.producer)
    log.info(
        "Cache hit of %s: reused the result of %s: %s (%s)",
        operator.task_id,
        entry.producer,
        decision.why,
        url,
    )
    ReusedFromLink().publish(operator, context, url)
    producer = entry.producer
    _tell(
        context,
        {
            "hit": True,
            "key": entry.key,
            "why": decision.why,
            "reused_from": {
                "dag_id": producer.dag_id,
                "run_id": producer.run_id,
                "task_id": producer.task_id,
                "map_index": producer.map_index,
                "try_number": producer.try_number,
                "recorded_at": entry.recorded_at.isoformat(),
            },
            "seconds_saved": entry.seconds,
        },
    )
    _tell_open_run(producer, url)
    for model in _models_in(entry.tree, store):
        state.note_model(model, "read", "reused")
    for ref in refs_of(entry.tree, store):
        state.note_reused(ref)
        exchange.note_outlet(state, ref)
    outputs = None
    if entry.type == "dict" and getattr(operator, "multiple_outputs", False) and is_node(entry.tree):
        # Airflow pushes each part, and what is in the table names the whole alone.
        outputs = store.decode(entry.tree, as_refs=True)
        outputs = store.load(outputs) if isinstance(outputs, ArtifactRef) else outputs
    return kept(entry.tree, kind=entry.type, length=entry.length, outputs=outputs)


def _tell(context: Context, about: dict[str, Any]) -> None:
    """Say in the record and an XCom what was decided; it only informs, so a failure fails no task."""
    states.begin(context).cached = about
    try:
        context["ti"].xcom_push(key=XCOM_KEY, value=about)
    except Exception:
        log.exception("the XCom %r was not written", XCOM_KEY)


def _tell_open_run(producer: Producer, url: str | None) -> None:
    """Say in the MLflow run of @ml.tracked that nothing was computed; that only informs."""
    from airflow_ml_provider.tracking.runs import STATE_TAG, open_run

    run = open_run()
    if run is None:
        return
    try:
        run.set_tags(
            {STATE_TAG: "reused", "airflow.reused_from": str(producer), "airflow.reused_url": url or ""}
        )
    except Exception:
        log.exception("MLflow run %s was not told that the result was reused", run.run_id)


def _missing_model(tree: Any, store: ArtifactStore) -> str | None:
    """Say which model of a result MLflow no longer has; None if it has all of them."""
    from airflow_ml_provider.exceptions import ModelNotFoundError

    for ref in _models_in(tree, store):
        from airflow_ml_provider.hooks.mlflow import MlflowHook
        from airflow_ml_provider.settings import load_settings
        from airflow_ml_provider.tracking.registry import resolve_model_uri

        try:
            hook = MlflowHook(ref.mlflow_conn_id or load_settings().mlflow_conn_id)
            resolve_model_uri(hook.client, ref)
        except ModelNotFoundError as exc:
            return f"the model of the stored result is gone: {exc}"
    return None


def _models_in(tree: Any, store: ArtifactStore) -> Iterator[Any]:
    if type(tree) is dict:
        if tree.get("kind") == "ml-model/v1":
            yield store.decode(tree)
            return
        tree = list(tree.values())
    if type(tree) is list:
        for item in tree:
            yield from _models_in(item, store)
