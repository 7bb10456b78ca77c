# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.collection import Retention, execute, plan
from airflow_ml_provider.exceptions import ArtifactNotFoundError, ModelNotFoundError
from airflow_ml_provider.lineage.graph import Lineage, node_of_event, node_of_run
from tests.unit.lineage.history import CHAMPION, History, at, flights, model, month, task


@pytest.fixture
def history(tmp_path):
    return History(tmp_path)


def ids(graph):
    return {node.id for node in graph.nodes}


def kinds(graph):
    return {(edge.source, edge.target): edge.kind for edge in graph.edges}


def up(history, root, **kwargs):
    return history.lineage.explore(root, direction="up", **kwargs)


def down(history, root, **kwargs):
    return history.lineage.explore(root, direction="down", **kwargs)


def test_a_prediction_leads_back_to_data_model_training_and_the_event_that_started_it(history):
    made = flights(history, 5)
    graph = up(history, at(made["predictions"]))
    event = node_of_event(CHAMPION, {"dag_id": "training", "run_id": "run5", "task_id": "promote"}, None)
    assert ids(graph) == {
        at(made["predictions"]),
        task("scoring/asset5/score"),
        at(made["features"]),
        "model:m-5",
        task("training/run5/fit"),
        task("training/run5/features"),
        node_of_run("scoring", "asset5"),
        event,
        task("training/run5/promote"),
        "evaluation:eval5",
        task("training/run5/evaluate"),
        at(made["holdout"]),
    }
    assert kinds(graph)[task("training/run5/fit"), "model:m-5"] == "trained"
    assert kinds(graph)["model:m-5", task("scoring/asset5/score")] == "scored"
    assert kinds(graph)["model:m-5", task("training/run5/promote")] == "promoted"
    assert kinds(graph)[at(made["holdout"]), task("training/run5/evaluate")] == "handed"
    assert kinds(graph)["evaluation:eval5", task("training/run5/promote")] == "decided"
    assert kinds(graph)[event, node_of_run("scoring", "asset5")] == "triggered"
    assert not graph.truncated
    assert not any(node.missing for node in graph.nodes)


def test_without_events_only_data_lead_back(history):
    made = flights(history, 5)
    graph = up(history, at(made["predictions"]), events=False)
    assert {node.kind for node in graph.nodes} == {"version", "task", "model"}
    assert task("training/run5/promote") not in ids(graph)


def test_a_data_set_leads_to_everything_that_came_from_it_in_other_dags_too(history):
    made = flights(history, 5)
    flights(history, 6, champion="m-5")
    graph = down(history, at(made["features"]))
    assert {task("scoring/asset5/score"), "model:m-5", at(made["predictions"])} <= ids(graph)
    assert task("training/run6/evaluate") in ids(graph), "the champion of May was the baseline of June"
    assert "model:m-6" not in ids(graph)
    assert kinds(graph)["model:m-5", task("training/run6/evaluate")] == "baseline"
    assert graph.node(at(made["predictions"])).prediction
    assert not graph.node(at(made["features"])).prediction


def test_nodes_tell_who_made_them_when_and_how_it_went(history):
    made = flights(history, 5)
    graph = up(history, at(made["predictions"]))
    found = graph.node("model:m-5")
    assert (found.registered_model_name, found.version, found.task_id) == ("flight_delay", "5", "fit")
    assert found.metrics == {"train_auc": 0.8}
    assert found.effective_at == month(5).isoformat()
    evaluation = graph.node("evaluation:eval5")
    assert evaluation.metrics == {"roc_auc": 0.75}
    assert evaluation.label == "evaluation of flight_delay version 5", "which it became afterwards"
    (alone,) = history.lineage.explore("evaluation:eval5", depth=0).nodes
    assert alone.label == "evaluation of models:/m-5"
    version = graph.node(at(made["features"]))
    assert (version.dag_id, version.task_id, version.type) == ("training", "features", "bytes")
    assert version.effective_at == month(5).isoformat()
    promote = graph.node(task("training/run5/promote"))
    assert promote.details["decision"]["verdict"] == "promoted"
    assert promote.outcome == "success"


def test_the_answer_is_plain_json(history):
    made = flights(history, 5)
    doc = up(history, at(made["predictions"]), limit=3).to_json()
    assert json.loads(json.dumps(doc)) == doc
    assert doc["nodes"][0]["more"] == {"up": False, "down": False}


def test_a_diamond_is_walked_once(history):
    (raw,) = history.attempt("d/r/raw", writes=["raw"])
    (left,) = history.attempt("d/r/left", reads=[raw], writes=["left"])
    (right,) = history.attempt("d/r/right", reads=[raw], writes=["right"])
    (joined,) = history.attempt("d/r/join", reads=[left, right], writes=["joined"])
    graph = down(history, at(raw))
    assert len(graph.nodes) == len(ids(graph)) == 8 - 1
    assert len(graph.edges) == 2 + 2 + 2 + 1
    assert ids(up(history, at(joined))) == ids(graph) | {task("d/r/raw")}


def test_a_task_that_reads_what_an_earlier_try_of_it_wrote_is_no_endless_loop(history):
    (state,) = history.attempt("d/r/again", writes=["state"])
    (after,) = history.attempt("d/r/again", reads=[state], writes=["state"], try_number=2)
    (own,) = history.attempt("d/r/own", writes=["own"])
    history.attempt("d/r/own", reads=[own])  # the same try, written again after it was replayed
    assert ids(down(history, at(state))) == {at(state), task("d/r/again", try_number=2), at(after)}
    assert ids(up(history, at(after))) >= {at(state), task("d/r/again")}
    graph = history.lineage.explore(at(own))
    assert ids(graph) == {at(own), task("d/r/own")}


def test_an_evaluation_that_is_made_again_in_its_mlflow_run_has_two_makers(history):
    for number, run in enumerate(("first", "remade"), 1):
        history.attempt(
            f"training/{run}/evaluate",
            models_read=(model(f"m-{number}", "evaluated"),),
            evaluation={"mlflow_run_id": "slice", "metrics": {"auc": number}, "model_id": f"m-{number}"},
        )
    graph = up(history, "evaluation:slice")
    assert {task("training/first/evaluate"), task("training/remade/evaluate")} <= ids(graph)
    assert graph.node("evaluation:slice").metrics == {"auc": 2}, "the latest one counts"


def test_the_hundred_readers_of_a_mapped_task_come_in_pages(history):
    (data,) = history.attempt("d/r/produce", writes=["data"])
    for index in range(100):
        history.attempt("d/r/consume", reads=[data], writes=[f"part{index % 2}"], map_index=index)
    whole = down(history, at(data))
    assert len(whole.nodes) == 201
    assert not whole.truncated

    page = down(history, at(data), limit=40)
    seen, edges, rounds = ids(page), set(page.edges), 1
    assert len(page.nodes) == 40
    assert page.truncated
    while page.truncated:
        pending = json.loads(json.dumps(page.to_json()["continuation"]))
        page = history.lineage.explore(pending=pending, direction="down", limit=40)
        seen |= ids(page)
        edges |= set(page.edges)
        rounds += 1
        assert rounds < 20
    assert seen == ids(whole)
    assert edges == set(whole.edges)


def test_an_answer_within_a_depth_says_where_more_is(history):
    made = flights(history, 5)
    graph = history.lineage.explore(at(made["features"]), depth=1)
    assert ids(graph) == {
        at(made["features"]),
        task("training/run5/features"),
        task("training/run5/fit"),
        task("scoring/asset5/score"),
    }
    assert not graph.truncated, "it was asked for no more"
    root, fit = graph.node(at(made["features"])), graph.node(task("training/run5/fit"))
    assert (root.more_up, root.more_down) == (False, False)
    assert (fit.more_up, fit.more_down) == (False, True)
    assert graph.node(task("training/run5/features")).more_down, "the holdout is not shown"


def test_a_version_that_is_gone_is_shown_as_such(history):
    (raw,) = history.attempt("d/r/raw", writes=["raw"])
    history.attempt("d/r/read", reads=[raw], writes=["out"])
    history.store.objects.delete([keys.version_key("raw", raw.version_id)])
    found = history.lineage.explore(at(raw)).node(at(raw))
    assert found.missing == "its manifest is gone, and garbage collection does not know of it"
    assert (found.task_id, found.type) == ("raw", "bytes"), "its reader remembers who wrote it"
    assert task("d/r/raw") in ids(up(history, at(raw)))


def test_a_version_that_garbage_collection_removed_is_a_link_still(history):
    (raw,) = history.attempt("d/r/raw", writes=["raw"])
    history.attempt("d/r/raw", writes=["raw"], try_number=2)
    store, now = history.store, datetime.now(UTC) + timedelta(days=2)
    policy = Retention(keep_last=1)
    execute(plan(store.objects, store.signer, policy=policy, now=now), now=now)
    found = up(history, at(raw)).node(at(raw))
    assert found.missing == (
        f"garbage collection removed it on {now.isoformat()}: number 2 of its name, and the last 1 are kept"
    )
    assert (found.task_id, found.type, found.size_bytes) == ("raw", "bytes", len("d/r/raw raw"))
    assert task("d/r/raw") in ids(up(history, at(raw)))


def test_an_attempt_without_a_record_is_shown_as_a_broken_link(history):
    (raw,) = history.attempt("d/r/raw", writes=["raw"])
    history.store.objects.delete([keys.record_key("d", "r", "raw", -1, 1)])
    graph = up(history, at(raw))
    assert graph.node(task("d/r/raw")).missing.startswith("it left no record")
    assert kinds(graph) == {(task("d/r/raw"), at(raw)): "wrote"}


def test_what_came_from_outside_says_so(history):
    saved = history.store.save(b"by a script", "script")
    history.attempt("d/r/use", reads=[saved], models_read=(model("m-foreign", "scored", "9"),))
    graph = up(history, task("d/r/use"))
    assert graph.node(at(saved)).missing is None
    assert graph.node(at(saved)).details == {"origin": "saved outside of a task"}
    assert graph.node("model:m-foreign").missing == (
        "no record of its training: it came from outside of Airflow"
    )


def test_a_model_that_was_promoted_many_times_still_knows_its_training(history):
    for number in range(50):
        history.attempt(f"deploy/r{number:02}/promote", models_written=(model("m-1", "promoted", "1"),))
        history.attempt(f"score/r{number:02}/score", models_read=(model("m-1", "scored", "1"),))
    (data,) = history.attempt("training/r/load", writes=["data"])
    history.attempt("training/r/fit", reads=[data], models_written=(model("m-1", "trained"),))

    assert {task("training/r/fit"), at(data)} <= ids(up(history, "model:m-1"))
    assert up(history, "model:m-1").node("model:m-1").missing is None
    whole = down(history, at(data))
    assert {task(f"deploy/r{number:02}/promote") for number in range(50)} <= ids(whole)
    assert len(whole.nodes) == 103

    page = down(history, at(data), limit=30)
    seen, edges, rounds = ids(page), set(page.edges), 1
    while page.truncated:
        page = history.lineage.explore(pending=page.to_json()["continuation"], direction="down", limit=30)
        seen |= ids(page)
        edges |= set(page.edges)
        rounds += 1
        assert rounds < 20
    assert seen == ids(whole)
    assert edges == set(whole.edges)


def test_a_reused_result_leads_to_the_run_that_reused_it(history):
    (features,) = history.attempt("d/first/features", writes=["features"])
    history.attempt("d/second/features", reused=[features], cached={"hit": True, "why": "same"})
    history.attempt("d/second/fit", reads=[features], models_written=(model("m-1", "trained"),))
    graph = down(history, at(features))
    assert kinds(graph)[at(features), task("d/second/features")] == "reused"
    assert "model:m-1" in ids(graph)
    assert task("d/first/features") in ids(up(history, "model:m-1"))


def test_nodes_of_dags_that_the_caller_may_not_see_are_counted_and_not_crossed(history):
    made = flights(history, 5)
    own = Lineage(history.store, may_read=lambda dag_id: dag_id == "training")
    graph = own.explore(at(made["features"]), direction="down")
    assert graph.hidden > 0
    assert "scoring" not in json.dumps(graph.to_json())
    other = Lineage(history.store, may_read=lambda dag_id: dag_id == "scoring")
    graph = other.explore(at(made["predictions"]), direction="up")
    assert {node.dag_id for node in graph.nodes} == {"scoring"}
    assert "training" not in json.dumps([node.to_json() for node in graph.nodes])


def test_a_dag_run_shows_what_its_tasks_touched(history):
    made = flights(history, 5)
    history.attempt("training/run5/features", writes=["features"], try_number=2)
    graph = history.lineage.run("training", "run5")
    tries = {node.try_number for node in graph.nodes if node.task_id == "features" and node.kind == "task"}
    assert tries == {2}
    assert {"model:m-5", "evaluation:eval5"} <= ids(graph)
    assert at(made["predictions"]) not in ids(graph)


@pytest.mark.parametrize(
    ("what", "found"),
    [
        pytest.param("models:/flight_delay/5", "model:m-5", id="a registered version"),
        pytest.param("models:/flight_delay@champion", "model:m-5", id="an alias"),
        pytest.param("mlflow://flight_delay/champion", "model:m-5", id="the asset of an alias"),
        pytest.param("models:/m-5", "model:m-5", id="a model id"),
        pytest.param("model:m-5", "model:m-5", id="a node"),
        pytest.param("training/run5/fit", task("training/run5/fit"), id="a task"),
        pytest.param("training/run5/fit/-1/1", task("training/run5/fit"), id="an attempt"),
    ],
)
def test_a_node_is_found_by_what_people_call_it(history, what, found):
    flights(history, 5)
    assert history.lineage.find(what) == found


def test_a_task_that_is_not_found_is_no_missing_artifact(history):
    history.attempt("training/r/fit", writes=["part"], map_index=3)
    history.attempt("training/r/fit", writes=["part"], map_index=12)
    history.attempt("d/r/load", writes=["by/some/team"], effective_at=month(5))
    with pytest.raises(ArtifactNotFoundError, match="had no version at 2013-04-01"):
        history.lineage.find("by/some/team", as_of=month(4))
    with pytest.raises(ArtifactNotFoundError, match=r"'training/r/fit'.* mapped, .*: training/r/fit/3$"):
        history.lineage.find("training/r/fit")
    with pytest.raises(ArtifactNotFoundError, match=r"artifact 'training/r/other' .* nor did a task"):
        history.lineage.find("training/r/other")


def test_versions_are_found_by_name_and_time(history):
    may, june = (flights(history, number)["features"] for number in (5, 6))
    lineage = history.lineage
    assert lineage.find("features") == at(june)
    assert lineage.find("ml-artifact://features") == at(june)
    assert lineage.find(may.uri) == at(may)
    assert lineage.find("features", as_of=month(5)) == at(may)
    assert lineage.find("models:/flight_delay@champion", as_of=month(5)) == "model:m-5"


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("nothing", ArtifactNotFoundError),
        ("no/such/task", ArtifactNotFoundError),
        ("models:/flight_delay/7", ModelNotFoundError),
        ("models:/flight_delay@nobody", ModelNotFoundError),
        ("ml-artifact://features?version=7", ValueError),
        ("task:x", ValueError),
        ("version:features@7", ValueError),
    ],
)
def test_what_is_not_there_is_an_error(history, what, error):
    flights(history, 5)
    with pytest.raises(error):
        history.lineage.find(what)


def test_awkward_ids_survive(history):
    place = "dag/with%2Fslash"
    (out,) = history.attempt("dä g/run 1#2/täsk.with.dots", writes=["nämé/with slash@x"])
    long = "t" * 230
    (end,) = history.attempt(f"dag/{'r' * 230}/{long}", reads=[out], writes=["end"])
    graph = down(history, at(out))
    assert {node.task_id for node in graph.nodes if node.kind == "task"} == {long}
    assert at(end) in ids(graph)
    root = graph.node(at(out))
    assert (root.name, root.dag_id, root.run_id) == ("nämé/with slash@x", "dä g", "run 1#2")
    assert place not in ids(graph)


def test_requests_are_proportional_to_the_answer(history, monkeypatch):
    for number in range(1, 12):
        made = flights(history, number)
    asked = []
    for name in ("get_json", "list"):
        real = getattr(history.store.objects, name)
        monkeypatch.setattr(
            history.store.objects,
            name,
            lambda *args, _real=real, **kwargs: asked.append(args) or _real(*args, **kwargs),
        )
    graph = up(history, at(made["predictions"]))
    assert len(graph.nodes) == 12
    assert len(asked) <= 5 * len(graph.nodes)


@pytest.mark.parametrize(
    "arguments",
    [{"direction": "sideways"}, {"limit": 0}, {"depth": -1}],
)
def test_a_walk_without_sense_is_refused(history, arguments):
    with pytest.raises(ValueError, match=r"direction must be|limit is at least"):
        history.lineage.explore("model:m-1", **arguments)


@pytest.mark.parametrize(
    "pending",
    [[], [{"node": "model:x", "direction": "both"}], [{"node": "nothing", "direction": "up"}]],
)
def test_a_continuation_that_is_none_is_refused(history, pending):
    with pytest.raises(ValueError, match=r"earlier answer|not the id of a node"):
        history.lineage.explore(pending=pending)
