# SPDX-License-Identifier: Apache-2.0
"""The JSON that stands for a value and back, through the methods of either Airflow version."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from airflow.sdk.bases.xcom import BaseXCom

from airflow_ml_provider import Artifact
from airflow_ml_provider.artifacts import limits
from airflow_ml_provider.artifacts.values import json_size
from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook
from airflow_ml_provider.settings import load_settings
from airflow_ml_provider.xcom import exchange, state
from airflow_ml_provider.xcom.backend import ArtifactXComBackend

FRAME = pd.DataFrame({"n": [1, 2]})
PLACE = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "key": "return_value"}


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("AIRFLOW__ML_PROVIDER__ARTIFACT_ROOT", f"file://{tmp_path}")
    load_settings.cache_clear()
    state._states.clear()
    yield tmp_path
    load_settings.cache_clear()
    state._states.clear()


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


class Text(str):
    """A subclass, which JSON would bring back as a plain text."""


AWKWARD: list[Any] = [
    None, True, 0, -(1 << 63), (1 << 63) - 1, 1 << 63, 1.5, 0.0, -0.0, 2.0, 1e16, -1e16, 9.99e15, 5e-324,
    -1.2345678901234567e-300, float("nan"), float("inf"), "", "text", "\0", "a\0b",
    "\x1f\x7f", "é", "日本", "😀",
    "\ud800", "\ud83d\ude00", "\\\"/\n", Text("x"), b"x", (1,), {1}, [], {}, [[]], {"a": {}},
    ["\0"], ["\ud800"],
    ["😀" * 9], [None, True, 1, 1.5, "x", [], {}], {"a": -0.0}, {"a": float("nan")}, {"a": 1e16}, {"a": 0.0},
    {"a": 5e-324}, {"a": 1.5, "b": -2.0}, {"\0": 1}, {"\ud800": 1}, {"😀": 1.5}, {1: 2}, {None: 1},
    {Text("a"): 1},
    {"kind": "ml-artifact/v1"}, {"kind": "ml-of-mine"}, {"kind": 3}, [{"kind": "ml-object/v1"}],
    nested(99), nested(100), nested(101), {"a": nested(99)}, {"a": nested(100)},
    [1 << 63], [object()], [(1,)],
    {f"metric {n}": n / 7 for n in range(50)}, [f"text {n}" for n in range(100)],
]  # fmt: skip


@pytest.mark.parametrize("value", AWKWARD, ids=lambda value: repr(value)[:40].partition(" at 0x")[0])
def test_what_fits_inline_is_what_passes_everywhere_and_is_short(value):
    passes = limits.grade(value) == limits.EVERYWHERE
    assert limits.fits_inline(value, 1 << 30) is passes
    if passes:
        # The bound counted on the way is never below the true length.
        assert limits._bound(value, 0) >= json_size(value)
        assert limits.fits_inline(value, json_size(value))
        assert not limits.fits_inline(value, json_size(value) - 1)


def test_a_value_that_contains_itself_does_not_fit_inline():
    value: list[Any] = []
    value.append(value)
    assert not limits.fits_inline(value, 1 << 30)


@pytest.mark.parametrize("value", [{"a": 1.5}, ["x"], "text", 3, 1.5, True, None], ids=repr)
def test_plain_json_is_handed_on_untouched_and_no_store_is_opened(value, monkeypatch):
    monkeypatch.setattr(exchange, "_store", None)
    assert exchange.store(value, **PLACE) is value
    assert exchange.load(value) is value


@pytest.mark.parametrize("value", [{"limit": 0.5}, [], "text", 3], ids=repr)
def test_a_value_with_a_name_is_a_version_of_it_however_small(root, value):
    """Else who reads the name gets an older one that was longer."""
    running(artifact=Artifact("thresholds"))
    stored = exchange.store(value, **PLACE)
    assert (stored["name"], exchange.load(stored)) == ("thresholds", value)
    assert ArtifactStoreHook().store.get("thresholds").version_id == stored["version_id"]


def test_a_format_that_was_asked_for_is_written_for_plain_json_too(root):
    running(artifact=Artifact("numbers", format="json-v1"))
    assert exchange.store([1, 2], **PLACE)["format"] == "json-v1"
    assert exchange.store([1, 2], **PLACE | {"key": "other"}) == [1, 2]


@pytest.mark.parametrize(
    ("task_id", "key", "name"),
    [
        ("t", "return_value", "d.t"),
        ("t", "side", "d.t.side"),
        ("t", "a\nb\0", "d.t.a_b_"),
        ("t", "a/ ", "d.t.a"),
        ("t", "\ud800", "d.t._"),
        ("t", "é/😀", "d.t.é/😀"),
        ("group." * 20 + "t" * 130, "k" * 500, None),
    ],
)
def test_any_key_and_any_task_id_can_be_pushed_under(task_id, key, name):
    stored = exchange.store(FRAME, **PLACE | {"task_id": task_id, "key": key})
    assert stored["name"] == name or (name is None and stored["name"].startswith("d.group.group."))
    pd.testing.assert_frame_equal(exchange.load(stored), FRAME)


def test_long_keys_keep_their_names_apart():
    names = {exchange.derived_name("d", "t", "k" * 500 + end) for end in "ab"}
    assert len(names) == 2


@pytest.mark.parametrize(
    "stored",
    [
        {"__classname__": "builtins.tuple", "__version__": 1, "__data__": [1, 2]},
        {"deep": [{"__classname__": "builtins.set", "__version__": 1, "__data__": [1]}]},
        {"__classname__": "without a version"},
        {"__type": "dict", "__var": {"a": 1}},
        [{"__type": "timedelta", "__var": 3.0}],
        {"kind": "ml-of-mine", "a": [1]},
    ],
    ids=repr,
)
def test_what_airflow_wrote_is_read_as_airflow_reads_it(stored):
    def outcome(read: Any) -> Any:
        try:
            return read(SimpleNamespace(value=stored))
        except Exception as exc:  # noqa: BLE001 - whichever it is
            return type(exc)

    assert outcome(ArtifactXComBackend.deserialize_value) == outcome(BaseXCom.deserialize_value)


def running(
    ti_id: uuid.UUID | None = None,
    artifact: Artifact | None = None,
    map_index: int = -1,
) -> state.TaskState:
    ti = SimpleNamespace(
        id=ti_id or uuid.uuid4(), dag_id="d", run_id="r", task_id="t", map_index=map_index, try_number=2,
        task=SimpleNamespace(artifact=artifact),
    )  # fmt: skip
    return state.begin({"ti": ti, "task": ti.task, "logical_date": datetime(2013, 5, 14, tzinfo=UTC)})


# -- Airflow 3.4


@dataclass(frozen=True)
class FakeCoordinate:
    """
    The fields of ``airflow.sdk.bases.xcom.XComCoordinate``, as the beta 1.4.0b2 of the Task SDK has them.

    A fake, because the Airflow that these tests run on, 3.3, has no such class.
    """

    dag_id: str
    run_id: str
    task_id: str
    ti_id: uuid.UUID | None = None
    region_id: uuid.UUID | None = None
    region_index: int | None = None


class FakeXCom34(ArtifactXComBackend):
    """
    What ``BaseXCom`` of that beta does with a backend: it asks which of the old and the new method is closer
    to the class, the new one first. A fake for the same reason.
    """

    @classmethod
    def push(cls, coordinate: FakeCoordinate, map_index: int, key: str, value: Any) -> Any:
        if cls._closer("store_value", "serialize_value"):
            return cls.store_value(coordinate, key, value)
        raise AssertionError("Airflow refuses loops of tasks for such a backend")

    @classmethod
    def pull(cls, stored: Any) -> Any:
        if cls._closer("load_value", "deserialize_value"):
            return cls.load_value(stored)
        raise AssertionError("the old method is closer")

    @classmethod
    def _closer(cls, new: str, old: str) -> bool:
        place = {name: next(n for n, k in enumerate(cls.__mro__) if name in vars(k)) for name in (new, old)}
        return place[new] <= place[old]


def test_a_frame_crosses_by_the_methods_of_airflow_34():
    ti_id = uuid.uuid4()
    task = running(ti_id, Artifact("features"))
    stored = FakeXCom34.push(FakeCoordinate("d", "r", "t", ti_id), -1, "return_value", FRAME)
    assert stored["name"] == "features"
    assert stored["producer"] == {
        "dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 2, "key": "return_value"
    }  # fmt: skip
    assert stored["effective_at"].startswith("2013-05-14")
    assert list(task.writes) == [stored["version_id"]]
    pd.testing.assert_frame_equal(FakeXCom34.pull(stored), FRAME)


def test_both_ways_of_asking_give_the_same_json():
    running()
    old = ArtifactXComBackend.serialize_value(FRAME, **PLACE)
    new = FakeXCom34.push(FakeCoordinate("d", "r", "t"), -1, "return_value", FRAME)
    assert {k for k in old if old[k] != new[k]} <= {"version_id", "recorded_at", "signature"}
    pd.testing.assert_frame_equal(ArtifactXComBackend.deserialize_value(SimpleNamespace(value=new)), FRAME)


def test_an_iteration_of_a_loop_is_found_by_its_id():
    """Iterations share the dag, run, task and map index; the place in the loop is in the region index."""
    loop, first, second = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
    running(first)
    task = running(second, Artifact("of the second"))
    at = FakeCoordinate("d", "r", "t", second, loop, region_index=1)
    assert FakeXCom34.push(at, -1, "return_value", FRAME)["name"] == "of the second"
    assert len(task.writes) == 1


def test_a_mapped_task_is_found_by_its_id():
    ti_id = uuid.uuid4()
    running(ti_id, map_index=4)
    at = FakeCoordinate("d", "r", "t", ti_id, uuid.uuid4(), region_index=4)
    assert FakeXCom34.push(at, 4, "return_value", FRAME)["producer"]["map_index"] == 4


def test_writing_for_another_task_instance_is_nobody_s_write():
    task = running()
    stored = FakeXCom34.push(FakeCoordinate("d", "r", "another"), -1, "key", FRAME)
    assert stored["name"] == "d.another.key"
    assert task.writes == {}


def test_a_change_between_pushes_within_user_code_is_kept():
    frame = FRAME.copy()
    running()
    before = exchange.store(frame, **PLACE | {"key": "a"})
    frame.loc[0, "n"] = 9
    after = exchange.store(frame, **PLACE | {"key": "a"})
    assert exchange.load(before)["n"].tolist() == [1, 2]
    assert exchange.load(after)["n"].tolist() == [9, 2]
    assert len(ArtifactStoreHook().store.versions("d.t.a")) == 2
