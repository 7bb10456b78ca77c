# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.refs import ArtifactRef
from airflow_ml_provider.artifacts.store import ArtifactStore
from tests.unit.cli.conftest import Answer
from tests.unit.lineage.history import History, at, flights, month

Run = Callable[..., Answer]


@pytest.fixture
def history(store: ArtifactStore, tmp_path: Path) -> History:
    made = History(tmp_path / "unused")
    made.store = store
    return made


@pytest.fixture
def may(history: History) -> dict[str, ArtifactRef]:
    return flights(history, 5)


def test_a_prediction_is_traced_back_as_a_tree(
    airflow: Run, may: dict[str, ArtifactRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    answer = airflow("ml", "lineage", "up", "predictions")
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines[0].startswith("predictions prediction, ")
    assert "wrote scoring.score in asset5, try 1, success" in lines[1]
    assert "scored model flight_delay version 5 m-5" in answer.out
    assert "training.fit in run5" in answer.out


def test_json_is_the_graph(airflow: Run, may: dict[str, ArtifactRef]) -> None:
    answer = airflow("ml", "lineage", "down", "features", "--no-events", "--output", "json")
    doc = json.loads(answer.out)
    assert doc["root"] == at(may["features"])
    assert {node["kind"] for node in doc["nodes"]} == {"version", "task", "model", "evaluation"}
    assert doc["truncated"] is False


def test_the_alias_of_a_time_is_followed(airflow: Run, history: History) -> None:
    flights(history, 5)
    flights(history, 6)
    words = ("ml", "lineage", "up", "models:/flight_delay@champion", "--depth", "0", "--output", "json")
    assert json.loads(airflow(*words).out)["root"] == "model:m-6"
    answer = airflow(*words, "--as-of", month(5).isoformat())
    assert json.loads(answer.out)["root"] == "model:m-5"


def test_more_than_the_limit_is_said(airflow: Run, may: dict[str, ArtifactRef]) -> None:
    answer = airflow("ml", "lineage", "down", "features", "--limit", "2")
    assert answer.code == 0
    assert "there are more than 2 nodes" in answer.err
    assert "..." in answer.out


def test_a_broken_link_is_shown_and_counted(
    airflow: Run, store: ArtifactStore, may: dict[str, ArtifactRef]
) -> None:
    features = may["features"]
    store.objects.delete([keys.version_key(features.name, features.version_id)])
    answer = airflow("ml", "lineage", "up", "predictions", "--output", "plain")
    assert "its manifest is gone" in answer.out
    assert answer.err == "broken links: 1\n"


def test_the_blast_radius_names_what_is_affected_and_the_commands(
    airflow: Run, may: dict[str, ArtifactRef]
) -> None:
    answer = airflow("ml", "lineage", "blast", may["features"].uri)
    assert answer.code == 0
    assert "Models: 1" in answer.out
    assert "Predictions: 1" in answer.out
    assert "flight_delay@champion points at version 5 of these" in " ".join(answer.out.split())
    assert "airflow dags clear scoring --run-id asset5\n" in answer.out
    plain = airflow("ml", "lineage", "blast", may["features"].uri, "--output", "plain").out
    assert plain.splitlines() == [
        "airflow dags clear training --run-id run5",
        "airflow dags clear scoring --run-id asset5",
    ]
    doc = json.loads(airflow("ml", "lineage", "blast", may["features"].uri, "--output", "json").out)
    assert [run["tasks"] for run in doc["runs"]] == [["fit", "evaluate", "promote"], ["score"]]


def test_two_models_are_compared_section_by_section(airflow: Run, history: History) -> None:
    flights(history, 5)
    flights(history, 6)
    words = ("ml", "lineage", "diff", "models:/flight_delay/5", "models:/flight_delay@champion")
    answer = airflow(*words)
    assert answer.code == 0
    assert "max_depth" in answer.out
    assert "roc_auc" in answer.out
    assert "the same: code, environment, metrics" in answer.out
    rows = airflow(*words, "--output", "plain").out
    assert "features (content)" in rows
    doc = json.loads(airflow(*words, "--output", "json").out)
    assert doc["params"] == [{"name": "max_depth", "before": 5, "after": 6}]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("up", "nothing"), 3, "no version of the artifact 'nothing'"),
        (("blast", "models:/nobody@champion"), 3, "the ledger knows no version"),
        (("diff", "features", "models:/flight_delay/5"), 3, "is no model"),
        (("up", "task:x"), 1, "not the id of a node"),
        (("down", "features", "--depth", "-1"), 2, "--depth"),
    ],
)
def test_what_is_not_there_has_an_exit_code_of_its_own(
    airflow: Run, may: dict[str, ArtifactRef], words: tuple[str, ...], code: int, told: str
) -> None:
    answer = airflow("ml", "lineage", *words)
    assert answer.code == code
    assert told in answer.err


def test_markup_in_names_is_shown_as_it_is(airflow: Run, store: ArtifactStore) -> None:
    store.save(b"x", "[red]name[/red]")
    answer = airflow("ml", "lineage", "up", "[red]name[/red]")
    assert "[red]name[/red]" in answer.out
