# SPDX-License-Identifier: Apache-2.0
"""
Who may see what: Airflow's own answer, asked once for each request.

Whatever a task left belongs to its DAG. A list shows what the DAGs that a user may read left, as Airflow's
own lists do; an address that names a DAG needs the right to read that DAG's XComs. What no DAG made (saved by
a script, moved by hand) is shown to everybody who is let in, as Airflow shows asset events without a DAG.
"""

# No "from __future__ import annotations" here: FastAPI reads the annotations of dependencies.

import functools
from typing import Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.models.dag import DagModel
from fastapi import Depends, HTTPException

FORBIDDEN = "You may not read this, or it is not there."


class Access:
    """
    What one user may see, for the length of one request.

    :param user: As Airflow authenticated it.
    :param auth_manager: Airflow's auth manager.
    """

    def __init__(self, user: Any, auth_manager: Any) -> None:
        self.user = user
        self._manager = auth_manager
        self._asked: dict[str, bool] = {}

    @functools.cached_property
    def _readable(self) -> set[str]:
        found: set[str] = self._manager.get_authorized_dag_ids(user=self.user, method="GET")
        return found

    def may_read(self, dag_id: str | None) -> bool:
        """Whether the user may see what a DAG left; None: what no DAG made."""
        if not dag_id:
            return True
        if dag_id not in self._asked:
            self._asked[dag_id] = dag_id in self._readable or self._may_read_deleted(dag_id)
        return self._asked[dag_id]

    def may_see_questions(self, dag_id: str) -> bool:
        """Whether the user may see what tasks of a DAG ask people."""
        if not self.may_read(dag_id):
            return False
        return bool(
            self._manager.is_authorized_dag(
                method="GET",
                access_entity=DagAccessEntity.HITL_DETAIL,
                details=DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id)),
                user=self.user,
            )
        )

    def may_read_configuration(self) -> bool:
        """Whether the user may see the deployment's configuration."""
        return bool(self._manager.is_authorized_configuration(method="GET", user=self.user))

    def _may_read_deleted(self, dag_id: str) -> bool:
        """Ask about a DAG that Airflow knows no more, whose artifacts are still there."""
        from airflow.configuration import conf
        from airflow.utils.session import create_session
        from sqlalchemy import select

        if conf.getboolean("core", "multi_team", fallback=False):
            return False  # whose team it was is gone with it
        with create_session() as session:
            if session.scalar(select(DagModel.dag_id).where(DagModel.dag_id == dag_id)) is not None:
                return False
        details = DagDetails(id=dag_id)
        return bool(self._manager.is_authorized_dag(method="GET", details=details, user=self.user))


def _access(user: GetUserDep) -> Access:
    return Access(user, get_auth_manager())


AccessDep = Annotated[Access, Depends(_access)]


def _requires_some_dag(access: AccessDep) -> None:
    """Let in who may read XComs at all, as Airflow does for its own lists across DAGs."""
    allowed = get_auth_manager().is_authorized_dag(
        method="GET", access_entity=DagAccessEntity.XCOM, details=DagDetails(id=None), user=access.user
    )
    if not allowed:
        raise HTTPException(403, FORBIDDEN)


# Of addresses that name a DAG, and of those that do not.
ONE_DAG = [Depends(requires_access_dag("GET", DagAccessEntity.XCOM))]
ANY_DAG = [Depends(_requires_some_dag)]
