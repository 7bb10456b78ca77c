# SPDX-License-Identifier: Apache-2.0
"""
What made a version, a model or an evaluation, and what came from it, across DAGs and runs.

The graph is walked, not stored: records say what an attempt touched, and reverse edges lead from a thing to
the attempts. A step costs one or two requests for each node that it shows, those of a level at once; nothing
is scanned and neither MLflow nor any user's data are asked for.

What a record names and the store no longer has is a node too, whose ``missing`` says what is gone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qs, quote, unquote, urlsplit

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.objects import at_once
from airflow_ml_provider.exceptions import (
    ArtifactError,
    ArtifactNotFoundError,
    ModelNotFoundError,
    StoreError,
)
from airflow_ml_provider.lineage import records

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.store import ArtifactStore

Json = dict[str, Any]
Direction = Literal["up", "down", "both"]

VERSION, MODEL, TASK, EVALUATION, EVENT, RUN, ASSET = (
    "version",
    "model",
    "task",
    "evaluation",
    "event",
    "run",
    "asset",
)
# What a task does with a model that it did not make; whoever trained it is upstream, these are downstream.
_ACTS_ON = ("registered", "promoted")
_VERSION_AT_END = re.compile(r"@([0-9a-f]{15}-[0-9a-f]{15}-[0-9a-f]{12})$")
_OWN_SCHEMES = ("ml-artifact://", "mlflow://")
_SHOWN_MAKERS = 20
# So many neighbours are listed of a node where the walk ends, to say whether there are more.
_PEEK = 3
_DECISION = ("verdict", "registered_model_name", "alias", "version", "previous_version", "reasons")
_BY_EVENTS = ("emitted", "triggered", "ran")


@dataclass(frozen=True)
class Node:
    """
    A thing in the graph.

    :param kind: ``version`` (of an artifact), ``model``, ``task`` (one attempt), ``evaluation``, ``event``
        (of an asset), ``run`` (of a DAG, where an event started it) or ``asset`` (declared, no versions).
    :param dag_id: Of a task, its own; of other things, that of the task that made them.
    :param metrics: Of the task, model or evaluation.
    :param prediction: A model scored this version.
    :param missing: What is gone or was never written; None if nothing is.
    :param more_up: Something upstream is there that the answer does not show.
    :param details: Further small facts, by kind.
    """

    id: str
    kind: str
    label: str
    dag_id: str | None = None
    run_id: str | None = None
    task_id: str | None = None
    map_index: int | None = None
    try_number: int | None = None
    name: str | None = None
    version_id: str | None = None
    model_id: str | None = None
    registered_model_name: str | None = None
    version: str | None = None
    mlflow_run_id: str | None = None
    uri: str | None = None
    outcome: str | None = None
    type: str | None = None
    size_bytes: int | None = None
    started_at: str | None = None
    recorded_at: str | None = None
    effective_at: str | None = None
    metrics: Json = field(default_factory=dict, hash=False)
    prediction: bool = False
    missing: str | None = None
    more_up: bool = False
    more_down: bool = False
    details: Json = field(default_factory=dict, hash=False)

    def to_json(self) -> Json:
        """Give plain JSON."""
        doc = {name: getattr(self, name) for name in self.__dataclass_fields__}
        doc["more"] = {"up": doc.pop("more_up"), "down": doc.pop("more_down")}
        return doc


@dataclass(frozen=True, order=True)
class Edge:
    """Data flows from ``source`` to ``target``, which are ids of nodes."""

    source: str
    target: str
    kind: str

    def to_json(self) -> Json:
        """Give plain JSON."""
        return {"source": self.source, "target": self.target, "kind": self.kind}


@dataclass(frozen=True)
class Graph:
    """
    A part of the graph.

    :param hidden: Nodes that are left out because the caller may not see their DAG.
    :param truncated: There is more within the depth that was asked for; ``continuation`` gets it.
    """

    root: str | None
    direction: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    hidden: int = 0
    truncated: bool = False
    continuation: tuple[Json, ...] = ()

    def to_json(self) -> Json:
        """Give plain JSON."""
        return {
            "root": self.root,
            "direction": self.direction,
            "nodes": [node.to_json() for node in self.nodes],
            "edges": [edge.to_json() for edge in self.edges],
            "hidden": self.hidden,
            "truncated": self.truncated,
            "continuation": [dict(item) for item in self.continuation],
        }

    def node(self, node_id: str) -> Node | None:
        """Return a node of this part."""
        return next((node for node in self.nodes if node.id == node_id), None)


@dataclass(frozen=True)
class _Step:
    """A node to look at: in which direction to go on, how far, and after which of its neighbours."""

    node: str
    direction: str
    depth: int | None
    after: str | None = None
    via: Edge | None = None

    def to_json(self, *, events: bool) -> Json:
        return {
            "node": self.node,
            "direction": self.direction,
            "depth": self.depth,
            "after": self.after,
            "via": None if self.via is None else self.via.to_json(),
            "events": events,
        }

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> _Step:
        via, after = doc.get("via"), doc.get("after")
        if after is not None and not isinstance(after, str):
            raise ValueError(f"not a step of an earlier answer: {doc!r}")
        if doc.get("direction") not in ("up", "down"):
            raise ValueError(f"not a step of an earlier answer: {doc!r}")
        edge = None if via is None else Edge(str(via["source"]), str(via["target"]), str(via["kind"]))
        depth = doc.get("depth")
        return cls(str(doc["node"]), doc["direction"], None if depth is None else int(depth), after, edge)


@dataclass
class _View:
    """What is known of a node after looking at it."""

    node: Node
    up: list[tuple[Edge, str]] = field(default_factory=list)
    down: list[tuple[Edge, str]] = field(default_factory=list)
    more_down: bool = False
    after: str | None = None
    """Where the list of what is downstream goes on."""


def node_of_version(name: str, version_id: str) -> str:
    """Return the id of an artifact version's node."""
    return f"{VERSION}:{quote(name, safe='/')}@{version_id}"


def node_of_model(model: Mapping[str, Any]) -> str | None:
    """Return the id of a model's node, of a model as a record or the ledger names it; None without a name."""
    key = records.model_key(model)
    return None if key is None else f"{MODEL}:{key}"


def node_of_task(
    dag_id: str, run_id: str, task_id: str, map_index: int | None = -1, try_number: int = 1
) -> str:
    """Return the id of an attempt's node."""
    place = -1 if map_index is None else int(map_index)
    return f"{TASK}:{_quoted(dag_id)}/{_quoted(run_id)}/{_quoted(task_id)}/{place}/{int(try_number)}"


def node_of_evaluation(mlflow_run_id: str) -> str:
    """Return the id of an evaluation's node."""
    return f"{EVALUATION}:{mlflow_run_id}"


def node_of_event(uri: str, source: Mapping[str, Any] | None, timestamp: str | None) -> str:
    """Return the id of an asset event's node."""
    return f"{EVENT}:{quote(uri, safe='')}#{records.event_id(source, timestamp)}"


def node_of_run(dag_id: str, run_id: str) -> str:
    """Return the id of a DAG run's node."""
    return f"{RUN}:{_quoted(dag_id)}/{_quoted(run_id)}"


class Lineage:
    """
    Walks the graph of one artifact store.

    :param store: Where records and manifests are.
    :param may_read: Whether the caller may see what a DAG left. Nodes of other DAGs are counted and neither
        shown nor crossed.
    """

    def __init__(self, store: ArtifactStore, may_read: Callable[[str], bool] | None = None) -> None:
        self.store = store
        self.objects = store.objects
        self._may_read = may_read
        self._allowed: dict[str, bool] = {}
        self._records: dict[str, Json | None] = {}
        self._uses: dict[str, Json] = {}
        self._raised: dict[str, Json] = {}

    # -- finding where to begin

    def find(
        self, what: str, *, as_of: datetime | None = None, clock: Literal["data", "wall"] = "data"
    ) -> str:
        """
        Return the id of the node that a text names.

        :param what: A node's id; ``ml-artifact://<name>?version=<id>``; the name of an artifact, for its
            newest version; ``models:/<name>/<version>``, ``models:/<name>@<alias>`` or ``models:/m-...``;
            ``<dag>/<run>/<task>``, with ``/<map index>`` and ``/<try>`` where they are not -1 and the last.
        :param as_of: The version that an artifact had, or that an alias pointed at, then; with a zone.
        :param clock: What ``as_of`` is: data time, or the wall's.
        :raises ArtifactNotFoundError: if there is no such artifact or attempt.
        :raises ModelNotFoundError: if no record or ledger knows the model.
        """
        if what.partition(":")[0] in (VERSION, MODEL, TASK, EVALUATION, EVENT, RUN, ASSET) and not (
            what.startswith("models:")
        ):
            _parsed(what)
            return what
        if what.startswith("models:/"):
            return self._find_model(what, as_of, clock)
        if what.startswith("mlflow://"):
            name, _, alias = what.removeprefix("mlflow://").rpartition("/")
            return self._find_model(f"models:/{unquote(name)}@{unquote(alias)}", as_of, clock)
        if what.startswith("ml-artifact://"):
            parts = urlsplit(what)
            version = parse_qs(parts.query).get("version", [None])[0]
            return self._find_version(unquote(parts.netloc + parts.path), version, as_of, clock)
        found = self._find_attempt(what)
        if found is not None:
            return found
        try:
            return self._find_version(what, None, as_of, clock)
        except ArtifactNotFoundError as exc:
            if what.count("/") < 2:
                raise
            raise ArtifactNotFoundError(f"{exc}; {self._nor_a_task(what)}") from exc

    def _nor_a_task(self, what: str) -> str:
        """Say that a text names no attempt, and how mapped tasks are named."""
        folder = "/".join(("records", *(keys.segment(part) for part in what.split("/")[:3])))
        indexes = [int(each) for each in self.objects.children(folder)] if what.count("/") == 2 else []
        if indexes:
            return f"the task of this name is mapped, add the index of an instance: {what}/{min(indexes)}"
        return "nor did a task leave a record (<dag>/<run>/<task>, with /<map index> where it is mapped)"

    def _find_version(
        self, name: str, version_id: str | None, as_of: datetime | None, clock: Literal["data", "wall"]
    ) -> str:
        if version_id is not None:
            # It may be gone and yet have left its marks.
            return node_of_version(name, keys.check_version_id(version_id))
        ref = self.store.get(name) if as_of is None else self.store.as_of(name, as_of, clock=clock)
        return node_of_version(name, ref.version_id)

    def _find_model(self, uri: str, as_of: datetime | None, clock: Literal["data", "wall"]) -> str:
        from airflow_ml_provider.tracking.ledger import Ledger
        from airflow_ml_provider.tracking.models import ModelRef

        ref = ModelRef.coerce(uri)
        name, version = ref.registered_model_name, ref.version
        if ref.alias is not None and name is not None:
            when = datetime.now(UTC) if as_of is None else as_of
            # Now is what the alias was moved to last, whichever data time that counts from.
            move = Ledger(self.objects).as_of(name, ref.alias, when, clock="wall" if as_of is None else clock)
            if move is None or move.version is None:
                at = "" if as_of is None else f" as of {as_of.isoformat()} in {clock} time"
                raise ModelNotFoundError(
                    f"the ledger knows no version that {name}@{ref.alias} pointed at{at}; name a version: "
                    f"models:/{name}/<version>"
                )
            if move.model_id:
                return f"{MODEL}:{move.model_id}"
            version = move.version
        if ref.model_id is not None:
            return f"{MODEL}:{ref.model_id}"
        if name is not None and version is not None:
            known = records.registered_version(self.objects, name, version)
            if known is None:
                raise ModelNotFoundError(
                    f"no record knows version {version} of {name!r}; it was registered and used outside of "
                    "Airflow, or before this provider kept records"
                )
            return f"{MODEL}:{known['model_key']}"
        return f"{MODEL}:{uri}"

    def _find_attempt(self, what: str) -> str | None:
        parts = what.split("/")
        if len(parts) < 3:
            return None
        tail: list[int] = []
        while len(parts) > 3 and len(tail) < 2 and re.fullmatch(r"-?\d+", parts[-1]):
            tail.insert(0, int(parts.pop()))
        if len(parts) != 3:
            return None
        map_index = tail[0] if tail else -1
        if len(tail) == 2:
            return node_of_task(parts[0], parts[1], parts[2], map_index, tail[1])
        tries = self._tries(parts[0], parts[1], parts[2], map_index)
        return node_of_task(parts[0], parts[1], parts[2], map_index, tries[-1]) if tries else None

    def _tries(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> list[int]:
        folder = keys.record_key(dag_id, run_id, task_id, map_index, 1).rpartition("/")[0]
        names = (entry.key.rpartition("/")[2].removesuffix(".json") for entry in self.objects.list(folder))
        return sorted(int(name) for name in names if name.isdecimal())

    # -- walking

    def explore(
        self,
        root: str | None = None,
        *,
        direction: Direction = "both",
        depth: int | None = None,
        limit: int = 500,
        events: bool = True,
        pending: Iterable[Mapping[str, Any]] = (),
    ) -> Graph:
        """
        Return what is upstream, downstream or both of a node.

        :param root: Its id, see :meth:`find`.
        :param depth: So many edges away at most; None: to the end.
        :param limit: At most so many nodes; the answer says if there are more.
        :param events: Go through asset events and the runs that they started, too.
        :param pending: The ``continuation`` of an earlier answer, in place of a root.
        :raises ValueError: if an id is none, or a number is out of range.
        """
        if direction not in ("up", "down", "both"):
            raise ValueError(f"direction must be 'up', 'down' or 'both', got {direction!r}")
        if limit < 1 or (depth is not None and depth < 0):
            raise ValueError(f"limit is at least 1 and depth at least 0, got {limit!r} and {depth!r}")
        given = list(pending)
        steps = [_Step.from_json(item) for item in given]
        events = events and all(item.get("events", True) for item in given)
        if root is not None:
            _parsed(root)
            ways = ("up", "down") if direction == "both" else (direction,)
            steps = [_Step(root, way, depth) for way in ways]
        elif not steps:
            raise ValueError("explore needs a root, or pending steps of an earlier answer")
        for step in steps:
            _parsed(step.node)
        return _Walk(self, root, direction, limit, events).go(steps)

    def run(self, dag_id: str, run_id: str, *, limit: int = 500) -> Graph:
        """Return what the attempts of a DAG run read and wrote; of each task instance the last attempt."""
        root = node_of_run(dag_id, run_id)
        found = self._attempts_of(dag_id, run_id)
        graph = _Walk(self, root, "both", limit, events=True).go(
            [_Step(node, way, 1) for node in found[:limit] for way in ("up", "down")]
        )
        return replace(graph, truncated=graph.truncated or len(found) > limit)

    def _attempts_of(self, dag_id: str, run_id: str) -> list[str]:
        """Return the last attempt of each task instance of a run, sorted."""
        last: dict[str, int] = {}
        for entry in self.objects.list(keys.run_records_prefix(dag_id, run_id)):
            place, _, number = entry.key.removesuffix(".json").rpartition("/")
            if number.isdecimal():
                last[place] = max(last.get(place, 0), int(number))
        found = (self._task_at(f"{place}/{number}.json") for place, number in last.items())
        return sorted(task for task in found if task is not None)

    def _task_at(self, record_key: str) -> str | None:
        """Return the node of the attempt whose record or reverse edge ends like this."""
        who = _who_in(record_key)
        if who is None:  # hashed, because an id is long: the object itself knows
            try:
                doc = self.objects.get_json(record_key)
            except (ArtifactNotFoundError, ArtifactError):
                return None
            who = tuple(doc[name] for name in ("dag_id", "run_id", "task_id", "map_index", "try_number"))
        return node_of_task(*who)

    def shows(self, dag_id: str | None) -> bool:
        """Whether the caller may see what a DAG left; what no DAG made is for everybody."""
        if self._may_read is None or dag_id is None:
            return True
        if dag_id not in self._allowed:
            self._allowed[dag_id] = bool(self._may_read(dag_id))
        return self._allowed[dag_id]

    # -- looking at one node

    def look(self, node_id: str, *, down: int = 0, after: str | None = None) -> _View:
        """
        Describe a node, what is upstream of it, and at most ``down`` of its neighbours downstream.

        :param after: Go on after this neighbour downstream.
        """
        kind, *parts = _parsed(node_id)
        if kind == TASK:
            return self._look_at_task(node_id, parts)
        if kind == ASSET:
            return _View(Node(node_id, ASSET, parts[0], uri=parts[0]))
        looks: dict[str, Callable[..., _View]] = {
            VERSION: self._look_at_version,
            MODEL: self._look_at_model,
            EVALUATION: self._look_at_evaluation,
            EVENT: self._look_at_event,
            RUN: self._look_at_run,
        }
        return looks[kind](node_id, *parts, down, after)

    def record(self, node_id: str) -> Json | None:
        """Return the record of an attempt; None if there is none."""
        _, dag_id, run_id, task_id, map_index, try_number = _parsed(node_id)
        if node_id not in self._records:
            try:
                found: Json | None = records.read_record(
                    self.objects, dag_id, run_id, task_id, int(map_index), int(try_number)
                )
            except ArtifactNotFoundError:
                found = None
            self._records[node_id] = found
            for use in (
                use for side in ("reads", "writes", "reused") for use in (found or {}).get(side) or ()
            ):
                self._uses.setdefault(use["version_id"], use)
        return self._records[node_id]

    def known_record(self, node_id: str) -> Json | None:
        """Return the record of an attempt that was looked at; asks nothing."""
        return self._records.get(node_id)

    def _look_at_version(
        self, node_id: str, name: str, version_id: str, down: int, after: str | None
    ) -> _View:
        node, producer = self._describe_version(node_id, name, version_id)
        view = _View(node)
        if producer is not None:
            made_by = _task_of(producer)
            view.up.append((Edge(made_by, node_id, "wrote"), made_by))
        found, view.more_down, view.after = self._places(keys.consumers_prefix(version_id), down, after)
        for task in found:
            if task != (view.up[0][1] if view.up else None):
                view.down.append((Edge(node_id, task, "read"), task))
        if node.missing and producer is None and found:
            # The readers remember who wrote what is gone.
            record = self.record(found[0])
            for use in (*((record or {}).get("reads") or ()), *((record or {}).get("reused") or ())):
                if use["version_id"] == version_id and use.get("producer"):
                    made_by = _task_of(use["producer"])
                    view.up.append((Edge(made_by, node_id, "wrote"), made_by))
                    view.node = replace(node, **_maker(use["producer"]), **_of_use(use))
        return view

    def _describe_version(self, node_id: str, name: str, version_id: str) -> tuple[Node, Json | None]:
        node = Node(
            node_id,
            VERSION,
            name,
            name=name,
            version_id=version_id,
            uri=f"ml-artifact://{quote(name, safe='/')}?version={version_id}",
            recorded_at=keys.version_time(version_id).isoformat(),
            effective_at=keys.version_effective(version_id).isoformat(),
        )
        try:
            ref = self.store.get(name, version_id)
        except ArtifactNotFoundError:
            mark = self._mark_of(name, version_id)
            # Without a mark its readers remember what it was.
            known = mark or self._uses.get(version_id) or {}
            node = replace(node, missing=_why_gone(mark), **_of_use(known))
            producer = known.get("producer")
        except StoreError:
            raise
        except ArtifactError as exc:
            node = replace(node, missing=f"its manifest cannot be believed: {' '.join(str(exc).split())}")
            producer = None
        else:
            producer = None if ref.producer is None else vars(ref.producer)
            node = replace(node, type=ref.type, size_bytes=ref.size_bytes)
            if producer is None:
                node = replace(node, details={"origin": "saved outside of a task"})
        return (node if producer is None else replace(node, **_maker(producer))), producer

    def _mark_of(self, name: str, version_id: str) -> Json:
        """Return what garbage collection wrote down of a version that it removed; empty if it did not."""
        try:
            found: Json = self.objects.get_json(keys.collected_key(name, version_id))
        except ArtifactNotFoundError:
            return {}
        return found

    def _look_at_task(self, node_id: str, parts: Sequence[str]) -> _View:
        dag_id, run_id, task_id, map_index, try_number = parts
        record = self.record(node_id)
        shown = f"[{map_index}]" if int(map_index) >= 0 else ""
        node = Node(
            node_id,
            TASK,
            f"{task_id}{shown}",
            dag_id=dag_id,
            run_id=run_id,
            task_id=task_id,
            map_index=int(map_index),
            try_number=int(try_number),
        )
        if record is None:
            gone = "it left no record: it touched nothing else, died before it could write one, or runs"
            return _View(replace(node, missing=gone))
        node = replace(
            node,
            outcome=record["outcome"],
            started_at=record.get("started_at"),
            recorded_at=record.get("recorded_at"),
            effective_at=record.get("effective_at"),
            mlflow_run_id=record.get("mlflow_run_id"),
            metrics=record.get("metrics") or {},
            details=_about_attempt(record),
        )
        view = _View(node)
        view.up = list(_inputs_of(record, node_id))
        view.down = list(_outputs_of(record, node_id))
        for event in record.get("emitted") or ():
            self._raised[node_of_event(event["uri"], record, None)] = {**event, "source": _maker(record)}
        return view

    def _look_at_model(self, node_id: str, key: str, down: int, after: str | None) -> _View:
        read = keys.model_edges_prefix(key, "read")
        among_users = after is not None and after.startswith(read)
        trained, acts = self._makers(key, 0 if among_users else down, after)
        acted, used = [edge for _, edge in acts], list[Json]()
        ahead = [] if among_users else [act for act in acts if after is None or act[0] > after]
        more, following = len(ahead) > down, ahead[:down][-1][0] if ahead[:down] else None
        if not more:  # who acted on it comes before who used it
            used, more, following = self._edges(read, down, after if among_users else None)
        about = (trained or acted or used or [{}])[-1]
        versions = _registered_as([*trained, *acted, *used])
        name, version = versions[-1] if versions else (None, None)
        node = Node(
            node_id,
            MODEL,
            f"{name} version {version}" if name else key,
            model_id=about.get("model_id") or (key if key.startswith("m-") else None),
            registered_model_name=name,
            version=version,
            mlflow_run_id=about.get("mlflow_run_id"),
            uri=f"models:/{name}/{version}" if name else about.get("model_uri") or f"models:/{key}",
            details={"registered": ["/".join(each) for each in versions]} if len(versions) > 1 else {},
        )
        view = _View(node)
        for edge in trained:
            task = _task_of(edge)
            view.up.append((Edge(task, node_id, "trained"), task))
        if trained:
            latest = max(trained, key=lambda edge: str(edge.get("recorded_at")))
            record = self.record(_task_of(latest)) or {}
            view.node = replace(
                node,
                **_maker(latest),
                metrics=record.get("metrics") or {},
                recorded_at=latest.get("recorded_at"),
                effective_at=record.get("effective_at"),
            )
        elif acted or used:
            view.node = replace(node, missing="no record of its training: it came from outside of Airflow")
        else:
            view.node = replace(node, missing="no record knows of this model")
        for edge in (*(edge for _, edge in ahead[:down]), *used):
            task = _task_of(edge)
            view.down.append((Edge(node_id, task, edge.get("role") or "read"), task))
        view.more_down, view.after = more, following
        return view

    def _makers(self, key: str, wanted: int, after: str | None) -> tuple[list[Json], list[tuple[str, Json]]]:
        """
        Return who trained a model, and by key who else acted on it: registered or promoted it.

        A model that stays champion is promoted again and again. So many of these are read as are wanted after
        a key, and as it takes to find the training.
        """
        trained: list[Json] = []
        acted: list[tuple[str, Json]] = []
        listed = self.objects.list(keys.model_edges_prefix(key, "written"))
        while batch := [entry.key for entry in islice(listed, _SHOWN_MAKERS)]:
            edges = at_once(self.objects.get_json, batch, self.objects.at_hand)
            for place, edge in zip(batch, edges, strict=True):
                if edge.get("role") in records.MADE:
                    trained.append(edge)
                else:
                    acted.append((place, edge))
            if trained and sum(after is None or place > after for place, _ in acted) > wanted:
                break
        return trained, acted

    def _look_at_evaluation(self, node_id: str, run_id: str, down: int, after: str | None) -> _View:
        makers = list(islice(records.makers_of_evaluation(self.objects, run_id), _SHOWN_MAKERS))
        node = Node(node_id, EVALUATION, "evaluation", mlflow_run_id=run_id)
        view = _View(node)
        for edge in makers:
            task = _task_of(edge)
            view.up.append((Edge(task, node_id, "measured"), task))
        found, view.more_down, view.after = self._places(
            keys.evaluation_edges_prefix(run_id, "read"), down, after
        )
        view.down = [(Edge(node_id, task, "decided"), task) for task in found]
        if not makers:
            view.node = replace(node, missing="no record of who measured it")
            return view
        latest = max(makers, key=lambda edge: str(edge.get("recorded_at")))
        told = (self.record(_task_of(latest)) or {}).get("evaluation") or {}
        model = told.get("registered_model_name") or told.get("model_uri") or "a model"
        shown = f"{model} version {told['version']}" if told.get("version") else str(model)
        kept = ("model_uri", "baseline_uri", "baseline_version", "baseline_metrics", "rows", "slice", "data")
        view.node = replace(
            node,
            **_maker(latest),
            label=f"evaluation of {shown}",
            model_id=told.get("model_id"),
            registered_model_name=told.get("registered_model_name"),
            version=told.get("version"),
            recorded_at=latest.get("recorded_at"),
            effective_at=told.get("effective_at"),
            metrics=told.get("metrics") or {},
            details={name: told[name] for name in kept if told.get(name) is not None},
        )
        return view

    def _look_at_event(self, node_id: str, uri: str, event: str, down: int, after: str | None) -> _View:
        edges, more, following = self._edges(keys.event_prefix(uri, event), down, after)
        # Before it started a run, only the record of who raised it tells of it.
        about = edges[0] if edges else self._raised.get(node_id, {})
        node = Node(node_id, EVENT, str(about.get("name") or uri), uri=uri)
        extra, source = about.get("extra") or {}, about.get("source")
        view = _View(node, more_down=more, after=following)
        details = dict(extra)
        if source is not None:
            task = self._attempt_that_emitted(source, uri)
            view.up.append((Edge(task, node_id, "emitted"), task))
            node = replace(node, **_maker(source))
        elif about:
            details["origin"] = "a watcher, a webhook or a person raised it"
        else:
            node = replace(node, missing="no record of it: it started no run, or that run left no record")
        view.node = replace(
            node,
            recorded_at=about.get("timestamp"),
            effective_at=extra.get("effective_at"),
            registered_model_name=extra.get("registered_model_name"),
            version=extra.get("version"),
            details=details,
        )
        for edge in edges:
            run = node_of_run(edge["dag_id"], edge["run_id"])
            view.down.append((Edge(node_id, run, "triggered"), run))
        return view

    def _attempt_that_emitted(self, source: Mapping[str, Any], uri: str) -> str:
        """Return the last attempt of a task instance that raised an event of an asset."""
        who = (source["dag_id"], source["run_id"], source["task_id"])
        map_index = -1 if source.get("map_index") is None else int(source["map_index"])
        tries = self._tries(*who, map_index)
        for number in reversed(tries):
            task = node_of_task(*who, map_index, number)
            record = self.record(task) or {}
            if any(event.get("uri") == uri for event in record.get("emitted") or ()):
                return task
        return node_of_task(*who, map_index, tries[-1] if tries else 1)

    def _look_at_run(self, node_id: str, dag_id: str, run_id: str, down: int, after: str | None) -> _View:
        found = [task for task in self._attempts_of(dag_id, run_id) if after is None or task > after]
        node = Node(node_id, RUN, run_id, dag_id=dag_id, run_id=run_id)
        view = _View(node)
        if not found:
            view.node = replace(node, missing="no attempt of this run left a record")
            return view
        record = self.record(found[0]) or {}
        view.node = replace(
            node,
            effective_at=record.get("effective_at"),
            recorded_at=record.get("recorded_at"),
            details={key: value for key, value in (record.get("run") or {}).items() if value is not None},
        )
        for event in record.get("triggered_by") or ():
            source = node_of_event(event["uri"], event.get("source"), event.get("timestamp"))
            view.up.append((Edge(source, node_id, "triggered"), source))
        shown = found[:down]
        view.down = [(Edge(node_id, task, "ran"), task) for task in shown]
        view.more_down = len(found) > down
        view.after = shown[-1] if view.more_down else None
        return view

    def _places(self, prefix: str, limit: int, after: str | None) -> tuple[list[str], bool, str | None]:
        """Return attempts that reverse edges lead to, whether there are more, and where to go on."""
        entries = list(self.objects.list(prefix, after=after, limit=limit + 1))
        shown = entries[:limit]
        tasks = [task for entry in shown if (task := self._task_at(entry.key)) is not None]
        more = len(entries) > limit
        return tasks, more, shown[-1].key if more and shown else None

    def _edges(self, prefix: str, limit: int, after: str | None) -> tuple[list[Json], bool, str | None]:
        """Return reverse edges, whether there are more, and where to go on."""
        entries = list(self.objects.list(prefix, after=after, limit=limit + 1))
        shown = [entry.key for entry in entries[:limit]]
        found = at_once(self.objects.get_json, shown, self.objects.at_hand)
        more = len(entries) > limit
        return found, more, shown[-1] if more and shown else None


class _Walk:
    """One walk: breadth first, a level at once, up to a number of nodes."""

    def __init__(self, lineage: Lineage, root: str | None, direction: str, limit: int, events: bool) -> None:
        self.lineage = lineage
        self.root = root
        self.direction = direction
        self.limit = limit
        self.events = events
        self.nodes: dict[str, Node] = {}
        self.edges: dict[tuple[str, str], Edge] = {}
        self.hidden: set[str] = set()
        self.seen: set[tuple[str, str]] = set()
        self.left: list[_Step] = []
        self._before: set[tuple[str, str]] = set()
        self._around: dict[str, tuple[set[str], set[str]]] = {}
        self._unlisted: set[str] = set()

    def go(self, steps: list[_Step]) -> Graph:
        level = steps
        self.seen = {(step.node, step.direction) for step in level}
        for step in level:
            if step.via is not None:  # from a node of the answer before
                self.edges[step.via.source, step.via.target] = step.via
                self._before.add((step.via.source, step.via.target))
        while level:
            level = self._level(level)
        kept = [
            edge
            for pair, edge in self.edges.items()
            if (pair[0] in self.nodes and pair[1] in self.nodes)
            or (pair in self._before and (pair[0] in self.nodes or pair[1] in self.nodes))
        ]
        self._mark_predictions(kept)
        self._name_evaluations()
        return Graph(
            self.root,
            self.direction,
            tuple(self._with_more(node) for node in self.nodes.values()),
            tuple(sorted(kept)),
            len(self.hidden),
            bool(self.left),
            tuple(step.to_json(events=self.events) for step in self.left),
        )

    def _level(self, level: list[_Step]) -> list[_Step]:
        """Look at the nodes of one level, and return the steps of the next."""
        fits: list[_Step] = []
        fresh: set[str] = set()
        for step in level:
            if step.node in self.nodes or step.node in fresh:
                fits.append(step)
            elif len(self.nodes) + len(fresh) < self.limit:
                fits.append(step)
                fresh.add(step.node)
            else:
                self.left.append(step)

        def look(step: _Step) -> _View:
            goes_on = step.direction == "down" and step.depth != 0
            return self.lineage.look(step.node, down=self.limit if goes_on else _PEEK, after=step.after)

        following: list[_Step] = []
        for step, view in zip(fits, at_once(look, fits), strict=True):
            following.extend(self._take(step, view))
        return following

    def _take(self, step: _Step, view: _View) -> Iterator[_Step]:
        """Keep what a look at a node found, and yield where to go from there."""
        node = view.node
        if not self.lineage.shows(node.dag_id):
            self.hidden.add(node.id)
            return
        if not self.events:
            view.up = [pair for pair in view.up if pair[0].kind not in _BY_EVENTS]
            view.down = [pair for pair in view.down if pair[0].kind not in _BY_EVENTS]
        self.nodes.setdefault(node.id, node)
        ups, downs = self._around.setdefault(node.id, (set(), set()))
        ups.update(other for _, other in view.up)
        downs.update(other for _, other in view.down)
        for edge, _ in (*view.up, *view.down):
            if node.kind == TASK:  # its record tells how; a place in a list does not
                self.edges[edge.source, edge.target] = edge
            else:
                self.edges.setdefault((edge.source, edge.target), edge)
        follows = step.direction == "down" and step.depth != 0
        if view.more_down:
            self._unlisted.add(node.id)
            if follows:
                self.left.append(_Step(step.node, "down", step.depth, view.after))
        if step.depth == 0:
            return
        depth = None if step.depth is None else step.depth - 1
        for edge, other in view.down if follows else view.up:
            if (other, step.direction) not in self.seen:
                self.seen.add((other, step.direction))
                yield _Step(other, step.direction, depth, via=edge)

    def _mark_predictions(self, kept: Iterable[Edge]) -> None:
        for edge in kept:
            made = edge.kind == "wrote" and edge.target in self.nodes
            if made and _scored(self.lineage.known_record(edge.source)):
                self.nodes[edge.target] = replace(self.nodes[edge.target], prediction=True)

    def _name_evaluations(self) -> None:
        """Call evaluations by the version that their model became afterwards."""
        models = {node.model_id: node for node in self.nodes.values() if node.kind == MODEL and node.version}
        for node in list(self.nodes.values()):
            model = models.get(node.model_id)
            if node.kind == EVALUATION and node.model_id and not node.version and model is not None:
                self.nodes[node.id] = replace(
                    node,
                    label=f"evaluation of {model.label}",
                    registered_model_name=model.registered_model_name,
                    version=model.version,
                )

    def _with_more(self, node: Node) -> Node:
        """Say of a node whether it has neighbours that the answer does not show."""
        ups, downs = self._around[node.id]
        shown = self.nodes.keys() | self.hidden
        return replace(
            node, more_up=bool(ups - shown), more_down=node.id in self._unlisted or bool(downs - shown)
        )


def _inputs_of(record: Mapping[str, Any], task: str) -> Iterator[tuple[Edge, str]]:
    """Yield what an attempt was made from."""
    for use in record.get("reads") or ():
        source = node_of_version(use["name"], use["version_id"])
        yield Edge(source, task, "read" if use.get("loaded", True) else "handed"), source
    for use in record.get("reused") or ():
        source = node_of_version(use["name"], use["version_id"])
        yield Edge(source, task, "reused"), source
    for model in record.get("models_read") or ():
        if (found := node_of_model(model)) is not None:
            yield Edge(found, task, model.get("role") or "read"), found
    for model in record.get("models_written") or ():
        if (model.get("role") or "written") not in records.MADE and (
            found := node_of_model(model)
        ) is not None:
            yield Edge(found, task, model["role"]), found
    if used := (record.get("promotion") or {}).get("evaluation_run_id"):
        yield Edge(node_of_evaluation(used), task, "decided"), node_of_evaluation(used)
    if record.get("triggered_by"):
        run = node_of_run(record["dag_id"], record["run_id"])
        yield Edge(run, task, "ran"), run
    for uri in record.get("inlets") or ():
        if not uri.startswith(_OWN_SCHEMES):
            yield Edge(f"{ASSET}:{uri}", task, "inlet"), f"{ASSET}:{uri}"


def _outputs_of(record: Mapping[str, Any], task: str) -> Iterator[tuple[Edge, str]]:
    """Yield what an attempt made."""
    for use in record.get("writes") or ():
        target = node_of_version(use["name"], use["version_id"])
        yield Edge(task, target, "wrote"), target
    for model in record.get("models_written") or ():
        if (model.get("role") or "written") in records.MADE and (found := node_of_model(model)) is not None:
            yield Edge(task, found, "trained"), found
    if made := (record.get("evaluation") or {}).get("mlflow_run_id"):
        yield Edge(task, node_of_evaluation(made), "measured"), node_of_evaluation(made)
    announced = {event["uri"]: event for event in record.get("emitted") or ()}
    for uri in announced:
        event = node_of_event(uri, record, None)
        yield Edge(task, event, "emitted"), event
    for uri in record.get("outlets") or ():
        if uri not in announced and not uri.startswith(_OWN_SCHEMES):
            yield Edge(task, f"{ASSET}:{uri}", "outlet"), f"{ASSET}:{uri}"


def _about_attempt(record: Mapping[str, Any]) -> Json:
    """Return the small facts of a record that a node shows."""
    cached, promotion = record.get("cached") or {}, record.get("promotion") or {}
    run = record.get("run") or {}
    found = {
        "run_type": run.get("run_type"),
        "logical_date": run.get("logical_date"),
        "partition_key": run.get("partition_key"),
        "error": record.get("error"),
        "cached": {name: cached.get(name) for name in ("hit", "why", "reused_from")} if cached else None,
        "decision": {name: promotion.get(name) for name in _DECISION} if promotion else None,
        "operator": (record.get("code") or {}).get("operator"),
        "commit": (record.get("code") or {}).get("git.commit"),
    }
    return {name: value for name, value in found.items() if value is not None}


def _why_gone(mark: Mapping[str, Any]) -> str:
    if not mark:
        return "its manifest is gone, and garbage collection does not know of it"
    return f"garbage collection removed it on {mark['collected_at']}: {mark['reason']}"


def _registered_as(edges: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return the registered names and versions of a model, the highest version last."""
    found = {
        (str(edge["registered_model_name"]), str(edge["version"]))
        for edge in edges
        if edge.get("registered_model_name") and edge.get("version")
    }
    return sorted(found, key=lambda each: (each[0], int(each[1]) if each[1].isdecimal() else 0))


def _scored(record: Mapping[str, Any] | None) -> bool:
    return any(model.get("role") == "scored" for model in (record or {}).get("models_read") or ())


def _task_of(who: Mapping[str, Any]) -> str:
    return node_of_task(
        who["dag_id"], who["run_id"], who["task_id"], who.get("map_index", -1), who.get("try_number") or 1
    )


def _maker(who: Mapping[str, Any]) -> Json:
    return {name: who.get(name) for name in ("dag_id", "run_id", "task_id", "map_index", "try_number")}


def _of_use(use: Mapping[str, Any]) -> Json:
    return {name: use[name] for name in ("type", "size_bytes") if name in use}


def _who_in(key: str) -> tuple[str, str, str, int, int] | None:
    """Read who an attempt is from the end of the key of its record or of an edge to it."""
    parts = key.removesuffix(".json").split("/")[-5:]
    names = [keys.text_of(part) for part in parts[:3]]
    if len(parts) != 5 or None in names:
        return None
    dag_id, run_id, task_id = (str(name) for name in names)
    return dag_id, run_id, task_id, int(parts[3]), int(parts[4])


def _parsed(node_id: str) -> list[str]:
    """
    Take the id of a node apart: its kind and what it names.

    :raises ValueError: if it is none.
    """
    kind, _, rest = node_id.partition(":")
    if kind == VERSION and (at := _VERSION_AT_END.search(rest)):
        return [kind, unquote(rest[: at.start()]), at[1]]
    if kind in (MODEL, EVALUATION, ASSET) and rest:
        return [kind, rest]
    if kind == TASK:
        parts = [unquote(part) for part in rest.split("/")]
        if len(parts) == 5 and _is_number(parts[3]) and _is_number(parts[4]):
            return [kind, *parts]
    if kind == EVENT and "#" in rest:
        uri, _, event = rest.partition("#")
        return [kind, unquote(uri), event]
    if kind == RUN and rest.count("/") == 1:
        return [kind, *(unquote(part) for part in rest.split("/"))]
    raise ValueError(f"not the id of a node of the lineage graph: {node_id!r}")


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d{1,9}", text) is not None


def _quoted(text: str) -> str:
    return quote(text, safe="")
