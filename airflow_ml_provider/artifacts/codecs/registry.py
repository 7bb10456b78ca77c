# SPDX-License-Identifier: Apache-2.0
"""
Which codec writes a type, and which reads a format.

Entries hold names, so a worker that never meets a data frame never imports pandas. A package adds its own
through the entry point group ``airflow_ml_provider.codecs``, each naming a :class:`CodecEntry`; they are
looked at only when a type or format is met that nobody here knows.
"""

from __future__ import annotations

import collections
import importlib
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from airflow_ml_provider.artifacts.envelope import check_format
from airflow_ml_provider.exceptions import UnsupportedFormatError, UnsupportedTypeError

ENTRY_POINT_GROUP = "airflow_ml_provider.codecs"


@dataclass(frozen=True)
class CodecEntry:
    """
    A format and the types it stores.

    The module has ``dump(value)``, which returns bytes or :class:`Encoded`, and ``load(data, info)``, which
    takes a ``memoryview`` and a :class:`Stored` and returns the value. Its ``dump`` gives the same bytes for
    the same value, so that equal content is stored once. A module with ``READS_FILES = True`` gets the path
    of a private local file in place of the ``memoryview``. A module with ``load_part(data, info, part)``,
    where ``part`` is a :class:`Part`, serves ``ArtifactRef.load(columns=..., rows=...)``.

    :param format: Stored beside the bytes, stable for ever, like ``arrow-v1``. A changed layout is a new
        format.
    :param type_names: ``module.qualname`` of exactly the types that it writes.
    :param module: Dotted path, imported on first use.
    :param base_type_names: Also writes subclasses of these.
    :param by_name_type_names: Stores these too, though another codec does by default, where the format is
        asked for by name.
    :param in_pieces: Format of values that its types store in pieces where they are large; its module has
        ``split(value)``, ``join(pieces, info, part)`` and ``whole(pieces, info)`` in place of ``dump`` and
        ``load``, see :mod:`airflow_ml_provider.artifacts.chunks`.
    :param suffix: How the name of a local copy of the bytes ends.
    :param runs_code: Reading it can run whatever code its writer chose, so it is written and read only where
        ``[ml_provider] allow_pickle`` is on, and its hash is always checked.
    :param or_pickle: Where pickle is allowed, values of these types that the codec refuses are pickled.
    """

    format: str
    type_names: tuple[str, ...]
    module: str
    base_type_names: tuple[str, ...] = ()
    by_name_type_names: tuple[str, ...] = ()
    in_pieces: str = ""
    suffix: str = ".bin"
    runs_code: bool = False
    or_pickle: bool = False

    def __post_init__(self) -> None:
        check_format(self.format)

    def load_module(self) -> ModuleType:
        """
        Import the codec.

        :raises UnsupportedFormatError: if the library that it needs is not installed.
        """
        try:
            return importlib.import_module(self.module)
        except ModuleNotFoundError as exc:
            missing = (exc.name or "").split(".")[0]
            if not missing or self.module.split(".")[0] == missing:
                raise
            package = {"sklearn": "scikit-learn", "PIL": "pillow"}.get(missing, missing)
            raise UnsupportedFormatError(
                f"the format {self.format!r} needs {missing!r}, which is not installed here; "
                f"run: pip install {package}"
            ) from exc


@dataclass
class Encoded:
    """
    A value as bytes.

    :param parts: Buffers to join, or a local file.
    :param schema: What the value looks like, as small JSON; the same on every write of the value.
    :param preview: Its beginning, as small JSON.
    :param type: Name of the value's type; found from the value if empty.
    :param temporary: The local file was made for this write, and is removed after it.
    :param needs: Dotted paths of classes that it can be read with only where ``allowed_classes`` names them.
    """

    parts: Sequence[memoryview] | Path
    schema: dict[str, Any] | None = None
    preview: Any = None
    type: str = ""
    temporary: bool = False
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stored:
    """
    What a codec may know of the bytes it reads. All of it was signed or is an option of the deployment.

    :param max_bytes: Content that unpacks to more bytes is refused before they are allocated.
    """

    name: str
    type: str
    schema: dict[str, Any] | None = None
    allowed_classes: tuple[str, ...] = field(default=())
    max_bytes: int | None = None


@dataclass(frozen=True)
class Part:
    """
    What of a table to read.

    :param columns: Labels in the order in which to return them; None for all.
    :param rows: Positions, without a step; None for all.
    """

    columns: list[Any] | None
    rows: slice | None


_CODECS = "airflow_ml_provider.artifacts.codecs"
_TABLES = (
    "pandas.DataFrame",
    "pandas.core.frame.DataFrame",  # pandas 2
    "pandas.Series",
    "pandas.core.series.Series",
    *(
        f"pandas{home}.{name}"
        for home, name in (
            ("", "Index"),
            ("", "RangeIndex"),
            ("", "MultiIndex"),
            ("", "CategoricalIndex"),
            ("", "DatetimeIndex"),
            ("", "TimedeltaIndex"),
            ("", "PeriodIndex"),
            ("", "IntervalIndex"),
            (".core.indexes.base", "Index"),
            (".core.indexes.range", "RangeIndex"),
            (".core.indexes.multi", "MultiIndex"),
            (".core.indexes.category", "CategoricalIndex"),
            (".core.indexes.datetimes", "DatetimeIndex"),
            (".core.indexes.timedeltas", "TimedeltaIndex"),
            (".core.indexes.period", "PeriodIndex"),
            (".core.indexes.interval", "IntervalIndex"),
        )
    ),
    "pyarrow.lib.Table",
    "pyarrow.lib.RecordBatch",
    "pyarrow.lib.ChunkedArray",
    "polars.dataframe.frame.DataFrame",
    "polars.series.series.Series",
    "polars.lazyframe.frame.LazyFrame",  # refused, with advice
)
_BUILT_IN = (
    CodecEntry("bytes-v1", ("builtins.bytes", "builtins.bytearray", "builtins.memoryview"), f"{_CODECS}.raw"),
    CodecEntry("json-v1", (), f"{_CODECS}.jsontext", suffix=".json"),
    CodecEntry("tree-v1", (), f"{_CODECS}.jsontext", suffix=".json"),
    CodecEntry(
        "arrow-v1",
        _TABLES,
        f"{_CODECS}.arrow",
        in_pieces="arrow-chunks-v1",
        base_type_names=("pyarrow.lib.Array",),
        suffix=".arrow",
        or_pickle=True,
    ),
    CodecEntry("arrow-chunks-v1", (), f"{_CODECS}.arrow_chunks", by_name_type_names=_TABLES, suffix=".arrow"),
    CodecEntry(
        "parquet-v1",
        (),
        f"{_CODECS}.parquet",
        by_name_type_names=(
            "pandas.DataFrame",
            "pandas.core.frame.DataFrame",
            "pandas.Series",
            "pandas.core.series.Series",
            "pyarrow.lib.Table",
            "pyarrow.lib.RecordBatch",
            "polars.dataframe.frame.DataFrame",
            "polars.series.series.Series",
        ),
        suffix=".parquet",
    ),
    CodecEntry("npy-v1", ("numpy.ndarray",), f"{_CODECS}.npy", suffix=".npy", or_pickle=True),
    CodecEntry(
        "scipy-sparse-v1",
        tuple(
            f"scipy.sparse._{layout}.{layout}_{kind}"
            for layout in ("csr", "csc", "coo", "bsr", "dia", "lil", "dok")
            for kind in ("matrix", "array")
        ),
        f"{_CODECS}.sparse",
        or_pickle=True,
    ),
    CodecEntry(
        "xgboost-v1",
        (
            "xgboost.core.Booster",
            *(
                f"xgboost.sklearn.XGB{name}"
                for name in ("Model", "Classifier", "Regressor", "Ranker", "RFClassifier", "RFRegressor")
            ),
        ),
        f"{_CODECS}.xgboost",
        or_pickle=True,
    ),
    CodecEntry(
        "lightgbm-v1",
        (
            "lightgbm.basic.Booster",
            *(f"lightgbm.sklearn.LGBM{name}" for name in ("Model", "Classifier", "Regressor", "Ranker")),
        ),
        f"{_CODECS}.lightgbm",
        or_pickle=True,
    ),
    CodecEntry(
        "catboost-v1",
        tuple(f"catboost.core.CatBoost{name}" for name in ("", "Classifier", "Regressor", "Ranker")),
        f"{_CODECS}.catboost",
        or_pickle=True,
    ),
    CodecEntry(
        "safetensors-v1",
        ("torch.Tensor", "torch.nn.parameter.Parameter"),
        f"{_CODECS}.tensors",
        base_type_names=("torch.nn.modules.module.Module",),  # which it refuses, with advice
        by_name_type_names=("builtins.dict", "collections.OrderedDict"),
        suffix=".safetensors",
        or_pickle=True,
    ),
    CodecEntry(
        "image-v1",
        ("PIL.Image.Image",),
        f"{_CODECS}.images",
        base_type_names=("PIL.Image.Image",),  # files that were opened; it refuses them, with advice
        suffix=".png",
        or_pickle=True,
    ),
    CodecEntry(
        "matplotlib-png-v1",
        ("matplotlib.figure.Figure",),
        f"{_CODECS}.pictures",
        # Parts of a figure are refused, with advice.
        base_type_names=("matplotlib.figure.FigureBase", "matplotlib.axes._base._AxesBase"),
        suffix=".png",
        or_pickle=True,
    ),
    CodecEntry(
        "plotly-v1",
        ("plotly.graph_objs._figure.Figure",),
        f"{_CODECS}.plotly",
        suffix=".json",
        or_pickle=True,
    ),
    CodecEntry(
        "file-v1",
        ("pathlib.PosixPath", "pathlib._local.PosixPath"),  # Python 3.13
        f"{_CODECS}.files",
    ),
    CodecEntry("directory-v1", (), f"{_CODECS}.directories", suffix=".tar"),
    CodecEntry(
        "skops-v1",
        (),
        f"{_CODECS}.skops",
        base_type_names=("sklearn.base.BaseEstimator",),
        suffix=".skops.zst",
        or_pickle=True,
    ),
    CodecEntry("pickle-v1", (), f"{_CODECS}.pickled", suffix=".pickle5", runs_code=True),
)

_lock = threading.Lock()
_by_format: dict[str, CodecEntry] = {}
_by_type: dict[str, CodecEntry] = {}
_by_base: dict[str, CodecEntry] = {}
_plugins_read = False


def register_codec(entry: CodecEntry) -> None:
    """
    Add a codec to this process.

    :raises ValueError: if another one has the format, or writes one of the types.
    """
    with _lock:
        _add(entry)


def _add(entry: CodecEntry) -> None:
    if _by_format.get(entry.format) == entry:
        return
    if entry.format in _by_format:
        raise ValueError(f"the format {entry.format!r} is taken by {_by_format[entry.format].module}")
    for table, names in ((_by_type, entry.type_names), (_by_base, entry.base_type_names)):
        for name in names:
            if name in table:
                raise ValueError(f"{name} is written by the codec of {table[name].format!r} already")
    _by_format[entry.format] = entry
    _by_type.update(dict.fromkeys(entry.type_names, entry))
    _by_base.update(dict.fromkeys(entry.base_type_names, entry))


for _entry in _BUILT_IN:
    _add(_entry)


def _read_plugins() -> bool:
    """Add the codecs of other packages; False if that was done before."""
    global _plugins_read  # noqa: PLW0603
    with _lock:
        if _plugins_read:
            return False
        from importlib.metadata import entry_points

        for point in entry_points(group=ENTRY_POINT_GROUP):
            found = point.load()
            for entry in found if isinstance(found, (list, tuple)) else [found]:
                if not isinstance(entry, CodecEntry):
                    raise TypeError(f"entry point {point.value!r} of {ENTRY_POINT_GROUP} names no CodecEntry")
                _add(entry)
        _plugins_read = True
        return True


def type_name(value_type: type) -> str:
    return f"{value_type.__module__}.{value_type.__qualname__}"


def _find(value_type: type) -> CodecEntry | None:
    if found := _by_type.get(type_name(value_type)):
        return found
    for base in value_type.__mro__[1:]:
        if found := _by_base.get(type_name(base)):
            return found
    return None


def codec_for(value: Any, *, look_further: bool = True) -> CodecEntry | None:
    """
    Find the codec that writes a value of exactly this type.

    :param look_further: Ask other packages if no codec here writes it.
    """
    found = _find(type(value))
    if found is None and look_further and _read_plugins():
        found = _find(type(value))
    return found


def codec_of_dict(value: dict[Any, Any]) -> CodecEntry | None:
    """Find the codec that stores a dict whole, if it is a state dict of PyTorch: names and tensors only."""
    torch = sys.modules.get("torch")
    if torch is None or not value or type(value) not in (dict, collections.OrderedDict):
        return None
    kinds = (getattr(torch, "Tensor", None), torch.nn.Parameter if hasattr(torch, "nn") else None)
    if all(type(item) in kinds for item in value.values()) and all(type(name) is str for name in value):
        return _by_format["safetensors-v1"]
    return None


def codec_of(format: str) -> CodecEntry:
    """
    Find the codec of a format.

    :raises UnsupportedFormatError: if nobody registered it.
    """
    if format not in _by_format:
        _read_plugins()
    if format not in _by_format:
        raise UnsupportedFormatError(
            f"no codec has the format {format!r}; known formats: {', '.join(sorted(_by_format))}. "
            "Install the package that brings it, or a newer airflow-ml-provider"
        )
    return _by_format[format]


def codec_named(format: str) -> CodecEntry:
    """
    Find the codec of a format by its name, ``arrow-v1``, or by the name without its version: the newest.

    :raises UnsupportedFormatError: if nobody registered it.
    """
    versions = _versions(format)
    if not versions and format not in _by_format and _read_plugins():
        versions = _versions(format)
    return versions[max(versions)] if versions else codec_of(format)


def _versions(short: str) -> dict[int, CodecEntry]:
    found = {}
    for format, entry in _by_format.items():
        name, _, version = format.rpartition("-v")
        if name == short:
            found[int(version)] = entry
    return found


def writes(entry: CodecEntry, value: Any) -> bool:
    """Tell whether a codec stores values of this type; one that names no types decides when it is asked."""
    exactly = entry.type_names + entry.by_name_type_names
    if not exactly and not entry.base_type_names:
        return True
    names = [type_name(base) for base in type(value).__mro__]
    return names[0] in exactly or any(name in entry.base_type_names for name in names)


def refuse(value: Any, where: str) -> UnsupportedTypeError:
    """Say that no codec writes ``value``, and what to do."""
    return UnsupportedTypeError(
        f"no codec writes {type_name(type(value))} ({where}). Either return another type: a DataFrame, an "
        "array, an estimator, a dataclass, plain JSON, or the pathlib.Path of a file that holds it; or "
        "register a codec: airflow_ml_provider.artifacts.codecs.registry.register_codec, or the entry point "
        f"group {ENTRY_POINT_GROUP}; or allow pickle, which lets whoever can write to the store run code "
        "in your tasks: [ml_provider] allow_pickle = True"
    )


_PUBLIC_HOMES = ("pandas", "pyarrow", "pathlib", "xgboost", "lightgbm", "catboost")
_PUBLIC_NAMES = {
    "torch.nn.parameter.Parameter": "torch.nn.Parameter",
    "plotly.graph_objs._figure.Figure": "plotly.graph_objects.Figure",
}


def public_type_name(value_type: type) -> str:
    """Name a type as users do: ``pandas.DataFrame`` in any release of pandas, ``dict`` without its module."""
    home = value_type.__module__.split(".")[0]
    if home == "builtins":
        return value_type.__qualname__
    if home == "pathlib":
        return "pathlib.Path"
    if value_type.__module__.startswith("scipy.sparse."):
        return f"scipy.sparse.{value_type.__qualname__}"
    if name := _PUBLIC_NAMES.get(type_name(value_type)):
        return name
    if home in _PUBLIC_HOMES:
        return f"{home}.{value_type.__qualname__}"
    return type_name(value_type)
