# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from demo.errors import ApiError, DemoError, TaskFailedError
from demo.output import Output
from demo.story import BACKFILL_DAYS, PLAIN, TRAINING, Story, days_around_a_change, decision_text, name_of
from demo.summary import Decision


def decided(
    effective_at: str | None,
    version: str | None = None,
    previous: str | None = None,
    *,
    promoted: bool = True,
) -> Decision:
    return Decision(
        month=str(effective_at)[:7],
        run_id="r",
        promoted=promoted,
        version=version,
        previous_version=previous,
        effective_at=effective_at,
        reasons=["roc_auc 0.61 is at least 0.6", "roc_auc 0.61 is below the champion's 0.62"],
        why=["roc_auc 0.61 is below the champion's 0.62"],
        metrics={"roc_auc": 0.61},
        baseline_metrics=None,
        rows=10,
    )


def champion_at(moment: datetime, decisions: list[Decision]) -> str | None:
    """The rule of design.md: a champion counts from its effective_at on."""
    moves = [d for d in decisions if d.promoted and datetime.fromisoformat(str(d.effective_at)) <= moment]
    return max(moves, key=lambda d: str(d.effective_at)).version if moves else None


@pytest.mark.parametrize(
    "decisions",
    [
        pytest.param(
            [decided("2013-03-01T00:00:00Z", "1"), decided("2013-04-01T00:00:00Z", "2", "1")], id="one change"
        ),
        pytest.param(
            [
                decided("2013-06-01T00:00:00+00:00", "3", "2"),
                decided("2013-04-01T00:00:00+00:00", promoted=False),
                decided("2013-05-01T00:00:00+00:00", "2", "1"),
                decided("2013-03-01T00:00:00+00:00", "1"),
            ],
            id="several changes, out of order, and a rejection",
        ),
    ],
)
def test_the_days_show_both_champions_of_the_first_change(decisions: list[Decision]) -> None:
    first, last, _ = days_around_a_change(decisions)
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    assert len(days) == BACKFILL_DAYS
    champions = [champion_at(day + timedelta(days=1), decisions) for day in days]
    assert champions == ["1"] * 7 + ["2"] * 7


def test_a_single_champion_is_evaluated_from_its_first_day_on() -> None:
    first, last, why = days_around_a_change([decided("2013-03-01T00:00:00Z", "1")])
    assert (first, last) == (datetime(2013, 3, 1, tzinfo=UTC), datetime(2013, 3, 14, tzinfo=UTC))
    assert "the only champion" in why


def test_without_a_champion_there_is_nothing_to_evaluate() -> None:
    with pytest.raises(DemoError, match="no training promoted"):
        days_around_a_change([decided("2013-03-01T00:00:00Z", promoted=False)])


@pytest.mark.parametrize(
    ("decision", "text"),
    [
        (decided("2013-03-01", "1"), "version 1 is champion, roc_auc 0.6100"),
        (decided("2013-03-01", "2", "1"), "version 2 is champion after version 1, roc_auc 0.6100"),
        (decided("2013-03-01", promoted=False), "rejected: roc_auc 0.61 is below the champion's 0.62"),
    ],
)
def test_a_decision_is_told_in_one_line(decision: Decision, text: str) -> None:
    assert decision_text(decision) == text


@pytest.mark.parametrize(
    ("logical_date", "map_index", "name"),
    [
        ("2013-02-01T00:00:00Z", -1, "d.t of 2013-02-01"),
        (None, 3, "d.t[3] of 2026-01-02"),
    ],
)
def test_a_task_is_named_by_its_data_or_else_its_start(
    logical_date: str | None, map_index: int, name: str
) -> None:
    task = {
        "dag_id": "d",
        "task_id": "t",
        "map_index": map_index,
        "logical_date": logical_date,
        "run_after": "2026-01-02T10:00:00Z",
    }
    assert name_of(task) == name


class BusyAirflow:
    """An Airflow on SQLite whose first answers to a backfill are errors."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.said: list[str] = []

    def backfill(self, *_: object, **__: object) -> int:
        self.said.append("backfill")
        if self.statuses:
            raise ApiError("database is locked", status=self.statuses.pop(0))
        return 1

    def drop_backfills(self, dag_id: str) -> None:
        self.said.append("drop")

    def unpause(self, dag_id: str) -> None:
        self.said.append("unpause")


def ask_for_backfill(airflow: BusyAirflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demo.story.POLL_INTERVAL", 0.0)
    cluster: Any = SimpleNamespace(airflow=airflow, parallelism=3, check=lambda: None)
    when = datetime(2013, 3, 1, tzinfo=UTC)
    Story(cluster, Output(io.StringIO())).backfill(when, when)


def test_the_evaluation_is_switched_on_only_when_all_its_runs_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    airflow = BusyAirflow(503, 503)
    ask_for_backfill(airflow, monkeypatch)
    assert airflow.said == ["backfill", "drop", "backfill", "drop", "backfill", "unpause"]


@pytest.mark.parametrize(
    "statuses", [pytest.param([422], id="not a matter of time"), pytest.param([503] * 20, id="for ever busy")]
)
def test_a_backfill_that_is_refused_is_an_error(statuses: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    airflow = BusyAirflow(*statuses)
    with pytest.raises(ApiError, match="locked"):
        ask_for_backfill(airflow, monkeypatch)
    assert "unpause" not in airflow.said


class OneRun:
    """An Airflow with one run of one task, which end between two of the requests that it answers."""

    def __init__(self, dag_id: str, end: str, requests_before: int) -> None:
        self.dag_id, self.end, self.requests_before = dag_id, end, requests_before

    def state(self) -> str:
        self.requests_before -= 1
        return "running" if self.requests_before >= 0 else self.end

    def request(self, *_: str) -> dict[str, None]:
        self.requests_before -= 1
        return {"next_dagrun_run_after": None}

    def dag_runs(self, *_: str) -> list[dict[str, Any]]:
        return [{"dag_id": self.dag_id, "dag_run_id": "r", "state": self.state(), "duration": 1.0}]

    def task_instances(self, *, states: tuple[str, ...]) -> list[dict[str, Any]]:
        task = {"dag_id": self.dag_id, "dag_run_id": "r", "task_id": "fit", "id": "1", "try_number": 1}
        when = {"map_index": -1, "logical_date": "2013-02-01T00:00:00Z", "run_after": None}
        return [row for row in [{**task, **when, "state": self.state()}] if row["state"] in states]

    def task_log(self, task: dict[str, Any]) -> list[str]:
        return [f"the log of {task['task_id']}"]


def story_of(airflow: OneRun, monkeypatch: pytest.MonkeyPatch) -> Story:
    monkeypatch.setattr("demo.story.POLL_INTERVAL", 0.0)
    cluster: Any = SimpleNamespace(airflow=airflow, check=lambda: None, logs="logs")
    return Story(cluster, Output(io.StringIO()))


@pytest.mark.parametrize("requests_before", range(9))
def test_a_task_that_fails_between_two_looks_is_named(
    requests_before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = story_of(OneRun(TRAINING, "failed", requests_before), monkeypatch)
    with pytest.raises(TaskFailedError, match=r"flight_delay_training\.fit.*\nthe log of fit"):
        story.wait_until("the trainings are over", story.trainings_are_over)


@pytest.mark.parametrize("requests_before", range(9))
def test_a_run_that_ends_between_two_looks_is_told_before_the_story_goes_on(
    requests_before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = story_of(OneRun(PLAIN, "success", requests_before), monkeypatch)
    story.wait_until("the trainings are over", story.trainings_are_over)
    assert story.finished(PLAIN) == 1
