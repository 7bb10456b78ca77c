# SPDX-License-Identifier: Apache-2.0
"""
``image-v1``: an image of Pillow as a PNG file that any viewer opens.

What PNG has no place for is in a private chunk, ``amLp``, as JSON: the mode, the palette, and ``info`` as it
was. Modes that PNG does not know are the bytes of their rows, as a grey picture of another width.
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

from PIL import Image, PngImagePlugin  # noqa: TID253 - this module is imported on first use

from airflow_ml_provider.artifacts.codecs.packed import StateReader, StateWriter
from airflow_ml_provider.artifacts.codecs.registry import Encoded, type_name
from airflow_ml_provider.artifacts.unpacking import UNPACKED, check_unpacked
from airflow_ml_provider.exceptions import ArtifactCorruptError, UnsupportedTypeError

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.codecs.registry import Stored

_CHUNK = b"amLp"  # ancillary, private
_OWN_MODES = ("1", "L", "LA", "RGB", "RGBA", "P", "I;16")
# A fifth of the time of Pillow's default, for files a tenth larger.
_LEVEL = 1
# Pillow does not read longer ones from a file.
_MAX_PROFILE_BYTES = 1 << 19


def dump(value: Any) -> Encoded:
    if type(value) is not Image.Image:
        raise UnsupportedTypeError(
            f"a {type_name(type(value))} belongs to the file that it was opened from; return image.copy() "
            "for its picture, or the pathlib.Path of the file to keep the file as it is"
        )
    if not value.mode:
        raise UnsupportedTypeError("this image has no mode and no pixels; make it by Image.new()")
    value.load()
    writer = StateWriter()
    info = {}
    for key, item in value.info.items():
        try:
            info[key] = writer.write(item, f"info[{key!r}]")
            json.dumps(key)
        except (UnsupportedTypeError, TypeError) as exc:
            raise UnsupportedTypeError(
                f"this image cannot be stored whole: {exc}; remove it from image.info, or put plain numbers "
                "or text in its place"
            ) from exc
    if writer.parts or not all(type(key) is str for key in info):
        raise UnsupportedTypeError(
            "image.info holds an array or a key that is no text; return that beside it"
        )
    about = {"mode": value.mode, "size": list(value.size), "info": list(info.items()), "palette": None}
    if value.mode in ("P", "PA"):
        mode = value.im.getpalettemode()
        about["palette"] = [mode, bytes(value.im.getpalette(mode, mode)).hex()]
    picture = _picture(value)
    extra = PngImagePlugin.PngInfo()
    extra.add(_CHUNK, json.dumps(about, separators=(",", ":")).encode("ascii"))
    profile = value.info.get("icc_profile")
    if not isinstance(profile, bytes) or len(profile) > _MAX_PROFILE_BYTES or picture is not value:
        profile = None
    file = io.BytesIO()
    own = {"bits": 8} if picture.mode == "P" else {}
    picture.save(
        file, "PNG", pnginfo=extra, compress_level=_LEVEL, icc_profile=profile, transparency=None, **own
    )
    return Encoded(
        parts=[file.getbuffer()],
        schema={
            "mode": value.mode,
            "size": list(value.size),
            "info": sorted(info)[:40],
            UNPACKED: _unpacked_bytes(picture),
        },
        preview=f"{value.mode} {value.width}x{value.height}",
        type="PIL.Image.Image",
    )


def _picture(value: Any) -> Any:
    """What stands in the PNG."""
    if value.mode in _OWN_MODES and value.width and value.height and _palette_fits(value):
        return value
    raw = value.tobytes()
    if not raw:
        return Image.new("L", (1, 1))
    return Image.frombytes("L", (len(raw) // value.height, value.height), raw)


def _palette_fits(value: Any) -> bool:
    """PNG has no pixels beyond the palette, and only these two kinds of one."""
    if value.mode != "P":
        return True
    mode = value.im.getpalettemode()
    colours = len(value.im.getpalette(mode, mode)) // len(mode)
    return mode in ("RGB", "RGBA") and bool(value.getextrema()[1] < colours)


def _unpacked_bytes(picture: Any) -> int:
    pixel: int = {"RGB": 4, "RGBA": 4, "LA": 4, "I;16": 2}.get(picture.mode, 1)
    return int(picture.width * picture.height * pixel)


def load(data: memoryview, info: Stored) -> Any:
    try:
        # Image.open() would judge the size by a limit for strangers' files; here it was signed.
        found = PngImagePlugin.PngImageFile(io.BytesIO(data))
        about = json.loads({chunk[0]: chunk[1] for chunk in found.private_chunks}[_CHUNK])
    except (ValueError, KeyError, TypeError, SyntaxError, OSError) as exc:
        raise ArtifactCorruptError(f"{info.name!r} is no PNG file of this store") from exc
    mode, size = about["mode"], tuple(about["size"])
    check_unpacked(_unpacked_bytes(found), info)
    if (found.mode, found.size) == (mode, size):
        image = found.copy()
    else:
        image = Image.frombytes(mode, size, found.tobytes() if size[0] and size[1] else b"")
    if about["palette"] is not None:
        kind, palette = about["palette"]
        image.putpalette(bytes.fromhex(palette), kind)
    reader = StateReader([])
    image.info = {key: reader.read(tree) for key, tree in about["info"]}
    return image
