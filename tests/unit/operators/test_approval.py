# SPDX-License-Identifier: Apache-2.0
"""Asking and hearing, with Airflow's row of the question played by a fake that behaves as the API does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskAwaitingInput

from airflow_ml_provider.exceptions import ApprovalTimeoutError, StaleApprovalError
from airflow_ml_provider.operators import PromoteModelOperator
from airflow_ml_provider.tracking.approval import Question
from airflow_ml_provider.tracking.gates import MetricGate

OPTIONS = {
    "task_id": "promote",
    "model": "models:/m-1",
    "registered_model_name": "flight_delay",
    "approval": "always",
}
QUESTION = Question("k1", "make it so?", "Comparison `k1`", "m-1", "3")
OTHER = Question("k2", "make that so?", "Comparison `k2`", "m-2", "3")
YES = {
    "chosen_options": ["Approve"],
    "params_input": {"comment": None},
    "responded_at": datetime(2026, 11, 21, tzinfo=UTC),
    "responded_by_user": {"id": "anna", "name": "anna"},
}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"approval": "sometimes"}, "approval must be one of always, on_regression, never"),
        ({"approval": "on_regression"}, "needs the evaluation"),
        ({"approvers": [7]}, "an approver is the id"),
        ({"approvers": [{"id": "7"}]}, "an approver is the id"),
        ({"approval_timeout": 7}, "approval_timeout must be a timedelta"),
        ({"approval_timeout": timedelta(0)}, "more than no time"),
        (
            {"approval_timeout": timedelta(1), "on_approval_timeout": "ask"},
            "on_approval_timeout must be one of reject, approve, fail",
        ),
        ({"on_approval_timeout": "approve"}, "give that too"),
        ({"approval": "never", "approvers": ["anna"]}, "asks nobody"),
        ({"approval": "never", "approval_timeout": timedelta(1)}, "asks nobody"),
    ],
)
def test_wrong_options_are_refused_when_the_dag_is_parsed(options, error):
    with pytest.raises((TypeError, ValueError), match=error):
        PromoteModelOperator(**{**OPTIONS, **options})


def test_approvers_are_ids_or_users_as_airflow_names_them():
    anna = {"id": "7", "name": "Anna"}
    assert PromoteModelOperator(**OPTIONS, approvers="ben").approvers == [{"id": "ben", "name": "ben"}]
    assert PromoteModelOperator(**OPTIONS, approvers=anna).approvers == [anna]
    assert PromoteModelOperator(**OPTIONS, approvers=["ben", anna]).approvers[1] == anna
    gates = [MetricGate("roc_auc", at_least=0.5)]
    PromoteModelOperator(**{**OPTIONS, "approval": "on_regression"}, gates=gates, evaluation={"metrics": {}})


class Store(dict):
    def set(self, key, value):
        self[key] = value


class Api:
    """Keeps one question for a task instance: asked again, it drops the answer and keeps the text."""

    def __init__(self):
        self.row, self.requests = None, 0

    def send(self, message):
        self.requests += 1
        self.row = self.row or message
        return self.row


@pytest.fixture
def api(monkeypatch):
    from airflow.sdk.execution_time import task_runner

    found = Api()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", found, raising=False)
    return found


def context_of(task, store, *, tries=1, cleared=0):
    ti = SimpleNamespace(
        id="01a0b86e-1b5c-7c3e-8000-000000000000",
        dag_id="d",
        run_id="r",
        task_id="promote",
        map_index=-1,
        try_number=tries,
        max_tries=cleared,
        task=task,
    )
    return {"ti": ti, "task": task, "task_state_store": store}


def parked(task, context, question=QUESTION):
    with pytest.raises(TaskAwaitingInput) as waiting:
        task.ask(context, question)
    return waiting.value


def test_the_page_says_what_is_asked_and_what_no_answer_means(api):
    task = PromoteModelOperator(
        **OPTIONS, approvers=["anna"], approval_timeout=timedelta(hours=2), on_approval_timeout="approve"
    )
    waiting = parked(task, context_of(task, Store()))
    assert waiting.method_name == "execute_complete"
    assert waiting.kwargs == {"asked": {"key": "k1", "model": "m-1", "champion": "3"}}
    assert timedelta(hours=1.9) < waiting.timeout <= timedelta(hours=2)
    assert (api.row.subject, api.row.body) == ("make it so?", "Comparison `k1`")
    assert api.row.options == ["Approve", "Reject"]
    assert api.row.defaults == ["Approve"]
    assert [user.id for user in api.row.assigned_users] == ["anna"]
    assert list(api.row.params) == ["comment"]


def test_without_a_time_out_nothing_is_answered_for_people(api):
    task = PromoteModelOperator(**OPTIONS)
    assert parked(task, context_of(task, Store())).timeout is None
    assert api.row.defaults is None


def test_a_retry_and_a_clear_wait_for_the_same_answer_and_ask_and_tell_nobody_again(api):
    told = []
    task = PromoteModelOperator(
        **OPTIONS,
        approval_timeout=timedelta(hours=2),
        approval_notifiers=[told.append],
    )
    store = Store()
    first = parked(task, context_of(task, store))
    again = parked(task, context_of(task, store, tries=2, cleared=1))
    assert (api.requests, len(told)) == (1, 1)
    assert again.timeout <= first.timeout
    page = told[0]["task"]
    assert (page.subject, page.body) == ("make it so?", "Comparison `k1`")
    assert page.hitl_summary["options"] == ["Approve", "Reject"]


def test_a_notifier_that_fails_leaves_the_question_on_the_page(api):
    def broken(context):
        raise ConnectionError("no chat")

    task = PromoteModelOperator(**OPTIONS, approval_notifiers=broken)
    parked(task, context_of(task, Store()))
    assert api.requests == 1


def test_an_answer_is_kept_for_retries_until_it_was_acted_on_and_the_task_cleared(api):
    task, store = PromoteModelOperator(**OPTIONS), Store()
    context = context_of(task, store)
    parked(task, context)
    assert task.answer_to(context, QUESTION) is None
    answer = task.hear(context, YES, QUESTION.asked())
    retry = context_of(task, store, tries=2)
    assert task.answer_to(retry, QUESTION) == answer
    assert task.answer_to(retry, OTHER) is None
    cleared = context_of(task, store, tries=2, cleared=1)
    assert task.answer_to(cleared, QUESTION) == answer
    task.use_up(retry)
    assert task.answer_to(retry, QUESTION) == answer
    assert task.answer_to(cleared, QUESTION) is None
    parked(task, cleared)
    assert api.requests == 2


def test_what_airflow_would_show_of_an_earlier_question_is_not_asked(api):
    task, store = PromoteModelOperator(**OPTIONS), Store()
    parked(task, context_of(task, store))
    with pytest.raises(StaleApprovalError, match="Start a new run") as refused:
        task.ask(context_of(task, store, tries=2, cleared=1), OTHER)
    assert isinstance(refused.value, AirflowFailException)


def test_no_answer_in_time_fails_without_a_retry_and_a_clear_asks_again(api):
    task = PromoteModelOperator(
        **OPTIONS, approval_timeout=timedelta(hours=2), on_approval_timeout="fail", retries=3
    )
    store = Store()
    context = context_of(task, store)
    context["ti"].max_tries = 3
    parked(task, context)
    assert api.row.defaults is None
    over = {"error": "too late", "error_type": "timeout"}
    with pytest.raises(ApprovalTimeoutError, match=r"within 2:00:00; clear the task to ask again") as failed:
        task.hear(context, over, QUESTION.asked())
    assert isinstance(failed.value, AirflowFailException)
    cleared = context_of(task, store, tries=2, cleared=4)
    assert timedelta(hours=1.9) < parked(task, cleared).timeout
    assert api.requests == 2
