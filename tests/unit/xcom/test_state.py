# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated

import pytest

from airflow_ml_provider import Artifact
from airflow_ml_provider.xcom import state

if TYPE_CHECKING:
    import pandas as pd  # as in DAG files: known to type checkers alone

NAMED = Artifact("flight_features")


def by_constructor() -> Annotated[pd.DataFrame, Artifact("flight_features")]: ...


def by_constant() -> Annotated[pd.DataFrame | None, NAMED]: ...


def nested() -> Annotated[
    dict[str, pd.DataFrame], "some text", Artifact("flight_features", preview=False)
]: ...


def unnamed() -> pd.DataFrame: ...


def unannotated(): ...


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        pytest.param(by_constructor, Artifact("flight_features"), id="constructor"),
        pytest.param(by_constant, Artifact("flight_features"), id="constant and union"),
        pytest.param(nested, Artifact("flight_features", preview=False), id="generic and other metadata"),
        pytest.param(unnamed, None, id="no Artifact"),
        pytest.param(unannotated, None, id="no annotation"),
        pytest.param(None, None, id="no function"),
    ],
)
def test_an_artifact_is_read_from_the_return_annotation(function, expected):
    assert state.annotated_artifact(function) == expected


def test_a_wrong_annotation_is_named():
    def wrong() -> Annotated[pd.DataFrame, Artifact("")]: ...

    with pytest.raises(TypeError, match="wrong"):
        state.annotated_artifact(wrong)


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        pytest.param(SimpleNamespace(artifact=Artifact("own"), python_callable=by_constant), "own", id="own"),
        pytest.param(
            SimpleNamespace(python_callable=by_constant, outlets=[]), "flight_features", id="annotated"
        ),
        pytest.param(
            SimpleNamespace(outlets=[SimpleNamespace(uri="ml-artifact://sales")]), "sales", id="single outlet"
        ),
        pytest.param(
            SimpleNamespace(outlets=[SimpleNamespace(uri=f"ml-artifact://{name}") for name in "ab"]),
            None,
            id="two outlets are ambiguous",
        ),
        pytest.param(
            SimpleNamespace(outlets=[SimpleNamespace(uri="s3://bucket/x")]), None, id="other outlet"
        ),
        pytest.param(SimpleNamespace(), None, id="nothing declared"),
    ],
)
def test_who_names_the_artifact_of_a_task(task, expected):
    found = state.declared_artifact(task)
    assert (found.name if found else None) == expected


def context_of(try_number: int = 1, **extra):
    ti = SimpleNamespace(
        dag_id="d", run_id="r", task_id="t", map_index=None, try_number=try_number, task=SimpleNamespace()
    )
    return {"ti": ti, "task": ti.task, **extra}


def test_state_belongs_to_one_attempt():
    first = state.begin(context_of(1))
    first.reads["v1"] = "a reference"
    assert state.begin(context_of(1)) is first
    assert state.find("d", "r", "t", -1) is first

    second = state.begin(context_of(2))
    assert second is not first
    assert second.reads == {}
    assert state.end(context_of(2)["ti"]) is second
    assert state.find("d", "r", "t", None) is None
