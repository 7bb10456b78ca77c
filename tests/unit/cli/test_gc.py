# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import time
import tracemalloc
from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.objects import ObjectStore, _Folder
from airflow_ml_provider.artifacts.refs import ArtifactRef, Producer
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.cli import console, protection
from airflow_ml_provider.exceptions import MlflowUnavailableError, MLProviderError, StoreError
from airflow_ml_provider.lineage.records import TaskRecord, VersionUse, write_record
from airflow_ml_provider.tracking.ledger import AliasMove, Ledger
from airflow_ml_provider.tracking.models import ModelRef
from tests.unit.cli.conftest import Answer

Run = Callable[..., Answer]
NOW = ("--grace-hours", "0")


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a metadata database nor an MLflow server."""
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", f"sqlite:///{tmp_path}/none.db")


@pytest.fixture
def versions(store: ArtifactStore) -> list[ArtifactRef]:
    """Three versions of ``flights``, newest first; the middle one shares its content with ``copy``."""
    made = [
        store.save(text, "flights", producer=Producer("training", f"run-{text.decode()}", "features"))
        for text in (b"1", b"22", b"333")
    ]
    store.save(b"22", "copy")
    return made[::-1]


def files(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def texts(store: ArtifactStore) -> list[bytes]:
    return [ref.load() for ref in store.versions("flights")]


def test_a_dry_run_deletes_nothing_and_says_what_would_go(
    airflow: Run, root: Path, versions: list[ArtifactRef]
) -> None:
    before = files(root)
    answer = airflow("ml", "gc", "--keep-last", "1", *NOW, "--output", "json")
    assert files(root) == before
    assert answer.code == 0
    assert "2 versions, 1 blobs, 1 bytes would go, 2 versions, 2 blobs, 5 bytes stay" in answer.err
    assert "nothing was deleted" in answer.err
    assert {(row["kind"], row["decision"]) for row in json.loads(answer.out)} == {
        ("version", "goes"),
        ("blob", "goes"),
    }


def test_delete_removes_what_the_dry_run_said(
    airflow: Run, store: ArtifactStore, versions: list[ArtifactRef]
) -> None:
    said = json.loads(airflow("ml", "gc", "--keep-last", "1", *NOW, "--output", "json").out)
    answer = airflow("ml", "gc", "--keep-last", "1", *NOW, "--delete", "--output", "json")
    assert answer.code == 0
    assert json.loads(answer.out) == said
    assert (
        "removed 2 versions, 1 blobs, 1 bytes; 2 versions, 2 blobs, 5 bytes stay; 1 bytes are" in answer.err
    )
    assert texts(store) == [b"333"]
    assert store.get("copy").load() == b"22"
    assert airflow("ml", "gc", "--keep-last", "1", *NOW).out.strip() == "No data found"


def test_without_a_rule_every_version_stays(
    airflow: Run, store: ArtifactStore, versions: list[ArtifactRef]
) -> None:
    lost = f"blobs/aa/{'a' * 64}"
    store.objects.put(lost, b"lost")
    answer = airflow("ml", "gc", *NOW, "--delete")
    assert "removed 0 versions, 1 blobs, 4 bytes" in answer.err
    assert texts(store) == [b"333", b"22", b"1"]
    assert not store.objects.exists(lost)


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (("--keep-last", "2"), 2),
        (("--keep-days", "0"), 1),
        (("--keep-days", "1"), 3),
        (("--keep-last", "1", "--keep-days", "0.5"), 3),
        (("--keep-last", "1", "--name", "fl*"), 1),
        (("--keep-last", "1", "--name", "x", "--name", "flights"), 1),
        (("--keep-last", "1", "--name", "other"), 3),
        (("--keep-last", "1", "--exclude", "fl*"), 3),
    ],
)
def test_what_the_options_keep(
    airflow: Run, store: ArtifactStore, versions: list[ArtifactRef], words: tuple[str, ...], left: int
) -> None:
    assert airflow("ml", "gc", *words, *NOW, "--delete").code == 0
    assert len(store.versions("flights")) == left


@pytest.mark.parametrize(
    ("words", "remembered", "left"),
    [
        ((), "30", 1),
        (("--checkpoint-days", "0"), "30", 0),
        ((), "0", 1),
        (("--checkpoint-days", "0", "--exclude", "checkpoints/*"), "30", 1),
    ],
)
def test_checkpoints_of_failed_tasks_go_by_age_alone(
    airflow: Run,
    store: ArtifactStore,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    remembered: str,
    left: int,
) -> None:
    monkeypatch.setenv("AIRFLOW__STATE_STORE__DEFAULT_RETENTION_DAYS", remembered)
    store.save(b"1", "checkpoints/training/fit", producer=Producer("training", "run", "fit"))
    store.save(b"2", "kept-checkpoints/training/fit")
    answer = airflow("ml", "gc", *words, *NOW, "--delete", "--output", "json")
    assert answer.code == 0
    assert len(store.versions("checkpoints/training/fit")) == left
    assert len(store.versions("kept-checkpoints/training/fit")) == 1
    if not left:
        assert "checkpoints are kept for 0 hours" in answer.out


def test_the_checkpoints_of_an_open_run_stay(
    airflow: Run, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(b"1", "checkpoints/training/fit", producer=Producer("training", "run", "fit"))
    monkeypatch.setattr(protection, "_open_runs", lambda: {("training", "run")})
    answer = airflow("ml", "gc", "--checkpoint-days", "0", *NOW, "--delete", "-v", "--output", "json")
    assert "its run 'run' of 'training' is open" in answer.out
    assert len(store.versions("checkpoints/training/fit")) == 1

    def refuse() -> set[tuple[str, str]]:
        raise MLProviderError("the database is down")

    monkeypatch.setattr(protection, "_open_runs", refuse)
    assert airflow("ml", "gc", "--checkpoint-days", "0", *NOW, "--delete").code == 1
    assert len(store.versions("checkpoints/training/fit")) == 1
    answer = airflow("ml", "gc", "--checkpoint-days", "0", *NOW)
    assert (answer.code, "the database is down; runs that are open" in answer.err) == (0, True)


def test_the_grace_period_is_a_day_unless_told(
    airflow: Run, store: ArtifactStore, versions: list[ArtifactRef]
) -> None:
    airflow("ml", "gc", "--keep-last", "1", "--delete")
    assert len(texts(store)) == 3


@pytest.mark.parametrize(
    "words",
    [("--keep-last", "0"), ("--keep-days", "-1"), ("--grace-hours", "soon"), ("--grace-hours", "nan")],
)
def test_numbers_out_of_range_are_wrong_arguments(airflow: Run, words: tuple[str, ...]) -> None:
    assert airflow("ml", "gc", *words).code == 2


def test_verbose_says_why_things_stay(airflow: Run, versions: list[ArtifactRef]) -> None:
    answer = airflow("ml", "gc", "--keep-last", "1", *NOW, "--verbose", "--output", "yaml")
    reasons = {
        row["object"]: row["reason"] for row in yaml.safe_load(answer.out) if row["decision"] == "stays"
    }
    assert reasons[keys.version_key("flights", versions[0].version_id)] == "it is the newest of its name"
    assert "'copy' version" in reasons[keys.blob_key(versions[1].digest)]


def test_an_edited_manifest_is_named_and_the_rest_goes(
    airflow: Run, store: ArtifactStore, versions: list[ArtifactRef]
) -> None:
    key = keys.version_key("flights", versions[2].version_id)
    store.objects.put_json(key, {**store.objects.get_json(key), "type": "edited"}, create_only=False)
    answer = airflow("ml", "gc", "--keep-last", "1", *NOW, "--delete")
    assert answer.code == 1
    assert f"look at {key}: unreadable: " in answer.err
    assert "removed 1 versions" in answer.err
    assert store.objects.exists(key)


def test_a_store_that_refuses_is_one_line(
    airflow: Run, versions: list[ArtifactRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: _Folder, keys: Any) -> None:
        raise StoreError("access denied")

    monkeypatch.setattr(_Folder, "delete", refuse)
    answer = airflow("ml", "gc", "--keep-last", "1", *NOW, "--delete")
    assert answer.code == 4
    said = answer.err.strip().splitlines()[-1]
    refused = keys.version_key("flights", versions[1].version_id)
    assert said.startswith(f"error: garbage collection stopped at {refused}: access denied")


def old_record(store: ArtifactStore, root: Path, record: TaskRecord) -> None:
    """Write a record that no grace period covers."""
    write_record(store.objects, record)
    stamp = time.time() - 30 * 86400
    os.utime(root / record.key, (stamp, stamp))


def test_what_open_runs_made_or_used_stays(
    airflow: Run,
    root: Path,
    store: ArtifactStore,
    versions: list[ArtifactRef],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old_record(
        store,
        root,
        TaskRecord("scoring", "open", "score", -1, 1, "success", reads=(VersionUse.of(versions[1]),)),
    )
    monkeypatch.setattr(protection, "_open_runs", lambda: {("scoring", "open"), ("training", "run-1")})
    answer = airflow("ml", "gc", "--keep-last", "1", *NOW, "--delete", "--verbose", "--output", "json")
    reasons = {row["object"]: row["reason"] for row in json.loads(answer.out)}
    used, made = (reasons[keys.version_key("flights", ref.version_id)] for ref in versions[1:])
    assert used == "the run 'open' of 'scoring', which is open, used it"
    assert made == "its run 'run-1' of 'training' is open"
    assert texts(store) == [b"333", b"22", b"1"]


@pytest.mark.parametrize("how", ["reused from the cache", "named by the event that started it"])
def test_what_open_runs_may_yet_load_stays(
    airflow: Run,
    root: Path,
    store: ArtifactStore,
    versions: list[ArtifactRef],
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    facts: dict[str, Any] = {"reused": (VersionUse.of(versions[2]),)}
    if how != "reused from the cache":
        facts = {"triggered_by": ({"uri": "x", "extra": {"version_id": versions[2].version_id}},)}
    old_record(store, root, TaskRecord("scoring", "open", "features", -1, 1, "success", **facts))
    monkeypatch.setattr(protection, "_open_runs", lambda: {("scoring", "open")})
    assert airflow("ml", "gc", "--keep-last", "1", *NOW, "--delete").code == 0
    assert texts(store) == [b"333", b"1"]


def test_a_run_that_is_cleared_while_all_is_read_keeps_what_it_made(
    airflow: Run, store: ArtifactStore, versions: list[ArtifactRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([set(), {("training", "run-1")}])
    monkeypatch.setattr(protection, "_open_runs", lambda: next(answers))
    answer = airflow("ml", "gc", "--keep-last", "1", *NOW, "--delete")
    assert (answer.code, "removed 1 versions" in answer.err) == (0, True)
    assert texts(store) == [b"333", b"1"]


def trained(store: ArtifactStore, root: Path, read: ArtifactRef) -> None:
    model = ModelRef("models:/m-1", mlflow_run_id="cafe").to_json()
    old_record(
        store,
        root,
        TaskRecord(
            "training", "r", "fit", -1, 1, "success", reads=(VersionUse.of(read),), models_written=(model,)
        ),
    )


def moved(store: ArtifactStore, version: str | None, mlflow_run_id: str | None) -> None:
    now = datetime.now(UTC)
    move = AliasMove("delay", "champion", version, None, now, now, mlflow_run_id=mlflow_run_id)
    assert Ledger(store.objects).record(move)


def test_what_trained_a_model_that_the_ledger_calls_champion_stays(
    airflow: Run, root: Path, store: ArtifactStore, versions: list[ArtifactRef]
) -> None:
    trained(store, root, versions[2])
    moved(store, "1", "cafe")
    answer = airflow("ml", "gc", "--keep-last", "1", *NOW, "--delete", "--verbose", "--output", "json")
    assert "the model delay@champion was trained on it" in answer.out
    assert texts(store) == [b"333", b"1"]

    moved(store, "2", "beef")
    airflow("ml", "gc", "--keep-last", "1", *NOW, "--delete")
    assert texts(store) == [b"333"]


Champion = Callable[..., str]


@pytest.fixture
def champion_in_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Champion:
    """Make an MLflow whose model ``delay`` has a champion, of a run with some tags; returns the run's id."""
    from mlflow import MlflowClient

    def make(**tags: str) -> str:
        uri = f"sqlite:///{tmp_path}/mlflow.db"
        monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps({"conn_type": "mlflow", "host": uri}))
        client = MlflowClient(uri, uri)
        experiment = client.create_experiment("e", artifact_location=f"file://{tmp_path}/mlruns")
        run_id: str = client.create_run(experiment, tags=tags).info.run_id
        client.create_registered_model("delay")
        client.create_model_version("delay", f"file://{tmp_path}/model", run_id=run_id)
        client.set_registered_model_alias("delay", "champion", "1")
        return run_id

    return make


def test_what_trained_a_model_that_mlflow_calls_champion_stays(
    airflow: Run,
    root: Path,
    store: ArtifactStore,
    versions: list[ArtifactRef],
    champion_in_mlflow: Champion,
) -> None:
    model = ModelRef("models:/delay/1", mlflow_run_id=champion_in_mlflow()).to_json()
    record = TaskRecord(
        "t", "r", "fit", -1, 1, "success", reads=(VersionUse.of(versions[2]),), models_written=(model,)
    )
    old_record(store, root, record)

    airflow("ml", "gc", "--keep-last", "1", *NOW, "--delete")
    assert texts(store) == [b"333", b"1"]


def watch_reads(monkeypatch: pytest.MonkeyPatch, seen: list[str]) -> None:
    real = ObjectStore.get
    monkeypatch.setattr(
        ObjectStore, "get", lambda self, key, **options: seen.append(key) or real(self, key, **options)
    )


@pytest.mark.parametrize(
    ("made_by", "expected"),
    [
        ({"airflow.dag_id": "training", "airflow.dag_run_id": "r"}, {"training"}),
        ({"airflow.dag_id": "training", "airflow.dag_run_id": "elsewhere"}, set()),
        ({}, set()),
    ],
    ids=["by a task of here", "by one of another Airflow", "by nobody's"],
)
def test_an_mlflow_that_others_share_costs_no_look_at_all_records(
    airflow: Run,
    root: Path,
    store: ArtifactStore,
    versions: list[ArtifactRef],
    champion_in_mlflow: Champion,
    monkeypatch: pytest.MonkeyPatch,
    made_by: dict[str, str],
    expected: set[str],
) -> None:
    # Filed under an address that MLflow does not give back.
    model = ModelRef("models:/m-0", mlflow_run_id=champion_in_mlflow(**made_by)).to_json()
    reads, made = (VersionUse.of(versions[2]),), ({**model, "role": "trained"},)
    old_record(
        store, root, TaskRecord("training", "r", "fit", -1, 1, "success", reads=reads, models_written=made)
    )
    old_record(store, root, TaskRecord("other", "r", "fit", -1, 1, "success"))
    seen: list[str] = []
    watch_reads(monkeypatch, seen)
    assert airflow("ml", "gc", "--keep-last", "1", *NOW, "--delete").code == 0
    assert {key.split("/")[1] for key in seen if key.startswith("records/")} == expected
    assert len(texts(store)) == 1 + len(expected)


@pytest.mark.parametrize("filed", [True, False], ids=["by its id", "by nothing that the ledger knows"])
def test_records_of_others_are_read_only_if_nothing_leads_to_the_training(
    airflow: Run,
    root: Path,
    store: ArtifactStore,
    versions: list[ArtifactRef],
    monkeypatch: pytest.MonkeyPatch,
    filed: bool,
) -> None:
    """A store may hold millions of records, and this runs every night."""
    model = ModelRef("models:/m-1", model_id="m-1" if filed else None, mlflow_run_id="cafe").to_json()
    reads, made = (VersionUse.of(versions[2]),), ({**model, "role": "trained"},)
    fit = TaskRecord("training", "r", "fit", -1, 1, "success", reads=reads, models_written=made)
    others = [TaskRecord("other", f"r{number}", "fit", -1, 1, "success") for number in range(20)]
    used = TaskRecord("scoring", "open", "score", -1, 1, "success", reads=(VersionUse.of(versions[1]),))
    for record in (fit, used, *others):
        old_record(store, root, record)
    registered = {**model, "registered_model_name": "delay", "version": "1", "role": "registered"}
    register = TaskRecord("training", "r", "register", -1, 1, "success", models_written=(registered,))
    old_record(store, root, register)
    moved(store, "1", "cafe")
    monkeypatch.setattr(protection, "_open_runs", lambda: {("scoring", "open")})
    monkeypatch.setattr(protection, "_aliased_in_mlflow", lambda: ())
    seen: list[str] = []
    watch_reads(monkeypatch, seen)
    answer = airflow("ml", "gc", "--keep-last", "1", *NOW, "--delete", "--verbose", "--output", "json")
    assert "the model delay@champion was trained on it" in answer.out
    assert texts(store) == [b"333", b"22", b"1"]
    read = {key for key in seen if key.startswith("records/")}
    assert {fit.key, used.key, register.key} <= read
    assert read.isdisjoint(other.key for other in others) == filed


def test_old_records_go_but_what_made_what_stays(
    airflow: Run,
    root: Path,
    store: ArtifactStore,
    versions: list[ArtifactRef],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = ModelRef("models:/m-1", model_id="m-1", mlflow_run_id="cafe").to_json()
    moved(store, "1", "cafe")
    monkeypatch.setattr(protection, "_open_runs", lambda: {("training", "open")})
    producer = versions[0].producer
    assert producer is not None
    kept = {
        "it wrote a version that stays": TaskRecord(
            "training", producer.run_id, "features", -1, 1, "success", writes=(VersionUse.of(versions[0]),)
        ),
        "it tells who made the model delay@champion": TaskRecord(
            "training",
            "r",
            "fit",
            -1,
            1,
            "success",
            models_written=({**made, "registered_model_name": "delay", "version": "1", "role": "trained"},),
        ),
        "its run is open": TaskRecord("training", "open", "fit", -1, 1, "failed"),
    }
    old = [TaskRecord("scoring", f"r{number}", "score", -1, 1, "success") for number in range(3)]
    for record in (*kept.values(), *old):
        old_record(store, root, record)
    young = TaskRecord("scoring", "today", "score", -1, 1, "success")
    write_record(store.objects, young)

    before = files(root)
    dry = airflow("ml", "gc", "--records-days", "29", *NOW, "--verbose", "--output", "json")
    assert (dry.code, files(root)) == (0, before)
    assert "0 bytes, 3 records would go" in dry.err
    rows = {row["object"]: row for row in json.loads(dry.out) if row["kind"] == "record"}
    assert {record.key: reason for reason, record in kept.items()} == {
        key: row["reason"] for key, row in rows.items() if row["decision"] == "stays"
    }
    assert rows[old[0].key]["reason"] == "the last record of its run is 30 days old, and 29 days are kept"

    real = airflow("ml", "gc", "--records-days", "29", *NOW, "--delete")
    assert (real.code, "0 bytes, 3 records; 4 versions" in real.err) == (0, True)
    left = {entry.key for entry in store.objects.list("records")}
    assert left == {record.key for record in (*kept.values(), young)}
    assert airflow("ml", "gc", "--records-days", "31", *NOW, "--delete").code == 0
    assert airflow("ml", "gc", *NOW, "--delete").code == 0
    assert {entry.key for entry in store.objects.list("records")} == left


def test_records_are_as_old_as_the_grace_period_at_least(
    airflow: Run, root: Path, store: ArtifactStore
) -> None:
    old_record(store, root, TaskRecord("scoring", "r", "score", -1, 1, "success"))
    airflow("ml", "gc", "--records-days", "0", "--grace-hours", "1000", "--delete")
    assert len(list(store.objects.list("records"))) == 1


def test_a_record_that_another_collection_removed_first_is_no_problem(
    airflow: Run, root: Path, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_ml_provider.cli import gc

    records = [TaskRecord("scoring", f"r{number}", "score", -1, 1, "success") for number in range(2)]
    for record in records:
        old_record(store, root, record)
    real = gc.execute

    def and_another(found: Any) -> Any:
        store.objects.delete([records[0].key])
        return real(found)

    monkeypatch.setattr(gc, "execute", and_another)
    answer = airflow("ml", "gc", "--records-days", "1", *NOW, "--delete")
    assert (answer.code, "1 records; " in answer.err) == (0, True)
    assert not list(store.objects.list("records"))


def test_a_damaged_record_is_named_and_stays(airflow: Run, root: Path, store: ArtifactStore) -> None:
    record = TaskRecord("scoring", "r", "score", -1, 1, "success")
    old_record(store, root, record)
    stamp = (root / record.key).stat().st_mtime
    (root / record.key).write_bytes(b"{")
    os.utime(root / record.key, (stamp, stamp))
    answer = airflow("ml", "gc", "--records-days", "1", *NOW, "--delete")
    assert answer.code == 1
    assert f"look at {record.key}: it is no record, or damaged, and stays" in answer.err
    assert "0 records; " in answer.err


@pytest.mark.parametrize(
    ("source", "error", "code"),
    [
        ("_open_runs", MLProviderError("the database is down"), 1),
        ("_aliased_in_mlflow", MlflowUnavailableError("MLflow is down"), 4),
    ],
)
def test_versions_go_only_if_everybody_who_may_need_them_was_asked(
    airflow: Run,
    store: ArtifactStore,
    versions: list[ArtifactRef],
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    error: Exception,
    code: int,
) -> None:
    def down() -> Any:
        raise error

    monkeypatch.setattr(protection, source, down)
    dry = airflow("ml", "gc", "--keep-last", "1", *NOW)
    assert dry.code == 0
    assert f"warning: {error}" in dry.err
    real = airflow("ml", "gc", "--keep-last", "1", *NOW, "--delete")
    assert (real.code, real.err.strip().splitlines()[-1]) == (code, f"error: {error}")
    assert len(texts(store)) == 3
    assert airflow("ml", "gc", *NOW, "--delete").code == 0, "without a rule nobody needs to be asked"


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_what_programs_read_takes_little_more_memory_than_its_text(
    capsys: pytest.CaptureFixture[str], output: str
) -> None:
    rows = [{"object": f"blobs/aa/{number:064x}", "size_bytes": number} for number in range(1000)]
    tracemalloc.start()
    try:
        console.show_rows(rows, output)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed) == rows
    assert most < 20 * len(printed)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["", "MLFLOW_TRACKING_URI names a server"])
def test_a_connection_that_cannot_be_read_is_not_taken_for_none(
    airflow: Run,
    tmp_path: Path,
    store: ArtifactStore,
    versions: list[ArtifactRef],
    monkeypatch: pytest.MonkeyPatch,
    elsewhere: bool,
) -> None:
    if elsewhere:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", '{"conn_type": "mlflow", "password": "hunter2"')
    dry = airflow("ml", "gc", "--keep-last", "1", *NOW)
    assert (dry.code, "warning: cannot tell whether there is a connection" in dry.err) == (0, True)
    real = airflow("ml", "gc", "--keep-last", "1", *NOW, "--delete")
    assert real.code == 1
    assert "'mlflow_default': EnvironmentVariablesBackend failed with JSONDecodeError" in real.err
    assert "hunter2" not in real.err
    assert len(texts(store)) == 3


@pytest.mark.parametrize("options", ["", "?timeout=60"])
def test_open_runs_are_the_queued_and_running_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    from airflow.models.dagrun import DagRun
    from airflow.utils import session as airflow_session
    from sqlalchemy import create_engine, insert
    from sqlalchemy.orm import Session

    path = tmp_path / "airflow.db"
    engine = create_engine(f"sqlite:///{path}")
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", f"sqlite:///{path}{options}")

    @contextmanager
    def create_session() -> Any:
        with Session(engine) as session:
            yield session

    monkeypatch.setattr(airflow_session, "create_session", create_session)
    path.touch()
    with pytest.raises(MLProviderError, match="no such table"):
        protection._open_runs()

    DagRun.__table__.create(engine)
    with engine.begin() as connection:
        for number, state in enumerate(("queued", "running", "success", "failed")):
            row = {
                "id": number,
                "dag_id": "training",
                "run_id": state,
                "_state": state,
                "run_type": "manual",
                "run_after": datetime.now(UTC),
                "log_template_id": None,
            }
            connection.execute(insert(DagRun).values(row))
    assert protection._open_runs() == {("training", "queued"), ("training", "running")}
    engine.dispose()
