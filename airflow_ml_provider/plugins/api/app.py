# SPDX-License-Identifier: Apache-2.0
"""
The endpoints behind the ML pages: ``/ml-provider/api/v1``. See docs/reference/ui-api.md.

They are thin over ``lineage.queries`` and ``lineage.graph``, read only, and load no user data: manifests with
their previews, records and the ledger are all they open. They block on storage, so they are plain functions,
which FastAPI runs in threads.
"""

from __future__ import annotations

from typing import Any

API_PREFIX = "/ml-provider/api/v1"


def make_api() -> Any:
    """Make the app; the API server mounts it."""
    from fastapi import FastAPI

    from airflow_ml_provider.plugins.api import artifacts, dags, lineage, models, status, tasks
    from airflow_ml_provider.plugins.api.answers import Guard, handle_errors

    app = FastAPI(title="airflow-ml-provider", docs_url=None, redoc_url=None, openapi_url=None)
    handle_errors(app)
    app.add_middleware(Guard)
    for module in (status, lineage, tasks, dags, models, artifacts):
        app.include_router(module.router)
    return app
