# SPDX-License-Identifier: Apache-2.0
"""Ask the deployment's ledger from Python: notebooks, services, tests. Reads only."""

from __future__ import annotations

import functools
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook
from airflow_ml_provider.tracking.ledger import AliasMove, Ledger

if TYPE_CHECKING:
    from airflow_ml_provider.settings import Settings


class MLClient:
    """
    Answer what a deployment's models were, and when.

    ::

        MLClient().model("flight_delay").as_of("champion", "2013-05-14").version

    Reads the artifact store that ``[ml_provider]`` names, as workers do, and needs neither Airflow's metadata
    database nor MLflow.

    .. versionadded:: 0.1.0

    :param settings: What to connect to; by default the options of ``[ml_provider]``.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings

    @functools.cached_property
    def ledger(self) -> Ledger:
        """The ledger of alias moves."""
        return Ledger(ArtifactStoreHook(self._settings).store.objects)

    def model(self, registered_model_name: str) -> ModelHistory:
        """Give the history of a registered model; asks nothing yet."""
        return ModelHistory(self.ledger, registered_model_name)

    def models(self) -> list[ModelHistory]:
        """The registered models that have an alias that ever moved, by name."""
        names = sorted({name for name, _ in self.ledger.aliases()})
        return [ModelHistory(self.ledger, name) for name in names]


class ModelHistory:
    """
    Where the aliases of a registered model pointed.

    :param ledger: Where it is written.
    :param registered_model_name: The model's name in MLflow.
    """

    def __init__(self, ledger: Ledger, registered_model_name: str) -> None:
        self._ledger = ledger
        self.registered_model_name = registered_model_name

    def __repr__(self) -> str:
        return f"ModelHistory({self.registered_model_name!r})"

    def as_of(
        self, alias: str, when: datetime | str, clock: Literal["data", "wall"] = "data"
    ) -> AliasMove | None:
        """
        Give the move that decided where an alias pointed; its ``version`` is where.

        :param when: A datetime or ISO 8601 text; without a time zone it counts as UTC.
        :param clock: ``data``: the version that counts for data up to ``when``, whenever it was promoted.
            ``wall``: the version that was serving at ``when``.
        :returns: None if the alias had not been moved yet.
        """
        return self._ledger.as_of(self.registered_model_name, alias, when, clock=clock)

    def history(
        self, alias: str = "champion", *, limit: int | None = None, clock: Literal["data", "wall"] = "data"
    ) -> list[AliasMove]:
        """
        Give the moves of an alias, the latest first.

        :param limit: At most so many.
        :param clock: The time that they are sorted by. ``wall`` reads all moves, ``data`` as many as asked.
        """
        return self._ledger.history(self.registered_model_name, alias, limit=limit, clock=clock)

    def aliases(self) -> list[str]:
        """The aliases that ever moved."""
        return self._ledger.aliases_of(self.registered_model_name)
