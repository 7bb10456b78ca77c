# SPDX-License-Identifier: Apache-2.0
"""The options of safety as a DAG meets them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import pandas as pd
import pytest
from airflow.sdk import DAG, task

from airflow_ml_provider import Artifact
from airflow_ml_provider.exceptions import UnsupportedTypeError, UntrustedTypeError
from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook
from airflow_ml_provider.settings import load_settings

PEOPLE = pd.DataFrame({"name": ["Ada"], "ssn": ["123-45"], "token": ["t0ken"], "salary": [1]})


def forget() -> None:
    load_settings.cache_clear()
    ArtifactStoreHook.forget()


@pytest.fixture(autouse=True)
def _fresh(artifact_root, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AIRFLOW__CORE__SENSITIVE_VAR_CONN_NAMES", "salary")
    forget()
    yield
    forget()


class Unknown:
    """A type that nobody knows."""

    value = 5


def dag_of(failures: list[BaseException]) -> DAG:
    with DAG(
        "unknown_type",
        schedule=None,
        default_args={"on_failure_callback": lambda context: failures.append(context["exception"])},
    ) as dag:

        @task
        def produce():
            return {"unknown": Unknown(), "known": [1]}

        @task
        def consume(found):
            assert type(found["unknown"]) is Unknown
            assert found["known"] == [1]

        consume(produce())
    return dag


def test_a_type_that_nobody_knows_crosses_where_pickle_is_allowed(run_dag, xcom_table, monkeypatch):
    monkeypatch.setenv("AIRFLOW__ML_PROVIDER__ALLOW_PICKLE", "True")
    forget()

    run = run_dag(dag_of([]))

    assert str(run.state) == "success"
    assert xcom_table(run, "produce")["unknown"]["format"] == "pickle-v1"

    monkeypatch.setenv("AIRFLOW__ML_PROVIDER__ALLOW_PICKLE", "False")
    forget()
    with pytest.raises(UntrustedTypeError, match=r"unknown_type\.produce.*allow_pickle is off"):
        ArtifactStoreHook().store.get("unknown_type.produce.unknown").load()


def test_elsewhere_its_task_fails_and_says_what_to_do(run_dag, artifact_root):
    failures: list[BaseException] = []

    run = run_dag(dag_of(failures))

    assert str(run.state) == "failed"
    assert type(failures[0]) is UnsupportedTypeError
    for advice in ("return another type", "register a codec", "allow_pickle = True"):
        assert advice in str(failures[0])
    assert not list(artifact_root.glob("versions/**/*.json"))


def test_previews_in_the_xcom_table_are_masked(run_dag, xcom_table):
    with DAG("masked", schedule=None) as dag:

        @task
        def produce() -> Annotated[pd.DataFrame, Artifact("people", mask=("ssn",))]:
            return PEOPLE

        @task
        def consume(found):
            pd.testing.assert_frame_equal(found, PEOPLE)

        consume(produce())

    run = run_dag(dag)

    assert str(run.state) == "success"
    assert xcom_table(run, "produce")["preview"] == [
        {"name": "Ada", "ssn": "***", "token": "***", "salary": "***"}
    ]
