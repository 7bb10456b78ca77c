# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import UTC, datetime

import pytest

from airflow_ml_provider.artifacts.objects import ObjectStore
from airflow_ml_provider.tracking.ledger import AliasMove, Ledger
from airflow_ml_provider.tracking.moves import make_move, where
from airflow_ml_provider.tracking.watching import ANNOUNCED_BY_TASK, Watermark, news_of

JUNE = datetime(2013, 6, 1, tzinfo=UTC)


@pytest.fixture
def ledger(tmp_path):
    return Ledger(ObjectStore(f"file://{tmp_path}/store"))


@pytest.fixture
def model(client, name):
    """A registered model with three versions."""
    client.create_registered_model(name)
    for number in range(3):
        client.create_model_version(name, f"runs:/none/model{number}")
    return name


def promote(client, ledger, name, version, **evidence):
    move = AliasMove(
        registered_model_name=name,
        alias="champion",
        version=version,
        previous_version=None,
        effective_at=JUNE,
        recorded_at=datetime.now(UTC),
        actor={"dag_id": "d", "run_id": f"r{version}", "task_id": "promote"},
        metrics={"roc_auc": 0.7, "broken": float("nan")},
        mlflow_run_id="run",
        evidence=evidence,
    )
    return make_move(client, ledger, move, where(client, ledger, name, "champion"))


def test_what_was_so_before_anybody_looked_is_no_news(client, ledger, model):
    assert news_of(client, ledger, model, "champion", None) == ([], Watermark(None, -1))
    client.set_registered_model_alias(model, "champion", "1")
    assert news_of(client, ledger, model, "champion", None) == ([], Watermark("1", 0))


def test_a_move_by_hand_is_news_once_and_stands_in_the_ledger(client, ledger, model):
    start = Watermark(None, -1)
    client.set_registered_model_alias(model, "champion", "2")
    [extra], reached = news_of(client, ledger, model, "champion", start)
    assert (extra["version"], extra["previous_version"], extra["kind"]) == ("2", None, "observed")
    assert [move.version for move in ledger.history(model, "champion")] == ["2"]
    assert news_of(client, ledger, model, "champion", reached) == ([], reached)
    # Who lost the watermark announces the same again, told by its number.
    assert news_of(client, ledger, model, "champion", start) == ([extra], reached)


def test_a_promotion_that_announces_itself_is_no_news_but_the_next_move_by_hand_is(client, ledger, model):
    start = Watermark(None, -1)
    promote(client, ledger, model, "1", **{ANNOUNCED_BY_TASK: True})
    extras, reached = news_of(client, ledger, model, "champion", start)
    assert (extras, reached.version) == ([], "1")
    client.set_registered_model_alias(model, "champion", "2")
    [extra], _ = news_of(client, ledger, model, "champion", start)
    assert (extra["version"], extra["previous_version"]) == ("2", "1")


def test_moves_between_two_looks_are_all_news_as_far_as_the_ledger_knows_them(client, ledger, model):
    for version in ("1", "2", "3"):
        promote(client, ledger, model, version)
    extras, reached = news_of(client, ledger, model, "champion", Watermark("1", 0))
    assert [(extra["previous_version"], extra["version"]) for extra in extras] == [("1", "2"), ("2", "3")]
    assert extras[0]["metrics"] == {"roc_auc": 0.7}
    assert extras[0]["effective_at"] == JUNE.isoformat()
    assert reached == Watermark("3", 2)


def test_the_removal_of_an_alias_is_written_down_and_not_announced(client, ledger, model):
    promote(client, ledger, model, "1")
    client.delete_registered_model_alias(model, "champion")
    extras, reached = news_of(client, ledger, model, "champion", Watermark("1", 0))
    assert (extras, reached.version) == ([], None)
    client.set_registered_model_alias(model, "champion", "1")
    [extra], _ = news_of(client, ledger, model, "champion", reached)
    assert extra["version"] == "1"


@pytest.mark.parametrize("stored", [None, "x", {}, {"version": "1"}, {"sequence": "1"}])
def test_what_is_no_watermark_is_none(stored):
    assert Watermark.from_json(stored) is None


def test_a_watermark_survives_being_stored():
    for mark in (Watermark("3", 7), Watermark(None, -1)):
        assert Watermark.from_json(mark.to_json()) == mark
