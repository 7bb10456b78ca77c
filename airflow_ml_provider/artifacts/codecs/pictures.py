# SPDX-License-Identifier: Apache-2.0
"""
``matplotlib-png-v1``: the picture that a figure of matplotlib makes, as a PNG file.

A figure is drawing code with state and has no file of its own, so this is the one format that gives back
something else than was written: a ``PIL.Image.Image`` of what ``Figure.savefig`` draws.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from PIL import PngImagePlugin  # noqa: TID253 - this module is imported on first use

from airflow_ml_provider.artifacts import preview
from airflow_ml_provider.artifacts.codecs.registry import Encoded, type_name
from airflow_ml_provider.artifacts.unpacking import UNPACKED, check_unpacked
from airflow_ml_provider.exceptions import ArtifactCorruptError, UnsupportedTypeError

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.codecs.registry import Stored


def dump(value: Any) -> Encoded:
    # Reading does without it.
    from matplotlib.figure import Figure

    if not isinstance(value, Figure):
        raise UnsupportedTypeError(
            f"a {type_name(type(value))} is a part of a figure; return the figure, axes.figure, and its "
            "picture is stored"
        )
    file = io.BytesIO()
    try:
        # The release of matplotlib is left out, so that equal pictures are stored once.
        value.savefig(file, format="png", metadata={"Software": None})
    except Exception as exc:
        raise UnsupportedTypeError(f"matplotlib cannot draw this figure: {exc}") from exc
    size = PngImagePlugin.PngImageFile(io.BytesIO(file.getbuffer())).size
    titles = [axes.get_title() for axes in value.axes if axes.get_title()]
    return Encoded(
        parts=[file.getbuffer()],
        schema={"size": list(size), "axes": len(value.axes), UNPACKED: size[0] * size[1] * 4},
        preview=preview.fit([preview.short(title) for title in titles[:10]]),
        type="matplotlib.figure.Figure",
    )


def load(data: memoryview, info: Stored) -> Any:
    try:
        found = PngImagePlugin.PngImageFile(io.BytesIO(data))
        check_unpacked(found.width * found.height * 4, info)
        return found.copy()
    except (SyntaxError, OSError) as exc:
        raise ArtifactCorruptError(f"{info.name!r} is no PNG file") from exc
