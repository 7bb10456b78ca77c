# SPDX-License-Identifier: Apache-2.0
"""Which failures of a training are tried again, and when."""

from __future__ import annotations

import sys
import types
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import RetryAction

from airflow_ml_provider import ml
from airflow_ml_provider.decorators.retries import TrainingRetryPolicy
from airflow_ml_provider.exceptions import BadDataError, ModelInputError, NonFiniteLossError, StoreError

NOW = timedelta(0)
LATER = timedelta(minutes=5)


class QuotaError(Exception):
    pass


class SpotReclaimedError(QuotaError):
    pass


def chained(cause: BaseException) -> RuntimeError:
    error = RuntimeError("the trainer failed")
    error.__cause__ = cause
    return error


def decide(exception: BaseException, **options: Any) -> tuple[RetryAction, timedelta | None]:
    made = ml.retry_policy(**{"delay": LATER, **options}).evaluate(exception, 1, 3, None)
    assert made.reason is None or type(exception).__name__ in made.reason or exception.__cause__
    return made.action, made.retry_delay


@pytest.mark.parametrize(
    ("exception", "decision"),
    [
        pytest.param(NonFiniteLossError("nan"), (RetryAction.FAIL, None), id="NaN loss"),
        pytest.param(BadDataError("no rows"), (RetryAction.FAIL, None), id="bad data"),
        pytest.param(ModelInputError("columns"), (RetryAction.FAIL, None), id="missing columns"),
        pytest.param(FloatingPointError("overflow"), (RetryAction.FAIL, None), id="numpy's errors"),
        pytest.param(chained(BadDataError("x")), (RetryAction.FAIL, None), id="raised from bad data"),
        pytest.param(KeyboardInterrupt(), (RetryAction.RETRY, NOW), id="interrupted"),
        pytest.param(SystemExit(143), (RetryAction.RETRY, NOW), id="exit after SIGTERM"),
        pytest.param(SystemExit(1), (RetryAction.RETRY, LATER), id="exit with an error"),
        pytest.param(StoreError("503"), (RetryAction.RETRY, LATER), id="the storage"),
        pytest.param(ValueError("a bug, perhaps"), (RetryAction.RETRY, LATER), id="anything else"),
    ],
)
def test_what_becomes_of_a_failure(exception: BaseException, decision: Any) -> None:
    assert decide(exception) == decision


def test_without_a_delay_other_failures_are_the_tasks_own_business() -> None:
    assert decide(ValueError(), delay=None) == (RetryAction.DEFAULT, None)
    assert decide(ValueError(), delay=30)[1] == timedelta(seconds=30)


@pytest.mark.parametrize("named", [QuotaError, f"{__name__}.QuotaError"])
def test_own_errors_and_their_subclasses_are_named_by_class_or_path(named: Any) -> None:
    assert decide(SpotReclaimedError(), fail_on=[named]) == (RetryAction.FAIL, None)
    assert decide(SpotReclaimedError(), resume_on=[named]) == (RetryAction.RETRY, NOW)
    assert decide(KeyError(), fail_on=[named]) == (RetryAction.RETRY, LATER)
    assert decide(KeyError(), fail_on=["LookupError"]) == (RetryAction.FAIL, None)


def test_an_error_is_found_by_the_name_under_which_its_package_shows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = types.ModuleType("a_package")
    shown.Quota = QuotaError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_package", shown)
    assert decide(SpotReclaimedError(), fail_on=["a_package.Quota"]) == (RetryAction.FAIL, None)


def test_what_resumes_goes_before_what_fails() -> None:
    both = {"fail_on": [QuotaError], "resume_on": [SpotReclaimedError]}
    assert decide(SpotReclaimedError(), **both) == (RetryAction.RETRY, NOW)
    assert decide(QuotaError(), **both) == (RetryAction.FAIL, None)


def test_a_policy_survives_serialization() -> None:
    policy = ml.retry_policy(delay=1.5, fail_on=[QuotaError], resume_on=["ConnectionError"])
    again = TrainingRetryPolicy.deserialize(policy.serialize())
    assert again.serialize() == policy.serialize()
    assert again.evaluate(ConnectionResetError(), 1, 1).retry_delay == NOW


@pytest.mark.parametrize(
    "options",
    [
        {"delay": -1},
        {"delay": "soon"},
        {"delay": float("nan")},
        {"fail_on": ValueError},
        {"fail_on": "ValueError"},
        {"fail_on": [3]},
        {"resume_on": ["NoSuchThing"]},
    ],
)
def test_wrong_arguments_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(options))):
        ml.retry_policy(**options)
