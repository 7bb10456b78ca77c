# SPDX-License-Identifier: Apache-2.0
"""
DAGs whose OpenLineage events a test looks at, run by ``dag.test()`` in a process of their own.

The openlineage provider decides when it is imported whether it is on, so the test starts this as a script
with its transport in the environment.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Annotated, Any

import pandas as pd
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, Asset, AssetAlias, BaseOperator, CronDataIntervalTimetable, task
from airflow.sdk.exceptions import AirflowSkipException
from airflow.sdk.lineage import get_hook_lineage_collector
from sklearn.linear_model import LogisticRegression

from airflow_ml_provider import ArtifactAsset, ArtifactRef, MetricGate, ModelAsset, ml
from airflow_ml_provider.artifacts.refs import Artifact
from airflow_ml_provider.operators import (
    BatchPredictOperator,
    DetectDriftOperator,
    EvaluateModelOperator,
    PromoteModelOperator,
)

CHAMPION = ModelAsset("ol_flights", alias="champion")
REPORT = ArtifactAsset("ol_report")
RAW, WAREHOUSE = Asset("s3://raw/flights"), Asset("s3://warehouse/flights")
QUERIED, ALIASED = "s3://queried/flights", Asset("s3://aliased/flights")


def twice(data: pd.DataFrame) -> pd.DataFrame:
    """Double the wind."""
    return data.assign(wind=data["wind"] * 2)


class ExportOperator(BaseOperator):
    """An operator that tells OpenLineage its own data sets."""

    template_fields = ("data",)

    def __init__(self, *, data: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data = data

    def execute(self, context: Any) -> int:
        return len(self.data)

    def get_openlineage_facets_on_start(self) -> Any:
        from airflow.providers.openlineage.extractors import OperatorLineage
        from openlineage.client.event_v2 import Dataset

        return OperatorLineage(outputs=[Dataset("postgres://db:5432", "export.public.flights")])


with DAG(
    "ol_story",
    schedule=CronDataIntervalTimetable("@monthly", timezone="UTC"),
    start_date=datetime(2013, 1, 1, tzinfo=UTC),
    catchup=False,
) as story:

    @task(inlets=[RAW])
    def features() -> Annotated[pd.DataFrame, Artifact("ol_features")]:
        """Flights, a row each."""
        get_hook_lineage_collector().add_input_asset(None, uri=QUERIED)
        wind = [float(number % 7) for number in range(60)]
        return pd.DataFrame(
            {
                "wind": wind,
                "token": [f"t{number}" for number in range(60)],
                "late": [each > 3 for each in wind],
            }
        )

    @task(outlets=[REPORT, WAREHOUSE])
    def report(data: pd.DataFrame) -> pd.DataFrame:
        return data.describe().reset_index()

    @task(outlets=[AssetAlias("ol_alias")])
    def aliased(data: pd.DataFrame, *, outlet_events: Any = None) -> int:
        outlet_events[AssetAlias("ol_alias")].add(ALIASED)
        return len(data)

    @task
    def nothing() -> int:
        return 1

    @task
    def handed(data: ArtifactRef) -> str:
        return data.name

    @task
    def parts() -> list[int]:
        return [1, 2]

    @task
    def part(size: int, data: pd.DataFrame) -> Annotated[pd.DataFrame, Artifact("ol_part")]:
        return data.head(size)

    @task
    def gather(found: list[pd.DataFrame]) -> int:
        return sum(len(each) for each in found)

    @task
    def skips(data: pd.DataFrame) -> None:
        raise AirflowSkipException("not today")

    @task
    def fails(data: pd.DataFrame) -> None:
        raise ValueError(f"{len(data)} rows are not enough")

    @task.train(experiment="ol_story")
    def fit(data: pd.DataFrame) -> Any:
        """Fit what is late."""
        model = LogisticRegression().fit(data[["wind"]], data["late"])
        return model, {"train_accuracy": float(model.score(data[["wind"]], data["late"]))}

    data = features()
    model = fit(data)
    report(data)
    aliased(data)
    nothing()
    handed(data)
    skips(data)
    gather(part.partial(data=data).expand(size=parts()))
    fails(data)
    PythonOperator(task_id="doubled", python_callable=twice, op_args=[data], inlets=[RAW])
    BashOperator(task_id="counted", bash_command="echo {{ ti.xcom_pull('features') | length }}")
    data >> story.get_task("counted")
    ExportOperator(task_id="export", data=data)
    DetectDriftOperator(task_id="drift", reference=data, current=data, columns=["wind"])
    evaluation = EvaluateModelOperator(
        task_id="evaluate",
        model=model,
        data=data,
        target="late",
        baseline=CHAMPION.model_uri,
        plots=False,
        allow_leakage=["ol_features"],
    )
    promotion = PromoteModelOperator(
        task_id="promote",
        model=model,
        evaluation=evaluation.output,
        registered_model_name="ol_flights",
        gates=[MetricGate("accuracy_score", at_least=0.5)],
        outlets=[CHAMPION],
    )
    predictions = BatchPredictOperator(
        task_id="predict", model=CHAMPION, data=data, artifact=Artifact("ol_predictions")
    )
    promotion >> predictions


with DAG("ol_cache", schedule=None) as cache:

    @task
    def source() -> Annotated[pd.DataFrame, Artifact("ol_source")]:
        return pd.DataFrame({"wind": [1.0, 2.0, 3.0]})

    @ml.cached
    @task
    def cached(data: pd.DataFrame) -> Annotated[pd.DataFrame, Artifact("ol_cached")]:
        return data.head(2)

    cached(source())


def main() -> None:
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

    bag = DagBag(collect_dags=False)
    for dag in (story, cache):
        bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)
    for dag in (story, cache, cache):
        run = dag.test()
        for ti in sorted(run.get_task_instances(), key=lambda ti: (ti.task_id, ti.map_index)):
            # In one write: what OpenLineage sends from processes of its own is logged in between.
            os.write(1, f"{ti.dag_id}.{ti.task_id} {ti.map_index}: {ti.state}\n".encode())


if __name__ == "__main__":
    main()
