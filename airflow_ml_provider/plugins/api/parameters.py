# SPDX-License-Identifier: Apache-2.0
"""What addresses may hold. Storage keys are made of it, so it is checked before anything is asked."""

# No "from __future__ import annotations" here: FastAPI reads the annotations of dependencies.

import copy
from typing import Annotated

from fastapi import Depends, Path, Query
from pydantic import AfterValidator

from airflow_ml_provider.artifacts.keys import check_version_id
from airflow_ml_provider.artifacts.refs import check_name
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.assets.handlers import check_alias, check_registered_model_name
from airflow_ml_provider.lineage.graph import Lineage
from airflow_ml_provider.lineage.queries import Queries
from airflow_ml_provider.plugins.api.access import AccessDep
from airflow_ml_provider.plugins.api.remembered import Remembered, RememberingObjects

_ID = r"^[^\x00-\x1f\x7f]+$"


def _model_name(name: str) -> str:
    check_registered_model_name(name)
    return name


def _alias(alias: str) -> str:
    check_alias(alias)
    return alias


DagId = Annotated[str, Path(min_length=1, max_length=250, pattern=_ID)]
RunId = Annotated[str, Path(min_length=1, max_length=250, pattern=_ID)]
TaskId = Annotated[str, Path(min_length=1, max_length=250, pattern=_ID)]
MapIndex = Annotated[int, Query(ge=-1, le=1_000_000)]
TryNumber = Annotated[int | None, Query(ge=0, le=100_000)]
OtherRunId = Annotated[str | None, Query(alias="with", min_length=1, max_length=250, pattern=_ID)]
OneDagId = Annotated[str, Query(alias="dag_id", min_length=1, max_length=250, pattern=_ID)]
Limit = Annotated[int, Query(ge=1, le=100)]
# Where a list goes on: after a key, or after a name.
Cursor = Annotated[str | None, Query(pattern=r"^[A-Za-z0-9_=.+/-]{1,900}$")]
NameCursor = Annotated[str | None, Query(min_length=1, max_length=300, pattern=_ID)]
Search = Annotated[str, Query(max_length=200)]
ArtifactName = Annotated[str, Query(max_length=200), AfterValidator(check_name)]
VersionId = Annotated[str | None, Query(max_length=60), AfterValidator(lambda v: v and check_version_id(v))]
ModelName = Annotated[str, Path(max_length=250), AfterValidator(_model_name)]
Alias = Annotated[str | None, Query(max_length=250), AfterValidator(lambda v: v and _alias(v))]
NodeId = Annotated[str, Query(min_length=1, max_length=2000, pattern=_ID)]
VERSION_PATTERN = r"^[0-9]{1,18}$"


_remembered = Remembered()


def _store() -> ArtifactStore:
    from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook

    store = copy.copy(ArtifactStoreHook().store)
    store.objects = RememberingObjects(store.objects, _remembered)
    return store


StoreDep = Annotated[ArtifactStore, Depends(_store)]


def _queries(access: AccessDep, store: StoreDep) -> Queries:
    return Queries(store, may_read=access.may_read)


def _lineage(access: AccessDep, store: StoreDep) -> Lineage:
    return Lineage(store, may_read=access.may_read)


QueriesDep = Annotated[Queries, Depends(_queries)]
LineageDep = Annotated[Lineage, Depends(_lineage)]
