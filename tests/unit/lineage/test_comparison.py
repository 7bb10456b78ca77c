# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from typing import Any

from airflow_ml_provider.lineage.comparison import compare
from airflow_ml_provider.lineage.records import TaskRecord, VersionUse


def use(name: str, version: str, digest: str) -> VersionUse:
    return VersionUse(name, version, digest, "t", 1)


def record(
    run: int, task_id: str = "fit", map_index: int = -1, try_number: int = 1, **facts: Any
) -> TaskRecord:
    return TaskRecord("d", f"run {run}", task_id, map_index, try_number, "success", **facts)


def test_runs_are_laid_side_by_side_and_what_differs_is_told() -> None:
    first = [
        record(1, "load", writes=(use("raw", "v1", "d1"),)),
        record(
            1,
            params={"depth": 3, "seed": 1},
            metrics={"auc": 0.7},
            reads=(use("raw", "v1", "d1"), use("holidays", "h1", "same")),
            models_written=({"model_id": "m-1", "version": "1", "role": "trained"},),
            code={"function": "fit", "git": {"commit": "a"}},
            environment={"hostname": "a", "python": "3.11", "packages": {"pandas": "3.0"}},
        ),
    ]
    second = [
        record(2, "load", try_number=1),
        record(2, "load", try_number=2, writes=(use("raw", "v2", "d2"),)),
        record(
            2,
            params={"depth": "3", "seed": 2},
            metrics={"auc": 0.8},
            reads=(use("raw", "v2", "d2"), use("holidays", "h2", "same")),
            models_written=({"model_id": "m-2", "version": "2", "role": "trained"},),
            code={"function": "fit", "git": {"commit": "b"}},
            environment={"hostname": "b", "python": "3.11", "packages": {"pandas": "3.1"}},
        ),
        record(2, "evaluate", 0, metrics={"roc_auc": 0.6}, code={"function": "evaluate"}),
    ]
    found = compare([first, second])
    assert {
        (each.task_id, each.map_index, each.what, each.name, each.values) for each in found if not each.same
    } == {
        ("load", -1, "written", "raw", ("v1", "v2")),
        ("fit", -1, "param", "seed", (1, 2)),
        ("fit", -1, "metric", "auc", (0.7, 0.8)),
        ("fit", -1, "read", "raw", ("v1", "v2")),
        ("fit", -1, "model", "written trained", ("1", "2")),
        ("fit", -1, "code", "git.commit", ("a", "b")),
        ("fit", -1, "environment", "packages.pandas", ("3.0", "3.1")),
        ("evaluate", 0, "outcome", "", (None, "success")),
        ("evaluate", 0, "metric", "roc_auc", (None, 0.6)),
    }
    same = {(each.what, each.name) for each in found if each.same}
    assert ("read", "holidays") in same  # another version of the same content
    assert ("param", "depth") in same
    assert ("environment", "hostname") not in {(each.what, each.name) for each in found}
    json.dumps([each.to_json() for each in found])


def test_a_run_is_the_same_as_itself() -> None:
    run = [record(1, metrics={"auc": float("nan")}, reads=(use("a", "1", "x"), use("a", "2", "y")))]
    assert all(each.same for each in compare([run, run]))
    assert compare([[], []]) == []


def test_what_a_task_reused_it_gave_like_what_it_wrote() -> None:
    computed = record(1, writes=(use("features", "v1", "d1"),))
    reused = record(2, reused=(use("features", "v1", "d1"),))
    assert all(each.same for each in compare([[computed], [reused]]))


def test_a_task_that_was_handed_several_models_is_compared_by_all_of_them() -> None:
    def choose(run: int, *ids: str) -> list[TaskRecord]:
        models = tuple({"model_id": each, "model_uri": f"models:/{each}", "role": "input"} for each in ids)
        return [record(run, "choose", models_read=models)]

    (found,) = (
        each for each in compare([choose(1, "m-1", "m-3"), choose(2, "m-2", "m-3")]) if each.what == "model"
    )
    assert not found.same
    assert found.values == (["models:/m-1", "models:/m-3"], ["models:/m-2", "models:/m-3"])
    assert all(each.same for each in compare([choose(1, "m-1", "m-3"), choose(2, "m-3", "m-1")]))
