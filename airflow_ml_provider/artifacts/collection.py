# SPDX-License-Identifier: Apache-2.0
"""
Garbage collection: which versions retention lets go, which contents nobody refers to, and why.

:func:`plan` decides and changes nothing; :func:`execute` carries out what is still true by then.

Tasks go on writing meanwhile. Content that is stored already is not written again, so its modification time
says nothing about a save that is about to refer to it. Therefore contents are listed before the manifests
that could name them, and the manifests are listed once more right before contents are moved, out of the way
of new saves, to ``trash/``, and once more after it: what a manifest names by then is put back. A save that
found the content there before the move may still write its manifest after the last list. No order of requests
prevents that, so it does no harm: a reader that misses content looks into the trash (:mod:`.trash`; a read
that misses nothing costs nothing more), and the next collection puts it back. Asking again after each
manifest would cost every save a request for a race that nearly none of them runs.

Content is deleted for good only from the trash, after the grace period, longer than any save takes, and only
if nothing names it or it is in its place. Until then putting back copies and leaves the trash as it is: on S3
a move is a copy and a deletion, and another collection may be between the two.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

from airflow_ml_provider.artifacts import keys, trash
from airflow_ml_provider.artifacts.envelope import ARTIFACT, from_envelope
from airflow_ml_provider.artifacts.limits import any_length_of_int
from airflow_ml_provider.artifacts.objects import at_once
from airflow_ml_provider.artifacts.refs import ArtifactRef
from airflow_ml_provider.exceptions import ArtifactError, ArtifactNotFoundError, SignatureError, StoreError

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.objects import ObjectInfo, ObjectStore
    from airflow_ml_provider.artifacts.signing import Signer

BATCH = 500
# A writer's private file grows while it writes: one that has not changed for so long has lost its writer.
_WRITER_IS_GONE_AFTER = timedelta(hours=1)
_DIGEST = re.compile(rb"blake3:[0-9a-f]{64}")
_VERSION_ID = re.compile(rb"(?<![0-9a-f])[0-9a-f]{15}-[0-9a-f]{15}-[0-9a-f]{12}(?![0-9a-f])")
_BLOB_KEY = re.compile(r"blobs/([0-9a-f]{2})/(\1[0-9a-f]{62})")

Kind = Literal["version", "blob", "trash", "unfinished", "record"]
Protected = Collection[str] | Callable[[ArtifactRef], str | None]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Retention:
    """
    Which versions are kept. Without ``keep_last``, ``keep_for`` and ``passing_for`` all are.

    A version is kept if one of the first two keeps it.

    :param keep_last: So many of each name, by wall clock.
    :param keep_for: Those recorded not longer ago.
    :param include: Glob patterns; the rules hold for names that match one.
    :param exclude: Glob patterns; names that match one keep all their versions.
    :param passing: Glob patterns of names whose versions were made for a while, such as checkpoints.
    :param passing_for: Those go when they were recorded longer ago, the newest of a name too; None: never.
    :param grace: Nothing younger is ever deleted. Longer than any save takes.
    :raises ValueError: if a number is out of range.
    """

    keep_last: int | None = None
    keep_for: timedelta | None = None
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    passing: tuple[str, ...] = ()
    passing_for: timedelta | None = None
    grace: timedelta = timedelta(hours=24)

    def __post_init__(self) -> None:
        if self.keep_last is not None and self.keep_last < 1:
            raise ValueError(f"keep_last must be at least 1 version, got {self.keep_last!r}")
        if self.keep_for is not None and self.keep_for < timedelta(0):
            raise ValueError(f"keep_for must not be negative, got {self.keep_for!r}")
        if self.passing_for is not None and self.passing_for < timedelta(0):
            raise ValueError(f"passing_for must not be negative, got {self.passing_for!r}")
        if self.grace < timedelta(0):
            raise ValueError(f"grace must not be negative, got {self.grace!r}")

    @property
    def lets_go(self) -> bool:
        """Whether there is a rule by which a version of any name can go."""
        return self.keep_last is not None or self.keep_for is not None

    def is_over(self, name: str, age: timedelta) -> bool:
        """Whether a version was made for a while, and that is over."""
        return (
            self.passing_for is not None
            and age > self.passing_for
            and any(fnmatchcase(name, pattern) for pattern in self.passing)
            and any(fnmatchcase(name, pattern) for pattern in self.include)
            and not any(fnmatchcase(name, pattern) for pattern in self.exclude)
        )

    def reason_to_keep(self, name: str, rank: int, age: timedelta) -> str | None:
        """
        Say why a version stays; None if retention lets it go.

        :param rank: 1 for the newest of its name.
        """
        if not self.lets_go:
            return "no retention rule is given"
        if not any(fnmatchcase(name, pattern) for pattern in self.include):
            return "its name is not among those to clean up"
        if excluded := next((pattern for pattern in self.exclude if fnmatchcase(name, pattern)), None):
            return f"its name matches the exclusion {excluded!r}"
        if self.keep_last is not None and rank <= self.keep_last:
            return f"it is among the last {self.keep_last} of its name"
        if self.keep_for is not None and age <= self.keep_for:
            return f"it is not older than {span(self.keep_for)}"
        return None

    def reason_to_go(self, name: str, rank: int, age: timedelta) -> str:
        """Say why a version goes."""
        if self.passing_for is not None and self.is_over(name, age):
            return f"{span(age)} old, and checkpoints are kept for {span(self.passing_for)}"
        words = []
        if self.keep_last is not None:
            words.append(f"number {rank} of its name, and the last {self.keep_last} are kept")
        if self.keep_for is not None:
            words.append(f"{span(age)} old, and {span(self.keep_for)} are kept")
        return "; ".join(words)


@dataclass(frozen=True)
class Decision:
    """
    What becomes of one object, and why.

    :param kind: ``version`` (a manifest), ``blob`` (content), ``trash`` (content that an earlier collection
        took away), ``unfinished`` (what a writer that died left) or ``record`` (of an attempt of a task, see
        :mod:`..lineage.expiry`).
    :param size_bytes: Of the object itself; the content of a version is counted with its blob.
    :param problem: It should not be there, and a person must look at it.
    """

    kind: Kind
    key: str
    size_bytes: int
    goes: bool
    reason: str
    name: str | None = None
    problem: bool = False


@dataclass(frozen=True)
class Totals:
    """How much goes, or went. Bytes count contents and unfinished files, not manifests."""

    versions: int = 0
    blobs: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class _Survey:
    """What the store holds: versions newest first by name, and what cannot be read."""

    listed: dict[str, ObjectInfo]
    refs: dict[str, ArtifactRef]
    unreadable: dict[str, str]
    unreadable_digests: frozenset[str]


@dataclass(frozen=True)
class Plan:
    """Every object that garbage collection looks at, and what becomes of it."""

    policy: Retention
    decisions: tuple[Decision, ...]
    _objects: ObjectStore = field(repr=False, compare=False)
    _signer: Signer = field(repr=False, compare=False)
    _protected: Protected = field(repr=False, compare=False)
    _memory: _Memory = field(repr=False, compare=False)

    @property
    def going(self) -> tuple[Decision, ...]:
        return tuple(item for item in self.decisions if item.goes)

    @property
    def kept(self) -> tuple[Decision, ...]:
        return tuple(item for item in self.decisions if not item.goes)

    @property
    def problems(self) -> tuple[Decision, ...]:
        return tuple(item for item in self.decisions if item.problem)

    def makers_of_kept(self) -> set[str]:
        """Return the keys of the records of the attempts that wrote versions that stay."""
        makers = set()
        for item in self.kept:
            ref = self._memory.refs.get(item.key)
            if ref is not None and (by := ref.producer) is not None:
                makers.add(keys.record_key(by.dag_id, by.run_id, by.task_id, by.map_index, by.try_number))
        return makers

    def totals(self, *, goes: bool = True) -> Totals:
        """Count what goes, or what stays."""
        return _totals(item for item in self.decisions if item.goes is goes)


@dataclass(frozen=True)
class Outcome:
    """
    What a collection did.

    :param removed: No longer there for anybody: manifests, blobs moved to the trash, unfinished files.
    :param freed_bytes: Deleted for good.
    :param restored: Keys of blobs that were moved back because a version refers to them.
    """

    removed: Totals
    freed_bytes: int
    restored: tuple[str, ...]


class _Memory:
    """What was read once: manifests and trees, which never change, and cache entries as they were listed."""

    def __init__(self) -> None:
        self.refs: dict[str, ArtifactRef] = {}
        self.parts: dict[str, frozenset[_Part]] = {}
        self.cached: dict[ObjectInfo, _Named] = {}


class _Named(NamedTuple):
    """Version ids and digests that stand in a text."""

    ids: frozenset[str]
    digests: frozenset[str]


@dataclass(frozen=True)
class _Part:
    """What a tree says of a part that it refers to."""

    digest: str
    version_id: str | None
    is_tree: bool


def plan(
    objects: ObjectStore,
    signer: Signer,
    *,
    policy: Retention,
    now: datetime | None = None,
    protected: Protected = (),
) -> Plan:
    """
    Decide about every version and every content. Lists everything and reads all manifests; changes nothing.

    :param now: Wall clock, with a zone.
    :param protected: Ids of versions to keep, or a function that gives a reason to keep a version, or None.
    :raises StoreError: if the storage refuses or cannot be reached.
    """
    return _plan(objects, signer, policy, _clock(now), protected, _Memory())


def execute(plan: Plan, *, now: datetime | None = None) -> Outcome:
    """
    Remove what the plan lets go and what may still go: manifests first, then contents.

    It can be interrupted at any moment and run again, and several may run at once.

    :param now: Wall clock, with a zone.
    :raises StoreError: if the storage refuses; names the object. What is done stays done.
    """
    objects, memory = plan._objects, plan._memory
    when = _clock(now)
    # The world went on since the plan was made, perhaps while somebody read it: both must agree.
    fresh = _plan(objects, plan._signer, plan.policy, when, plan._protected, memory)
    agreed = {item.key for item in plan.going} & {item.key for item in fresh.going}
    going = [item for item in fresh.going if item.key in agreed]

    versions = [item for item in going if item.kind == "version"]
    for batch in _batches(versions):
        _leave_marks(objects, memory, batch, when)
        _delete(objects, [item.key for item in batch])

    blobs: list[Decision] = []
    restored: list[str] = []
    # Around each of these all manifests are listed: the more there are, the more goes at once.
    for batch in _batches([item for item in going if item.kind == "blob"], max(BATCH, len(memory.refs))):
        gone, back = _take_away(plan, batch, when)
        blobs += gone
        restored += back

    over, back = _look_through_trash(plan, when)
    restored += back
    unfinished = [item for item in going if item.kind == "unfinished"]
    for some in _batches([entry.key for entry in over] + [item.key for item in unfinished]):
        _delete(objects, some)
    freed = sum(entry.size_bytes for entry in over) + sum(item.size_bytes for item in unfinished)
    return Outcome(_totals([*versions, *blobs, *unfinished]), freed, tuple(restored))


def _leave_marks(objects: ObjectStore, memory: _Memory, batch: Sequence[Decision], when: datetime) -> None:
    """Write down what goes and why, so that who looks for a version later learns it; before it is gone."""

    def mark(item: Decision) -> None:
        ref = memory.refs[item.key]
        doc = {
            "kind": "ml-collected/v1",
            "name": ref.name,
            "version_id": ref.version_id,
            "digest": ref.digest,
            "type": ref.type,
            "size_bytes": ref.size_bytes,
            "producer": None if ref.producer is None else asdict(ref.producer),
            "collected_at": when.isoformat(),
            "reason": item.reason,
        }
        objects.put_json(keys.collected_key(ref.name, ref.version_id), doc, create_only=False)

    at_once(mark, [item for item in batch if item.key in memory.refs])


def _take_away(plan: Plan, batch: Sequence[Decision], when: datetime) -> tuple[list[Decision], list[str]]:
    """Move contents to the trash; returns what went, and the keys of what was needed after all."""
    objects = plan._objects
    needed = _needed_now(objects, plan._signer, plan._memory)
    going = [item for item in batch if _digest_of_key(item.key) not in needed]

    def move(item: Decision) -> bool:
        return _move(objects, item.key, trash.key_of(_digest_of_key(item.key), when))

    moved = [
        item
        for some in _batches(going)
        for item, was_there in zip(some, at_once(move, some), strict=True)
        if was_there
    ]
    needed = _needed_now(objects, plan._signer, plan._memory)
    back = [item.key for item in moved if _digest_of_key(item.key) in needed]
    for key in back:
        _put_back(objects, trash.key_of(_digest_of_key(key), when), key)
    return [item for item in moved if item.key not in back], back


def _look_through_trash(plan: Plan, when: datetime) -> tuple[list[ObjectInfo], list[str]]:
    """Put back what is missed; returns what can be deleted for good, and the keys of what was put back."""
    objects = plan._objects
    over, back = [], []
    found = list(objects.list("trash"))
    needed = _needed_now(objects, plan._signer, plan._memory) if found else {}
    for entry in found:
        parsed = trash.parse(entry.key)
        if parsed is None:
            continue
        digest, since = parsed
        place = keys.blob_key(digest)
        if digest in needed and not objects.exists(place) and _put_back(objects, entry.key, place):
            back.append(place)
        elif when - since >= plan.policy.grace:
            over.append(entry)
    return over, back


def _plan(
    objects: ObjectStore,
    signer: Signer,
    policy: Retention,
    now: datetime,
    protected: Protected,
    memory: _Memory,
) -> Plan:
    unfinished = list(objects.list(".tmp"))
    blobs = list(objects.list("blobs"))
    taken = list(objects.list("trash"))
    survey = _survey(objects, signer, memory)  # after the blobs: a blob of the list has its manifests here
    cached_ids, cached_digests = _named_in_cache(objects, memory)

    reasons = _Reasons(objects, policy, now, protected, cached_ids)
    kept = reasons.of(survey)
    by_id = {ref.version_id: key for key, ref in survey.refs.items()}
    needed = _spread(objects, memory, survey, kept, by_id)
    for digest in cached_digests:
        needed.setdefault(digest, "a cache entry names it")

    decisions = [
        *_about_versions(policy, now, survey, kept),
        *_about_blobs(policy, now, blobs, needed),
        *_about_trash(policy, now, taken, needed),
        *_about_unfinished(policy, now, unfinished),
    ]
    return Plan(policy, tuple(decisions), objects, signer, protected, memory)


class _Reasons:
    """Why versions stay by themselves."""

    def __init__(
        self,
        objects: ObjectStore,
        policy: Retention,
        now: datetime,
        protected: Protected,
        cached: frozenset[str],
    ) -> None:
        self._policy = policy
        self._now = now
        self._protected = protected
        self._cached = cached
        self._active_runs: frozenset[str] = frozenset()
        self._used: frozenset[str] = frozenset()
        if policy.lets_go or policy.passing_for is not None:
            self._look_at_records(objects)

    def _look_at_records(self, objects: ObjectStore) -> None:
        self._active_runs = frozenset(
            keys.run_of_record(entry.key)
            for entry in objects.list("records")  # there may be millions: they are not kept
            if self._now - entry.modified < self._policy.grace
        )

        def records_of(run: str) -> list[str]:
            return [entry.key for entry in objects.list(run)]

        # A run that wrote something lately may be under way, and needs what its earlier tasks used.
        found = at_once(records_of, sorted(self._active_runs))
        self._used, _ = _named_in(objects, [key for records in found for key in records])

    def of(self, survey: _Survey) -> dict[str, str]:
        """Return the reason for each manifest that stays, by key."""
        kept: dict[str, str] = {}
        ranks: dict[str, int] = {}
        latest: dict[str, str] = {}
        for key in sorted(survey.refs):  # newest first within a name
            ref = survey.refs[key]
            best = latest.setdefault(ref.name, key)
            if ref.effective_at > survey.refs[best].effective_at:
                latest[ref.name] = key
        for key in sorted(survey.refs):
            ref = survey.refs[key]
            rank = ranks[ref.name] = ranks.get(ref.name, 0) + 1
            reason = self._reason(ref, rank, survey.listed[key])
            over = self._policy.is_over(ref.name, self._now - ref.recorded_at)
            if reason is None and not over and latest[ref.name] == key:
                reason = "it is the newest of its name by data time"
            if reason is not None:
                kept[key] = reason
        return kept

    def _reason(self, ref: ArtifactRef, rank: int, entry: ObjectInfo) -> str | None:
        policy, age = self._policy, self._now - ref.recorded_at
        reason = None
        if not policy.is_over(ref.name, age):
            if rank == 1:
                return "it is the newest of its name"
            reason = policy.reason_to_keep(ref.name, rank, age)
        if reason is None and min(age, self._now - entry.modified) < policy.grace:
            reason = f"it is younger than the grace period of {span(policy.grace)}"
        if reason is None and ref.version_id in self._cached:
            reason = "a cache entry names it"
        if reason is None and ref.version_id in self._used:
            reason = f"a run that was active in the last {span(policy.grace)} used it"
        if reason is None and ref.producer is not None:
            run = keys.run_records_prefix(ref.producer.dag_id, ref.producer.run_id)
            if run in self._active_runs:
                reason = f"its run was active in the last {span(policy.grace)}"
        if reason is None:
            if callable(self._protected):
                reason = self._protected(ref)
            elif ref.version_id in self._protected:
                reason = "the caller protects it"
        return reason


def _survey(objects: ObjectStore, signer: Signer, memory: _Memory) -> _Survey:
    """List the manifests and read those that were not read before."""
    listed = {entry.key: entry for entry in objects.list("versions")}
    unreadable: dict[str, str] = {}
    digests: set[str] = set()

    def read(key: str) -> None:
        try:
            data = bytes(objects.get(key))
        except ArtifactNotFoundError:
            listed.pop(key, None)  # another collection was faster
            return
        try:
            ref = _manifest(key, data, signer)
        except (ArtifactError, ValueError, RecursionError) as exc:
            unreadable[key] = " ".join(str(exc).split())
            # Written under another key, perhaps: what it names is not ours to delete.
            digests.update(found.decode() for found in _DIGEST.findall(data))
            return
        memory.refs[key] = replace(ref, schema=None, preview=None)

    for some in _batches([key for key in listed if key not in memory.refs]):
        at_once(read, some)  # each takes nearly 2 KB until all are read
    refs = {key: memory.refs[key] for key in listed if key in memory.refs}
    return _Survey(listed, refs, unreadable, frozenset(digests))


def _manifest(key: str, data: bytes, signer: Signer) -> ArtifactRef:
    doc = json.loads(data)
    if not isinstance(doc, dict):
        raise SignatureError(f"{key} is no manifest")
    ref = from_envelope(doc, signer)
    if keys.version_key(ref.name, ref.version_id) != key:
        raise SignatureError(f"the manifest of {ref.uri} stands at {key}; somebody copied it there")
    return ref


def _spread(
    objects: ObjectStore, memory: _Memory, survey: _Survey, kept: dict[str, str], by_id: dict[str, str]
) -> dict[str, str]:
    """
    Keep the parts of kept trees too, and return why each content is needed, by digest.

    Adds to ``kept``. A tree holds the envelopes of its parts.
    """
    needed: dict[str, str] = {}
    pending: list[tuple[str, bool, str]] = [
        (digest, survey.refs[key].format == "tree-v1", _title(survey.refs[key]))
        for key in kept
        for digest in survey.refs[key].blobs
    ]
    trees_seen: set[str] = set()
    while pending:
        level, pending = pending, []
        for digest, _is_tree, title in level:
            needed.setdefault(digest, f"{title} refers to it")
        trees = {digest: title for digest, is_tree, title in level if is_tree and digest not in trees_seen}
        trees_seen |= trees.keys()
        for (_, title), parts in zip(
            trees.items(), at_once(lambda digest: _parts_of(objects, memory, digest), trees), strict=True
        ):
            for part in parts:
                key = by_id.get(part.version_id or "")
                if key is not None and key not in kept:
                    kept[key] = f"{title} holds it"
                pending.append((part.digest, part.is_tree, f"a part of {title.removeprefix('a part of ')}"))
    # What an unreadable manifest names may be a tree: it is looked into.
    for digest in survey.unreadable_digests:
        needed.setdefault(digest, "an unreadable manifest names it")
        for part in _all_parts(objects, memory, digest):
            needed.setdefault(part.digest, "a part of what an unreadable manifest names")
    return needed


def _all_parts(objects: ObjectStore, memory: _Memory, digest: str) -> Iterator[_Part]:
    """Yield the parts of what may be a tree, and theirs."""
    pending, seen = [digest], {digest}
    while pending:
        for part in _parts_of(objects, memory, pending.pop(), probe=True):
            yield part
            if part.is_tree and part.digest not in seen:
                seen.add(part.digest)
                pending.append(part.digest)


def _parts_of(objects: ObjectStore, memory: _Memory, digest: str, *, probe: bool = False) -> frozenset[_Part]:
    """
    Return the parts that a tree refers to; none if its content is gone or is no JSON.

    :param probe: It may be something else than a tree, of any size.
    """
    if (known := memory.parts.get(digest)) is not None:
        return known
    try:
        if probe and (objects.size(keys.blob_key(digest)) or 0) > 64 << 20:
            return frozenset()
        data = bytes(trash.read_content(objects, digest, objects.get))
    except ArtifactNotFoundError:
        return frozenset()
    try:
        with any_length_of_int():
            tree = json.loads(data)
    except (ValueError, RecursionError):
        # Damaged: the tree cannot be loaded, yet what it still names is not let go for that.
        tree = None
    found = {_Part(text.decode(), None, False) for text in _DIGEST.findall(data)} if tree is None else set()
    pending = [tree]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            if item.get("kind") == ARTIFACT:
                version_id = item.get("version_id")
                blobs = item.get("parts") or [item.get("digest")]
                found |= {
                    _Part(
                        blob,
                        version_id if isinstance(version_id, str) else None,
                        item.get("format") == "tree-v1",
                    )
                    for blob in (blobs if isinstance(blobs, list) else [])
                    if _DIGEST.fullmatch(str(blob).encode())
                }
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
    memory.parts[digest] = frozenset(found)
    return memory.parts[digest]


def _needed_now(objects: ObjectStore, signer: Signer, memory: _Memory) -> dict[str, str]:
    """Return the contents that the manifests and cache entries of this moment refer to."""
    survey = _survey(objects, signer, memory)
    everything = dict.fromkeys(survey.refs, "")
    needed = _spread(objects, memory, survey, everything, {})
    _, cached = _named_in_cache(objects, memory)
    return {**dict.fromkeys(cached, "a cache entry names it"), **needed}


def _named_in_cache(objects: ObjectStore, memory: _Memory) -> _Named:
    """
    Return what the results in the cache name.

    Entries tell people of arguments too: no hit loads those, and what was cached would keep all it came from.
    """
    listed = [entry for entry in objects.list("cache") if not entry.key.startswith("cache/last/")]
    for batch in _batches([entry for entry in listed if entry not in memory.cached]):
        texts = _texts(objects, [entry.key for entry in batch])
        memory.cached.update((entry, _named(_result(text))) for entry, text in zip(batch, texts, strict=True))
    return _all_of(memory.cached[entry] for entry in listed)


def _result(entry: bytes) -> bytes:
    try:
        doc = json.loads(entry)
    except (ValueError, RecursionError):
        return entry
    if isinstance(doc, dict):
        doc = {name: value for name, value in doc.items() if name not in ("parts", "shown")}
    return json.dumps(doc).encode()


def _named_in(objects: ObjectStore, found: Sequence[str]) -> _Named:
    """Return what objects mention anywhere in their text."""
    return _all_of(_named(text) for batch in _batches(found) for text in _texts(objects, batch))


def _texts(objects: ObjectStore, found: Sequence[str]) -> list[bytes]:
    def read(key: str) -> bytes:
        try:
            return bytes(objects.get(key))
        except ArtifactNotFoundError:
            return b""

    return at_once(read, found)


def _named(text: bytes) -> _Named:
    return _Named(
        frozenset(found.decode() for found in _VERSION_ID.findall(text)),
        frozenset(found.decode() for found in _DIGEST.findall(text)),
    )


def _all_of(found: Iterable[_Named]) -> _Named:
    ids: set[str] = set()
    digests: set[str] = set()
    for each in found:
        ids |= each.ids
        digests |= each.digests
    return _Named(frozenset(ids), frozenset(digests))


def version_ids_in(doc: object) -> frozenset[str]:
    """Return the ids of the versions that JSON mentions anywhere."""
    return _named(json.dumps(doc).encode()).ids


def _about_versions(
    policy: Retention, now: datetime, survey: _Survey, kept: dict[str, str]
) -> Iterator[Decision]:
    ranks: dict[str, int] = {}
    for key, entry in sorted(survey.listed.items()):
        ref = survey.refs.get(key)
        if ref is None:
            why = survey.unreadable.get(key, "it cannot be read")
            yield Decision("version", key, entry.size_bytes, False, f"unreadable: {why}", problem=True)
            continue
        rank = ranks[ref.name] = ranks.get(ref.name, 0) + 1
        goes = key not in kept
        reason = policy.reason_to_go(ref.name, rank, now - ref.recorded_at) if goes else kept[key]
        yield Decision("version", key, entry.size_bytes, goes, reason, ref.name)


def _about_blobs(
    policy: Retention, now: datetime, blobs: Iterable[ObjectInfo], needed: dict[str, str]
) -> Iterator[Decision]:
    for entry in blobs:
        if not _BLOB_KEY.fullmatch(entry.key):
            yield Decision(
                "blob", entry.key, entry.size_bytes, False, "no store writes such a key", problem=True
            )
        elif reason := needed.get(_digest_of_key(entry.key)):
            yield Decision("blob", entry.key, entry.size_bytes, False, reason)
        elif now - entry.modified < policy.grace:
            reason = f"it is younger than the grace period of {span(policy.grace)}"
            yield Decision("blob", entry.key, entry.size_bytes, False, reason)
        else:
            yield Decision("blob", entry.key, entry.size_bytes, True, "no version that stays refers to it")


def _about_trash(
    policy: Retention, now: datetime, found: Iterable[ObjectInfo], needed: dict[str, str]
) -> Iterator[Decision]:
    for entry in found:
        parsed = trash.parse(entry.key)
        goes = False
        if parsed is None:
            reason = "no collection writes such a key"
        elif needs := needed.get(parsed[0]):
            reason = f"{needs}; it goes back to its place if it is missing there"
        elif now - parsed[1] < policy.grace:
            reason = f"it was removed less than {span(policy.grace)} ago"
        else:
            goes, reason = True, f"it was removed more than {span(policy.grace)} ago and nobody missed it"
        yield Decision("trash", entry.key, entry.size_bytes, goes, reason, problem=parsed is None)


def _about_unfinished(
    policy: Retention, now: datetime, unfinished: Iterable[ObjectInfo]
) -> Iterator[Decision]:
    limit = max(policy.grace, _WRITER_IS_GONE_AFTER)
    for entry in unfinished:
        goes = now - entry.modified >= limit
        reason = "its writer died" if goes else f"it was written to less than {span(limit)} ago"
        yield Decision("unfinished", entry.key, entry.size_bytes, goes, reason)


def _totals(decisions: Iterable[Decision]) -> Totals:
    versions = blobs = size = 0
    for item in decisions:
        if item.kind == "version":
            versions += 1
        else:
            blobs += item.kind == "blob"
            size += item.size_bytes
    return Totals(versions, blobs, size)


def _delete(objects: ObjectStore, found: Sequence[str]) -> None:
    try:
        objects.delete(found)
    except StoreError:
        # Some storage does not say which of a batch it refused.
        for key in found:
            try:
                objects.delete([key])
            except StoreError as exc:
                raise StoreError(
                    f"garbage collection stopped at {key}: {exc}; what went before is gone, run it again"
                ) from exc


def _move(objects: ObjectStore, key: str, target: str) -> bool:
    try:
        return objects.move(key, target)
    except StoreError as exc:
        raise StoreError(
            f"garbage collection stopped at {key}: {exc}; what went before is gone, run it again"
        ) from exc


def _put_back(objects: ObjectStore, key: str, place: str) -> bool:
    try:
        return objects.copy(key, place)
    except StoreError as exc:
        raise StoreError(
            f"garbage collection stopped at {key}, which goes back to {place}: {exc}; run it again"
        ) from exc


def _digest_of_key(key: str) -> str:
    return f"blake3:{key.rsplit('/', 1)[-1]}"


def _title(ref: ArtifactRef) -> str:
    return f"{ref.name!r} version {ref.version_id}"


def span(length: timedelta) -> str:
    """Say a length of time in hours or days."""
    hours = length / timedelta(hours=1)
    return f"{hours:.3g} hours" if hours < 48 else f"{hours / 24:.4g} days"


def _clock(now: datetime | None) -> datetime:
    if now is None:
        return datetime.now(UTC)
    if now.tzinfo is None:
        raise ValueError(f"a time needs a zone, got {now!r}")
    return now.astimezone(UTC)


def _batches(items: Sequence[T], size: int | None = None) -> Iterator[Sequence[T]]:
    size = size or BATCH
    for start in range(0, len(items), size):
        yield items[start : start + size]
