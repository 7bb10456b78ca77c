# SPDX-License-Identifier: Apache-2.0
"""Make a trained model a version of a registered model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_ml_provider.assets.handlers import check_registered_model_name
from airflow_ml_provider.operators.base import MlflowTask, dated, note_model, to_xcom
from airflow_ml_provider.tracking.registry import register_version
from airflow_ml_provider.xcom.context import identity_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_ml_provider.tracking.identity import TaskIdentity
    from airflow_ml_provider.tracking.models import ModelRef

log = logging.getLogger(__name__)


class RegisterModelOperator(MlflowTask, BaseOperator):
    """
    Make a trained model a version of a registered model, and return the :class:`ModelRef` with it.

    A retry or a clear finds the version that an earlier attempt made. No alias moves.

    .. versionadded:: 0.1.0

    :param model: What ``@task.train`` returned, or a model URI. (templated)
    :param registered_model_name: Name of the registered model; made if missing. (templated)
    :param tags: Tags of the version. (templated)
    :param description: Description of the version, in Markdown. (templated)
    :param mlflow_conn_id: Connection of the tracking server; by default ``[ml_provider] mlflow_conn_id``.
    """

    template_fields: Sequence[str] = ("model", "registered_model_name", "tags", "description")
    ui_color = "#f4ecf7"

    def __init__(
        self,
        *,
        model: Any,
        registered_model_name: str,
        tags: Any = None,
        description: str | None = None,
        mlflow_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_name_or_template(registered_model_name)
        self.model = model
        self.registered_model_name = registered_model_name
        self.tags = tags
        self.description = description
        self.mlflow_conn_id = mlflow_conn_id

    def execute(self, context: Context) -> ModelRef | dict[str, Any]:
        check_registered_model_name(self.registered_model_name)
        if self.tags is not None and not isinstance(self.tags, Mapping):
            raise TypeError(f"tags must be a dict, got {self.tags!r}")
        ref = dated(self.resolve(self.model), context)
        version = register_version(
            self.hook.client,
            ref,
            self.registered_model_name,
            {**actor_tags(identity_of(context)), **(self.tags or {})},
            description=self.description,
        )
        ref = ref.at(version=version, registered_model_name=self.registered_model_name)
        self.show_run(context, ref.experiment_id, ref.mlflow_run_id)
        self.show_model(context, self.registered_model_name, version)
        note_model(context, ref, "written", "registered")
        log.info("%s is version %s of %r", ref.model_uri, version, self.registered_model_name)
        return to_xcom(ref)


def check_name_or_template(name: Any) -> None:
    """Raise for a registered model name that is wrong and no template, when the DAG file is parsed."""
    if isinstance(name, str) and ("{{" in name or "{%" in name):
        return
    if isinstance(name, str):
        check_registered_model_name(name)


def actor_tags(identity: TaskIdentity) -> dict[str, str]:
    """Tags that say which task instance made a model version, and for which slice of data."""
    tags = {
        "airflow.dag_id": identity.dag_id,
        "airflow.dag_run_id": identity.run_id,
        "airflow.task_id": identity.task_id,
        "airflow.map_index": str(identity.map_index),
    }
    return tags if identity.slice is None else {**tags, "airflow.slice": identity.slice}
