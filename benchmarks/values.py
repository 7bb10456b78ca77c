# SPDX-License-Identifier: Apache-2.0
"""The values that are stored: from a seed, so that every environment makes the same ones."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


def frame(rows: int, seed: int = 7) -> pd.DataFrame:
    """Twenty columns such as a feature table has: noise, prices, counts, labels, text, times, gaps."""
    rng = np.random.default_rng(seed)
    cities = np.array([f"city {number:04d}" for number in range(1000)])
    grades = pd.CategoricalDtype(["low", "middle", "high"], ordered=True)
    labels = pd.Index([f"l{number}" for number in range(200)])
    start = np.datetime64("2024-01-01", "us")
    users = np.char.add("user-", rng.integers(0, 10**8, size=rows).astype("U8"))
    return pd.DataFrame(
        {
            "id": np.arange(seed * 1_000_000_000, seed * 1_000_000_000 + rows),
            "noise_0": rng.normal(size=rows),
            "noise_1": rng.normal(size=rows),
            "noise_2": rng.normal(100, 15, size=rows),
            "noise_3": rng.normal(size=rows).astype(np.float32),
            "gaps": np.where(rng.random(rows) < 0.05, np.nan, rng.normal(size=rows)),
            "price": rng.gamma(2, 50, size=rows).round(2),
            "share": rng.integers(0, 1001, size=rows) / 1000,
            "count": rng.poisson(3, size=rows),
            "code": rng.integers(0, 50_000, size=rows, dtype=np.int32),
            "small": rng.integers(-100, 100, size=rows, dtype=np.int8),
            "late": rng.random(rows) < 0.3,
            "nullable": pd.array(rng.integers(0, 100, size=rows), dtype="Int64"),
            "answer": pd.array(rng.random(rows) < 0.5, dtype="boolean"),
            "label": pd.Categorical.from_codes(rng.integers(0, 200, size=rows), labels),
            "grade": pd.Categorical.from_codes(rng.integers(0, 3, size=rows), dtype=grades),
            "city": pd.array(cities[rng.integers(0, 1000, size=rows)], dtype="str"),
            "user": pd.array(users, dtype="str"),
            "seen": start + np.cumsum(rng.integers(0, 60_000_000, size=rows)).astype("timedelta64[us]"),
            "stored": pd.to_datetime(
                start + rng.integers(0, 10**13, size=rows).astype("timedelta64[us]"), utc=True
            ),
        }
    )


def array(mib: int, seed: int = 7) -> np.ndarray[Any, Any]:
    """Noise in float32."""
    return np.random.default_rng(seed).standard_normal((mib, 1 << 18), dtype=np.float32)


def forest(trees: int, rows: int, keep: str) -> Any:
    """
    A fitted random forest.

    :param keep: A file for the pickled forest, so that the next process of this run need not fit it again.
    """
    path = Path(keep)
    if not path.exists():
        from sklearn.ensemble import RandomForestClassifier

        rng = np.random.default_rng(7)
        features = rng.normal(size=(rows, 20))
        target = (features[:, 0] + features[:, 1] * features[:, 2] + rng.normal(size=rows)) > 0
        made = RandomForestClassifier(trees, random_state=7, n_jobs=2).fit(features, target)
        path.write_bytes(pickle.dumps(made, protocol=5))
    return pickle.loads(path.read_bytes())  # noqa: S301 - written above, by this benchmark


METRICS = {f"metric_{number}": number / 7 for number in range(12)} | {"rows": 1_000_000, "model": "forest"}
STRINGS = [f"s3://bucket/partition={number:04d}/part-0.parquet" for number in range(100)]

_MAKERS: dict[str, Callable[..., Any]] = {"frame": frame, "array": array, "forest": forest}


@functools.lru_cache(maxsize=2)
def _made(kind: str, arguments: tuple[tuple[str, Any], ...]) -> Any:
    return _MAKERS[kind](**dict(arguments))


def make(spec: dict[str, Any]) -> Any:
    """Return the value of a spec such as ``{"kind": "frame", "rows": 1000}``, made once in a process."""
    arguments = dict(spec)
    return _made(arguments.pop("kind"), tuple(sorted(arguments.items())))


def size_of(value: Any) -> int:
    """Bytes of a value in memory."""
    if isinstance(value, pd.DataFrame):
        return int(value.memory_usage(deep=True).sum())
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    return len(pickle.dumps(value, protocol=5))


def same(value: Any, other: Any) -> bool:
    """Tell whether a value came back as it was, types included."""
    if type(value) is not type(other):
        return False
    if isinstance(value, pd.DataFrame):
        try:
            pd.testing.assert_frame_equal(value, other, check_exact=True, check_freq=True)
        except AssertionError:
            return False
        return True
    if isinstance(value, np.ndarray):
        return value.dtype == other.dtype and bool(np.array_equal(value, other))
    return pickle.dumps(value, protocol=5) == pickle.dumps(other, protocol=5) or _same_forest(value, other)


def _same_forest(value: Any, other: Any) -> bool:
    probe = np.random.default_rng(1).normal(size=(1000, value.n_features_in_))
    return bool(np.array_equal(value.predict_proba(probe), other.predict_proba(probe)))


# -- versions of a frame, each from the one before


def _new_rows(base: pd.DataFrame, rows: int, number: int) -> pd.DataFrame:
    return frame(rows, seed=1000 + number).astype(base.dtypes.to_dict())


def _appended(value: pd.DataFrame, rows: int, number: int) -> pd.DataFrame:
    return pd.concat([value, _new_rows(value, rows, number)], ignore_index=True)


def _block(value: pd.DataFrame, rows: int, number: int) -> pd.DataFrame:
    start = len(value) * number // 12
    parts = [value.iloc[:start], _new_rows(value, rows, number), value.iloc[start + rows :]]
    return pd.concat(parts, ignore_index=True)


def _inserted(value: pd.DataFrame, rows: int, number: int) -> pd.DataFrame:
    middle = len(value) // 2
    parts = [value.iloc[:middle], _new_rows(value, rows, number), value.iloc[middle:]]
    return pd.concat(parts, ignore_index=True)


def _column(value: pd.DataFrame, rows: int, number: int) -> pd.DataFrame:
    return value.assign(noise_1=np.random.default_rng(1000 + number).normal(size=len(value)))


def _window(value: pd.DataFrame, rows: int, number: int) -> pd.DataFrame:
    return pd.concat([value.iloc[rows:], _new_rows(value, rows, number)], ignore_index=True)


CHANGES: dict[str, Callable[[pd.DataFrame, int, int], pd.DataFrame]] = {
    "1% of rows appended": _appended,
    "one block of 1% of rows changed": _block,
    "1% of rows inserted in the middle": _inserted,
    "one column recomputed": _column,
    "first 1% dropped, 1% appended": _window,
}
