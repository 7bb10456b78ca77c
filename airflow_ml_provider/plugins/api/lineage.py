# SPDX-License-Identifier: Apache-2.0
"""The lineage explorer, the graphs of the tabs, what changed between models, what a bad version reached."""

# No "from __future__ import annotations" here: FastAPI reads the annotations of endpoints.

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query

from airflow_ml_provider.exceptions import ArtifactNotFoundError, ModelNotFoundError
from airflow_ml_provider.lineage.blast import blast_radius
from airflow_ml_provider.lineage.graph import MODEL, Graph, Lineage, Node, node_of_version
from airflow_ml_provider.lineage.queries import Queries
from airflow_ml_provider.lineage.records import makers_of_model
from airflow_ml_provider.plugins.api import cursors, shapes
from airflow_ml_provider.plugins.api.access import ANY_DAG, ONE_DAG, Access, AccessDep
from airflow_ml_provider.plugins.api.answers import invalid, not_found
from airflow_ml_provider.plugins.api.parameters import (
    DagId,
    LineageDep,
    MapIndex,
    NodeId,
    QueriesDep,
    RunId,
    TaskId,
    TryNumber,
)
from airflow_ml_provider.plugins.api.runs_in_airflow import with_the_killed
from airflow_ml_provider.plugins.api.shapes import Json, node_of_move

router = APIRouter()

Nodes = Annotated[int, Query(ge=1, le=500)]
Depth = Annotated[int, Query(ge=0, le=50)]
# Addresses have their limits, and so have the places at which a large answer goes on.
_MOST_PENDING = 500
_MOST_FOUND = 50
_MOST_BLASTED = 2000


@router.get("/lineage", dependencies=ANY_DAG)
def explore(
    access: AccessDep,
    lineage: LineageDep,
    node: NodeId,
    direction: Annotated[Literal["up", "down", "both"], Query()] = "both",
    depth: Depth = 2,
    limit: Nodes = 200,
    cursor: cursors.WideCursor = None,
) -> Json:
    """Return what is around a node: its id, or an address such as ``models:/name@champion``."""
    root = _find(lineage, node)
    if cursor is None:
        found = lineage.explore(root, direction=direction, depth=depth, limit=limit)
        start = found.node(root)
        # What was never there answers as what may not be seen: neither has an edge to show.
        if start is None or (start.missing and not found.edges):
            raise not_found("such node")
    else:
        found = _valid(lambda: lineage.explore(pending=_pending(cursor), limit=limit))
    return graph(found, access, root=root)


@router.get("/lineage/search", dependencies=ANY_DAG)
def search(
    access: AccessDep,
    lineage: LineageDep,
    queries: QueriesDep,
    q: Annotated[str, Query(min_length=1, max_length=200)],
) -> Json:
    """Return artifacts and models whose name contains a text, as places to begin at."""
    items: list[Json] = []
    for model in queries.models(q, limit=_MOST_FOUND).items:
        moves = [
            (alias, move)
            for alias, move in sorted(model.aliases.items())
            if access.may_read(move.actor.get("dag_id")) and move.version is not None
        ]
        items.extend(
            {
                "node": node_of_move(move),
                "kind": "model",
                "label": f"{model.name} version {move.version}",
                "detail": alias,
                "time": shapes.when(move.effective_at),
            }
            for alias, move in moves
        )
        if not moves:
            items.extend(_latest_version(lineage, queries, model.name))
    for version in queries.artifacts(q, limit=_MOST_FOUND).items:
        items.append(
            {
                "node": node_of_version(version.name, version.version_id),
                "kind": "version",
                "label": version.name,
                "detail": f"{version.type}, the newest version",
                "time": shapes.when(version.effective_at),
            }
        )
    if not items:
        items = _named(lineage, q)
    return {"items": items[:_MOST_FOUND]}


@router.get("/lineage/blast", dependencies=ANY_DAG)
def blast(access: AccessDep, lineage: LineageDep, queries: QueriesDep, node: NodeId) -> Json:
    """Return what came from a version or a model, and the commands that make exactly that again."""
    root = _find(lineage, node)
    start = lineage.explore(root, depth=1, limit=2)
    first = start.node(root)
    if first is None or (first.missing and not start.edges):
        raise not_found("such node")
    found = blast_radius(lineage, root, limit=_MOST_BLASTED)
    told: Json = shapes.plain(found.to_json())
    for name in ("versions", "predictions", "models", "evaluations", "tasks"):
        told[name] = [graph_node(each, access) for each in with_the_killed(getattr(found, name))]
    told["origin"] = None if found.origin is None else graph_node(found.origin, access)
    told["node"] = graph_node(found.root, access)
    told["aliases"] = [each for each in told["aliases"] if _shows_alias(each, queries, access)]
    told["hidden"] += len(found.aliases) - len(told["aliases"])
    return told


@router.get("/dags/{dag_id}/runs/{run_id}/graph", dependencies=ONE_DAG)
def run_graph(
    dag_id: DagId, run_id: RunId, access: AccessDep, lineage: LineageDep, limit: Nodes = 300
) -> Json:
    """Return the graph of a run: its task instances and what they touched."""
    return graph(lineage.run(dag_id, run_id, limit=limit), access)


@router.get("/dags/{dag_id}/runs/{run_id}/tasks/{task_id}/graph", dependencies=ONE_DAG)
def task_graph(
    dag_id: DagId,
    run_id: RunId,
    task_id: TaskId,
    access: AccessDep,
    lineage: LineageDep,
    map_index: MapIndex = -1,
    try_number: TryNumber = None,
    depth: Depth = 1,
    limit: Nodes = 60,
) -> Json:
    """Return what is around an attempt; an empty graph for a task that left no record."""
    place = f"{dag_id}/{run_id}/{task_id}/{map_index}"
    try:
        root = lineage.find(place if try_number is None else f"{place}/{try_number}")
    except ArtifactNotFoundError:
        return graph(Graph(None, "both", (), ()), access)
    return graph(lineage.explore(root, depth=depth, limit=limit), access)


def graph(found: Graph, access: Access, *, root: str | None = None) -> Json:
    """Give a graph as the pages draw it."""
    return {
        "root": root or found.root,
        "nodes": [graph_node(each, access) for each in with_the_killed(found.nodes)],
        "edges": [each.to_json() for each in found.edges],
        "hidden": found.hidden,
        "truncated": found.truncated,
        "next": _written(found.continuation),
    }


def _written(pending: Sequence[Json]) -> str | None:
    """Write down where a graph goes on, at as many places as fit into an address."""
    kept = list(pending[:_MOST_PENDING])
    while kept:
        if (cursor := cursors.written(kept)) is not None:
            return cursor
        kept = kept[: len(kept) * 3 // 4]
    return None


def graph_node(found: Node, access: Access) -> Json:
    """Give a node as the pages draw it."""
    ids = shapes.task(found)
    details: Json = shapes.plain(found.details)
    cached = details.get("cached")
    if isinstance(cached, dict) and not access.may_read((cached.get("reused_from") or {}).get("dag_id")):
        cached["reused_from"] = None
    return {
        "id": found.id,
        "kind": found.kind,
        "label": found.label,
        "detail": _detail(found),
        "time": shapes.when(found.effective_at) or shapes.when(found.recorded_at),
        "recorded_at": shapes.when(found.recorded_at),
        "effective_at": shapes.when(found.effective_at),
        "started_at": shapes.when(found.started_at),
        "state": found.outcome,
        "missing": found.missing,
        "dag_id": found.dag_id,
        "run_id": found.run_id,
        # Of a task itself; of other things, who made them.
        "task": ids,
        "version": {"name": found.name, "version_id": found.version_id} if found.version_id else None,
        "type": found.type,
        "size_bytes": found.size_bytes,
        "prediction": found.prediction,
        "model": {
            "registered_model_name": found.registered_model_name,
            "version": found.version,
            "model_id": found.model_id,
            "model_uri": found.uri,
        }
        if found.kind == "model"
        else None,
        "uri": found.uri,
        "mlflow_run_id": found.mlflow_run_id,
        "metrics": shapes.numbers(found.metrics),
        "more": {"up": found.more_up, "down": found.more_down},
        "details": details,
    }


def _detail(found: Node) -> str | None:
    """Say in a few words what a node is; None where its metrics and times say it."""
    if found.missing:
        return found.missing
    if found.kind == "version":
        size = "" if found.size_bytes is None else f", {found.size_bytes:,} bytes"
        return f"{found.type or 'artifact'}{size}"
    if found.kind == "task":
        return f"{found.dag_id}, {found.outcome}"
    return None


def _shows_alias(found: Json, queries: Queries, access: Access) -> bool:
    move = queries.model(found["registered_model_name"]).aliases.get(found["alias"])
    return move is not None and access.may_read(move.actor.get("dag_id"))


def _find(lineage: Lineage, what: str) -> str:
    try:
        return lineage.find(what)
    except (ArtifactNotFoundError, ModelNotFoundError) as exc:
        raise not_found("such node") from exc
    except ValueError as exc:
        raise invalid(f"node: {exc}") from exc


def _latest_version(lineage: Lineage, queries: Queries, name: str) -> Iterator[Json]:
    """Find the latest version of a model without an alias, if the user may see who made it."""
    for found in queries.model_versions(name, limit=1).items:
        makers = makers_of_model(lineage.objects, found.model_key)
        if any(lineage.shows(maker.get("dag_id")) for maker in makers):
            yield {
                "node": f"{MODEL}:{found.model_key}",
                "kind": "model",
                "label": f"{name} version {found.version}",
                "detail": "the latest version",
                "time": None,
            }


def _named(lineage: Lineage, text: str) -> list[Json]:
    """Find what a text names exactly: a version's address, a run and task, an MLflow run."""
    try:
        root = lineage.find(text)
        found = lineage.explore(root, depth=0).node(root)
    except (ArtifactNotFoundError, ModelNotFoundError, ValueError):
        return []
    if found is None or (found.missing and found.dag_id is None):
        return []
    return [
        {
            "node": found.id,
            "kind": found.kind,
            "label": found.label,
            "detail": _detail(found),
            "time": shapes.when(found.effective_at) or shapes.when(found.recorded_at),
        }
    ]


def _pending(cursor: str) -> list[dict[str, Any]]:
    try:
        pending = cursors.read(cursor)
        return [
            {
                "node": str(item["node"]),
                "direction": {"up": "up", "down": "down"}[item["direction"]],
                "depth": None if item["depth"] is None else min(int(item["depth"]), 50),
                "after": None if item["after"] is None else str(item["after"]),
                # Else the nodes that come would hang in the air.
                "via": None
                if item["via"] is None
                else {name: str(item["via"][name]) for name in ("source", "target", "kind")},
            }
            for item in pending
        ][:_MOST_PENDING]
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise invalid("cursor: it is not what a page gave") from exc


def _valid(ask: Any) -> Graph:
    try:
        found: Graph = ask()
    except ValueError as exc:
        if isinstance(exc, ArtifactNotFoundError):
            raise
        raise invalid(exc) from exc
    return found
