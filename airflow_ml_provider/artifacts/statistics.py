# SPDX-License-Identifier: Apache-2.0
"""
Small statistics of a table's columns, made once when it is written, so that versions can be compared without
loading them: of each column of numbers, truth values or times how many are missing, the smallest, the
largest, and the mean.

They stand in the schema beside each column's type. Of a long table they are those of a sample: pieces of it
in even distances. The schema then says of how many rows.
"""

from __future__ import annotations

import fnmatch
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

log = logging.getLogger(__name__)

# A few milliseconds, whatever the table.
MAX_ROWS = 50_000
_PIECE = 1_000
MAX_COLUMNS = 50
SAMPLE = "statistics_rows"


def with_statistics(schema: Any, value: Any, masked: Sequence[str]) -> Any:
    """
    Return a schema with statistics of the columns that it names.

    :param value: The table: of pandas, pyarrow or polars. Others have none.
    :param masked: Glob patterns of columns whose values nobody may see in passing.
    """
    home = type(value).__module__.partition(".")[0]
    sample = {"pandas": _pandas, "pyarrow": _arrow, "polars": _polars}.get(home)
    columns = schema.get("columns") if isinstance(schema, Mapping) else None
    if sample is None or not isinstance(columns, list) or not hasattr(value, "shape"):
        return schema
    rows = value.shape[0]
    try:
        found = _described(columns, sample(value, _chosen(rows)), masked)
    except Exception:
        # They are for people; a table that none can be made of is a table still.
        log.warning("no statistics of a %s", type(value).__name__, exc_info=True)
        return schema
    if not any("nulls" in each for each in found):
        return schema
    return {**schema, "columns": found, **({} if rows <= MAX_ROWS else {SAMPLE: MAX_ROWS})}


def _chosen(rows: int) -> Any:
    """Return the positions of the sample; None: all rows. Pieces are read faster than rows one by one."""
    if rows <= MAX_ROWS:
        return None
    import numpy as np

    begins = np.linspace(0, rows - _PIECE, MAX_ROWS // _PIECE).astype("int64")
    return (begins[:, None] + np.arange(_PIECE)).ravel()


def _described(columns: list[Any], column_at: Callable[[int], Any], masked: Sequence[str]) -> list[Any]:
    found = []
    without: dict[str, Exception] = {}
    for place, column in enumerate(columns):
        name, told = str(column.get("name")), {}
        hidden = any(fnmatch.fnmatchcase(name.lower(), each.lower()) for each in masked)
        if not hidden and place < MAX_COLUMNS:
            try:
                told = _statistics(column_at(place))
            except Exception as exc:  # noqa: BLE001 - libraries lack some for types that few use
                without[name] = exc
        found.append({**column, **told})
    if without:
        why = next(iter(without.values()))
        log.info("no statistics of %s: %s: %s", ", ".join(map(repr, without)), type(why).__name__, why)
    return found


def _statistics(series: Any) -> dict[str, Any]:
    """Describe a pandas Series; nothing of one that has no order, or no mean."""
    import numpy as np
    from pandas.api import types

    kind = series.dtype
    if not _is_described(kind):
        return {}
    timely = types.is_datetime64_any_dtype(kind)
    if isinstance(kind, np.dtype) and kind.kind in "iufb":
        series = series.to_numpy()  # ten times as fast on a small table
        gone = np.isnan(series) if kind.kind == "f" else np.zeros(0, bool)
        missing = int(gone.sum())
        series = series[~gone] if missing else series
        left = len(series)
    else:
        missing = int(series.isna().sum())
        left = len(series) - missing
    told: dict[str, Any] = {"nulls": missing}
    if not left:
        return told
    with np.errstate(all="ignore"):  # endless values have no mean
        told["min"], told["max"] = _plain(series.min()), _plain(series.max())
        if not timely:
            told["mean"] = _plain(series.mean())
    return {name: value for name, value in told.items() if value is not None}


def _is_described(kind: Any) -> bool:
    from pandas.api import types

    if types.is_datetime64_any_dtype(kind):
        return True
    return types.is_numeric_dtype(kind) and not types.is_complex_dtype(kind)


def _plain(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, (bool, int)) and abs(value) < 2**63 else None


def _pandas(frame: Any, chosen: Any) -> Callable[[int], Any]:
    columns = [column for _, column in islice(frame.items(), MAX_COLUMNS)]

    def column(place: int) -> Any:
        found = columns[place]
        return found if chosen is None or not _is_described(found.dtype) else found.take(chosen)

    return column


def _arrow(table: Any, chosen: Any) -> Callable[[int], Any]:
    import pyarrow as pa

    def column(place: int) -> Any:
        found = table.column(place)
        if not pa.types.is_primitive(found.type):
            return _nothing()
        return (found if chosen is None else found.take(pa.array(chosen))).to_pandas()

    return column


def _polars(frame: Any, chosen: Any) -> Callable[[int], Any]:
    def column(place: int) -> Any:
        found = frame.to_series(place)
        if not (found.dtype.is_numeric() or found.dtype.is_temporal()):
            return _nothing()
        found = found.alias("")  # with a NUL in its name it panics
        return (found if chosen is None else found.gather(chosen)).to_arrow().to_pandas()

    return column


def _nothing() -> Any:
    import pandas as pd

    return pd.Series([], dtype=object)
