# SPDX-License-Identifier: Apache-2.0
"""Writes what tasks would have left in a store, without running any."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow_ml_provider.artifacts.refs import ArtifactRef, Producer
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.lineage.graph import Lineage, node_of_task, node_of_version
from airflow_ml_provider.lineage.records import TaskRecord, VersionUse, write_record
from airflow_ml_provider.tracking.ledger import AliasMove, Ledger

CHAMPION = "mlflow://flight_delay/champion"


class History:
    """A store and what happened in it."""

    def __init__(self, root: Path) -> None:
        self.store = ArtifactStore(f"file://{root}/artifacts", signing_key=b"k" * 32)

    @property
    def lineage(self) -> Lineage:
        return Lineage(self.store)

    def attempt(
        self,
        place: str,
        *,
        reads: Iterable[ArtifactRef] = (),
        handed: Iterable[ArtifactRef] = (),
        writes: Iterable[str] = (),
        reused: Iterable[ArtifactRef] = (),
        map_index: int = -1,
        try_number: int = 1,
        outcome: str = "success",
        effective_at: datetime | None = None,
        **more: Any,
    ) -> list[ArtifactRef]:
        """Let ``dag/run/task`` have read and written; return the versions that it wrote."""
        dag_id, run_id, task_id = place.split("/")
        producer = Producer(dag_id, run_id, task_id, map_index, try_number)
        made = [
            self.store.save(f"{place} {name}".encode(), name, producer=producer, effective_at=effective_at)
            for name in writes
        ]
        record = TaskRecord(
            dag_id,
            run_id,
            task_id,
            map_index,
            try_number,
            outcome,
            effective_at=effective_at,
            reads=(
                *(VersionUse.of(ref) for ref in reads),
                *(VersionUse.of(ref, loaded=False) for ref in handed),
            ),
            writes=tuple(VersionUse.of(ref) for ref in made),
            reused=tuple(VersionUse.of(ref) for ref in reused),
            **{"run": {"run_type": "scheduled", "run_after": effective_at}, **more},
        )
        write_record(self.store.objects, record)
        return made

    def move(self, version: str, model_id: str, when: datetime, alias: str = "champion") -> None:
        """Let an alias have moved."""
        Ledger(self.store.objects).record(
            AliasMove("flight_delay", alias, version, None, when, datetime.now(UTC), model_id=model_id)
        )


def model(model_id: str, role: str, version: str | None = None, name: str = "flight_delay") -> dict[str, Any]:
    """Name a model as a record does."""
    return {
        "model_uri": f"models:/{model_id}",
        "model_id": model_id,
        "registered_model_name": name if version else None,
        "version": version,
        "mlflow_run_id": f"run-of-{model_id}",
        "alias": None,
        "role": role,
    }


def month(number: int) -> datetime:
    return datetime(2013, number, 1, tzinfo=UTC)


def at(ref: ArtifactRef) -> str:
    return node_of_version(ref.name, ref.version_id)


def task(place: str, map_index: int = -1, try_number: int = 1) -> str:
    return node_of_task(*place.split("/"), map_index, try_number)


def flights(history: History, number: int, *, champion: str | None = None) -> dict[str, ArtifactRef]:
    """
    One month of the flight delay story: features, a training, an evaluation and its promotion, and the
    scoring that the promotion starts.
    """
    run, when, model_id = f"training/run{number}", month(number), f"m-{number}"
    more: dict[str, Any] = {"effective_at": when}
    features, holdout = history.attempt(f"{run}/features", writes=["features", "holdout"], **more)
    history.attempt(
        f"{run}/fit",
        reads=[features],
        models_written=(model(model_id, "trained"),),
        metrics={"train_auc": 0.8},
        params={"max_depth": number},
        mlflow_run_id=f"run-of-{model_id}",
        **more,
    )
    baseline = () if champion is None else (model(champion, "baseline", "1"),)
    evaluation = {
        "mlflow_run_id": f"eval{number}",
        "model_id": model_id,
        "model_uri": f"models:/{model_id}",
        "metrics": {"roc_auc": 0.7 + number / 100},
        "rows": 10,
    }
    history.attempt(
        f"{run}/evaluate",
        handed=[holdout],
        models_read=(*baseline, model(model_id, "evaluated")),
        evaluation=evaluation,
        metrics=evaluation["metrics"],
        mlflow_run_id=f"eval{number}",
        **more,
    )
    extra = {"registered_model_name": "flight_delay", "alias": "champion", "version": str(number)}
    history.attempt(
        f"{run}/promote",
        models_written=(model(model_id, "promoted", str(number)),),
        promotion={
            "registered_model_name": "flight_delay",
            "alias": "champion",
            "verdict": "promoted",
            "promoted": True,
            "moved": True,
            "version": str(number),
            "model_id": model_id,
            "evaluation_run_id": f"eval{number}",
            "reasons": [],
        },
        outlets=(CHAMPION,),
        emitted=({"uri": CHAMPION, "name": "flight_delay@champion", "extra": extra, "partition_keys": []},),
        **more,
    )
    history.move(str(number), model_id, when)
    (predictions,) = history.attempt(
        f"scoring/asset{number}/score",
        reads=[features],
        writes=["predictions"],
        models_read=(model(model_id, "scored", str(number)),),
        triggered_by=(
            {
                "uri": CHAMPION,
                "name": "flight_delay@champion",
                "timestamp": when.isoformat(),
                "source": {
                    "dag_id": "training",
                    "run_id": f"run{number}",
                    "task_id": "promote",
                    "map_index": -1,
                },
                "partition_key": None,
                "extra": extra,
            },
        ),
        triggered_by_total=1,
        **{**more, "run": {"run_type": "asset_triggered", "run_after": when}},
    )
    return {"features": features, "holdout": holdout, "predictions": predictions}
