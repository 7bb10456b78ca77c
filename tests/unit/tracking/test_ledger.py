# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from airflow_ml_provider.artifacts.objects import ObjectStore
from airflow_ml_provider.tracking.ledger import AliasMove, Ledger

TODAY = datetime(2026, 1, 1, tzinfo=UTC)


def day(month: int, number: int = 1) -> datetime:
    return datetime(2013, month, number, tzinfo=UTC)


def move(version: str | None, effective_at: datetime, recorded_at: datetime = TODAY, **changes) -> AliasMove:
    given = {
        "registered_model_name": "flight_delay",
        "alias": "champion",
        "previous_version": None,
        "actor": {"dag_id": "d", "run_id": f"r{version}", "task_id": "promote"},
        **changes,
    }
    return AliasMove(version=version, effective_at=effective_at, recorded_at=recorded_at, **given)


class CountingObjects:
    """An object store that counts what is asked of it."""

    def __init__(self, objects: ObjectStore) -> None:
        self.objects = objects
        self.reads: list[str] = []
        self.listed = 0

    def put_json(self, *args, **kwargs):
        return self.objects.put_json(*args, **kwargs)

    def get_json(self, key):
        self.reads.append(key)
        return self.objects.get_json(key)

    def at_hand(self, key):
        return self.objects.at_hand(key)

    def exists(self, key):
        return self.objects.exists(key)

    def children(self, prefix):
        return self.objects.children(prefix)

    def list(self, *args, **kwargs):
        for item in self.objects.list(*args, **kwargs):
            self.listed += 1
            yield item


@pytest.fixture
def objects(tmp_path):
    return CountingObjects(ObjectStore(f"file://{tmp_path}/store"))


@pytest.fixture
def ledger(objects):
    return Ledger(objects)


def test_the_champion_of_a_day_is_found_in_data_time(ledger):
    # Catch-up: the moves of a year happen today, some out of order.
    for month in (4, 2, 3):
        assert ledger.record(move(str(month), day(month), TODAY + timedelta(minutes=month)))
    assert ledger.as_of("flight_delay", "champion", day(1)) is None
    assert ledger.as_of("flight_delay", "champion", day(2)).version == "2"
    assert ledger.as_of("flight_delay", "champion", day(3, 14)).version == "3"
    assert ledger.as_of("flight_delay", "champion", day(12)).version == "4"


def test_times_may_be_of_the_class_that_airflow_uses(ledger):
    pendulum = pytest.importorskip("pendulum")
    ledger.record(move("1", pendulum.datetime(2013, 2, 1)))
    assert ledger.as_of("flight_delay", "champion", pendulum.datetime(2013, 2, 1)).version == "1"
    assert ledger.as_of("flight_delay", "champion", pendulum.datetime(2013, 1, 31)) is None


def test_the_same_question_in_wall_time_has_its_own_answer(ledger):
    ledger.record(move("1", day(4), TODAY))
    ledger.record(move("2", day(2), TODAY + timedelta(hours=1)))
    asked = {"clock": "wall"}
    assert ledger.as_of("flight_delay", "champion", TODAY - timedelta(hours=1), **asked) is None
    assert ledger.as_of("flight_delay", "champion", TODAY, **asked).version == "1"
    assert ledger.as_of("flight_delay", "champion", TODAY + timedelta(days=1), **asked).version == "2"
    with pytest.raises(ValueError, match="'moon'"):
        ledger.as_of("flight_delay", "champion", TODAY, clock="moon")


def test_of_two_moves_at_one_data_time_the_later_one_counts(ledger):
    ledger.record(move("1", day(2), TODAY))
    ledger.record(move("7", day(2), TODAY + timedelta(seconds=1), kind="rollback", previous_version="1"))
    found = ledger.as_of("flight_delay", "champion", day(2))
    assert (found.version, found.kind, found.previous_version) == ("7", "rollback", "1")
    assert [item.version for item in ledger.history("flight_delay", "champion")] == ["7", "1"]


def test_the_same_move_written_by_a_retry_or_a_helper_is_one_entry(ledger):
    assert ledger.record(move("1", day(2), actor={"task_id": "promote", "try_number": 1}))
    again = move("1", day(2), actor={"task_id": "promote", "try_number": 2})
    assert not ledger.record(again)
    assert ledger.is_recorded(again)
    assert len(ledger.history("flight_delay", "champion")) == 1


def test_a_turn_can_be_taken_once_and_the_latest_is_found_first(ledger, objects):
    assert ledger.latest_turn("flight_delay", "champion") is None
    for number in range(12):
        assert ledger.take_turn(move(str(number), day(2), sequence=number))
    assert not ledger.take_turn(move("99", day(3), sequence=11))
    objects.reads.clear()
    assert ledger.latest_turn("flight_delay", "champion").version == "11"
    assert len(objects.reads) == 1
    assert [turn.sequence for turn in ledger.turns("flight_delay", "champion")] == list(range(11, -1, -1))
    assert list(ledger.moves("flight_delay", "champion")) == []  # a turn is no move until it is recorded
    assert ledger.aliases() == []
    with pytest.raises(ValueError, match="number from 0, got None"):
        ledger.take_turn(move("1", day(2)))


def test_tries_of_a_task_instance_are_one_actor_until_it_is_cleared():
    task = {"dag_id": "d", "run_id": "r", "task_id": "promote"}
    made = move("1", day(2), actor={**task, "try_number": 1, "cleared_after_try": 0})
    assert made.made_by({**task, "try_number": 2, "cleared_after_try": 0})
    cleared = {**task, "try_number": 3, "cleared_after_try": 2}
    assert not made.made_by(cleared)
    assert made.made_by(cleared, also_before_a_clear=True)
    assert not move("1", day(2), actor={}).made_by({})


def test_a_move_reads_as_a_sentence():
    actor = {"dag_id": "d", "run_id": "r1", "task_id": "promote", "map_index": -1}
    assert str(move("2", day(2), previous_version="1", actor=actor)) == (
        "d.promote in run 'r1' moved flight_delay@champion from version 1 to version 2 "
        "at 2026-01-01T00:00:00+00:00 (promotion)"
    )
    assert str(move("2", day(2), actor={})).startswith("somebody moved flight_delay@champion from nothing to")


def test_a_move_back_and_forth_is_three_moves(ledger):
    for minute, version in enumerate(("1", "2", "1")):
        assert ledger.record(move(version, day(2), TODAY + timedelta(minutes=minute)))
    assert [item.version for item in ledger.history("flight_delay", "champion")] == ["1", "2", "1"]


def test_data_time_costs_one_list_and_one_read(ledger, objects):
    for number in range(1, 29):
        ledger.record(move(str(number), day(2, number)))
    objects.reads.clear()
    objects.listed = 0
    assert ledger.as_of("flight_delay", "champion", day(2, 14)).version == "14"
    assert len(objects.reads) == 1
    assert objects.listed == 1


def test_all_of_a_move_comes_back(ledger):
    written = move(
        "3",
        day(2),
        reasons=["roc_auc 0.7 is at least 0.6"],
        metrics={"roc_auc": 0.7, "odd": float("inf")},
        model_id="m-1",
        mlflow_run_id="abc",
        previous_version=2,
        evidence={"evaluation_run_id": "e1", "gates": [{"metric": "roc_auc", "value": 0.7, "passed": True}]},
        sequence=4,
    )
    ledger.record(written)
    assert ledger.history("flight_delay", "champion") == [written]
    odd = move("4", day(3), evidence={"gates": [{"value": float("nan")}]})
    assert odd.to_json()["evidence"] == {"gates": [{"value": "nan"}]}
    assert written.previous_version == "2"


def test_a_ledger_written_by_a_later_release_can_be_read(ledger, objects):
    ledger.record(move("3", day(2)))
    key = next(iter(objects.list("ledger"))).key
    document = {**objects.get_json(key), "mood": "good"}
    assert AliasMove.from_json(json.loads(json.dumps(document))).version == "3"


def test_models_and_aliases_do_not_mix_and_names_are_user_text(ledger):
    for name, alias in (("a/b", "champion"), ("a", "b/champion"), ("ä" * 300, "shadow")):
        ledger.record(move("1", day(2), registered_model_name=name, alias=alias))
    assert len(ledger.history("a/b", "champion")) == 1
    assert ledger.history("a", "champion") == []
    assert ledger.aliases() == [("a", "b/champion"), ("a/b", "champion"), ("ä" * 300, "shadow")]


def test_a_move_needs_times():
    with pytest.raises(ValueError, match="effective_at"):
        move("1", None)  # type: ignore[arg-type]
