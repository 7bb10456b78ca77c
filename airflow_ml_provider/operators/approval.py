# SPDX-License-Identifier: Apache-2.0
"""
Asking a person through Airflow's own human-in-the-loop, and hearing the answer once.

Airflow keeps one question for a task instance, over all its tries; asking again deletes an answer that came
meanwhile and leaves the text as it was. So what was asked, and what was answered, is noted in the state of
the task instance: a later try waits for the same answer, or uses it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException, TaskAwaitingInput

from airflow_ml_provider.exceptions import ApprovalTimeoutError, StaleApprovalError
from airflow_ml_provider.operators.alias import actor_of
from airflow_ml_provider.tracking.approval import (
    APPROVE,
    COMMENT,
    REJECT,
    Answer,
    Approval,
    OnTimeout,
    Question,
    choice,
)
from airflow_ml_provider.tracking.clocks import moment

if TYPE_CHECKING:
    from airflow.providers.standard.operators.hitl import ApprovalOperator
    from airflow.sdk import BaseNotifier, Context
    from airflow.sdk.execution_time.hitl import HITLUser

log = logging.getLogger(__name__)

_KEY = "ml_provider.approval"


class OutdatedApprovalError(StaleApprovalError, AirflowFailException):
    """A :class:`StaleApprovalError` that Airflow does not retry: another try would find the same."""


class NoApprovalError(ApprovalTimeoutError, AirflowFailException):
    """An :class:`ApprovalTimeoutError` that Airflow does not retry."""


class AsksForApproval:
    """Mixed into operators that may ask a person before they act."""

    task_id: str
    approval: Approval
    approvers: list[HITLUser]
    approval_timeout: timedelta | None
    on_approval_timeout: OnTimeout
    approval_notifiers: list[BaseNotifier]

    def take_approval_options(
        self,
        *,
        approval: Any,
        approvers: Any,
        approval_timeout: Any,
        on_approval_timeout: Any,
        approval_notifiers: Any,
    ) -> None:
        """
        Check and keep the options.

        :raises TypeError: for options of the wrong type.
        :raises ValueError: for options that say nothing, because nobody is asked or no time runs out.
        """
        self.approval = choice("approval", approval, Approval)
        self.approvers = [_user(user) for user in _listed(approvers, "approvers", (str, Mapping))]
        if approval_timeout is not None and not isinstance(approval_timeout, timedelta):
            raise TypeError(f"approval_timeout must be a timedelta, got {approval_timeout!r}")
        if approval_timeout is not None and approval_timeout <= timedelta(0):
            raise ValueError(f"approval_timeout must be more than no time, got {approval_timeout!r}")
        self.approval_timeout = approval_timeout
        self.on_approval_timeout = choice("on_approval_timeout", on_approval_timeout, OnTimeout)
        self.approval_notifiers = _listed(approval_notifiers, "approval_notifiers", ())
        if approval == "never" and (self.approvers or approval_timeout or self.approval_notifiers):
            raise ValueError(
                "approvers, approval_timeout and approval_notifiers say how to ask a person, and "
                "approval='never' asks nobody; give approval='always' or 'on_regression'"
            )
        if approval_timeout is None and on_approval_timeout != "reject":
            raise ValueError(
                "on_approval_timeout says what happens when approval_timeout is over; give that too"
            )

    def answer_to(self, context: Context, question: Question) -> Answer | None:
        """Return what an earlier try heard to this question; None if it was not answered, or used up."""
        noted = _noted(context)
        if noted.get("key") != question.key or not noted.get("answer") or _is_used(context, noted):
            return None
        return Answer.from_json(noted["answer"])

    def ask(self, context: Context, question: Question) -> None:
        """
        Ask, unless this very question is on the page already, and end this process until the answer comes.

        :raises OutdatedApprovalError: if Airflow still shows what an earlier try asked.
        """
        noted = _noted(context)
        known = noted.get("key") == question.key and not noted.get("answer") and not _is_used(context, noted)
        page = self._page(question)
        if not known:
            shown = _put(context, page)
            if question.key not in str(getattr(shown, "body", "")):
                raise OutdatedApprovalError(
                    f"a person is to be asked about {question.subject!r}, but Airflow keeps the text of what "
                    "an earlier try of this task instance asked, and would show an outdated comparison. "
                    "Start a new run of the DAG"
                )
            until = None if self.approval_timeout is None else datetime.now(UTC) + self.approval_timeout
            noted = {
                **question.asked(),
                "deadline": None if until is None else until.isoformat(),
                "notified": False,
            }
            _note(context, noted)
        if not noted["notified"]:
            self._notify(context, page)
            _note(context, {**noted, "notified": True})
        timeout = None
        if (deadline := moment(noted["deadline"])) is not None:
            timeout = max(deadline - datetime.now(UTC), timedelta(seconds=1))
        log.info("Waiting for a person: %s", question.subject)
        # Airflow goes on at once if the answer is there already.
        raise TaskAwaitingInput(
            method_name="execute_complete", kwargs={"asked": question.asked()}, timeout=timeout
        )

    def hear(self, context: Context, event: Mapping[str, Any], asked: Mapping[str, Any]) -> Answer:
        """
        Take the answer and keep it, so that no later try has to ask again.

        :raises NoApprovalError: if the time ran out and that is a failure.
        """
        if "error" in event:
            self.use_up(context)
            raise NoApprovalError(
                f"nobody approved or rejected {asked.get('model')!r} within {self.approval_timeout}; clear "
                f"the task to ask again ({event['error']})"
            )
        answer = Answer.from_event(event)
        _note(context, {**_noted(context), **asked, "answer": answer.to_json()})
        log.info("%s", answer)
        return answer

    def use_up(self, context: Context) -> None:
        """Note that the answer was acted on: who clears the task afterwards wants to be asked again."""
        if noted := _noted(context):
            _note(context, {**noted, "used": actor_of(context)["cleared_after_try"]})

    def _page(self, question: Question) -> ApprovalOperator:
        """Make what Airflow's notifiers know: one of its own operators that ask."""
        from airflow.providers.standard.operators.hitl import ApprovalOperator
        from airflow.sdk import Param

        defaults = {"reject": REJECT, "approve": APPROVE, "fail": None}
        return ApprovalOperator(
            task_id=self.task_id,
            subject=question.subject,
            body=question.body,
            defaults=defaults[self.on_approval_timeout] if self.approval_timeout is not None else None,
            assigned_users=self.approvers or None,
            notifiers=self.approval_notifiers,
            params={
                COMMENT: Param(
                    None,
                    type=["null", "string"],
                    format="multiline",
                    title="Comment",
                    description="Why; kept with the model and in the ledger.",
                )
            },
        )

    def _notify(self, context: Context, page: ApprovalOperator) -> None:
        as_page: Any = {**context, "task": page}
        for notifier in self.approval_notifiers:
            try:
                notifier(as_page)
            except Exception:
                log.exception(
                    "%r could not tell that a person is asked; the question is on the page", notifier
                )


def _put(context: Context, page: ApprovalOperator) -> Any:
    """Put a question on the page of required actions, and return what Airflow shows there."""
    from airflow.sdk.api.datamodels._generated import HITLUser as ApiUser
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import CreateHITLDetailPayload

    # The SDK's upsert_hitl_detail() drops the answer, which tells whether the text is an old one.
    return task_runner.SUPERVISOR_COMMS.send(
        CreateHITLDetailPayload(
            ti_id=context["ti"].id,
            options=page.options,
            subject=page.subject,
            body=page.body,
            defaults=page.defaults,
            multiple=False,
            params=page.serialized_params,
            assigned_users=[ApiUser(**user) for user in page.assigned_users or ()],
        )
    )


def _noted(context: Context) -> dict[str, Any]:
    noted: dict[str, Any] = context["task_state_store"].get(_KEY) or {}
    return noted


def _note(context: Context, value: dict[str, Any]) -> None:
    context["task_state_store"].set(_KEY, value)


def _is_used(context: Context, noted: Mapping[str, Any]) -> bool:
    used = noted.get("used")
    return used is not None and used < actor_of(context)["cleared_after_try"]


def _user(user: Any) -> HITLUser:
    if isinstance(user, str) and user:
        return {"id": user, "name": user}
    if isinstance(user, Mapping) and user.get("id") and user.get("name"):
        return {"id": str(user["id"]), "name": str(user["name"])}
    raise TypeError(f"an approver is the id of an Airflow user, or {{'id': ..., 'name': ...}}, got {user!r}")


def _listed(value: Any, option: str, single: tuple[type, ...]) -> list[Any]:
    if isinstance(value, single) or not isinstance(value, Sequence):
        return [value]
    return list(value)
