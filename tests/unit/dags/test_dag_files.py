# SPDX-License-Identifier: Apache-2.0
"""The example DAGs parse quickly, import nothing heavy, and are scheduled as their texts say."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.unit.dags.conftest import DAGS

FILES = sorted(path.stem for path in DAGS.glob("*.py"))
HEAVY = (
    "pandas",
    "numpy",
    "pyarrow",
    "sklearn",
    "scipy",
    "mlflow",
    "boto3",
    "kubernetes",
    "obstore",
    "skops",
)

# What a DAG processor's child does: Airflow is imported already, then come the files. The first asset with a
# scheme makes Airflow import every installed provider's asset handlers, Amazon's with boto3 among them.
_PARSE = """
import importlib.util, json, sys, time
from airflow.sdk import Asset, CronDataIntervalTimetable, Param, dag, task
Asset("s3://bucket/key")

folder, names, heavy = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
sys.path.append(folder)
already = set(sys.modules)
began = time.process_time()
for name in names:
    spec = importlib.util.spec_from_file_location(f"parsed_{name}", f"{folder}/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
print(json.dumps({
    "seconds": time.process_time() - began,
    "heavy": [name for name in heavy if name in sys.modules and name not in already],
}))
"""


@pytest.fixture(scope="module")
def parsed() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _PARSE, str(DAGS), json.dumps(FILES), json.dumps(HEAVY)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_parsing_all_files_adds_less_than_a_second_of_processor_time(parsed: dict[str, Any]) -> None:
    assert parsed["seconds"] < 1.0


def test_parsing_imports_no_heavy_library(parsed: dict[str, Any]) -> None:
    assert parsed["heavy"] == []


@pytest.fixture(scope="module")
def bag() -> Any:
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(dag_folder=DAGS, bundle_path=DAGS, load_op_links=False)


def test_airflow_finds_one_dag_a_file_and_leaves_the_package_alone(bag: Any) -> None:
    assert bag.import_errors == {}
    assert sorted(bag.dags) == FILES
    assert {Path(dag.fileloc).parent for dag in bag.dags.values()} == {DAGS}
    assert not [path for path in bag.file_last_changed if Path(path).parent.name == "flights"]


@pytest.mark.parametrize("name", FILES)
def test_each_dag_says_what_it_is_for(name: str, bag: Any) -> None:
    dag = bag.dags[name]
    assert dag.description
    assert dag.doc_md.strip().startswith("### ")
    assert dag.tags
    for task in dag.tasks:
        if function := getattr(task, "python_callable", None):
            assert function.__doc__, f"{name}.{task.task_id} has no docstring"


def test_the_plain_dag_names_nothing_of_the_provider() -> None:
    lines = (DAGS / "plain_weather_report.py").read_text().splitlines()
    assert [line for line in lines if "airflow_ml_provider" in line] == []


def test_catching_up_on_training_makes_seven_monthly_runs(bag: Any) -> None:
    dag = scheduled(bag.dags["flight_delay_training"])
    intervals = [run.data_interval for run in automated_runs(dag)]
    assert [(i.start, i.end) for i in intervals] == [
        (datetime(2013, month, 1, tzinfo=UTC), datetime(2013, month + 1, 1, tzinfo=UTC))
        for month in range(2, 9)
    ]
    assert dag.max_active_runs == 1


def test_evaluations_run_by_backfill_only(bag: Any) -> None:
    dag = scheduled(bag.dags["flight_delay_evaluation"])
    assert automated_runs(dag) == []
    days = list(
        dag.iter_dagrun_infos_between(datetime(2013, 6, 24, tzinfo=UTC), datetime(2013, 7, 7, tzinfo=UTC))
    )
    assert len(days) == 14
    assert (days[0].data_interval.start, days[0].data_interval.end) == (
        datetime(2013, 6, 24, tzinfo=UTC),
        datetime(2013, 6, 25, tzinfo=UTC),
    )


def test_a_day_is_judged_with_the_champion_of_its_end(bag: Any) -> None:
    task = bag.dags["flight_delay_evaluation"].get_task("evaluate")
    assert task.as_of == "{{ data_interval_end }}"


def test_promotion_announces_the_asset_that_scoring_waits_for(bag: Any) -> None:
    training, scoring = bag.dags["flight_delay_training"], bag.dags["flight_delay_scoring"]
    announced = [asset.uri for asset in training.get_task("promote").outlets]
    assert announced == ["mlflow://flight_delay/champion"]
    condition = scheduled(scoring).timetable.asset_condition
    assert [key.uri for key, _ in condition.iter_assets()] == announced


def event(when: str, effective_at: str) -> SimpleNamespace:
    return SimpleNamespace(
        timestamp=datetime.fromisoformat(when), extra={"version": "1", "effective_at": effective_at}
    )


EARLIER = event("2026-01-01T10:00:00+00:00", "2013-04-01T00:00:00+00:00")
LATER = event("2026-01-01T11:00:00+00:00", "2013-06-01T00:00:00+00:00")


@pytest.mark.parametrize(
    ("asked", "events", "first"),
    [
        pytest.param(None, [EARLIER], datetime(2013, 4, 1, tzinfo=UTC), id="one promotion"),
        pytest.param(None, [LATER, EARLIER], datetime(2013, 6, 1, tzinfo=UTC), id="the latest of two"),
        pytest.param("2013-09-01", [], datetime(2013, 9, 1, tzinfo=UTC), id="by hand"),
        pytest.param("2013-09-01", [EARLIER], datetime(2013, 9, 1, tzinfo=UTC), id="asked for"),
    ],
)
def test_the_week_to_score(
    asked: str | None,
    events: list[SimpleNamespace],
    first: datetime,
    dag_file: Callable[[str], ModuleType],
) -> None:
    assert dag_file("flight_delay_scoring").first_day(asked, events) == first


def test_scoring_by_hand_asks_for_the_week(dag_file: Callable[[str], ModuleType]) -> None:
    with pytest.raises(ValueError, match="give the first day as week_from"):
        dag_file("flight_delay_scoring").first_day(None, ())


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("2013-01", datetime(2013, 2, 1, tzinfo=UTC)),
        ("2013-02", datetime(2013, 3, 1, tzinfo=UTC)),
        ("2013-12", datetime(2014, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_month_ends_where_the_next_begins(
    text: str, end: datetime, dag_file: Callable[[str], ModuleType]
) -> None:
    start, found = dag_file("plain_weather_report").month_of(text)
    assert (start.isoformat()[:7], start.day, found) == (text, 1, end)


def scheduled(dag: Any) -> Any:
    """Return the DAG as the scheduler knows it."""
    from airflow.serialization.serialized_objects import DagSerialization

    return DagSerialization.from_dict(DagSerialization.to_dict(dag))


def automated_runs(dag: Any) -> list[Any]:
    """Return what the scheduler would run, were every run over in no time."""
    runs: list[Any] = []
    while (run := dag.next_dagrun_info(last_automated_run_info=runs[-1] if runs else None)) is not None:
        runs.append(run)
        assert len(runs) < 100
    return runs
