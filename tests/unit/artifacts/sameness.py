# SPDX-License-Identifier: Apache-2.0
"""Whether two values are the same in type and content, NaN and all."""

from __future__ import annotations

import dataclasses
import struct
from typing import Any

import numpy as np
import pandas as pd


def same(left: Any, right: Any) -> bool:  # noqa: PLR0911, PLR0912 - one for each type
    if type(left) is not type(right):
        return False
    if left is right or type(left) is int:
        return left is right or bool(left == right)
    if isinstance(left, pd.DataFrame):
        pd.testing.assert_frame_equal(
            left, right, check_exact=True, check_freq=True, check_column_type="exact"
        )
        return left.attrs == right.attrs and left.flags == right.flags
    if isinstance(left, pd.Series):
        pd.testing.assert_series_equal(left, right, check_exact=True, check_freq=True)
        return left.attrs == right.attrs
    if isinstance(left, pd.Index):
        pd.testing.assert_index_equal(left, right, exact=True)
        return left.names == right.names
    if isinstance(left, np.ndarray):
        return (
            left.dtype == right.dtype
            and left.shape == right.shape
            # Strided memory becomes contiguous; an order that there was is kept.
            and (not left.flags.forc or left.flags.f_contiguous == right.flags.f_contiguous)
            and right.flags.writeable
            and left.tobytes() == right.tobytes()
        )
    if isinstance(left, np.generic):
        return left.dtype == right.dtype and left.tobytes() == right.tobytes()
    if type(left) is float:
        return struct.pack("d", left) == struct.pack("d", right) or (left != left and right != right)  # noqa: PLR0124
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if dataclasses.is_dataclass(left):
        return all(same(getattr(left, f.name), getattr(right, f.name)) for f in dataclasses.fields(left))
    if hasattr(left, "tzinfo"):
        return left == right and repr(left) == repr(right) and left.fold == right.fold
    if left != left:  # noqa: PLR0124
        return repr(left) == repr(right)
    return bool(left == right) and (isinstance(left, (set, frozenset)) or repr(left) == repr(right))
