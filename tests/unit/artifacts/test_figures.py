# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import io
import json
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io
import pytest
from matplotlib.figure import Figure
from PIL import Image, PngImagePlugin
from plotly.subplots import make_subplots

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.digest import digest_of
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import ArtifactCorruptError, UnsupportedTypeError
from tests.unit.artifacts.sameness import same


def drawing(**options: Any) -> Figure:
    figure = Figure(figsize=(3, 2), dpi=50, **options)
    figure.add_subplot().plot([1, 3, 2])
    figure.axes[0].set_title("loss é")
    return figure


def test_a_figure_of_matplotlib_comes_back_as_its_picture(store: ArtifactStore) -> None:
    figure = drawing(facecolor="yellow")
    ref = store.save(figure, "task")

    back = store.load(ref)

    file = io.BytesIO()
    figure.savefig(file, format="png")
    with Image.open(file) as expected:
        assert type(back) is Image.Image
        assert (back.mode, back.size, back.tobytes()) == ("RGBA", (150, 100), expected.tobytes())
    assert (ref.type, ref.format) == ("matplotlib.figure.Figure", "matplotlib-png-v1")
    assert ref.schema == {"size": [150, 100], "axes": 1, "unpacked_bytes": 60_000}
    assert ref.preview == ["loss é"]
    assert store.path(ref).suffix == ".png"


def test_equal_drawings_have_equal_bytes_that_name_no_release_and_no_time(store: ArtifactStore) -> None:
    ref = store.save(drawing(), "task")
    stored = bytes(store.objects.get(keys.blob_key(ref.digest)))

    assert store.save(drawing(), "task").digest == ref.digest
    assert matplotlib.__version__.encode() not in stored
    assert b"tEXt" not in stored
    assert b"tIME" not in stored


def test_drawing_for_the_store_leaves_the_figure_as_it_was(store: ArtifactStore) -> None:
    figure = drawing()
    before = (figure.canvas, figure.dpi, figure.get_facecolor())

    store.save(figure, "task")

    assert (figure.canvas, figure.dpi, figure.get_facecolor()) == before


def test_a_part_of_a_figure_is_refused_with_advice(store: ArtifactStore) -> None:
    with pytest.raises(UnsupportedTypeError, match=r"Axes is a part of a figure.*axes\.figure"):
        store.save(drawing().axes[0], "task")


def test_a_figure_that_cannot_be_drawn_is_refused(store: ArtifactStore) -> None:
    figure = drawing()
    figure.axes[0].set_title("$\\nonsense$")

    with pytest.raises(UnsupportedTypeError, match=r"(?s)cannot draw.*nonsense"):
        store.save(figure, "task")


def test_a_picture_larger_than_was_signed_is_refused_before_it_is_decoded(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = store.save(drawing(), "task")
    file = io.BytesIO()
    Image.new("RGBA", (2000, 2000)).save(file, "PNG")
    digest = digest_of([file.getbuffer()])
    store.objects.put(keys.blob_key(digest), file.getvalue())
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", None)

    with pytest.raises(ArtifactCorruptError, match="16,000,000 bytes"):
        store.load(dataclasses.replace(ref, digest=digest, size_bytes=len(file.getvalue())))


DAYS = pd.date_range("2020-01-30", periods=3)


def everything() -> Any:
    return go.Figure(
        [
            go.Scatter(x=DAYS, y=np.array([1, 2, 2**40])),
            go.Scatter(x=DAYS.tz_localize("Europe/Berlin"), y=pd.Series([1, 2, 3], dtype="Int64")),
            go.Scatter(x=np.array(["2020", "NaT"], "M8[s]"), y=[float("nan"), None], text=["a", "é"]),
            go.Scatter(x=[dt.datetime(2020, 1, 1), pd.Timestamp("2021")], y=(1, 2.5)),
            go.Bar(
                x=pd.Categorical(["a", "b"]),
                y=np.array([1, 2], "f4"),
                marker={"color": np.array([1, 0], "u1")},
            ),
            go.Heatmap(z=np.arange(6.0).reshape(2, 3), x=[decimal.Decimal("1.10"), 2, 3]),
            go.Scatter(customdata=np.array([["a", 1], [None, 2.5]], dtype=object), y=np.array([True, False])),
        ],
        layout={
            "title": "loss é",
            "shapes": [{"type": "line", "x0": pd.Timestamp("2020"), "x1": dt.date(2020, 1, 2)}],
        },
    )


def subplots() -> Any:
    made = make_subplots(
        2, 2, specs=[[{}, {"type": "polar"}], [{"secondary_y": True}, None]], subplot_titles=["a"]
    )
    made.add_trace(go.Scatter(y=[1, 2]), row=2, col=1, secondary_y=True)
    return made


def animated() -> Any:
    frames = [go.Frame(data=[go.Scatter(y=np.arange(n))], name=str(n), traces=[0]) for n in (1, 2)]
    return go.Figure(data=[go.Scatter(y=[0])], frames=frames)


def without_template() -> Any:
    made = go.Figure(go.Scatter(y=[1, 2]))
    made.layout.template = None
    return made


FIGURES = {
    "everything": everything,
    "subplots": subplots,
    "animated": animated,
    "empty": go.Figure,
    "without a template": without_template,
    "with another template": lambda: go.Figure(go.Pie(values=[1, 2]), layout={"template": "plotly_dark"}),
    "with the empty template": lambda: go.Figure(layout_template="none"),
    "keys in another order": lambda: go.Figure(
        {"layout": {"width": 3e2, "height": 200}, "data": [{"y": [1], "type": "bar", "x": [2]}]}
    ),
}


def insides(figure: Any) -> Any:
    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.dtype == object:
            return ["object", value.shape, *value.ravel().tolist()]
        if isinstance(value, dict):
            return {key: plain(value[key]) for key in sorted(value)}
        return [plain(item) for item in value] if type(value) is list else value

    traces = [plain(part.to_plotly_json()) for part in (*figure.data, figure.layout, *figure.frames)]
    return [*traces, str(figure._grid_ref), figure._grid_str]


def writable(value: Any) -> Any:
    """plotly's arrays are read-only on both sides."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return {key: writable(item) for key, item in value.items()}
    return [writable(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("make", FIGURES.values(), ids=FIGURES.keys())
def test_a_figure_of_plotly_comes_back_equal(store: ArtifactStore, make: Any) -> None:
    value = make()
    ref = store.save(value, "task")

    back = store.load(ref)

    assert type(back) is go.Figure
    assert back == value or value != make()  # plotly finds no figure with NaN equal to another
    assert same(writable(insides(back)), writable(insides(value)))
    assert store.save(make(), "task").digest == store.save(back, "task").digest == ref.digest
    assert ref.format == "plotly-v1"
    assert ref.type == "plotly.graph_objects.Figure"
    assert ref.schema["traces"] == len(value.data)


def test_a_figure_of_plotly_can_be_added_to_where_it_was_divided(store: ArtifactStore) -> None:
    back = store.load(store.save(subplots(), "task"))

    back.add_trace(go.Barpolar(r=[1]), row=1, col=2)

    assert len(back.data) == 2


def test_plotly_itself_reads_what_is_stored(store: ArtifactStore) -> None:
    ref = store.save(everything(), "task")
    text = store.path(ref)

    found = plotly.io.read_json(text)

    assert json.loads(found.to_json()) == json.loads(everything().to_json())
    assert (ref.schema["types"], ref.preview) == (["bar", "heatmap", "scatter"], "loss é")


def test_what_plotly_was_given_as_an_object_is_refused_by_its_place(store: ArtifactStore) -> None:
    value = go.Figure(go.Scatter(y=[1], customdata=[object()]))

    with pytest.raises((UnsupportedTypeError, TypeError), match=r"object"):
        store.save(value, "task")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b'{"data":[{"type":"nonsense"}],"layout":{},"frames":[],"airflow_ml_provider":{"arrays":[],"fixes":null,"grid":null}}',
    ],
)
def test_what_is_no_figure_of_ours_is_refused(store: ArtifactStore, content: bytes) -> None:
    ref = store.save(go.Figure(), "task")
    digest = digest_of([memoryview(content)])
    store.objects.put(keys.blob_key(digest), content)

    with pytest.raises(ArtifactCorruptError, match="no figure that this store wrote"):
        store.load(dataclasses.replace(ref, digest=digest, size_bytes=len(content)))
