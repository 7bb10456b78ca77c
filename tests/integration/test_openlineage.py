# SPDX-License-Identifier: Apache-2.0
"""The events of the real openlineage provider, judged by the official schemas."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.openlineage_schemas import check_event, skip_without_the_specification

pytest.importorskip("airflow.providers.openlineage")

pytestmark = pytest.mark.timeout(900)  # the story takes a minute, on a busy machine several

ROOT = Path(__file__).resolve().parents[2]
STORY = Path(__file__).with_name("openlineage_story.py")
REMOTE = "https://me:hunter2@git.example.com/org/repo.git"
CONTROLS = {"include_source_code": False, "include_full_task_info": True}
POLICY = [{"scope": {"dag_id": "ol_cache"}, "controls": CONTROLS}]

Json = dict[str, Any]


@pytest.fixture(scope="module")
def namespace(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"file://{tmp_path_factory.mktemp('openlineage')}/artifacts"


@pytest.fixture(scope="module")
def events(
    airflow_db: Path, mlflow_server: str, namespace: str, tmp_path_factory: pytest.TempPathFactory
) -> list[Json]:
    """What the story's tasks told OpenLineage: by its own listener, through its file transport."""
    path = tmp_path_factory.mktemp("events") / "events.jsonl"
    done = subprocess.run(
        [sys.executable, str(STORY)],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "AIRFLOW__ML_PROVIDER__ARTIFACT_ROOT": namespace,
            "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(
                {"type": "file", "log_file_path": str(path), "append": True}
            ),
            "AIRFLOW__OPENLINEAGE__EMISSION_POLICY": json.dumps(POLICY),
            "AIRFLOW__OPENLINEAGE__EXECUTION_TIMEOUT": "120",
            # As if this clone came from somewhere.
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "remote.origin.url",
            "GIT_CONFIG_VALUE_0": REMOTE,
        },
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    ended = [line for line in done.stdout.splitlines() if line.startswith(("ol_story.", "ol_cache."))]
    wrong = [
        line for line in ended if not line.endswith((": success", "fails -1: failed", "skips -1: skipped"))
    ]
    assert ended
    assert not wrong, f"{wrong}\n{done.stdout[-4000:]}"
    assert "read and wrote failed" not in done.stdout + done.stderr
    return [json.loads(line) for line in path.read_text().splitlines()]


def last(events: list[Json], task_id: str, dag_id: str = "ol_story") -> Json:
    """Return the event of a task's end."""
    return [each for each in events if each["job"]["name"] == f"{dag_id}.{task_id}"][-1]


def short(events: list[Json], task_id: str, namespace: str) -> tuple[set[str], set[str]]:
    """Return the names of a task's inputs and outputs; of those elsewhere with their namespace."""
    event = last(events, task_id)

    def name(each: Json) -> str:
        known = each["namespace"] in (namespace, "mlflow")
        return each["name"] if known else f"{each['namespace']}/{each['name']}"

    return {name(each) for each in event["inputs"]}, {name(each) for each in event["outputs"]}


def version(data_set: Json) -> str:
    return str(data_set["facets"]["version"]["datasetVersion"])


def test_every_event_is_what_the_official_schemas_say(events: list[Json]) -> None:
    skip_without_the_specification()
    checked: set[str] = set()
    for event in events:
        checked |= check_event(event)
    assert checked >= {
        "schema",
        "version",
        "dataQualityMetrics",
        "inputStatistics",
        "outputStatistics",
        "storage",
        "sourceCode",
        "lifecycleStateChange",
        "documentation",
        "symlinks",
        "datasetType",
        "dataSource",
        "airflowml_artifact",
        "airflowml_model",
        "airflowml_attempt",
    }


def test_every_attempt_starts_and_ends(events: list[Json]) -> None:
    kinds: dict[str, list[str]] = {}
    for event in events:
        if "parent" in event["run"]["facets"]:
            kinds.setdefault(event["run"]["runId"], []).append(event["eventType"])
    assert {tuple(each) for each in kinds.values()} == {("START", "COMPLETE"), ("START", "FAIL")}
    # 18 tasks, one of them mapped over two, and two tasks twice
    assert len(kinds) == 19 + 4


@pytest.mark.parametrize(
    ("task_id", "inputs", "outputs"),
    [
        # a plain task: hooks' and declared data sets together with ours
        ("features", {"s3://queried/flights", "s3://raw/flights"}, {"ol_features"}),
        ("report", {"ol_features"}, {"ol_report", "s3://warehouse/flights"}),
        ("aliased", {"ol_features"}, {"s3://aliased/flights"}),
        # nothing of the tasks before, which ran in the same process
        ("nothing", set(), set()),
        ("handed", {"ol_features"}, set()),
        ("gather", {"ol_part"}, set()),
        # operators that the provider knows by name
        ("doubled", {"ol_features", "s3://raw/flights"}, {"ol_story.doubled"}),
        ("counted", {"ol_features"}, set()),
        # one that speaks for itself
        ("export", {"ol_features"}, {"postgres://db:5432/export.public.flights"}),
        ("fails", {"ol_features"}, set()),
        ("skips", {"ol_features"}, set()),
        ("drift", {"ol_features"}, {"ol_story.drift.report"}),
        ("predict", {"ol_features", "ol_flights"}, {"ol_predictions"}),
    ],
)
def test_a_task_names_what_it_read_and_wrote(
    events: list[Json], namespace: str, task_id: str, inputs: set[str], outputs: set[str]
) -> None:
    assert short(events, task_id, namespace) == (inputs, outputs)


def test_readers_name_the_version_that_was_written(events: list[Json]) -> None:
    (written,) = last(events, "features")["outputs"]
    for task_id in ("report", "fit", "fails", "export", "doubled", "drift"):
        (read,) = [each for each in last(events, task_id)["inputs"] if each["name"] == "ol_features"]
        assert version(read) == version(written)
    assert written["outputFacets"]["outputStatistics"]["rowCount"] == 60
    assert "Flights, a row each." in written["facets"]["documentation"]["description"]
    fields = written["facets"]["schema"]["fields"]
    assert [field["name"] for field in fields] == ["wind", "token", "late"]


def test_a_failure_says_what_was_read_before_it(events: list[Json]) -> None:
    event = last(events, "fails")
    assert event["eventType"] == "FAIL"
    assert "60 rows are not enough" in event["run"]["facets"]["errorMessage"]["message"]


def test_mapped_tasks_name_their_own_versions(events: list[Json]) -> None:
    written = [
        version(each["outputs"][0])
        for each in events
        if each["job"]["name"] == "ol_story.part" and each["eventType"] == "COMPLETE"
    ]
    assert len(set(written)) == 2
    assert sorted(written) == sorted(version(each) for each in last(events, "gather")["inputs"])


def test_the_way_from_a_prediction_back_to_its_data(events: list[Json]) -> None:
    """By names and versions alone, as a server of OpenLineage goes."""
    (used,) = [each for each in last(events, "predict")["inputs"] if each["namespace"] == "mlflow"]
    (promoted,) = [each for each in last(events, "promote")["outputs"] if each["name"] == "ol_flights"]
    assert version(used) == version(promoted) == "1"
    (candidate,) = last(events, "promote")["inputs"]
    (trained,) = last(events, "fit")["outputs"]
    (judged,) = [each for each in last(events, "evaluate")["inputs"] if each["namespace"] == "mlflow"]
    assert trained["name"] == judged["name"] == candidate["name"]
    assert version(trained) == version(judged) == version(candidate)
    names = [each["name"] for each in promoted["facets"]["symlinks"]["identifiers"]]
    assert trained["name"] in names
    assert [each["name"] for each in last(events, "fit")["inputs"]] == ["ol_features"]
    declared = [
        each["name"] for each in last(events, "promote")["outputs"] if "airflowml_model" not in each["facets"]
    ]
    assert declared == ["ol_flights/champion"]


def test_models_evaluations_and_promotions_say_their_numbers(events: list[Json]) -> None:
    (trained,) = last(events, "fit")["outputs"]
    about = trained["facets"]["airflowml_model"]
    assert about["metrics"]["train_accuracy"] == 1.0
    assert (about["flavor"], about["role"]) == ("sklearn", "trained")
    assert "Fit what is late." in trained["facets"]["documentation"]["description"]
    evaluation = last(events, "evaluate")["run"]["facets"]["airflowml_attempt"]["evaluation"]
    assert evaluation["metrics"]["roc_auc"] == 1.0
    assert evaluation["rowCount"] == 60
    promotion = last(events, "promote")["run"]["facets"]["airflowml_attempt"]["promotion"]
    assert (promotion["promoted"], promotion["version"], promotion["alias"]) == (True, "1", "champion")


def test_jobs_say_their_source_and_where_it_is(events: list[Json]) -> None:
    facets = last(events, "fit")["job"]["facets"]
    assert "LogisticRegression().fit(" in facets["sourceCode"]["sourceCode"]
    if (ROOT / ".git").exists():
        location = facets["sourceCodeLocation"]
        assert location["repoUrl"] == "https://git.example.com/org/repo"
        assert location["path"] == "tests/integration/openlineage_story.py"
    assert "hunter2" not in json.dumps(events)


def test_a_policy_without_source_code_holds_for_us_too(events: list[Json]) -> None:
    assert "sourceCode" not in last(events, "source", "ol_cache")["job"]["facets"]


def test_what_the_cache_returned_is_the_version_of_before(events: list[Json]) -> None:
    first, second = [
        each["outputs"][0]
        for each in events
        if each["job"]["name"] == "ol_cache.cached" and each["eventType"] == "COMPLETE"
    ]
    assert version(first) == version(second)
    assert second["facets"]["airflowml_artifact"]["reused"] is True
    assert "lifecycleStateChange" not in second["facets"]


def test_no_event_holds_a_cell_of_the_data(events: list[Json]) -> None:
    cells = {f'"t{number}"' for number in range(60)}
    assert not [cell for cell in cells if cell in json.dumps(events)]
