# SPDX-License-Identifier: Apache-2.0
"""
### Has the data moved?

Compares today's flowers with those that the model learned from. Only if they drifted is there an event of the
asset `iris_drift`, and so a run of whatever DAG retrains. Run it by hand; `shift` makes the flowers grow.
"""

# [START drift]
from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from airflow.sdk import Asset, Param, dag, task

from airflow_ml_provider import Artifact
from airflow_ml_provider.operators import DetectDriftOperator

if TYPE_CHECKING:
    import pandas as pd

DRIFT = Asset("iris_drift")  # a DAG that retrains has schedule=[DRIFT]


@dag(
    schedule=None,
    params={"shift": Param(0.0, type="number", title="Centimetres that the petals grew")},
    description="Looks for drift in the flowers",
    doc_md=__doc__,
    tags=["ml"],
)
def iris_drift():
    @task
    def known_flowers() -> Annotated[pd.DataFrame, Artifact("iris_known")]:
        """Return what the model learned from."""
        from sklearn.datasets import load_iris

        return load_iris(as_frame=True).data

    @task
    def todays_flowers(params=None) -> Annotated[pd.DataFrame, Artifact("iris_today")]:
        """Return other flowers of the same kinds, and perhaps larger ones."""
        from sklearn.datasets import load_iris

        flowers = load_iris(as_frame=True).data.sample(120, random_state=1)
        flowers["petal length (cm)"] += params["shift"]
        return flowers

    DetectDriftOperator(
        task_id="compare",
        reference=known_flowers(),  # or reference="iris_known", reference_as_of="2026-01-01"
        current=todays_flowers(),
        min_effect=0.2,
        outlets=[DRIFT],
    )


iris_drift()
# [END drift]
