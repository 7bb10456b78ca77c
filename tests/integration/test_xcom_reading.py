# SPDX-License-Identifier: Apache-2.0
"""What plain tasks load and save: counted at the codec, in DAGs run by ``dag.test()``."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Any, Optional

import pandas as pd
import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, task, task_group

from airflow_ml_provider import Artifact, ArtifactRef
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook
from airflow_ml_provider.lineage.records import read_record
from airflow_ml_provider.settings import load_settings

FRAMES = [pd.DataFrame({"n": range(i + 1)}) for i in range(5)]


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


@task
def frames() -> list[pd.DataFrame]:
    return FRAMES


@task
def more_frames() -> list[pd.DataFrame]:
    return [frame * 10 for frame in FRAMES]


# -- mapped tasks load their own element


def in_order(found: list[Any]) -> list[Any]:
    return sorted(found, key=len)


def test_each_of_n_mapped_tasks_loads_its_own_frame(run_dag, seen, calls):
    with DAG("own_element", schedule=None) as dag:

        @task
        def consume(frame):
            seen.append(frame)

        consume.expand(frame=frames())

    assert succeeded(run_dag(dag))
    assert [type(frame) for frame in seen] == [pd.DataFrame] * 5
    for got, expected in zip(in_order(seen), FRAMES, strict=True):
        pd.testing.assert_frame_equal(got, expected)
    assert calls["load"] == 5


def test_a_mapped_task_is_recorded_as_reader_of_its_own_element_alone(run_dag):
    with DAG("own_record", schedule=None) as dag:

        @task
        def consume(frame):
            return len(frame)

        consume.expand(frame=frames())

    run = run_dag(dag)
    assert succeeded(run)
    record = read_record(store().objects, dag.dag_id, run.run_id, "consume", map_index=3, try_number=1)
    assert [read["name"] for read in record["reads"]] == ["own_record.frames.3"]


def test_a_list_too_long_for_the_table_is_mapped_by_element_too(run_dag, seen, calls, monkeypatch):
    monkeypatch.setattr("airflow_ml_provider.artifacts.store.MAX_TREE_BYTES", 1000)
    with DAG("own_of_long", schedule=None) as dag:

        @task
        def consume(frame):
            seen.append(frame)

        consume.expand(frame=frames())

    run = run_dag(dag)
    assert succeeded(run)
    assert store().get("own_of_long.frames").format == "tree-v1"
    for got, expected in zip(in_order(seen), FRAMES, strict=True):
        pd.testing.assert_frame_equal(got, expected)
    assert calls["load"] == 5


def test_frames_in_elements_are_loaded_with_their_element(run_dag, seen, calls):
    with DAG("own_compound", schedule=None) as dag:

        @task
        def pairs():
            return [("a", [frame, frame]) for frame in FRAMES[:3]]

        @task
        def consume(pair):
            seen.append(pair)

        consume.expand(pair=pairs())

    assert succeeded(run_dag(dag))
    assert [(type(pair), pair[0], type(pair[1])) for pair in seen] == [(tuple, "a", list)] * 3
    assert all(pair[1][0] is pair[1][1] for pair in seen)
    assert calls["load"] == 3


def test_map_zip_and_concat_load_what_they_take(run_dag, seen, calls):
    with DAG("own_by_zip", schedule=None) as dag:

        @task
        def consume(pair):
            seen.append([len(part) for part in pair])

        consume.expand(pair=frames().zip(more_frames().map(lambda frame: frame)))

    assert succeeded(run_dag(dag))
    assert sorted(seen) == [[n, n] for n in range(1, 6)]
    assert calls["load"] == 10

    seen.clear()
    calls.clear()
    with DAG("own_by_concat", schedule=None) as dag:
        consume.expand(
            pair=frames().map(lambda frame: [frame]).concat(more_frames().map(lambda frame: [frame]))
        )
    assert succeeded(run_dag(dag))
    assert sorted(seen) == sorted([[n] for n in range(1, 6)] * 2)
    assert calls["load"] == 10


def test_keyword_arguments_and_dicts_are_mapped_by_element(run_dag, seen, calls):
    with DAG("own_kwargs", schedule=None) as dag:

        @task
        def arguments():
            return [{"frame": frame, "n": len(frame)} for frame in FRAMES]

        @task
        def consume(frame, n):
            seen.append((type(frame), len(frame) == n))

        consume.expand_kwargs(arguments())

    assert succeeded(run_dag(dag))
    assert seen == [(pd.DataFrame, True)] * 5
    assert calls["load"] == 5

    seen.clear()
    calls.clear()
    with DAG("own_item", schedule=None) as dag:

        @task
        def by_name():
            return {"a": FRAMES[0], "b": FRAMES[1]}

        @task
        def take(item):
            seen.append((type(item), item[0], len(item[1])))

        take.expand(item=by_name())

    assert succeeded(run_dag(dag))
    assert sorted(seen, key=str) == [(tuple, "a", 1), (tuple, "b", 2)]
    assert calls["load"] == 3  # an item, and those before it


def test_a_mapped_task_group_loads_by_element(run_dag, seen, calls):
    with DAG("own_group", schedule=None) as dag:

        @task
        def consume(frame, everything):
            seen.append((len(frame), type(everything), len(everything)))

        made = frames()

        @task_group
        def group(frame):
            consume(frame, made)

        group.expand(frame=made)

    assert succeeded(run_dag(dag))
    assert sorted(seen, key=str) == [(n, list, 5) for n in range(1, 6)]
    assert calls["load"] == 5 + 25  # the element, and the list that each instance asks for


def test_elements_of_mapped_outputs_are_whole_values(run_dag, seen, calls):
    with DAG("second_order", schedule=None) as dag:

        @task
        def produce(n):
            return FRAMES[:n]

        @task
        def consume(found):
            seen.append((type(found), [len(frame) for frame in found]))

        consume.expand(found=produce.expand(n=[1, 2]))

    assert succeeded(run_dag(dag))
    assert sorted(seen, key=str) == [(list, [1, 2]), (list, [1])]
    assert calls["load"] == 3


def test_what_user_code_pulls_while_a_mapped_argument_is_made_is_a_real_list(run_dag, seen):
    def pull(frame: pd.DataFrame) -> int:
        from airflow.sdk import get_current_context

        pulled = get_current_context()["ti"].xcom_pull(task_ids="frames", map_indexes=None)
        seen.append((type(pulled), type(pulled[0])))
        return len(frame)

    with DAG("pull_in_map", schedule=None) as dag:

        @task
        def consume(n):
            return n

        consume.expand(n=frames().map(pull))

    assert succeeded(run_dag(dag))
    assert set(seen) == {(list, pd.DataFrame)}


# -- multiple_outputs save once


def test_multiple_outputs_are_encoded_once(run_dag, seen, calls, xcom_table):
    with DAG("once", schedule=None) as dag:

        @task(multiple_outputs=True)
        def produce():
            return {"train": FRAMES[4], "parts": [FRAMES[0], FRAMES[1]], "rows": 5, "rate": 2.0}

        @task
        def consume(train, parts, rate, ti=None):
            seen.append((train, parts, rate, ti.xcom_pull(task_ids="produce")))

        made = produce()
        consume(made["train"], made["parts"], made["rate"])

    run = run_dag(dag)
    assert succeeded(run)
    assert calls["dump"] == 3
    train, parts, rate, whole = seen[0]
    pd.testing.assert_frame_equal(train, FRAMES[4])
    pd.testing.assert_frame_equal(whole["train"], FRAMES[4])
    pd.testing.assert_frame_equal(whole["parts"][1], parts[1])
    assert list(whole) == ["train", "parts", "rows", "rate"]
    assert (rate, type(rate), whole["rate"], type(whole["rate"])) == (2.0, float, 2.0, float)

    names = ["once.produce.parts.0", "once.produce.parts.1", "once.produce.train"]
    assert sorted(store().names()) == names
    assert [len(store().versions(name)) for name in names] == [1, 1, 1]
    record = read_record(store().objects, dag.dag_id, run.run_id, "produce", map_index=-1, try_number=1)
    assert sorted(write["name"] for write in record["writes"]) == names
    assert xcom_table(run, "produce")["train"] == xcom_table(run, "produce", key="train")


def test_parts_of_a_named_artifact_carry_its_name(run_dag, calls):
    with DAG("once_named", schedule=None) as dag:

        @task(multiple_outputs=True)
        def produce() -> Annotated[dict[str, Any], Artifact("features", preview=False)]:
            return {"train": FRAMES[4], "test": FRAMES[0]}

        produce()

    assert succeeded(run_dag(dag))
    assert sorted(store().names()) == ["features.test", "features.train"]
    assert calls["dump"] == 2
    assert store().get("features.train").preview is None


WHOLE = {"long": list(range(9_000)), "short": 1}


def as_json() -> Annotated[dict[str, Any], Artifact("whole", format="json")]:
    return WHOLE


def as_pickle() -> Annotated[dict[str, Any], Artifact("whole", format="pickle")]:
    return WHOLE


@pytest.mark.parametrize("function", [as_json, as_pickle])
def test_a_dict_of_a_chosen_format_is_written_whole(run_dag, seen, monkeypatch, function):
    """Airflow takes a function that returns a dict for one of multiple outputs."""
    monkeypatch.setenv("AIRFLOW__ML_PROVIDER__ALLOW_PICKLE", "True")
    load_settings.cache_clear()
    with DAG("whole_dict", schedule=None) as dag:

        @task
        def consume(value: Any, part: Any) -> None:
            seen.append((value, part))

        made = task(function)()
        consume(made, made["long"])

    assert succeeded(run_dag(dag))
    assert seen == [(WHOLE, WHOLE["long"])]
    assert store().load(store().get("whole")) == WHOLE


def test_a_value_pushed_twice_and_changed_between_is_two_values(run_dag, seen):
    with DAG("changed", schedule=None) as dag:

        @task(multiple_outputs=True)
        def produce(ti=None):
            frame = FRAMES[1].copy()
            ti.xcom_push("before", frame)
            frame.loc[0, "n"] = 99
            return {"after": frame}

        @task
        def consume(ti=None):
            seen.extend(
                ti.xcom_pull(task_ids="produce", key=key) for key in ("before", "after", "return_value")
            )

        produce() >> consume()

    assert succeeded(run_dag(dag))
    before, after, whole = seen
    pd.testing.assert_frame_equal(before, FRAMES[1])
    assert after["n"].tolist() == [99, 1]
    assert whole["after"]["n"].tolist() == [99, 1]


# -- references by annotation, in plain tasks


def summary(value: Any) -> Any:
    """Say what a task got, without loading it."""
    if isinstance(value, ArtifactRef):
        return f"ref {value.name}"
    if isinstance(value, pd.DataFrame):
        return f"frame {len(value)}"
    if isinstance(value, dict):
        return {key: summary(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [summary(item) for item in value]
    return value


def one(data: ArtifactRef, other: Any) -> Any:
    return [data, other]


def quoted(data: "ArtifactRef", other: Any) -> Any:  # noqa: UP037 - as users write it
    return [data, other]


def optional(data: Optional[ArtifactRef], other: pd.DataFrame) -> Any:  # noqa: UP045 - as users write it
    return [data, other]


def annotated(data: Annotated[ArtifactRef, "of frames"], other: pd.DataFrame) -> Any:
    return [data, other]


@pytest.mark.parametrize("function", [one, quoted, optional, annotated])
@pytest.mark.parametrize("by_name", [True, False], ids=["keyword", "positional"])
def test_a_plain_task_gets_references_where_it_says_so(run_dag, seen, calls, function, by_name):
    with DAG("plain_refs", schedule=None) as dag:

        @task
        def first():
            return FRAMES[0]

        @task
        def second():
            return FRAMES[1]

        @task
        @functools.wraps(function)
        def consume(*args, **kwargs):
            seen.extend(summary(item) for item in function(*args, **kwargs))

        if by_name:
            consume(data=first(), other=second())
        else:
            consume(first(), second())

    assert succeeded(run_dag(dag))
    assert seen == ["ref plain_refs.first", "frame 2"]
    assert calls["load"] == 1


def test_containers_of_references(run_dag, seen, calls):
    with DAG("plain_containers", schedule=None) as dag:

        @task
        def by_name():
            return {"a": FRAMES[0], "b": FRAMES[1]}

        @task
        def single():
            return FRAMES[2]

        @task
        def lists(found: list[ArtifactRef], given: list[ArtifactRef]):
            seen.append(summary([found, given]))

        @task
        def dicts(found: dict[str, ArtifactRef]):
            seen.append(summary(found))

        @task
        def rest(*found: ArtifactRef, **named: ArtifactRef):
            seen.append(summary([found, named["named"]]))

        one = single()
        lists(frames(), [one, one]) >> dicts(by_name()) >> rest(one, named=one)

    assert succeeded(run_dag(dag))
    ref = "ref plain_containers.single"
    assert seen == [
        [[f"ref plain_containers.frames.{n}" for n in range(5)], [ref, ref]],
        {"a": "ref plain_containers.by_name.a", "b": "ref plain_containers.by_name.b"},
        [[ref], ref],
    ]
    assert calls["load"] == 0


def test_mapped_tasks_get_references_where_they_say_so(run_dag, seen, calls):
    with DAG("mapped_refs", schedule=None) as dag:

        @task
        def arguments():
            return [{"data": frame, "other": frame} for frame in FRAMES[:2]]

        @task
        def consume(data: ArtifactRef, other: pd.DataFrame | None = None):
            seen.append(summary([data, other]))

        @task
        def collect(found: list[ArtifactRef]):
            seen.append(summary(list(found)))

        @task
        def echo(frame):
            return frame

        made = frames()
        (
            consume.override(task_id="by_element").expand(data=made)
            >> consume.override(task_id="by_kwargs").expand_kwargs(arguments())
            >> consume.override(task_id="zipped")
            .partial(other=None)
            .expand(data=made.map(lambda frame: frame))
        )
        collect(echo.expand(frame=made))

    assert succeeded(run_dag(dag))
    elements = [[f"ref mapped_refs.frames.{n}", None] for n in range(5)]
    keyed = [[f"ref mapped_refs.arguments.{n}.data", f"frame {n + 1}"] for n in range(2)]
    # What .map() made is no artifact of the store.
    made = [[f"frame {n + 1}", None] for n in range(5)]
    for expected in (*elements, *keyed, *made):
        assert expected in seen
    assert len(seen) == len(elements) + len(keyed) + len(made) + 1
    assert ["ref mapped_refs.echo"] * 5 in seen


def test_everything_else_in_such_a_task_is_a_value(run_dag, seen, calls):
    with DAG("values_else", schedule=None) as dag:

        @task
        def single():
            return FRAMES[1]

        @task
        def consume(data: ArtifactRef, text: str, ti=None):
            seen.append(summary([data, text, ti.xcom_pull(task_ids="single")]))

        consume(single(), "{{ ti.xcom_pull(task_ids='single') | length }} rows")

    assert succeeded(run_dag(dag))
    assert seen == [["ref values_else.single", "2 rows", "frame 2"]]


def test_what_the_code_of_a_task_that_takes_references_pulls_is_a_value(run_dag, seen):
    class Asks(EmptyOperator):
        template_fields = ("data",)
        ml_lazy_artifacts = True

        def __init__(self, data, **kwargs):
            super().__init__(**kwargs)
            self.data = data

        def execute(self, context):
            seen.append(summary([self.data, context["ti"].xcom_pull(task_ids="single")]))

    with DAG("asks_and_pulls", schedule=None) as dag:

        @task
        def single():
            return FRAMES[1]

        Asks(task_id="asks", data=single())

    assert succeeded(run_dag(dag))
    assert seen == [["ref asks_and_pulls.single", "frame 2"]]


def test_a_value_that_two_parameters_share_is_loaded_if_one_of_them_wants_it(run_dag, seen):
    with DAG("shared", schedule=None) as dag:

        @task
        def single():
            return FRAMES[1]

        @task
        def consume(data: ArtifactRef, frame: pd.DataFrame):
            seen.append(summary([data, frame]))

        found = single()
        consume(found, found)

    assert succeeded(run_dag(dag))
    assert seen == [["frame 2", "frame 2"]]


def test_classic_and_async_tasks_get_references_too(run_dag, seen, calls):
    async def consume(data: ArtifactRef):
        seen.append(summary(data))

    def classic(data: ArtifactRef, other):
        seen.append(summary([data, other]))

    with DAG("classic_refs", schedule=None) as dag:
        made = frames()
        one = task(consume)(made)
        one >> PythonOperator(
            task_id="classic",
            python_callable=classic,
            op_args=[made],
            op_kwargs={"other": 1},
        )

    assert succeeded(run_dag(dag))
    refs = [f"ref classic_refs.frames.{n}" for n in range(5)]
    assert seen == [refs, [refs, 1]]
    assert calls["load"] == 0


def test_a_reference_in_a_plain_task_loads_parts_and_counts_as_read(run_dag, seen):
    with DAG("ref_loads", schedule=None) as dag:

        @task
        def single():
            return FRAMES[4]

        @task
        def consume(data: ArtifactRef):
            seen.append(data.load(rows=2)["n"].tolist())

        consume(single())

    run = run_dag(dag)
    assert succeeded(run)
    assert seen == [[0, 1]]
    record = read_record(store().objects, dag.dag_id, run.run_id, "consume", map_index=-1, try_number=1)
    assert [read["name"] for read in record["reads"]] == ["ref_loads.single"]
