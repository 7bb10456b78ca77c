# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.refs import Producer
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import ArtifactCorruptError, ArtifactNotFoundError
from airflow_ml_provider.lineage.answers import Measured, flat, latest_attempts
from airflow_ml_provider.lineage.index import index_attempt
from airflow_ml_provider.lineage.queries import Queries
from airflow_ml_provider.lineage.records import TaskRecord, VersionUse, write_record
from airflow_ml_provider.tracking.ledger import AliasMove

START = datetime(2013, 2, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(f"file://{tmp_path}/root", signing_key=b"k" * 32)


@pytest.fixture
def asked(store, monkeypatch):
    """Count the requests to the storage."""
    counts = Counter()
    for name in ("get_json", "list", "children", "size"):
        real = getattr(store.objects, name)

        def call(*args, _name=name, _real=real, **kwargs):
            counts[_name] += 1
            return _real(*args, **kwargs)

        monkeypatch.setattr(store.objects, name, call)
    return counts


@pytest.fixture
def queries(store):
    return Queries(store)


def by(dag_id):
    return Producer(dag_id, "run", "task")


def record(run=0, *, task_id="fit", map_index=-1, try_number=1, dag_id="training", **further):
    run_after = START + timedelta(days=run)
    return {
        "kind": "ml-record/v1",
        "dag_id": dag_id,
        "run_id": f"run {run}",
        "task_id": task_id,
        "map_index": map_index,
        "try_number": try_number,
        "outcome": "success",
        "recorded_at": "2026-01-01T00:00:00+00:00",
        "run": {"run_type": "scheduled", "run_after": run_after.isoformat()},
        **further,
    }


def keep(store, doc):
    who = (doc[name] for name in ("dag_id", "run_id", "task_id", "map_index", "try_number"))
    store.objects.put_json(keys.record_key(*who), doc, create_only=False)
    index_attempt(store.objects, doc)


def everything(ask):
    """Follow the cursors; the pages' items, and how many pages there were."""
    found, cursor, pages = [], None, 0
    while pages == 0 or cursor is not None:
        page = ask(cursor)
        found, cursor, pages = [*found, *page.items], page.cursor, pages + 1
        json.dumps(page.to_json(), allow_nan=False)
    return found, pages


# -- artifacts


def test_artifacts_are_found_by_a_part_of_their_name_with_their_newest_version(store, queries, asked):
    long = "long name " * 19 + "x"
    for name in ("flight_features", "report/Features", "other", long, "checkpoints/dag/task"):
        store.save(b"old", name)
        store.save(b"new!", name)
    asked.clear()
    found, pages = everything(lambda cursor: queries.artifacts(limit=3, cursor=cursor))
    assert [(each.name, each.size_bytes) for each in found] == [
        ("flight_features", 4),
        (long, 4),
        ("other", 4),
        ("report/Features", 4),
    ]
    assert pages == 2
    assert [each.name for each in queries.artifacts("FEATURES").items] == [
        "flight_features",
        "report/Features",
    ]
    assert [each.name for each in queries.artifacts("dag/", checkpoints=True).items] == [
        "checkpoints/dag/task"
    ]
    assert queries.artifacts("nothing").items == ()


@pytest.mark.parametrize("history", [3, 60])
def test_a_page_of_versions_costs_a_list_and_a_read_each_whatever_the_history(store, history):
    made = [store.save(b"%d" % number, "history").version_id for number in range(history)]
    counts = Counter()
    objects = store.objects
    for name in ("get_json", "list"):
        setattr(objects, name, _counting(getattr(objects, name), counts, name))
    page = Queries(store).versions("history", limit=2)
    assert counts == {"list": 1, "get_json": 2}
    assert [each.version_id for each in page.items] == made[:-3:-1]
    found, pages = everything(lambda cursor: Queries(store).versions("history", limit=7, cursor=cursor))
    assert [each.version_id for each in found] == made[::-1]
    assert pages == -(-history // 7)


def _counting(real, counts, name):
    def call(*args, **kwargs):
        counts[name] += 1
        return real(*args, **kwargs)

    return call


def test_a_version_is_chosen_by_id_by_either_clock_or_is_the_newest(store, queries):
    first = store.save(pd.DataFrame({"a": [1]}), "table", effective_at=START + timedelta(days=5))
    second = store.save(pd.DataFrame({"a": [2]}), "table", effective_at=START)
    assert queries.version("table").version_id == second.version_id
    assert queries.version("table", first.version_id).digest == first.digest
    assert queries.version("table", as_of=START + timedelta(days=6)).version_id == first.version_id
    now = datetime.now(UTC)
    assert queries.version("table", as_of=now, clock="wall").version_id == second.version_id
    found = queries.version("table").to_json()
    assert found["schema"]["columns"][0]["name"] == "a"
    assert found["effective_at"] == "2013-02-01T00:00:00+00:00"
    assert "preview" in found
    with pytest.raises(ValueError, match="give one of them"):
        queries.version("table", first.version_id, as_of=now)
    with pytest.raises(ArtifactNotFoundError, match="'nothing'"):
        queries.version("nothing")


def test_a_version_that_cannot_be_believed_is_shown_as_such(store, queries):
    good = store.save(b"good", "data")
    bad = store.save(b"bad", "data")
    key = keys.version_key("data", bad.version_id)
    store.objects.put_json(key, {**store.objects.get_json(key), "size_bytes": 1}, create_only=False)
    first, second = queries.versions("data").items
    assert (first.version_id, second.version_id) == (bad.version_id, good.version_id)
    assert "signature" in first.problem
    assert first.recorded_at == keys.version_time(bad.version_id)
    assert second.problem is None


def test_shared_content_is_counted_for_the_version_that_brought_it(store, queries):
    for content in (b"aaa", b"bbbb", b"aaa"):
        store.save(content, "data")
    found = queries.storage("data")
    assert (found.size_bytes, found.stored_bytes, found.complete) == (10, 7, True)
    assert [each.new_bytes for each in found.versions] == [0, 4, 3]
    assert not queries.storage("data", limit=2).complete


def test_versions_of_tables_share_pieces(store, queries):
    table = pd.DataFrame(np.random.default_rng(0).random((400_000, 2)), columns=["a", "b"])
    first = store.save(table, "table")
    store.save(pd.concat([table, table.tail(10)], ignore_index=True), "table")
    found = queries.storage("table")
    assert len(first.parts) >= 1
    assert found.stored_bytes == store.usage().bytes_stored
    assert found.versions[0].new_bytes < found.versions[0].size_bytes / 2


# -- who may see what


def test_a_reader_that_was_noted_while_it_ran_is_as_it_ended(store, queries):
    ref = store.save(b"1", "rows", producer=by("training"))
    noted = set()
    for outcome in ("running", "failed"):
        attempt = TaskRecord(
            "training", "r", "fit", -1, 1, outcome, started_at=START, reads=(VersionUse.of(ref),)
        )
        write_record(store.objects, attempt, already=noted)
        assert [each.outcome for each in queries.readers(ref.version_id).items] == [outcome]
    late = TaskRecord(
        "training", "r", "late", -1, 1, "success", started_at=START, reads=(VersionUse.of(ref),)
    )
    write_record(store.objects, late)
    store.objects.delete([attempt.key])
    found = queries.readers(ref.version_id).items
    assert [(each.task_id, each.outcome) for each in found] == [("fit", "running"), ("late", "success")]


def test_what_other_dags_made_is_as_if_it_were_not_there(store):
    store.save(b"1", "shared", producer=by("mine"))
    other = store.save(b"2", "shared", producer=by("theirs"))
    store.save(b"3", "secret", producer=by("theirs"))
    store.save(b"4", "free")
    for dag_id in ("mine", "theirs"):
        keep(store, record(dag_id=dag_id, metrics={"auc": 0.5}))
        consumer = {"dag_id": dag_id, "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 1}
        place = f"{keys.consumers_prefix(other.version_id)}{dag_id}.json"
        store.objects.put_json(place, {**consumer, "outcome": "success"})
    mine = Queries(store, may_read=lambda dag_id: dag_id == "mine")
    assert [(each.name, each.size_bytes) for each in mine.artifacts().items] == [("free", 1), ("shared", 1)]
    assert [each.producer.dag_id for each in mine.versions("shared").items] == ["mine"]
    assert mine.version("shared").producer.dag_id == "mine"
    assert mine.storage("secret").versions == ()
    assert [each.dag_id for each in mine.readers(other.version_id).items] == ["mine"]
    assert mine.dags() == ["mine"]
    assert mine.runs("theirs").items == ()
    assert mine.measured("theirs").items == ()
    assert mine.run_attempts("theirs", "run 0").items == ()
    for ask in (
        lambda: mine.version("shared", other.version_id),
        lambda: mine.version("secret"),
        lambda: mine.version("shared", as_of=datetime.now(UTC), clock="wall"),
        lambda: mine.attempt("theirs", "run 0", "fit"),
        lambda: mine.attempt("theirs", "run 0", "fit", try_number=1),
    ):
        with pytest.raises(ArtifactNotFoundError):
            ask()


def test_a_page_is_filled_with_what_may_be_seen(store):
    for number in range(9):
        store.save(b"%d" % number, "shared", producer=by("mine" if number % 3 == 0 else "theirs"))
    mine = Queries(store, may_read=lambda dag_id: dag_id == "mine")
    found, pages = everything(lambda cursor: mine.versions("shared", limit=2, cursor=cursor))
    assert (len(found), pages) == (3, 2)


# -- runs and records


def test_runs_come_latest_first_and_what_they_measured_too(store, queries, asked):
    for run in (1, 3, 2):
        keep(store, record(run, task_id="load"))
        keep(store, record(run, params={"depth": run}, metrics={"auc": run / 10, "worst": "-inf"}))
        keep(store, record(run, task_id="evaluate", metrics={"roc_auc": 0.5}))
    asked.clear()
    page = queries.runs("training", limit=2)
    assert asked == {"list": 1, "get_json": 2}
    assert [each.run_id for each in page.items] == ["run 3", "run 2"]
    assert page.items[0].run_after == START + timedelta(days=3)
    assert [each.run_id for each in queries.runs("training", cursor=page.cursor).items] == ["run 1"]

    asked.clear()
    rows, _ = everything(lambda cursor: queries.measured("training", limit=4, cursor=cursor))
    assert asked == {"list": 2, "get_json": 6}
    assert [(each.run_id, each.task_id) for each in rows] == [
        (f"run {run}", task) for run in (3, 2, 1) for task in ("evaluate", "fit")
    ]
    assert rows[1].metrics == {"auc": 0.3, "worst": float("-inf")}
    assert [each.params for each in queries.measured("training", task_id="fit", limit=1).items] == [
        {"depth": 3}
    ]
    until = START + timedelta(days=2)
    assert {each.run_id for each in queries.measured("training", until=until).items} == {"run 2", "run 1"}
    assert [each.run_id for each in queries.measured("training", task_id="fit").items] == [
        "run 3",
        "run 2",
        "run 1",
    ]
    assert queries.dags() == ["training"]


def test_evaluations_and_decisions_can_be_had_alone(store, queries):
    for run in range(4):
        keep(store, record(run, params={"depth": run}))
        keep(store, record(run, task_id="evaluate", evaluation={"model_id": f"m-{run}"}))
        keep(store, record(run, task_id="promote", promotion={"verdict": "rejected"}))
    rows, pages = everything(lambda cursor: queries.measured("training", limit=3, cursor=cursor, judged=True))
    assert pages == 3
    assert sorted((each.run_id, each.task_id) for each in rows) == sorted(
        (f"run {run}", task) for run in range(4) for task in ("evaluate", "promote")
    )


def test_the_last_try_that_measured_is_the_row_and_all_tries_are_records(store, queries):
    keep(store, record(try_number=1, metrics={"auc": 0.1}, outcome="failed"))
    keep(store, record(try_number=2, metrics={"auc": 0.2}))
    keep(store, record(try_number=10))
    (row,) = queries.measured("training").items
    assert (row.try_number, row.metrics) == (2, {"auc": 0.2})
    assert [each.try_number for each in queries.attempts("training", "run 0", "fit")] == [10, 2, 1]
    assert queries.attempt("training", "run 0", "fit").try_number == 10
    assert queries.attempt("training", "run 0", "fit", try_number=1).outcome == "failed"
    with pytest.raises(ArtifactNotFoundError, match="left no record"):
        queries.attempt("training", "run 0", "fit", 4)


def test_the_attempts_of_a_run_come_in_pages(store, queries):
    for index in range(5):
        for number in (1, 2):
            keep(store, record(map_index=index, try_number=number))
    keep(store, record(1))
    found, pages = everything(
        lambda cursor: queries.run_attempts("training", "run 0", limit=4, cursor=cursor)
    )
    assert (len(found), pages) == (10, 3)
    latest = latest_attempts(found)
    assert [(each.map_index, each.try_number) for each in latest] == [(index, 2) for index in range(5)]


def test_a_record_says_what_it_used_whatever_release_wrote_it(store, queries):
    use = {"name": "a", "version_id": "v", "digest": "d", "type": "t", "size_bytes": 1, "of_later": 1}
    keep(store, record(reads=[use], data_interval=["2013-02-01T00:00:00+00:00"] * 2, of_later="x", code=None))
    found = queries.attempt("training", "run 0", "fit")
    assert found.reads[0].name == "a"
    assert found.data_interval == (START, START)
    assert found.code == {}
    json.dumps(found.to_json(), allow_nan=False)
    store.objects.put_json(found.key, record(reads=[3]), create_only=False)
    with pytest.raises(ArtifactCorruptError, match=r"dag_id 'training'.*cannot be read as TaskRecord"):
        queries.attempt("training", "run 0", "fit")


def test_rows_of_a_table_have_the_same_columns():
    rows = [
        Measured("d", "r", "fit", -1, 1, "success", params={"depth": 3}),
        Measured("d", "r", "evaluate", -1, 1, "success", metrics={"auc": 0.7}),
    ]
    first, second = flat(rows)
    assert list(first) == list(second)
    assert (first["params.depth"], first["metrics.auc"]) == (3, None)
    assert second["metrics.auc"] == 0.7


# -- models


def test_models_moves_and_verdicts(store, queries):
    for number in range(1, 6):
        when = START + timedelta(days=number)
        move = AliasMove(
            "flight_delay", "champion", str(number), None, when, datetime(2026, 1, 6 - number, tzinfo=UTC)
        )
        queries.ledger.record(move)
    (model,) = queries.models("FLIGHT").items
    assert model.aliases["champion"].version == "1"  # moved last by wall clock
    for clock, versions in (("data", "54321"), ("wall", "12345")):
        found, pages = everything(
            lambda cursor, clock=clock: queries.moves(
                "flight_delay", "champion", clock=clock, limit=2, cursor=cursor
            )
        )
        assert ("".join(move.version for move in found), pages) == (versions, 3)
    assert queries.models("other").items == ()

    for run, verdict in enumerate(("promoted", "rejected")):
        promotion = {
            "registered_model_name": "flight_delay",
            "alias": "champion",
            "verdict": verdict,
            "reasons": ["why"],
            "metrics": {"roc_auc": "nan"},
        }
        started_at = (START + timedelta(days=run)).isoformat()
        keep(store, record(run, task_id="promote", promotion=promotion, started_at=started_at))
        keep(store, record(run, task_id="promote", promotion=promotion, started_at=started_at))  # again
    found = queries.verdicts("flight_delay").items
    assert [(each.verdict, each.run_id, each.reasons) for each in found] == [
        ("rejected", "run 1", ("why",)),
        ("promoted", "run 0", ("why",)),
    ]
    assert found[0].to_json()["metrics"] == {"roc_auc": "nan"}


@pytest.mark.parametrize("limit", [0, 1001])
def test_a_page_has_a_sensible_length(queries, limit):
    with pytest.raises(ValueError, match="limit must be from 1 to 1000"):
        queries.runs("training", limit=limit)


@pytest.mark.parametrize("cursor", ["", "a b", "x" * 901])
def test_a_cursor_is_what_a_page_gave(queries, cursor):
    with pytest.raises(ValueError, match="cursor must be what a page gave"):
        queries.versions("name", cursor=cursor)


def test_a_run_without_a_time_is_in_no_list(store, queries):
    keep(store, {**record(metrics={"auc": 0.5}), "run": {}})
    assert queries.runs("training").items == ()
    assert queries.attempt("training", "run 0", "fit").metrics == {"auc": 0.5}
