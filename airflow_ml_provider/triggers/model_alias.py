# SPDX-License-Identifier: Apache-2.0
"""Watching an alias of a registered model from the triggerer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent
from airflow.triggers.shared_stream import SharedStreamProducer

from airflow_ml_provider.assets.assets import ModelAsset
from airflow_ml_provider.assets.handlers import check_alias, check_registered_model_name
from airflow_ml_provider.exceptions import StoreError
from airflow_ml_provider.tracking.watching import WATERMARK_KEY, Watermark, news_of
from airflow_ml_provider.triggers.poller import aliases_of_all_models, poller_for

if TYPE_CHECKING:
    from airflow.triggers.shared_stream import AdvanceItem

log = logging.getLogger(__name__)

#: Seconds that the webhook and a task that promotes are given to announce a move themselves.
_SETTLE = 2.0
_PERSIST_SECONDS = 120.0


@dataclass(eq=False)
class AliasPoll:
    """What one poll found; ``persisted`` is set when Airflow has stored the events that came of it."""

    aliases: dict[str, dict[str, str]]
    persisted: asyncio.Event = field(default_factory=asyncio.Event)


class AliasPolls(SharedStreamProducer):  # type: ignore[misc]
    """Polls a server for all watchers that share it, as long as there are any."""

    def __init__(self, mlflow_conn_id: str | None, poll_interval: float) -> None:
        self.mlflow_conn_id = mlflow_conn_id
        self.poll_interval = poll_interval

    async def open_stream(self) -> AsyncIterator[tuple[AliasPoll, AliasPoll]]:
        """Yield what each poll finds. A server that does not answer is asked again at the next."""
        while True:
            try:
                found = await poller_for(self.mlflow_conn_id).ask(
                    "aliases", aliases_of_all_models, max_age=self.poll_interval / 2
                )
            except Exception as exc:  # noqa: BLE001 - an outage must not end the watch
                log.warning(
                    "Looking for moved aliases failed, next try in %s seconds: %s", self.poll_interval, exc
                )
            else:
                poll = AliasPoll(found)
                yield poll, poll
            await asyncio.sleep(self.poll_interval)

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """Say that what came of these polls is in the metadata database."""
        for item in batch:
            if not item.outcome.failed:
                item.broker_payload.persisted.set()


class ModelAliasTrigger(BaseEventTrigger):  # type: ignore[misc]
    """
    Raise the asset event of an alias that moves by whatever means: MLflow's pages, a script, another Airflow.

    For the watchers of a :class:`ModelAsset`::

        CHAMPION = ModelAsset(
            "flight_delay",
            alias="champion",
            watchers=[AssetWatcher("flight_delay_champion", trigger=ModelAliasTrigger("flight_delay"))],
        )

    The event says what the event of a promotion says; read it by
    :func:`airflow_ml_provider.assets.events.event_extra`. A promotion that announced itself is not announced
    again. What an alias points at when it is first looked at is no event, nor is its removal.

    All watchers of a server with the same ``poll_interval`` share one request a poll. How far moves were
    announced is kept in Airflow's state of the asset, after the events are stored, so that a triggerer that
    restarts goes on where it was and announces what happened meanwhile.

    .. versionadded:: 0.1.0

    :param registered_model_name: Name of the model in the MLflow registry.
    :param alias: The alias to watch.
    :param mlflow_conn_id: Connection of the tracking server; by default ``[ml_provider] mlflow_conn_id``.
    :param poll_interval: Seconds between two polls.
    """

    def __init__(
        self,
        registered_model_name: str,
        alias: str = "champion",
        *,
        mlflow_conn_id: str | None = None,
        poll_interval: float = 30.0,
    ) -> None:
        super().__init__()
        check_registered_model_name(registered_model_name)
        check_alias(alias)
        if (
            isinstance(poll_interval, bool)
            or not isinstance(poll_interval, int | float)
            or poll_interval <= 0
        ):
            raise ValueError(f"poll_interval must be above 0 seconds, got {poll_interval!r}")
        self.registered_model_name = registered_model_name
        self.alias = alias
        self.mlflow_conn_id = mlflow_conn_id
        self.poll_interval = poll_interval
        self._known: Watermark | None = None
        self._looked = False
        self._remembering: set[asyncio.Task[None]] = set()

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            "airflow_ml_provider.triggers.model_alias.ModelAliasTrigger",
            {
                "registered_model_name": self.registered_model_name,
                "alias": self.alias,
                "mlflow_conn_id": self.mlflow_conn_id,
                "poll_interval": self.poll_interval,
            },
        )

    def shared_stream_key(self) -> Hashable:
        return ("airflow_ml_provider.aliases", self.mlflow_conn_id, self.poll_interval)

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> AliasPolls:
        return AliasPolls(kwargs.get("mlflow_conn_id"), kwargs.get("poll_interval", 30.0))

    async def filter_shared_stream(
        self, shared_stream: AsyncIterator[AliasPoll]
    ) -> AsyncIterator[TriggerEvent]:
        async for poll in shared_stream:
            for event in await self._news(poll):
                yield event

    async def run(self) -> AsyncIterator[TriggerEvent]:
        async for poll, _ in self.create_shared_stream_producer(self.serialize()[1]).open_stream():
            for event in await self._news(poll):
                yield event
            poll.persisted.set()

    async def cleanup(self) -> None:
        for task in self._remembering:
            task.cancel()

    async def _news(self, poll: AliasPoll) -> list[TriggerEvent]:
        """Return what to announce after a poll; nothing where that cannot be found out before the next."""
        try:
            return await self._look(poll)
        except Exception as exc:  # the watch goes on; what is not announced now is found at the next poll
            self._looked = False
            if isinstance(exc, StoreError):  # its keys may have been rotated: the next poll reads them
                _forget_store()
            log.exception("Finding out how %s@%s moved failed", self.registered_model_name, self.alias)
            return []

    async def _look(self, poll: AliasPoll) -> list[TriggerEvent]:
        version = poll.aliases.get(self.registered_model_name, {}).get(self.alias)
        if self._looked and self._known is not None and self._known.version == version:
            return []
        if not self._looked:
            self._known = await self._announced()
            self._looked = True
            if self._known is not None and self._known.version == version:
                return []
        if self._known is not None:
            await asyncio.sleep(_SETTLE)
            self._known = _later(self._known, await self._announced())
        known = self._known
        extras, reached = await poller_for(self.mlflow_conn_id).ask(
            ("news", self.registered_model_name, self.alias, known),
            lambda client: news_of(client, _ledger(), self.registered_model_name, self.alias, known),
        )
        self._known = reached
        if not extras:
            await self._remember(reached)
            return []
        for extra in extras:
            log.info("%s@%s moved to version %s", self.registered_model_name, self.alias, extra["version"])
        task = asyncio.create_task(self._remember_once_stored(poll, reached))
        self._remembering.add(task)
        task.add_done_callback(self._remembering.discard)
        return [TriggerEvent(extra) for extra in extras]

    async def _remember_once_stored(self, poll: AliasPoll, reached: Watermark) -> None:
        try:
            await asyncio.wait_for(poll.persisted.wait(), _PERSIST_SECONDS)
            await self._remember(reached)
        except Exception:
            self._looked = False  # asks again how far it was, and announces again rather than never
            log.exception("Airflow did not store that %s@%s moved", self.registered_model_name, self.alias)

    @property
    def _state(self) -> Any:
        if self.asset_state_store is None:
            return None
        with suppress(KeyError):
            return self.asset_state_store[ModelAsset(self.registered_model_name, self.alias)]
        return self.asset_state_store

    async def _announced(self) -> Watermark | None:
        if self._state is None:
            return self._known
        return Watermark.from_json(await self._state.aget(WATERMARK_KEY))

    async def _remember(self, reached: Watermark) -> None:
        if self._state is not None:
            await self._state.aset(WATERMARK_KEY, reached.to_json())


def _later(one: Watermark, other: Watermark | None) -> Watermark:
    return one if other is None or other.sequence < one.sequence else other


def _forget_store() -> None:
    from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook

    ArtifactStoreHook.forget()


def _ledger() -> Any:
    from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook
    from airflow_ml_provider.tracking.ledger import Ledger

    return Ledger(ArtifactStoreHook().store.objects)
