# SPDX-License-Identifier: Apache-2.0
"""Parents: who is below whom, what they say of their children, and which one they show as the best."""

from __future__ import annotations

import time
from contextvars import copy_context

import pytest

from airflow_ml_provider.tracking.identity import TaskIdentity
from airflow_ml_provider.tracking.parents import (
    BEST_RUN_TAG,
    FOLDER_TAG,
    Best,
    mirror_status,
    show_best,
)
from airflow_ml_provider.tracking.runs import find_run, task_run

ACCURACY = Best("accuracy", larger_is_better=True)


@pytest.fixture
def opened(client, name):
    """Opens the run of a task instance."""

    def run(task_id="fit", map_index=-1, try_number=1, client=client, **options):
        identity = TaskIdentity("d", "r1", task_id, map_index=map_index, try_number=try_number, slice="May")
        return task_run(client, experiment=name, identity=identity, **options)

    return run


@pytest.fixture
def parent(client, name):
    """Gives a parent by its key."""

    def find(key="d/r1/fit"):
        return find_run(client, client.get_experiment_by_name(name).experiment_id, key)

    return find


def above(client, run_id):
    return client.get_run(run_id).data.tags.get("mlflow.parentRunId")


def failing(context, work=lambda run: None):
    try:
        with context as run:
            work(run)
            raise ValueError("no")
    except ValueError:
        return run


def test_a_dag_run_groups_its_tasks_and_mapped_ones_twice(client, opened, parent):
    with opened("features", group=True) as features:
        pass
    with opened(map_index=0, group=True) as first, opened(map_index=1, group=True) as second:
        pass
    top, middle = parent("d/r1/"), parent()
    assert top.info.run_name == "d May"
    assert above(client, features.run_id) == top.info.run_id
    assert above(client, first.run_id) == above(client, second.run_id) == middle.info.run_id
    assert above(client, middle.info.run_id) == top.info.run_id
    assert {top.info.status, middle.info.status} == {"FINISHED"}


def test_a_run_on_its_own_has_no_parent(client, opened, parent):
    with opened() as run:
        pass
    assert above(client, run.run_id) is None
    assert parent("d/r1/") is None


def test_a_parent_is_failed_until_the_last_failure_below_it_is_mended(client, opened, parent):
    for index in (0, 1):
        failing(opened(map_index=index, group=True))
    assert (parent().info.status, parent("d/r1/").info.status) == ("FAILED", "FAILED")
    with opened(map_index=0, try_number=2, group=True):
        pass
    assert parent().info.status == "FAILED"
    with opened(map_index=1, try_number=2, group=True) as run:
        run.log_params({"depth": 6})
    assert (parent().info.status, parent("d/r1/").info.status) == ("FINISHED", "FINISHED")


def test_a_failure_that_was_superseded_does_not_count(client, opened, parent):
    run = failing(opened(map_index=0), lambda run: run.log_params({"depth": 6}))
    with opened(map_index=0, try_number=2) as again:
        again.log_params({"depth": 7})
    assert again.run_id != run.run_id
    assert parent().info.status == "FINISHED"


class Instance:
    """The run of a task instance among others that are open too, as if it were in a process of its own."""

    def __init__(self, manager):
        self._manager, self._context = manager, copy_context()

    def open(self):
        return self._context.run(self._manager.__enter__)

    def close(self):
        self._context.run(self._manager.__exit__, None, None, None)


class Slow:
    """A client of a task instance that is held up right before, or right after, it makes a parent."""

    def __init__(self, client, meanwhile, *, after=False):
        self._client, self._meanwhile, self._after = client, meanwhile, after

    def __getattr__(self, attribute):
        return getattr(self._client, attribute)

    def create_run(self, experiment_id, start_time=None, tags=None, **options):
        meanwhile = None
        if FOLDER_TAG in tags and self._meanwhile:
            meanwhile, self._meanwhile = self._meanwhile, None
            start_time = int(time.time() * 1000) - 5  # the clock of its own machine
            if not self._after:
                meanwhile()
        made = self._client.create_run(experiment_id, start_time=start_time, tags=tags, **options)
        if meanwhile and self._after:
            meanwhile()
        return made


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("first_ends", ["first", "last", "before the other starts"])
def test_of_two_parents_that_are_made_at_once_one_is_left(client, name, opened, parent, group, first_ends):
    options = {"group": group, "best": ACCURACY, "fluent": False}
    first = Instance(opened(map_index=0, **options))
    runs = {}

    def meanwhile():
        runs[0] = first.open()
        runs[0].log_metrics({"accuracy": 0.9})
        if first_ends == "before the other starts":
            first.close()

    last = Instance(opened(map_index=1, client=Slow(client, meanwhile), **options))
    runs[1] = last.open()
    runs[1].log_metrics({"accuracy": 0.8})
    assert len(folders(client, name)) >= 1
    for each in (first, last) if first_ends != "last" else (last, first):
        if each is last or first_ends != "before the other starts":
            each.close()

    assert len(folders(client, name)) == (2 if group else 1)
    left = parent()
    assert {above(client, run.run_id) for run in runs.values()} == {left.info.run_id}
    assert (left.data.metrics["accuracy"], left.data.tags[BEST_RUN_TAG]) == (0.9, runs[0].run_id)
    if group:
        assert above(client, left.info.run_id) == parent("d/r1/").info.run_id


class Blind:
    """A client of a task instance that looked for a parent right before another made one."""

    def __init__(self, client):
        self._client, self._looked = client, set()

    def __getattr__(self, attribute):
        return getattr(self._client, attribute)

    def search_runs(self, experiment_ids, filter_string, **options):
        if filter_string.endswith(("/r1/'", "/fit'")) and filter_string not in self._looked:
            self._looked.add(filter_string)
            return []
        return self._client.search_runs(experiment_ids, filter_string, **options)

    def create_run(self, experiment_id, tags=None, **options):
        at = int(time.time() * 1000) - (60_000 if FOLDER_TAG in tags else 0)  # a clock that is behind
        return self._client.create_run(experiment_id, start_time=at, tags=tags, **options)


class HeldUp:
    """A client of a task instance that is held up between its parent and its own run."""

    def __init__(self, client, meanwhile):
        self._client, self._meanwhile = client, meanwhile

    def __getattr__(self, attribute):
        return getattr(self._client, attribute)

    def create_run(self, experiment_id, tags=None, **options):
        if FOLDER_TAG not in tags:
            self._meanwhile()
        return self._client.create_run(experiment_id, tags=tags, **options)


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_parents_that_are_both_taken_for_the_only_one_one_is_left(
    client, name, opened, parent, group, order
):
    options = {"group": group, "best": ACCURACY, "fluent": False}
    instances, runs = {}, {}

    def meanwhile():
        instances[1] = Instance(opened(map_index=1, client=Blind(client), **options))
        runs[1] = instances[1].open()
        runs[1].log_metrics({"accuracy": 0.8})

    instances[0] = Instance(opened(map_index=0, client=HeldUp(client, meanwhile), **options))
    runs[0] = instances[0].open()
    runs[0].log_metrics({"accuracy": 0.9})
    assert len({above(client, run.run_id) for run in runs.values()}) == 2
    for index in order:
        instances[index].close()

    assert len(folders(client, name)) == (2 if group else 1)
    left = parent()
    assert {above(client, run.run_id) for run in runs.values()} == {left.info.run_id}
    assert (left.data.metrics["accuracy"], left.data.tags[BEST_RUN_TAG]) == (0.9, runs[0].run_id)
    if group:
        assert above(client, left.info.run_id) == parent("d/r1/").info.run_id


def test_a_run_below_a_parent_that_its_maker_deleted_goes_where_the_others_are(client, name, opened, parent):
    instances: list[Instance] = []
    runs = []

    def open_another(index, **options):
        instances.append(Instance(opened(map_index=index, fluent=False, **options)))
        runs.append(instances[-1].open())

    def meanwhile():  # one finds the new parent, and an earlier one appears before its maker looks again
        open_another(1)
        late = int(time.time() * 1000) - 60_000
        experiment = client.get_experiment_by_name(name).experiment_id
        tags = {"airflow.key": "d/r1/fit", FOLDER_TAG: "mapped task"}
        other = client.create_run(experiment, start_time=late, tags=tags)
        client.create_run(experiment, tags={"mlflow.parentRunId": other.info.run_id})

    open_another(0, client=Slow(client, meanwhile, after=True))
    for instance in instances:
        instance.close()
    assert len(folders(client, name)) == 1
    assert {above(client, run.run_id) for run in runs} == {parent().info.run_id}


def folders(client, name):
    experiment = client.get_experiment_by_name(name).experiment_id
    return client.search_runs([experiment], f"tags.`{FOLDER_TAG}` LIKE '%'")


def test_a_parent_that_somebody_else_made_keeps_its_status(client, name, opened):
    experiment = client.create_experiment(name)
    foreign = client.create_run(experiment)
    mirror_status(client, foreign.info.run_id, failed=True)
    assert client.get_run(foreign.info.run_id).info.status == "RUNNING"


def test_the_parent_shows_the_best_of_its_finished_runs(client, opened, parent):
    runs = {}
    for index, value in enumerate((0.7, 0.9, 0.8)):
        with opened(map_index=index, best=ACCURACY) as runs[index]:
            runs[index].log_metrics({"accuracy": value})
    failing(opened(map_index=3, best=ACCURACY), lambda run: run.log_metrics({"accuracy": 0.99}))
    with opened(map_index=4, best=ACCURACY):  # it measured nothing
        pass
    shown = parent()
    assert shown.data.metrics["accuracy"] == 0.9
    assert shown.data.tags[BEST_RUN_TAG] == runs[1].run_id
    assert shown.data.tags["airflow.best_map_index"] == "1"
    assert "accuracy = 0.9, map index 1" in shown.data.tags["mlflow.note.content"]


def test_a_best_run_that_is_repeated_and_is_worse_gives_way(client, opened, parent):
    for index, value, attempt in ((0, 0.7, 1), (1, 0.9, 1), (1, 0.5, 2)):
        with opened(map_index=index, try_number=attempt, best=ACCURACY) as run:
            run.log_metrics({"accuracy": value}, step=attempt)
    assert parent().data.metrics["accuracy"] == 0.7
    assert parent().data.tags["airflow.best_map_index"] == "0"


def test_a_sibling_that_overwrites_the_best_with_an_older_finding_corrects_it(
    client, opened, parent, monkeypatch
):
    with opened(map_index=0) as worse:
        worse.log_metrics({"loss": 0.5})
    loss = Best.of(("loss", "min"))
    real = client.log_batch
    better = {}

    def late(run_id, **what):
        if not better:  # between our look and our write, a better run ends and is noted
            with opened(map_index=1) as better["run"]:
                pass
            real(better["run"].run_id, metrics=[_metric("loss", 0.1)])
            show_best(client, parent().info.run_id, loss)
        real(run_id, **what)

    monkeypatch.setattr(client, "log_batch", late, raising=False)
    assert show_best(client, parent().info.run_id, loss) == better["run"].run_id
    assert parent().data.metrics["loss"] == 0.1


def _metric(key, value):
    from mlflow.entities import Metric

    return Metric(key, value, 1, 0)


def test_a_parent_without_measured_runs_shows_none(client, opened, parent):
    with opened(map_index=0):
        pass
    assert show_best(client, parent().info.run_id, ACCURACY) is None


@pytest.mark.parametrize(
    ("given", "larger"),
    [("roc_auc", True), ("log_loss", False), (("log_loss", "max"), True), (("profit", "max"), True)],
)
def test_the_direction_of_the_best(given, larger):
    assert Best.of(given).larger_is_better is larger


@pytest.mark.parametrize("given", ["profit", "", ("profit", "up"), ("a", "b", "c"), 3])
def test_an_unknown_direction_is_asked_for(given):
    with pytest.raises(ValueError, match="best"):
        Best.of(given)
    assert Best.of(None) is None
