# SPDX-License-Identifier: Apache-2.0
"""``@task.evaluate``: a function that returns the rows to judge a model on, as a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk.bases.decorator import DecoratedOperator, TaskDecorator, task_decorator_factory

from airflow_ml_provider.operators.arguments import LoadsArguments
from airflow_ml_provider.operators.base import MlflowTask
from airflow_ml_provider.operators.evaluate import check_evaluation_options, evaluate

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_ml_provider.operators.base import Clock


class _PythonEvaluateOperator(LoadsArguments, MlflowTask, PythonOperator):
    """Like ``EvaluateModelOperator``, on what a function returns."""

    template_fields: Sequence[str] = (
        *PythonOperator.template_fields,
        "model",
        "target",
        "baseline",
        "as_of",
        "experiment",
    )

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        model: Any,
        target: str,
        model_type: str = "classifier",
        baseline: Any = None,
        as_of: str | datetime | None = None,
        clock: Clock = "data",
        allow_leakage: Sequence[str] = (),
        experiment: str | None = None,
        evaluator_config: Mapping[str, Any] | None = None,
        plots: bool = True,
        slices: Sequence[str] = (),
        bootstrap_draws: int = 0,
        bootstrap_seed: int = 0,
        mlflow_conn_id: str | None = None,
        show_return_value_in_logs: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            python_callable=python_callable, show_return_value_in_logs=show_return_value_in_logs, **kwargs
        )
        check_evaluation_options(
            target=target,
            model_type=model_type,
            evaluator_config=evaluator_config,
            clock=clock,
            allow_leakage=allow_leakage,
            slices=slices,
            bootstrap_draws=bootstrap_draws,
            bootstrap_seed=bootstrap_seed,
        )
        self.model = model
        self.target = target
        self.model_type = model_type
        self.baseline = baseline
        self.as_of = as_of
        self.clock = clock
        self.allow_leakage = tuple(allow_leakage)
        self.experiment = experiment
        self.evaluator_config = evaluator_config
        self.plots = plots
        self.slices = tuple(slices)
        self.bootstrap_draws = bootstrap_draws
        self.bootstrap_seed = bootstrap_seed
        self.mlflow_conn_id = mlflow_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        run_function = super().execute
        return evaluate(self, context, lambda: run_function(context))


class _EvaluateDecoratedOperator(DecoratedOperator, _PythonEvaluateOperator):
    """The task that ``@task.evaluate`` makes."""

    template_fields: Sequence[str] = _PythonEvaluateOperator.template_fields
    template_fields_renderers = PythonOperator.template_fields_renderers

    custom_operator_name: str = "@task.evaluate"

    def __init__(
        self, *, python_callable: Callable[..., Any], op_args: Any, op_kwargs: Any, **kwargs: Any
    ) -> None:
        super().__init__(
            kwargs_to_upstream={
                "python_callable": python_callable,
                "op_args": op_args,
                "op_kwargs": op_kwargs,
            },
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            **kwargs,
        )


def evaluate_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """
    Make a function that returns a DataFrame a task that judges a model on it.

    ::

        @task.evaluate(model=model, baseline=CHAMPION.model_uri, target="late")
        def judge(data_interval_end=None):
            return flights_of(data_interval_end)

    The task returns what :class:`EvaluateModelOperator` returns. The function may return an ``ArtifactRef``
    that it got as an argument, or the name of an artifact, which keeps the data's version in the evaluation.
    It runs inside the evaluation's MLflow run.

    .. versionadded:: 0.1.0

    :param python_callable: The function; returns the DataFrame to judge on.
    :param multiple_outputs: Not for this decorator: an evaluation is one dict.
    :param kwargs: Options of :class:`EvaluateModelOperator`, without ``data``, and of every task.
    """
    if multiple_outputs:
        raise ValueError("@task.evaluate returns one evaluation; multiple_outputs does not apply")
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=False,
        decorated_operator_class=_EvaluateDecoratedOperator,
        **kwargs,
    )
