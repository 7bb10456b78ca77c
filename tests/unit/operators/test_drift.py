# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from airflow.sdk import Asset

from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.operators import DetectDriftOperator
from airflow_ml_provider.operators import drift as module

RETRAIN = Asset("retrain")


class TaskInstance:
    def __init__(self, task):
        self.task = task
        self.pushed = {}

    def xcom_push(self, key, value):
        self.pushed[key] = value


def context_of(task, run_type="scheduled"):
    return {
        "ti": TaskInstance(task),
        "dag_run": SimpleNamespace(run_type=run_type, run_after=datetime(2026, 1, 1, tzinfo=UTC)),
        "outlet_events": defaultdict(lambda: SimpleNamespace(extra={})),
    }


@pytest.fixture
def store(tmp_path, monkeypatch):
    store = ArtifactStore(f"file://{tmp_path}", signing_key=b"x" * 32)
    monkeypatch.setattr(module, "_store", lambda: store)
    return store


def table(shift=0.0, seed=1, **more):
    values = np.random.default_rng(seed).normal(shift, 1, 1_000)
    return pd.DataFrame({"x": values, "label": np.where(values > 0, "late", "on time"), **more})


def operator(**options):
    given = {
        "task_id": "drift",
        "reference": table(),
        "current": table(seed=2),
        "outlets": [RETRAIN, "other"],
    }
    return DetectDriftOperator(**{**given, **options})


def test_a_table_that_drifted_keeps_its_outlets_and_says_why_in_the_event():
    task = operator(current=table(1.0))
    context = context_of(task)
    result = task.execute(context)
    assert (result["drifted"], result["columns"]) == (True, ["x", "label"])
    assert task.outlets == [RETRAIN, "other"]
    assert context["outlet_events"][RETRAIN].extra["columns"] == ["x", "label"]
    report = context["ti"].pushed["report"]
    assert list(report["column"]) == ["x", "label"]


@pytest.mark.parametrize("asset", [RETRAIN, Asset.ref(name="retrain"), Asset.ref(uri="s3://retrain")])
def test_a_table_that_did_not_drift_emits_no_event_and_leaves_the_dags_list_alone(asset):
    task = operator(outlets=[asset, "other"])
    outlets = task.outlets
    context = context_of(task)
    result = task.execute(context)
    assert (result["drifted"], result["reasons"], result["tested"]) == (False, ["no drift"], 2)
    assert task.outlets == ["other"]
    assert outlets == [asset, "other"]
    assert not context["outlet_events"]


@pytest.mark.parametrize(("emit", "kept"), [(False, ["other"]), (True, [RETRAIN, "other"])])
def test_a_backfill_emits_no_event_unless_it_may(emit, kept):
    task = operator(current=table(1.0), emit_in_backfill=emit)
    assert task.execute(context_of(task, "backfill"))["drifted"]
    assert task.outlets == kept


def test_artifacts_are_compared_by_their_manifests_and_only_common_columns_are_read(store, monkeypatch):
    asked = []
    load = type(store).load
    monkeypatch.setattr(
        type(store), "load", lambda self, ref, **how: asked.append(how["columns"]) or load(self, ref, **how)
    )
    reference = store.save(table(gone=1), name="features")
    current = store.save(table(seed=2, new=1), name="features")
    task = operator(reference=reference, current=current)
    result = task.execute(context_of(task))
    assert result["reasons"] == ["column 'gone' is missing"]
    assert (result["reference"], result["current"]) == (reference.uri, current.uri)
    assert asked == [["x", "label"], ["x", "label"]]


@pytest.mark.parametrize("library", ["polars", "pyarrow"])
def test_tables_of_two_libraries_drift_by_their_values_and_not_by_names_of_types(store, library):
    other = pytest.importorskip(library)
    to_other = other.from_pandas if library == "polars" else other.Table.from_pandas
    reference = store.save(table(n=1, day=datetime(2026, 1, 1)), name="features")

    def judged(current):
        task = operator(reference=reference, current=current)
        return task.execute(context_of(task))["reasons"]

    same = to_other(table(seed=2, n=1, day=datetime(2026, 1, 1)))
    assert judged(store.save(same, name="other")) == ["no drift"]
    assert judged(same) == judged(table(seed=2, n=1, day=datetime(2026, 1, 1)))
    texts = to_other(table(seed=2, n="1", day=datetime(2026, 1, 1)))
    assert judged(store.save(texts, name="other")) == ["column 'n' was numbers, is no numbers"]


def test_a_named_reference_is_the_version_that_is_asked_for(store):
    may, june, july = (datetime(2013, month, 1, tzinfo=UTC) for month in (5, 6, 7))
    first = store.save(table(5.0), name="features", effective_at=may)
    second = store.save(table(0.0), name="features", effective_at=july)
    for options, expected in (
        ({}, second),
        ({"reference_version": first.version_id}, first),
        ({"reference_as_of": june}, first),
        ({"reference_as_of": "2013-07-02"}, second),
    ):
        task = operator(reference="features", current="features", **options)
        result = task.execute(context_of(task))
        assert (result["reference"], result["current"]) == (expected.uri, second.uri)
        assert result["drifted"] is (expected is first)


def test_columns_that_are_not_named_are_not_compared():
    task = operator(current=table().assign(x=9.0), columns=["label"])
    assert not task.execute(context_of(task))["drifted"]
    with pytest.raises(ValueError, match="has no columns"):
        operator(columns=["y"]).execute(context_of(operator()))


def test_columns_whose_names_are_no_text_are_compared_too(store):
    reference = store.save(pd.DataFrame(np.random.default_rng(1).normal(size=(500, 2))), name="features")
    task = operator(reference=reference, current=pd.DataFrame(np.ones((500, 2))))
    assert task.execute(context_of(task))["columns"] == ["0", "1"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"columns": "x"}, "must be a list of names"),
        ({"clock": "both"}, "clock must be"),
        ({"alpha": 0}, "alpha must be above"),
        ({"min_rows": 1}, "min_rows must be"),
        ({"emit_in_backfill": "yes"}, "must be True or False"),
        ({"reference_version": "1", "reference_as_of": "2013-01-01"}, "not both"),
    ],
)
def test_wrong_options_are_refused_when_the_dag_is_parsed(options, error):
    with pytest.raises((TypeError, ValueError), match=error):
        operator(**options)


def test_a_version_of_what_is_no_name_is_refused():
    task = operator(reference_version="1")
    with pytest.raises(ValueError, match="of an artifact that is named"):
        task.execute(context_of(task))
