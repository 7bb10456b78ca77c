# SPDX-License-Identifier: Apache-2.0
"""
### Wait for a model

A task that goes on as soon as the registered model `iris` has a champion, without a worker's slot until then.

Run it by hand, before or after `iris_training`. It needs the connection `mlflow_default`.
"""

# [START waiting]
from __future__ import annotations

from airflow.sdk import dag, task

from airflow_ml_provider.sensors import ModelVersionSensor


@dag(schedule=None, description="Waits for a champion and names it", doc_md=__doc__, tags=["ml"])
def iris_waiting():
    champion = ModelVersionSensor(
        task_id="wait_for_champion",
        registered_model_name="iris",
        alias="champion",
        deferrable=True,
        poke_interval=30,  # seconds; all who wait for the same share a request
        timeout=24 * 3600,
    )

    @task
    def name_it(model) -> str:
        """Return the URI of the version that was found; ``model`` is a ModelRef."""
        return model.model_uri

    name_it(champion.output)


iris_waiting()
# [END waiting]
