# SPDX-License-Identifier: Apache-2.0
"""Who moves an alias, decided against an in-memory registry that, like MLflow's, knows no compare-and-set."""

from __future__ import annotations

import random
import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from airflow_ml_provider.artifacts.objects import ObjectStore
from airflow_ml_provider.exceptions import AliasMovedError, ModelNotFoundError
from airflow_ml_provider.tracking import moves
from airflow_ml_provider.tracking.ledger import AliasMove, Ledger
from airflow_ml_provider.tracking.moves import ROLLBACK, before, make_move, where

TODAY = datetime(2026, 1, 1, tzinfo=UTC)
NAME, ALIAS = "flight_delay", "champion"


class Registry:
    """What the movers ask of MlflowClient; ``sets`` are the requests that moved the alias."""

    tracking_uri = "memory:"

    def __init__(self) -> None:
        self.alias: str | None = None
        self.sets: list[str | None] = []
        self.versions = {str(number) for number in range(1, 100)}

    def get_model_version_by_alias(self, name, alias):
        if self.alias is None:
            raise ModelNotFoundError("no alias")
        return SimpleNamespace(version=self.alias)

    def get_model_version(self, name, version):
        if version not in self.versions:
            raise ModelNotFoundError("no version")
        return SimpleNamespace(version=version, model_id=f"m-{version}", run_id=f"run-{version}")

    def get_registered_model(self, name):
        return SimpleNamespace(name=name, aliases={})

    def search_model_versions(self, *args, **kwargs):
        return []

    def set_registered_model_alias(self, name, alias, version):
        self.get_model_version(name, version)
        self.alias = version
        self.sets.append(version)

    def delete_registered_model_alias(self, name, alias):
        self.alias = None
        self.sets.append(None)


@pytest.fixture
def registry():
    return Registry()


@pytest.fixture
def ledger(tmp_path):
    return Ledger(ObjectStore(f"file://{tmp_path}/store"))


def wish(version: str, who: str = "a", **changes) -> AliasMove:
    given = {"effective_at": TODAY, "recorded_at": TODAY, "previous_version": None, **changes}
    return AliasMove(NAME, ALIAS, version, actor={"dag_id": who, "run_id": "r", "task_id": "t"}, **given)


def history(ledger: Ledger) -> list[tuple[str | None, str | None, str]]:
    return [(move.previous_version, move.version, move.kind) for move in ledger.moves(NAME, ALIAS)]


class Lost(BaseException):
    """The process is gone."""


def test_an_alias_that_never_was_stands_nowhere(registry, ledger):
    assert where(registry, ledger, NAME, ALIAS) == moves.Standing(None)


def test_moves_are_numbered_recorded_and_made(registry, ledger):
    for version in ("1", "2"):
        made = make_move(registry, ledger, wish(version), where(registry, ledger, NAME, ALIAS))
    assert (made.sequence, made.previous_version) == (1, "1")
    assert registry.alias == "2"
    assert history(ledger) == [("1", "2", "promotion"), (None, "1", "promotion")]
    assert where(registry, ledger, NAME, ALIAS).move == made
    assert [move.version for move in ledger.history(NAME, ALIAS)].count("2") == 1


def test_of_two_who_decided_at_the_same_standing_the_second_is_told_who_won(registry, ledger):
    standing = where(registry, ledger, NAME, ALIAS)
    make_move(registry, ledger, wish("1", "winner"), standing)
    with pytest.raises(AliasMovedError, match=r"at nothing .* winner\.t in run 'r' moved .*version 1"):
        make_move(registry, ledger, wish("2", "loser"), standing)
    assert registry.sets == ["1"]
    assert history(ledger) == [(None, "1", "promotion")]


@pytest.mark.parametrize("point", ["before the alias", "after the alias"])
@pytest.mark.parametrize("who_goes_on", ["the retry", "the next mover", "a watcher"])
def test_a_move_whose_mover_was_lost_is_finished_once(registry, ledger, monkeypatch, point, who_goes_on):
    def lost(*args):
        if point == "after the alias":
            original(*args)
        raise Lost

    original = moves._set
    with monkeypatch.context() as patch:
        patch.setattr(moves, "_set", lost)
        with pytest.raises(Lost):
            make_move(registry, ledger, wish("1"), where(registry, ledger, NAME, ALIAS))
    assert history(ledger) == []
    if who_goes_on == "the retry":
        make_move(registry, ledger, wish("1", recorded_at=TODAY + timedelta(minutes=5)), moves.Standing(None))
    elif who_goes_on == "the next mover":
        make_move(registry, ledger, wish("2", "b"), where(registry, ledger, NAME, ALIAS))
    where(registry, ledger, NAME, ALIAS)
    moved = [(None, "1", "promotion")]
    if who_goes_on == "the next mover":
        moved.insert(0, ("1", "2", "promotion"))
    assert history(ledger) == moved
    assert registry.alias == moved[0][1]


def test_a_move_by_hand_is_recorded_once_whoever_sees_it(registry, ledger):
    make_move(registry, ledger, wish("1"), where(registry, ledger, NAME, ALIAS))
    registry.alias = "7"
    for _ in range(3):
        standing = where(registry, ledger, NAME, ALIAS)
    assert standing.version == "7"
    assert history(ledger) == [("1", "7", "observed"), (None, "1", "promotion")]
    assert (standing.move.mlflow_run_id, standing.move.actor) == ("run-7", {})
    registry.alias = None
    assert where(registry, ledger, NAME, ALIAS).version is None
    assert history(ledger)[0] == ("7", None, "observed")


def test_an_alias_that_was_there_before_the_ledger_is_recorded(registry, ledger):
    registry.alias = "3"
    assert where(registry, ledger, NAME, ALIAS).sequence == 0
    assert history(ledger) == [(None, "3", "observed")]


def test_what_was_moved_by_hand_before_a_lost_move_was_finished_stays(registry, ledger, monkeypatch):
    make_move(registry, ledger, wish("1"), where(registry, ledger, NAME, ALIAS))
    with monkeypatch.context() as patch:
        patch.setattr(moves, "_set", lambda *args: (_ for _ in ()).throw(Lost))
        with pytest.raises(Lost):
            make_move(registry, ledger, wish("2"), where(registry, ledger, NAME, ALIAS))
    registry.alias = "9"
    assert where(registry, ledger, NAME, ALIAS).version == "9"
    assert history(ledger) == [("1", "9", "observed"), (None, "1", "promotion")]
    assert "turn 1, to version 2, was never made" in where(registry, ledger, NAME, ALIAS).move.reasons[1]


def test_a_lost_move_to_a_version_that_was_deleted_does_not_block_the_alias(registry, ledger, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(moves, "_set", lambda *args: (_ for _ in ()).throw(Lost))
        with pytest.raises(Lost):
            make_move(registry, ledger, wish("2"), where(registry, ledger, NAME, ALIAS))
    registry.versions.remove("2")
    make_move(registry, ledger, wish("3"), where(registry, ledger, NAME, ALIAS))
    assert registry.alias == "3"


def test_a_version_that_does_not_exist_takes_no_turn(registry, ledger):
    with pytest.raises(ModelNotFoundError, match="no version 404"):
        make_move(registry, ledger, wish("404"), where(registry, ledger, NAME, ALIAS))
    assert ledger.latest_turn(NAME, ALIAS) is None


def test_a_mover_that_was_suspended_before_it_set_the_alias_puts_it_right(registry, ledger, monkeypatch):
    original = moves._set

    def others_first(client, name, alias, version):
        if version == "1" and not registry.sets:
            registry.sets.append("suspended")
            for later in ("2", "3"):
                make_move(registry, ledger, wish(later, "b"), where(registry, ledger, NAME, ALIAS))
        original(client, name, alias, version)

    monkeypatch.setattr(moves, "_set", others_first)
    make_move(registry, ledger, wish("1"), where(registry, ledger, NAME, ALIAS))
    assert registry.sets == ["suspended", "1", "2", "3", "1", "3"]
    assert history(ledger) == [
        ("2", "3", "promotion"),
        ("1", "2", "promotion"),
        (None, "1", "promotion"),
    ]


def test_rollbacks_go_one_further_back_each_time(registry, ledger):
    for version in ("1", "2", "3"):
        make_move(registry, ledger, wish(version), where(registry, ledger, NAME, ALIAS))
    for back in ("2", "1"):
        standing = where(registry, ledger, NAME, ALIAS)
        assert before(ledger, standing, NAME, ALIAS).previous_version == back
        make_move(registry, ledger, wish(back, kind=ROLLBACK), standing)
    with pytest.raises(ModelNotFoundError, match=r"knows no version .* before version 1; name"):
        before(ledger, where(registry, ledger, NAME, ALIAS), NAME, ALIAS)
    # A promotion after a rollback takes the alias from where the rollback put it.
    make_move(registry, ledger, wish("4"), where(registry, ledger, NAME, ALIAS))
    assert before(ledger, where(registry, ledger, NAME, ALIAS), NAME, ALIAS).previous_version == "1"


@pytest.mark.parametrize(
    ("made", "back"),
    [
        pytest.param(["1", "2", "3", "2"], ["3", "2", "1"], id="a version had the alias twice"),
        pytest.param(["1", "2", "1", "2", "3"], ["2", "1", "2", "1"], id="two took turns"),
        pytest.param(["1", "2", "3", "4", "<2"], ["1"], id="after one by name"),
        pytest.param(["1", "2", "3", "<1", "4"], ["1"], id="after one by name to the first"),
        pytest.param(["1", "2", "3", "<1", "<3"], ["2", "1"], id="forth again by name"),
        pytest.param(["1", "2", "3", "2", "<3", "4", "<3"], ["2", "1"], id="by name in between"),
    ],
)
def test_each_rollback_goes_to_what_was_before_all_that_is_undone(registry, ledger, made, back):
    for wanted in made:
        move = wish(wanted.removeprefix("<"), kind=ROLLBACK if wanted[0] == "<" else "promotion")
        make_move(registry, ledger, move, where(registry, ledger, NAME, ALIAS))
    found = []
    for _ in back:
        standing = where(registry, ledger, NAME, ALIAS)
        found.append(before(ledger, standing, NAME, ALIAS).previous_version)
        make_move(registry, ledger, wish(found[-1], kind=ROLLBACK), standing)
    assert found == back


def test_an_alias_that_points_at_nothing_cannot_be_rolled_back(registry, ledger):
    with pytest.raises(ModelNotFoundError, match="points at nothing"):
        before(ledger, where(registry, ledger, NAME, ALIAS), NAME, ALIAS)


@pytest.mark.parametrize("seed", range(8))
def test_however_movers_interleave_the_ledger_is_a_chain_that_ends_at_the_alias(ledger, registry, seed):
    """Four movers, each lost now and then at a random step; whoever lost says so and decides again."""
    chance = random.Random(seed)  # noqa: S311
    winners: list[str] = []
    losers: list[str] = []
    start = threading.Barrier(4)

    def mover(who: int) -> None:
        start.wait()
        for turn in range(5):
            version = str(1 + who * 20 + turn)
            try:
                make_move(registry, ledger, wish(version, str(who)), where(registry, ledger, NAME, ALIAS))
                winners.append(version)
            except AliasMovedError:
                losers.append(version)
            except Lost:
                pass

    original = registry.set_registered_model_alias

    def unreliable(*args):
        fate = chance.random()
        if fate < 0.1:
            raise Lost
        original(*args)
        if fate > 0.9:
            raise Lost

    registry.set_registered_model_alias = unreliable
    threads = [threading.Thread(target=mover, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    registry.set_registered_model_alias = original
    standing = where(registry, ledger, NAME, ALIAS)
    chain = history(ledger)[::-1]
    assert standing.version == registry.alias == chain[-1][1]
    assert [move[0] for move in chain] == [None, *(move[1] for move in chain[:-1])]
    assert {move[2] for move in chain} == {"promotion"}
    moved = [move[1] for move in chain]
    assert len(set(moved)) == len(moved)
    assert set(winners) <= set(moved)
    assert not set(losers) & set(moved)
