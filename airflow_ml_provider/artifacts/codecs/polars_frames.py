# SPDX-License-Identifier: Apache-2.0
"""
polars frames and series as Arrow columns, and back, exactly.

polars writes Arrow itself; the description beside it holds each dtype, for Arrow does not tell a categorical
from an enumeration, or one categories object from another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl  # noqa: TID253 - this module is imported on first use
import pyarrow as pa  # noqa: TID253

from airflow_ml_provider.artifacts import preview
from airflow_ml_provider.exceptions import ArtifactCorruptError, UnsupportedFormatError, UnsupportedTypeError

Described = dict[str, Any]

_MAX_SCHEMA_COLUMNS = 200
# Arrow has no integers of 128 bits: they are stored as text.
_AS_TEXT = ("Int128", "UInt128")
_NUMBERS = tuple(f"{sign}Int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64, 128))
_PLAIN = (*_NUMBERS, "Float16", "Float32", "Float64", "Boolean", "String", "Binary", "Date", "Time", "Null")


def to_arrow(value: Any) -> tuple[pa.Table, Described, dict[str, Any], Any]:
    """
    Return the columns, the description of the rest, and the schema and preview for people.

    :raises UnsupportedTypeError: if a column cannot be carried exactly; names it.
    """
    if isinstance(value, pl.LazyFrame):
        raise UnsupportedTypeError(
            "a polars.LazyFrame is a plan and no data; call .collect() and return the DataFrame, or return "
            "the pathlib.Path of a file that .sink_parquet() wrote"
        )
    if isinstance(value, pl.Series):
        array, dtype = _turn(value, f"the series {value.name!r}")
        described: Described = {"kind": "polars-series", "name": value.name, "dtypes": [dtype]}
        schema: dict[str, Any] = {
            "type": preview.short(str(value.dtype)),
            "rows": len(value),
            "name": preview.short(value.name),
        }
        shown = preview.fit(_cells(value))
        return pa.table({value.name or "values": array}), described, schema, shown
    arrays, dtypes = [], []
    for series in value.get_columns():
        array, dtype = _turn(series, f"the column {series.name!r}")
        arrays.append(array)
        dtypes.append(dtype)
    described = {"kind": "polars-frame", "dtypes": dtypes, "height": value.height}
    schema = {
        "columns": [
            {"name": preview.short(name), "type": preview.short(str(dtype))}
            for name, dtype in list(value.schema.items())[:_MAX_SCHEMA_COLUMNS]
        ],
        "rows": value.height,
    }
    if value.width > _MAX_SCHEMA_COLUMNS:
        schema["column_count"] = value.width
    return pa.Table.from_arrays(arrays, names=value.columns), described, schema, _preview(value)


def from_arrow(table: pa.Table, described: Described, wanted: Sequence[int] | None = None) -> Any:
    """
    Return what :func:`to_arrow` was given, or the columns at these positions of it, which ``table`` holds.

    :raises UnsupportedFormatError: if this polars has no such dtype.
    """
    dtypes = described["dtypes"]
    if wanted is not None:
        dtypes = [dtypes[position] for position in wanted]
    made = [
        _restore(name, column, _dtype_from(dtype))
        for name, column, dtype in zip(table.column_names, table.columns, dtypes, strict=True)
    ]
    if described["kind"] == "polars-series":
        return made[0].alias(described["name"])
    return pl.DataFrame({series.name: series for series in made})


def nothing(height: int, rows: slice | None) -> pl.DataFrame:
    """So many rows of a frame without a column."""
    return pl.DataFrame(height=len(range(height)[rows or slice(None)]))


def _turn(series: pl.Series, where: str) -> tuple[pa.Array, Any]:
    dtype = _dtype_to(series.dtype, where)
    try:
        # Without its name, which polars gives to Arrow as text that ends at a NUL.
        array = (series.cast(pl.String) if dtype in _AS_TEXT else series).alias("").to_arrow()
        exact = _surely(series.dtype) or _restore(
            series.name, pa.chunked_array([array]), series.dtype
        ).equals(series, check_dtypes=True, check_names=True, null_equal=True)
    except (
        pa.ArrowException,
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
        UnsupportedFormatError,
        ValueError,
    ) as exc:
        raise UnsupportedTypeError(
            f"{where} of dtype {series.dtype} cannot be stored exactly: {exc}"
        ) from exc
    if not exact:
        raise UnsupportedTypeError(
            f"{where} of dtype {series.dtype} would come back differently; convert it with .cast(...)"
        )
    return array, dtype


def _surely(dtype: Any, *, arrays: bool = True) -> bool:
    """Tell whether every column of this dtype comes back as it was."""
    if isinstance(dtype, pl.List) or (arrays and isinstance(dtype, pl.Array)):
        return _surely(dtype.inner, arrays=arrays)
    if isinstance(dtype, pl.Struct):
        return all(_surely(field.dtype, arrays=arrays) for field in dtype.fields)
    return isinstance(dtype, (pl.Datetime, pl.Duration, pl.Decimal)) or type(dtype).__name__ in _PLAIN


def _restore(name: str, column: pa.ChunkedArray, dtype: Any) -> pl.Series:
    if column.num_chunks != 1:
        column = column.combine_chunks()
    elif not _surely(dtype, arrays=False) and _is_cut(column.chunk(0)):
        # polars reads no arrays that are a part of their buffers, and Arrow takes the wrong rows of those.
        column = pa.concat_arrays([column.chunk(0), column.chunk(0)[:0]])
    made = pl.Series(name, column)
    if made.dtype != dtype:
        made = made.cast(dtype)
    if made.dtype != dtype:
        raise UnsupportedFormatError(
            f"the column {name!r} of dtype {dtype} comes back as {made.dtype} in polars {pl.__version__}"
        )
    return made


def _is_cut(array: pa.Array) -> bool:
    return bool(array.offset or array.nbytes < array.get_total_buffer_size())


def _dtype_to(dtype: Any, where: str) -> Any:  # noqa: PLR0911 - one for each kind
    """A dtype as JSON: its name, or its name and what it is made of."""
    name = type(dtype).__name__
    if name in _PLAIN:
        return name
    if isinstance(dtype, pl.Datetime):
        return [name, dtype.time_unit, dtype.time_zone]
    if isinstance(dtype, pl.Duration):
        return [name, dtype.time_unit]
    if isinstance(dtype, pl.Decimal):
        return [name, dtype.precision, dtype.scale]
    if isinstance(dtype, pl.List):
        return [name, _dtype_to(dtype.inner, where)]
    if isinstance(dtype, pl.Array) and dtype.size:  # those of no width polars does not read
        return [name, _dtype_to(dtype.inner, where), dtype.size]
    if isinstance(dtype, pl.Struct):
        return [name, [[field.name, _dtype_to(field.dtype, where)] for field in dtype.fields]]
    if isinstance(dtype, pl.Enum):
        return [name, dtype.categories.to_list()]
    if isinstance(dtype, pl.Categorical):
        own = getattr(dtype, "categories", None)  # polars 1.31 has one for all
        if own is None or own.is_global():
            return [name]
        return [name, own.name(), own.namespace(), own.physical().__name__]
    raise UnsupportedTypeError(
        f"{where} has the dtype {dtype}, which cannot be stored exactly; convert it with .cast(...)"
    )


def _dtype_from(described: Any) -> Any:
    parts: list[Any]
    name, *parts = [described] if isinstance(described, str) else described
    known = getattr(pl, name, None)
    if known is None:
        raise UnsupportedFormatError(f"polars {pl.__version__} has no dtype {name}; install a newer one")
    if name in _PLAIN:
        return known()
    if name == "List":
        return pl.List(_dtype_from(parts[0]))
    if name == "Array":
        return pl.Array(_dtype_from(parts[0]), parts[1])
    if name == "Struct":
        return pl.Struct([pl.Field(label, _dtype_from(inner)) for label, inner in parts[0]])
    if name == "Categorical" and parts:
        return known(pl.Categories(parts[0], parts[1], getattr(pl, parts[2])))
    if name in ("Categorical", "Enum", "Datetime", "Duration", "Decimal"):
        return known(*parts)
    raise ArtifactCorruptError(f"a column of the unknown polars dtype {name!r}")


def _preview(frame: pl.DataFrame) -> Any:
    names = [preview.short(name) for name in frame.columns[: preview.MAX_COLUMNS]]
    columns = [_cells(series) for series in frame.get_columns()[: preview.MAX_COLUMNS]]
    return preview.fit([dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)])


def _cells(series: pl.Series) -> list[Any]:
    found: list[Any] = []
    for number in range(min(len(series), preview.MAX_ROWS)):
        try:
            item = series[number]
            found.append(preview.cell(item.to_list() if isinstance(item, pl.Series) else item))
        except (Exception, pl.exceptions.PanicException):  # noqa: BLE001 - such as the year 144169
            found.append(f"<{preview.short(str(series.dtype))}>")
    return found
