# SPDX-License-Identifier: Apache-2.0
"""What the pages show of the deployment itself."""

from typing import Any

from fastapi import APIRouter

import airflow_ml_provider
from airflow_ml_provider.plugins.api.access import ANY_DAG, AccessDep
from airflow_ml_provider.plugins.api.mlflow_pages import mlflow_pages
from airflow_ml_provider.settings import load_settings

router = APIRouter(dependencies=ANY_DAG)


@router.get("/status")
def status(access: AccessDep) -> dict[str, Any]:
    """Tell the release, the user and where MLflow's pages are."""
    settings = load_settings()
    pages = mlflow_pages()
    return {
        "version": airflow_ml_provider.__version__,
        "user": access.user.get_name(),
        "mlflow": {"configured": pages.configured, "url": pages.url},
        "artifact_root": settings.artifact_root if access.may_read_configuration() else None,
    }
