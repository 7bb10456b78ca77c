# SPDX-License-Identifier: Apache-2.0
"""
Every format that was ever written stays readable for ever.

``tests/data/formats/`` holds small files, ``<format>.<n>.bin``, each with a ``.json`` of what its manifest
says. The value that each must give is built here, in ``VALUES``.

To add one, add its value to ``VALUES`` under a new name and run this file once with ``WRITE_GOLDEN=1``: what
is missing is written, what is there is never written again. Commit both files. A file that cannot be read any
more is a bug of the reader: neither the file nor its value is ever changed, and trees are signed with the key
of ``conftest.py``.
"""

from __future__ import annotations

import datetime as dt
import decimal
import json
import os
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.codecs import registry
from airflow_ml_provider.artifacts.digest import digest_of
from airflow_ml_provider.artifacts.refs import ArtifactRef
from airflow_ml_provider.artifacts.store import ArtifactStore
from tests.unit.artifacts.sameness import same

FOLDER = Path(__file__).resolve().parents[2] / "data" / "formats"


def frame() -> pd.DataFrame:
    made = pd.DataFrame(
        {
            "int": np.array([1, -2, 3], "int32"),
            "float": [0.5, np.nan, -0.0],
            "bool": [True, False, True],
            "text": pd.array(["a", None, "é"], dtype=pd.StringDtype("pyarrow", na_value=np.nan)),
            "string": pd.array(["a", None, ""], dtype=pd.StringDtype("python")),
            "Int64": pd.array([1, None, 3], dtype="Int64"),
            "boolean": pd.array([True, None, False], dtype="boolean"),
            "category": pd.Categorical(["x", "y", None], categories=["z", "y", "x"], ordered=True),
            "naive": np.array(["2013-05-01", "NaT", "1500-01-01"], "M8[s]"),
            "zone": pd.date_range("2020-10-24 23:00", periods=3, freq="h", tz="UTC").tz_convert(
                "Europe/Berlin"
            ),
            "delta": np.array([1, -1, 0], "m8[us]"),
            "period": pd.PeriodIndex(["2020-01", None, "2020-03"], freq="M"),
            "interval": pd.arrays.IntervalArray.from_breaks([0, 1, 2, 3], closed="left"),
            "arrow": pd.array([[1], None, []], dtype=pd.ArrowDtype(pa.list_(pa.int64()))),
            "complex": np.array([1 + 2j, 0, -1j]),
            "mixed": pd.Series([1, "a", None], dtype=object),
            "exact": pd.Series([decimal.Decimal("1.10"), dt.date(2020, 1, 1), (1, 2)], dtype=object),
            "vectors": pd.Series([np.ones(2, "f4"), None, np.zeros(0, "f4")], dtype=object),
        },
        index=pd.date_range("2020", periods=3, freq="D", name="day"),
    )
    made.attrs = {"source": ("nycflights13", 1)}
    return made


def ordinary() -> pd.DataFrame:
    """The columns of :func:`frame` that Parquet has types for."""
    made = frame().drop(columns=["complex", "mixed", "exact"])
    made.attrs = {"source": ("nycflights13", 1)}
    return made


def wide_labels() -> pd.DataFrame:
    return pd.DataFrame(
        np.arange(8).reshape(4, 2),
        index=pd.MultiIndex.from_product([["a", "b"], [1, 2]], names=["x", None]),
        columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)]),
    )


def many_rows(count: int) -> pd.DataFrame:
    number = np.arange(count)
    return pd.DataFrame(
        {
            "when": pd.Timestamp("2013-05-01") + pd.to_timedelta(number * 60, unit="s"),
            "late": number % 7 == 0,
            "carrier": pd.Categorical.from_codes(number // 1000 % 3, ["AA", "UA", "é"]),
        }
    )


def kinds_of_columns(count: int) -> pa.Table:
    """Columns that are stored as small numbers, as lengths and text, as messages, and as they are."""
    number = np.arange(count)
    text = pa.array([None if i % 11 == 0 else f"word {i % 50}" for i in range(count)])
    return pa.table(
        {
            "row": number + 10**12,
            "count": number * number % 100,
            "price": (number * 37 % 10_000) / 100,
            "gap": pa.array(np.where(number % 5, number * 37 % 100 / 10, np.nan).astype(np.float32)),
            "same": np.full(count, 0.1),
            "hash": number * np.int64(0x1E3779B97F4A7C15),
            "short": (number % 7).astype(np.int16),
            "kind": pa.DictionaryArray.from_arrays(pa.array((number % 3).astype(np.int8)), ["a", "é", ""]),
            "text": text.cast(pa.large_string()),
            "bytes": text.cast(pa.binary()),
            "maybe": pa.array([None if i % 3 == 0 else i for i in range(count)]),
        }
    )


def polars_frame() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "n": pl.Series([1, None, 3], dtype=pl.UInt16),
            "large": pl.Series([2**100, None, -1], dtype=pl.Int128),
            "category": pl.Series(["x", "y", None], dtype=pl.Categorical),
            "enum": pl.Series(["x", "y", None], dtype=pl.Enum(["y", "x"])),
            "when": pl.Series([0, 1, None], dtype=pl.Int64).cast(pl.Datetime("ms", "Asia/Tokyo")),
            "span": pl.Series([0, 1, None], dtype=pl.Int64).cast(pl.Duration("us")),
            "price": pl.Series([decimal.Decimal("1.10"), None, None], dtype=pl.Decimal(10, 2)),
            "nested": [{"x": [1, 2], "y": "a"}, None, {"x": [], "y": None}],
            "vector": pl.Series([[1.5, 2.5], None, [0.0, 1.0]], dtype=pl.Array(pl.Float32, 2)),
        }
    )


def table() -> pa.Table:
    return pa.table(
        {
            "n": pa.array([1, None, 3], pa.uint16()),
            "d": pa.array([decimal.Decimal("1.10"), None, decimal.Decimal("-2.00")], pa.decimal128(10, 2)),
            "t": pa.array([0, 1, None], pa.timestamp("ms", "Asia/Tokyo")),
            "l": [["x"], [], None],
            "c": pa.array(["x", "y", "x"]).dictionary_encode(),
        }
    ).replace_schema_metadata({"k": "v"})


def scaler() -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(with_std=True)).fit(np.array([[1.0, 2.0], [3.0, 6.0]]))


def sparse(name: str) -> Any:
    import scipy.sparse

    return getattr(scipy.sparse, name)(np.array([[0, 1.5, 0], [2, 0, -3]]))


def tensors() -> Any:
    import torch

    weight = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    return {
        "weight": torch.nn.Parameter(weight),
        "tied": weight,
        "half": torch.tensor([1.5, -2]).to(torch.bfloat16),
        "float8": torch.tensor([[1.5], [-2]]).to(torch.float8_e4m3fnuz),
        "complex": torch.tensor(1 + 2j),
        "mask": torch.tensor([True, False]),
    }


def same_tensors(left: Any, right: Any) -> bool:
    import torch

    if isinstance(right, dict):
        return list(left) == list(right) and all(same_tensors(left[name], right[name]) for name in right)
    return (
        type(left) is type(right)
        and (left.dtype, left.shape, left.requires_grad) == (right.dtype, right.shape, right.requires_grad)
        and torch.equal(left.reshape(-1).view(torch.uint8), right.reshape(-1).view(torch.uint8))
    )


def image(mode: str) -> Any:
    from PIL import Image

    made = Image.new(mode, (4, 2))
    made = Image.frombytes(mode, (4, 2), bytes(range(len(made.tobytes()))))
    if mode == "P":
        made.putpalette(bytes(range(24)), "RGB")
    made.info = {"dpi": (72.0, 71.5), "comment": "é", "icc_profile": b"profile"}
    return made


def drawing() -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(2, 1), dpi=10, facecolor="red")


def interactive() -> Any:
    import plotly.graph_objects as go

    dates = np.array(["2020-01-01", "1969-12-31T23"], "M8[us]")
    return go.Figure(go.Scatter(x=dates, y=np.array([1, 2**40])), layout={"template": None, "title": "é"})


POINTS = np.array([[0.0, 1], [1, 0], [2, 5], [3, 2]])


def booster(library: str, name: str, **params: Any) -> Any:
    import importlib

    model = getattr(importlib.import_module(library), name)(n_estimators=2, **params)
    return model.fit(POINTS, np.array([0, 0, 1, 1]))


def predicted(model: Any) -> Any:
    if type(model).__module__ == "xgboost.core":
        return model.inplace_predict(POINTS)
    return getattr(model, "predict_proba", model.predict)(POINTS)


def file() -> dict[str, tuple[bytes, bool]]:
    return {"run é.sh": (b"#!/bin/sh\n", True)}


def folder() -> dict[str, tuple[bytes, bool]]:
    return {"MLmodel": (b"flavors: {}\n", False), "bin/run": (b"#!/bin/sh\n", True), "é": (b"", False)}


STRUCTURED = np.array([(1, 2.5, "é", 1j)], dtype=[("i", "<i2"), ("f", "<f8"), ("s", "<U3"), ("c", "<c16")])
TREE = {
    "tuple": (1, {2: "three"}),
    "set": {1, "a"},
    "when": dt.datetime(2013, 5, 1, 12, tzinfo=UTC),
    "id": uuid.UUID(int=7),
    "exact": decimal.Decimal("1.10"),
    "numbers": [1.5, -(2**60), 1 + 2j],
}

VALUES: dict[str, Callable[[], Any]] = {
    "arrow-v1.1": frame,
    "arrow-v1.2": table,
    "arrow-v1.3": wide_labels,
    "arrow-v1.4": lambda: pd.Series(["a", 1, None], name=("a", 1), dtype=object, index=[5, 7, 7]),
    "arrow-v1.5": lambda: pd.RangeIndex(5, 1, -2, name="r"),
    "arrow-v1.6": lambda: pa.record_batch({"a": [1.5, None]}),
    "arrow-v1.7": polars_frame,
    "arrow-v1.8": lambda: pl.Series("e", ["x", None, "z"], pl.Enum(["z", "y", "x"])),
    "arrow-v1.9": lambda: pa.array(["x", None, "y"]).dictionary_encode(),
    "arrow-v1.10": lambda: pa.chunked_array([[b"0" * 16], [None]], pa.uuid()),
    "arrow-chunks-v1.1": lambda: many_rows(6000),
    "arrow-chunks-v1.2": lambda: many_rows(6100),  # with pieces of the one before
    "arrow-chunks-v1.3": lambda: kinds_of_columns(3000),
    "bytes-v1.1": lambda: b"\x00\xffbytes",
    "bytes-v1.2": lambda: bytearray(b"array"),
    "directory-v1.1": folder,
    "file-v1.1": file,
    "image-v1.1": lambda: image("RGB"),
    "image-v1.2": lambda: image("CMYK"),
    "image-v1.3": lambda: image("P"),
    "json-v1.1": lambda: {"a": [1, None, "é\0\ud800", float("inf"), 2**100], "b": {}},
    "matplotlib-png-v1.1": drawing,
    "npy-v1.1": lambda: np.arange(6, dtype="<f4").reshape(2, 3),
    "npy-v1.2": lambda: np.asfortranarray(np.arange(6).astype("<M8[s]").reshape(2, 3)),
    "npy-v1.3": lambda: STRUCTURED,
    "npy-v1.4": lambda: np.array(True),
    "pickle-v1.1": lambda: {"array": np.arange(1024, dtype="<f8"), "small": np.arange(3), "set": {1}},
    "scipy-sparse-v1.1": lambda: sparse("csr_array"),
    "scipy-sparse-v1.2": lambda: sparse("coo_matrix"),
    "scipy-sparse-v1.3": lambda: sparse("lil_matrix"),
    "scipy-sparse-v1.4": lambda: sparse("dok_array"),
    "scipy-sparse-v1.5": lambda: sparse("bsr_array"),
    "scipy-sparse-v1.6": lambda: sparse("dia_array"),
    "parquet-v1.1": ordinary,
    "parquet-v1.2": table,
    "parquet-v1.3": wide_labels,
    "xgboost-v1.1": lambda: booster("xgboost", "XGBClassifier"),
    "xgboost-v1.2": lambda: booster("xgboost", "XGBRegressor").get_booster(),
    "lightgbm-v1.1": lambda: booster("lightgbm", "LGBMClassifier", min_child_samples=1, verbose=-1),
    "lightgbm-v1.2": lambda: booster("lightgbm", "LGBMRegressor", min_child_samples=1, verbose=-1).booster_,
    "catboost-v1.1": lambda: booster("catboost", "CatBoostClassifier", allow_writing_files=False, verbose=0),
    "plotly-v1.1": interactive,
    "safetensors-v1.1": lambda: tensors()["half"],
    "safetensors-v1.2": tensors,
    "skops-v1.1": scaler,
    "tree-v1.1": lambda: TREE,
}


def save(store: ArtifactStore, stem: str, tmp_path: Path) -> ArtifactRef:
    value = VALUES[stem]()
    format = stem.rpartition(".")[0]
    store.allow_pickle = format == "pickle-v1"
    if stem == "arrow-chunks-v1.2":
        save(store, "arrow-chunks-v1.1", tmp_path)
    if format not in ("file-v1", "directory-v1"):
        with mock.patch("airflow_ml_provider.artifacts.codecs.arrow_chunks._ROWS_LOG2", 9):
            return store.save(value, "golden", format=format)
    for name, (content, executable) in value.items():
        path = tmp_path / "golden" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o755 if executable else 0o644)
    return store.save(path if format == "file-v1" else tmp_path / "golden", "golden")


def content_of(root: Path) -> dict[str, tuple[bytes, bool]]:
    """What a file or folder holds: a file under its name, a folder's files under their paths."""
    paths = [root] if root.is_file() else [path for path in root.rglob("*") if path.is_file()]
    start = root.parent if root.is_file() else root
    return {str(path.relative_to(start)): (path.read_bytes(), os.access(path, os.X_OK)) for path in paths}


def write(stem: str, store: ArtifactStore, tmp_path: Path) -> None:
    ref = save(store, stem, tmp_path)
    facts = {
        "format": ref.format,
        "type": ref.type,
        "digest": ref.digest,
        "size_bytes": ref.size_bytes,
        "schema": ref.schema,
        "parts": list(ref.parts),
        "written_with": {"pandas": pd.__version__, "pyarrow": pa.__version__, "numpy": np.__version__},
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{stem}.bin").write_bytes(bytes(store.objects.get(keys.blob_key(ref.blobs[0]))))
    (FOLDER / f"{stem}.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")


@pytest.mark.parametrize("stem", VALUES)
def test_a_format_stays_readable_for_ever(  # noqa: PLR0912 - one for each kind of value
    stem: str, store: ArtifactStore, tmp_path: Path
) -> None:
    if stem.startswith("safetensors-"):
        pytest.importorskip("torch")
    if os.environ.get("WRITE_GOLDEN") == "1" and not (FOLDER / f"{stem}.bin").exists():
        write(stem, store, tmp_path)
    facts = json.loads((FOLDER / f"{stem}.json").read_text())
    content = (FOLDER / f"{stem}.bin").read_bytes()
    parts = facts.get("parts", [])
    if not parts:
        assert (digest_of([memoryview(content)]), len(content)) == (facts["digest"], facts["size_bytes"])
    store = ArtifactStore(
        (tmp_path / "empty").as_uri(),
        signing_key=store.signer._key,
        allow_pickle=facts["format"] == "pickle-v1",
    )
    store.objects.put(keys.blob_key(parts[0] if parts else facts["digest"]), content)
    for path in FOLDER.glob(f"{facts['format']}.*.bin") if len(parts) > 1 else ():
        store.objects.put(keys.blob_key(digest_of([memoryview(path.read_bytes())])), path)
    now = datetime.now(UTC)

    back = store.load(
        ArtifactRef(
            name="golden",
            version_id=keys.new_version_id(now),
            digest=facts["digest"],
            format=facts["format"],
            type=facts["type"],
            size_bytes=facts["size_bytes"],
            producer=None,
            recorded_at=now,
            effective_at=now,
            schema=facts["schema"],
            parts=tuple(parts),
        )
    )

    expected = VALUES[stem]()
    if isinstance(back, Path):
        assert content_of(back) == expected
    elif facts["format"] == "skops-v1":
        assert type(back) is type(expected)
        assert str(back.get_params()) == str(expected.get_params())
        assert back.transform([[5.0, 1.0]]).tolist() == expected.transform([[5.0, 1.0]]).tolist()
    elif facts["format"] in ("xgboost-v1", "lightgbm-v1", "catboost-v1"):
        assert type(back) is type(expected)
        assert np.allclose(predicted(back), predicted(expected), rtol=1e-5)
        assert not hasattr(back, "get_params") or str(back.get_params()) == str(expected.get_params())
    elif facts["format"] == "safetensors-v1":
        assert same_tensors(back, expected)
    elif facts["format"] == "image-v1":
        assert type(back) is type(expected)
        assert back == expected
    elif facts["format"] == "matplotlib-png-v1":
        assert (type(back).__name__, back.size) == ("Image", (20, 10))
        assert back.getcolors() == [(200, (255, 0, 0, 255))]
    elif facts["format"] == "plotly-v1":
        assert type(back) is type(expected)
        assert back == expected
        assert back.data[0].x.dtype == expected.data[0].x.dtype
    elif facts["format"] == "scipy-sparse-v1":
        assert type(back) is type(expected)
        assert same(back.toarray(), expected.toarray())
    elif isinstance(back, (pa.Table, pa.RecordBatch)):
        assert type(back) is type(expected)
        assert back.schema.equals(expected.schema, check_metadata=True)
        assert repr(back.to_pydict()) == repr(expected.to_pydict())  # where NaN is like NaN
    elif isinstance(back, (pa.Array, pa.ChunkedArray)):
        assert (type(back), back.type) == (type(expected), expected.type)
        assert back.equals(expected)
    elif isinstance(back, (pl.DataFrame, pl.Series)):
        assert type(back) is type(expected)
        assert str(getattr(back, "schema", back)) == str(getattr(expected, "schema", expected))
        assert back.equals(expected, null_equal=True)
    else:
        assert same(back, expected)


def test_every_built_in_format_has_a_golden_file() -> None:
    found = {path.name.rpartition(".")[0].rpartition(".")[0] for path in FOLDER.glob("*.bin")}

    assert [entry.format for entry in registry._BUILT_IN if entry.format not in found] == [], __doc__


def test_no_golden_file_is_forgotten() -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(
        f"{stem}{ending}" for stem in VALUES for ending in (".bin", ".json")
    )
