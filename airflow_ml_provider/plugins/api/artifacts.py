# SPDX-License-Identifier: Apache-2.0
"""The artifacts of the navigation page: names, versions, who read them, how much they take."""

# No "from __future__ import annotations" here: FastAPI reads the annotations of endpoints.

from typing import Annotated

from fastapi import APIRouter, Query

from airflow_ml_provider.plugins.api import shapes
from airflow_ml_provider.plugins.api.access import ANY_DAG
from airflow_ml_provider.plugins.api.answers import not_found
from airflow_ml_provider.plugins.api.parameters import (
    ArtifactName,
    Cursor,
    Limit,
    NameCursor,
    QueriesDep,
    Search,
    VersionId,
)
from airflow_ml_provider.plugins.api.shapes import Json, when

router = APIRouter(prefix="/artifacts", dependencies=ANY_DAG)

_MOST_READERS = 50
_MOST_POINTS = 200


@router.get("")
def artifacts(
    queries: QueriesDep,
    search: Search = "",
    limit: Limit = 50,
    cursor: NameCursor = None,
    checkpoints: Annotated[bool, Query()] = False,
) -> Json:
    """Return artifacts by name, each with its newest version."""
    page = queries.artifacts(search, limit=limit, cursor=cursor, checkpoints=checkpoints)
    return {
        "items": [{"name": each.name, "latest": shapes.version(each)} for each in page.items],
        "next": page.cursor,
    }


@router.get("/versions")
def versions(queries: QueriesDep, name: ArtifactName, limit: Limit = 50, cursor: Cursor = None) -> Json:
    """Return the versions of an artifact, the one recorded last first."""
    page = queries.versions(name, limit=limit, cursor=cursor)
    if not page.items and cursor is None:
        raise not_found("artifact of this name")
    return {"items": [shapes.version(each) for each in page.items], "next": page.cursor}


@router.get("/version")
def version(queries: QueriesDep, name: ArtifactName, version_id: VersionId = None) -> Json:
    """Return one version with its schema, its preview and who read it."""
    found = queries.version(name, version_id)
    readers = queries.readers(found.version_id, limit=_MOST_READERS)
    return {
        "version": shapes.version_detail(found),
        "readers": [
            {"task": shapes.task(each), "outcome": each.outcome, "recorded_at": when(each.recorded_at)}
            for each in readers.items
        ],
        "readers_more": readers.cursor is not None,
    }


@router.get("/growth")
def growth(queries: QueriesDep, name: ArtifactName) -> Json:
    """Return what the newest versions of an artifact take, and what of it they share."""
    found = queries.storage(name, limit=_MOST_POINTS)
    if not found.versions:
        raise not_found("artifact of this name")
    return {
        "name": name,
        "versions": len(found.versions),
        "complete": found.complete,
        "bytes_logical": found.size_bytes,
        "bytes_stored": found.stored_bytes,
        "bytes_shared": found.size_bytes - found.stored_bytes,
        "points": [
            {
                "version_id": each.version_id,
                "recorded_at": when(each.recorded_at),
                "size_bytes": each.size_bytes,
                "new_bytes": each.new_bytes,
            }
            for each in reversed(found.versions)
        ],
    }
