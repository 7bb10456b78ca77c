# SPDX-License-Identifier: Apache-2.0
"""What the pages get."""

from __future__ import annotations

import base64
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest

from airflow_ml_provider.lineage.records import TaskRecord, write_record
from tests.unit.plugins.world import MODEL, OPEN, RUNS, START, run_id

RUN = f"dags/{OPEN}/runs/{quote(run_id(2))}"


@pytest.fixture(scope="module")
def get(api: Any, world: Any) -> Any:
    client = api("viewer")

    def ask(path: str) -> Any:
        answer = client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return ask


def test_a_task_instance_shows_what_it_read_and_wrote(get: Any) -> None:
    found = get(f"{RUN}/tasks/make_features")

    assert found["tries"] == [1]
    record = found["record"]
    [written] = record["writes"]
    assert written["name"] == "features"
    assert written["preview"] == {"rows": 10, "password": "***"}
    assert written["producer"]["task_id"] == "make_features"
    assert record["cache"] == {"hit": False, "key": "k", "why": "the first time", "reused_from": None}
    assert record["code"]["git.commit"] == "c2"
    assert datetime.fromisoformat(record["effective_at"]) == START + timedelta(days=2)
    assert record["effective_at"].endswith("+00:00")


def test_a_training_shows_parameters_metrics_and_its_model(get: Any) -> None:
    record = get(f"{RUN}/tasks/fit")["record"]

    assert record["params"] == {"max_depth": 5}
    assert record["metrics"] == {"train_auc": 0.75}
    assert {model["role"] for model in record["models_written"]} == {"trained"}
    assert record["mlflow"] == {"run_id": "run-late-3", "experiment_id": "1", "run_url": None}
    assert [each["name"] for each in record["reads"]] == ["features"]


def test_an_evaluation_and_a_decision_are_told(get: Any) -> None:
    evaluation = get(f"{RUN}/tasks/evaluate")["record"]["evaluation"]
    assert evaluation["model_id"] == "m-late-3"
    assert evaluation["metrics"] == {"log_loss": "NaN", "roc_auc": 0.72}

    decision = get(f"dags/{OPEN}/runs/{quote(run_id(1))}/tasks/promote")["record"]["decision"]
    assert decision["kind"] == "rejected"
    assert decision["reasons"] == ["roc_auc does not exceed the baseline's"]
    assert decision["gates"] == [{"metric": "roc_auc", "passed": False}]


def test_a_task_without_a_record_is_an_empty_answer(get: Any) -> None:
    assert get(f"{RUN}/tasks/nothing") == {
        "task": {
            "dag_id": OPEN,
            "run_id": run_id(2),
            "task_id": "nothing",
            "map_index": -1,
            "try_number": None,
        },
        "tries": [],
        "record": None,
    }
    assert get(f"{RUN}/tasks/nothing/graph")["nodes"] == []
    assert get(f"{RUN}/tasks/nothing/metrics")["state"] == "no_run"


def test_a_version_that_is_gone_is_shown_as_gone(api: Any, store: Any, world: Any) -> None:
    from airflow_ml_provider.artifacts import keys

    ref = world.save(OPEN, 7, "fleeting", {"a": 1})
    world.record(OPEN, 7, "reads_it", reads=[ref])
    store.objects.delete([keys.version_key("fleeting", ref.version_id)])

    place = f"dags/{OPEN}/runs/{quote(run_id(7))}/tasks/reads_it"
    [read] = api().get(place).json()["record"]["reads"]
    assert read["gone"] is True
    assert "preview" not in read
    nodes = api().get(f"{place}/graph").json()["nodes"]
    assert [node["label"] for node in nodes if node["missing"]] == ["fleeting"]


def test_a_version_that_cannot_be_believed_hides_nothing_else_of_its_task(
    api: Any, store: Any, world: Any
) -> None:
    from airflow_ml_provider.artifacts import keys

    good, forged = (world.save(OPEN, 8, name, {"a": 1}) for name in ("good", "forged"))
    world.record(OPEN, 8, "reads_both", reads=[good, forged])
    key = keys.version_key("forged", forged.version_id)
    store.objects.put_json(key, {**store.objects.get_json(key), "size_bytes": 1}, create_only=False)

    answer = api().get(f"dags/{OPEN}/runs/{quote(run_id(8))}/tasks/reads_both")
    assert answer.status_code == 200
    shown = {each["name"]: each for each in answer.json()["record"]["reads"]}
    assert shown["good"]["preview"] == {"a": 1}
    assert shown["forged"]["unreadable"] is True
    assert "preview" not in shown["forged"]


def test_a_run_lists_its_tasks_and_the_run_before(get: Any) -> None:
    found = get(RUN)

    assert [each["task"]["task_id"] for each in found["tasks"]] == [
        "evaluate",
        "fit",
        "make_features",
        "promote",
        "register",
    ]
    assert found["run"]["run_id"] == run_id(2)
    assert found["run"]["in_airflow"] is False
    assert found["previous"]["run_id"] == run_id(1)
    assert get(f"dags/{OPEN}/runs/{quote(run_id(0))}")["previous"] is None
    kinds = {node["kind"] for node in get(f"{RUN}/graph")["nodes"]}
    assert {"task", "version", "model", "evaluation"} <= kinds


def test_a_run_that_left_nothing_is_an_empty_answer(get: Any) -> None:
    assert get(f"dags/{OPEN}/runs/never")["tasks"] == []


def test_runs_are_compared_by_content(get: Any) -> None:
    found = get(f"{RUN}/comparison")
    tasks = {each["task_id"]: each for each in found["tasks"]}

    assert found["with"]["run_id"] == run_id(1)
    # The same rows were written again: another version, no change.
    assert {each["what"] for each in tasks["make_features"]["changes"]} == {"code", "environment"}
    params = [each for each in tasks["fit"]["changes"] if each["what"] == "param"]
    assert params == [{"what": "param", "name": "max_depth", "before": 4, "after": 5}]
    [metric] = [each for each in found["metrics"] if each["name"] == "train_auc"]
    assert metric["delta"] == 0.125

    earlier = get(f"dags/{OPEN}/runs/{quote(run_id(1))}/comparison")
    changed = {each["task_id"]: each["changes"] for each in earlier["tasks"]}
    read, gone = (each for each in changed["fit"] if each["what"] == "read")
    assert [version["name"] for version in read["before"]] == ["features"]
    assert (gone["name"], gone["after"]) == ("secret_data", [])
    assert read["before"][0]["node"] != read["after"][0]["node"]
    assert get(f"dags/{OPEN}/runs/{quote(run_id(0))}/comparison")["with"] is None


def test_of_large_runs_only_what_was_read_of_both_is_compared(
    api: Any, store: Any, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def attempt(of_run: str, task_id: str, try_number: int = 1, map_index: int = -1) -> None:
        write_record(store.objects, TaskRecord(OPEN, of_run, task_id, map_index, try_number, "success"))

    for number in range(12):
        for of_run in ("with_a_retry", "without"):
            attempt(of_run, "mapped", map_index=number)
    attempt("with_a_retry", "mapped", 2, map_index=3)
    attempt("with_a_retry", "last")
    attempt("without", "last")
    monkeypatch.setattr("airflow_ml_provider.plugins.api.dags._MOST_TASKS", 10)
    asked = api().get(f"dags/{OPEN}/runs/with_a_retry/comparison?with=without").json()
    assert {each["change"] for each in asked["tasks"]} == {"same"}
    assert asked["truncated"] is True
    monkeypatch.undo()
    asked = api().get(f"dags/{OPEN}/runs/with_a_retry/comparison?with=without").json()
    assert [each["change"] for each in asked["tasks"]] == ["same"] * 13
    assert asked["truncated"] is False


def test_metrics_come_by_run_in_whole_pages(get: Any) -> None:
    everything = get(f"dags/{OPEN}/metrics")
    assert [item["run"]["run_id"] for item in everything["items"][-RUNS:]] == [
        run_id(number) for number in reversed(range(RUNS))
    ]
    assert everything["names"] == ["log_loss", "roc_auc", "train_auc"]
    assert everything["next"] is None

    seen, cursor = [], ""
    while True:
        page = get(f"dags/{OPEN}/metrics?limit=1{cursor}")
        seen.extend(page["items"])
        if page["next"] is None:
            break
        cursor = f"&cursor={quote(page['next'])}"
    assert seen == everything["items"]


def test_evaluations_come_with_the_moves_of_champions(get: Any) -> None:
    found = get(f"dags/{OPEN}/evaluations")

    # Judged before it was registered: the decision tells which version it became.
    assert [each["version"] for each in found["items"]] == ["3", None, "1"]
    assert found["models"] == [MODEL]
    champion = next(each for each in found["champions"] if each["alias"] == "champion")
    assert [move["version"] for move in champion["moves"]] == ["1", "3"]


def test_a_model_tells_how_it_did(get: Any) -> None:
    found = get(f"models/{MODEL}/evaluations")

    assert [(each["version"], each["task"]["task_id"]) for each in found["items"]] == [
        ("3", "evaluate"),
        ("2", "evaluate"),
        ("1", "evaluate"),
    ]
    assert "champion" in [each["alias"] for each in found["champions"]]


def test_the_evaluations_of_a_model_come_in_pages(get: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_ml_provider.plugins.api.models._LEAST_OF_A_DAG", 1)
    whole = get(f"models/{MODEL}/evaluations")
    seen, cursor, pages = [], "", 0
    while pages < 10:
        page = get(f"models/{MODEL}/evaluations?limit=1{cursor}")
        seen.extend(page["items"])
        pages += 1
        if page["next"] is None:
            break
        cursor = f"&cursor={quote(page['next'])}"
    assert pages > 1
    assert [each["mlflow_run_id"] for each in seen] == [each["mlflow_run_id"] for each in whole["items"]]


@pytest.mark.parametrize(
    "said",
    [
        "no base64",
        "[]",
        "3",
        '{"open": "../../x"}',
        '{"open": null}',
        '{"open": {"a": 1}}',
        '"open"',
        pytest.param("[" * 5000, id="nested"),
    ],
)
def test_a_made_up_cursor_is_refused_or_has_nothing(api: Any, world: Any, said: str) -> None:
    cursor = quote(base64.urlsafe_b64encode(said.replace("open", OPEN).encode()).decode())
    answer = api("viewer").get(f"models/{MODEL}/evaluations?cursor={cursor}")
    assert answer.status_code == 422 or answer.json()["items"] == []


def test_two_versions_of_a_model_are_compared(get: Any) -> None:
    found = get(f"models/{MODEL}/diff?from=1&to=2")

    assert found["params"] == [{"name": "max_depth", "before": 3, "after": 4}]
    assert found["from"]["label"] == "late version 1"
    assert [each["name"] for each in found["data"]] == ["features", "secret_data"]


def test_runs_are_rows_of_parameters_and_metrics(get: Any) -> None:
    found = get(f"runs?dag_id={OPEN}&limit=1")

    assert found["items"][0]["params"] == {"fit.max_depth": 5}
    assert found["items"][0]["metrics"]["evaluate.log_loss"] == "NaN"
    assert found["items"][0]["decision"] == "promoted"
    assert found["metric_names"] == ["evaluate.log_loss", "evaluate.roc_auc", "fit.train_auc"]
    assert found["next"]
    assert OPEN in [each["dag_id"] for each in get("dags")["items"]]


def test_a_model_tells_where_its_aliases_point(get: Any) -> None:
    found = get(f"models/{MODEL}")

    champion = next(each for each in found["aliases"] if each["alias"] == "champion")
    assert (champion["version"], champion["kind"]) == ("3", "promotion")
    assert found["latest_version"] == "3"
    assert found["dags"] == [OPEN, "secret_dag"]
    assert "version 2" in next(each["text"] for each in found["hints"] if each["kind"] == "rollback")
    assert [each["name"] for each in get("models?search=LAT")["items"]] == [MODEL]


def test_a_model_without_an_alias_is_a_model_too(get: Any) -> None:
    assert [each["name"] for each in get("models?search=nameless")["items"]] == ["nameless"]
    assert get("models/nameless")["aliases"] == []
    assert get("models/nameless/timeline")["items"] == []
    assert [each["version"] for each in get("models/nameless/versions")["items"]] == ["1"]


def test_a_question_about_a_model_leads_to_where_it_is_answered(api: Any, world: Any) -> None:
    from airflow.models.dagrun import DagRun
    from airflow.models.hitl import HITLDetail
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import delete, insert

    subjects = {OPEN: f"{MODEL}: make version 4 the champion?", "secret_dag": f"{MODEL}: make a secret?"}
    with create_session() as session:
        for number, (dag_id, subject) in enumerate(subjects.items()):
            ti_id = UUID(int=number + 1)
            run = {"dag_id": dag_id, "run_id": "asks", "run_type": "manual", "run_after": START}
            session.execute(insert(DagRun.__table__).values(run))
            session.execute(
                insert(TaskInstance.__table__).values(
                    id=ti_id,
                    dag_id=dag_id,
                    run_id="asks",
                    task_id="promote",
                    map_index=-1,
                    pool="default_pool",
                    pool_slots=1,
                    state="awaiting_input",
                )
            )
            asked = {"ti_id": ti_id, "options": ["Approve"], "subject": subject, "created_at": START}
            session.execute(insert(HITLDetail.__table__).values(**asked, multiple=False, params={}))

    def asked_of(user: str) -> list[Any]:
        hints = api(user).get(f"models/{MODEL}").json()["hints"]
        return [(each["text"], each["href"]) for each in hints if each["kind"] == "approve"]

    try:
        page = f"/dags/{OPEN}/runs/asks/tasks/promote/required_actions"
        assert asked_of("narrow") == [(subjects[OPEN], page)]
        assert len(asked_of("viewer")) == 2
    finally:
        with create_session() as session:
            session.execute(delete(TaskInstance.__table__).where(TaskInstance.__table__.c.run_id == "asks"))
            session.execute(delete(HITLDetail.__table__))
            session.execute(delete(DagRun.__table__).where(DagRun.__table__.c.run_id == "asks"))


ENDS = {  # state and end of the task instance for Airflow, and what is shown of a record that has no end
    "failed_long_ago": ("failed", timedelta(minutes=2), "killed"),
    "waits_for_its_retry": ("up_for_retry", timedelta(minutes=2), "killed"),
    "failed_just_now": ("failed", timedelta(0), "running"),
    "works": ("running", None, "running"),
    "deferred": ("deferred", None, "running"),
}


def test_a_record_without_an_end_is_that_of_a_killed_process_where_airflow_says_so(
    get: Any, world: Any
) -> None:
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import delete, insert

    for task_id in (*ENDS, "unknown_to_airflow"):
        record = TaskRecord(OPEN, "dies", task_id, -1, 1, "running", started_at=START, recorded_at=START)
        write_record(world.store.objects, record)
    now = datetime.now(UTC)
    with create_session() as session:
        run = {"dag_id": OPEN, "run_id": "dies", "run_type": "manual", "run_after": START}
        session.execute(insert(DagRun.__table__).values(run))
        for task_id, (state, ago, _) in ENDS.items():
            row = {"id": uuid4(), "dag_id": OPEN, "run_id": "dies", "task_id": task_id, "map_index": -1}
            end = {"state": state, "end_date": None if ago is None else now - ago, "try_number": 1}
            session.execute(
                insert(TaskInstance.__table__).values(**row, **end, pool="default_pool", pool_slots=1)
            )

    try:
        shown = {each["task"]["task_id"]: each for each in get(f"dags/{OPEN}/runs/dies")["tasks"]}
        alone = {task_id: get(f"dags/{OPEN}/runs/dies/tasks/{task_id}")["record"] for task_id in shown}
        drawn = {each["label"]: each for each in get(f"dags/{OPEN}/runs/dies/graph")["nodes"]}
        other = "compared"
        for task_id in ENDS:
            record = TaskRecord(OPEN, other, task_id, -1, 1, "success", started_at=START, recorded_at=START)
            write_record(world.store.objects, record)
        compared = get(f"dags/{OPEN}/runs/dies/comparison?with={other}")["tasks"]
    finally:
        with create_session() as session:
            session.execute(delete(TaskInstance.__table__).where(TaskInstance.__table__.c.run_id == "dies"))
            session.execute(delete(DagRun.__table__).where(DagRun.__table__.c.run_id == "dies"))

    expected = {task_id: outcome for task_id, (*_, outcome) in ENDS.items()} | {
        "unknown_to_airflow": "running"
    }
    assert {task_id: each["outcome"] for task_id, each in shown.items()} == expected
    assert {task_id: each["outcome"] for task_id, each in alone.items()} == expected
    assert {task_id: each["state"] for task_id, each in drawn.items()} == expected
    assert drawn["failed_long_ago"]["detail"] == f"{OPEN}, killed"
    changed = {
        each["task_id"]: change["after"]
        for each in compared
        for change in each["changes"]
        if change["what"] == "outcome"
    }
    assert changed == {task_id: outcome for task_id, (*_, outcome) in ENDS.items()}
    assert "Airflow counts it as failed" in alone["failed_long_ago"]["error"]
    assert alone["works"]["error"] is None


def test_the_versions_of_a_model_tell_how_they_were_made(get: Any) -> None:
    versions = get(f"models/{MODEL}/versions")["items"]

    assert [each["version"] for each in versions] == ["3", "2", "1"]
    assert versions[0]["aliases"] == ["champion"]
    assert versions[0]["params"] == {"max_depth": 5}
    assert versions[0]["metrics"] == {"train_auc": 0.75}
    assert versions[0]["trained_by"]["task_id"] == "fit"


def test_a_version_that_is_far_from_the_latest_is_told_alone(api: Any, get: Any) -> None:
    whole = get(f"models/{MODEL}/versions")["items"]
    found = get(f"models/{MODEL}/versions?version=1&limit=1")
    assert found == {"items": [whole[-1]], "hidden": 0, "next": None}
    assert found["items"][0]["trained_by"]["run_id"] == run_id(0)
    assert get(f"models/{MODEL}/versions?version=77")["items"] == []
    assert api().get(f"models/{MODEL}/versions?version=../1").status_code == 422


def test_the_timeline_holds_rejections_too(get: Any) -> None:
    found = get(f"models/{MODEL}/timeline?alias=champion")["items"]

    assert [(each["kind"], each["moved"]) for each in found] == [
        ("promotion", True),
        ("rejected", False),
        ("promotion", True),
    ]
    assert found[1]["reasons"] == ["roc_auc does not exceed the baseline's"]
    assert len(get(f"models/{MODEL}/timeline?alias=champion&limit=1")["items"]) == 1


@pytest.mark.parametrize("clock", ["data", "wall"])
def test_the_timeline_comes_in_pages(get: Any, clock: str) -> None:
    def known(items: list[Any]) -> list[Any]:
        return sorted((each["kind"], each["alias"], each["effective_at"]) for each in items)

    address = f"models/{MODEL}/timeline?clock={clock}"
    whole = get(address)
    assert whole["next"] is None
    assert len(whole["items"]) > 3
    seen, cursor, pages = [], "", 0
    while pages < 10:
        page = get(f"{address}&limit=1{cursor}")
        seen += page["items"]
        pages += 1
        if page["next"] is None:
            break
        cursor = f"&cursor={quote(page['next'])}"
    assert pages > 1
    assert known(seen) == known(whole["items"])


def test_artifacts_are_found_by_a_part_of_their_name(get: Any, world: Any) -> None:
    found = get("artifacts?search=FEAT")["items"]

    assert [each["name"] for each in found] == ["features"]
    assert found[0]["latest"]["version_id"] == world.versions["features", 2].version_id
    first = get("artifacts/versions?name=features&limit=2")
    assert len(first["items"]) == 2
    rest = get(f"artifacts/versions?name=features&limit=2&cursor={quote(first['next'])}")
    assert len(rest["items"]) == 1
    assert rest["next"] is None


def test_a_version_tells_its_readers_and_what_it_takes(get: Any, world: Any) -> None:
    ref = world.versions["features", 1]
    found = get(f"artifacts/version?name=features&version_id={ref.version_id}")

    assert found["version"]["preview"] == {"rows": 10, "password": "***"}
    assert sorted(each["task"]["task_id"] for each in found["readers"]) == ["evaluate", "fit"]
    growth = get("artifacts/growth?name=features")
    assert growth["complete"] is True
    assert [point["new_bytes"] > 0 for point in growth["points"]] == [True, True, False]
    assert growth["bytes_shared"] == growth["points"][-1]["size_bytes"]


def test_lineage_leads_from_the_champion_to_its_data(get: Any, world: Any) -> None:
    found = get(f"lineage?node=models:/{MODEL}@champion&direction=up&depth=3")

    labels = {node["label"] for node in found["nodes"]}
    assert {"late version 3", "fit", "features", "make_features"} <= labels
    assert found["root"] == "model:m-late-3"
    short = get(f"lineage?node={quote(found['root'])}&direction=both&depth=9&limit=2")
    assert short["truncated"] is True
    more = get(f"lineage?node={quote(found['root'])}&cursor={quote(short['next'])}")
    assert more["nodes"]


def test_a_large_graph_is_loaded_to_its_end_with_all_edges(get: Any, store: Any, world: Any) -> None:
    data = world.save(OPEN, 9, "much_read", {"a": 1})
    world.record(OPEN, 9, "make_much_read", writes=[data])
    for number in range(40):
        made = world.save(OPEN, 9, f"made_of_it_{number}", {"a": number}, f"user_{number}")
        world.record(OPEN, 9, f"user_{number}", reads=[data], writes=[made])
    root = f"lineage?node={quote(f'version:much_read@{data.version_id}')}&depth=2&direction=down"
    whole = get(f"{root}&limit=300")
    assert whole["next"] is None

    page = get(f"{root}&limit=45")
    nodes, edges, pages = [], [], 0
    while True:
        nodes += [node["id"] for node in page["nodes"]]
        edges += [(edge["source"], edge["target"]) for edge in page["edges"]]
        pages += 1
        if page["next"] is None:
            break
        page = get(f"{root}&limit=45&cursor={quote(page['next'])}")
    assert pages > 1
    assert set(nodes) == {node["id"] for node in whole["nodes"]}
    assert set(edges) == {(edge["source"], edge["target"]) for edge in whole["edges"]}


def test_search_finds_places_to_begin_at(get: Any, world: Any) -> None:
    assert [each["label"] for each in get("lineage/search?q=late")["items"]] == [
        "late version 3",
        "late version 9",
    ]
    [found] = get("lineage/search?q=features")["items"]
    assert get(f"lineage?node={quote(found['node'])}")["root"] == found["node"]
    assert get("lineage/search?q=nothing like it")["items"] == []
    [found] = get("lineage/search?q=nameless")["items"]
    assert (found["label"], found["node"]) == ("nameless version 1", "model:m-nameless-1")
    named = get(f"lineage/search?q={quote(f'{OPEN}/{run_id(0)}/fit')}")["items"]
    assert [each["kind"] for each in named] == ["task"]


@pytest.mark.parametrize(
    "path",
    [
        "artifacts/version?name=../../etc/passwd%00",
        "artifacts/version?name=features&version_id=../../records/x",
        "artifacts/version?name=",
        "artifacts/version",
        "artifacts?limit=0",
        "artifacts?limit=201",
        "artifacts?cursor=%00",
        "artifacts/versions?name=features&cursor=..%5C..",
        f"dags/{OPEN}%00/metrics",
        f"dags/{'x' * 251}/metrics",
        f"dags/{OPEN}/metrics?cursor=%7B",
        f"{RUN}/tasks/fit?map_index=-2",
        f"{RUN}/tasks/fit?try_number=x",
        "models/late@champion",
        "models/late/timeline?clock=sun",
        "models/late/timeline?alias=v3",
        "lineage?node=version:features",
        "lineage?node=task:x",
        "lineage?node=model:m-late-1&depth=-1",
        "lineage?node=model:m-late-1&cursor=nonsense",
        "lineage?node=model:m-late-1&cursor=W10=",
        "lineage?node=model:m-late-1&direction=sideways",
    ],
)
def test_what_no_page_asks_is_refused_by_name(api: Any, world: Any, path: str) -> None:
    answer = api().get(path)

    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == "invalid"


def test_a_name_that_looks_like_a_path_stays_a_name(api: Any, world: Any, artifact_root: Any) -> None:
    (artifact_root.parent / "outside.json").write_text("{}")

    for name in ("../outside", "..", "../../versions/features", "features/../features"):
        answer = api().get(f"artifacts/versions?name={quote(name, safe='')}")
        assert answer.status_code == 404, name
    assert api().get(f"dags/{OPEN}/runs/{quote('..')}/tasks/{quote('..')}").status_code in (200, 404)


def test_a_store_that_does_not_answer_is_told(api: Any, world: Any, mocker: Any) -> None:
    from airflow_ml_provider.exceptions import StoreError

    mocker.patch.object(type(world.store.objects), "children", side_effect=StoreError("s3://key:secret@host"))
    answer = api().get("artifacts")

    assert answer.status_code == 503
    assert answer.json()["code"] == "store_unavailable"
    assert "s3://" not in answer.text


def test_a_store_that_refuses_is_opened_anew_with_the_connection_of_then(
    api: Any, world: Any, mocker: Any
) -> None:
    """An API server runs for weeks, and keys are rotated meanwhile."""
    from airflow_ml_provider.exceptions import StoreError
    from airflow_ml_provider.hooks import artifact_store

    assert api().get("artifacts").status_code == 200
    opened = mocker.spy(artifact_store, "open_store")
    listing = mocker.patch.object(type(world.store.objects), "children", side_effect=StoreError("refused"))
    assert api().get("artifacts").status_code == 503
    mocker.stop(listing)
    assert api().get("artifacts").status_code == 200
    assert opened.call_count == 1
    assert api().get("artifacts").status_code == 200
    assert opened.call_count == 1


def test_no_answer_loads_a_library_of_values(world: Any, artifact_root: Any, airflow_home: Any) -> None:
    """In a process of its own, as this one has loaded them all."""
    from tests.unit.plugins import test_api_visibility

    code = f"""
import sys
from fastapi import FastAPI
from fastapi.testclient import TestClient
from airflow.api_fastapi.app import create_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow_ml_provider.plugins.ml_plugin import MLPlugin
app = FastAPI()
for entry in MLPlugin.fastapi_apps:
    app.mount(entry["url_prefix"], entry["app"])
token = create_auth_manager().generate_jwt(SimpleAuthManagerUser(username="v", role="VIEWER"))
client = TestClient(app, base_url="http://testserver/ml-provider/api/v1/")
client.headers["Authorization"] = f"Bearer {{token}}"
before = set(sys.modules)
for path in {test_api_visibility.EVERYTHING!r}:
    answer = client.get(path)
    assert answer.status_code == 200, (path, answer.text)
loaded = {{name.partition(".")[0] for name in set(sys.modules) - before}}
heavy = {{"numpy", "pandas", "pyarrow", "polars", "sklearn", "skops", "mlflow", "torch", "scipy", "PIL"}}
print("loaded", sorted(loaded & heavy))
print("codecs", sorted(name for name in sys.modules if ".artifacts.codecs." in name))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=300
    )

    lines = done.stdout.splitlines()
    assert "loaded []" in lines
    assert "codecs ['airflow_ml_provider.artifacts.codecs.registry']" in lines
