# SPDX-License-Identifier: Apache-2.0
"""
Buttons on a task's page that lead to its run and its model in MLflow.

Airflow asks an operator for its links when the task ends and keeps the answers as XComs. We push the same
text as soon as it is known, so that the button works while the task runs.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context
    from airflow.sdk.types import TaskInstanceKey

log = logging.getLogger(__name__)


class KeptLink(BaseOperatorLink):
    """A link whose URL is known when the task has run some way; it is kept on the operator until the end."""

    def publish(self, operator: Any, context: Context, url: str | None) -> None:
        """
        Show the link from now on.

        A link only observes: a failure to show it is logged and does not fail the task.
        """
        if not url or operator.__dict__.setdefault("_ml_links", {}).get(self.xcom_key) == url:
            return
        operator.__dict__["_ml_links"][self.xcom_key] = url
        try:
            context["ti"].xcom_push(key=self.xcom_key, value=url)
        except Exception:
            log.exception("could not show the link %r yet; Airflow tries again when the task ends", self.name)

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL that was published in this attempt, or an empty text, which shows no button."""
        url: str = operator.__dict__.get("_ml_links", {}).get(self.xcom_key, "")
        return url


class MlflowRunLink(KeptLink):
    """
    Leads to the MLflow run of a task.

    .. versionadded:: 0.1.0
    """

    name = "MLflow run"


class MlflowModelLink(KeptLink):
    """
    Leads to the registered model, or to the version of it, that a task made, moved or used.

    .. versionadded:: 0.1.0
    """

    name = "MLflow model"
