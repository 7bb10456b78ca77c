# SPDX-License-Identifier: Apache-2.0
"""Wait for a version of a registered model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue
from airflow.sdk.configuration import conf

from airflow_ml_provider.assets.handlers import check_alias, check_registered_model_name
from airflow_ml_provider.exceptions import ModelWaitError
from airflow_ml_provider.operators.base import to_xcom, with_connection
from airflow_ml_provider.tracking.models import ModelRef
from airflow_ml_provider.tracking.waiting import Wanted, find_version

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


class ModelVersionSensor(BaseSensorOperator):  # type: ignore[misc]
    """
    Wait until a registered model has a version that fulfils all that is asked; return its ``ModelRef``.

    Without any condition, the first version will do. Of several the newest is returned. A model that is not
    registered yet is waited for.

    .. versionadded:: 0.1.0

    :param registered_model_name: Name of the model in the MLflow registry. (templated)
    :param alias: The version that this alias points at is waited for. (templated)
    :param min_version: The least number of the version.
    :param tags: Tags of the version, with their values; None for any value. (templated)
    :param metrics: The least value of each metric of the model, or of the run that made it.
    :param mlflow_conn_id: Connection of the tracking server; by default ``[ml_provider] mlflow_conn_id``.
    :param deferrable: Wait in the triggerer, where all who wait for the same share its requests; by default
        as ``[operators] default_deferrable`` says.
    """

    template_fields: Sequence[str] = ("registered_model_name", "alias", "tags")
    ui_color = "#e6f1f2"

    def __init__(
        self,
        *,
        registered_model_name: str,
        alias: str | None = None,
        min_version: int | None = None,
        tags: Mapping[str, str | None] | None = None,
        metrics: Mapping[str, float] | None = None,
        mlflow_conn_id: str | None = None,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        if isinstance(registered_model_name, str) and "{" not in registered_model_name:
            check_registered_model_name(registered_model_name)
        if isinstance(alias, str) and "{" not in alias:
            check_alias(alias)
        self.registered_model_name = registered_model_name
        self.alias = alias
        self.min_version = min_version
        self.tags = dict(tags or {})
        self.metrics = dict(metrics or {})
        self.mlflow_conn_id = mlflow_conn_id
        self.deferrable = deferrable
        self._wanted()  # refuses what is wrong whatever it renders to

    def poke(self, context: Context) -> PokeReturnValue:
        hook = self._hook()
        found = find_version(hook.client, self._wanted())
        if found is None:
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(is_done=True, xcom_value=self._result(found))

    def execute(self, context: Context) -> Any:
        check_registered_model_name(self.registered_model_name)
        if self.alias is not None:
            check_alias(self.alias)
        if not self.deferrable:
            return super().execute(context)
        from airflow_ml_provider.triggers.model_version import ModelVersionTrigger

        seen = self.poke(context)
        if seen.is_done:
            return seen.xcom_value
        self.defer(
            trigger=ModelVersionTrigger(
                self._wanted().to_json(), self.mlflow_conn_id, poll_interval=self.poke_interval
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:
        """
        End the wait with what the trigger found.

        :raises ModelWaitError: if it could not go on looking.
        """
        if event.get("status") != "found":
            raise ModelWaitError(str(event.get("message")))
        return self._result(ModelRef.from_json(event["model"]))

    def _wanted(self) -> Wanted:
        return Wanted(self.registered_model_name, self.alias, self.min_version, self.tags, self.metrics)

    def _hook(self) -> Any:
        from airflow_ml_provider.hooks.mlflow import MlflowHook
        from airflow_ml_provider.settings import load_settings

        return MlflowHook(self.mlflow_conn_id or load_settings().mlflow_conn_id)

    def _result(self, found: ModelRef) -> Any:
        log.info("Found %s: version %s of %r", self._wanted(), found.version, found.registered_model_name)
        return to_xcom(with_connection(found, self._hook()))
