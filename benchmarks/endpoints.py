# SPDX-License-Identifier: Apache-2.0
"""
How long the endpoints behind the ML pages take, with 10,000 versions of one artifact and 1,000 DAG runs.

``python -m benchmarks.endpoints`` writes what such runs would have left (manifests, records, the ledger, rows
of Airflow's database) into a folder and into a SeaweedFS bucket, and asks each endpoint through Airflow's own
authentication, in this process: what a browser adds is the network.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks.harness import ROOT, between_marks

PAGE = ROOT / "docs" / "performance.md"
DAG, ARTIFACT, MODEL = "training", "features", "late"
START = datetime(2013, 1, 1, tzinfo=UTC)
LIMIT = 0.2  # seconds
_BUCKET_CONN = "BENCHMARK_BUCKET"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.endpoints", description=__doc__)
    parser.add_argument("--versions", type=int, default=10_000, help="of one artifact")
    parser.add_argument("--runs", type=int, default=1_000, help="of one DAG, four tasks each")
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--only", choices=("local", "s3"), help="by default both")
    parser.add_argument("--json", type=Path, help="write the result there")
    parser.add_argument("--write-docs", action="store_true", help="write the table of docs/performance.md")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    with tempfile.TemporaryDirectory(prefix="ml-endpoints-") as folder:
        prepare(Path(folder))
        client = _client()
        dag_runs(options.runs)
        result: dict[str, Any] = {"versions": options.versions, "runs": options.runs, "seconds": {}}
        for place in ("local", "s3"):
            if options.only in (None, place):
                with _store(place, Path(folder)) as store:
                    began = time.monotonic()
                    newest = fill(store, options.versions, options.runs)
                    _say(f"{place}: data written in {time.monotonic() - began:.0f} s")
                    result["seconds"][place] = ask(client, options, newest)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))
    if options.write_docs:
        page = between_marks(PAGE.read_text(encoding="utf-8"), "endpoints", table(result))
        PAGE.write_text(page, encoding="utf-8")
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def prepare(folder: Path) -> None:
    """Make a database of Airflow in a folder. Airflow must not be imported before."""
    for name in [name for name in os.environ if name.startswith(("AIRFLOW", "MLFLOW_", "AWS_"))]:
        del os.environ[name]
    (folder / "dags").mkdir()
    os.environ.update(
        {
            "AIRFLOW_HOME": str(folder),
            "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__FERNET_KEY": "",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder}/airflow.db",
            "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(64),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
            "AIRFLOW__ML_PROVIDER__SIGNING_KEY": secrets.token_hex(32),
        }
    )
    from airflow import sdk
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.utils import db

    db.initdb()
    DagBundlesManager().sync_bundles_to_db()
    bag = DagBag(collect_dags=False)
    bag.bag_dag(sdk.DAG(DAG, schedule=None))
    sync_bag_to_db(bag, "dags-folder", None)


def _client() -> Any:
    from airflow.api_fastapi.app import create_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    from airflow_ml_provider.plugins.ml_plugin import MLPlugin

    app = FastAPI()
    for entry in MLPlugin.fastapi_apps:
        app.mount(entry["url_prefix"], entry["app"])
    token = create_auth_manager().generate_jwt(SimpleAuthManagerUser(username="viewer", role="VIEWER"))
    client = TestClient(app, base_url="http://testserver/ml-provider/api/v1/")
    client.headers["Authorization"] = f"Bearer {token}"
    return client


@contextlib.contextmanager
def _store(place: str, folder: Path) -> Iterator[Any]:
    from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook
    from airflow_ml_provider.settings import load_settings

    with contextlib.ExitStack() as stack:
        if place == "local":
            os.environ["AIRFLOW__ML_PROVIDER__ARTIFACT_ROOT"] = f"file://{folder}/artifacts"
            flush = os.fsync
            stack.callback(setattr, os, "fsync", flush)
            os.fsync = lambda _: None  # only what is read is measured
        else:
            from benchmarks import bucket

            running = stack.enter_context(bucket.running(folder / "bucket"))
            os.environ["AIRFLOW__ML_PROVIDER__ARTIFACT_ROOT"] = f"s3://{running.name}/artifacts"
            os.environ["AIRFLOW__ML_PROVIDER__ARTIFACT_CONN_ID"] = _BUCKET_CONN.lower()
            os.environ[f"AIRFLOW_CONN_{_BUCKET_CONN}"] = json.dumps(
                {
                    "conn_type": "aws",
                    "login": running.access_key_id,
                    "password": running.secret_access_key,
                    "extra": {"endpoint_url": running.endpoint_url, "region_name": "us-east-1"},
                }
            )
        load_settings.cache_clear()
        yield ArtifactStoreHook().store
        load_settings.cache_clear()


def run_id(number: int) -> str:
    return f"scheduled__{(START + timedelta(days=number)).isoformat()}"


def dag_runs(count: int) -> None:
    """Put the runs into Airflow's database."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import insert

    rows = [
        {
            "dag_id": DAG,
            "run_id": run_id(number),
            "run_type": "scheduled",
            "run_after": START + timedelta(days=number),
            "logical_date": START + timedelta(days=number),
            "state": "success",
        }
        for number in range(count)
    ]
    with create_session() as session:
        session.execute(insert(DagRun.__table__), rows)


def fill(store: Any, versions: int, runs: int) -> Any:
    """Write what the versions and runs would have left; gives the newest version."""
    with ThreadPoolExecutor(16) as pool:
        refs = list(pool.map(lambda number: _version(store, number), range(versions)))
        for _ in pool.map(lambda number: _run(store, number, refs[number % versions]), range(runs)):
            pass
    return refs[-1]


def _version(store: Any, number: int) -> Any:
    """Write a manifest. Its content is not there, as no endpoint looks at it."""
    from airflow_ml_provider.artifacts import keys
    from airflow_ml_provider.artifacts.envelope import to_envelope
    from airflow_ml_provider.artifacts.refs import ArtifactRef, Producer

    when = START + timedelta(hours=number)
    columns = [{"name": f"column_{index}", "type": "double", "nulls": 0} for index in range(20)]
    ref = ArtifactRef(
        name=ARTIFACT,
        version_id=keys.new_version_id(when, when),
        digest=f"blake3:{number % (10**6):064x}",
        format="parquet-v1",
        type="pandas.DataFrame",
        size_bytes=1_000_000 + number,
        producer=Producer(DAG, run_id(number), "features"),
        recorded_at=when,
        effective_at=when,
        schema={"columns": columns, "rows": 27_000},
        preview=[{f"column_{index}": index * 1.5 for index in range(20)} for _ in range(5)],
    )
    store.objects.put_json(keys.version_key(ARTIFACT, ref.version_id), to_envelope(ref, store.signer))
    return ref


def _run(store: Any, number: int, features: Any) -> None:
    from airflow_ml_provider.lineage.records import TaskRecord, VersionUse, write_record
    from airflow_ml_provider.tracking.ledger import AliasMove, Ledger

    when = START + timedelta(days=number)
    model = {
        "model_uri": f"models:/m-{number}",
        "model_id": f"m-{number}",
        "registered_model_name": MODEL,
        "version": str(number + 1),
        "mlflow_run_id": f"run-{number}",
    }
    evaluation = {
        **model,
        "metrics": {"roc_auc": 0.7, "log_loss": 0.5, "accuracy_score": 0.8},
        "baseline_metrics": {"roc_auc": 0.69},
        "rows": 900,
        "effective_at": when.isoformat(),
        "mlflow_run_id": f"evaluation-{number}",
    }
    promoted = number % 10 == 0
    decision = {
        **{name: model[name] for name in ("registered_model_name", "model_id", "model_uri")},
        "alias": "champion",
        "verdict": "promoted" if promoted else "rejected",
        "promoted": promoted,
        "moved": promoted,
        "version": model["version"],
        "reasons": ["roc_auc 0.7 does not exceed the baseline's 0.69 by at least 0.02"],
        "gates": [{"metric": "roc_auc", "passed": promoted}],
        "metrics": evaluation["metrics"],
        "evaluation_run_id": f"evaluation-{number}",
    }

    def record(task_id: str, minute: int, **further: Any) -> None:
        write_record(
            store.objects,
            TaskRecord(
                DAG,
                run_id(number),
                task_id,
                -1,
                1,
                "success",
                started_at=when + timedelta(minutes=minute),
                recorded_at=when + timedelta(minutes=minute + 1),
                effective_at=when,
                data_interval=(when - timedelta(days=1), when),
                run={
                    "run_type": "scheduled",
                    "run_after": when.isoformat(),
                    "logical_date": when.isoformat(),
                },
                code={"function": task_id, "git.commit": f"{number:040x}"},
                environment={"python": "3.11.9", "packages": {"pandas": "3.0.0", "scikit-learn": "1.7.0"}},
                **further,
            ),
        )

    use = VersionUse.of(features)
    record("features", 0, writes=(use,))
    record(
        "fit",
        2,
        reads=(use,),
        models_written=({**model, "role": "trained"},),
        params={"max_depth": number % 9, "learning_rate": 0.1},
        metrics={"train_auc": 0.8},
        mlflow_run_id=f"run-{number}",
        experiment_id="1",
    )
    judged = ({**model, "role": "evaluated"},)
    record("evaluate", 4, reads=(use,), models_read=judged, evaluation=evaluation, metrics={"roc_auc": 0.7})
    record("promote", 6, models_written=({**model, "role": "promoted"},), promotion=decision)
    if promoted:
        actor = {"dag_id": DAG, "run_id": run_id(number), "task_id": "promote", "map_index": -1}
        move = AliasMove(
            MODEL, "champion", model["version"], None, when, when, actor=actor, model_id=model["model_id"]
        )
        Ledger(store.objects).record(move)


def questions(options: argparse.Namespace, newest: Any) -> dict[str, str]:
    """What each page asks first, and pages deep in a list."""
    last = f"dags/{DAG}/runs/{quote(run_id(options.runs - 1))}"
    version = f"name={ARTIFACT}&version_id={newest.version_id}"
    return {
        "task instance": f"{last}/tasks/fit",
        "task instance, graph": f"{last}/tasks/fit/graph",
        "DAG run": last,
        "DAG run, graph": f"{last}/graph",
        "DAG run, comparison": f"{last}/comparison",
        "DAG, metrics of 50 runs": f"dags/{DAG}/metrics",
        "DAG, metrics of 100 runs": f"dags/{DAG}/metrics?limit=100",
        "DAG, 80 evaluations": f"dags/{DAG}/evaluations",
        "models": "models",
        "model": f"models/{MODEL}",
        "model, 25 versions": f"models/{MODEL}/versions",
        "model, timeline": f"models/{MODEL}/timeline",
        "model, 80 evaluations": f"models/{MODEL}/evaluations",
        "model, two versions compared": f"models/{MODEL}/diff?from=1&to={options.runs}",
        "artifacts": "artifacts",
        "artifact, 50 versions": f"artifacts/versions?name={ARTIFACT}",
        "artifact, 100 versions": f"artifacts/versions?name={ARTIFACT}&limit=100",
        "artifact, one version": f"artifacts/version?{version}",
        "artifact, growth": f"artifacts/growth?name={ARTIFACT}",
        "lineage of the champion": f"lineage?node=models:/{MODEL}@champion",
        "lineage search": "lineage/search?q=feat",
        "blast radius of a version": f"lineage/blast?node={quote(_node(newest))}",
        "run comparison, 50 runs": f"runs?dag_id={DAG}",
        "run comparison, 100 runs": f"runs?dag_id={DAG}&limit=100",
    }


def _node(ref: Any) -> str:
    from airflow_ml_provider.lineage.graph import node_of_version

    return node_of_version(ref.name, ref.version_id)


def ask(client: Any, options: argparse.Namespace, newest: Any) -> dict[str, dict[str, float]]:
    """Ask each question: once for warmth, then several times."""
    found = {}
    for name, path in questions(options, newest).items():
        times, worked = [], []
        for _ in range(options.repetitions + 1):
            began, cpu = time.perf_counter(), time.process_time()
            answer = client.get(path)
            times.append(time.perf_counter() - began)
            worked.append(time.process_time() - cpu)
            if answer.status_code != 200:
                raise RuntimeError(f"{path}: {answer.status_code} {answer.text[:300]}")
        first, rest = times[0], sorted(times[1:])
        found[name] = {
            "first": round(first, 4),
            "median": round(statistics.median(rest), 4),
            "slowest": round(rest[-1], 4),
            "cpu": round(statistics.median(worked[1:]), 4),
            "kilobytes": round(len(answer.content) / 1000, 1),
        }
        _say(f"  {name:<32}{found[name]['median'] * 1000:8.0f} ms")
    return found


def table(result: dict[str, Any]) -> str:
    """Show the result as a Markdown table, in milliseconds."""
    places = list(result["seconds"])
    names = list(result["seconds"][places[0]])
    head = " | ".join(f"{place}: first | median | of it processor" for place in places)
    lines = [f"| endpoint | kB | {head} |", "|---|---:|" + "---:|---:|---:|" * len(places)]
    for name in names:
        rows = [result["seconds"][place][name] for place in places]
        cells = " | ".join(f"{_ms(row['first'])} | {_ms(row['median'])} | {_ms(row['cpu'])}" for row in rows)
        lines.append(f"| {name} | {rows[0]['kilobytes']:.0f} | {cells} |")
    return "\n".join(lines)


def _ms(seconds: float) -> str:
    shown = f"{seconds * 1000:.0f}"
    return f"**{shown}**" if seconds > LIMIT else shown


if __name__ == "__main__":
    sys.exit(main())
