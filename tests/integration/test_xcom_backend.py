# SPDX-License-Identifier: Apache-2.0
"""Ordinary DAGs under the backend, run by ``dag.test()`` on a real metadata database."""

from __future__ import annotations

import dataclasses
import datetime as dt
import logging
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pendulum
import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, CronDataIntervalTimetable, task

from airflow_ml_provider import Artifact, ArtifactAsset, ArtifactRef
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook
from airflow_ml_provider.lineage.records import consumers_of, read_record

FRAME = pd.DataFrame(
    {"id": [1, 2, 3], "who": ["a", None, "c"], "at": pd.to_datetime(["2013-01-01"] * 3, utc=True)}
)


@dataclasses.dataclass
class Summary:
    rows: int
    frame: pd.DataFrame
    when: dt.datetime


@pytest.fixture(autouse=True)
def _root(artifact_root: Path) -> None:
    """Every test here writes to an artifact root of its own."""


@pytest.fixture
def seen() -> list[Any]:
    """What the consuming tasks of a test received."""
    return []


def store() -> ArtifactStore:
    return ArtifactStoreHook().store


def succeeded(run: Any) -> bool:
    return str(run.state) == "success"


def handed_on(dag_id: str, value: Any, seen: list[Any]) -> DAG:
    """A task returns ``value``, the next one takes it as its argument and notes what it got."""
    with DAG(dag_id, schedule=None) as dag:

        @task
        def produce():
            return value

        @task
        def consume(found):
            seen.append(found)

        consume(produce())
    return dag


def test_a_frame_crosses_as_a_readable_envelope_and_comes_back_equal(run_dag, xcom_table, seen):
    run = run_dag(handed_on("frame_crosses", FRAME, seen))
    assert succeeded(run)
    pd.testing.assert_frame_equal(seen[0], FRAME)
    envelope = xcom_table(run, "produce")
    assert envelope["kind"] == "ml-artifact/v1"
    assert envelope["name"] == "frame_crosses.produce"
    assert envelope["producer"] | {"run_id": None} == {
        "dag_id": "frame_crosses",
        "run_id": None,
        "task_id": "produce",
        "map_index": -1,
        "try_number": 1,
        "key": "return_value",
    }
    assert len(str(envelope)) < 4_000


@pytest.mark.parametrize(
    "value",
    [
        {"roc_auc": 0.7, "rows": [1, 2, None, True]},
        [],
        "text",
        0,
        1.5,
        {"nested": {"list": [{"deep": "value"}]}},
    ],
    ids=repr,
)
def test_plain_json_stays_in_the_table_untouched(run_dag, xcom_table, seen, value):
    run = run_dag(handed_on("plain_json", value, seen))
    assert succeeded(run)
    assert xcom_table(run, "produce") == value
    assert seen == [value]
    assert list(store().names()) == []


@pytest.mark.parametrize(
    "value",
    [
        pytest.param((1, "a", None), id="tuple"),
        pytest.param({"inf": float("inf"), "big": 2**70}, id="what JSON does not carry"),
        pytest.param(2.0, id="a float that SQLite keeps as an integer"),
        pytest.param({"rows": 2.0}, id="a whole float in a dict"),
        pytest.param({1: "int key", (2, 3): "tuple key"}, id="keys that are not strings"),
        pytest.param(pendulum.datetime(2013, 1, 1, tz="America/New_York"), id="pendulum with zone"),
        pytest.param(dt.timedelta(days=1, microseconds=1), id="timedelta"),
        pytest.param({"a", "b"}, id="set"),
        pytest.param(complex(1, -2), id="complex keeps both parts"),
        pytest.param("x" * 100_000, id="long text"),
        pytest.param({"kind": "ml-artifact/v1", "name": "a user's own"}, id="looks like an envelope"),
        pytest.param(b"\x00bytes", id="bytes"),
    ],
)
def test_a_value_comes_back_equal_and_of_its_type(run_dag, seen, value):
    with DAG("comes_back", schedule=None) as dag:

        @task
        def produce():
            return value

        # Pulled, not passed: Airflow itself cannot render an argument that holds NaN or an infinity.
        @task
        def consume(ti=None):
            seen.append(ti.xcom_pull(task_ids="produce"))

        produce() >> consume()

    assert succeeded(run_dag(dag))
    assert seen == [value]
    assert type(seen[0]) is type(value)


def test_artifacts_inside_containers_and_dataclasses(run_dag, seen):
    value = {
        "frames": [FRAME, FRAME.copy()],
        "arrays": (np.arange(6).reshape(2, 3), np.float32(1.5)),
        "summary": Summary(3, FRAME, dt.datetime(2013, 1, 1, tzinfo=dt.UTC)),
    }
    assert succeeded(run_dag(handed_on("containers", value, seen)))
    found = seen[0]
    assert list(found) == list(value)
    pd.testing.assert_frame_equal(found["frames"][1], FRAME)
    assert type(found["arrays"]) is tuple
    np.testing.assert_array_equal(found["arrays"][0], value["arrays"][0])
    assert type(found["arrays"][1]) is np.float32
    assert type(found["summary"]) is Summary
    pd.testing.assert_frame_equal(found["summary"].frame, FRAME)
    assert store().usage().bytes_stored < store().usage().bytes_logical


def test_a_file_that_a_task_wrote_reaches_the_next_task(run_dag, seen, tmp_path):
    with DAG("files", schedule=None) as dag:

        @task
        def produce():
            folder = tmp_path / "out"
            (folder / "sub").mkdir(parents=True)
            (folder / "sub" / "a.txt").write_text("inside")
            single = tmp_path / "single.csv"
            single.write_text("x,y")
            return {"file": single, "folder": folder}

        @task
        def consume(found):
            seen.append(((found["file"]).read_text(), (found["folder"] / "sub" / "a.txt").read_text()))

        consume(produce())

    assert succeeded(run_dag(dag))
    assert seen == [("x,y", "inside")]


def test_mapping_over_a_list_of_frames(run_dag, seen):
    with DAG("mapped", schedule=None) as dag:

        @task
        def produce():
            return [FRAME.head(1), FRAME.head(2), FRAME]

        @task
        def count(frame):
            return len(frame)

        @task
        def consume(counts):
            seen.append(list(counts))

        consume(count.expand(frame=produce()))

    assert succeeded(run_dag(dag))
    assert seen == [[1, 2, 3]]


def test_mapping_over_a_list_too_long_to_stay_inline(run_dag, seen):
    with DAG("mapped_long", schedule=None) as dag:

        @task
        def produce():
            return ["x" * 20_000, "y" * 20_000]

        @task
        def first(text):
            return text[0]

        @task
        def consume(letters):
            seen.append(list(letters))

        consume(first.expand(text=produce()))

    assert succeeded(run_dag(dag))
    assert seen == [["x", "y"]]


def test_mapped_outputs_are_read_as_a_sequence_and_by_pull(run_dag, seen):
    with DAG("lazy", schedule=None) as dag:

        @task
        def produce(n):
            return FRAME.head(n)

        @task
        def consume(frames, ti=None):
            seen.append([len(frame) for frame in frames])
            seen.append([len(frame) for frame in ti.xcom_pull(task_ids="produce")])
            seen.append(len(ti.xcom_pull(task_ids="produce", map_indexes=1)))

        consume(produce.expand(n=[1, 2]))

    assert succeeded(run_dag(dag))
    assert seen == [[1, 2], [1, 2], 2]


def test_multiple_outputs_store_each_value_once(run_dag, seen):
    with DAG("multiple", schedule=None) as dag:

        @task(multiple_outputs=True)
        def produce():
            return {"train": FRAME, "test": FRAME.head(1)}

        @task
        def consume(train, test):
            seen.append((len(train), len(test)))

        parts = produce()
        consume(parts["train"], parts["test"])

    assert succeeded(run_dag(dag))
    assert seen == [(3, 1)]
    assert len(store().versions("multiple.produce.train")) == 1


def test_a_pushed_value_has_its_key_in_its_name(run_dag):
    with DAG("pushed", schedule=None) as dag:

        @task
        def produce(ti=None):
            ti.xcom_push("side", FRAME)

        produce()

    assert succeeded(run_dag(dag))
    assert list(store().names()) == ["pushed.produce.side"]


def test_an_annotation_names_the_artifact_and_the_run_dates_it(run_dag):
    with DAG(
        "named",
        schedule=CronDataIntervalTimetable("@monthly", timezone="UTC"),
        start_date=dt.datetime(2013, 1, 1, tzinfo=dt.UTC),
    ) as dag:

        @task
        def produce() -> Annotated[pd.DataFrame, Artifact("flight_features")]:
            return FRAME

        produce()

    assert succeeded(run_dag(dag, logical_date=dt.datetime(2013, 2, 1, tzinfo=dt.UTC)))
    ref = store().get("flight_features")
    assert ref.effective_at == dt.datetime(2013, 2, 1, tzinfo=dt.UTC)
    assert ref.data_interval == (
        dt.datetime(2013, 1, 1, tzinfo=dt.UTC),
        dt.datetime(2013, 2, 1, tzinfo=dt.UTC),
    )
    assert (dt.datetime.now(dt.UTC) - ref.recorded_at).total_seconds() < 600


def test_an_artifact_outlet_names_the_value_and_its_event_says_which_version(run_dag):
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with DAG("outlet", schedule=None) as dag:

        @task(outlets=[ArtifactAsset("daily_report")])
        def produce():
            return FRAME

        produce()

    run = run_dag(dag)
    assert succeeded(run)
    ref = store().get("daily_report")
    with create_session() as session:
        extra = session.scalar(select(AssetEvent.extra).where(AssetEvent.source_run_id == run.run_id))
    assert extra["version_id"] == ref.version_id
    assert extra["digest"] == ref.digest


def test_what_a_task_read_and_wrote_is_recorded(run_dag):
    with DAG("traced", schedule=None) as dag:

        @task
        def produce():
            return FRAME

        @task
        def consume(frame):
            return frame.head(1)

        @task
        def talks_only(number):
            return 1

        talks_only(1)
        consume(produce())

    run = run_dag(dag)
    assert succeeded(run)
    objects = store().objects
    source = store().get("traced.produce")
    record = read_record(objects, "traced", run.run_id, "consume", map_index=-1, try_number=1)
    assert [use["version_id"] for use in record["reads"]] == [source.version_id]
    assert [use["name"] for use in record["writes"]] == ["traced.consume"]
    assert record["outcome"] == "success"
    assert [edge["task_id"] for edge in consumers_of(objects, source.version_id)] == ["consume"]
    assert not [entry.key for entry in objects.list("records/") if "talks_only" in entry.key]


def test_a_failed_task_records_what_it_read(run_dag):
    with DAG("fails", schedule=None) as dag:

        @task
        def produce():
            return FRAME

        @task
        def consume(frame):
            raise ValueError("no such column")

        consume(produce())

    run = run_dag(dag)
    assert not succeeded(run)
    record = read_record(store().objects, "fails", run.run_id, "consume", map_index=-1, try_number=1)
    assert record["outcome"] == "failed"
    assert record["error"] == "ValueError: no such column"
    assert len(record["reads"]) == 1


def test_a_forged_envelope_fails_the_reader(run_dag, seen, caplog):
    with DAG("forged", schedule=None) as dag:

        @task
        def produce():
            return FRAME

        @task
        def forge(ti=None):
            from airflow.sdk.execution_time.comms import GetXCom, SetXCom
            from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

            at = {"dag_id": "forged", "run_id": ti.run_id, "task_id": "produce"}
            found = SUPERVISOR_COMMS.send(GetXCom(key="return_value", **at)).value
            found["name"] = "somebody else's"
            SUPERVISOR_COMMS.send(SetXCom(key="return_value", value=found, map_index=-1, **at))

        @task
        def consume(frame):
            seen.append(frame)

        made = produce()
        made >> forge() >> consume(made)

    with caplog.at_level(logging.ERROR):
        run = run_dag(dag)
    assert not succeeded(run)
    assert seen == []


def test_an_unknown_type_is_refused_by_name(run_dag, capfd, caplog):
    with DAG("unknown", schedule=None) as dag:

        @task
        def produce():
            return (n for n in range(3))

        produce()

    run = run_dag(dag)
    assert not succeeded(run)
    assert list(store().objects.list("")) == []


def test_an_operator_that_asks_for_references_gets_them(run_dag, seen):
    class Asks(EmptyOperator):
        template_fields = ("data",)
        ml_lazy_artifacts = True

        def __init__(self, data, **kwargs):
            super().__init__(**kwargs)
            self.data = data

        def execute(self, context):
            seen.append(self.data)

    with DAG("asks", schedule=None) as dag:

        @task
        def produce():
            return FRAME

        Asks(task_id="asks", data=produce())

    assert succeeded(run_dag(dag))
    assert isinstance(seen[0], ArtifactRef)
    assert "who" not in repr(seen[0])
    pd.testing.assert_frame_equal(seen[0].load(), FRAME)


def test_a_retry_leaves_one_state_of_the_world(run_dag, seen):
    with DAG("retries", schedule=None) as dag:

        @task(retries=1, retry_delay=dt.timedelta(0))
        def produce(ti=None):
            ti.xcom_push("side", FRAME)
            if ti.try_number == 1:
                raise RuntimeError("first try")
            return FRAME

        @task
        def consume(frame):
            seen.append(frame)

        consume(produce())

    assert succeeded(run_dag(dag))
    assert len(seen) == 1
    assert store().usage().bytes_stored * 3 == store().usage().bytes_logical
