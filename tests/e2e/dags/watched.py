# SPDX-License-Identifier: Apache-2.0
"""Two DAGs that run when an alias moves, each with a watcher of its own model."""

from __future__ import annotations

from datetime import datetime

from airflow.sdk import AssetWatcher, dag, task

from airflow_ml_provider import ModelAsset
from airflow_ml_provider.assets.events import event_extra
from airflow_ml_provider.triggers import ModelAliasTrigger


def watched(name: str) -> ModelAsset:
    trigger = ModelAliasTrigger(name, "champion", poll_interval=2)
    return ModelAsset(name, watchers=[AssetWatcher(name=f"{name}_champion", trigger=trigger)])


def make(dag_id: str, asset: ModelAsset) -> None:
    @dag(dag_id=dag_id, schedule=[asset], start_date=datetime(2026, 1, 1))
    def consumer():
        @task
        def versions(triggering_asset_events=None) -> list[str]:
            """Return the versions that the events of this run name."""
            return [event_extra(event)["version"] for event in triggering_asset_events[asset]]

        versions()

    consumer()


make("e2e_watched", watched("e2e_watched"))
make("e2e_watched_too", watched("e2e_watched_too"))
