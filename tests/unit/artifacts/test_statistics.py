# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from airflow_ml_provider.artifacts.statistics import MAX_COLUMNS, MAX_ROWS, SAMPLE
from airflow_ml_provider.artifacts.store import ArtifactStore

FRAME = pd.DataFrame(
    {
        "n": [1.0, 2.0, None],
        "when": pd.to_datetime(["2013-05-01", None, "2013-06-01"]),
        "ok": [True, False, True],
        "count": pd.array([1, None, 3], "Int64"),
        "name": ["a", "b", "c"],
        "kind": pd.Categorical(["a", "b", "a"]),
        "endless": [np.inf, 1.0, 2.0],
        "password": [1, 2, 3],
        "salary_eur": [1, 2, 3],
    }
)


TABLE = {"n": [1, 2, None], "name": ["a", "b", "c"]}


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(f"file://{tmp_path}/root", signing_key=b"k" * 32)


def told(schema):
    return {
        each["name"]: {name: each[name] for name in ("nulls", "min", "max", "mean") if name in each}
        for each in schema["columns"]
    }


def test_columns_of_a_frame_are_described_without_what_is_masked(store):
    ref = store.save(FRAME, "frame", mask=["salary_*"])
    assert told(ref.schema) == {
        "n": {"nulls": 1, "min": 1.0, "max": 2.0, "mean": 1.5},
        "when": {"nulls": 1, "min": "2013-05-01T00:00:00", "max": "2013-06-01T00:00:00"},
        "ok": {"nulls": 0, "min": False, "max": True, "mean": pytest.approx(2 / 3)},
        "count": {"nulls": 1, "min": 1, "max": 3, "mean": 2.0},
        "name": {},
        "kind": {},
        "endless": {"nulls": 0, "min": 1.0},
        "password": {},
        "salary_eur": {},
    }
    assert SAMPLE not in ref.schema
    assert json.loads(json.dumps(ref.schema)) == ref.schema
    assert store.get("frame").schema == ref.schema
    pd.testing.assert_frame_equal(ref.load(), FRAME)


@pytest.mark.parametrize(
    "value",
    [
        pa.table({"n": [1, 2, None], "name": ["a", "b", "c"]}),
        pl.DataFrame({"n": [1, 2, None], "name": ["a", "b", "c"]}),
    ],
    ids=["pyarrow", "polars"],
)
def test_tables_of_other_libraries_are_described_too(store, value):
    assert told(store.save(value, "table").schema) == {
        "n": {"nulls": 1, "min": 1.0, "max": 2.0, "mean": 1.5},
        "name": {},
    }


def test_a_deployment_that_shows_no_previews_keeps_no_statistics(store, tmp_path):
    quiet = ArtifactStore(f"file://{tmp_path}/quiet", signing_key=b"k" * 32, previews=False)
    for ref in (quiet.save(FRAME, "frame"), store.save(FRAME, "frame", preview=False)):
        assert not any(told(ref.schema).values())


@pytest.mark.parametrize(
    "make", [lambda n: pd.DataFrame({"n": n}), lambda n: pa.table({"n": n}), lambda n: pl.DataFrame({"n": n})]
)
def test_of_a_long_table_a_sample_is_described_and_the_schema_says_so(store, make):
    rows = MAX_ROWS * 3 + 7
    schema = store.save(make(np.arange(rows)), "long").schema
    (column,) = schema["columns"]
    assert schema["rows"] == rows
    assert schema[SAMPLE] == MAX_ROWS
    assert (column["min"], column["max"], column["nulls"]) == (0, rows - 1, 0)
    assert column["mean"] == pytest.approx(rows / 2, rel=0.01)


def test_of_a_wide_table_the_first_columns_are_described(store):
    schema = store.save(pd.DataFrame({f"c{n}": [n] for n in range(MAX_COLUMNS + 5)}), "wide").schema
    assert sum("nulls" in each for each in schema["columns"]) == MAX_COLUMNS


@pytest.mark.parametrize(
    "value",
    [
        pd.DataFrame(),
        FRAME.head(0),
        pd.DataFrame([[1, "a"]], columns=["x", "x"]),
        pd.DataFrame({("a", 1): [1], ("a", 2): [2.5]}),
        pd.DataFrame({"c": [1 + 2j], "d": pd.to_timedelta([1])}),
        pd.DataFrame({"n": [None, None]}, dtype="float64"),
        pa.table({"n": pa.array([[1], [2]]), "d": pa.array([1, 2], pa.duration("s"))}),
    ],
)
def test_odd_tables_are_stored_as_ever(store, value, caplog):
    ref = store.save(value, "odd")
    assert json.loads(json.dumps(ref.schema)) == ref.schema
    assert type(ref.load()) is type(value)
    assert not caplog.records


def test_a_table_that_cannot_be_described_is_stored(store, caplog, monkeypatch):
    monkeypatch.setattr("airflow_ml_provider.artifacts.statistics._pandas", lambda *_: 1 / 0)
    ref = store.save(FRAME, "frame")
    assert not any(told(ref.schema).values())
    assert "no statistics of a DataFrame" in caplog.text


def test_a_column_that_has_none_costs_the_others_nothing(store, caplog):
    caplog.set_level("INFO")
    halves = pa.array(np.array([1, 2], np.float16))
    odd = {
        "half": halves,
        "decimal": pa.array([1, 2], pa.decimal32(5)),
        "runs": pa.RunEndEncodedArray.from_arrays(pa.array([2], pa.int32()), pa.array([1])),
    }
    table = pa.table({**odd, "n": [1, 2]})
    ref = store.save(table, "task")
    assert ref.load().equals(table)
    told = {each["name"]: each for each in ref.schema["columns"]}
    assert told["n"] == {"name": "n", "type": "int64", "nulls": 0, "min": 1, "max": 2, "mean": 1.5}
    frame = pd.DataFrame({"n": [1, 2], "half": pd.Series(halves, dtype=pd.ArrowDtype(pa.float16()))})
    told = {each["name"]: each for each in store.save(frame, "task").schema["columns"]}
    assert told["n"]["mean"] == 1.5
    assert "no statistics of 'half'" in caplog.text
    assert "Traceback" not in caplog.text
