# SPDX-License-Identifier: Apache-2.0
"""
### Score the coming week's flights when the champion moved

Runs whenever `flight_delay_training` promotes a model: the promotion is an event of the asset
`flight_delay@champion`. The event says from when on the new champion counts (`effective_at`), and this DAG
scores the flights of the seven days from there. All of them: before departure nobody knows which flights will
be cancelled.

The result is the artifact `flight_predictions`: one row a flight, with the probability that it arrives more
than 15 minutes late. It is an asset too, for DAGs that go on from there. What to expect of the week is noted
in MLflow, in the experiment `flight_delay_scoring`.

To run it by hand, give the first day of the week as `week_from`, for example `2013-09-01`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

from airflow.sdk import Param, dag, task

from airflow_ml_provider import Artifact, ArtifactAsset, ModelAsset, ml
from airflow_ml_provider.assets.events import event_extra
from airflow_ml_provider.operators import BatchPredictOperator

if TYPE_CHECKING:
    import pandas as pd

# [START scoring]
CHAMPION = ModelAsset("flight_delay", alias="champion")
PREDICTIONS = ArtifactAsset("flight_predictions")


@dag(
    schedule=[CHAMPION],  # runs because the champion moved
    params={"week_from": Param(None, type=["null", "string"], format="date", title="First day of the week")},
    description="Scores the week after the champion moved",
    doc_md=__doc__,
    tags=["flights", "ml", "scoring"],
)
def flight_delay_scoring():
    @task
    def coming_week(
        params=None, triggering_asset_events=None
    ) -> Annotated[pd.DataFrame, Artifact("flight_week")]:
        """Return the flights of the seven days from which on the new champion counts."""
        from flights.features import build_features

        start = first_day(params["week_from"], triggering_asset_events.get(CHAMPION, ()))
        return build_features(start, start + timedelta(days=7), with_target=False)

    predictions = BatchPredictOperator(
        task_id="predict",
        model=CHAMPION,  # the version in the event that started this run
        data=coming_week(),
        method="predict_proba",
        output_column="late_probability",
        keep_columns=["scheduled_at", "carrier", "flight_number", "origin", "dest"],
        artifact=Artifact("flight_predictions"),
        outlets=[PREDICTIONS],
    )

    # [END scoring]
    # [START tracked]
    @ml.tracked(experiment="flight_delay_scoring")
    @task
    def outlook(predictions: pd.DataFrame) -> dict[str, float]:
        """Note in MLflow what to expect of the week."""
        import mlflow

        late = predictions["late_probability"]
        expected = {"flights": len(late), "expected_late": float(late.sum())}
        mlflow.log_metrics(expected)
        return expected

    outlook(predictions.output)
    # [END tracked]


def first_day(asked: str | None, events) -> datetime:
    """Return where the week begins: as asked, else from when on the latest triggering champion counts."""
    if asked:
        return datetime.fromisoformat(f"{asked}T00:00:00+00:00")
    if not events:
        raise ValueError("this run was started by hand: give the first day as week_from, e.g. 2013-09-01")
    latest = max(events, key=lambda event: event.timestamp)
    return datetime.fromisoformat(event_extra(latest)["effective_at"])


flight_delay_scoring()
