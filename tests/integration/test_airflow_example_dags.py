# SPDX-License-Identifier: Apache-2.0
"""
Airflow's own example DAGs and XCom habits give the same results under our backend as without it.

Every DAG runs twice by ``dag.test()``: in this process under the backend, and in a second process with
Airflow's ``BaseXCom`` on a copy of the same metadata database. The states of the runs and tasks, every XCom
as a task reads it, and what the tasks noted must be equal. The second process is needed because the
backend is chosen when ``airflow.sdk.execution_time.xcom`` is imported.
"""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import enum
import json
import os
import sqlite3
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import pendulum
import pytest
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import (
    BranchPythonOperator,
    PythonOperator,
    ShortCircuitOperator,
)
from airflow.sdk import DAG, Asset, BaseOperator, setup, task, task_group, teardown
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.exceptions import AirflowSkipException
from airflow.sdk.execution_time import task_runner

from airflow_ml_provider.xcom.backend import ArtifactXComBackend

SITE = Path(sys.modules["airflow"].__file__ or "").parent
CORE = SITE / "example_dags"
STANDARD = SITE / "providers" / "standard" / "example_dags"
REPOSITORY = Path(__file__).resolve().parents[2]
WITHOUT = "airflow.sdk.bases.xcom.BaseXCom"
MONDAY = pendulum.datetime(2024, 1, 1, tz="UTC")

# What a file shows, and the DAGs of it that run. Left out: what asks a network, a container, a virtual
# environment or a person, and what waits for more than three seconds.
EXAMPLES: dict[Path, list[str]] = {
    CORE / "example_asset_alias.py": [
        "asset_s3_bucket_producer",
        "asset_alias_example_alias_producer",
        "asset_alias_example_alias_consumer",
    ],
    CORE / "example_asset_decorator.py": ["asset1_producer", "asset2_producer", "consumes_asset_decorator"],
    CORE / "example_branch_python_dop_operator_3.py": ["example_branch_dop_operator_v3"],
    CORE / "example_dynamic_task_mapping.py": [
        "example_dynamic_task_mapping",
        "example_task_mapping_second_order",
        "example_task_group_mapping",
    ],
    CORE / "example_dynamic_task_mapping_with_no_taskflow_operators.py": [
        "example_dynamic_task_mapping_with_no_taskflow_operators"
    ],
    CORE / "example_nested_branch_dag.py": ["example_nested_branch_dag"],
    CORE / "example_outlet_event_extra.py": [
        "asset_with_extra_by_yield",
        "asset_with_extra_by_context",
        "asset_with_extra_from_classic_operator",
    ],
    CORE / "example_params_trigger_ui.py": ["example_params_trigger_ui"],
    CORE / "example_setup_teardown_taskflow.py": ["example_setup_teardown_taskflow"],
    CORE / "example_task_group_decorator.py": ["example_task_group_decorator"],
    CORE / "example_task_state_store_mapped.py": ["example_task_state_store_mapped"],
    CORE / "example_time_delta_sensor_async.py": ["example_time_delta_sensor_async"],
    CORE / "example_xcom.py": ["example_xcom"],
    CORE / "example_xcomargs.py": ["example_xcom_args", "example_xcom_args_with_operators"],
    CORE / "tutorial_dag.py": ["tutorial_dag"],
    CORE / "tutorial_taskflow_api.py": ["tutorial_taskflow_api"],
    CORE / "tutorial_taskflow_templates.py": ["tutorial_taskflow_templates"],
    STANDARD / "example_sensor_decorator.py": ["example_sensor_decorator"],
    STANDARD / "example_short_circuit_decorator.py": ["example_short_circuit_decorator"],
}
# Their values hold the time of the run: only the keys are compared.
VALUES_VARY = {"example_task_state_store_mapped"}

FRAME = pd.DataFrame({"id": [1, 2, 3], "who": ["a", "b", "c"]})


# ---------------------------------------------------------------------------------------------------------
# Running a DAG and describing what came of it; the same in both processes.


def described(value: Any) -> Any:
    """Make a value comparable across processes, type and all."""
    if isinstance(value, pd.DataFrame):
        return f"frame {value.to_dict('list')} {[str(kind) for kind in value.dtypes]}"
    if type(value) is dict:
        # Airflow keeps the ids that a branch chose as a set while it works.
        return {
            key: sorted(item) if key in ("followed", "skipped") else described(item)
            for key, item in value.items()
        }
    if type(value) in (list, tuple):
        return type(value)(described(item) for item in value)
    return value


def run(dag: Any, when: dt.datetime) -> dict[str, Any]:
    """Run one DAG for one date; return its states and its XComs as a task reads them."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from airflow.sdk.execution_time.xcom import XCom
    from airflow.utils.session import create_session
    from sqlalchemy import select

    found = dag.test(logical_date=when, run_after=when)
    of_run = {"dag_id": found.dag_id, "run_id": found.run_id}
    with create_session() as session:
        tasks = session.scalars(select(TaskInstance).filter_by(**of_run)).all()
        rows = session.scalars(select(XComModel).filter_by(**of_run)).all()
        return {
            "state": str(found.state),
            "tasks": {f"{ti.task_id}[{ti.map_index}]": str(ti.state) for ti in tasks},
            "xcoms": {
                f"{row.task_id}[{row.map_index}].{row.key}": repr(described(XCom.deserialize_value(row)))
                for row in rows
            },
        }


def sync(bag: Any) -> None:
    from airflow.dag_processing.dagbag import sync_bag_to_db

    assert bag.import_errors == {}
    sync_bag_to_db(bag, "dags-folder", None)


def run_example(path: Path) -> dict[str, Any]:
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=path, load_op_links=False)
    sync(bag)
    return {dag_id: run(bag.dags[dag_id], MONDAY) for dag_id in EXAMPLES[path]}


def run_behaviour(build: Behaviour) -> dict[str, Any]:
    """Run the DAGs of one behaviour; return what came of them and what their tasks noted."""
    from airflow.dag_processing.dagbag import DagBag

    seen: list[Any] = []
    dags = build(seen)
    bag = DagBag(collect_dags=False)
    for dag in {dag.dag_id: dag for dag in dags}.values():
        bag.bag_dag(dag)
    sync(bag)
    # A DAG that stands there again runs for the next day.
    runs = [run(dag, MONDAY.add(days=dags[:i].count(dag))) for i, dag in enumerate(dags)]
    return {"runs": runs, "seen": repr(described(seen))}


# ---------------------------------------------------------------------------------------------------------
# XCom behaviours: a function makes the DAGs to run, in order, and says what their tasks must note.

Behaviour = Callable[[list[Any]], list[Any]]
BEHAVIOURS: dict[str, tuple[Behaviour, list[Any]]] = {}


def notes(*expected: Any) -> Callable[[Behaviour], Behaviour]:
    """Register a behaviour with what its tasks note, in order."""

    def register(build: Behaviour) -> Behaviour:
        BEHAVIOURS[build.__name__] = (build, list(expected))
        return build

    return register


def new_dag(dag_id: str) -> DAG:
    return DAG(dag_id, schedule=None, start_date=dt.datetime(2024, 1, 1, tzinfo=dt.UTC))


@task
def frames() -> list[pd.DataFrame]:
    return [FRAME.head(1), FRAME.head(2), FRAME]


@notes(FRAME, 3, None, None, "instead", None, {"text": "returned"})
def pull_by_key(seen: list[Any]) -> list[Any]:
    with new_dag("pull_by_key") as dag:

        @task
        def produce(ti=None):
            ti.xcom_push(key="frame", value=FRAME)
            ti.xcom_push(key="number", value=3)
            ti.xcom_push(key="nothing", value=None)
            return {"text": "returned"}

        @task
        def consume(ti=None):
            for key in ("frame", "number", "nothing"):
                seen.append(ti.xcom_pull(task_ids="produce", key=key))
            # Airflow looks at the default only where map indexes are given.
            absent = {"task_ids": "produce", "key": "absent", "default": "instead"}
            seen.append(ti.xcom_pull(**absent))
            seen.append(ti.xcom_pull(**absent, map_indexes=-1))
            seen.append(ti.xcom_pull(task_ids="nobody"))
            seen.append(ti.xcom_pull(task_ids="produce"))

        produce() >> consume()
    return [dag]


@notes([FRAME, 2, None], [FRAME], [2, FRAME])
def pull_from_several_tasks(seen: list[Any]) -> list[Any]:
    with new_dag("pull_from_several_tasks") as dag:

        @task
        def one():
            return FRAME

        @task
        def two():
            return 2

        @task
        def nothing():
            return None

        @task
        def consume(ti=None):
            seen.append(list(ti.xcom_pull(task_ids=["one", "two", "nothing"])))
            seen.append(list(ti.xcom_pull(task_ids=["one"])))
            seen.append(list(ti.xcom_pull(task_ids=["two", "one"])))

        [one(), two(), nothing()] >> consume()
    return [dag]


@notes([FRAME.head(1), FRAME.head(2), FRAME], FRAME.head(2), [FRAME.head(1), FRAME], [None])
def pull_by_map_index(seen: list[Any]) -> list[Any]:
    with new_dag("pull_by_map_index") as dag:

        @task
        def produce(n):
            return FRAME.head(n)

        @task
        def consume(ti=None):
            seen.append(list(ti.xcom_pull(task_ids="produce")))
            seen.append(ti.xcom_pull(task_ids="produce", map_indexes=1))
            seen.append(list(ti.xcom_pull(task_ids="produce", map_indexes=[0, 2])))
            seen.append(list(ti.xcom_pull(task_ids="produce", map_indexes=[7])))

        produce.expand(n=[1, 2, 3]) >> consume()
    return [dag]


@notes(None, FRAME, FRAME, None, FRAME)
def pull_from_an_earlier_run(seen: list[Any]) -> list[Any]:
    with new_dag("pull_from_an_earlier_run") as dag:

        @task
        def produce(logical_date=None, ti=None):
            if logical_date == MONDAY:
                ti.xcom_push(key="state", value=FRAME)

        @task
        def consume(logical_date=None, ti=None):
            if logical_date == MONDAY:
                seen.append(ti.xcom_pull(task_ids="consume", key="state", include_prior_dates=True))
                seen.append(ti.xcom_pull(task_ids="produce", key="state", include_prior_dates=True))
            else:
                seen.append(ti.xcom_pull(task_ids="produce", key="state", include_prior_dates=True))
                seen.append(ti.xcom_pull(task_ids="produce", key="state"))
                first = f"manual__{MONDAY.isoformat()}"
                seen.append(ti.xcom_pull(task_ids="produce", key="state", run_id=first))

        produce() >> consume()
    return [dag, dag]


@notes(FRAME, FRAME, [1, 2])
def pull_from_another_dag(seen: list[Any]) -> list[Any]:
    with new_dag("pull_from_another_dag_producer") as producer:

        @task
        def produce(ti=None):
            ti.xcom_push(key="list", value=[1, 2])
            return FRAME

        produce()
    with new_dag("pull_from_another_dag") as dag:

        @task
        def consume(ti=None):
            there = {"dag_id": "pull_from_another_dag_producer", "task_ids": "produce"}
            seen.append(ti.xcom_pull(**there, include_prior_dates=True))
            seen.append(ti.xcom_pull(**there))
            seen.append(ti.xcom_pull(**there, key="list", run_id=f"manual__{MONDAY.isoformat()}"))

        consume()
    return [producer, dag]


@notes([2, 4, 6])
def map_over_frames(seen: list[Any]) -> list[Any]:
    with new_dag("map_over_frames") as dag:

        @task
        def size(twice):
            return len(twice)

        @task
        def consume(sizes):
            seen.append(list(sizes))

        consume(size.expand(twice=frames().map(lambda frame: pd.concat([frame, frame]))))
    return [dag]


@notes([1, 3])
def map_that_skips_some_frames(seen: list[Any]) -> list[Any]:
    def odd(frame: pd.DataFrame) -> pd.DataFrame:
        if len(frame) == 2:
            raise AirflowSkipException
        return frame

    with new_dag("map_that_skips_some_frames") as dag:

        @task
        def size(frame):
            return len(frame)

        @task(trigger_rule="none_failed")
        def consume(sizes):
            seen.append(list(sizes))

        consume(size.expand(frame=frames().map(odd)))
    return [dag]


@notes([(FRAME.head(1), "a"), (FRAME.head(2), "b"), (FRAME, "none")])
def zip_frames(seen: list[Any]) -> list[Any]:
    with new_dag("zip_frames") as dag:

        @task
        def letters():
            return ["a", "b"]

        @task
        def pair(both):
            return both

        @task
        def consume(pairs):
            seen.append(list(pairs))

        consume(pair.expand(both=frames().zip(letters(), fillvalue="none")))
    return [dag]


@notes([FRAME.head(1), FRAME.head(2), FRAME, 7, FRAME.tail(1)])
def concat_frames(seen: list[Any]) -> list[Any]:
    with new_dag("concat_frames") as dag:

        @task
        def more():
            return [7, FRAME.tail(1)]

        @task
        def same(item):
            return item

        @task
        def consume(items):
            seen.append(list(items))

        consume(same.expand(item=frames().concat(more())))
    return [dag]


@notes([2, 4, 6])
def map_mapped_outputs(seen: list[Any]) -> list[Any]:
    with new_dag("map_mapped_outputs") as dag:

        @task
        def double(frame):
            return pd.concat([frame, frame])

        @task
        def size(frame):
            return len(frame)

        @task
        def consume(sizes):
            seen.append(list(sizes))

        consume(size.expand(frame=double.expand(frame=frames())))
    return [dag]


@notes([("x", FRAME.head(1)), ("y", FRAME.head(2))])
def expand_kwargs_with_frames(seen: list[Any]) -> list[Any]:
    with new_dag("expand_kwargs_with_frames") as dag:

        @task
        def arguments():
            return [{"name": "x", "frame": FRAME.head(1)}, {"name": "y", "frame": FRAME.head(2)}]

        @task
        def use(name, frame):
            return (name, frame)

        @task
        def consume(found):
            seen.append(list(found))

        consume(use.expand_kwargs(arguments()))
    return [dag]


@notes([("a", FRAME.head(1)), ("b", FRAME)])
def expand_over_a_dict_of_frames(seen: list[Any]) -> list[Any]:
    with new_dag("expand_over_a_dict_of_frames") as dag:

        @task
        def named():
            return {"a": FRAME.head(1), "b": FRAME}

        @task
        def use(item):
            return tuple(item)

        @task
        def consume(found):
            seen.append(list(found))

        consume(use.expand(item=named()))
    return [dag]


@notes([11, 12, 21, 22])
def expand_over_two_lists(seen: list[Any]) -> list[Any]:
    with new_dag("expand_over_two_lists") as dag:

        @task
        def tens():
            return [FRAME.head(1), FRAME.head(2)]

        @task
        def add(frame, one):
            return 10 * len(frame) + one

        @task
        def consume(found):
            seen.append(list(found))

        consume(add.expand(frame=tens(), one=[1, 2]))
    return [dag]


@notes([1, 2, 3], [FRAME.head(1), FRAME.head(2), FRAME])
def mapped_task_group(seen: list[Any]) -> list[Any]:
    with new_dag("mapped_task_group") as dag:

        @task
        def same(frame):
            return frame

        @task
        def size(frame):
            return len(frame)

        @task_group
        def part(frame):
            return size(same(frame))

        @task
        def consume(sizes, ti=None):
            seen.append(list(sizes))
            seen.append(list(ti.xcom_pull(task_ids="part.same")))

        consume(part.expand(frame=frames()))
    return [dag]


@notes(
    3,
    FRAME,
    FRAME.head(1),
    [FRAME.head(2), FRAME],
    [FRAME.head(1), FRAME],
    [FRAME, FRAME.head(2)],
    "IndexError",
)
def slices_of_a_lazy_sequence(seen: list[Any]) -> list[Any]:
    with new_dag("slices_of_a_lazy_sequence") as dag:

        @task
        def same(frame):
            return frame

        @task
        def consume(lazy):
            seen.extend([len(lazy), lazy[-1], lazy[0], lazy[1:], lazy[::2], lazy[:0:-1]])
            try:
                lazy[3]
            except IndexError as error:
                seen.append(type(error).__name__)

        consume(same.expand(frame=frames()))
    return [dag]


@notes([])
def no_mapped_instances(seen: list[Any]) -> list[Any]:
    with new_dag("no_mapped_instances") as dag:

        @task
        def nothing():
            return []

        @task
        def same(item):
            return item

        @task(trigger_rule="all_done")
        def consume(found):
            seen.append(list(found))

        consume(same.expand(item=nothing()))
    return [dag]


class Defers(BaseOperator):
    """Push a frame, wait on the triggerer, return a frame and the event."""

    def execute(self, context: Any) -> None:
        from airflow.providers.standard.triggers.temporal import DateTimeTrigger

        context["ti"].xcom_push("before", FRAME.head(1))
        self.defer(trigger=DateTimeTrigger(moment=MONDAY), method_name="resume")

    def resume(self, context: Any, event: Any = None) -> dict[str, Any]:
        return {"frame": FRAME, "event": str(event)}


@notes(FRAME.head(1), {"frame": FRAME, "event": str(MONDAY)})
def result_of_a_deferred_operator(seen: list[Any]) -> list[Any]:
    with new_dag("result_of_a_deferred_operator") as dag:

        @task
        def consume(found, ti=None):
            seen.append(ti.xcom_pull(task_ids="defers", key="before"))
            seen.append(found)

        consume(Defers(task_id="defers").output)
    return [dag]


@notes({"followed": ["left", "right"]})
def branch_that_returns_ids(seen: list[Any]) -> list[Any]:
    with new_dag("branch_that_returns_ids") as dag:
        branch = BranchPythonOperator(task_id="branch", python_callable=lambda: ["left", "right"])
        branch >> [EmptyOperator(task_id=name) for name in ("left", "right", "neither")]

        @task
        def consume(ti=None):
            seen.append(ti.xcom_pull(task_ids="branch", key="skipmixin_key"))

        branch >> EmptyOperator(task_id="direct")
        [dag.get_task("left"), dag.get_task("right")] >> consume()
    return [dag]


@notes({"rows": 3}, None, {"skipped": ["after_stop", "after_stop_too"]})
def short_circuit(seen: list[Any]) -> list[Any]:
    with new_dag("short_circuit") as dag:
        go_on = ShortCircuitOperator(task_id="go_on", python_callable=lambda: {"rows": 3})
        stop = ShortCircuitOperator(task_id="stop", python_callable=lambda: [])

        @task(trigger_rule="all_done")
        def consume(ti=None):
            seen.append(ti.xcom_pull(task_ids="go_on"))
            seen.append(ti.xcom_pull(task_ids="stop"))
            seen.append(ti.xcom_pull(task_ids="stop", key="skipmixin_key"))

        done = consume()
        go_on >> EmptyOperator(task_id="after_go_on") >> done
        stop >> EmptyOperator(task_id="after_stop")
        stop >> EmptyOperator(task_id="after_stop_too")
        go_on >> stop
    return [dag]


@notes("work", ("torn down", {"cluster": FRAME}))
def setup_and_teardown(seen: list[Any]) -> list[Any]:
    with new_dag("setup_and_teardown") as dag:

        @setup
        def start():
            return {"cluster": FRAME}

        @task
        def work():
            seen.append("work")
            raise ValueError("the teardown runs all the same")

        @teardown
        def stop(found):
            seen.append(("torn down", found))

        with stop(start()):
            work()
    return [dag]


@notes([None, FRAME, None], {"a": None, "b": FRAME}, (None, 1), {"deep": [{"x": None}]}, "no XCom", None)
def none_in_a_container(seen: list[Any]) -> list[Any]:
    with new_dag("none_in_a_container") as dag:

        @task
        def produce(ti=None):
            ti.xcom_push("list", [None, FRAME, None])
            ti.xcom_push("dict", {"a": None, "b": FRAME})
            ti.xcom_push("tuple", (None, 1))
            ti.xcom_push("deep", {"deep": [{"x": None}]})

        @task
        def consume(ti=None):
            for key in ("list", "dict", "tuple", "deep"):
                seen.append(ti.xcom_pull(task_ids="produce", key=key))
            seen.append(ti.xcom_pull(task_ids="produce", default="no XCom", map_indexes=-1))
            seen.append(ti.xcom_pull(task_ids="produce"))

        produce() >> consume()
    return [dag]


@notes(FRAME, {"frame": FRAME}, 3, {"a": 1}, (1, "x"), MONDAY, "text")
def values_written_without_the_backend(seen: list[Any]) -> list[Any]:
    with new_dag("values_written_without_the_backend") as dag:

        @task
        def produce(ti=None):
            at = {"dag_id": ti.dag_id, "task_id": "produce", "run_id": ti.run_id}
            for i, value in enumerate([FRAME, {"frame": FRAME}, 3, {"a": 1}, (1, "x"), MONDAY, "text"]):
                BaseXCom.set(key=str(i), value=value, **at)

        @task
        def consume(ti=None):
            for i in range(7):
                seen.append(ti.xcom_pull(task_ids="produce", key=str(i)))

        produce() >> consume()
    return [dag]


VALUES: list[Any] = [
    (1, ("a", None)),
    {"a"},
    frozenset({1}),
    dt.date(2024, 1, 1),
    dt.timedelta(days=1, seconds=2),
    decimal.Decimal("1.5"),
    pendulum.datetime(2024, 1, 1, tz="Europe/Paris"),
    Asset(name="a", uri="s3://bucket/a"),
    {"nested": [{"at": dt.date(2024, 1, 1), "frame": FRAME}]},
    "é\u2028\U0001f600",
    2.5,
    [2.0],
    2**53 + 1,
    [],
    {},
    "",
    False,
]


@notes(*VALUES)
def types_that_airflow_hands_on(seen: list[Any]) -> list[Any]:
    with new_dag("types_that_airflow_hands_on") as dag:

        @task
        def produce(ti=None):
            for i, value in enumerate(VALUES):
                ti.xcom_push(str(i), value)

        @task
        def consume(ti=None):
            for i in range(len(VALUES)):
                seen.append(ti.xcom_pull(task_ids="produce", key=str(i)))

        produce() >> consume()
    return [dag]


@notes(FRAME.head(2), "deep", FRAME, FRAME.head(2))
def parts_of_a_returned_dict(seen: list[Any]) -> list[Any]:
    with new_dag("parts_of_a_returned_dict") as dag:

        @task
        def produce():
            return {"frame": FRAME.head(2), "text": "deep"}

        @task(multiple_outputs=True)
        def several():
            return {"all": FRAME, "some": FRAME.head(2)}

        @task
        def consume(first, second, third, fourth):
            seen.extend([first, second, third, fourth])

        @task
        def pick(made, key):
            return made[key]

        made, parts = produce(), several()
        consume(pick(made, "frame"), pick(made, "text"), parts["all"], parts["some"])
    return [dag]


@notes("3 rows of a, b, c", "plain text", "x=1", 3)
def templates_and_classic_operators(seen: list[Any]) -> list[Any]:
    with new_dag("templates_and_classic_operators") as dag:
        made = PythonOperator(task_id="made", python_callable=lambda: {"frame": FRAME, "text": "plain text"})
        bash = BashOperator(task_id="bash", bash_command="echo x=$X", env={"X": "{{ 1 }}"}, append_env=True)
        used = PythonOperator(
            task_id="used",
            python_callable=lambda rows, text, line, made: seen.extend(
                [rows, text, line, len(made["frame"])]
            ),
            op_kwargs={
                "rows": "{{ ti.xcom_pull('made')['frame'] | length }} rows of "
                "{{ ti.xcom_pull('made')['frame'].who | join(', ') }}",
                "text": "{{ ti.xcom_pull(task_ids='made')['text'] }}",
                "line": bash.output,
                "made": made.output,
            },
        )
        [made, bash] >> used
    return [dag]


@notes(FRAME, str(FRAME), f"{FRAME}!", FRAME)
def templates_of_frames(seen: list[Any]) -> list[Any]:
    """A template renders what a value prints, a native one gives the value."""

    @task
    def made():
        return FRAME

    @task
    def used(*found):
        seen.extend(found)

    pull = "{{ ti.xcom_pull('made') }}"
    with DAG("native_templates_of_frames", schedule=None, render_template_as_native_obj=True) as native:
        made() >> used(pull)
    with new_dag("templates_of_frames") as dag:
        frame = made()
        used(pull, f"{frame}!", frame)
    return [native, dag]


@notes(
    (FRAME, {"frame": FRAME, "n": 2}), [FRAME, FRAME], [{"frame": FRAME, "n": 1}, {"frame": FRAME, "n": 2}]
)
def multiple_outputs_of_a_mapped_task(seen: list[Any]) -> list[Any]:
    with new_dag("multiple_outputs_of_a_mapped_task") as dag:

        @task(multiple_outputs=True)
        def made(n):
            return {"frame": FRAME, "n": n}

        @task
        def used(whole, ti=None):
            seen.append(
                (
                    ti.xcom_pull(task_ids="made", key="frame", map_indexes=0),
                    ti.xcom_pull(task_ids="made", map_indexes=1),
                )
            )
            seen.append(ti.xcom_pull(task_ids="made", key="frame", map_indexes=[0, 1]))
            seen.append(list(whole))

        used(made.expand(n=[1, 2]))
    return [dag]


async def asend(comms: Any, msg: Any) -> Any:
    """What ``dag.test()`` lacks for asynchronous pulls and pushes."""
    return comms.send(msg)


@notes(FRAME, [FRAME], FRAME, None)
def pulls_of_an_async_task(seen: list[Any]) -> list[Any]:
    with new_dag("pulls_of_an_async_task") as dag:

        @task
        async def produce(ti=None):
            with mock.patch.object(type(task_runner.SUPERVISOR_COMMS), "asend", asend, create=True):
                await ti.axcom_push("side", FRAME)
            return FRAME

        @task
        async def consume(ti=None):
            with mock.patch.object(type(task_runner.SUPERVISOR_COMMS), "asend", asend, create=True):
                seen.append(await ti.axcom_pull(task_ids="produce", key="side"))
                seen.append(list(await ti.axcom_pull(task_ids=["produce"])))
                seen.append(await ti.axcom_pull(task_ids="produce", map_indexes=-1))
                seen.append(await ti.axcom_pull(task_ids="nobody"))

        produce() >> consume()
    return [dag]


@notes("first try", None, FRAME, "deleted", None)
def retry_and_delete(seen: list[Any]) -> list[Any]:
    with new_dag("retry_and_delete") as dag:

        @task(retries=1, retry_delay=dt.timedelta(0))
        def produce(ti=None):
            if ti.try_number == 1:
                ti.xcom_push("first", FRAME)
                seen.append("first try")
                raise ValueError("once more")
            ti.xcom_push("second", FRAME)

        @task
        def consume(ti=None):
            from airflow.sdk.execution_time.xcom import XCom

            seen.append(ti.xcom_pull(task_ids="produce", key="first"))
            seen.append(ti.xcom_pull(task_ids="produce", key="second"))
            XCom.delete(key="second", task_id="produce", dag_id=ti.dag_id, run_id=ti.run_id)
            seen.append("deleted")
            seen.append(ti.xcom_pull(task_ids="produce", key="second"))

        produce() >> consume()
    return [dag]


# ---------------------------------------------------------------------------------------------------------
# The second process, and the comparison.


def main(folder: Path) -> None:
    """Run everything without our backend and listener, and write each result to ``folder``."""
    from airflow.sdk.execution_time.xcom import XCom
    from airflow.sdk.listener import get_listener_manager

    assert f"{XCom.__module__}.{XCom.__qualname__}" == WITHOUT
    plugins = get_listener_manager().pm
    listeners = [
        one for one in plugins.get_plugins() if "airflow_ml_provider" in getattr(one, "__name__", "")
    ]
    assert listeners
    for listener in listeners:
        plugins.unregister(listener)
    for path in EXAMPLES:
        hand_over(folder / path.stem, run_example(path))
    for name, (build, _) in BEHAVIOURS.items():
        hand_over(folder / name, run_behaviour(build))


def hand_over(target: Path, result: Any) -> None:
    draft = target.with_suffix(".part")
    draft.write_text(json.dumps(result))
    draft.rename(target.with_suffix(".json"))


@pytest.fixture(scope="module")
def without(airflow_db: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Any]]:
    """Start the process without our backend; return a function that waits for one result of it."""
    folder = tmp_path_factory.mktemp("without")
    with (
        closing(sqlite3.connect(airflow_db)) as ours,
        closing(sqlite3.connect(folder / "airflow.db")) as copy,
    ):
        ours.backup(copy)
    env = os.environ | {
        "AIRFLOW__CORE__XCOM_BACKEND": WITHOUT,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder}/airflow.db",
    }
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(folder)],
            cwd=REPOSITORY,
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    # It runs the same things in the same order beside us, so the wait is short.
    def result(name: str) -> Any:
        until = time.monotonic() + 240
        target = folder / f"{name}.json"
        while not target.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        assert target.exists(), log.read_text()[-3000:]
        return json.loads(target.read_text())

    yield result
    process.kill()
    process.wait()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.usefixtures("artifact_root")
def test_an_example_of_airflow_runs_as_without_the_backend(path: Path, without: Callable[[str], Any]) -> None:
    ours, theirs = run_example(path), without(path.stem)
    for dag_id in EXAMPLES[path]:
        if dag_id in VALUES_VARY:
            for outcome in (ours[dag_id], theirs[dag_id]):
                outcome["xcoms"] = sorted(outcome["xcoms"])
        assert ours[dag_id] == theirs[dag_id], dag_id
        assert ours[dag_id]["state"] == "success"


@pytest.mark.parametrize("name", BEHAVIOURS)
@pytest.mark.usefixtures("artifact_root")
def test_an_xcom_behaves_as_without_the_backend(name: str, without: Callable[[str], Any]) -> None:
    build, expected = BEHAVIOURS[name]
    ours = run_behaviour(build)
    assert ours == without(name)
    assert ours["seen"] == repr(described(expected))


class Colour(enum.StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "without_us"),
    [
        pytest.param(
            dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
            "datetime.datetime(2024, 1, 1, 0, 0, tzinfo=Timezone('UTC'))",
            id="kind of time zone",
        ),
        pytest.param(decimal.Decimal("1.10"), "Decimal('1.1')", id="digits of a decimal"),
        pytest.param(Colour.RED, "'red'", id="enum of text"),
        pytest.param({1: "x"}, "{'1': 'x'}", id="keys that are numbers"),
        pytest.param(collections.OrderedDict(a=1), "{'a': 1}", id="kind of a dict"),
    ],
)
@pytest.mark.usefixtures("artifact_root")
def test_what_airflow_hands_on_changed_the_backend_hands_on_as_it_is(value: Any, without_us: Any) -> None:
    def through(backend: Any) -> str:
        stored = backend.serialize_value(value, dag_id="d", task_id="t", run_id="r", key="k")
        return repr(backend.deserialize_value(types.SimpleNamespace(value=json.loads(json.dumps(stored)))))

    assert through(BaseXCom) == without_us
    assert through(ArtifactXComBackend) == repr(value)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
