# SPDX-License-Identifier: Apache-2.0
"""Pickle: only where a deployment allows it, by name, and never read elsewhere."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.codecs import pickled
from airflow_ml_provider.artifacts.codecs.registry import Stored
from airflow_ml_provider.artifacts.refs import Producer
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import (
    ArtifactCorruptError,
    ClassChangedError,
    UnsupportedTypeError,
    UntrustedTypeError,
)
from tests.unit.artifacts.conftest import KEY
from tests.unit.artifacts.sameness import same


class Plain:
    """A class that nobody knows."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return type(other) is Plain and other.value == self.value

    __hash__ = None  # type: ignore[assignment]


class Own(BaseEstimator):
    def __init__(self, depth: int = 1) -> None:
        self.depth = depth


@pytest.fixture
def allowing(store: ArtifactStore) -> ArtifactStore:
    return ArtifactStore(store.objects.root, signing_key=KEY, allow_pickle=True)


def test_what_no_codec_knows_is_pickled_where_that_is_allowed(allowing: ArtifactStore) -> None:
    tree = allowing.encode({"known": b"x", "unknown": Plain([1])}, name="task")

    assert tree["unknown"]["format"] == "pickle-v1"
    assert tree["unknown"]["type"] == f"{__name__}.Plain"
    assert tree["known"]["format"] == "bytes-v1"
    assert allowing.decode(tree) == {"known": b"x", "unknown": Plain([1])}


def test_airflows_own_serialisation_comes_first(allowing: ArtifactStore) -> None:
    tree = allowing.encode(Plain(1), name="task", fallback=lambda value: {"plain": value.value})

    assert "format" not in tree
    assert allowing.decode(tree, fallback=lambda value: Plain(value["plain"])) == Plain(1)


def refuses(value: Any) -> Any:
    raise TypeError("unknown")


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(lambda x: x + 1, id="a lambda"),
        pytest.param(Plain, id="a class"),
        pytest.param(np.array([{"a": 1}, None, "x"], dtype=object), id="objects in an array"),
        pytest.param(np.array([(1, "a")], dtype=[("i", "i4"), ("o", "O")]), id="objects in fields"),
        pytest.param(np.array([(1, "a")], dtype=[("i", "i4"), ("o", "O")])[0], id="a scalar of objects"),
        pytest.param(pd.DataFrame({"a": [Plain(1), 2]}), id="objects in a frame"),
        pytest.param(FunctionTransformer(os.path.join), id="an estimator that skops refuses"),
        pytest.param(Own(5), id="an estimator that no reader may load"),
        pytest.param(make_pipeline(StandardScaler(), Own(5)), id="one inside a pipeline"),
    ],
)
def test_what_its_codec_refuses_is_pickled_too(allowing: ArtifactStore, value: Any) -> None:
    tree = allowing.encode(value, name="task", fallback=refuses)

    assert tree["format"] == "pickle-v1"
    back = allowing.decode(tree)
    assert type(back) is type(value)
    if isinstance(value, types.FunctionType):
        assert back(1) == value(1)
    elif isinstance(value, BaseEstimator):
        assert repr(back) == repr(value)
    elif isinstance(value, (np.ndarray, np.generic)):
        assert back.dtype == value.dtype
        assert back.tolist() == value.tolist()
    else:
        assert same(back, value) if not isinstance(value, type) else back is value


def test_a_class_that_a_function_made_is_pickled_with_its_values(allowing: ArtifactStore) -> None:
    @dataclass
    class Local:
        a: int

    back = allowing.decode(allowing.encode(Local(1), name="task"))

    assert back.a == 1


def test_an_estimator_that_is_allowed_by_name_needs_no_pickle(store: ArtifactStore) -> None:
    both = ArtifactStore(
        store.objects.root, signing_key=KEY, allow_pickle=True, allowed_classes=[f"{__name__}.*"]
    )

    assert both.save(Own(5), "task").format == "skops-v1"


@pytest.mark.parametrize("value", [RandomForestClassifier(2), {"a": 1}, [1], 2.0, np.arange(3)])
def test_pickle_can_be_asked_for(allowing: ArtifactStore, value: Any) -> None:
    tree = allowing.encode(value, name="task", format="pickle")

    assert tree["format"] == "pickle-v1"
    back = allowing.decode(tree)
    assert repr(back) == repr(value)


def test_a_format_that_was_asked_for_does_not_become_pickle(allowing: ArtifactStore) -> None:
    with pytest.raises(UnsupportedTypeError, match="Python objects"):
        allowing.save(np.array([None]), "task", format="npy")


@pytest.mark.parametrize(
    ("value", "says"),
    [(threading.Lock(), "cannot be pickled.*lock"), ([Plain(open(os.devnull, "rb"))], "cannot be pickled")],  # noqa: SIM115
)
def test_what_cannot_be_pickled_is_refused_by_name(allowing: ArtifactStore, value: Any, says: str) -> None:
    with pytest.raises(UnsupportedTypeError, match=says):
        allowing.encode(value, name="task")


@pytest.mark.parametrize("value", [Plain(1), np.array([None]), Own])
def test_without_the_option_nothing_is_pickled(store: ArtifactStore, value: Any) -> None:
    with pytest.raises(UnsupportedTypeError, match="allow_pickle = True"):
        store.encode(value, name="task")
    with pytest.raises(UnsupportedTypeError, match=r"'task'.*allow_pickle is off"):
        store.encode({"a": 1}, name="task", format="pickle")
    assert list(store.names()) == []


def test_without_the_option_nothing_is_unpickled(store: ArtifactStore, allowing: ArtifactStore) -> None:
    tree = allowing.encode(Plain(1), name="task", producer=Producer("flights", "run 1", "fit"), on_write=None)

    for read in (lambda: store.decode(tree), lambda: store.get("task").load()):
        with pytest.raises(UntrustedTypeError) as error:
            read()
        for part in (
            "ml-artifact://task",
            "flights.fit in run run 1",
            f"{__name__}.Plain",
            "'pickle-v1'",
            "allow_pickle",
            "a type that has a codec, or register one",
        ):
            assert part in str(error.value)


def test_a_refused_pickle_is_neither_fetched_nor_is_anything_imported(
    allowing: ArtifactStore, tmp_path: Path
) -> None:
    tree = allowing.encode(Plain(1), name="task")
    code = f"""
import json, sys
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import UntrustedTypeError
store = ArtifactStore({allowing.objects.root!r}, signing_key={KEY!r})
events, loaded = [], set(sys.modules)
def note(event, args):
    if event in ("import", "pickle.find_class", "exec", "compile"):
        events.append((event, str(args[0])[:80]))
    elif event == "open" and "blobs" in str(args[0]):
        events.append((event, args[0]))
sys.addaudithook(note)
try:
    store.decode(json.loads({__import__("json").dumps(tree)!r}))
except UntrustedTypeError:
    raise SystemExit(str(events or set(sys.modules) - loaded or 0) if events else 0)
raise SystemExit("was read")
"""

    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stderr


def test_a_reference_to_a_pickle_can_be_passed_on_without_reading_it(
    store: ArtifactStore, allowing: ArtifactStore
) -> None:
    tree = allowing.encode(Plain(1), name="task")

    (ref,) = store.decode([tree], as_refs=True)

    assert store.encode(ref, name="other") == tree


def test_the_hash_of_a_pickle_is_checked_even_where_reading_does_not_verify(store: ArtifactStore) -> None:
    careless = ArtifactStore(store.objects.root, signing_key=KEY, allow_pickle=True, verify_on_read=False)
    tree = careless.encode(Plain(1), name="task")
    blob = Path(store.objects.root.removeprefix("file://")) / keys.blob_key(tree["digest"])
    blob.write_bytes(bytes(len(blob.read_bytes())))

    with pytest.raises(ArtifactCorruptError, match="expected blake3:"):
        careless.decode(tree)


def test_arrays_come_back_writable_aligned_and_in_their_order(allowing: ArtifactStore) -> None:
    frozen = np.arange(5000.0)
    frozen.flags.writeable = False
    value = {
        "c": np.arange(10_001, dtype="i1"),
        "f": np.asfortranarray(np.arange(20_000.0).reshape(100, 200)),
        "strided": np.arange(20_000.0)[::2],
        "frozen": frozen,
        "empty": np.empty((0, 3)),
        "bytes": bytearray(9000),
    }

    back = allowing.load(allowing.save(value, "task", format="pickle"))

    for key, item in value.items():
        assert np.array_equal(back[key], item), key
        assert type(back[key]) is type(item)
    assert back["c"].flags.writeable
    assert back["f"].flags.f_contiguous
    assert back["f"].flags.aligned
    assert not back["frozen"].flags.writeable
    back["bytes"][0] = 1


def test_equal_values_are_stored_once(allowing: ArtifactStore) -> None:
    values = [Plain({"a": list(range(100)), "b": np.arange(9000.0)}) for _ in range(2)]

    one, two = (allowing.save(value, "task") for value in values)

    assert one.digest == two.digest


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(lambda data: b"", id="nothing"),
        pytest.param(lambda data: data[:20], id="a stump"),
        pytest.param(lambda data: data[:-64], id="a buffer short"),
        pytest.param(lambda data: data + bytes(64), id="more than was written"),
        pytest.param(lambda data: b"\xff" * 8 + data[8:], id="too many buffers"),
        pytest.param(lambda data: data[:8] + b"\xff" * 8 + data[16:], id="a huge buffer"),
        pytest.param(lambda data: pickle.dumps(1), id="a plain pickle"),
    ],
)
def test_another_layout_is_refused_before_it_is_unpickled(edit: Any) -> None:
    data = edit(b"".join(pickled.dump({"a": np.arange(9000.0)}).parts))

    with pytest.raises(ArtifactCorruptError, match="not laid out"):
        pickled.load(memoryview(data), Stored("task", "dict"))


def test_a_class_that_is_gone_is_named(allowing: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("gone_tomorrow")
    monkeypatch.setitem(sys.modules, "gone_tomorrow", module)
    module.Thing = type("Thing", (), {"__module__": "gone_tomorrow"})  # type: ignore[attr-defined]
    tree = allowing.encode(module.Thing(), name="task")
    monkeypatch.delitem(sys.modules, "gone_tomorrow")

    with pytest.raises(ClassChangedError, match=r"gone_tomorrow\.Thing.*No module named 'gone_tomorrow'"):
        allowing.decode(tree)


def test_a_class_of_a_dag_file_is_found_under_this_processs_name_of_it(
    allowing: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, here = (f"unusual_prefix_{mark * 40}_flights" for mark in "ab")
    for name in (there, here):
        module = types.ModuleType(name)
        module.Thing = type("Thing", (), {"__module__": name})  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
    tree = allowing.encode(sys.modules[there].Thing(), name="task")
    monkeypatch.delitem(sys.modules, there)

    assert type(allowing.decode(tree)) is sys.modules[here].Thing
