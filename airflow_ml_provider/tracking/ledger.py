# SPDX-License-Identifier: Apache-2.0
"""
The history of an alias, which MLflow does not keep.

One object a move, under ``ledger/<model>/<alias>/``. The name of an object begins with its two times,
inverted so that the latest comes first, data time before wall clock::

    <999...9 - effective_at>-<999...9 - recorded_at>-<digest of who moved it>.json

So the champion of a day in *data time* is one list request, which begins at that day, and one read; a
question in *wall time* reads the names of the alias's moves and one object.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol

from airflow_ml_provider.artifacts.keys import ledger_key, ledger_prefix
from airflow_ml_provider.tracking.clocks import moment

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TOP = 10**17  # microseconds; the year 5138, and room before 1970
_DIGITS = 18
_SUFFIX = ".json"


class _Objects(Protocol):
    """What the ledger asks of an ObjectStore."""

    def put_json(self, key: str, doc: Any, create_only: bool = True) -> bool: ...

    def get_json(self, key: str) -> Any: ...

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
    :param kind: ``promotion``, ``rollback`` or another word for what moved it.
    :param actor: Who moved it: ``dag_id``, ``run_id``, ``task_id`` and so on.
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
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> AliasMove:
        """Read what :meth:`to_json` gave; fields of a later release are ignored."""
        known = {item.name for item in fields(cls)}
        given = {key: value for key, value in document.items() if key in known}
        given["metrics"] = {name: float(value) for name, value in (given.get("metrics") or {}).items()}
        return cls(**given)

    def same_move(self, other: AliasMove) -> bool:
        """Whether a retry of what made ``other`` would have made this; the wall clock does not count."""
        return (self.version, self.effective_at, self.kind, _who(self.actor)) == (
            other.version,
            other.effective_at,
            other.kind,
            _who(other.actor),
        )


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

        :returns: False if the latest move of that data time is this very one, written by an earlier try.
        """
        prefix = ledger_prefix(move.registered_model_name, move.alias)
        start = prefix + _inverted(move.effective_at)
        latest = next(iter(self._objects.list(prefix, after=start, limit=1)), None)
        if latest is not None and latest.key.startswith(start) and move.same_move(self._read(latest.key)):
            return False
        who = hashlib.sha256(repr(_who(move.actor)).encode()).hexdigest()[:12]
        entry_id = f"{_inverted(move.effective_at)}-{_inverted(move.recorded_at)}-{who}"
        key = ledger_key(move.registered_model_name, move.alias, entry_id)
        return self._objects.put_json(key, move.to_json(), create_only=True)

    def history(self, registered_model_name: str, alias: str, *, limit: int | None = None) -> list[AliasMove]:
        """The moves of an alias, the latest in data time first."""
        found = self._objects.list(ledger_prefix(registered_model_name, alias), limit=limit)
        return [self._read(item.key) for item in found if item.key.endswith(_SUFFIX)]

    def as_of(
        self,
        registered_model_name: str,
        alias: str,
        when: datetime,
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

    def _read(self, key: str) -> AliasMove:
        return AliasMove.from_json(self._objects.get_json(key))


def _inverted(when: datetime) -> str:
    return f"{_TOP - (when - _EPOCH) // timedelta(microseconds=1):0{_DIGITS}d}"


def _recorded_part(key: str) -> str | None:
    parts = key.rpartition("/")[2].split("-")
    return parts[1] if len(parts) == 3 else None


def _who(actor: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The task instance, whichever of its tries it is."""
    return sorted((key, str(value)) for key, value in actor.items() if key != "try_number")
