# SPDX-License-Identifier: Apache-2.0
"""
What the codecs of gradient boosting libraries share: the model in the library's own format, and beside it
what only the Python object holds (parameters, classes, results on the evaluation set), as plain data.
"""

from __future__ import annotations

from typing import Any

from airflow_ml_provider.artifacts import preview
from airflow_ml_provider.artifacts.codecs.packed import StateReader, StateWriter, pack, unpack
from airflow_ml_provider.artifacts.codecs.registry import Encoded, Stored
from airflow_ml_provider.exceptions import ArtifactCorruptError, UnsupportedTypeError


def dump_model(
    value: Any,
    native: bytes | bytearray | None,
    state: dict[str, Any],
    *,
    library: str,
    schema: dict[str, Any],
    params: dict[str, Any],
) -> Encoded:
    """
    Lay out a model: the description, the native bytes, the arrays of the state.

    :param native: None for a model that was not fitted.
    :raises UnsupportedTypeError: if the state holds a function or another object.
    """
    name = type(value).__name__
    writer = StateWriter()
    try:
        tree = {key: writer.write(state[key], f"{key!r}") for key in sorted(state)}
    except UnsupportedTypeError as exc:
        raise UnsupportedTypeError(
            f"this {name} cannot be stored whole: {exc}. Set it to None before the model is returned, as in "
            "model.set_params(...=None), give it by a name that the library knows, or log the model with "
            "@task.train"
        ) from exc
    about = {"class": name, "fitted": native is not None, "state": tree}
    shown = {
        str(key): preview.cell(item)
        if isinstance(item, (str, int, float, bool))
        else f"<{type(item).__name__}>"
        for key, item in list(params.items())[:60]
        if item is not None and item == item  # noqa: PLR0124 - xgboost's missing is NaN
    }
    return Encoded(
        parts=pack(about, [[memoryview(native or b"")], *writer.parts]),
        schema={"class": f"{library}.{name}", **schema, "params": preview.fit(shown) or {}},
        preview=preview.short(f"{name}({', '.join(f'{key}={item}' for key, item in shown.items())})", 400),
        type=f"{library}.{name}",
    )


def load_model(
    data: memoryview, info: Stored, classes: dict[str, Any]
) -> tuple[Any, bytes | None, dict[str, Any]]:
    """Read what :func:`dump_model` laid out: the class, the native bytes and the state."""
    about, parts = unpack(data, f"the model {info.name!r}")
    if about["class"] not in classes:
        raise ArtifactCorruptError(f"{info.name!r} is a model of the unknown class {about['class']!r}")
    reader = StateReader(parts[1:])
    state = {key: reader.read(tree) for key, tree in about["state"].items()}
    return classes[about["class"]], bytes(parts[0]) if about["fitted"] else None, state
