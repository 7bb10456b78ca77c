# SPDX-License-Identifier: Apache-2.0
"""
``scipy-sparse-v1``: the arrays that a sparse matrix is made of, in the layout of
:mod:`~airflow_ml_provider.artifacts.codecs.packed`, never with Python objects inside.

Index arrays keep their dtype, entries their order, duplicates and explicit zeros. Whether indices are sorted
and unique is a fact about the arrays, which scipy finds out again; ``coo`` states it, and keeps what it says.
"""

from __future__ import annotations

from typing import Any

import numpy as np  # noqa: TID253 - this module is imported on first use
import scipy.sparse  # noqa: TID253

from airflow_ml_provider.artifacts import preview
from airflow_ml_provider.artifacts.codecs import npy
from airflow_ml_provider.artifacts.codecs.packed import pack, unpack
from airflow_ml_provider.artifacts.codecs.registry import Encoded, Stored
from airflow_ml_provider.exceptions import ArtifactCorruptError, UnsupportedTypeError

CLASSES = {
    f"{layout}_{kind}": getattr(scipy.sparse, f"{layout}_{kind}")
    for layout in ("csr", "csc", "coo", "bsr", "dia", "lil", "dok")
    for kind in ("matrix", "array")
}
_ARRAYS = {
    "csr": ("data", "indices", "indptr"),
    "csc": ("data", "indices", "indptr"),
    "bsr": ("data", "indices", "indptr"),
    "dia": ("data", "offsets"),
}
# What an instance holds apart from its arrays; the flags with an underscore are answers kept for later.
_KNOWN = {"_shape", "maxprint", "dtype", "_has_sorted_indices", "_has_canonical_format", "_dtype"}


def dump(value: Any) -> Encoded:
    layout = value.format
    arrays, known, flag = _take_apart(value, layout)
    if own := sorted(set(vars(value)) - _KNOWN - known):
        raise UnsupportedTypeError(
            f"this {type(value).__name__} has the attribute {own[0]!r}, which is none of scipy's and would "
            "be lost; return it beside the matrix, in a dict"
        )
    parts = [npy.to_parts(array) for array in arrays]
    about = {
        "class": type(value).__name__,
        "shape": [int(size) for size in value.shape],
        "dtype": np.dtype(value.dtype).str,
        "maxprint": int(value.maxprint),
        "canonical": flag,
    }
    shown = arrays[0].reshape(-1)[:8].tolist()
    return Encoded(
        parts=pack(about, parts),
        schema={
            "shape": about["shape"],
            "dtype": str(value.dtype),
            "layout": layout,
            "nnz": int(value.nnz),
        },
        preview=preview.fit([preview.cell(item) for item in shown]),
        type=f"scipy.sparse.{type(value).__name__}",
    )


def _take_apart(value: Any, layout: str) -> tuple[list[Any], set[str], bool | None]:
    """The arrays (values first), the attributes that they stand for, and what ``coo`` says of itself."""
    if layout in _ARRAYS:
        return [getattr(value, name) for name in _ARRAYS[layout]], set(_ARRAYS[layout]), None
    if layout == "coo":
        known = {"data", "coords", "row", "col", "has_canonical_format"}
        return [value.data, *value.coords], known, bool(value.has_canonical_format)
    if layout == "lil":
        lengths = np.array([len(row) for row in value.rows], np.int64)
        places = np.array([place for row in value.rows for place in row], np.int64)
        entries = np.array([entry for row in value.data for entry in row], value.dtype)
        return [entries, places, lengths], {"rows", "data"}, None
    entries = np.array(list(value.values()), value.dtype)
    places = np.array(list(value.keys()), np.int64).reshape(len(value.keys()), len(value.shape))
    return [entries, *places.T.copy()], {"_dict"}, None


def load(data: memoryview, info: Stored) -> Any:
    about, parts = unpack(data, f"the sparse matrix {info.name!r}")
    arrays = [npy.from_buffer(part) for part in parts]
    cls = CLASSES.get(about["class"])
    if cls is None:
        raise ArtifactCorruptError(
            f"{info.name!r} is a sparse matrix of the unknown class {about['class']!r}"
        )
    shape, dtype = tuple(about["shape"]), np.dtype(about["dtype"])
    layout = about["class"].partition("_")[0]
    made = _empty(cls, layout, shape, dtype, arrays)
    # Set one by one: a constructor would choose the dtype of the indices anew.
    if layout in _ARRAYS:
        for name, array in zip(_ARRAYS[layout], arrays, strict=True):
            setattr(made, name, array)
    elif layout == "coo":
        made.data, made.coords = arrays[0], tuple(arrays[1:])
        made.has_canonical_format = about["canonical"]
    elif layout == "lil":
        entries, places, lengths = (array.tolist() for array in arrays)
        start = 0
        for row, length in enumerate(lengths):
            made.rows[row] = places[start : start + length]
            made.data[row] = entries[start : start + length]
            start += length
    else:
        keys = arrays[1].tolist() if len(shape) == 1 else zip(*(a.tolist() for a in arrays[1:]), strict=True)
        made._dict = dict(zip(keys, list(arrays[0]), strict=True))
    made.maxprint = about["maxprint"]
    return made


def _empty(cls: Any, layout: str, shape: tuple[int, ...], dtype: Any, arrays: list[Any]) -> Any:
    if layout == "coo":  # of any number of dimensions
        return cls((np.empty(0, dtype), tuple(np.empty(0, np.int32) for _ in shape)), shape=shape)
    if layout == "bsr":
        return cls(shape, dtype=dtype, blocksize=arrays[0].shape[1:])
    if layout == "dia":
        return cls((np.empty((0, 0), dtype), np.empty(0, np.int32)), shape=shape)
    return cls(shape, dtype=dtype)
