# SPDX-License-Identifier: Apache-2.0
"""What is measured of our store alone, or in its own environment. Called in a worker."""

from __future__ import annotations

import gc
import os
import shutil
import time
from types import SimpleNamespace
from typing import Any, ClassVar

from airflow_ml_provider.artifacts.store import ArtifactStore
from benchmarks import values

_KEY = b"benchmark" * 4


def _store(folder: str) -> ArtifactStore:
    return ArtifactStore(f"file://{folder}", signing_key=_KEY)


def _stored(store: ArtifactStore) -> int:
    return sum(entry.size_bytes for entry in store.objects.list(""))


def inline(value: str, calls: int, repetitions: int) -> tuple[list[float], list[float]]:
    """
    Seconds of one serialize and deserialize, by our backend and by Airflow's, in turn in one process.

    A repetition is the mean of ``calls`` of each, in twenty blocks that take turns.
    """
    from airflow.sdk.bases.xcom import BaseXCom

    from airflow_ml_provider.xcom.backend import ArtifactXComBackend

    made = {"metrics": values.METRICS, "strings": values.STRINGS}[value]
    where: dict[str, Any] = {
        "key": "return_value",
        "dag_id": "bench",
        "task_id": "produce",
        "run_id": "run",
        "map_index": -1,
    }

    def block(backend: Any, count: int) -> float:
        write, read = backend.serialize_value, backend.deserialize_value
        before = time.perf_counter()
        for _ in range(count):
            read(SimpleNamespace(key="return_value", value=write(made, **where)))
        return (time.perf_counter() - before) / count

    for backend in (ArtifactXComBackend, BaseXCom):
        block(backend, max(calls // 20, 10))
        stored = backend.serialize_value(made, **where)
        assert backend.deserialize_value(SimpleNamespace(key="return_value", value=stored)) == made
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(repetitions):
        ours = theirs = 0.0
        gc.collect()
        for number in range(20):
            order = (ArtifactXComBackend, BaseXCom) if number % 2 else (BaseXCom, ArtifactXComBackend)
            for backend in order:
                taken = block(backend, max(calls // 20, 1))
                if backend is ArtifactXComBackend:
                    ours += taken
                else:
                    theirs += taken
        found[0].append(ours / 20)
        found[1].append(theirs / 20)
    return found


def repeated(value: dict[str, Any], runs: int, folder: str) -> dict[str, int]:
    """Bytes after the first of some runs that save the same value, and after the last."""
    store = _store(folder)
    made = values.make(value)
    store.save(made, "value")
    first = _stored(store)
    for _ in range(runs - 1):
        store.save(made.copy(), "value")
    return {"first": first, "all": _stored(store)}


def sharing(change: str, rows: int, versions: int, repetitions: int, folder: str) -> dict[str, Any]:
    """
    Save versions of a frame, each changed from the one before.

    :returns: ``stored``: bytes in the store after each version; ``shared_s`` and ``plain_s``: reads of the
        last version, from the store of all and from a store where it is the only one; ``save_s``: of each.
    """
    store = _store(f"{folder}/shared")
    value = values.make({"kind": "frame", "rows": rows})
    stored, save_s = [], []
    for number in range(versions):
        if number:
            value = values.CHANGES[change](value, rows // 100, number)
        os.sync()
        before = time.perf_counter()
        ref = store.save(value, "value")
        save_s.append(time.perf_counter() - before)
        stored.append(_stored(store))
    alone = _store(f"{folder}/alone")
    plain = alone.save(value, "value")
    exact = values.same(value, store.load(ref)) and values.same(value, alone.load(plain))
    shared_s: list[float] = []
    plain_s: list[float] = []
    for number in range(-1, repetitions):
        turns = [(shared_s, store, ref), (plain_s, alone, plain)]
        for found, which, wanted in turns[:: 1 if number % 2 else -1]:
            gc.collect()
            before = time.perf_counter()
            which.load(wanted)
            if number >= 0:
                found.append(time.perf_counter() - before)
    shutil.rmtree(folder, ignore_errors=True)
    return {
        "stored": stored,
        "shared_s": shared_s,
        "plain_s": plain_s,
        "save_s": save_s,
        "exact": exact,
    }


class _Kept:
    store: ArtifactStore
    refs: ClassVar[dict[str, Any]] = {}


def connect(root: str, options: dict[str, str]) -> None:
    _Kept.store = ArtifactStore(root, signing_key=_KEY, options=options)


def fill(name: str, versions: int) -> None:
    for number in range(versions):
        _Kept.store.save({"number": number}, name)


def save(value: dict[str, Any] | None, name: str) -> None:
    made = values.METRICS if value is None else values.make(value)
    _Kept.refs[name] = _Kept.store.save(made, name)


def load(name: str) -> None:
    _Kept.store.load(_Kept.refs[name])
