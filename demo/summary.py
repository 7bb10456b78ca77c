# SPDX-License-Identifier: Apache-2.0
"""What came of the demo: asked of Airflow, MLflow and the artifact store, never remembered."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from airflow_ml_provider.settings import derive_key
from demo.errors import ApiError, DemoError

if TYPE_CHECKING:
    from demo.airflow_api import AirflowApi, Json
    from demo.cluster import LocalCluster
    from demo.output import Output

SHOWN_METRICS = ("roc_auc", "log_loss", "accuracy_score")


@dataclass(frozen=True)
class Decision:
    """What a training run decided about its model."""

    month: str
    """The data interval's month, ``YYYY-MM``."""
    run_id: str
    promoted: bool
    version: str | None
    previous_version: str | None
    effective_at: str | None
    reasons: list[str]
    """What each condition of each gate said."""
    why: list[str]
    """The reasons that made the difference: of a rejection, those that failed."""
    metrics: dict[str, float]
    baseline_metrics: dict[str, float] | None
    rows: int | None
    by_hand: bool = False
    reused: tuple[str, ...] = ()
    """The tasks whose results were there already."""


@dataclass(frozen=True)
class DailyEvaluation:
    """The champion of a day, judged on that day's flights."""

    date: str
    model_version: str | None
    metrics: dict[str, float]
    rows: int | None
    mlflow_run_id: str | None


@dataclass(frozen=True)
class Champion:
    name: str
    version: str
    metrics: dict[str, float]
    previous_version: str | None
    previous_metrics: dict[str, float] | None
    """Those of the champion before it, on the same rows."""


@dataclass(frozen=True)
class Summary:
    training_runs: int
    champion: Champion
    promotions: int
    rejections: int
    scoring_runs_triggered_by_asset: int
    evaluations: list[DailyEvaluation]
    artifacts: int
    """Artifact versions, each of them one stored value."""
    artifact_names: int
    bytes_logical: int
    bytes_stored: int
    wall_seconds: float
    decisions: list[Decision]
    seconds: dict[str, float]
    """When each stage was over, since the demo began."""
    airflow: str
    mlflow: str
    folder: str

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")


def month_of(run: Json) -> str:
    """Return the month of a run's data, ``YYYY-MM``."""
    return str(run["data_interval_start"] or run["logical_date"] or run["run_after"])[:7]


def is_decision(value: Any) -> bool:
    return isinstance(value, Mapping) and {"promoted", "reasons"} <= value.keys()


def is_evaluation(value: Any) -> bool:
    return isinstance(value, Mapping) and {"model_uri", "metrics", "rows"} <= value.keys()


def decision_of(airflow: AirflowApi, run: Json) -> Decision | None:
    """Read what a training run decided from its XComs; None if it promoted nothing and rejected nothing."""
    values = list(airflow.xcoms(run["dag_id"], run["dag_run_id"]).values())
    found = next((value for value in values if is_decision(value)), None)
    if found is None:
        return None
    evaluation: Mapping[str, Any] = next((value for value in values if is_evaluation(value)), {})
    cached = airflow.xcoms(run["dag_id"], run["dag_run_id"], "cache")
    return Decision(
        month=month_of(run),
        run_id=run["dag_run_id"],
        promoted=bool(found["promoted"]),
        version=found.get("version"),
        previous_version=found.get("previous_version"),
        effective_at=found.get("effective_at") or run["data_interval_end"],
        reasons=list(found["reasons"]),
        why=deciding_reasons(found),
        metrics=dict(evaluation.get("metrics") or {}),
        baseline_metrics=evaluation.get("baseline_metrics"),
        rows=evaluation.get("rows"),
        by_hand=run["run_type"] == "manual",
        reused=tuple(sorted(task for task, value in cached.items() if value["hit"])),
    )


def deciding_reasons(decision: Mapping[str, Any]) -> list[str]:
    """Return the reasons of the conditions that failed, or all if none did."""
    failed = [gate["reason"] for gate in decision.get("gates") or () if not gate["passed"]]
    return failed or list(decision["reasons"])


def evaluation_of(airflow: AirflowApi, run: Json) -> DailyEvaluation:
    """Read a daily evaluation from its run's XComs. Raises DemoError if there is none."""
    values = airflow.xcoms(run["dag_id"], run["dag_run_id"]).values()
    found = next((value for value in values if is_evaluation(value)), None)
    if found is None:
        raise DemoError(
            f"{run['dag_id']} run {run['dag_run_id']} succeeded, but left no evaluation in its XComs"
        )
    return DailyEvaluation(
        date=str(run["data_interval_start"])[:10],
        model_version=found.get("version"),
        metrics=dict(found["metrics"]),
        rows=found.get("rows"),
        mlflow_run_id=found.get("mlflow_run_id"),
    )


def short(metrics: Mapping[str, float] | None) -> str:
    """Write the metrics a reader looks at first."""
    if not metrics:
        return "-"
    names = [name for name in SHOWN_METRICS if name in metrics] or sorted(metrics)[:3]
    return "  ".join(f"{name} {metrics[name]:.4f}" for name in names)


def alias_version(mlflow_url: str, name: str, alias: str) -> str:
    """Ask MLflow which version an alias points at."""
    answer = httpx.get(
        f"{mlflow_url}/api/2.0/mlflow/registered-models/alias",
        params={"name": name, "alias": alias},
        trust_env=False,
        timeout=30,
    )
    if answer.is_error:
        raise ApiError(
            f"MLflow knows no {name!r} with alias {alias!r}: {answer.status_code} {answer.text[:300]}"
        )
    return str(answer.json()["model_version"]["version"])


def champion_of(cluster: LocalCluster, events: Iterable[Json], decisions: Sequence[Decision]) -> Champion:
    """Take the name from the asset events, the version from MLflow, the metrics from its evaluation."""
    extras = [event["extra"] for event in events if (event.get("extra") or {}).get("registered_model_name")]
    if not extras:
        raise DemoError("no promotion told Airflow about a champion: there is no asset event of a model")
    name, alias = extras[-1]["registered_model_name"], extras[-1]["alias"]
    version = alias_version(cluster.mlflow_url, name, alias)
    chosen = next((d for d in decisions if d.promoted and d.version == version), None)
    if chosen is None:
        raise DemoError(f"MLflow's {name}@{alias} is version {version}, which no training run promoted")
    return Champion(name, version, chosen.metrics, chosen.previous_version, chosen.baseline_metrics)


def collect(
    cluster: LocalCluster,
    *,
    training: str,
    scoring: str,
    evaluation: str,
    wall_seconds: float,
    seconds: Mapping[str, float],
) -> Summary:
    """
    Ask the running cluster what happened.

    :param training: DAG id of the trainings; ``scoring`` and ``evaluation`` likewise.
    """
    from airflow_ml_provider.artifacts.store import ArtifactStore

    airflow = cluster.airflow
    trainings = airflow.dag_runs(training, state="success")
    decisions = [found for run in trainings if (found := decision_of(airflow, run))]
    events = airflow.asset_events(source_dag_id=training, order_by="timestamp")
    store = ArtifactStore(cluster.artifacts.as_uri(), signing_key=derive_key(cluster.fernet_key.encode()))
    usage = store.usage()
    backfilled = airflow.dag_runs(evaluation, state="success", run_type="backfill")
    return Summary(
        training_runs=len(trainings),
        champion=champion_of(cluster, events, decisions),
        promotions=sum(d.promoted for d in decisions),
        rejections=sum(not d.promoted for d in decisions),
        scoring_runs_triggered_by_asset=len(
            airflow.dag_runs(scoring, state="success", run_type="asset_triggered")
        ),
        evaluations=sorted((evaluation_of(airflow, run) for run in backfilled), key=lambda row: row.date),
        artifacts=usage.versions,
        artifact_names=usage.names,
        bytes_logical=usage.bytes_logical,
        bytes_stored=usage.bytes_stored,
        wall_seconds=round(wall_seconds, 1),
        decisions=decisions,
        seconds={name: round(value, 1) for name, value in seconds.items()},
        airflow=cluster.airflow_url,
        mlflow=cluster.mlflow_url,
        folder=str(cluster.folder),
    )


def show(summary: Summary, output: Output) -> None:
    """Print what a reader wants to know, in one screen."""
    champion = summary.champion
    output.table(
        f"Champion: {champion.name} version {champion.version}",
        ("model", "metrics on the month that decided"),
        [
            (f"version {champion.version}", short(champion.metrics)),
            (
                f"version {champion.previous_version} before it"
                if champion.previous_version
                else "none before it",
                short(champion.previous_metrics),
            ),
        ],
    )
    output.table(
        f"Trainings: {summary.training_runs} runs, {summary.promotions} promotions, "
        f"{summary.rejections} rejections",
        ("month", "decision", "why"),
        [
            (
                f"{d.month} by hand" if d.by_hand else d.month,
                f"version {d.version} promoted" if d.promoted else "rejected",
                "; ".join(d.why),
            )
            for d in summary.decisions
        ],
    )
    output.table(
        f"Daily evaluations, backfilled: {len(summary.evaluations)} days",
        ("day", "#model version", "#flights", "metrics"),
        [
            (
                row.date,
                str(row.model_version),
                f"{row.rows:,}" if row.rows is not None else "-",
                short(row.metrics),
            )
            for row in summary.evaluations
        ],
    )
    output.table(
        "In all",
        ("what", "#how many"),
        [
            ("scoring runs that a new champion triggered", str(summary.scoring_runs_triggered_by_asset)),
            ("results reused, not computed again", str(sum(len(d.reused) for d in summary.decisions))),
            ("artifact versions stored", f"{summary.artifacts:,} under {summary.artifact_names:,} names"),
            ("bytes written by tasks", megabytes(summary.bytes_logical)),
            ("bytes stored, identical content once", megabytes(summary.bytes_stored)),
            ("seconds", f"{summary.wall_seconds:.0f}"),
        ],
    )


def megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def interval_start(run: Json) -> datetime:
    return datetime.fromisoformat(run["data_interval_start"])
