# SPDX-License-Identifier: Apache-2.0
"""
What can go wrong with a local cluster.

::

    DemoError
    +-- PortTakenError        a port that was asked for is in use
    +-- AlreadyRunningError   an earlier cluster holds the folder
    +-- ComponentDiedError    a process of ours ended by itself
    +-- StalledError          something we wait for did not happen in time
    +-- ApiError              Airflow or MLflow answered with an error
    +-- TaskFailedError       a task instance failed
    +-- ImportFailedError     a DAG file does not import
"""

from __future__ import annotations


class DemoError(Exception):
    """The demo cannot go on; the message says why and shows the end of the log that tells more."""


class PortTakenError(DemoError):
    pass


class AlreadyRunningError(DemoError):
    pass


class ComponentDiedError(DemoError):
    pass


class StalledError(DemoError, TimeoutError):
    pass


class ApiError(DemoError):
    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class TaskFailedError(DemoError):
    pass


class ImportFailedError(DemoError):
    pass
