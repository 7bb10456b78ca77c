# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.envelope import to_envelope
from airflow_ml_provider.artifacts.refs import Producer
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.caching.entries import Cache
from airflow_ml_provider.caching.key import CacheKey, KeyMaker
from airflow_ml_provider.lineage.records import TaskRecord, write_record
from tests.unit.cli.conftest import Answer

Run = Callable[..., Answer]

DAG_FILE = """
from airflow.sdk import dag, task
from airflow_ml_provider import ml

FACTOR = {factor}

@dag(schedule=None)
def training():
    @ml.cached(version="{version}")
    @task
    def features(number: int) -> int:
        return number * FACTOR

    @task
    def plain(): ...

    features.expand(number=[1, 2]) if {mapped} else features(1)
    plain()

training()
"""


@pytest.fixture
def dag_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    folder = tmp_path / "dags"
    folder.mkdir()
    bundle = [
        {
            "name": "tests",
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(folder)},
        }
    ]
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps(bundle))

    def write(*, factor: int = 2, version: str = "1", mapped: bool = False) -> None:
        path = folder / "training.py"
        path.write_text(DAG_FILE.format(factor=factor, version=version, mapped=mapped))
        stamp = time.time() + factor + 100 * int(version)
        os.utime(path, (stamp, stamp))

    write()
    return write


def computed(
    store: ArtifactStore,
    key: CacheKey,
    run: int,
    *,
    dag_id: str = "training",
    task_id: str = "features",
    map_index: int = -1,
    hit: bool = False,
    days_ago: float = 0,
) -> None:
    """Leave what a run of a cached task leaves."""
    when = datetime(2013, 2, 1, tzinfo=UTC) + timedelta(days=run)
    if not hit:
        me = Producer(dag_id, f"run-{run}", task_id, map_index, 1)
        ref = store.save(f"{key.text}".encode(), f"{task_id}.result", producer=me)
        Cache(store).remember(key, me, to_envelope(ref, store.signer), seconds=1.5)
        if days_ago:
            place = keys.cache_key(key.text)
            doc = store.objects.get_json(place)
            doc["recorded_at"] = (datetime.now(UTC) - timedelta(days=days_ago)).isoformat()
            del doc["signature"]
            store.objects.put_json(place, store.signer.signed(doc), create_only=False)
    write_record(
        store.objects,
        TaskRecord(
            dag_id,
            f"run-{run}",
            task_id,
            map_index,
            1,
            "success",
            run={"run_after": when.isoformat()},
            cached={"hit": hit, "why": "because", "key": key.text},
        ),
    )


def key_of(**parts: str) -> CacheKey:
    maker = KeyMaker()
    for name, value in parts.items():
        maker.add(f"argument {name}", value, show=True)
    return maker.key()


@pytest.mark.usefixtures("dag_file")
def test_a_run_is_explained_against_the_last_computation(airflow: Run, store: ArtifactStore) -> None:
    computed(store, key_of(day="monday"), 1)
    computed(store, key_of(day="tuesday"), 2)
    computed(store, key_of(day="tuesday"), 3, hit=True)
    found = json.loads(
        airflow("ml", "cache", "explain", "training", "features", "--run", "run-1", "-o", "json").out
    )
    assert [(run["run_id"], run["hit"], run["why"]) for run in found["runs"]] == [
        ("run-3", True, "because"),
        ("run-2", False, "because"),
        ("run-1", False, "because"),
    ]
    assert found["last"]["producer"]["run_id"] == "run-2"
    assert found["entry"]["missing"] == []
    assert found["differences"] == ["argument day changed from monday to tuesday"]
    words = ("ml", "cache", "explain", "training", "features", "--run")
    assert "argument day changed" in airflow(*words, "run-1").out
    assert "run run-3 has the same key" in airflow(*words, "run-3").out
    assert airflow(*words, "run-9").code == 3

    store.objects.delete([keys.cache_key(key_of(day="monday").text)])
    answer = airflow(*words, "run-1", "-o", "json")
    assert (answer.code, json.loads(answer.out)["differences"]) == (0, None)
    assert "its key with it" in answer.err


@pytest.mark.parametrize("mapped", [False, True])
def test_the_code_of_now_is_compared_with_the_last_computation(
    airflow: Run, store: ArtifactStore, dag_file: Callable[..., None], mapped: bool
) -> None:
    from airflow_ml_provider.cli.cache import _find_task
    from airflow_ml_provider.decorators.cached import CacheLayer
    from airflow_ml_provider.decorators.stacking import layers_of

    dag_file(mapped=mapped)
    task = _find_task("training", "features")
    assert task is not None
    (layer,) = layers_of(task.operator_class)
    assert isinstance(layer, CacheLayer)
    computed(store, layer.code_key(task), 1, map_index=0 if mapped else -1)
    words = ("ml", "cache", "explain", "training", "features", "--map-index", "0" if mapped else "-1")

    found = json.loads(airflow(*words, "-o", "json").out)
    assert (found["compared"], found["differences"]) == ("now", [])
    assert "arguments count when the task runs" in airflow(*words).out

    dag_file(factor=3, version="2", mapped=mapped)
    found = json.loads(airflow(*words, "-o", "json").out)
    assert found["differences"][0] == "version changed from 1 to 2"
    assert any("FACTOR" in each for each in found["differences"])


@pytest.mark.usefixtures("dag_file")
def test_what_cannot_be_compared_is_told(airflow: Run, store: ArtifactStore) -> None:
    assert airflow("ml", "cache", "explain", "training", "features").code == 3
    computed(store, key_of(day="monday"), 1, task_id="plain")
    computed(store, key_of(day="monday"), 1, dag_id="gone")
    answer = airflow("ml", "cache", "explain", "training", "plain")
    assert (answer.code, "not marked @ml.cached any more" in answer.err) == (0, True)
    answer = airflow("ml", "cache", "explain", "gone", "features")
    assert (answer.code, "not in the DAG files of this machine" in answer.err) == (0, True)


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (("--dag", "train*"), {"other"}),
        (("--task", "fit"), {"features", "other"}),
        (("--name", "*.result", "--dag", "other"), {"features", "fit"}),
        (("--name", "nothing"), {"features", "fit", "other"}),
        (("--older-than-days", "7"), {"features", "other"}),
        (("--older-than-days", "0", "--dag", "other"), {"features", "fit"}),
        (("--all",), set()),
    ],
)
def test_entries_are_forgotten_by_dag_task_name_and_age(
    airflow: Run, store: ArtifactStore, words: tuple[str, ...], left: set[str]
) -> None:
    computed(store, key_of(day="1"), 1)
    computed(store, key_of(day="2"), 1, task_id="fit", days_ago=10)
    computed(store, key_of(day="3"), 1, dag_id="other", task_id="other")
    said = json.loads(airflow("ml", "cache", "clear", *words, "-o", "json").out)
    assert {row["producer"]["task_id"] for row in said} == {"features", "fit", "other"} - left
    assert len(Cache(store).keys()) == 3, "a dry run"
    answer = airflow("ml", "cache", "clear", *words, "--delete")
    assert (answer.code, f"forgot {3 - len(left)} of 3 entries" in answer.err) == (0, True)
    assert {entry.producer.task_id for entry in Cache(store).entries()} == left


def test_the_whole_cache_is_forgotten_only_if_that_is_said(airflow: Run, store: ArtifactStore) -> None:
    answer = airflow("ml", "cache", "clear", "--delete")
    assert (answer.code, "--all for the whole cache" in answer.err) == (2, True)
