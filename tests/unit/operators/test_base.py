# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys

import pandas as pd
import pytest

from airflow_ml_provider.assets.assets import ModelAsset
from airflow_ml_provider.operators.base import coerce_model, load_frame
from airflow_ml_provider.tracking.models import ModelRef

REF = ModelRef("models:/m-1", model_id="m-1")


@pytest.mark.parametrize(
    ("given", "uri"),
    [
        (REF, "models:/m-1"),
        (REF.to_json(), "models:/m-1"),
        ("models:/flight_delay/3", "models:/flight_delay/3"),
        (ModelAsset("flight_delay"), "models:/flight_delay@champion"),
    ],
)
def test_a_model_may_be_named_in_several_ways(given, uri):
    assert coerce_model(given).model_uri == uri


@pytest.mark.parametrize(
    ("given", "error"), [(None, TypeError), (3, TypeError), ("flight_delay", ValueError)]
)
def test_what_names_no_model_is_refused(given, error):
    with pytest.raises(error, match="model"):
        coerce_model(given)


def test_arrow_tables_are_frames_too():
    import pyarrow as pa

    frame = pd.DataFrame({"a": [1, 2]})
    pd.testing.assert_frame_equal(load_frame(pa.table({"a": [1, 2]}), option="data"), frame)


def test_frames_of_polars_are_frames_too_and_one_column_is_none():
    polars = pytest.importorskip("polars")

    table = polars.DataFrame({"a": [1, 2], "b": ["x", None]})
    frame = load_frame(table, option="data")
    assert frame["a"].tolist() == [1, 2]
    assert frame["b"].isna().tolist() == [False, True]
    with pytest.raises(TypeError, match=r"data must be a DataFrame .* got polars"):
        load_frame(table["a"], option="data")
    with pytest.raises(TypeError, match=r"data must be a DataFrame .* got pyarrow"):
        load_frame(table.to_arrow()["a"], option="data")


def test_data_that_is_no_frame_is_refused_by_type():
    with pytest.raises(TypeError, match=r"data must be a DataFrame .* got builtins.list"):
        load_frame([1, 2], option="data")


def test_importing_the_operators_imports_nothing_heavy():
    code = """
import sys
import airflow.sdk, airflow.providers.standard.operators.python
before = set(sys.modules)
import airflow_ml_provider.operators as operators, airflow_ml_provider.decorators.train
import airflow_ml_provider.decorators.evaluate
for name in operators.__all__:
    getattr(operators, name)
heavy = {"numpy", "pandas", "pyarrow", "sklearn", "mlflow", "boto3", "obstore", "skops"}
print(sorted(heavy & {name.partition(".")[0] for name in set(sys.modules) - before}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"
