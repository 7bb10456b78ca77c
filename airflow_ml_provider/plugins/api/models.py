# SPDX-License-Identifier: Apache-2.0
"""
The models of the navigation page.

A model is shown to whoever may read one of the DAGs that registered it or moved its aliases; what the other
ones did to it is left out and counted.
"""

# No "from __future__ import annotations" here: FastAPI reads the annotations of endpoints.

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.objects import at_once
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import ArtifactNotFoundError, ModelNotFoundError
from airflow_ml_provider.lineage import index
from airflow_ml_provider.lineage.answers import Model, Page, RegisteredVersion
from airflow_ml_provider.lineage.diff import diff_models
from airflow_ml_provider.lineage.queries import Queries
from airflow_ml_provider.lineage.records import TaskRecord, makers_of_model
from airflow_ml_provider.plugins.api import cursors, shapes
from airflow_ml_provider.plugins.api.access import ANY_DAG, Access, AccessDep
from airflow_ml_provider.plugins.api.answers import invalid, not_found
from airflow_ml_provider.plugins.api.evaluations import champions_of, evaluations_of_dag
from airflow_ml_provider.plugins.api.hints import hints_for
from airflow_ml_provider.plugins.api.lineage import graph_node
from airflow_ml_provider.plugins.api.parameters import (
    VERSION_PATTERN,
    Alias,
    Cursor,
    Limit,
    LineageDep,
    ModelName,
    NameCursor,
    QueriesDep,
    Search,
    StoreDep,
)
from airflow_ml_provider.plugins.api.shapes import Json, Shapes, when

router = APIRouter(prefix="/models", dependencies=ANY_DAG)

_MOVES, _VERDICTS = "m:", "v:"
_MOST_VERSIONS = 200
# How many versions of a model may be others' before it counts as theirs.
_LOOKED_AT = 10
_LEAST_OF_A_DAG = 20
# A DAG that judges a model for the first time is seen a minute later, unless the model got a version since.
_REMEMBERED_SECONDS = 60.0
_used: dict[tuple[str, str, str], tuple[float, frozenset[str]]] = {}
_lock = threading.Lock()
_ATTEMPT = ("dag_id", "run_id", "task_id", "map_index", "try_number")


@router.get("")
def models(
    access: AccessDep,
    queries: QueriesDep,
    store: StoreDep,
    search: Search = "",
    limit: Limit = 50,
    cursor: NameCursor = None,
) -> Json:
    """Return registered models by name."""
    items: list[Json] = []
    while len(items) < limit:
        page = queries.models(search, limit=limit - len(items), cursor=cursor)
        shown = at_once(lambda each: _summary(each, queries, store, access), page.items)
        items.extend(each for each in shown if each is not None)
        cursor = page.cursor
        if cursor is None:
            break
    return {"items": items, "next": cursor}


@router.get("/{name}")
def model(name: ModelName, access: AccessDep, queries: QueriesDep, store: StoreDep) -> Json:
    """Return a model, and what one could do about it."""
    found = queries.model(name)
    shown = _summary(found, queries, store, access)
    if shown is None:
        raise not_found("model of this name")
    return {**shown, "hints": hints_for(found, access)}


@router.get("/{name}/versions")
def versions(
    name: ModelName,
    access: AccessDep,
    queries: QueriesDep,
    store: StoreDep,
    limit: Limit = 25,
    cursor: Cursor = None,
    version: Annotated[str | None, Query(pattern=VERSION_PATTERN)] = None,
) -> Json:
    """Return the versions of a model, the latest first; or one of them, which may be far from the latest."""
    found = queries.model(name)
    if _summary(found, queries, store, access) is None:
        raise not_found("model of this name")
    if version is None:
        page = queries.model_versions(name, limit=limit, cursor=cursor)
    else:
        one = queries.model_version(name, version)
        page = Page(() if one is None else (one,))
    aliases = _visible_aliases(found, access)
    pointing: dict[str, list[str]] = {}
    for alias, move in aliases.items():
        pointing.setdefault(str(move.version), []).append(alias)
    shown = at_once(lambda each: _version(each, pointing, queries, store, access), page.items)
    return {
        "items": [each for each in shown if each is not None],
        "hidden": sum(each is None for each in shown),
        "next": page.cursor,
    }


@router.get("/{name}/timeline")
def timeline(
    name: ModelName,
    access: AccessDep,
    queries: QueriesDep,
    store: StoreDep,
    alias: Alias = None,
    clock: Annotated[Literal["data", "wall"], Query()] = "data",
    limit: Limit = 50,
    cursor: cursors.WideCursor = None,
) -> Json:
    """
    Return the moves of a model's aliases and the decisions that moved nothing, the latest first.

    A page has up to ``limit`` moves and as many decisions of each alias. Decisions are listed by wall clock:
    by data time, a page may hold one that is later than some of the page before.
    """
    found = queries.model(name)
    if _summary(found, queries, store, access) is None:
        raise not_found("model of this name")
    aliases = sorted(_visible_aliases(found, access))
    made = Shapes.of(access.may_read)
    hidden = 0
    items: list[Json] = []
    wanted = [alias] if alias is not None else aliases
    begins = _begins([f"{what}{each}" for each in wanted for what in (_MOVES, _VERDICTS)], cursor)
    rest: dict[str, str] = {}
    for place, begin in begins.items():
        each = place[len(_MOVES) :]
        if place.startswith(_MOVES):
            moves = queries.moves(name, each, clock=clock, limit=limit, cursor=begin)
            shown = [move for move in moves.items if access.may_read(move.actor.get("dag_id"))]
            hidden += len(moves.items) - len(shown)
            items += (made.move(move) for move in shown)
            following = moves.cursor
        else:
            verdicts = queries.verdicts(name, each, limit=limit, cursor=begin)
            # What moved an alias is in the ledger already.
            items += (made.verdict(one) for one in verdicts.items if not one.further.get("moved"))
            following = verdicts.cursor
        if following is not None:
            rest[place] = following

    def latest(entry: Json) -> tuple[str, str]:
        times = (entry["effective_at"] or "", entry["recorded_at"] or "")
        return times if clock == "data" else (times[1], times[0])

    items.sort(key=latest, reverse=True)
    return {
        "items": items,
        "aliases": aliases,
        "hidden": hidden,
        "next": cursors.written(rest) if rest else None,
    }


def _begins(lists: Sequence[str], cursor: str | None) -> dict[str, str | None]:
    """Say where each list begins on a page; those that came to their end are on no further one."""
    if cursor is None:
        return dict.fromkeys(lists)
    try:
        said = cursors.read(cursor)
        return {each: str(said[each]) for each in lists if each in said}
    except (ValueError, TypeError) as exc:
        raise invalid("cursor: it is not what a page gave") from exc


@router.get("/{name}/evaluations")
def evaluations(
    name: ModelName,
    access: AccessDep,
    queries: QueriesDep,
    store: StoreDep,
    limit: Limit = 80,
    cursor: cursors.WideCursor = None,
) -> Json:
    """
    Return the evaluations of a model in all DAGs that judged it, the latest data time first.

    A page has the latest runs of each of these DAGs, about ``limit`` evaluations in all.
    """
    questions: list[Callable[[], Any]] = [
        lambda: _summary(queries.model(name), queries, store, access),
        lambda: queries.model_versions(name, limit=_MOST_VERSIONS).items,
        lambda: champions_of([name], queries, access),
    ]
    shown, known, (champions, hidden) = at_once(lambda ask: ask(), questions)
    if shown is None:
        raise not_found("model of this name")
    made = Shapes.of(access.may_read)
    versions_by_id = {each.model_id: each.version for each in known if each.model_id}
    dags = _dags_that_used(known, queries, store)
    begins = dict.fromkeys(dags) if cursor is None else _places(cursor, dags)
    items: list[Json] = []
    rest: dict[str, str] = {}
    share = max(_LEAST_OF_A_DAG, limit // max(1, len(begins)))
    for dag_id, place in begins.items():
        judged, after = evaluations_of_dag(
            queries, dag_id, made, limit=share, cursor=place, model=name, versions=versions_by_id
        )
        items.extend(judged)
        if after is not None:
            rest[dag_id] = after
    items.sort(key=lambda each: each["effective_at"] or "", reverse=True)
    return {
        "items": items,
        "models": [name],
        "names": sorted({metric for each in items for metric in each["metrics"]}),
        "champions": champions,
        "hidden": hidden if cursor is None else 0,
        "next": cursors.written(rest) if rest else None,
    }


def _places(cursor: str, dags: Iterable[str]) -> dict[str, str | None]:
    """Read where each DAG goes on, of these DAGs alone."""
    try:
        said = cursors.read(cursor)
        return {dag_id: index.check_metrics_name(said[dag_id]) for dag_id in dags if dag_id in said}
    except (ValueError, TypeError) as exc:
        raise invalid("cursor: it is not what a page gave") from exc


@router.get("/{name}/diff")
def diff(
    name: ModelName,
    access: AccessDep,
    lineage: LineageDep,
    before: Annotated[str, Query(alias="from", pattern=VERSION_PATTERN)],
    after: Annotated[str, Query(alias="to", pattern=VERSION_PATTERN)],
) -> Json:
    """Return what changed between two versions of a model."""
    try:
        found = diff_models(lineage, f"models:/{name}/{before}", f"models:/{name}/{after}")
    except (ArtifactNotFoundError, ModelNotFoundError, LookupError) as exc:
        raise not_found("such version of this model") from exc
    told: Json = shapes.plain(found.to_json())
    told["from"], told["to"] = (graph_node(each, access) for each in (found.before, found.after))
    del told["before"], told["after"]
    return told


def _dags_that_used(
    versions: Sequence[RegisteredVersion], queries: Queries, store: ArtifactStore
) -> list[str]:
    """Return the DAGs, of those that the user may see, whose tasks read a version of a model."""
    known = {keys.segment(dag_id): dag_id for dag_id in queries.dags()}
    return sorted(known[folder] for folder in _folders_of_users(versions, store) if folder in known)


def _folders_of_users(versions: Sequence[RegisteredVersion], store: ArtifactStore) -> frozenset[str]:
    """Return the DAGs whose tasks read a version, as keys name them. A list request each, once a minute."""
    if not versions:
        return frozenset()
    key = (store.objects.root, versions[0].registered_model_name, versions[0].version)
    now = time.monotonic()
    with _lock:
        for old in [each for each, (when_read, _) in _used.items() if now - when_read > _REMEMBERED_SECONDS]:
            del _used[old]
        if key in _used:
            return _used[key][1]
    prefixes = [keys.model_edges_prefix(each.model_key, "read") for each in versions]
    folders = at_once(lambda prefix: list(store.objects.children(prefix.rstrip("/"))), prefixes)
    found = frozenset(folder for each in folders for folder in each)
    with _lock:
        _used[key] = (now, found)
    return found


def _visible_aliases(found: Model, access: Access) -> dict[str, Any]:
    return {alias: move for alias, move in found.aliases.items() if access.may_read(move.actor.get("dag_id"))}


def _summary(found: Model, queries: Queries, store: ArtifactStore, access: Access) -> Json | None:
    """Describe a model; None if the user may see nothing of it."""
    aliases = _visible_aliases(found, access)
    versions = queries.model_versions(found.name, limit=1 if aliases else _LOOKED_AT).items
    if not aliases and not any(_visible_makers(each, store, access) for each in versions):
        return None
    latest = versions[0] if versions else None
    pages = Shapes.of(access.may_read).pages
    moves = [aliases[alias] for alias in sorted(aliases)]
    dags = {move.actor["dag_id"] for move in moves if move.actor.get("dag_id")}
    return {
        "name": found.name,
        "aliases": [
            {
                "alias": move.alias,
                "version": move.version,
                "since": when(move.effective_at),
                "recorded_at": when(move.recorded_at),
                "kind": move.kind,
                "metrics": shapes.numbers(move.metrics),
            }
            for move in moves
        ],
        "hidden": len(found.aliases) - len(aliases),
        "latest_version": None if latest is None else latest.version,
        "last_change": when(max((move.recorded_at for move in moves), default=None)),
        "dags": sorted(dags),
        "mlflow_model_url": pages.model(found.name),
    }


def _visible_makers(found: RegisteredVersion, store: ArtifactStore, access: Access) -> list[Json]:
    """Who trained, registered or promoted a version, as far as the user may see them."""
    edges = makers_of_model(store.objects, found.model_key)
    return [edge for edge in edges if access.may_read(edge.get("dag_id"))]


def _version(
    found: RegisteredVersion,
    pointing: dict[str, list[str]],
    queries: Queries,
    store: ArtifactStore,
    access: Access,
) -> Json | None:
    """Describe a version; None if the user may see none of the attempts that made it."""
    makers = _visible_makers(found, store, access)
    if not makers:
        return None
    made = Shapes.of(access.may_read)
    trained = _attempt_of(makers, ("trained",), queries)
    registered = _attempt_of(makers, ("registered", "promoted"), queries)
    described = {
        "model_uri": f"models:/{found.registered_model_name}/{found.version}",
        "registered_model_name": found.registered_model_name,
        "version": found.version,
        "model_id": found.model_id,
        "mlflow_run_id": found.mlflow_run_id,
        "experiment_id": None if trained is None else trained.experiment_id,
    }
    source = trained or registered
    return {
        **made.model(described, None if source is None else source.metrics),
        "params": {} if trained is None else shapes.plain(trained.params),
        "aliases": sorted(pointing.get(str(found.version), ())),
        "recorded_at": None if source is None else when(source.recorded_at),
        "effective_at": None if source is None else when(source.effective_at),
        "trained_by": shapes.task(trained),
        "registered_by": shapes.task(registered),
        "decision": None if registered is None else made.decision(registered.promotion, registered),
        "code": {} if trained is None else shapes.plain(trained.code),
    }


def _attempt_of(makers: list[Json], roles: tuple[str, ...], queries: Queries) -> TaskRecord | None:
    """Return the record of the last attempt that played one of these parts; None if there is none."""
    edges = [edge for edge in makers if edge.get("role") in roles]
    if not edges:
        return None
    last = max(edges, key=lambda edge: str(edge.get("recorded_at")))
    try:
        return queries.attempt(*(last[name] for name in _ATTEMPT))
    except ArtifactNotFoundError:
        return None  # the edge is there and the record is not: it was cleaned up by hand
