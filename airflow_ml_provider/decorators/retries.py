# SPDX-License-Identifier: Apache-2.0
"""``ml.retry_policy()``: which failures of a training are worth another attempt, and when."""

from __future__ import annotations

import builtins
import math
import sys
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import RetryDecision, RetryPolicy

from airflow_ml_provider import exceptions as errors

#: The same data and the same code end the same way.
HOPELESS: tuple[type[BaseException], ...] = (
    errors.NonFiniteLossError,
    errors.BadDataError,
    errors.ModelInputError,
    errors.EmptyEvaluationError,
    errors.GateMetricError,
    errors.UnsupportedTypeError,
    errors.UntrustedTypeError,
    errors.ArtifactTooLargeError,
    errors.CheckpointLostError,
    errors.SettingsError,
    FloatingPointError,
)
#: Exit codes of programs that SIGINT, SIGKILL or SIGTERM ended.
_SIGNALLED = (130, 137, 143)

Named = type[BaseException] | str


class TrainingRetryPolicy(RetryPolicy):
    """
    Fail at once where another attempt would fail too, go on at once where only the machine failed.

    What it cannot see is an attempt that was killed outright (``kill -9``, out of memory, a lost worker):
    nobody is left to ask it, and Airflow retries after the task's own ``retry_delay``. So let that be short
    and give the longer wait here, as ``delay``: it is for every other failure.

    .. versionadded:: 0.1.0

    :param delay: Before the retry of a failure that is none of these; the task's ``retry_delay`` if absent.
    :param fail_on: Errors that fail at once, besides :data:`HOPELESS`: classes, or their dotted paths.
    :param resume_on: Errors that are retried at once, besides an interrupt and ``sys.exit()``
        with the code of a signal (130, 137, 143). They go before ``fail_on``.
    """

    def __init__(
        self,
        *,
        delay: timedelta | float | None = None,
        fail_on: Iterable[Named] = (),
        resume_on: Iterable[Named] = (),
    ) -> None:
        if isinstance(delay, (int, float)) and not isinstance(delay, bool) and math.isfinite(delay):
            delay = timedelta(seconds=delay)
        if delay is not None and (not isinstance(delay, timedelta) or delay < timedelta(0)):
            raise ValueError(f"delay must be a timedelta or seconds of 0 or more, got {delay!r}")
        self.delay = delay
        self.fail_on = _names(fail_on, "fail_on")
        self.resume_on = _names(resume_on, "resume_on")

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Any = None
    ) -> RetryDecision:
        """Decide; called by Airflow in the task's process when an attempt failed."""
        for cause in _causes(exception):
            kind = type(cause).__name__
            if _is_interrupt(cause) or _is_one_of(cause, self.resume_on):
                return RetryDecision.retry(timedelta(0), f"{kind}: the attempt was cut off; going on at once")
            if isinstance(cause, HOPELESS) or _is_one_of(cause, self.fail_on):
                return RetryDecision.fail(f"{kind}: another attempt would end the same way")
        if self.delay is None:
            return RetryDecision.default()
        return RetryDecision.retry(
            self.delay, f"{type(exception).__name__}: trying again in {self.delay.total_seconds():g} s"
        )

    def serialize(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "__type": type(self).__name__,
            "delay": None if self.delay is None else self.delay.total_seconds(),
            "fail_on": list(self.fail_on),
            "resume_on": list(self.resume_on),
        }

    @classmethod
    def deserialize(cls, data: Mapping[str, Any]) -> TrainingRetryPolicy:
        """Return what :meth:`serialize` was called on."""
        return cls(delay=data["delay"], fail_on=data["fail_on"], resume_on=data["resume_on"])


def retry_policy(
    *,
    delay: timedelta | float | None = None,
    fail_on: Iterable[Named] = (),
    resume_on: Iterable[Named] = (),
) -> TrainingRetryPolicy:
    """
    Return a policy for ``@task(retries=..., retry_policy=...)``, see :class:`TrainingRetryPolicy`.

    .. versionadded:: 0.1.0
    """
    return TrainingRetryPolicy(delay=delay, fail_on=fail_on, resume_on=resume_on)


def _names(given: Iterable[Named], option: str) -> tuple[str, ...]:
    """Keep dotted paths, so that a policy imports no library where it is made."""
    if isinstance(given, (str, type)):
        raise TypeError(f"{option} is a list of exceptions, got {given!r}; write [{given!r}]")
    found = []
    for item in given:
        if isinstance(item, type) and issubclass(item, BaseException):
            found.append(f"{item.__module__}.{item.__qualname__}")
            continue
        if not isinstance(item, str) or not item:
            raise TypeError(f"{option} holds exception classes or their dotted paths, got {item!r}")
        if "." not in item and not isinstance(getattr(builtins, item, None), type):
            raise ValueError(f"{option} names {item!r}; write its dotted path, such as 'requests.HTTPError'")
        found.append(item if "." in item else f"builtins.{item}")
    return tuple(found)


def _is_interrupt(exception: BaseException) -> bool:
    return isinstance(exception, KeyboardInterrupt) or (
        isinstance(exception, SystemExit) and exception.code in _SIGNALLED
    )


def _is_one_of(exception: BaseException, names: tuple[str, ...]) -> bool:
    return any(f"{base.__module__}.{base.__qualname__}" in names for base in type(exception).__mro__) or any(
        isinstance(exception, found) for found in map(_loaded, names) if found is not None
    )


def _loaded(name: str) -> type | None:
    """Find a class by a path that it is not defined at; who raised it has imported it."""
    module, _, attribute = name.rpartition(".")
    found = getattr(sys.modules.get(module), attribute, None)
    return found if isinstance(found, type) else None


def _causes(exception: BaseException) -> Iterable[BaseException]:
    """Yield an exception and what it was raised ``from``."""
    seen: set[int] = set()
    found: BaseException | None = exception
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__
