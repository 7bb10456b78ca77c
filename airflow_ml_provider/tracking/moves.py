# SPDX-License-Identifier: Apache-2.0
"""
Moving an alias so that two movers never overwrite each other.

MLflow's registry sets an alias whatever it was before, so the ledger decides. The moves of an alias are
numbered turns, each an object that is created only if it does not exist, which one mover alone can do:

1. Look where the alias stands: the latest turn, finished first if its mover was lost, and MLflow. If MLflow
   disagrees with a finished turn, somebody moved the alias by other means; that is a turn too (``observed``).
2. Decide.
3. Take the next turn. If somebody else did since step 1, nothing happens and the error names them.
4. Set the alias, write the entry.

A mover that is killed between 3 and 4 is finished by its retry, by the next mover or by a watcher, whoever
comes first. What MLflow alone could close stays open: a process that is suspended right before its request
to set the alias, while others finish its turn and take further ones, sets it late. It sees that when it goes
on, and puts the alias where the latest turn has it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_ml_provider.exceptions import AliasMovedError, ModelNotFoundError
from airflow_ml_provider.tracking.registry import alias_version, move_alias, version_details

if TYPE_CHECKING:
    from airflow_ml_provider.tracking.ledger import AliasMove, Ledger

_log = logging.getLogger(__name__)
#: The kind of a move that somebody made by other means than this provider's operators.
OBSERVED = "observed"
ROLLBACK = "rollback"
#: In a move's evidence: the task that makes it announces it, by its own outlet.
ANNOUNCED_BY_TASK = "announced_by_task"
# Each round means that somebody else moved the alias meanwhile.
_ROUNDS = 100


@dataclass(frozen=True)
class Standing:
    """
    Where an alias stands.

    :param version: What it points at; None if it does not exist.
    :param sequence: The number of its latest turn; -1 before the first.
    :param move: The move that put it there, as far as the ledger knows.
    """

    version: str | None
    sequence: int = -1
    move: AliasMove | None = None


def where(
    client: Any,
    ledger: Ledger,
    registered_model_name: str,
    alias: str,
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Standing:
    """
    Say where an alias stands, after finishing what a lost mover began and recording what others did.

    Calling it twice, or from several processes, records nothing twice.
    """
    for _ in range(_ROUNDS):
        turn = ledger.latest_turn(registered_model_name, alias)
        if turn is not None and not ledger.is_recorded(turn):
            _finish(client, ledger, turn, now)
            continue
        version = alias_version(client, registered_model_name, alias)
        if turn is None and version is None:
            return Standing(None)
        if turn is not None and turn.version == version:
            return Standing(version, turn.sequence if turn.sequence is not None else -1, turn)
        # Only after its turn does a mover of ours set the alias, so this fails if it was one of ours.
        _observe(client, ledger, turn, registered_model_name, alias, version, now)
    raise _restless(registered_model_name, alias)


def make_move(
    client: Any,
    ledger: Ledger,
    move: AliasMove,
    standing: Standing,
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> AliasMove:
    """
    Move an alias from where it stands, and write that down.

    :param standing: What the decision rests on, from :func:`where`.
    :returns: The move as it was recorded.
    :raises AliasMovedError: if somebody else moved the alias since; it stays where they put it.
    :raises ModelNotFoundError: if there is no such version.
    """
    name, alias = move.registered_model_name, move.alias
    if move.version is not None:
        version_details(client, name, move.version)  # a turn to nowhere could never be finished
    turn = replace(move, sequence=standing.sequence + 1, previous_version=standing.version)
    if not ledger.take_turn(turn):
        winner = next((taken for taken in ledger.turns(name, alias) if taken.sequence == turn.sequence), None)
        if winner is None or not winner.made_by(move.actor) or winner.version != move.version:
            raise lost(move, winner, standing)
        turn = winner  # two attempts of one task instance, the first one still alive
    if not _finish(client, ledger, turn, now):
        raise lost(move, ledger.latest_turn(name, alias), standing)
    return turn


def before(ledger: Ledger, standing: Standing, registered_model_name: str, alias: str) -> AliasMove:
    """
    Find the move that a rollback undoes: the one that gave the alias to the version that has it now.

    A rollback is passed over together with what it undid, so that each one goes one further back, also where
    a version had the alias more than once.

    :raises ModelNotFoundError: if the ledger knows of no version before.
    """
    name = f"{registered_model_name}@{alias}"
    if standing.version is None:
        raise ModelNotFoundError(
            f"{name} points at nothing, so there is nothing to roll back; name a version"
        )
    gave: AliasMove | None = None
    back_to: list[str | None] = []  # of the rollbacks whose undone moves come next, the latest last
    for move in ledger.moves(registered_model_name, alias):
        if move.kind == ROLLBACK:
            back_to.append(move.version)
            continue
        if not back_to:
            gave = move
            break
        if gave is None and move.version == standing.version:
            gave = move  # counts if a rollback went by name to a version that is not below
        if move.previous_version == back_to[-1]:
            back_to.pop()
    if gave is not None and gave.previous_version is not None:
        return gave
    raise ModelNotFoundError(
        f"the ledger knows no version that {name} pointed at before version {standing.version}; name the "
        "version to go back to, if there is one: version=..."
    )


def lost(move: AliasMove, winner: AliasMove | None, standing: Standing) -> AliasMovedError:
    """Say to a mover who came first."""
    stood = "nothing" if standing.version is None else f"version {standing.version}"
    return AliasMovedError(
        f"{move.registered_model_name}@{move.alias} pointed at {stood} when this task decided to move it to "
        f"version {move.version}, but {winner or 'somebody else moved it'} first; nothing was overwritten. "
        f"Clear the evaluation, or this task if there is none, to decide again"
    )


def _finish(client: Any, ledger: Ledger, turn: AliasMove, now: Callable[[], datetime]) -> bool:
    """Do what a turn says; False if somebody else moved the alias by hand before it was done."""
    name, alias = turn.registered_model_name, turn.alias
    if turn.kind == OBSERVED:
        ledger.record(turn)
        return True
    version = alias_version(client, name, alias)
    if version != turn.version:
        newest = ledger.latest_turn(name, alias)
        if newest is not None and newest.sequence != turn.sequence:
            return ledger.is_recorded(turn)  # others finished it and went on
        try:
            done = version == turn.previous_version
            if done:
                _set(client, name, alias, turn.version)
        except ModelNotFoundError:  # the version was deleted
            done = False
        if not done:
            _observe(client, ledger, turn, name, alias, version, now, instead_of=turn)
            return False
        ledger.record(turn)
        _put_right(client, ledger, turn)
    else:
        ledger.record(turn)
    return True


def _put_right(client: Any, ledger: Ledger, turn: AliasMove) -> None:
    """If this process was suspended and set the alias too late, put it where the latest turn has it."""
    name, alias = turn.registered_model_name, turn.alias
    for _ in range(_ROUNDS):
        newest = ledger.latest_turn(name, alias)
        if newest is None or newest.sequence == turn.sequence:
            return
        if alias_version(client, name, alias) == turn.version != newest.version:
            _log.warning("%s@%s was set late to version %s; setting it to %s", name, alias, turn.version,
                         newest.version)  # fmt: skip
            _set(client, name, alias, newest.version)
        if ledger.latest_turn(name, alias) == newest:
            return
    raise _restless(name, alias)


def _observe(
    client: Any,
    ledger: Ledger,
    turn: AliasMove | None,
    name: str,
    alias: str,
    version: str | None,
    now: Callable[[], datetime],
    *,
    instead_of: AliasMove | None = None,
) -> None:
    """Take a turn for a move that somebody made by other means; nothing if somebody took it first."""
    from airflow_ml_provider.tracking.ledger import AliasMove

    seen_at = now()
    details = None
    if version is not None:
        with suppress(ModelNotFoundError):
            details = version_details(client, name, version)
    reasons = ["moved by other means than this provider's operators"]
    if instead_of is not None:
        reasons.append(f"turn {instead_of.sequence}, to version {instead_of.version}, was never made")
    seen = AliasMove(
        registered_model_name=name,
        alias=alias,
        version=version,
        previous_version=(
            None if turn is None else turn.version if instead_of is None else instead_of.previous_version
        ),
        effective_at=seen_at,
        recorded_at=seen_at,
        kind=OBSERVED,
        reasons=reasons,
        model_id=getattr(details, "model_id", None) or None,
        mlflow_run_id=getattr(details, "run_id", None) or None,
        sequence=0 if turn is None or turn.sequence is None else turn.sequence + 1,
    )
    if ledger.take_turn(seen):
        _log.warning("%s", seen)
        ledger.record(seen)


def _set(client: Any, name: str, alias: str, version: str | None) -> None:
    if version is None:
        client.delete_registered_model_alias(name, alias)
    else:
        move_alias(client, name, alias, version)


def _restless(name: str, alias: str) -> AliasMovedError:
    return AliasMovedError(
        f"{name}@{alias} was moved by others {_ROUNDS} times while this task looked; find out what moves it, "
        "then clear this task"
    )
