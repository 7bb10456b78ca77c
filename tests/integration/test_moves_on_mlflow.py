# SPDX-License-Identifier: Apache-2.0
"""Real processes that move one alias of a real MLflow server: at once, and killed half-way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_ml_provider.artifacts.objects import ObjectStore
from airflow_ml_provider.tracking.client import connect
from airflow_ml_provider.tracking.ledger import Ledger
from airflow_ml_provider.tracking.moves import where

ROUNDS = 30
SCRIPT = Path(__file__).with_name("racing_mover.py")
Mover = subprocess.Popen[str]


@pytest.fixture
def client(mlflow_server: str) -> Any:
    return connect(mlflow_server)


@pytest.fixture
def name(client: Any, tmp_path: Path) -> str:
    """A registered model with enough versions."""
    found = f"raced-{tmp_path.name}"
    client.create_registered_model(found)
    for _ in range(2 * ROUNDS):
        client.create_model_version(found, source="s3://nowhere/model", await_creation_for=0)
    return found


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(ObjectStore(f"file://{tmp_path}/store"))


@pytest.fixture
def start(mlflow_server: str, name: str, tmp_path: Path) -> Iterator[Callable[..., Mover]]:
    started: list[Mover] = []

    def begin(who: str, *kill: str) -> Mover:
        command = [sys.executable, str(SCRIPT), mlflow_server, f"file://{tmp_path}/store", name, who, *kill]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def say(mover: Mover, line: str) -> None:
    assert mover.stdin
    mover.stdin.write(f"{line}\n")
    mover.stdin.flush()


def hear(mover: Mover) -> str:
    assert mover.stdout
    return mover.stdout.readline().strip()


def chain(ledger: Ledger, name: str) -> list[tuple[str | None, str | None, str]]:
    """The moves, oldest first, after checking that turns and entries tell the same."""
    moves = list(ledger.moves(name, "champion"))[::-1]
    by_wall_clock = sorted(ledger.history(name, "champion"), key=lambda move: move.recorded_at)
    assert {move.entry_id for move in by_wall_clock} == {move.entry_id for move in moves}
    assert len(by_wall_clock) == len(moves)
    return [(move.previous_version, move.version, move.actor.get("dag_id", "")) for move in moves]


def test_of_two_processes_that_move_at_once_one_wins_and_the_other_names_it(start, client, ledger, name):
    movers = {who: start(who) for who in ("left", "right")}
    won: list[tuple[str, str]] = []
    for number in range(ROUNDS):
        versions = {"left": str(2 * number + 1), "right": str(2 * number + 2)}
        for who, mover in movers.items():
            say(mover, versions[who])
        assert [hear(mover) for mover in movers.values()] == ["ready", "ready"]
        for mover in movers.values():
            say(mover, "go")
        said = {who: hear(mover) for who, mover in movers.items()}
        (winner,) = [who for who, text in said.items() if text == f"won {versions[who]}"]
        (loser,) = [who for who, text in said.items() if text.startswith("lost ")]
        assert f"{winner}.promote in run '{versions[winner]}' moved" in said[loser]
        assert client.get_model_version_by_alias(name, "champion").version == versions[winner]
        won.append((versions[winner], winner))
    moved = chain(ledger, name)
    assert [(version, who) for _, version, who in moved] == won
    assert [previous for previous, _, _ in moved] == [None, *(version for version, _ in won[:-1])]


@pytest.mark.parametrize("point", ["before", "after"])
def test_a_process_killed_around_the_move_leaves_it_to_the_next_mover(start, client, ledger, name, point):
    doomed = start("doomed", point)
    say(doomed, "1")
    assert hear(doomed) == "ready"
    say(doomed, "go")
    assert doomed.wait(60) == -9
    assert ledger.history(name, "champion") == []

    heir = start("heir")
    say(heir, "2")
    assert hear(heir) == "ready"
    assert client.get_model_version_by_alias(name, "champion").version == "1"
    assert chain(ledger, name) == [(None, "1", "doomed")]
    say(heir, "go")
    assert hear(heir) == "won 2"
    assert where(client, ledger, name, "champion").version == "2"
    assert chain(ledger, name) == [(None, "1", "doomed"), ("1", "2", "heir")]
