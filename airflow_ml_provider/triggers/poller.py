# SPDX-License-Identifier: Apache-2.0
"""One poll of an MLflow server for all triggers of a process that want to know about the same time."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from airflow_ml_provider.hooks.mlflow import MlflowHook

T = TypeVar("T")
_KEEP_SECONDS = 600.0
_MODELS_A_PAGE = 1_000
_THREADS = 4


class Poller:
    """
    Ask an MLflow server questions from an event loop, each once however many want the answer.

    MLflow's client blocks, so questions are asked in a few threads.

    :param mlflow_conn_id: Connection of the server.
    """

    def __init__(self, mlflow_conn_id: str) -> None:
        self.mlflow_conn_id = mlflow_conn_id
        self._answers: dict[Hashable, tuple[asyncio.Task[Any], float]] = {}
        self._hook: MlflowHook | None = None
        # Of its own: a server that hangs would hold the loop's, which look up hosts for every trigger.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="ml-provider-poller")

    async def ask(self, question: Hashable, answer: Callable[[Any], T], *, max_age: float = 0.0) -> T:
        """
        Return what ``answer(client)`` gives.

        :param question: Names the question; who asks the same while it is under way gets the same answer.
        :param max_age: Take an answer that was asked for at most so many seconds ago.
        """
        now = asyncio.get_running_loop().time()
        task, asked_at = self._answers.get(question, (None, 0.0))
        if task is None or (task.done() and (_failed(task) or now - asked_at > max_age)):
            self._forget(now)
            task = asyncio.create_task(self._answer(answer))
            self._answers[question] = (task, now)
        result: T = await asyncio.shield(task)  # one asker that is cancelled leaves the others their answer
        return result

    async def _answer(self, answer: Callable[[Any], T]) -> T:
        hook = self._hook or await MlflowHook(self.mlflow_conn_id).aload()
        try:
            found = await asyncio.get_running_loop().run_in_executor(
                self._threads, contextvars.copy_context().run, lambda: answer(hook.client)
            )
        except Exception:
            self._hook = None  # the connection may be mended meanwhile
            raise
        self._hook = hook
        return found

    def _forget(self, now: float) -> None:
        for question, (task, asked_at) in list(self._answers.items()):
            if task.done() and now - asked_at > _KEEP_SECONDS:
                del self._answers[question]


_pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Poller]] = WeakKeyDictionary()


def poller_for(mlflow_conn_id: str | None) -> Poller:
    """Return the poller of a connection; one for each in a triggerer."""
    if mlflow_conn_id is None:
        from airflow_ml_provider.settings import load_settings

        mlflow_conn_id = load_settings().mlflow_conn_id
    pollers = _pollers.setdefault(asyncio.get_running_loop(), {})
    return pollers.setdefault(mlflow_conn_id, Poller(mlflow_conn_id))


def aliases_of_all_models(client: Any) -> dict[str, dict[str, str]]:
    """Return alias -> version for each registered model; one request for a thousand models."""
    found: dict[str, dict[str, str]] = {}
    token = None
    while True:
        page = client.search_registered_models(max_results=_MODELS_A_PAGE, page_token=token)
        for model in page:
            found[model.name] = {alias: str(version) for alias, version in model.aliases.items()}
        token = page.token
        if not token:
            return found


def _failed(task: asyncio.Task[Any]) -> bool:
    return task.cancelled() or task.exception() is not None
