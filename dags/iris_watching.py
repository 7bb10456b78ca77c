# SPDX-License-Identifier: Apache-2.0
"""
### Run when a champion moves, whoever moved it

Runs when the alias `champion` of the registered model `iris` moves: by hand on MLflow's pages, by a script,
or by `iris_training`. Needs the connection `mlflow_default` and a triggerer that reaches the artifact root.
"""

# [START watching]
from __future__ import annotations

from airflow.sdk import AssetWatcher, dag, task

from airflow_ml_provider import ModelAsset
from airflow_ml_provider.assets.events import event_extra
from airflow_ml_provider.triggers import ModelAliasTrigger

IRIS = ModelAsset(
    "iris",
    alias="champion",
    watchers=[AssetWatcher(name="iris_champion", trigger=ModelAliasTrigger("iris", "champion"))],
)


@dag(schedule=[IRIS], description="Says which champion came", doc_md=__doc__, tags=["ml"])
def iris_watching():
    @task
    def say_what_moved(triggering_asset_events=None) -> list[str]:
        """Return a line for each move that started this run."""
        moves = [event_extra(event) for event in triggering_asset_events[IRIS]]
        return [f"{move['previous_version']} -> {move['version']}, {move['metrics']}" for move in moves]

    say_what_moved()


iris_watching()
# [END watching]
