# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.tracking.ledger import AliasMove, Ledger
from tests.unit.cli.conftest import Answer

Run = Callable[..., Answer]


@pytest.fixture
def ledger(store: ArtifactStore) -> Ledger:
    found = Ledger(store.objects)
    for number, month in enumerate((2, 5), start=1):
        found.record(
            AliasMove(
                "flight_delay",
                "champion",
                str(number),
                str(number - 1) if number > 1 else None,
                datetime(2013, month, 1, tzinfo=UTC),
                datetime(2026, 1, number, tzinfo=UTC),
                reasons=[f"roc_auc 0.{number} is at least 0.1"],
                actor={"dag_id": "training", "run_id": f"run-{number}", "task_id": "promote"},
                evidence={"evaluation": {"rows": 200}},
            )
        )
    return found


@pytest.mark.usefixtures("ledger")
def test_the_list_says_where_each_alias_points(airflow: Run) -> None:
    (row,) = json.loads(airflow("ml", "models", "list", "--output", "json").out)
    assert (row["name"], row["alias"], row["version"], row["previous"]) == (
        "flight_delay",
        "champion",
        "2",
        "1",
    )
    assert row["by"] == "training.promote in run 'run-2'"


@pytest.mark.usefixtures("ledger")
def test_the_history_tells_who_when_and_why(airflow: Run) -> None:
    answer = airflow("ml", "models", "history", "flight_delay", "--output", "plain")
    assert "training.promote in run 'run-1'" in answer.out
    assert "roc_auc 0.2 is at least 0.1" in answer.out
    latest, first = json.loads(airflow("ml", "models", "history", "flight_delay", "--output", "json").out)
    assert (latest["version"], first["version"]) == ("2", "1")
    assert latest["evidence"] == {"evaluation": {"rows": 200}}
    answer = airflow("ml", "models", "history", "flight_delay", "--limit", "1", "--output", "json")
    assert len(json.loads(answer.out)) == 1
    assert "more than 1; use --limit" in answer.err


def test_a_move_that_was_lost_half_way_is_told(airflow: Run, ledger: Ledger) -> None:
    now = datetime(2026, 1, 9, tzinfo=UTC)
    ledger.take_turn(AliasMove("flight_delay", "champion", "3", "2", now, now, sequence=0))
    answer = airflow("ml", "models", "history", "flight_delay")
    assert answer.code == 0
    assert "not finished: somebody moved flight_delay@champion from version 2 to version 3" in answer.err


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize(
    ("when", "clock", "version"),
    [("2013-04-30", "data", "1"), ("2013-05-01", "data", "2"), ("2026-01-01", "wall", "1")],
)
def test_as_of_answers_by_either_clock(airflow: Run, when: str, clock: str, version: str) -> None:
    words = ("ml", "models", "as-of", "flight_delay", when, "--clock", clock)
    found = json.loads(airflow(*words, "--output", "json").out)
    assert (found["version"], found["model_uri"]) == (version, f"models:/flight_delay/{version}")
    assert f"models:/flight_delay/{version}" in airflow(*words).out


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("as-of", "flight_delay", "2013-01-01"), "first move counts from 2013-02-01"),
        (("as-of", "flight_delay", "2013-05-14", "--alias", "shadow"), "aliases of 'flight_delay': champion"),
        (("history", "nobody"), "no move of nobody@champion; models: airflow ml models list"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(airflow: Run, words: tuple[str, ...], message: str) -> None:
    answer = airflow("ml", "models", *words)
    assert (answer.code, answer.out) == (3, "")
    assert message in answer.err
