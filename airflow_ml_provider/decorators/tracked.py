# SPDX-License-Identifier: Apache-2.0
"""``@ml.tracked``: a task of any kind as an MLflow run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, overload

from airflow_ml_provider.decorators import stacking
from airflow_ml_provider.decorators.isolation import Isolation, isolation_of, run_variables
from airflow_ml_provider.links.mlflow import MlflowRunLink
from airflow_ml_provider.operators.arguments import scalars_of
from airflow_ml_provider.operators.base import MlflowTask, times_of
from airflow_ml_provider.operators.surroundings import code_path, code_tags, fingerprint_of, redacted
from airflow_ml_provider.settings import load_settings
from airflow_ml_provider.tracking.autolog import Autolog, autolog_source, autologging, check_autolog
from airflow_ml_provider.tracking.parents import Best
from airflow_ml_provider.xcom import state as states
from airflow_ml_provider.xcom.context import identity_of
from airflow_ml_provider.xcom.loading import refs_in

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context

    from airflow_ml_provider.artifacts.refs import ArtifactRef
    from airflow_ml_provider.hooks.mlflow import MlflowHook
    from airflow_ml_provider.tracking.runs import TaskRun

T = TypeVar("T")

log = logging.getLogger(__name__)

_RUN = "_ml_tracked_run"


@overload
def tracked(task: T, /) -> T: ...


@overload
def tracked(
    *,
    experiment: str | None = None,
    run_name: str | None = None,
    tags: Mapping[str, str] | None = None,
    log_params: bool = True,
    log_models: bool = True,
    log_environment: bool = True,
    log_system_metrics: bool = False,
    autolog: Autolog = False,
    parent_run: bool | None = None,
    best: str | Sequence[str] | None = None,
    mlflow_conn_id: str | None = None,
    kubernetes_secret: str | None = None,
) -> Callable[[T], T]: ...


def tracked(
    task: Any = None,
    /,
    *,
    experiment: str | None = None,
    run_name: str | None = None,
    tags: Mapping[str, str] | None = None,
    log_params: bool = True,
    log_models: bool = True,
    log_environment: bool = True,
    log_system_metrics: bool = False,
    autolog: Autolog = False,
    parent_run: bool | None = None,
    best: str | Sequence[str] | None = None,
    mlflow_conn_id: str | None = None,
    kubernetes_secret: str | None = None,
) -> Any:
    """
    Give a task an MLflow run, whose status is the task's.

    ::

        @ml.tracked(experiment="flight_delay", autolog=["sklearn"])
        @task
        def fit(data: pd.DataFrame, max_depth: int = 6):
            mlflow.log_metric("rows", len(data))

    It stacks on every task decorator; ``ml.tracked(SomeOperator(...))`` does it for a classic operator. The
    run belongs to the task instance: retries go on with it. In the task MLflow's functions write to it; a
    task that runs in an interpreter, shell or pod of its own finds it there by environment variables.

    ``@task.train`` and the operators of this package that open a run themselves are refused.

    .. versionadded:: 0.1.0

    :param task: The task: what ``@task`` or another task decorator made, or an operator.
    :param experiment: Name of the MLflow experiment; by default the DAG's id. (templated)
    :param run_name: By default the task, its data slice and its map index. (templated)
    :param tags: More tags of the run. (templated)
    :param log_params: Whether the scalar arguments of the task's function become params.
    :param log_models: Whether a model that the function returns is logged; the task then returns a
        :class:`ModelRef`. Not for tasks that run elsewhere.
    :param log_environment: Whether the installed packages, and the code's uncommitted changes, are kept as
        artifacts of the run.
    :param log_system_metrics: Whether MLflow samples CPU, memory, disk, network and GPU every 10 seconds.
        Needs psutil.
    :param autolog: True for all libraries that MLflow's autologging knows, a list of some (``"sklearn"``,
        ``"xgboost"``, ``"lightgbm"``, ``"torch"`` ...), or a dict of options of ``mlflow.autolog``.
    :param parent_run: Whether the run is put below one run of the whole DAG run; by default
        ``[ml_provider] parent_run``. Instances of a mapped task are below a run of that task in any case.
    :param best: The metric by which the run above tells its best run: a name, or ``(name, "max")`` or
        ``(name, "min")`` for a metric of your own.
    :param mlflow_conn_id: Connection of the tracking server; by default ``[ml_provider] mlflow_conn_id``.
    :param kubernetes_secret: Name of a Kubernetes secret that holds ``MLFLOW_TRACKING_USERNAME`` and
        ``MLFLOW_TRACKING_PASSWORD``, or ``MLFLOW_TRACKING_TOKEN``. The pod reads them from there, and its
        specification holds none.
    """
    for option, text in (("experiment", experiment), ("run_name", run_name)):
        if text is not None and not (isinstance(text, str) and text.strip()):
            raise ValueError(
                f"{option} is a text that is not empty, got {text!r}; leave it out for the default"
            )
    if tags is not None and not isinstance(tags, Mapping):
        raise TypeError(f"tags is a dict of texts, got {tags!r}")
    layer = TrackLayer(
        experiment=experiment,
        run_name=run_name,
        tags={str(name): str(value) for name, value in (tags or {}).items()},
        log_params=log_params,
        log_models=log_models,
        log_environment=log_environment,
        log_system_metrics=log_system_metrics,
        autolog=check_autolog(autolog),
        parent_run=parent_run,
        best=Best.of(best),
        mlflow_conn_id=mlflow_conn_id,
        kubernetes_secret=kubernetes_secret,
    )
    return (lambda given: stacking.stack(given, layer)) if task is None else stacking.stack(task, layer)


@dataclass(frozen=True)
class TrackLayer(stacking.Layer):
    """What ``@ml.tracked`` puts around a task."""

    experiment: str | None = None
    run_name: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    log_params: bool = True
    log_models: bool = True
    log_environment: bool = True
    log_system_metrics: bool = False
    autolog: Autolog = False
    parent_run: bool | None = None
    best: Best | None = None
    mlflow_conn_id: str | None = None
    kubernetes_secret: str | None = None

    name: ClassVar[str] = "@ml.tracked"
    links: ClassVar[Sequence[BaseOperatorLink]] = (MlflowRunLink(),)

    def check(self, operator_class: type, function: Callable[..., Any] | None) -> None:
        """Refuse tasks that have a run already, and options that cannot work for the kind of task."""
        if issubclass(operator_class, MlflowTask):
            raise TypeError(
                f"{operator_class.__name__} talks to MLflow itself, so @ml.tracked does not stack on it; "
                "give experiment= and the like to the task, and take @ml.tracked off"
            )
        if any(isinstance(layer, TrackLayer) for layer in stacking.layers_of(operator_class)):
            raise TypeError("the task has one @ml.tracked already; a task instance is one MLflow run")
        place = isolation_of(operator_class)
        if self.autolog is not False and place is not None and not place.runs_source:
            raise ValueError(
                f"autolog does not reach into a {place.kind}; call mlflow.autolog() in the program that runs "
                "there, which finds the run by its environment"
            )
        if self.kubernetes_secret is not None and (place is None or place.kind != "pod"):
            raise ValueError("kubernetes_secret is for tasks that run in a pod of their own")

    def run(self, operator: Any, context: Context, execute: Callable[[Context], Any]) -> Any:
        """Return the task's result, computed inside of an MLflow run."""
        with self._open(operator, context, resumed=False) as (run, hook):
            self._describe(operator, context, run)
            self._show(operator, context, run, hook)  # other params than before begin a new run
            with self._surrounded(operator, run, hook):
                result = execute(context)
            logged = self._log_model(result, operator, context, run, hook)
            self._note_metrics(context, run)
            return logged

    def resume(self, operator: Any, context: Context, proceed: Callable[[Context], Any]) -> Any:
        """Go on in the run that the task had before it was deferred."""
        with (
            self._open(operator, context, resumed=True) as (run, hook),
            self._surrounded(operator, run, hook),
        ):
            result = proceed(context)
            self._note_metrics(context, run)
            return result

    def kill(self, operator: Any) -> None:
        """Say in MLflow that the task was killed."""
        run: TaskRun | None = operator.__dict__.get(_RUN)
        if run is not None:
            run.kill()

    def source(self, operator: Any, source: str) -> str:
        """Switch autologging on where the function runs."""
        return autolog_source(self.autolog) + source

    @contextmanager
    def _open(
        self, operator: Any, context: Context, *, resumed: bool
    ) -> Iterator[tuple[TaskRun, MlflowHook]]:
        from airflow_ml_provider.hooks.mlflow import MlflowHook
        from airflow_ml_provider.tracking.runs import task_run

        settings = load_settings()
        hook = MlflowHook(self.mlflow_conn_id or settings.mlflow_conn_id)
        identity = identity_of(context)
        function = getattr(operator, "python_callable", None)
        tags = dict(times_of(context))
        if not resumed:
            tags |= {**code_tags(function, context), **self._environment_tags(operator)}
        tags |= {name: str(self._rendered(text, operator, context)) for name, text in self.tags.items()}
        place = isolation_of(type(operator))
        state = states.begin(context)
        with task_run(
            hook.client,
            experiment=self._rendered(self.experiment, operator, context) or identity.dag_id,
            identity=identity,
            run_name=self._rendered(self.run_name, operator, context),
            tags=tags,
            credentials=hook.credentials,
            fingerprint=None if resumed or function is None else fingerprint_of(function),
            group=settings.parent_run if self.parent_run is None else self.parent_run,
            best=self.best,
            fluent=place is None,
            log_system_metrics=self.log_system_metrics and place is None,
        ) as run:
            operator.__dict__[_RUN] = run
            try:
                self._show(operator, context, run, hook)
                yield run, hook
            finally:
                state.note_mlflow_run(run.run_id, run.experiment_id)
                operator.__dict__.pop(_RUN, None)

    def _describe(self, operator: Any, context: Context, run: TaskRun) -> None:
        """Say in MLflow what the task is about to work on."""
        from airflow_ml_provider.tracking.environment import log_surroundings

        scalars, refs = inputs_of(operator)
        if self.log_params:
            run.log_params(redacted(scalars))
            states.begin(context).params.update(redacted(scalars))
        if refs:
            run.log_inputs(refs, context="input")
        if self.log_environment:
            path = code_path(getattr(operator, "python_callable", None), context)
            log_surroundings(run, code_path=path, packages=isolation_of(type(operator)) is None)

    @contextmanager
    def _surrounded(self, operator: Any, run: TaskRun, hook: MlflowHook) -> Iterator[None]:
        """Let the task's code reach the run, and measure what it takes."""
        from airflow_ml_provider.tracking.environment import measured

        place = isolation_of(type(operator))
        around: AbstractContextManager[Any] = autologging(self.autolog)
        if place is not None:
            around = self._elsewhere(place, operator, run, hook)
        with measured(run), around:
            yield

    def _elsewhere(
        self, place: Isolation, operator: Any, run: TaskRun, hook: MlflowHook
    ) -> AbstractContextManager[Any]:
        from airflow.sdk.log import mask_secret

        credentials = hook.credentials
        for secret in (credentials.password, credentials.token):
            if secret:
                mask_secret(secret)
        variables = run_variables(
            tracking_uri=hook.tracking_uri,
            registry_uri=hook.registry_uri,
            experiment_id=run.experiment_id,
            run_id=run.run_id,
            credentials=credentials,
        )
        if self.log_system_metrics:
            variables["MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"] = "true"
        found: AbstractContextManager[Any] = place.environment(operator, variables, self.kubernetes_secret)
        return found

    def _log_model(self, result: Any, operator: Any, context: Context, run: TaskRun, hook: MlflowHook) -> Any:
        from airflow_ml_provider.exceptions import UnsupportedTypeError
        from airflow_ml_provider.operators.base import dated, note_model, to_xcom, with_connection
        from airflow_ml_provider.operators.train import sample_for
        from airflow_ml_provider.tracking.flavors import flavor_of, log_model

        if not self.log_models or not run.fluent:
            return result
        try:
            if not hasattr(result, "predict"):
                return result
            flavor_of(result)
        except UnsupportedTypeError:
            return result
        arguments = [*getattr(operator, "op_args", ()), *getattr(operator, "op_kwargs", {}).values()]
        ref = log_model(
            result,
            run=run,
            name=operator.task_id.rpartition(".")[2],
            X_sample=sample_for(result, arguments),
            mlflow_conn_id=hook.mlflow_conn_id,
        )
        ref = dated(with_connection(ref, hook), context)
        note_model(context, ref, "written", "trained")
        states.begin(context).metrics.update(ref.metrics)
        log.info("Logged the model %s in MLflow run %s", ref.model_uri, ref.mlflow_run_id)
        return to_xcom(ref)

    def _note_metrics(self, context: Context, run: TaskRun) -> None:
        """Keep in the task's record what its code measured; where it returned a model, that is known."""
        state = states.begin(context)
        if state.metrics:
            return
        try:
            state.metrics.update(run.metrics())
        except Exception:  # it only informs
            log.exception("The record of the task is without the metrics of MLflow run %s", run.run_id)

    def _show(self, operator: Any, context: Context, run: TaskRun, hook: MlflowHook) -> None:
        states.begin(context).note_mlflow_run(run.run_id, run.experiment_id)
        MlflowRunLink().publish(operator, context, hook.run_url(run.experiment_id, run.run_id))

    def _environment_tags(self, operator: Any) -> dict[str, str]:
        from airflow_ml_provider.tracking.environment import environment_tags

        place = isolation_of(type(operator))
        image = getattr(operator, "image", None)
        tags = environment_tags(image if isinstance(image, str) else None)
        if place is None:
            return tags
        # What is known here is this process's own; the work is done elsewhere.
        tags = {"environment.image": tags["environment.image"]} if "environment.image" in tags else {}
        tags["environment.place"] = place.kind
        if requirements := getattr(operator, "requirements", None):
            tags["environment.requirements"] = " ".join(map(str, requirements))[:5000]
        if python := getattr(operator, "python", None) or getattr(operator, "python_version", None):
            tags["environment.python"] = str(python)
        return tags

    @staticmethod
    def _rendered(text: str | None, operator: Any, context: Context) -> Any:
        return None if text is None else operator.render_template(text, context)


def inputs_of(operator: Any) -> tuple[dict[str, Any], list[ArtifactRef]]:
    """
    Return the scalar arguments of a task's function, and the artifacts among the task's inputs, unloaded.

    An operator without a function has no scalar arguments: what its templates hold may be secret.
    """
    stacking.materialise_inputs(operator)
    refs = {
        ref.version_id: ref
        for name in operator.template_fields
        for ref in refs_in(getattr(operator, name, None))
    }
    function = getattr(operator, "python_callable", None)
    if function is None:
        return {}, list(refs.values())
    args, kwargs = getattr(operator, "op_args", ()), getattr(operator, "op_kwargs", {})
    return scalars_of(function, args, kwargs), list(refs.values())
