# SPDX-License-Identifier: Apache-2.0
"""What DAGs leave behind for lineage, run by ``dag.test()``, and Airflow's own commands on what it finds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import pytest
from airflow.sdk import DAG, Asset, BaseOperator, task
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_ml_provider import Artifact, ArtifactRef, ModelRef, ml
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook
from airflow_ml_provider.lineage import records
from airflow_ml_provider.lineage.blast import blast_radius
from airflow_ml_provider.lineage.graph import Lineage, node_of_task, node_of_version
from airflow_ml_provider.settings import load_settings
from airflow_ml_provider.xcom import state as states

FRAME = pd.DataFrame({"n": range(3)})
PROJECT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _root(artifact_root: Path) -> None:
    """Keep what a test stores to itself."""


def store() -> ArtifactStore:
    return ArtifactStoreHook().store


def record(run: Any, task_id: str, map_index: int = -1) -> dict[str, Any]:
    return records.read_record(store().objects, run.dag_id, run.run_id, task_id, map_index, 1)


def read_by(found: dict[str, Any]) -> list[tuple[str, bool]]:
    return sorted((use["name"], use["loaded"]) for use in found["reads"])


def test_every_way_to_read_and_write_is_in_the_graph(run_dag: Callable[..., Any]) -> None:
    store().save(b"by hand", "library")
    with DAG("lineage_source", schedule=None) as source:

        @task
        def produce() -> Annotated[pd.DataFrame, Artifact("shared")]:
            return FRAME

        produce()
    first = run_dag(source)

    raw = Asset(name="raw", uri="s3://lake/raw")
    out = Asset(name="out", uri="s3://lake/out")
    with DAG("lineage_ways", schedule=None) as dag:

        @task(inlets=[raw], outlets=[out])
        def frames() -> list[pd.DataFrame]:
            return [FRAME, FRAME + 1]

        @task
        def one() -> pd.DataFrame:
            return FRAME

        @task
        def mapped(frame: pd.DataFrame) -> int:
            return len(frame)

        @task
        def handed(frame: ArtifactRef) -> str:
            return frame.name

        @task
        def pulled(ti: Any = None) -> int:
            return sum(len(frame) for frame in ti.xcom_pull(task_ids="frames"))

        @task
        def foreign(ti: Any = None) -> int:
            found = ti.xcom_pull(dag_id="lineage_source", run_id=first.run_id, task_ids="produce")
            return len(found)

        @task
        def by_name() -> int:
            found = ArtifactStoreHook().store
            found.save(b"derived", "library/derived")
            return len(found.get("library").load())

        @task
        def trained() -> ModelRef:
            return ModelRef("models:/m-1", model_id="m-1", mlflow_run_id="r1")

        @task
        def with_model(model: ModelRef) -> str:
            return model.model_uri

        @task.external_python(python=sys.executable, expect_airflow=False)
        def isolated(frame: Any) -> int:
            return len(frame)

        @task
        def fails(frame: pd.DataFrame) -> None:
            raise ValueError("the password is hunter2")

        made = frames()
        mapped.expand(frame=made)
        made >> [pulled(), foreign(), by_name()]
        with_model(trained())
        single = one()
        handed(single)
        isolated(single)
        fails(single)
    run = run_dag(dag)

    parts = {"lineage_ways.frames.0", "lineage_ways.frames.1"}
    assert {use["name"] for use in record(run, "frames")["writes"]} == parts
    assert record(run, "frames")["inlets"] == ["s3://lake/raw"]
    assert [event["uri"] for event in record(run, "frames")["emitted"]] == ["s3://lake/out"]
    assert read_by(record(run, "mapped", 1)) == [("lineage_ways.frames.1", True)]
    assert read_by(record(run, "handed")) == [("lineage_ways.one", False)]
    assert read_by(record(run, "pulled")) == [(name, True) for name in sorted(parts)]
    assert read_by(record(run, "foreign")) == [("shared", True)]
    assert read_by(record(run, "by_name")) == [("library", True)]
    assert [use["name"] for use in record(run, "by_name")["writes"]] == ["library/derived"]
    (used,) = record(run, "with_model")["models_read"]
    assert (used["model_id"], used["role"]) == ("m-1", "input")
    assert read_by(record(run, "isolated")) == [("lineage_ways.one", True)]
    failed = record(run, "fails")
    assert (failed["outcome"], failed["error"][:11]) == ("failed", "ValueError:")
    assert failed["run"]["run_type"] == "manual"
    assert failed["run"]["run_after"]

    lineage = Lineage(store())
    shared = lineage.find("shared")
    graph = lineage.explore(shared)
    assert graph.node(node_of_task("lineage_source", first.run_id, "produce")) is not None
    assert graph.node(node_of_task("lineage_ways", run.run_id, "foreign")) is not None
    part = store().get("lineage_ways.frames.1")
    graph = lineage.explore(node_of_version(part.name, part.version_id), direction="down")
    assert {node.label for node in graph.nodes if node.kind == "task"} == {"mapped[1]", "pulled"}
    assert "asset:s3://lake/raw" in {
        node.id for node in lineage.explore(node_of_version(part.name, part.version_id), direction="up").nodes
    }


def test_a_cache_hit_is_recorded_with_what_it_reused_and_from_where(run_dag: Callable[..., Any]) -> None:
    with DAG("lineage_cached", schedule=None) as dag:

        @ml.cached
        @task
        def features(n: int) -> Annotated[pd.DataFrame, Artifact("cached_features")]:
            return FRAME * n

        @task
        def use(frame: pd.DataFrame) -> int:
            return len(frame)

        use(features(2))
    first = run_dag(dag, logical_date=datetime(2026, 1, 1, tzinfo=UTC))
    second = run_dag(dag, logical_date=datetime(2026, 1, 2, tzinfo=UTC))
    missed, hit = record(first, "features"), record(second, "features")
    assert missed["cached"]["hit"] is False
    assert hit["cached"]["hit"] is True
    assert hit["cached"]["reused_from"]["run_id"] == first.run_id
    assert hit["writes"] == []
    (reused,) = hit["reused"]
    assert reused["version_id"] == missed["writes"][0]["version_id"]

    lineage = Lineage(store())
    blast = blast_radius(lineage, node_of_version("cached_features", reused["version_id"]))
    assert {run.run_id for run in blast.runs} == {first.run_id, second.run_id}
    assert {run.run_id: run.tasks for run in blast.runs}[second.run_id] == ("features", "use")


def test_the_commands_clear_exactly_what_is_affected(run_dag: Callable[..., Any]) -> None:
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with DAG("lineage.clears", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:

        @task
        def load() -> pd.DataFrame:
            return FRAME

        @task
        def other() -> pd.DataFrame:
            return FRAME

        @task
        def fit(frame: pd.DataFrame) -> pd.DataFrame:
            return frame

        @task
        def score(frame: pd.DataFrame) -> int:
            return len(frame)

        other()
        score(fit(load()))
    runs = [run_dag(dag, logical_date=datetime(2026, 1, day, tzinfo=UTC)) for day in (1, 2, 3)]
    bad = record(runs[1], "load")["writes"][0]
    blast = blast_radius(Lineage(store()), node_of_version(bad["name"], bad["version_id"]))
    assert [run.tasks for run in blast.runs] == [("fit", "score")]
    commands = [command for command in blast.commands if command.purpose == "clear"]
    assert len(commands) == 2
    assert all(command.exact for command in commands)

    for command in commands:
        assert run_cli(*command.argv[1:], "--yes") == 0
    with create_session() as session:
        found = session.execute(
            select(TaskInstance.run_id, TaskInstance.task_id).where(
                TaskInstance.dag_id == dag.dag_id, TaskInstance.state.is_(None)
            )
        )
        assert {tuple(row) for row in found} == {(runs[1].run_id, "fit"), (runs[1].run_id, "score")}


def test_commands_for_whole_runs_and_backfills_are_ones_that_airflow_takes(
    run_dag: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with DAG(
        "lineage_whole", schedule="@daily", start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False
    ) as dag:

        @task
        def load() -> pd.DataFrame:
            return FRAME

        @task
        def fit(frame: pd.DataFrame) -> int:
            return len(frame)

        fit(load())
    run = run_dag(dag, logical_date=None)
    assert run.logical_date is None
    bad = record(run, "load")["writes"][0]
    root = node_of_version(bad["name"], bad["version_id"])
    (command,) = [each for each in blast_radius(Lineage(store()), root).commands if each.purpose == "clear"]
    assert command.argv[1:3] == ("dags", "clear")
    assert run_cli(*command.argv[1:], "--yes") == 0

    doc = records.read_record(store().objects, run.dag_id, run.run_id, "fit", -1, 1)
    at = "2026-01-02T00:00:00+00:00"
    doc["run"] = {"run_type": "scheduled", "run_after": at, "logical_date": at}
    place = records.keys.record_key(run.dag_id, run.run_id, "fit", -1, 1)
    store().objects.put_json(place, doc, create_only=False)
    (command,) = [
        each for each in blast_radius(Lineage(store()), root).commands if each.purpose == "backfill"
    ]
    assert run_cli(*command.argv[1:], "--dry-run") == 0
    assert "2026-01-02" in capsys.readouterr().out


def run_cli(*words: str) -> int:
    """Run a command of Airflow's own CLI, with its own parser and the metadata database of the tests."""
    from airflow.cli import cli_parser

    args = cli_parser.get_parser().parse_args(words)
    try:
        args.func(args)
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else 1
    return 0


def test_models_in_a_list_too_long_for_the_table_are_inputs_too(
    run_dag: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__ML_PROVIDER__INLINE_MAX_BYTES", "400")
    load_settings.cache_clear()
    with DAG("lineage_many_models", schedule=None) as dag:

        @task
        def trained() -> list[ModelRef]:
            return [ModelRef(f"models:/m-{n}", model_id=f"m-{n}") for n in range(8)]

        @task
        def compare(models: list[ModelRef]) -> None: ...

        @task
        def judge(model: ModelRef) -> None: ...

        models = trained()
        compare(models)
        judge.expand(model=models)

    run = run_dag(dag)
    assert [used["model_id"] for used in record(run, "compare")["models_read"]] == [
        f"m-{n}" for n in range(8)
    ]
    assert [used["model_id"] for used in record(run, "judge", 5)["models_read"]] == ["m-5"]


def test_an_event_of_an_outlet_that_is_named_by_reference_is_recorded(run_dag: Callable[..., Any]) -> None:
    with DAG("lineage_outlet_refs", schedule=None) as dag:

        @task(outlets=[Asset(name="lake_by_ref", uri="s3://lake/by_ref")])
        def owner() -> None: ...

        @task(outlets=[Asset.ref(name="lake_by_ref")])
        def by_name(outlet_events: Any = None) -> None:
            outlet_events[Asset.ref(name="lake_by_ref")].extra["version"] = "3"

        @task(outlets=[Asset.ref(uri="s3://lake/by_ref")])
        def by_uri() -> None: ...

        owner() >> by_name() >> by_uri()

    run = run_dag(dag)
    for task_id, extra in (("by_name", {"version": "3"}), ("by_uri", {})):
        (event,) = record(run, task_id)["emitted"]
        assert (event["uri"], event["name"], event["extra"]) == ("s3://lake/by_ref", "lake_by_ref", extra)


class Elsewhere(BaseTrigger):
    """Fires at once; the process that deferred is gone by then."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (f"{__name__}.Elsewhere", {})

    async def run(self) -> Any:
        states._states.clear()
        yield TriggerEvent("now")


class Waits(BaseOperator):
    def execute(self, context: Any) -> None:
        context["ti"].xcom_pull(task_ids="load")
        context["ti"].xcom_push(key="early", value=pd.DataFrame({"early": [1]}))
        self.defer(trigger=Elsewhere(), method_name="go_on")

    def go_on(self, context: Any, event: Any) -> Any:
        return pd.DataFrame({"late": [1]})


def test_what_a_task_did_before_it_was_deferred_is_in_its_record(run_dag: Callable[..., Any]) -> None:
    with DAG("lineage_deferred", schedule=None) as dag:

        @task
        def load() -> Any:
            return pd.DataFrame({"n": [1]})

        load() >> Waits(task_id="waits")

    found = record(run_dag(dag), "waits")
    assert found["outcome"] == "success"
    assert read_by(found) == [("lineage_deferred.load", True)]
    assert [use["name"] for use in found["writes"]] == [
        "lineage_deferred.waits.early",
        "lineage_deferred.waits",
    ]


KILLED = """
import os, signal, sys
import pandas as pd
from airflow.sdk import DAG, task
from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

with DAG("lineage_killed", schedule=None) as dag:
    @task
    def load():
        return pd.DataFrame({"n": [1]})

    @task
    def train(frame, ti=None):
        ti.xcom_pull(task_ids="load")
        os.kill(os.getpid(), signal.SIGKILL)

    train(load())
bag = DagBag(collect_dags=False)
bag.bag_dag(dag)
sync_bag_to_db(bag, "dags-folder", None)
dag.test()
"""


def test_what_a_killed_attempt_had_read_is_known(airflow_db: Path, tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    (entry,) = [entry for entry in store().objects.list("records") if "/train/" in entry.key]
    found = store().objects.get_json(entry.key)
    assert found["outcome"] == "running"
    assert read_by(found) == [("lineage_killed.load", True)]
    assert records.close_killed(store().objects, {**found, "try_number": 1}, 2)

    lineage = Lineage(store())
    graph = lineage.explore(lineage.find("lineage_killed.load"), direction="down")
    assert [node.outcome for node in graph.nodes if node.task_id == "train"] == ["killed"]
