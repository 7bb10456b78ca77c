# SPDX-License-Identifier: Apache-2.0
"""
What two DAGs left: one that trains and promotes month by month, and one that only some users may see.

Written by the same functions as tasks write with. Every name of the second DAG contains the word "secret".
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_ml_provider.artifacts.refs import Producer
from airflow_ml_provider.lineage.records import TaskRecord, VersionUse, write_record
from airflow_ml_provider.tracking.ledger import AliasMove, Ledger

OPEN, SECRET = "open_dag", "secret_dag"
START = datetime(2013, 2, 1, tzinfo=UTC)
RUNS = 3
MODEL = "late"


def run_id(number: int) -> str:
    return f"scheduled__{(START + timedelta(days=number)).isoformat()}"


class World:
    def __init__(self, store: Any) -> None:
        self.store = store
        self.versions: dict[tuple[str, int], Any] = {}
        secret = self.save(SECRET, 0, "secret_data", {"secret_column": 1})
        self.record(SECRET, 0, "secret_task", writes=[secret])
        for number in range(RUNS):
            self.run_of_open_dag(number, secret if number == 0 else None)
        self.record(SECRET, 1, "secret_reader", reads=[self.versions["features", 0]])
        self.model(SECRET, 1, "secret_model", 1)
        self.model(OPEN, 0, "nameless", 1)
        self.move("secret_model", 1, None, 1, SECRET)
        self.move(MODEL, 9, 1, 5, SECRET, alias="secret_alias")

    def save(self, dag_id: str, number: int, name: str, value: Any, task_id: str | None = None) -> Any:
        producer = Producer(dag_id, run_id(number), task_id or f"make_{name}")
        ref = self.store.save(
            value,
            name,
            producer=producer,
            effective_at=START + timedelta(days=number),
            format="json-v1",
            mask=("password",),
        )
        self.versions[name, number] = ref
        return ref

    def run_of_open_dag(self, number: int, secret: Any) -> None:
        features = self.save(
            OPEN, number, "features", {"rows": 10 if number else 5, "password": "x"}, "make_features"
        )
        self.record(
            OPEN,
            number,
            "make_features",
            writes=[features],
            reads=[secret] if secret else [],
            cached={"hit": False, "key": "k", "why": "the first time"},
        )
        known = [features, secret] if secret else [features]
        self.model(OPEN, number, MODEL, number + 1, reads=known)
        evaluation = {
            "model_uri": f"models:/m-{MODEL}-{number + 1}",
            "model_id": f"m-{MODEL}-{number + 1}",
            "registered_model_name": None,
            "version": None,
            "baseline_uri": f"models:/{MODEL}@champion",
            "baseline_version": "1" if number else None,
            "metrics": {"roc_auc": 0.7 + number / 100, "log_loss": float("nan")},
            "baseline_metrics": {"roc_auc": 0.7} if number else None,
            "rows": 100,
            "effective_at": (START + timedelta(days=number)).isoformat(),
            "mlflow_run_id": f"evaluation-{number}",
            "experiment_id": "1",
        }
        self.record(
            OPEN,
            number,
            "evaluate",
            reads=[features],
            models_read=[{"model_id": evaluation["model_id"], "role": "evaluated"}],
            evaluation=evaluation,
            metrics=evaluation["metrics"],
        )
        promoted = number != 1
        self.record(
            OPEN,
            number,
            "promote",
            promotion={
                "registered_model_name": MODEL,
                "alias": "champion",
                "verdict": "promoted" if promoted else "rejected",
                "promoted": promoted,
                "moved": promoted,
                "model_uri": f"models:/{MODEL}/{number + 1}",
                "model_id": f"m-{MODEL}-{number + 1}",
                "version": str(number + 1) if promoted else None,
                "previous_version": None,
                "reasons": ["roc_auc is high" if promoted else "roc_auc does not exceed the baseline's"],
                "gates": [{"metric": "roc_auc", "passed": promoted}],
                "metrics": {"roc_auc": 0.7},
                "evaluation_run_id": f"evaluation-{number}",
                "effective_at": (START + timedelta(days=number)).isoformat(),
            },
        )
        if promoted:
            self.move(MODEL, number + 1, number or None, number, OPEN)

    def model(self, dag_id: str, number: int, name: str, version: int, reads: Any = ()) -> None:
        made = {
            "model_uri": f"models:/{name}/{version}",
            "model_id": f"m-{name}-{version}",
            "registered_model_name": name,
            "version": str(version),
            "mlflow_run_id": f"run-{name}-{version}",
        }
        self.record(
            dag_id,
            number,
            "secret_fit" if dag_id == SECRET else "fit" if name == MODEL else f"fit_{name}",
            reads=reads,
            models_written=[{**made, "registered_model_name": None, "version": None, "role": "trained"}],
            params={"max_depth": 3 + number},
            metrics={"train_auc": 0.5 + number / 8},
            mlflow_run_id=made["mlflow_run_id"],
            experiment_id="1",
        )
        register = (
            "secret_register" if dag_id == SECRET else "register" if name == MODEL else f"register_{name}"
        )
        self.record(dag_id, number, register, models_written=[{**made, "role": "registered"}])

    def move(
        self, name: str, version: int, before: int | None, number: int, dag_id: str, alias: str = "champion"
    ) -> None:
        when = START + timedelta(days=number)
        move = AliasMove(
            name,
            alias,
            str(version),
            None if before is None else str(before),
            when,
            when,
            reasons=["roc_auc is high" if dag_id == OPEN else "a secret reason"],
            actor={
                "dag_id": dag_id,
                "run_id": run_id(number),
                "task_id": "promote" if dag_id == OPEN else "secret_promote",
                "map_index": -1,
                "try_number": 1,
            },
            model_id=f"m-{name}-{version}",
            metrics={"roc_auc": 0.7},
            sequence=number,
        )
        assert Ledger(self.store.objects).record(move)

    def record(
        self, dag_id: str, number: int, task_id: str, reads: Any = (), writes: Any = (), **further: Any
    ) -> None:
        when = START + timedelta(days=number)
        for name in ("models_written", "models_read"):
            further[name] = tuple(further.get(name, ()))
        write_record(
            self.store.objects,
            TaskRecord(
                dag_id,
                run_id(number),
                task_id,
                -1,
                1,
                "success",
                started_at=when,
                effective_at=when,
                run={"run_type": "scheduled", "run_after": when.isoformat()},
                reads=tuple(VersionUse.of(ref) for ref in reads),
                writes=tuple(VersionUse.of(ref) for ref in writes),
                recorded_at=when,
                code={"operator": "f", "git.commit": f"c{number}"},
                environment={"python": "3.11", "packages": {"sklearn": f"1.{number}"}},
                **further,
            ),
        )
