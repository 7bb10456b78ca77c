# SPDX-License-Identifier: Apache-2.0
"""
Models and artifacts as Airflow assets.

In the scheduler and in the metadata database these classes decay to a plain
:class:`~airflow.sdk.Asset`. So whatever they know is in the name, the URI and ``extra``, and the properties
read it back from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import Asset

from airflow_ml_provider.artifacts.refs import Artifact
from airflow_ml_provider.assets import handlers

if TYPE_CHECKING:
    from airflow.sdk import AssetWatcher


class ModelAsset(Asset):
    """
    An alias of a registered model, e.g. the champion of ``flight_delay``.

    A DAG with this asset in its schedule runs when the alias moves::

        CHAMPION = ModelAsset("flight_delay", alias="champion")


        @dag(schedule=[CHAMPION])
        def scoring(): ...

    The event's ``extra`` says where the alias points since then: ``version``, ``previous_version``,
    ``mlflow_run_id``, ``metrics``, ``effective_at``.

    .. versionadded:: 0.1.0

    :param registered_model_name: Name of the model in the MLflow registry.
    :param alias: The alias that is watched or moved.
    :param group: Group of the asset in the Airflow UI.
    :param extra: More JSON to keep with the asset. ``registered_model_name`` and ``alias`` are added to it.
    :param watchers: Watchers of the alias for moves that are made outside of Airflow.
    :raises ValueError: if MLflow would refuse the name or the alias.
    """

    asset_type: ClassVar[str] = "ml-model"

    def __init__(
        self,
        registered_model_name: str,
        alias: str = "champion",
        *,
        group: str | None = None,
        extra: dict[str, Any] | None = None,
        watchers: list[AssetWatcher] | None = None,
    ) -> None:
        handlers.check_registered_model_name(registered_model_name)
        handlers.check_alias(alias)
        super().__init__(
            name=f"{registered_model_name}@{alias}",
            uri=handlers.model_asset_uri(registered_model_name, alias),
            group=group,
            extra={**(extra or {}), "registered_model_name": registered_model_name, "alias": alias},
            watchers=watchers,
        )

    @property
    def registered_model_name(self) -> str:
        """Name of the model in the MLflow registry."""
        return handlers.parse_model_asset_uri(self.uri)[0]

    @property
    def alias(self) -> str:
        """The alias, e.g. ``champion``."""
        return handlers.parse_model_asset_uri(self.uri)[1]

    @property
    def model_uri(self) -> str:
        """MLflow's own URI for it, e.g. ``models:/flight_delay@champion``."""
        return f"models:/{self.registered_model_name}@{self.alias}"


class ArtifactAsset(Asset):
    """
    All versions of a named artifact; each write that declares it as an outlet is one asset event.

    As the single artifact asset among a task's outlets it also names the artifact that the task returns.

    .. versionadded:: 0.1.0

    :param artifact_name: Name of the artifact, as in ``Artifact("flight_features")``.
    :param group: Group of the asset in the Airflow UI.
    :param extra: More JSON to keep with the asset. ``artifact`` is added to it.
    :param watchers: Watchers of the artifact for writes that are made outside of Airflow.
    :raises ValueError: if no artifact can have that name.
    """

    asset_type: ClassVar[str] = "ml-artifact"

    def __init__(
        self,
        artifact_name: str,
        *,
        group: str | None = None,
        extra: dict[str, Any] | None = None,
        watchers: list[AssetWatcher] | None = None,
    ) -> None:
        Artifact(artifact_name)  # refuses a bad name
        super().__init__(
            name=artifact_name,
            uri=handlers.artifact_asset_uri(artifact_name),
            group=group,
            extra={**(extra or {}), "artifact": artifact_name},
            watchers=watchers,
        )

    @property
    def artifact_name(self) -> str:
        """Name of the artifact in the store."""
        return handlers.parse_artifact_asset_uri(self.uri)
