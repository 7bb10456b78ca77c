# SPDX-License-Identifier: Apache-2.0
"""
What a deployment's store knows of artifacts, runs and models: the one place that the UI, the command line and
the client ask. Reads only, and no user data: manifests, records, the ledger.

A page is one list request and one small read an item, several at once, however much history there is. A list
on S3 comes in pages of 1,000 keys; where a question needs more of them, its description says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Literal, TypeVar

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.objects import at_once
from airflow_ml_provider.artifacts.refs import CHECKPOINTS, check_name
from airflow_ml_provider.exceptions import (
    ArtifactCorruptError,
    ArtifactError,
    ArtifactNotFoundError,
    StoreError,
)
from airflow_ml_provider.lineage import index
from airflow_ml_provider.lineage.answers import (
    Growth,
    Measured,
    Model,
    Page,
    Reader,
    RegisteredVersion,
    Run,
    Storage,
    Verdict,
    Version,
    VersionDetail,
    made_of,
)
from airflow_ml_provider.lineage.records import RUNNING, TaskRecord
from airflow_ml_provider.tracking.ledger import AliasMove, Ledger

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.objects import ObjectInfo
    from airflow_ml_provider.artifacts.refs import ArtifactRef
    from airflow_ml_provider.artifacts.store import ArtifactStore

MAX_PAGE = 1000
# How many versions of a name may be others' before it counts as theirs.
_LOOKED_AT = 10
# A page ends after so many keys, however few of them are wanted.
_SCANNED = 2000
_CURSOR = re.compile(r"[A-Za-z0-9_=.+/-]{1,900}")

Clock = Literal["data", "wall"]
T = TypeVar("T")


class Queries:
    """
    Questions to a store.

    .. versionadded:: 0.1.0

    :param store: The deployment's artifact store.
    :param may_read: Whether whoever asks may see what a DAG made; None: all of them. Versions, readers,
        records and decisions of other DAGs are then as if they were not there. Versions that no task made are
        shown to everybody.
    """

    def __init__(self, store: ArtifactStore, may_read: Callable[[str], bool] | None = None) -> None:
        self._store = store
        self._objects = store.objects
        self._may_read = may_read
        self.ledger = Ledger(store.objects)

    # -- artifacts

    def _names(self, search: str = "", *, checkpoints: bool = False) -> list[str]:
        """
        The names of artifacts that contain ``search``, in any case, by name.

        One list request for each 1,000 names, and one read for each that is too long for a key.

        :param checkpoints: Name those of :func:`ml.checkpoint` too.
        """
        wanted = search.casefold()
        found = at_once(self._name_of, list(self._objects.children("versions")))
        return sorted(
            name
            for name in found
            if name is not None
            and wanted in name.casefold()
            # Whoever looks for artifacts does not look for the states of tasks.
            and (checkpoints or not name.startswith(CHECKPOINTS))
        )

    def artifacts(
        self, search: str = "", *, limit: int = 50, cursor: str | None = None, checkpoints: bool = False
    ) -> Page[Version]:
        """
        Artifacts by name, each with its newest version.

        The requests for all names, and one list and one read for each artifact of the page.

        :param search: A part of the name, in any case.
        """
        limit = _limit(limit)
        names = self._names(search, checkpoints=checkpoints)
        rest = [name for name in names if cursor is None or name > cursor]
        found: list[Version] = []
        while rest and len(found) < limit:
            batch, rest = rest[: limit - len(found)], rest[limit - len(found) :]
            found.extend(version for version in at_once(self._newest, batch) if version is not None)
            last = batch[-1]
        return Page(tuple(found), last if rest else None)

    def versions(self, name: str, *, limit: int = 50, cursor: str | None = None) -> Page[Version]:
        """Versions of an artifact by wall clock, newest first."""
        prefix = keys.versions_prefix(check_name(name))

        return self._page(prefix, lambda entry: self._version(name, entry), limit=limit, cursor=cursor)

    def version(
        self,
        name: str,
        version_id: str | None = None,
        *,
        as_of: datetime | None = None,
        clock: Clock = "data",
    ) -> VersionDetail:
        """
        One version: the one that is named, or that held at a time, else the newest.

        One read, and one list request where it is not named; by data time one for each 1,000 versions.

        :param as_of: With a zone.
        :raises ArtifactNotFoundError: if there is none, or whoever asks may not see it.
        """
        if version_id is not None and as_of is not None:
            raise ValueError("version_id and as_of both choose a version; give one of them")
        if as_of is not None:
            ref = self._store.as_of(name, as_of, clock=clock)
        elif version_id is not None or self._may_read is None:
            ref = self._store.get(name, version_id and keys.check_version_id(version_id))
        else:
            newest = next(iter(self.versions(name, limit=1).items), None)
            if newest is None:
                raise ArtifactNotFoundError(f"no version of the artifact {name!r} is in {self._objects.root}")
            ref = self._store.get(name, newest.version_id)
        if not self._shows(_maker(ref)):
            raise ArtifactNotFoundError(f"no version of the artifact {name!r} is in {self._objects.root}")
        return VersionDetail.of(ref)

    def storage(self, name: str, *, limit: int = 100) -> Storage:
        """
        What the newest versions of an artifact take, and what they share.

        The requests of :meth:`versions`, and one small one for each stored object of tables in pieces.
        """
        prefix = keys.versions_prefix(check_name(name))
        found = list(self._objects.list(prefix, limit=_limit(limit) + 1))
        refs = [ref for ref in self._each(lambda entry: self._ref(name, entry), found[:limit]) if ref]
        sizes = {ref.digest: ref.size_bytes for ref in refs if not ref.parts}
        pieces = list(dict.fromkeys(part for ref in refs for part in ref.parts))

        def size(digest: str) -> int:
            return self._objects.size(keys.blob_key(digest)) or 0  # gone: it takes nothing

        sizes.update(zip(pieces, at_once(size, pieces), strict=True))
        growth: list[Growth] = []
        seen: set[str] = set()
        for ref in reversed(refs):  # whoever came first stored it
            fresh = set(ref.blobs) - seen
            seen |= fresh
            growth.append(
                Growth(ref.version_id, ref.recorded_at, ref.size_bytes, sum(sizes[item] for item in fresh))
            )
        return Storage(
            name,
            sum(item.size_bytes for item in growth),
            sum(item.new_bytes for item in growth),
            tuple(reversed(growth)),
            complete=len(found) <= limit,
        )

    def readers(self, version_id: str, *, limit: int = 50, cursor: str | None = None) -> Page[Reader]:
        """The attempts that read a version, by DAG and run."""

        def read(entry: ObjectInfo) -> Reader | None:
            found = self._known(entry.key, Reader)
            if found is None or found.outcome != RUNNING:
                return found
            # Edges are written before the code runs and not again; the record knows how that ended.
            attempt = (found.dag_id, found.run_id, found.task_id, found.map_index, found.try_number)
            ended = self._known(keys.record_key(*attempt), TaskRecord)
            return found if ended is None else replace(found, outcome=ended.outcome)

        return self._page(keys.consumers_prefix(version_id), read, limit=limit, cursor=cursor)

    # -- runs and records

    def dags(self) -> list[str]:
        """The DAGs whose runs left records. One list request for each 1,000."""

        def name_of(folder: str) -> str | None:
            text = keys.text_of(folder)
            if text is None:  # hashed because it is long: its runs know it
                first = next(self._objects.list(f"runs/{folder}", limit=1), None)
                text = None if first is None else self._objects.get_json(first.key)["dag_id"]
            return text if self._shows(text) else None

        found = at_once(name_of, list(self._objects.children("runs")))
        return sorted(name for name in found if name is not None)

    def runs(self, dag_id: str, *, limit: int = 50, cursor: str | None = None) -> Page[Run]:
        """The runs of a DAG that left records, in the order of Airflow's own list: the latest first."""

        return self._page(index.runs_prefix(dag_id), self._listed(Run), limit=limit, cursor=cursor)

    def measured(
        self,
        dag_id: str,
        *,
        limit: int = 100,
        cursor: str | None = None,
        task_id: str | None = None,
        until: datetime | None = None,
        judged: bool = False,
    ) -> Page[Measured]:
        """
        What the task instances of a DAG measured, those of the latest run first.

        :param task_id: Of this task alone.
        :param until: Only runs not after this time, by ``run_after``.
        :param judged: Only evaluations, and decisions on models.
        """
        prefix = index.metrics_prefix(dag_id)

        def keep(name: str) -> bool:
            return task_id is None or index.is_of_task(name, task_id)

        if cursor is None and until is not None:
            cursor = keys.before_versions_at(until)
        read = self._listed(Measured)

        def read_judged(entry: ObjectInfo) -> Measured | None:
            row = read(entry)
            return row if row is not None and (row.evaluation or row.promotion) else None

        page = self._page(prefix, read_judged if judged else read, limit=limit, cursor=cursor, keep=keep)
        runs = (list(rows) for _, rows in groupby(page.items, key=lambda row: row.run_id))
        return Page(
            tuple(row for rows in runs for row in sorted(rows, key=lambda row: (row.task_id, row.map_index))),
            page.cursor,
        )

    def run_attempts(
        self, dag_id: str, run_id: str, *, limit: int = 200, cursor: str | None = None
    ) -> Page[TaskRecord]:
        """The attempts of all task instances of a run, by task, map index and try."""
        prefix = keys.run_records_prefix(dag_id, run_id)
        return self._page(prefix, self._listed(TaskRecord), limit=limit, cursor=cursor)

    def attempts(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> list[TaskRecord]:
        """The attempts of a task instance, the last one first."""
        prefix = keys.record_key(dag_id, run_id, task_id, map_index, 0).rpartition("/")[0]
        attempts = self._each(self._listed(TaskRecord), self._objects.list(prefix))
        return sorted(
            (each for each in attempts if each is not None), key=lambda each: each.try_number, reverse=True
        )

    def attempt(
        self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, try_number: int | None = None
    ) -> TaskRecord:
        """
        One attempt: the last one, or the one that is named.

        :raises ArtifactNotFoundError: if it left no record, or whoever asks may not see it.
        """
        if try_number is None:
            found = next(iter(self.attempts(dag_id, run_id, task_id, map_index)), None)
        else:
            found = self._known(keys.record_key(dag_id, run_id, task_id, map_index, try_number), TaskRecord)
        if found is None:
            mapped = f"[{map_index}]" if map_index >= 0 else ""
            raise ArtifactNotFoundError(
                f"{dag_id}.{task_id}{mapped} left no record in run {run_id!r}; a task leaves one when it ends"
            )
        return found

    # -- models

    def models(self, search: str = "", *, limit: int = 50, cursor: str | None = None) -> Page[Model]:
        """
        Registered models that records or the ledger know, by name; those whose aliases never moved have none.

        A list and a read for each alias of the page.
        """
        limit = _limit(limit)
        known = at_once(lambda room: list(self._objects.children(room)), ("ledger", "registered"))
        folders = sorted({folder for folders in known for folder in folders})
        names = sorted(
            name
            for name in at_once(self._model_name, folders)
            if name is not None and search.casefold() in name.casefold() and (cursor is None or name > cursor)
        )
        return Page(
            tuple(at_once(self.model, names[:limit])), names[limit - 1] if len(names) > limit else None
        )

    def model(self, registered_model_name: str) -> Model:
        """Where the aliases of a registered model point, by the ledger; none if it knows no move."""
        now = datetime.now(UTC)
        aliases = self.ledger.aliases_of(registered_model_name)
        moves = at_once(
            lambda alias: self.ledger.as_of(registered_model_name, alias, now, clock="wall"), aliases
        )
        return Model(
            registered_model_name,
            {alias: move for alias, move in zip(aliases, moves, strict=True) if move is not None},
        )

    def moves(
        self,
        registered_model_name: str,
        alias: str = "champion",
        *,
        clock: Clock = "data",
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[AliasMove]:
        """
        The moves of an alias, the latest first.

        :param clock: The time they are sorted by. By wall clock, all names of moves are listed.
        """
        limit = _limit(limit)
        found = self.ledger.history(
            registered_model_name, alias, limit=limit + 1, clock=clock, after=_cursor(cursor)
        )
        return Page(tuple(found[:limit]), found[limit - 1].entry_id if len(found) > limit else None)

    def model_versions(
        self, registered_model_name: str, *, limit: int = 50, cursor: str | None = None
    ) -> Page[RegisteredVersion]:
        """The versions of a registered model that records know, the highest first."""

        return self._page(
            keys.registered_prefix(registered_model_name),
            self._listed(RegisteredVersion),
            limit=limit,
            cursor=cursor,
        )

    def model_version(self, registered_model_name: str, version: str) -> RegisteredVersion | None:
        """One version of a registered model; None if no record knows it."""
        return self._known(keys.registered_key(registered_model_name, version), RegisteredVersion)

    def verdicts(
        self,
        registered_model_name: str,
        alias: str = "champion",
        *,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[Verdict]:
        """What promotion tasks decided about an alias, rejections too, the latest first by wall clock."""

        prefix = index.decisions_prefix(registered_model_name, alias)
        return self._page(prefix, self._listed(Verdict), limit=limit, cursor=cursor)

    # -- how

    def _each(self, read: Callable[[ObjectInfo], T], entries: Iterable[ObjectInfo]) -> list[T]:
        """Read the objects of a list."""
        return at_once(read, entries, lambda entry: self._objects.at_hand(entry.key))

    def _page(
        self,
        prefix: str,
        read: Callable[[ObjectInfo], T | None],
        *,
        limit: int,
        cursor: str | None,
        keep: Callable[[str], bool] = lambda key: True,
    ) -> Page[T]:
        """
        Read a page below a prefix, without what ``read`` gives None for.

        Other items take their places, unless there are thousands of them; then the page is shorter.
        """
        limit = _limit(limit)
        start = None if cursor is None else f"{prefix}{_cursor(cursor)}"
        found: list[T] = []
        pending: list[ObjectInfo] = []
        last = ""

        def take() -> None:
            found.extend(item for item in self._each(read, pending) if item is not None)
            pending.clear()

        for number, entry in enumerate(self._objects.list(prefix, after=start)):
            if len(found) + len(pending) == limit:
                take()
            if len(found) == limit or number == _SCANNED:
                take()
                return Page(tuple(found), last)
            last = entry.key.removeprefix(prefix)
            if last.endswith(".json") and keep(last):
                pending.append(entry)
        take()
        return Page(tuple(found))

    def _shows(self, dag_id: str | None) -> bool:
        return self._may_read is None or dag_id is None or self._may_read(dag_id)

    def _known(self, key: str, cls: type[T]) -> T | None:
        """Read a small object; None if it is gone, or of a DAG that whoever asks may not see."""
        try:
            doc = self._objects.get_json(key)
        except ArtifactNotFoundError:
            return None
        if not isinstance(doc, dict):
            raise ArtifactCorruptError(f"{self._objects.root}/{key} is not what is kept there; delete it")
        return made_of(cls, doc) if self._shows(doc.get("dag_id")) else None

    def _listed(self, cls: type[T]) -> Callable[[ObjectInfo], T | None]:
        """Give what reads objects of a list, as :meth:`_known` does."""

        def read(entry: ObjectInfo) -> T | None:
            return self._known(entry.key, cls)

        return read

    def _name_of(self, folder: str) -> str | None:
        name = keys.text_of(folder)
        if name is not None:
            return name
        first = next(self._objects.list(f"versions/{folder}", limit=1), None)  # hashed because it is long
        if first is None:
            return None
        doc = self._objects.get_json(first.key)
        return str(doc["name"]) if isinstance(doc, dict) and "name" in doc else None

    def _newest(self, name: str) -> Version | None:
        """The newest version that may be seen, of the latest few."""
        prefix = keys.versions_prefix(name)
        for entry in self._objects.list(prefix, limit=1 if self._may_read is None else _LOOKED_AT):
            if (found := self._version(name, entry)) is not None:
                return found
        return None

    def _version(self, name: str, entry: ObjectInfo) -> Version | None:
        try:
            ref = self._store.get(name, _version_id(entry.key))
        except ArtifactNotFoundError:
            return None
        except StoreError:
            raise
        except (ArtifactError, ValueError) as exc:
            # Whose it is nobody knows, so it is shown only to whoever may see everything.
            return None if self._may_read is not None else _unreadable(name, _version_id(entry.key), exc)
        return Version.of(ref) if self._shows(_maker(ref)) else None

    def _ref(self, name: str, entry: ObjectInfo) -> ArtifactRef | None:
        try:
            ref = self._store.get(name, _version_id(entry.key))
        except StoreError:
            raise
        except (ArtifactError, ValueError):
            return None
        return ref if self._shows(_maker(ref)) else None

    def _model_name(self, folder: str) -> str | None:
        name = keys.text_of(folder)
        if name is not None:
            return name
        for room in ("ledger", "registered"):  # hashed because it is long: what is below it knows it
            first = next(self._objects.list(f"{room}/{folder}", limit=1), None)
            if first is not None:
                return str(self._objects.get_json(first.key)["registered_model_name"])
        return None


def _unreadable(name: str, version_id: str, exc: Exception) -> Version:
    return Version(
        name,
        version_id,
        _time_or_epoch(keys.version_time, version_id),
        _time_or_epoch(keys.version_effective, version_id),
        problem=" ".join(str(exc).split()),
    )


def _time_or_epoch(read: Callable[[str], datetime], version_id: str) -> datetime:
    try:
        return read(version_id)
    except ValueError:  # no store writes such a key
        return datetime.fromtimestamp(0, UTC)


def _maker(ref: ArtifactRef) -> str | None:
    return None if ref.producer is None else ref.producer.dag_id


def _version_id(key: str) -> str:
    return key.rsplit("/", 1)[-1].removesuffix(".json")


def _limit(limit: int) -> int:
    if not 1 <= limit <= MAX_PAGE:
        raise ValueError(f"limit must be from 1 to {MAX_PAGE}, got {limit!r}")
    return limit


def _cursor(cursor: str | None) -> str | None:
    if cursor is not None and not _CURSOR.fullmatch(cursor):
        raise ValueError(f"cursor must be what a page gave, got {cursor!r:.100}")
    return cursor
