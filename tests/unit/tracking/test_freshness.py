# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from airflow_ml_provider.tracking.freshness import Evaluation, judge_freshness, last_evaluation
from airflow_ml_provider.tracking.models import ModelRef

WEEK = timedelta(days=7)


def day(number, hour=0):
    return datetime(2026, 11, number, hour, tzinfo=UTC)


def verdict(last=None, since=None, clock="data"):
    return judge_freshness("m@champion (version 3)", last, since, max_age=WEEK, now=day(20), clock=clock)


@pytest.mark.parametrize(
    ("effective_at", "since", "fresh", "said"),
    [
        (
            day(14),
            day(1),
            True,
            "last evaluated at 2026-11-14T00:00+00:00 by data time: within the 7 days",
        ),
        (day(13), day(1), True, "within"),  # to the second
        (day(12, 23), day(1), False, "longer ago than the 7 days"),
        (day(25), day(1), True, "was last evaluated at 2026-11-25"),
        (None, day(14), True, "was not evaluated since it got the alias at 2026-11-14"),
        (None, day(1), False, "was not evaluated since it got the alias"),
        (day(1), day(14), True, "last evaluated at 2026-11-01T00:00+00:00, before it got the alias"),
        (None, None, False, "was never evaluated, and nobody knows since when"),
    ],
)
def test_the_age_counts_from_the_last_evaluation_or_the_promotion(effective_at, since, fresh, said):
    last = None if effective_at is None else Evaluation("r", effective_at, day(1))
    found = verdict(last, since)
    assert found.fresh is fresh
    assert said in found.reason
    assert "m@champion (version 3)" in found.reason


def test_both_clocks_may_differ():
    backfilled = Evaluation("r", effective_at=day(1), recorded_at=day(20))
    assert not verdict(backfilled, day(1)).fresh
    assert verdict(backfilled, day(1), clock="wall").fresh
    assert verdict(backfilled, day(1)).age == timedelta(days=19)


def test_an_evaluation_without_a_data_time_says_nothing_in_data_time():
    assert verdict(Evaluation("r", None, day(20)), day(1)).since == day(1)


class Page(list):
    token = None


class FakeClient:
    """Answers searches from runs of (experiment, tags, end)."""

    def __init__(self, runs, pages=1):
        self.runs, self.pages, self.asked = runs, pages, []

    def search_experiments(self, max_results, page_token):
        number = int(page_token or 0)
        page = Page([SimpleNamespace(experiment_id=str(number))])
        page.token = str(number + 1) if number + 1 < self.pages else None
        return page

    def search_runs(self, experiments, said, order_by, max_results):
        self.asked.append((tuple(experiments), said, tuple(order_by), max_results))
        tag, value = said.split("`")[1], said.split("'")[1]
        found = [run for run in self.runs if run[0] in experiments and run[1].get(tag) == value]
        clock = "airflow.effective_at"
        if clock in said:
            found = [run for run in found if run[1].get(clock)]
        found.sort(key=lambda run: run[1][clock] if clock in order_by[0] else run[2], reverse=True)
        return [
            SimpleNamespace(
                info=SimpleNamespace(run_id=f"r{end}", end_time=end, start_time=0),
                data=SimpleNamespace(tags=tags),
            )
            for _, tags, end in found[:max_results]
        ]


def evaluated(day_of_data, end, role="evaluation.model_id", experiment="0"):
    return (experiment, {role: "m-1", "airflow.effective_at": day(day_of_data).isoformat()}, end)


def test_evaluations_count_in_every_experiment_and_as_the_baseline_too():
    client = FakeClient([evaluated(3, 9), evaluated(5, 2, "evaluation.baseline_id", "1")], pages=2)
    ref = ModelRef("models:/iris/3", model_id="m-1")
    assert last_evaluation(client, ref).mlflow_run_id == "r2"
    assert last_evaluation(client, ref, "wall").mlflow_run_id == "r9"
    assert len(client.asked) == 8
    assert all("status = 'FINISHED'" in said for _, said, _, _ in client.asked)
    assert last_evaluation(client, ModelRef("models:/iris/4", model_id="m-2")) is None


def test_a_version_without_a_model_id_is_found_by_its_uri():
    client = FakeClient([("0", {"evaluation.model": "models:/iris/3"}, 7)])
    assert last_evaluation(client, ModelRef("models:/iris/3"), "wall").mlflow_run_id == "r7"
    assert last_evaluation(client, ModelRef("models:/iris/3"), "data") is None
