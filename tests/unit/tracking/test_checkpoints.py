# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: what is kept, what the next attempt finds, what goes, and in how many requests."""

from __future__ import annotations

import collections
import math
import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import SGDClassifier

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.collection import Retention, execute, plan
from airflow_ml_provider.artifacts.objects import ObjectStore
from airflow_ml_provider.artifacts.refs import ArtifactRef, Producer
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import CheckpointLostError, NonFiniteLossError, UnsupportedTypeError
from airflow_ml_provider.tracking.checkpoints import Attempt, Checkpoint, FolderValues, Options

KEY = b"a key of the tests, 32 bytes long"
TASK = ("train_dag", "fit", "manual__2026-01-01T00:00:00+00:00", "-1")


class Values(dict[str, Any]):
    """A task state store; counts what it is asked."""

    def __init__(self) -> None:
        self.calls: collections.Counter[str] = collections.Counter()

    def get(self, key: str) -> Any:  # type: ignore[override]
        self.calls["get"] += 1
        return super().get(key)

    def set(self, key: str, value: Any) -> None:
        self.calls["set"] += 1
        self[key] = value

    def delete(self, key: str) -> None:
        self.calls["delete"] += 1
        self.pop(key, None)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore((tmp_path / "root").as_uri(), signing_key=KEY)


@pytest.fixture
def values() -> Values:
    return Values()


def attempt(
    store: ArtifactStore,
    values: Any,
    number: int = 1,
    *,
    generation: str = "2",
    identity: tuple[str, ...] = TASK,
    key: str = "default",
    clock: Any = None,
    **options: Any,
) -> Checkpoint:
    more = {} if clock is None else {"clock": clock}
    return Checkpoint(
        store,
        values,
        identity=identity,
        key=key,
        attempt=Attempt(generation, number),
        options=Options(**options),
        **more,
    )


def versions(store: ArtifactStore) -> list[str]:
    return [entry.key for entry in store.objects.list("versions")]


class Requests:
    """Counts the requests that a store makes of its objects."""

    NAMES = ("put", "get", "fetch", "info", "delete", "move", "copy", "list", "children")

    def __init__(self, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: collections.Counter[str] = collections.Counter()
        backend = store.objects._backend
        for name in self.NAMES:
            monkeypatch.setattr(backend, name, self._counted(name, getattr(backend, name)))

    def _counted(self, name: str, method: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.made[name] += 1
            return method(*args, **kwargs)

        return call


def test_the_first_attempt_gets_the_default_itself(store: ArtifactStore, values: Values) -> None:
    default = {"epoch": 0}
    checkpoint = attempt(store, values)
    assert checkpoint.load(default) is default
    assert checkpoint.step is None
    assert attempt(store, values).load() is None


def test_a_retry_goes_on_with_what_was_saved_last(store: ArtifactStore, values: Values) -> None:
    first = attempt(store, values)
    for step in range(5):
        assert first.save({"step": step}, step=step) is True
    retry = attempt(store, values, 2)
    assert retry.load({"step": -1}) == {"step": 4}
    assert retry.step == 4


def _file(folder: Path) -> Path:
    path = folder / "weights.bin"
    path.write_bytes(b"weights")
    return path


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda _: 7, id="a number"),
        pytest.param(lambda _: [1, "two", None], id="plain JSON"),
        pytest.param(lambda _: b"bytes", id="bytes"),
        pytest.param(lambda _: None, id="None"),
        pytest.param(lambda _: np.arange(6.0).reshape(2, 3), id="an array"),
        pytest.param(lambda _: pd.DataFrame({"a": [1, 2]}), id="a table"),
        pytest.param(lambda _: SGDClassifier(), id="an estimator"),
        pytest.param(_file, id="a file"),
        pytest.param(lambda _: (1, {"x": (2, 3)}), id="tuples"),
        pytest.param(
            lambda folder: {
                "epoch": 3,
                "loss": math.inf,
                "weights": [np.ones(3), np.zeros((2, 2), dtype="float32")],
                "model": SGDClassifier(alpha=0.5),
                "python": random.Random(1).getstate(),  # noqa: S311
                "numpy": np.random.default_rng(1).bit_generator.state,
                "seen": pd.DataFrame({"a": np.arange(600_000)}),  # in pieces
                "file": _file(folder),
                "empty": np.empty(0),
            },
            id="many parts",
        ),
    ],
)
def test_any_state_that_the_store_stores_comes_back_as_it_was(
    make: Any, store: ArtifactStore, values: Values, tmp_path: Path
) -> None:
    state = make(tmp_path)
    attempt(store, values).save(state)
    assert_same(attempt(store, values, 2).load("nothing"), state)


def assert_same(found: Any, state: Any) -> None:
    assert type(found) is type(state)
    if isinstance(state, dict):
        assert list(found) == list(state)
        for name in state:
            assert_same(found[name], state[name])
    elif isinstance(state, (list, tuple)):
        assert len(found) == len(state)
        for one, other in zip(found, state, strict=True):
            assert_same(one, other)
    elif isinstance(state, np.ndarray):
        assert (found.dtype, found.shape, found.tobytes()) == (state.dtype, state.shape, state.tobytes())
    elif isinstance(state, pd.DataFrame):
        pd.testing.assert_frame_equal(found, state)
    elif isinstance(state, Path):
        assert found.read_bytes() == state.read_bytes()
    elif isinstance(state, SGDClassifier):
        assert found.get_params() == state.get_params()
    else:
        assert found == state


def test_a_reference_in_a_state_stands_for_its_value(store: ArtifactStore, values: Values) -> None:
    ref = store.save(np.arange(3), "features")
    attempt(store, values).save({"data": ref, "epoch": 1})
    assert attempt(store, values, 2).load()["data"].tolist() == [0, 1, 2]
    attempt(store, values).save(ref)
    assert attempt(store, values, 2).load().tolist() == [0, 1, 2]


def test_what_nobody_stores_is_refused_by_name_and_the_last_checkpoint_stays(
    store: ArtifactStore, values: Values
) -> None:
    checkpoint = attempt(store, values)
    checkpoint.save({"epoch": 1}, step=1)
    with pytest.raises(UnsupportedTypeError, match="Thread"):
        checkpoint.save({"epoch": 2, "thread": __import__("threading").Thread()}, step=2)
    assert attempt(store, values, 2).load() == {"epoch": 1}


@pytest.mark.parametrize("keep", [1, 3])
def test_only_the_last_ones_stay(keep: int, store: ArtifactStore, values: Values) -> None:
    checkpoint = attempt(store, values, keep=keep)
    for step in range(7):
        checkpoint.save({"weights": np.full(4, step), "step": step}, step=step)
    assert len(versions(store)) == keep
    retry = attempt(store, values, 2, keep=keep)
    assert retry.load()["step"] == 6
    retry.save({"step": 7}, step=7)
    assert len(versions(store)) == keep


def test_saving_takes_as_many_requests_for_one_part_as_for_a_hundred(
    store: ArtifactStore, values: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = attempt(store, values)
    for step in range(2):  # from now on one goes for each that comes
        checkpoint.save({"step": step})
    values.calls.clear()
    counted = Requests(store, monkeypatch)
    for parts in (1, 100):
        counted.made.clear()
        values.calls.clear()
        checkpoint.save({f"w{i}": np.full(9, i + parts) for i in range(parts)})
        assert counted.made == {"put": 2, "delete": 1}
        assert values.calls == {"set": 1}
    counted.made.clear()
    values.calls.clear()
    assert len(attempt(store, values, 2).load()) == 100
    assert counted.made == {"get": 2, "list": 1}
    assert values.calls == {"get": 1}


def test_saves_that_come_too_soon_are_left_out(store: ArtifactStore, values: Values) -> None:
    clock = Clock()
    checkpoint = attempt(store, values, every=10, clock=clock)
    assert checkpoint.save(0) is True
    clock.now = 9.9
    assert checkpoint.save(1) is False
    assert attempt(store, values, 2).load() == 0
    assert checkpoint.save(2, force=True) is True
    clock.now = 19.8
    assert checkpoint.save(3) is False
    clock.now = 20
    assert checkpoint.save(4) is True
    assert attempt(store, values, 2).load() == 4


def test_a_cleared_task_begins_anew_and_nothing_of_before_stays(store: ArtifactStore, values: Values) -> None:
    checkpoint = attempt(store, values, 3, generation="2")
    checkpoint.save({"epoch": 5, "w": np.ones(3)})
    cleared = attempt(store, values, 4, generation="5")
    assert cleared.load("anew") == "anew"
    assert versions(store) == []
    assert values == {}
    cleared.save("again")
    assert attempt(store, values, 5, generation="5").load("anew") == "again"


def test_a_cleared_task_that_saves_without_a_load_keeps_nothing_of_before(
    store: ArtifactStore, values: Values
) -> None:
    attempt(store, values, generation="2", keep=5).save("old")
    attempt(store, values, 2, generation="3", keep=5).save("new")
    assert len(versions(store)) == 1


def test_a_cleared_task_goes_on_where_that_is_asked_for(store: ArtifactStore, values: Values) -> None:
    attempt(store, values, generation="2").save("old")
    assert attempt(store, values, 2, generation="3", on_clear="resume").load() == "old"


def test_success_clears(store: ArtifactStore, values: Values) -> None:
    checkpoint = attempt(store, values, keep=3)
    for step in range(3):
        checkpoint.save({"w": np.full(3, step)})
    checkpoint.succeeded()
    assert versions(store) == []
    assert values == {}
    assert attempt(store, values, 2).load("nothing") == "nothing"


def test_success_keeps_on_demand(store: ArtifactStore, values: Values) -> None:
    checkpoint = attempt(store, values, on_success="keep")
    checkpoint.save("final")
    checkpoint.succeeded()
    assert attempt(store, values, 2).load("nothing") == "final"
    (name,) = store.names()
    assert name.startswith("kept-checkpoints/")


def test_success_without_any_load_or_save_asks_nobody(
    store: ArtifactStore, values: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Requests(store, monkeypatch)
    attempt(store, values).succeeded()
    assert not counted.made
    assert not values.calls


def test_task_instances_and_keys_do_not_meet(store: ArtifactStore) -> None:
    others = [
        TASK,
        (*TASK[:3], "0"),
        (*TASK[:3], "1"),
        ("train_dag", "fit", "x" * 300, "-1"),
        ("train_dag", "fit", "x" * 299 + "y", "-1"),
        ("train_dag", "fit/x", "y", "-1"),
        ("train_dag", "fit", "x/y", "-1"),
    ]
    held = [(identity, key, Values()) for identity in others for key in ("default", "other")]
    for number, (identity, key, values) in enumerate(held):
        attempt(store, values, identity=identity, key=key).save(number)
    assert len(set(store.names())) == len(held)
    attempt(store, held[0][2], identity=TASK).clear()
    for number, (identity, key, values) in enumerate(held[1:], 1):
        assert attempt(store, values, 2, identity=identity, key=key).load() == number


def test_an_attempt_that_dies_before_the_pointer_leaves_the_checkpoint_before(
    store: ArtifactStore, values: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = attempt(store, values)
    checkpoint.save({"epoch": 1, "w": np.ones(2)}, step=1)
    monkeypatch.setattr(values, "set", lambda *_: (_ for _ in ()).throw(SystemExit(137)))
    with pytest.raises(SystemExit):
        checkpoint.save({"epoch": 2, "w": np.ones(2)}, step=2)
    monkeypatch.undo()
    assert len(versions(store)) == 2
    retry = attempt(store, values, 2)
    assert retry.load()["epoch"] == 1
    assert len(versions(store)) == 1, "what nobody points at went"


def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    store: ArtifactStore, values: Values, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = attempt(store, values)
    for step in (1, 2):
        checkpoint.save(np.full(100, step), step=step)
    damage(store, newest(store))
    retry = attempt(store, values, 2)
    assert retry.load()[0] == 1
    assert retry.step == 1
    assert "of step 2" in caplog.text
    assert "damaged" in caplog.text
    retry.save(np.full(100, 3), step=3)
    assert [item[3] for item in values["ml.checkpoint.default"]["kept"]] == [3, 1]


def test_where_all_are_damaged_the_task_fails_and_says_what_to_do(
    store: ArtifactStore, values: Values
) -> None:
    checkpoint = attempt(store, values)
    checkpoint.save(np.ones(100))
    damage(store, newest(store))
    retry = attempt(store, values, 2)
    for _ in range(2):
        with pytest.raises(CheckpointLostError, match="Clear the task"):
            retry.load("never this")


def newest(store: ArtifactStore) -> Any:
    (name,) = store.names()
    return store.get(name)


def damage(store: ArtifactStore, ref: Any) -> None:
    key = keys.blob_key(ref.digest)
    data = bytearray(store.objects.get(key))
    data[-1] ^= 1
    store.objects.put(key, bytes(data), create_only=False)


@pytest.mark.parametrize(
    "pointer",
    [
        pytest.param("text", id="text"),
        pytest.param({"version": 2, "generation": "2", "kept": []}, id="another release"),
        pytest.param({"version": 1, "generation": "2", "kept": [["x"]]}, id="too short"),
        pytest.param(
            {"version": 1, "generation": "2", "kept": [["secrets", "v", "whole", 1, "t", 1]]}, id="no version"
        ),
    ],
)
def test_a_pointer_that_was_edited_is_refused(pointer: Any, store: ArtifactStore, values: Values) -> None:
    values["ml.checkpoint.default"] = pointer
    with pytest.raises(CheckpointLostError, match="delete that key"):
        attempt(store, values).load("never this")


def test_a_pointer_to_another_artifact_is_refused_before_it_is_read(
    store: ArtifactStore, values: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = store.save("secret", "secrets")
    checkpoint = attempt(store, values)
    checkpoint.save("mine")
    values["ml.checkpoint.default"]["kept"][0][:2] = ["secrets", secret.version_id]
    counted = Requests(store, monkeypatch)
    with pytest.raises(CheckpointLostError, match="'secrets', which belongs to another task"):
        attempt(store, values, 2).load()
    assert not counted.made


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_a_loss_that_is_no_number_fails_and_saves_nothing(
    loss: float, store: ArtifactStore, values: Values
) -> None:
    checkpoint = attempt(store, values, every=1000)
    checkpoint.save("good", step=1, loss=0.5)
    with pytest.raises(NonFiniteLossError, match="at step 2"):
        checkpoint.save("bad", step=2, loss=loss)
    assert attempt(store, values, 2).load() == "good"


def test_steps_are_whole_numbers(store: ArtifactStore, values: Values) -> None:
    checkpoint = attempt(store, values)
    checkpoint.save(1, step=np.int64(5))
    assert attempt(store, values, 2).load() == 1
    assert type(checkpoint.step) is int
    with pytest.raises(TypeError, match=r"whole number, got 0\.5"):
        checkpoint.save(1, step=0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"keep": 0},
        {"keep": True},
        {"keep": 1.5},
        {"every": -1},
        {"every": math.nan},
        {"every": "1"},
        {"on_success": "delete"},
        {"on_clear": True},
    ],
)
def test_options_out_of_range_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Options(**options)


def test_a_storage_that_refuses_to_delete_does_not_stop_the_training(
    store: ArtifactStore, values: Values, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = attempt(store, values, keep=1)
    checkpoint.save(1)
    from airflow_ml_provider.exceptions import StoreError

    def refuse(*_: Any) -> None:
        raise StoreError("no right to delete")

    monkeypatch.setattr(ObjectStore, "delete", refuse)
    assert checkpoint.save(2) is True
    assert "no right to delete" in caplog.text
    assert attempt(store, values).load() == 2


def test_values_in_a_folder_are_replaced_at_once_and_outlive_the_process(tmp_path: Path) -> None:
    values = FolderValues(tmp_path / "new" / "folder")
    assert values.get("a/b") is None
    values.set("a/b", {"x": 1})
    values.set("a/b", {"x": 2})
    assert FolderValues(tmp_path / "new" / "folder").get("a/b") == {"x": 2}
    assert len(list((tmp_path / "new" / "folder").iterdir())) == 1
    values.delete("a/b")
    values.delete("a/b")
    assert values.get("a/b") is None


def test_garbage_collection_keeps_what_an_open_run_saved_and_takes_what_was_cleared(
    store: ArtifactStore, values: Values
) -> None:
    producer = Producer(TASK[0], TASK[2], TASK[1])
    checkpoint = attempt(store, values, keep=3)
    checkpoint._producer = producer
    for step in range(3):
        checkpoint.save({"w": np.full(99, step), "step": step}, step=step)
    policy = Retention(keep_last=1, grace=timedelta(0))

    def open_run(ref: ArtifactRef) -> str | None:
        return "its run is open" if ref.producer == producer else None

    execute(plan(store.objects, store.signer, policy=policy, protected=open_run))
    assert len(versions(store)) == 3
    assert attempt(store, values, 2, keep=3).load()["step"] == 2

    checkpoint.succeeded()
    found = plan(store.objects, store.signer, policy=Retention(grace=timedelta(0)), protected=open_run)
    assert {item.kind for item in found.going} == {"blob"}
    execute(found)
    assert list(store.objects.list("blobs")) == []
