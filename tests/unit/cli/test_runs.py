# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.cli import sweep
from airflow_ml_provider.exceptions import MLProviderError
from airflow_ml_provider.lineage.records import TaskRecord, write_record
from tests.unit.cli.conftest import Answer

Run = Callable[..., Answer]


@pytest.fixture
def runs(store: ArtifactStore) -> list[str]:
    """Three runs, the earliest first."""
    names = []
    for number in range(3):
        when = datetime(2013, 2, 1, tzinfo=UTC) + timedelta(days=number)
        run = {"run_type": "scheduled", "run_after": when.isoformat()}
        names.append(f"run-{number}")
        for task_id, facts in (
            ("fit", {"params": {"depth": 3}}),
            ("evaluate", {"metrics": {"auc": 0.5 + number / 10}}),
        ):
            write_record(
                store.objects,
                TaskRecord(
                    "training",
                    f"run-{number}",
                    task_id,
                    -1,
                    1,
                    "success",
                    run=run,
                    effective_at=when,
                    **facts,
                ),
            )
    return names


@pytest.mark.usefixtures("runs")
def test_runs_are_listed_latest_first_with_their_metrics(airflow: Run) -> None:
    answer = airflow("ml", "runs", "list", "training", "--limit", "2", "-o", "json")
    rows = json.loads(answer.out)
    assert [row["run_id"] for row in rows] == ["run-2", "run-1"]
    assert [(each["task_id"], each["metrics"]) for each in rows[0]["measured"]] == [
        ("evaluate", {"auc": 0.7}),
        ("fit", {}),
    ]
    assert "more than 2; use --limit" in answer.err
    assert "evaluate.auc=0.6" in airflow("ml", "runs", "list", "training", "-o", "plain").out


@pytest.mark.parametrize(
    ("words", "compared"),
    [
        ((), ["run-1", "run-2"]),
        (("run-1",), ["run-0", "run-1"]),
        (("run-2", "run-0", "run-1"), ["run-2", "run-0", "run-1"]),
    ],
)
def test_runs_are_compared(
    airflow: Run, runs: list[str], words: tuple[str, ...], compared: list[str]
) -> None:
    found = json.loads(airflow("ml", "runs", "compare", "training", *words, "-o", "json").out)
    assert found["runs"] == compared
    values = [0.5 + int(name[-1]) / 10 for name in compared]
    assert found["rows"] == [
        {
            "task_id": "evaluate",
            "map_index": -1,
            "what": "metric",
            "name": "auc",
            "values": values,
            "same": False,
        }
    ]
    everything = json.loads(airflow("ml", "runs", "compare", "training", *words, "--all", "-o", "json").out)
    assert "depth" in {row["name"] for row in everything["rows"]}
    table = airflow("ml", "runs", "compare", "training", *words, "-o", "plain").out
    assert all(name in table for name in compared)


def test_runs_without_a_difference_say_so(airflow: Run, runs: list[str], store: ArtifactStore) -> None:
    for run_id in ("same-1", "same-2"):
        record = TaskRecord("training", run_id, "fit", -1, 1, "success")
        write_record(store.objects, record)
    answer = airflow("ml", "runs", "compare", "training", "same-1", "same-2")
    assert (answer.code, "no difference is on record" in answer.err) == (0, True)


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("list", "nothing"), "DAGs with records: training"),
        (("compare", "nothing"), "DAGs with records: training"),
        (("compare", "training", "run-0"), "'run-0' is the first run"),
        (("compare", "training", "run-9"), "no records of the run 'run-9'"),
        (("compare", "training", "run-1", "run-9"), "no records of the run 'run-9'"),
    ],
)
def test_what_is_not_there_has_its_own_exit_code(airflow: Run, words: tuple[str, ...], message: str) -> None:
    answer = airflow("ml", "runs", *words)
    assert (answer.code, answer.out) == (3, "")
    assert message in answer.err


def test_a_sweep_without_a_metadata_database_says_so_and_makes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.utils import session

    def asked() -> None:
        raise AssertionError("SQLite makes the file of a database that is asked")

    monkeypatch.setattr(session, "create_session", asked)
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(MLProviderError, match=r"no metadata database here.*'training'.*SweepRunsOperator"):
        sweep._states_in_database("training", ["run"])
