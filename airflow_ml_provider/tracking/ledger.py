# SPDX-License-Identifier: Apache-2.0
"""
The history of an alias, which MLflow does not keep.

A move is written twice. Its *turn*, ``turns/<model>/<alias>/<999...9 - number>.json``, comes before the
alias moves and decides who may move it: turns are numbered, and each number can be taken once (see
``moves.py``). Its *entry* comes after the alias moved, and is what questions are answered from.

Entries are under ``ledger/<model>/<alias>/``. The name of one begins with its two times, inverted so that
the latest comes first, data time before wall clock::

    <999...9 - effective_at>-<999...9 - recorded_at>-<digest of who moved it>.json

So the champion of a day in *data time* is one list request, which begins at that day, and one read; a
question in *wall time* reads the names of the alias's moves and one object.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol

from airflow_ml_provider.artifacts.keys import ledger_key, ledger_prefix, turn_key, turns_prefix
from airflow_ml_provider.artifacts.objects import at_once
from airflow_ml_provider.tracking.clocks import moment

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TOP = 10**17  # microseconds; the year 5138, and room before 1970
_DIGITS = 18
_SUFFIX = ".json"
# What an actor says of clears; tries after a clear are a new request of the same task instance.
_CLEARED = ("cleared_after_try",)


class _Objects(Protocol):
    """What the ledger asks of an ObjectStore."""

    def put_json(self, key: str, doc: Any, create_only: bool = True) -> bool: ...

    def get_json(self, key: str) -> Any: ...

    def at_hand(self, key: str) -> bool: ...

    def exists(self, key: str) -> bool: ...

    def list(self, prefix: str, *, after: str | None = None, limit: int | None = None) -> Any: ...

    def children(self, prefix: str) -> Any: ...


@dataclass(frozen=True)
class AliasMove:
    """
    One move of an alias: who, when, from, to and why.

    :param version: The version that the alias points at from then on; None if it was removed.
    :param previous_version: What it pointed at before; None for a first champion.
    :param effective_at: The data time from which the new version counts.
    :param recorded_at: The wall clock when the alias moved.
    :param kind: ``promotion``, ``rollback``, or ``observed`` for a move by somebody else that was found.
    :param actor: Who moved it: ``dag_id``, ``run_id``, ``task_id`` and so on; empty for an observed move.
    :param evidence: What the decision rests on: the evaluation's MLflow run, the gates, the data.
    :param sequence: The number of its turn; None for a move without one.
    """

    registered_model_name: str
    alias: str
    version: str | None
    previous_version: str | None
    effective_at: datetime
    recorded_at: datetime
    kind: str = "promotion"
    reasons: list[str] = field(default_factory=list)
    actor: dict[str, Any] = field(default_factory=dict)
    model_id: str | None = None
    mlflow_run_id: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    evidence: dict[str, Any] = field(default_factory=dict)
    sequence: int | None = None

    def __post_init__(self) -> None:
        for name in ("effective_at", "recorded_at"):
            when = moment(getattr(self, name))
            if when is None:
                raise ValueError(f"{name} of an alias move must be a datetime, got {getattr(self, name)!r}")
            object.__setattr__(self, name, when)
        for name in ("version", "previous_version"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, str(getattr(self, name)))

    def to_json(self) -> dict[str, Any]:
        """Give plain JSON."""
        document = asdict(self)
        document["effective_at"] = self.effective_at.isoformat()
        document["recorded_at"] = self.recorded_at.isoformat()
        document["metrics"] = {name: str(value) for name, value in self.metrics.items()}
        document["evidence"] = _plain(self.evidence)
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> AliasMove:
        """Read what :meth:`to_json` gave; fields of a later release are ignored."""
        known = {item.name for item in fields(cls)}
        given = {key: value for key, value in document.items() if key in known}
        given["metrics"] = {name: float(value) for name, value in (given.get("metrics") or {}).items()}
        return cls(**given)

    @property
    def model_uri(self) -> str | None:
        """MLflow's URI of the version; None if the alias was removed."""
        return None if self.version is None else f"models:/{self.registered_model_name}/{self.version}"

    @property
    def entry_id(self) -> str:
        """The name of its entry: the same for whoever writes this move down, and however often."""
        who = hashlib.sha256(repr((self.version, self.kind, _who(self.actor))).encode()).hexdigest()[:12]
        return f"{_inverted(self.effective_at)}-{_inverted(self.recorded_at)}-{who}"

    def made_by(self, actor: Mapping[str, Any], *, also_before_a_clear: bool = False) -> bool:
        """
        Whether this task instance made the move, in whichever of its tries.

        :param also_before_a_clear: Count tries before the task instance was last cleared too.
        """
        less = _CLEARED if also_before_a_clear else ()
        return bool(self.actor) and _who(self.actor, *less) == _who(actor, *less)

    def __str__(self) -> str:
        """Who moved what, when: for messages."""
        name = f"{self.registered_model_name}@{self.alias}"
        moved = f"{name} from {_version(self.previous_version)} to {_version(self.version)}"
        when = self.recorded_at.isoformat(timespec="seconds")
        if not self.actor:
            return f"somebody moved {moved}, seen at {when}"
        return f"{actor_text(self.actor)} moved {moved} at {when} ({self.kind})"


class Ledger:
    """
    The alias moves in an artifact store.

    :param objects: The store's ``objects``.
    """

    def __init__(self, objects: _Objects) -> None:
        self._objects = objects

    def record(self, move: AliasMove) -> bool:
        """
        Write a move down, once.

        :returns: False if this very move is written down already.
        """
        key = ledger_key(move.registered_model_name, move.alias, move.entry_id)
        return self._objects.put_json(key, move.to_json(), create_only=True)

    def is_recorded(self, move: AliasMove) -> bool:
        """Whether the entry of a move exists."""
        return self._objects.exists(ledger_key(move.registered_model_name, move.alias, move.entry_id))

    def take_turn(self, move: AliasMove) -> bool:
        """
        Take the turn ``move.sequence`` of an alias, if nobody has; of several callers one succeeds.

        :returns: False if somebody else has taken it.
        """
        if move.sequence is None or move.sequence < 0:
            raise ValueError(f"a turn has a number from 0, got {move.sequence!r}")
        key = turn_key(move.registered_model_name, move.alias, move.sequence)
        return self._objects.put_json(key, move.to_json(), create_only=True)

    def latest_turn(self, registered_model_name: str, alias: str) -> AliasMove | None:
        """The turn that was taken last, finished or not. One list request and one read."""
        return next(self.turns(registered_model_name, alias), None)

    def turns(self, registered_model_name: str, alias: str) -> Iterator[AliasMove]:
        """Yield the turns, the latest first, each read as it is asked for."""
        for item in self._objects.list(turns_prefix(registered_model_name, alias)):
            yield self._read(item.key)

    def made_in_turn(
        self, registered_model_name: str, alias: str, actor: Mapping[str, Any], kind: str
    ) -> AliasMove | None:
        """
        Find the move of this kind that this task instance made since it was last cleared; None if there is
        none. Reads the moves back to it, and at most the latest hundred.
        """
        latest = itertools.islice(self.moves(registered_model_name, alias), 100)
        return next((move for move in latest if move.kind == kind and move.made_by(actor)), None)

    def moves(self, registered_model_name: str, alias: str) -> Iterator[AliasMove]:
        """Yield the moves that were made in turn, the latest first, each read as it is asked for."""
        return (turn for turn in self.turns(registered_model_name, alias) if self.is_recorded(turn))

    def history(
        self,
        registered_model_name: str,
        alias: str,
        *,
        limit: int | None = None,
        clock: Literal["data", "wall"] = "data",
        after: str | None = None,
    ) -> list[AliasMove]:
        """
        The moves of an alias, the latest first: in data time, or by when they were recorded (``wall``).

        :param after: Only those that come after the move of this ``entry_id``.
        """
        prefix = ledger_prefix(registered_model_name, alias)
        if clock not in ("data", "wall"):
            raise ValueError(f"clock must be 'data' or 'wall', got {clock!r}")
        start = None if after is None else f"{prefix}{after}{_SUFFIX}"
        if clock == "data":
            found = self._objects.list(prefix, after=start, limit=limit)
        else:
            found = sorted(self._objects.list(prefix), key=lambda item: _by_wall_clock(item.key))
            found = [
                item for item in found if start is None or _by_wall_clock(item.key) > _by_wall_clock(start)
            ]
        keys = [item.key for item in found if item.key.endswith(_SUFFIX)]
        return at_once(self._read, keys[:limit], self._objects.at_hand)

    def as_of(
        self,
        registered_model_name: str,
        alias: str,
        when: datetime | str,
        *,
        clock: Literal["data", "wall"] = "data",
    ) -> AliasMove | None:
        """
        The move that decided where an alias pointed at a time; None if it did not exist yet.

        :param when: Naive counts as UTC. A move at exactly that time has happened.
        :param clock: ``data``: what speaks for data up to ``when``; ``wall``: what was so at ``when``.
        """
        moment_asked = moment(when)
        if moment_asked is None:
            raise TypeError(f"when must be a datetime or ISO 8601 text, got {when!r}")
        prefix = ledger_prefix(registered_model_name, alias)
        if clock == "data":
            # Names of moves at this very time go on after this text, so they come after it.
            start = prefix + _inverted(moment_asked)
            found = next(iter(self._objects.list(prefix, after=start, limit=1)), None)
            return None if found is None else self._read(found.key)
        if clock != "wall":
            raise ValueError(f"clock must be 'data' or 'wall', got {clock!r}")
        bound = _inverted(moment_asked)
        happened = [
            (recorded, item.key)
            for item in self._objects.list(prefix)
            if (recorded := _recorded_part(item.key)) is not None and recorded >= bound
        ]
        return self._read(min(happened)[1]) if happened else None

    def aliases(self) -> list[tuple[str, str]]:
        """The names of the registered models and aliases that ever moved. Reads one object an alias."""
        found = []
        for model in self._objects.children("ledger"):
            for alias in self._objects.children(f"ledger/{model}"):
                found.extend(self._objects.list(f"ledger/{model}/{alias}", limit=1))
        moves = [self._read(item.key) for item in found]
        return sorted((move.registered_model_name, move.alias) for move in moves)

    def aliases_of(self, registered_model_name: str) -> list[str]:
        """The aliases of a registered model that ever moved. Reads one object an alias."""
        folder = ledger_prefix(registered_model_name, "x").rpartition("/x/")[0]
        found = [
            item
            for alias in self._objects.children(folder)
            for item in self._objects.list(f"{folder}/{alias}", limit=1)
        ]
        return sorted(self._read(item.key).alias for item in found)

    def _read(self, key: str) -> AliasMove:
        return AliasMove.from_json(self._objects.get_json(key))


def _inverted(when: datetime) -> str:
    return f"{_TOP - (when - _EPOCH) // timedelta(microseconds=1):0{_DIGITS}d}"


def _recorded_part(key: str) -> str | None:
    parts = key.rpartition("/")[2].split("-")
    return parts[1] if len(parts) == 3 else None


def _by_wall_clock(key: str) -> tuple[str, str]:
    return _recorded_part(key) or "", key


def actor_text(actor: Mapping[str, Any]) -> str:
    """Name a task instance in a sentence."""
    if not actor.get("task_id"):
        return ", ".join(f"{key} {value}" for key, value in actor.items()) or "somebody"
    mapped = f"[{actor['map_index']}]" if int(actor.get("map_index", -1)) >= 0 else ""
    return f"{actor.get('dag_id')}.{actor['task_id']}{mapped} in run {actor.get('run_id')!r}"


def _version(version: str | None) -> str:
    return "nothing" if version is None else f"version {version}"


def _who(actor: Mapping[str, Any], *less: str) -> list[tuple[str, str]]:
    """The task instance, whichever of its tries it is."""
    return sorted((key, str(value)) for key, value in actor.items() if key not in ("try_number", *less))


def _plain(value: Any) -> Any:
    """Numbers that JSON does not have become text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
