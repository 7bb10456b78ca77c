# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from airflow_ml_provider.tracking.approval import (
    Answer,
    code,
    compared_with,
    escape,
    question_about,
    reasons_to_ask,
)
from airflow_ml_provider.tracking.gates import MetricGate, decide
from airflow_ml_provider.tracking.models import ModelRef
from airflow_ml_provider.tracking.moves import Standing

CHAMPION = Standing("3", 2)
BETTER = {
    "metrics": {"roc_auc": 0.9},
    "baseline_metrics": {"roc_auc": 0.8},
    "baseline_uri": "models:/flight_delay@champion",
    "baseline_version": "3",
    "rows": 10_000,
}
WORSE = {**BETTER, "metrics": {"roc_auc": 0.7}}


def ask(approval, champion=CHAMPION, evaluation=BETTER):
    return reasons_to_ask(approval, champion, evaluation, registered_model_name="flight_delay")


def test_never_asks_nobody():
    assert ask("never", evaluation=WORSE) == []


@pytest.mark.parametrize("champion", [CHAMPION, Standing(None)])
@pytest.mark.parametrize("evaluation", [BETTER, WORSE, None])
def test_always_asks_for_a_first_champion_too(champion, evaluation):
    assert len(ask("always", champion, evaluation)) == 1


def test_on_regression_asks_about_what_is_worse():
    assert ask("on_regression") == []
    (reason,) = ask("on_regression", evaluation=WORSE)
    assert "roc_auc 0.7 is worse" in reason


def test_on_regression_has_nothing_to_ask_about_a_first_champion():
    assert ask("on_regression", Standing(None), WORSE) == []


@pytest.mark.parametrize(
    "change",
    [
        {"baseline_version": "2"},
        {"baseline_version": None, "baseline_uri": None, "baseline_metrics": None},
        {"baseline_metrics": None},
        {"baseline_uri": "models:/other@champion"},
    ],
)
def test_on_regression_asks_if_the_champion_was_not_what_was_compared_with(change):
    (reason,) = ask("on_regression", evaluation={**BETTER, **change})
    assert "did not compare with version 3" in reason


def test_a_version_may_be_the_baseline_as_well_as_the_alias():
    named = {**BETTER, "baseline_uri": "models:/flight_delay/3"}
    assert compared_with(named) == ("flight_delay", "3")
    assert ask("on_regression", evaluation=named) == []


def question(**change):
    gates = [MetricGate("roc_auc", at_least=0.6)]
    given = {
        "registered_model_name": "flight_delay",
        "alias": "champion",
        "challenger": ModelRef("models:/m-1", model_id="m-1"),
        "challenger_version": None,
        "champion": CHAMPION,
        "evaluation": {**WORSE, "data": {"name": "holdout", "version_id": "01J"}},
        "metrics": WORSE["metrics"],
        "gates": gates,
        "results": decide(gates, WORSE["metrics"], WORSE["baseline_metrics"]).results,
        "why": ["because"],
        "links": {"champion": "http://mlflow/#/models/flight_delay/versions/3", "run": "http://mlflow/#/r/1"},
        **change,
    }
    return question_about(**given)


def test_the_page_shows_both_models_with_their_links_gates_and_data():
    body = question().body
    assert "| metric | champion, version 3 | challenger | change |  |" in body
    assert "| `roc_auc` | 0.8 | 0.7 | -0.1 | **worse** |" in body
    few = question(evaluation={**WORSE, "rows": 9}).body
    assert "| `roc_auc` | 0.8 | 0.7 | -0.1 | worse |" in few
    assert "[version 3](http://mlflow/#/models/flight_delay/versions/3)" in body
    assert "[trained in this run](http://mlflow/#/r/1)" in body
    assert "| passed | roc\\_auc 0\\.7 is at least 0\\.6 |" in body
    assert "artifact `holdout`, version `01J`, 10000 rows" in body
    assert question().subject == "flight_delay: make a new version the champion?"


def test_the_slices_that_lose_most_come_first_and_a_long_list_ends():
    parts = {
        str(number): {
            "rows": 100,
            "metrics": {"roc_auc": 0.8 - number / 1000},
            "baseline_metrics": {"roc_auc": 0.8},
        }
        for number in range(50)
    }
    body = question(evaluation={**WORSE, "slices": {"origin": parts}}).body
    assert body.index("`origin=49`") < body.index("`origin=48`")
    assert "`origin=1`" not in body
    assert "30 more are in MLflow." in body


def test_a_first_champion_is_shown_without_a_comparison():
    evaluation = {"metrics": {"roc_auc": 0.7}, "rows": 5}
    body = question(champion=Standing(None), evaluation=evaluation, links={}).body
    assert "now at nothing yet" in body
    assert "there was nothing to compare with" in body


def test_the_same_comparison_has_the_same_key_and_another_has_not():
    same = question(challenger_version="4", links={})
    assert same.key == question().key
    assert same.key in same.body
    others = [
        question(champion=Standing("4", 3)),
        question(challenger=ModelRef("models:/m-2", model_id="m-2")),
        question(metrics={"roc_auc": 0.71}),
        question(evaluation={**WORSE, "data": {"name": "holdout", "version_id": "01K"}}),
        question(why=["something else"]),
    ]
    assert len({question().key, *(other.key for other in others)}) == 6


NASTY = "x|y `z` <img src=x onerror=f()> [a](javascript:b)\n# c **b** https://evil.example www.evil.example"


def test_what_users_wrote_is_no_markdown():
    body = question(
        registered_model_name="flight_delay",
        metrics={NASTY: 1.0},
        evaluation={
            "metrics": {NASTY: 1.0},
            "baseline_metrics": {NASTY: 2.0},
            "rows": 100,
            "data": {"name": NASTY, "version_id": NASTY},
            "slices": {NASTY: {NASTY: {"rows": 1, "metrics": {NASTY: 1.0}}}},
        },
        results=[],
        why=[NASTY],
        links={"champion": "javascript:alert(1)", "run": "http://x/) [b](http://evil.example"},
    ).body
    outside = "".join(body.split("`")[::2])  # what is between backticks is code, where nothing else begins
    assert "\\<img" in outside
    assert "<img" not in outside.replace("\\<", "")
    assert "https://evil" not in outside
    assert "www.evil" not in outside
    assert not re.search(r"(?<!\\)\]\(", outside)
    tables = [line for line in body.splitlines() if line.startswith("| ") and "x" in line]
    for line in tables:
        cells = line.replace("\\|", "").count("|")
        assert cells in (5, 6), line


def test_text_is_cut_and_names_stay_code():
    assert escape("a" * 1000) == "a" * 299 + "…"
    assert code("a`b\nc|d\\") == "`a'b c\\|d/`"
    assert code("") == "` `"


def event(**change):
    return {
        "chosen_options": ["Approve"],
        "params_input": {"comment": " looks\n good "},
        "responded_at": datetime(2026, 11, 21, 10, tzinfo=UTC),
        "responded_by_user": {"id": "7", "name": "Anna"},
        "timedout": False,
        **change,
    }


def test_an_answer_says_who_when_and_why():
    answer = Answer.from_event(event())
    assert str(answer) == "approved by Anna (7) at 2026-11-21T10:00:00+00:00: looks good"
    assert answer.tags("champion") == {
        "airflow.approval.champion": "approved",
        "airflow.approval.champion.by": "Anna (7)",
        "airflow.approval.champion.at": "2026-11-21T10:00:00+00:00",
        "airflow.approval.champion.comment": "looks good",
    }
    assert Answer.from_json(answer.to_json()) == answer
    assert str(replace(answer, comment="", user_name="7")) == "approved by 7 at 2026-11-21T10:00:00+00:00"


def test_no_answer_in_time_is_nobodys():
    answer = Answer.from_event(
        event(
            chosen_options=["Reject"], responded_by_user=None, params_input={"comment": None}, timedout=True
        )
    )
    assert not answer.approved
    assert str(answer) == "rejected because nobody answered in time"
    assert answer.tags("champion")["airflow.approval.champion.by"] == "nobody: time-out"


@pytest.mark.parametrize("chosen", [[], None, ["Maybe"], ["Approve", "Reject"]])
def test_what_is_no_answer_is_refused(chosen):
    with pytest.raises(ValueError, match="the answer must be 'Approve' or 'Reject'"):
        Answer.from_event(event(chosen_options=chosen))
