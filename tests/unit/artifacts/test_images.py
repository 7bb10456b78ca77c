# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.digest import digest_of
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import ArtifactCorruptError, UnsupportedTypeError

MODES = [
    "1", "L", "P", "PA", "LA", "La", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "F",
    "I;16", "I;16L", "I;16B", "I;16N",
]  # fmt: skip
PROFILE = b"a profile of colours"


def noise(mode: str, size: tuple[int, int] = (5, 3)) -> Any:
    made = Image.new(mode, size)
    values = np.random.default_rng(0).integers(0, 256, len(made.tobytes()), dtype=np.uint8)
    made = Image.frombytes(mode, size, values.tobytes())
    if mode in ("P", "PA"):
        made.putpalette(bytes(range(256)) * 3, "RGB")
    return made


def palette(colours: int, mode: str = "RGB") -> Any:
    made = Image.new("P", (4, 4))
    made.putpalette(bytes(range(colours * len(mode))), mode)
    made.putpixel((1, 2), colours - 1)
    return made


def described() -> Any:
    made = noise("RGB")
    made.info = {
        "dpi": (72.0, 71.9999),
        "icc_profile": PROFILE,
        "transparency": (1, 2, 3),
        "exif": b"Exif\0\0",
        "comment": "é",
        "gamma": 0.45455,
        "nothing": None,
    }
    return made


def transparent() -> Any:
    made = palette(4)
    made.info["transparency"] = bytes([0, 128, 255])
    return made


def out_of_palette() -> Any:
    made = palette(4)
    made.putpixel((0, 0), 200)
    return made


def assert_same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected) is Image.Image
    assert (found.mode, found.size) == (expected.mode, expected.size)
    assert found.tobytes() == expected.tobytes()
    assert found.info == expected.info
    assert list(found.info) == list(expected.info)
    if expected.palette is not None:
        assert found.palette.mode == expected.palette.mode
        assert found.getpalette(found.palette.mode) == expected.getpalette(expected.palette.mode)
    assert found == expected


AWKWARD = {
    **{
        f"{size} {mode}": (lambda mode=mode, size=size: Image.new(mode, size))
        for mode in ("1", "RGB", "P", "F")
        for size in ((0, 3), (3, 0), (0, 0))
    },
    "no palette": lambda: Image.new("P", (3, 3)),
    "palette of 4": lambda: palette(4),
    "palette of 256": lambda: palette(256 // 3),
    "palette with transparency": lambda: palette(5, "RGBA"),
    "pixels beyond the palette": out_of_palette,
    "info": described,
    "transparency of palette entries": transparent,
    "from numpy": lambda: Image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4)),
    "float with NaN": lambda: Image.fromarray(np.array([[np.nan, -0.0], [np.inf, 1e-40]], np.float32)),
    "transposed": lambda: noise("RGB").transpose(Image.Transpose.ROTATE_90),
    "cropped": lambda: noise("RGBA", (9, 9)).crop((1, 2, 20, 7)),
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_an_image_of_every_mode_comes_back(store: ArtifactStore, mode: str) -> None:
    value = noise(mode)
    ref = store.save(value, "task")

    assert_same(store.load(ref), value)
    assert (ref.format, ref.type, ref.preview) == ("image-v1", "PIL.Image.Image", f"{mode} 5x3")
    assert ref.schema["mode"] == mode
    assert ref.schema["size"] == [5, 3]
    assert store.save(noise(mode), "task").digest == store.save(store.load(ref), "task").digest == ref.digest


@pytest.mark.parametrize("make", AWKWARD.values(), ids=AWKWARD.keys())
def test_an_awkward_image_comes_back(store: ArtifactStore, make: Any) -> None:
    value = make()
    ref = store.save(value, "task")

    assert_same(store.load(ref), value)
    assert store.save(store.load(ref), "task").digest == ref.digest


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "P", "I;16"])
def test_a_viewer_opens_what_is_stored(store: ArtifactStore, tmp_path: Path, mode: str) -> None:
    value = noise(mode)
    value.info["icc_profile"] = PROFILE

    path = store.path(store.save(value, "task"))

    assert path.suffix == ".png"
    with Image.open(path) as found:
        assert (found.format, found.mode) == ("PNG", mode)
        assert found.convert("RGBA").tobytes() == value.convert("RGBA").tobytes()
        assert found.info["icc_profile"] == PROFILE


def test_an_opened_file_is_refused_with_both_ways_to_go_on(store: ArtifactStore, tmp_path: Path) -> None:
    noise("RGB").save(tmp_path / "a.jpg", dpi=(72, 72))
    with Image.open(tmp_path / "a.jpg") as opened:
        with pytest.raises(UnsupportedTypeError, match=r"JpegImageFile.*image\.copy\(\).*Path"):
            store.save(opened, "task")
        copied = opened.copy()

    assert_same(store.load(store.save(copied, "task")), copied)
    assert copied.info["dpi"] == (72, 72)


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"dpi": TiffImagePlugin.IFDRational(72, 1)}, r"info\['dpi'\].*IFDRational"),
        ({"made": {"by": object()}}, r"info\['made'\]\['by'\]"),
        ({"array": np.arange(2)}, "array"),
        ({1: "a"}, "key that is no text"),
    ],
)
def test_info_that_is_no_data_is_refused_by_name(store: ArtifactStore, info: Any, message: str) -> None:
    value = noise("L")
    value.info.update(info)

    with pytest.raises(UnsupportedTypeError, match=message):
        store.save(value, "task")


def test_a_picture_larger_than_was_signed_is_refused_before_it_is_decoded(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = store.save(Image.new("L", (4, 4)), "task")
    file = io.BytesIO()
    Image.new("L", (3000, 3000)).save(file, "PNG")
    # A chunk of ours, so that only the size is wrong.
    stored = bytes(store.objects.get(keys.blob_key(ref.digest)))
    at = stored.index(b"amLp") - 4
    chunk = stored[at : at + 12 + int.from_bytes(stored[at : at + 4], "big")]
    bomb = file.getvalue()[:33] + chunk + file.getvalue()[33:]
    digest = digest_of([memoryview(bomb)])
    store.objects.put(keys.blob_key(digest), bomb)
    monkeypatch.setattr(Image.Image, "copy", None)

    with pytest.raises(ArtifactCorruptError, match="9,000,000 bytes"):
        store.load(dataclasses.replace(ref, digest=digest, size_bytes=len(bomb)))


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"no picture"])
def test_what_is_no_image_of_ours_is_refused(store: ArtifactStore, content: bytes) -> None:
    ref = store.save(Image.new("L", (4, 4)), "task")
    digest = digest_of([memoryview(content)])
    store.objects.put(keys.blob_key(digest), content)

    with pytest.raises(ArtifactCorruptError, match="no PNG file of this store"):
        store.load(dataclasses.replace(ref, digest=digest, size_bytes=len(content)))
