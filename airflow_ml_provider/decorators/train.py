# SPDX-License-Identifier: Apache-2.0
"""``@task.train``: a function that fits a model, as a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from airflow.sdk.bases.decorator import DecoratedOperator, TaskDecorator, task_decorator_factory

from airflow_ml_provider.operators.train import TrainModelOperator


class _TrainDecoratedOperator(DecoratedOperator, TrainModelOperator):
    """The task that ``@task.train`` makes."""

    template_fields: Sequence[str] = TrainModelOperator.template_fields
    template_fields_renderers = TrainModelOperator.template_fields_renderers

    custom_operator_name: str = "@task.train"

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


def train_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """
    Make a function that fits a model a task whose result is a :class:`ModelRef`.

    .. versionadded:: 0.1.0

    :param python_callable: The function; returns the model, or ``(model, {metric: number})``.
    :param multiple_outputs: Not for this decorator: a model is one output.
    :param kwargs: Options of :class:`TrainModelOperator` and of every task.
    """
    if multiple_outputs:
        raise ValueError("@task.train returns one ModelRef; multiple_outputs does not apply")
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=False,
        decorated_operator_class=_TrainDecoratedOperator,
        **kwargs,
    )
