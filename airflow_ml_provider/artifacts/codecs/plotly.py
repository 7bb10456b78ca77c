# SPDX-License-Identifier: Apache-2.0
"""
``plotly-v1``: a figure of plotly as the JSON that plotly writes, which its other readers open too.

That JSON has numbers of the smallest fitting type, and text for dates. What it does not say exactly stands
under ``airflow_ml_provider``, by its place in the figure: the dtype of an array, or the value itself.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import numpy as np  # noqa: TID253 - this module is imported on first use
import plotly.graph_objects as go  # noqa: TID253
from plotly._subplots import SubplotRef  # noqa: TID253 - the cells of make_subplots()

from airflow_ml_provider.artifacts import preview
from airflow_ml_provider.artifacts.codecs.packed import StateReader, StateWriter
from airflow_ml_provider.artifacts.codecs.registry import Encoded
from airflow_ml_provider.exceptions import ArtifactCorruptError, UnsupportedTypeError

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.codecs.registry import Stored

_KEY = "airflow_ml_provider"


def dump(value: Any) -> Encoded:
    raw = _sorted(_raw(value))
    plain = _sorted({"frames": [], **json.loads(value.to_json(engine="json"))})
    writer = StateWriter()
    exact = {
        "fixes": _fixes(raw, plain, "figure", writer),
        "grid": _grid(value),
        "text": value._grid_str,
    }
    exact["arrays"] = [base64.b64encode(b"".join(part)).decode("ascii") for part in writer.parts]
    content = json.dumps({**plain, _KEY: exact}, separators=(",", ":")).encode("ascii")
    if _state(_sorted(_raw(_figure(content)))) != _state(raw):
        raise UnsupportedTypeError(
            "this figure would come back from plotly's JSON as another one; return figure.to_json(), "
            "which is text"
        )
    types = [trace.type for trace in value.data]
    return Encoded(
        parts=[memoryview(content)],
        schema={"traces": len(types), "types": sorted(set(types))[:20], "frames": len(value.frames)},
        preview=preview.short(value.layout.title.text) if isinstance(value.layout.title.text, str) else None,
        type="plotly.graph_objects.Figure",
    )


def load(data: memoryview, info: Stored) -> Any:
    try:
        return _figure(bytes(data))
    except (ValueError, KeyError, TypeError) as exc:
        raise ArtifactCorruptError(f"{info.name!r} is no figure that this store wrote: {exc}") from exc


def _raw(figure: Any) -> dict[str, Any]:
    """The properties of a figure, arrays and all."""
    return {
        "data": [trace.to_plotly_json() for trace in figure.data],
        "layout": figure.layout.to_plotly_json(),
        "frames": [frame.to_plotly_json() for frame in figure.frames],
    }


def _sorted(tree: Any) -> Any:
    """The order of properties depends on how the figure was made, and means nothing."""
    if type(tree) is dict:
        return {key: _sorted(tree[key]) for key in sorted(tree)}
    return [_sorted(item) for item in tree] if type(tree) is list else tree


def _state(raw: dict[str, Any]) -> Any:
    writer = StateWriter()
    return writer.write(raw, "figure"), [b"".join(part) for part in writer.parts]


def _grid(figure: Any) -> Any:
    if figure._grid_ref is None:
        return None
    return [
        [None if cell is None else [[ref[0], list(ref[1]), dict(ref[2])] for ref in cell] for cell in row]
        for row in figure._grid_ref
    ]


def _fixes(raw: Any, plain: Any, where: str, writer: StateWriter) -> Any:
    """What turns ``plain`` into ``raw``; None if it is the same."""
    if type(raw) is type(plain) is dict and list(raw) == list(plain):
        found = {key: _fixes(raw[key], plain[key], f"{where}[{key!r}]", writer) for key in raw}
        found = {key: fix for key, fix in found.items() if fix is not None}
        return ["in", list(found.items())] if found else None
    if type(raw) is type(plain) is list and len(raw) == len(plain):
        both = enumerate(zip(raw, plain, strict=True))
        fixes = [_fixes(old, new, f"{where}[{place}]", writer) for place, (old, new) in both]
        known = [[place, fix] for place, fix in enumerate(fixes) if fix is not None]
        return ["in", known] if known else None
    if type(raw) in (str, bool, int, type(None)) and type(raw) is type(plain) and raw == plain:
        return None
    if type(raw) is type(plain) is float and repr(raw) == repr(plain):
        return None
    if isinstance(raw, np.ndarray) and _is_packed(plain):
        cast = _unpacked(plain).astype(raw.dtype)
        if cast.shape == raw.shape and cast.tobytes() == raw.tobytes():
            return ["cast", raw.dtype.str]
    return ["state", writer.write(raw, where)]


def _is_packed(plain: Any) -> bool:
    return type(plain) is dict and {"dtype", "bdata"} <= set(plain) <= {"dtype", "bdata", "shape"}


def _unpacked(plain: dict[str, Any]) -> Any:
    array = np.frombuffer(base64.b64decode(plain["bdata"]), dtype=np.dtype(plain["dtype"]).newbyteorder("<"))
    shape = plain.get("shape")
    return array.reshape([int(size) for size in str(shape).split(",")]) if shape is not None else array


def _mended(plain: Any, fix: Any, reader: StateReader) -> Any:
    if fix is None:
        return plain
    kind, about = fix
    if kind == "cast":
        return _unpacked(plain).astype(np.dtype(about))
    if kind == "state":
        return reader.read(about)
    for place, further in about:
        plain[place] = _mended(plain[place], further, reader)
    return plain


def _cell(refs: Any) -> Any:
    return None if refs is None else tuple(SubplotRef(ref[0], tuple(ref[1]), ref[2]) for ref in refs)


def _figure(content: bytes) -> Any:
    plain = json.loads(content)
    exact = plain.pop(_KEY)
    reader = StateReader([memoryview(base64.b64decode(text)) for text in exact["arrays"]])
    raw = _mended(plain, exact["fixes"], reader)
    if exact["grid"] is not None:
        raw["_grid_ref"] = [[_cell(cell) for cell in row] for row in exact["grid"]]
        raw["_grid_str"] = exact["text"]
    has_template = "template" in raw["layout"]
    figure = go.Figure(raw)
    if not has_template:
        figure.layout.template = None  # the default one, which plotly puts in
    return figure
