# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shlex

import pytest

from airflow_ml_provider.lineage.blast import blast_radius
from airflow_ml_provider.lineage.graph import Lineage
from tests.unit.lineage.history import CHAMPION, History, at, flights, model, month


@pytest.fixture
def history(tmp_path):
    return History(tmp_path)


def scheduled(number):
    """The parts of a record that a monthly run has."""
    return {
        "effective_at": month(number + 1),
        "data_interval": (month(number), month(number + 1)),
        "run": {"run_type": "scheduled", "run_after": month(number + 1), "logical_date": month(number)},
    }


def lines(blast, purpose="clear"):
    return [command.shell for command in blast.commands if command.purpose == purpose]


def test_everything_that_came_from_a_bad_data_set_is_grouped(history):
    made = flights(history, 5)
    flights(history, 6, champion="m-5")
    blast = blast_radius(history.lineage, at(made["features"]))
    assert [node.id for node in blast.predictions] == [at(made["predictions"])]
    assert [node.id for node in blast.models] == ["model:m-5"]
    assert {node.mlflow_run_id for node in blast.evaluations} == {"eval5", "eval6"}
    assert {(run.dag_id, run.run_id, run.tasks) for run in blast.runs} == {
        ("training", "run5", ("fit", "evaluate", "promote")),
        ("training", "run6", ("evaluate", "promote")),
        ("scoring", "asset5", ("score",)),
    }
    assert blast.origin.task_id == "features"
    assert blast.versions == ()
    assert blast.aliases == (), "the champion is version 6 by now"
    assert [item["run_id"] for item in blast.started] == ["asset6"], "the bad baseline let it be promoted"
    assert json.loads(json.dumps(blast.to_json())) == blast.to_json()


def test_an_alias_that_points_at_a_bad_model_now_is_named(history):
    made = flights(history, 5)
    blast = blast_radius(history.lineage, at(made["features"]))
    assert blast.aliases == (
        {
            "registered_model_name": "flight_delay",
            "alias": "champion",
            "version": "5",
            "since": month(5).isoformat(),
        },
    )


def test_runs_of_a_schedule_are_cleared_task_by_task(history):
    (raw,) = history.attempt("etl/r5/load", writes=["raw"], **scheduled(5))
    (out,) = history.attempt("etl/r5/clean", reads=[raw], writes=["clean"], **scheduled(5))
    history.attempt("etl/r5/report", reads=[out], **scheduled(5))
    blast = blast_radius(history.lineage, at(raw))
    dates = "--start-date 2013-05-01T00:00:00+00:00 --end-date 2013-05-01T00:00:00+00:00"
    assert lines(blast) == [
        f"airflow tasks clear etl {dates} --task-regex clean",
        f"airflow tasks clear etl {dates} --task-regex report",
    ]
    assert lines(blast, "origin") == [f"airflow tasks clear etl {dates} --task-regex load"]
    dates = "--from-date 2013-05-01T00:00:00+00:00 --to-date 2013-05-01T00:00:00+00:00"
    assert lines(blast, "backfill") == [
        f"airflow backfill create --dag-id etl {dates} --reprocess-behavior completed"
    ]
    assert all(command.exact for command in blast.commands if command.purpose == "clear")


def test_runs_whose_intervals_touch_are_one_range(history):
    (raw,) = history.attempt("etl/r0/load", writes=["raw"])
    for number in (1, 2, 3, 5):
        history.attempt(f"use/r{number}/fit", reads=[raw], **scheduled(number))
    found = lines(blast_radius(history.lineage, at(raw)))
    assert [line.split(" --task")[0].split("use ")[1] for line in found] == [
        "--start-date 2013-01-01T00:00:00+00:00 --end-date 2013-03-01T00:00:00+00:00",
        "--start-date 2013-05-01T00:00:00+00:00 --end-date 2013-05-01T00:00:00+00:00",
    ]


def test_a_range_leaves_out_a_run_by_hand_between_two_runs(history):
    (raw,) = history.attempt("etl/r0/load", writes=["raw"])
    for number in (1, 2):
        history.attempt(f"use/r{number}/fit", reads=[raw], **scheduled(number))
    by_hand = {"run_type": "manual", "run_after": month(1), "logical_date": month(1).replace(day=9)}
    history.attempt("use/manual/fit", writes=["other"], run=by_hand, effective_at=month(1))
    assert len(lines(blast_radius(history.lineage, at(raw)))) == 2


def test_other_runs_of_a_dag_are_read_once(history, monkeypatch):
    (raw,) = history.attempt("etl/r0/load", writes=["raw"])
    for number in (1, 2):
        history.attempt(f"use/r{number}/fit", reads=[raw], **scheduled(number))
    history.attempt("use/r4/fit", writes=["other"], **scheduled(4))
    read, asked = history.store.objects.get_json, []
    monkeypatch.setattr(history.store.objects, "get_json", lambda key: asked.append(key) or read(key))
    blast_radius(Lineage(history.store), at(raw))
    assert len([key for key in asked if key.startswith("runs/use/")]) == 1


def test_a_task_whose_id_is_in_another_one_is_not_cleared_in_silence(history):
    (raw,) = history.attempt("etl/r5/load", writes=["raw"], **scheduled(5))
    history.attempt("etl/r5/fit", reads=[raw], **scheduled(5))
    history.attempt("etl/r5/refit", reads=[raw], **scheduled(5))
    history.attempt("etl/r5/fit_other", writes=["other"], **scheduled(5))
    (command,) = [each for each in blast_radius(history.lineage, at(raw)).commands if each.purpose == "clear"]
    assert command.tasks == ("fit", "refit"), "one command clears both"
    assert not command.exact
    assert command.note == "also clears fit_other, whose ids hold 'fit'"
    assert command.api[0]["json"]["task_ids"] == ["fit", "refit"]


def test_some_instances_of_a_mapped_task_are_cleared_with_the_others(history):
    parts = [
        history.attempt("etl/r5/load", writes=[f"raw{n}"], map_index=n, **scheduled(5))[0] for n in range(3)
    ]
    for number, part in enumerate(parts):
        history.attempt("etl/r5/fit", reads=[part], map_index=number, **scheduled(5))
    (command,) = [
        each for each in blast_radius(history.lineage, at(parts[1])).commands if each.purpose == "clear"
    ]
    assert not command.exact
    assert command.note == "clears all mapped instances of fit"
    assert command.api[0]["json"]["task_ids"] == [["fit", 1]]


def test_a_run_without_a_logical_date_is_cleared_as_a_whole(history):
    made = flights(history, 5)
    history.attempt("scoring/asset5/publish", writes=["page"])
    blast = blast_radius(history.lineage, at(made["features"]))
    (command,) = [each for each in blast.commands if each.dag_id == "scoring"]
    assert command.argv == ("airflow", "dags", "clear", "scoring", "--run-id", "asset5")
    assert not command.exact
    assert command.note.startswith("clears the whole run, also publish; it reads what its events name")


def test_commands_are_quoted_for_a_shell(history):
    (raw,) = history.attempt("etl/r/load", writes=["raw"])
    history.attempt("a b'; rm -rf x/run; id/task $(x)", reads=[raw])
    (line,) = lines(blast_radius(history.lineage, at(raw)))
    assert shlex.split(line) == ["airflow", "dags", "clear", "a b'; rm -rf x", "--run-id", "run; id"]


def test_a_dag_is_cleared_after_the_one_whose_results_it_used(history):
    (raw,) = history.attempt("z_first/r/load", writes=["raw"])
    (mid,) = history.attempt("m_second/r/a", reads=[raw], writes=["mid"])
    history.attempt("a_third/r/b", reads=[mid])
    blast = blast_radius(history.lineage, at(raw))
    assert [run.dag_id for run in blast.runs] == ["m_second", "a_third"]
    assert any("in this order" in note for note in blast.notes)


def test_a_bad_model_names_its_training_as_origin(history):
    flights(history, 5)
    blast = blast_radius(history.lineage, "model:m-5")
    assert blast.origin.task_id == "fit"
    assert {run.dag_id for run in blast.runs} == {"training", "scoring"}
    assert ("features",) not in {run.tasks for run in blast.runs}


def test_nothing_came_from_it(history):
    (raw,) = history.attempt("etl/r/load", writes=["raw"])
    blast = blast_radius(history.lineage, at(raw))
    assert (blast.runs, blast.models, blast.predictions, blast.notes) == ((), (), (), ())
    assert [command.purpose for command in blast.commands] == ["origin"]


def test_what_is_cut_off_or_hidden_is_said(history):
    made = flights(history, 5)
    blast = blast_radius(history.lineage, at(made["features"]), limit=3)
    assert blast.truncated
    assert blast.notes[0] == "only the first 3 nodes were looked at; there is more"
    own = Lineage(history.store, may_read=lambda dag_id: dag_id == "training")
    blast = blast_radius(own, at(made["features"]))
    assert blast.hidden == 1
    assert "scoring" not in json.dumps(blast.to_json()).replace("not followed", "")


def test_an_evaluation_made_with_a_bad_model_counts(history):
    history.attempt(
        "nightly/r/evaluate",
        models_read=(model("m-5", "evaluated", "5"),),
        evaluation={"mlflow_run_id": "e", "metrics": {}, "model_id": "m-5"},
        outlets=(CHAMPION,),
    )
    flights(history, 5)
    blast = blast_radius(history.lineage, "models:m-5".replace("models", "model"))
    assert "e" in {node.mlflow_run_id for node in blast.evaluations}
