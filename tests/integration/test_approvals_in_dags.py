# SPDX-License-Identifier: Apache-2.0
"""Promotions that wait for a person, and the check that somebody evaluates, on a real Airflow and MLflow."""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.sdk import DAG, Asset, task

from airflow_ml_provider import MetricGate, ModelAsset
from airflow_ml_provider.exceptions import ModelNotEvaluatedError, StaleApprovalError
from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook
from airflow_ml_provider.hooks.mlflow import MlflowHook
from airflow_ml_provider.operators import CheckModelFreshnessOperator, PromoteModelOperator, approval, promote
from airflow_ml_provider.tracking.ledger import Ledger
from tests.integration.test_operators_in_dags import _as_run_type, events_of, states

DAYS = itertools.count(1)


@pytest.fixture(autouse=True)
def _real_parts(artifact_root: Any, mlflow_server: str) -> None:
    """Every test has a store and a server."""


@pytest.fixture
def client(mlflow_server: str) -> Any:
    return MlflowHook().client


@pytest.fixture
def name() -> str:
    return f"approved_{uuid.uuid4().hex[:8]}"


@pytest.fixture
def failures() -> list[BaseException]:
    return []


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was put on the page of required actions."""
    asked: list[Any] = []
    put = approval._put

    def count(context: Any, page: Any) -> Any:
        asked.append(page)
        return put(context, page)

    monkeypatch.setattr(approval, "_put", count)
    return asked


def make_model(client: Any, name: str) -> str:
    """Make a model in MLflow that nobody could load, and return its URI."""
    experiment = client.get_experiment_by_name(name)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(name)
    made = client.create_logged_model(experiment_id, name="model")
    client.finalize_logged_model(made.model_id, "READY")
    return f"models:/{made.model_id}"


def measured(value: float, baseline: float | None, version: str | None, name: str) -> dict[str, Any]:
    """Return what an evaluation would."""
    return {
        "metrics": {"roc_auc": value},
        "baseline_metrics": None if baseline is None else {"roc_auc": baseline},
        "baseline_uri": f"models:/{name}@champion",
        "baseline_version": version,
        "rows": 10_000,
    }


@pytest.fixture
def promotion(
    name: str, client: Any, run_dag: Callable[..., Any], failures: list[BaseException]
) -> Callable[..., Any]:
    """Return a function that runs a DAG of one promotion of a new model."""

    def run(evaluation: dict[str, Any], **options: Any) -> Any:
        given = {"approval": "on_regression", "retries": 1, "retry_delay": timedelta(0), **options}
        with DAG(f"{name}_{next(DAYS)}", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:

            @task
            def evaluate() -> dict[str, Any]:
                return evaluation

            PromoteModelOperator(
                task_id="promote",
                model=make_model(client, name),
                evaluation=evaluate(),
                registered_model_name=name,
                bootstrap=True,
                gates=[MetricGate("roc_auc", gain_over_baseline=-1.0)],
                outlets=[ModelAsset(name)],
                on_failure_callback=lambda context: failures.append(context["exception"]),
                on_retry_callback=lambda context: failures.append(context["exception"]),
                **given,
            )
        return run_dag(dag, logical_date=datetime(2026, 2, 1, tzinfo=UTC) + timedelta(days=next(DAYS)))

    return run


@contextmanager
def answering(option: str, comment: str = "", before: Callable[[], Any] = lambda: None) -> Iterator[None]:
    """Answer the next question, as the REST API does, while a DAG runs in this process."""
    from airflow.models.hitl import HITLDetail
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import handle_event_submit
    from airflow.triggers.base import TriggerEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select

    over = threading.Event()

    def answer() -> None:
        answered: set[Any] = set()
        while not over.wait(0.2):
            with create_session() as session:
                waiting = session.scalar(select(TaskInstance).where(TaskInstance.state == "awaiting_input"))
                if waiting is None:
                    continue
                detail = session.scalar(select(HITLDetail).where(HITLDetail.ti_id == waiting.id))
                if detail.responded_at is None and not answered:
                    before()
                    detail.responded_by = {"id": "7", "name": "Anna"}
                    detail.responded_at = datetime.now(UTC)
                    detail.chosen_options = [option]
                    detail.params_input = {"comment": comment}
                    answered.add(waiting.id)
                if waiting.id in answered:
                    # Again, if dag.test() wrote its own state of the task instance a moment later.
                    event = TriggerEvent(detail.as_resume_event_payload())
                    handle_event_submit(event, task_instance=waiting, session=session)

    person = threading.Thread(target=answer)
    person.start()
    try:
        yield
    finally:
        over.set()
        person.join()


def tags_of(client: Any, result: dict[str, Any]) -> dict[str, str]:
    tags: dict[str, str] = client.get_logged_model(result["model_id"]).tags
    return tags


def test_a_person_is_asked_only_about_what_is_worse_and_a_rejection_is_recorded(
    promotion, name, client, xcom_table, questions
):
    first = xcom_table(promotion(measured(0.8, None, None, name)), "promote")
    better = xcom_table(promotion(measured(0.81, 0.8, "1", name)), "promote")
    assert [(each["version"], each["approval"]) for each in (first, better)] == [("1", None), ("2", None)]
    assert questions == []

    with answering("Reject", "worse at night"):
        rejected = xcom_table(promotion(measured(0.7, 0.81, "2", name)), "promote")
    (page,) = questions
    assert "roc\\_auc 0\\.7 is worse than the champion's 0\\.81 by 0\\.11" in page.body
    assert (rejected["promoted"], rejected["version"]) == (False, None)
    assert rejected["approval"]["user_name"] == "Anna"
    tags = tags_of(client, rejected)
    assert tags["airflow.promotion"] == "rejected"
    assert tags["airflow.promotion.reason"].endswith(": worse at night")
    assert tags["airflow.approval.champion.by"] == "Anna (7)"
    assert [event["version"] for event in events_of(ModelAsset(name))] == ["1", "2"]
    assert client.get_model_version_by_alias(name, "champion").version == "2"
    assert len(client.search_model_versions(f"name = '{name}'")) == 2


def test_an_answer_outlives_the_crash_of_the_try_that_heard_it(
    promotion, name, client, xcom_table, questions, failures, monkeypatch
):
    original, calls = promote.make_move, itertools.count()

    def crash_once(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == 0:
            raise ConnectionError("lost")
        return original(*args, **kwargs)

    monkeypatch.setattr(promote, "make_move", crash_once)
    with answering("Approve", "go | on"):
        result = xcom_table(promotion(measured(0.8, None, None, name), approval="always"), "promote")
    assert [str(error) for error in failures] == ["lost"]
    assert len(questions) == 1
    assert (result["promoted"], result["version"]) == (True, "1")
    (move,) = Ledger(ArtifactStoreHook().store.objects).history(name, "champion")
    assert move.evidence["approval"] == result["approval"]
    assert "approved by Anna (7)" in move.reasons[-1]
    tags = client.get_model_version(name, "1").tags
    assert tags["airflow.approval.champion"] == "approved"
    assert tags["airflow.approval.champion.comment"] == "go | on"


def test_an_approval_beside_a_champion_that_is_gone_moves_nothing_and_a_rejection_counts(
    promotion, name, client, xcom_table, failures
):
    promotion(measured(0.8, None, None, name))
    promotion(measured(0.9, 0.8, "1", name))

    def somebody_moves_it(version: str) -> Callable[[], Any]:
        return lambda: client.set_registered_model_alias(name, "champion", version)

    with answering("Approve", before=somebody_moves_it("1")):
        run = promotion(measured(0.9, 0.9, "2", name), approval="always")
    assert states(run)["promote"] == "failed"
    assert isinstance(failures[-1], StaleApprovalError)
    assert "pointed at version 2, and it points at version 1 by now: somebody moved" in str(failures[-1])
    assert len(failures) == 1  # another try would find the same
    assert client.get_model_version_by_alias(name, "champion").version == "1"
    assert len(client.search_model_versions(f"name = '{name}'")) == 2

    with answering("Reject", before=somebody_moves_it("2")):
        run = promotion(measured(0.9, 0.8, "1", name), approval="always")
    assert xcom_table(run, "promote")["promoted"] is False


def test_a_backfill_asks_nobody(promotion, name, xcom_table, questions, monkeypatch):
    _as_run_type(monkeypatch, "backfill")
    result = xcom_table(promotion(measured(0.8, None, None, name), approval="always"), "promote")
    assert (result["promoted"], questions) == (False, [])


def evaluated(client: Any, name: str, model_uri: str, day: int) -> None:
    """Leave in MLflow what an evaluation for a day of data leaves."""
    experiment_id = client.get_experiment_by_name(name).experiment_id
    tags = {
        "evaluation.baseline_id": model_uri.removeprefix("models:/"),
        "airflow.effective_at": datetime(2026, 3, day, tzinfo=UTC).isoformat(),
    }
    run = client.create_run(experiment_id, tags=tags)
    client.set_terminated(run.info.run_id)


def test_a_champion_that_was_not_evaluated_raises_the_alarm(
    promotion, name, client, run_dag, xcom_table, failures
):
    result = xcom_table(promotion(measured(0.8, None, None, name), approval="never"), "promote")
    due = Asset(f"{name}_due")
    given: dict[str, Any] = {"registered_model_name": name, "max_age": timedelta(days=7)}
    with DAG(f"{name}_check", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        CheckModelFreshnessOperator(task_id="remind", on_stale="emit", outlets=[due], **given)
        CheckModelFreshnessOperator(
            task_id="alarm",
            retries=2,
            on_failure_callback=lambda context: failures.append(context["exception"]),
            **given,
        )
        CheckModelFreshnessOperator(task_id="wall", clock="wall", **given)

    evaluated(client, name, result["model_uri"], day=1)
    fresh = run_dag(dag, logical_date=datetime(2026, 3, 8, tzinfo=UTC))
    assert set(states(fresh).values()) == {"success"}
    assert xcom_table(fresh, "remind")["age_days"] == 7.0
    assert events_of(due) == []

    stale = run_dag(dag, logical_date=datetime(2026, 3, 9, tzinfo=UTC))
    assert states(stale) == {"remind": "success", "alarm": "failed", "wall": "success"}
    assert isinstance(failures[-1], ModelNotEvaluatedError)
    assert len(failures) == 1
    said = f"{name}@champion (version 1) was last evaluated at 2026-03-01T00:00+00:00 by data time"
    assert said in str(failures[-1])
    (event,) = events_of(due)
    assert said in event["reason"]
    assert (event["version"], event["age_days"]) == ("1", 8.0)

    evaluated(client, name, result["model_uri"], day=9)
    assert set(states(run_dag(dag, logical_date=datetime(2026, 3, 10, tzinfo=UTC))).values()) == {"success"}
    assert len(events_of(due)) == 1
