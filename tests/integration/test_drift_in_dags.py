# SPDX-License-Identifier: Apache-2.0
"""The drift example under a real Airflow: its report is an artifact, its event comes with drift only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

DAGS = Path(__file__).resolve().parents[2] / "dags"


def events_of(name: str) -> list[dict[str, Any]]:
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = session.scalars(
            select(AssetEvent)
            .join(AssetModel, AssetModel.id == AssetEvent.asset_id)
            .where(AssetModel.name == name)
        )
        return [dict(event.extra) for event in found]


@pytest.fixture
def drift(airflow_db: Path, artifact_root: Path) -> Any:
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

    bag = DagBag(dag_folder=DAGS / "iris_drift.py", bundle_path=DAGS, load_op_links=False)
    sync_bag_to_db(bag, "dags-folder", None)
    return bag.dags["iris_drift"]


def test_drift_and_nothing_else_raises_the_event_that_retrains(drift, xcom_table):
    before = events_of("iris_drift")
    calm = drift.test(run_conf={"shift": 0.0})
    assert calm.state == "success"
    assert xcom_table(calm, "compare")["drifted"] is False
    assert events_of("iris_drift") == before

    moved = drift.test(run_conf={"shift": 2.0})
    assert moved.state == "success"
    result = xcom_table(moved, "compare")
    assert (result["drifted"], result["columns"]) == (True, ["petal length (cm)"])
    [event] = events_of("iris_drift")[len(before) :]
    assert event["columns"] == ["petal length (cm)"]
    assert event["current"].startswith("ml-artifact://iris_today?version=")
    report = xcom_table(moved, "compare", key="report")
    assert report["type"] == "pandas.DataFrame"
