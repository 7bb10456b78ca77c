# SPDX-License-Identifier: Apache-2.0
"""``npy-v1``: numpy's own format (numpy.lib.format), never with Python objects inside."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np  # noqa: TID253 - this module is imported on first use
from numpy.lib import format as npy  # noqa: TID253

from airflow_ml_provider.artifacts import preview
from airflow_ml_provider.artifacts.codecs.registry import Encoded, Stored
from airflow_ml_provider.artifacts.unpacking import check_unpacked
from airflow_ml_provider.exceptions import ArtifactCorruptError, UnsupportedTypeError

# Fields of a structured dtype are named in the header.
_MAX_HEADER_BYTES = 1 << 20


def _check(dtype: np.dtype[Any]) -> None:
    if dtype.hasobject:
        raise UnsupportedTypeError(
            f"an array of dtype {dtype} holds Python objects, which only pickle could store; give it a "
            "numeric or text dtype (array.astype(...)), return a list or a DataFrame, or allow pickle: "
            "[ml_provider] allow_pickle = True"
        )
    try:
        back = npy.descr_to_dtype(npy.dtype_to_descr(dtype))
        # Records are equal to what has the same fields and is none.
        kept = back == dtype and repr(back) == repr(dtype) and dtype.kind != "T"
    except (TypeError, ValueError):
        kept = False
    if not kept or dtype.metadata or dtype.isalignedstruct:
        raise UnsupportedTypeError(
            f"an array of dtype {dtype!r} would come back with another dtype; "
            "convert it first (array.astype(...)), text for example to '<U20'"
        )


def _header(array: np.ndarray[Any, Any], *, fortran: bool) -> bytes:
    described: Any = {
        "descr": npy.dtype_to_descr(array.dtype),
        "fortran_order": fortran,
        "shape": array.shape,
    }
    file = io.BytesIO()
    try:
        npy.write_array_header_1_0(file, described)
    except UnicodeEncodeError as exc:
        raise UnsupportedTypeError(
            f"an array of dtype {array.dtype}: name its fields in Latin letters"
        ) from exc
    except ValueError:  # longer than 64 KiB
        file = io.BytesIO()
        npy.write_array_header_2_0(file, described)
    return file.getvalue()


def to_parts(array: np.ndarray[Any, Any]) -> list[memoryview]:
    """
    Lay an array out as the parts of a ``.npy`` file, without copying it where it is contiguous.

    :raises UnsupportedTypeError: if its dtype would not come back as it is.
    """
    _check(array.dtype)
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    laid_out = array.T if fortran else np.ascontiguousarray(array)
    flat = laid_out.reshape(-1).view(np.uint8) if array.size and array.itemsize else np.empty(0, np.uint8)
    return [memoryview(_header(array, fortran=fortran)), memoryview(flat)]  # type: ignore[arg-type]


def from_buffer(data: memoryview) -> np.ndarray[Any, Any]:
    """Read a ``.npy`` file; the array is writable and keeps ``data`` if that is writable."""
    shape, fortran, dtype, start = header(data)
    body = data[start:]
    count = math.prod(shape)
    if not count or not dtype.itemsize:
        return np.zeros(shape, dtype, order="F" if fortran else "C")
    flat: np.ndarray[Any, Any] = np.frombuffer(body, dtype=dtype, count=count)
    if not flat.flags.writeable:
        flat = flat.copy()
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def header(data: memoryview) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """
    Read the header of a ``.npy`` file: shape, whether it is in Fortran's order, dtype, where the data begins.

    :raises ArtifactCorruptError: if the data that follow are not just as many as it promises, so that nothing
        larger than the file is ever allocated.
    """
    head = io.BytesIO(data[:_MAX_HEADER_BYTES])
    try:
        version = npy.read_magic(head)
        if version not in ((1, 0), (2, 0)):
            raise ArtifactCorruptError(f"an array in version {version} of the npy format")
        reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = reader(head, max_header_size=_MAX_HEADER_BYTES)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, OverflowError) as exc:
        if isinstance(exc, ArtifactCorruptError):
            raise
        raise ArtifactCorruptError(f"an array whose header cannot be read: {str(exc)[:200]}") from exc
    if dtype.hasobject:
        raise ArtifactCorruptError("an array of Python objects, which this store never writes")
    if any(type(length) is not int or length < 0 for length in shape):
        raise ArtifactCorruptError(f"an array of the shape {shape}")
    promised, found = math.prod(shape) * dtype.itemsize, data.nbytes - head.tell()
    if found != promised:
        raise ArtifactCorruptError(f"an array of {promised:,} bytes, got {found:,}")
    return shape, fortran, dtype, head.tell()


def dump(value: np.ndarray[Any, Any]) -> Encoded:
    shown = value.reshape(-1)[:8] if value.flags.c_contiguous else value.flat[:8]
    return Encoded(
        parts=to_parts(value),
        schema={"shape": list(value.shape), "dtype": str(value.dtype)[:400]},
        preview=preview.fit([preview.cell(item) for item in shown.tolist()]) if value.size else None,
        type="numpy.ndarray",
    )


def load(data: memoryview, info: Stored) -> np.ndarray[Any, Any]:
    shape, _, dtype, _ = header(data)
    signed = (info.schema or {}).get("shape", list(shape))
    if list(shape) != signed:
        raise ArtifactCorruptError(
            f"{info.name!r} was of the shape {signed} when it was written, not {shape}"
        )
    check_unpacked(math.prod(shape) * max(dtype.itemsize, 1), info)
    return from_buffer(data)
