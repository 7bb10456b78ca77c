# SPDX-License-Identifier: Apache-2.0
"""Which errors of an object storage may pass, and how often and how long to try again."""

from __future__ import annotations

import random
import re
import time

_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0  # seconds
# What the client says of the network, of servers that are busy or ill, and of races between writers.
_PASSES = re.compile(
    r"HTTP error|error sending request|body error|timed out|response body"
    r"|status code: (?:408|409|429|5\d\d)|\b(?:408|409|429|5\d\d) [A-Z]"
    r"|InternalError|SlowDown|ServiceUnavailable|RequestTimeout\b|OperationAborted|ConditionalRequestConflict"
)
_OWN_RETRIES = re.compile(r"after (\d+) retries")


def may_pass(exc: Exception) -> bool:
    """Tell a fault of the moment from one that trying again does not mend."""
    from obstore import exceptions

    refused = (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError, FileNotFoundError)
    return not isinstance(exc, refused) and _PASSES.search(str(exc)) is not None


class Retries:
    """
    The attempts at one operation.

    The client repeats some requests by itself: those that S3 lets it repeat blindly, and bodies of answers.
    What it leaves, such as a conditional put whose connection broke, is repeated here.

    :param limit: So many attempts after the first, those of the client included.
    :param seconds: None begins later than this after the first, or after the last progress.
    """

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds
        self.tried = 0
        self._total = 0
        self._first = self._since = time.monotonic()

    def again(self, exc: Exception) -> bool:
        """Count an attempt that failed, and wait; False if there is no use in another one."""
        inner = _OWN_RETRIES.search(str(exc))
        count = 1 + (int(inner[1]) if inner else 0)
        self.tried += count
        self._total += count
        if not may_pass(exc):
            return False
        # Of many clients that a server turned away, not all come back at once.
        wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (self.tried - 1)) * random.uniform(0.5, 1)  # noqa: S311
        if self.tried > self._limit or time.monotonic() - self._since + wait > self._seconds:
            return False
        time.sleep(wait)
        return True

    def moved_on(self) -> None:
        """Begin to count anew: what was asked for is coming in."""
        self.tried = 0
        self._since = time.monotonic()

    @property
    def may_have_repeated(self) -> bool:
        """Whether an earlier attempt, of ours or of the client, may have reached the server."""
        return self._total > 0 or time.monotonic() - self._first >= _FIRST_WAIT

    def __str__(self) -> str:
        if self._total < 2:
            return ""
        return f" (tried {self._total} times in {time.monotonic() - self._first:.1f} seconds)"
