# SPDX-License-Identifier: Apache-2.0
"""``ml.checkpoint()`` in tasks, with Airflow's own task state store."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from airflow.sdk import dag, task

from airflow_ml_provider import ml
from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook

DAGS = Path(__file__).resolve().parents[3] / "dags"
START = datetime(2026, 1, 1, tzinfo=UTC)


def pointers(dag_id: str) -> list[str]:
    from airflow.models.task_state_store import TaskStateStoreModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        query = select(TaskStateStoreModel.key).where(TaskStateStoreModel.dag_id == dag_id)
        return sorted(session.scalars(query))


def names() -> list[str]:
    """Return the names of checkpoints that have versions."""
    store = ArtifactStoreHook().store
    return [name for name in store.names() if "checkpoints/" in name and store.versions(name)]


def test_a_task_saves_and_loads_and_success_clears(
    run_dag: Callable[..., Any], artifact_root: Path, xcom_table: Callable[..., Any]
) -> None:
    seen: list[Any] = []

    @dag(schedule=None, start_date=START)
    def checkpointed() -> None:
        @task
        def fit(part: int) -> int:
            state = ml.checkpoint(keep=3).load({"epoch": 0})
            for epoch in range(state["epoch"], 5):
                state = {"epoch": epoch + 1, "weights": np.full(3, part)}
                ml.checkpoint().save(state, step=epoch)
            seen.append((names(), pointers("checkpointed"), ml.checkpoint().step))
            return int(ml.checkpoint().load()["weights"].sum())

        fit.expand(part=[1, 2])

    run = run_dag(checkpointed())
    assert run.state == "success"
    assert [xcom_table(run, "fit", map_index=index) for index in (0, 1)] == [3, 6]
    for index, (found, keys, step) in enumerate(sorted(seen)):
        assert found == [f"checkpoints/checkpointed/fit/{escaped(run.run_id)}/{index}/default"]
        assert keys == ["ml.checkpoint.default"]
        assert step == 4
    assert names() == []
    assert pointers("checkpointed") == []


def escaped(text: str) -> str:
    from airflow_ml_provider.artifacts.keys import segment

    return segment(text)


def test_what_a_failed_task_saved_stays_and_what_is_asked_for_stays_too(
    run_dag: Callable[..., Any], artifact_root: Path
) -> None:
    @dag(schedule=None, start_date=START)
    def left_over() -> None:
        @task
        def fails() -> None:
            ml.checkpoint().save("half")
            raise ValueError("no luck")

        @task
        def keeps() -> None:
            ml.checkpoint("model", on_success="keep").save("all")

        fails()
        keeps()

    run_dag(left_over())
    assert [name.split("/")[0::2] for name in sorted(names())] == [
        ["checkpoints", "fails", "-1"],
        ["kept-checkpoints", "keeps", "-1"],
    ]
    assert pointers("left_over") == ["ml.checkpoint.default", "ml.checkpoint.model"]
    store = ArtifactStoreHook().store
    (version,) = store.versions(next(name for name in names() if name.startswith("checkpoints/")))
    assert version.producer is not None
    assert version.producer.task_id == "fails"


def test_the_example_dag_learns_digits_and_leaves_nothing(airflow_db: Path, artifact_root: Path) -> None:
    from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db

    bag = BundleDagBag(dag_folder=DAGS, bundle_path=DAGS, load_op_links=False)
    sync_bag_to_db(bag, "dags-folder", None)
    run = bag.dags["checkpointed_training"].test()
    assert run.state == "success"
    assert ArtifactStoreHook().store.get("checkpointed_training.fit.model").load().score is not None
    assert names() == []


def test_outside_of_a_task_it_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match=r"no running task.*ml\.checkpoint\(folder='\.\.\.'\)"):
        ml.checkpoint()


def test_in_a_script_a_folder_takes_the_place_of_the_task(tmp_path: Path) -> None:
    from airflow_ml_provider.decorators import checkpoint as home

    assert ml.checkpoint(folder=tmp_path).load(0) == 0
    ml.checkpoint(folder=tmp_path).save({"w": np.ones(2), "epoch": 7}, step=7)
    home._in_folders.clear()  # as another process
    again = ml.checkpoint(folder=tmp_path)
    assert again.load()["epoch"] == 7
    again.clear()
    assert ml.checkpoint(folder=tmp_path).load("nothing") == "nothing"


@pytest.mark.parametrize("key", ["", "x" * 101, "a\nb", 3])
def test_keys_are_short_texts(key: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="key is a text"):
        ml.checkpoint(key, folder=tmp_path)
