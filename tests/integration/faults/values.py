# SPDX-License-Identifier: Apache-2.0
"""Values that can be made again from their names, to compare with what a store gives back."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

KEY = b"a key of the tests, 32 bytes long"
KINDS = ("frame", "array", "large", "folder", "tree", "bytes", "table")
_ROWS, _MORE = 40_000, 50


def name_of(kind: str, number: int) -> str:
    """Name a value is saved under: all tables under one, so that they share pieces."""
    return f"{kind}.{0 if kind == 'table' else number}"


@functools.cache
def _rows() -> pd.DataFrame:
    numbers = np.random.default_rng(0).normal(size=(_ROWS + 5 * _MORE, 14))
    return pd.DataFrame(numbers, columns=[f"c{i}" for i in range(14)])


def made(kind: str, number: int, folder: Path) -> Any:  # noqa: PLR0911 - one for each kind
    """Return the value number ``number`` of a kind. Every fifth is the same again."""
    number %= 5
    if kind == "frame":
        return pd.DataFrame({"n": np.arange(300) + number, "text": [f"row {number}"] * 300})
    if kind == "array":
        return np.full((50, 40), number, dtype="float32")
    if kind == "large":  # more than is read at once, looked for before it is sent
        return np.arange(250_000.0) + number
    if kind == "table":  # large enough to be stored in pieces
        return _rows().iloc[: _ROWS + number * _MORE]
    if kind == "folder":
        path = folder / f"folder{number}"
        path.mkdir(parents=True, exist_ok=True)
        for name in ("a", "b"):
            (path / name).write_bytes(f"{name}{number}".encode() * 2000)
        return path
    if kind == "tree":
        return {"part": np.arange(3) + number, "others": [(b"%d" % number, {1, number}), frozenset([number])]}
    return b"content %d" % number


def assert_same(kind: str, number: int, back: Any) -> None:
    number %= 5
    if kind == "folder":
        assert {path.name: path.read_bytes() for path in back.iterdir()} == {
            name: f"{name}{number}".encode() * 2000 for name in ("a", "b")
        }
        return
    if kind == "table":
        number = (len(back) - _ROWS) // _MORE  # whichever of them was saved last under the name
    wanted = made(kind, number, Path())
    if kind in ("frame", "table"):
        pd.testing.assert_frame_equal(back, wanted)
    elif kind in ("array", "large"):
        assert back.dtype == wanted.dtype
        assert np.array_equal(back, wanted)
    elif kind == "tree":
        assert np.array_equal(back["part"], wanted["part"])
        assert back["others"] == wanted["others"]
    else:
        assert back == wanted
