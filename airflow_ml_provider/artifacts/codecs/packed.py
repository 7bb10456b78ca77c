# SPDX-License-Identifier: Apache-2.0
"""
A description and some buffers in one piece, for the formats of libraries that have no file of their own.

``AMLP``, the length of the header in four bytes (little endian), the header as ASCII JSON: ``about`` and
the length of each part. Header and parts are padded to multiples of 64 bytes, so that arrays can be used
in place.

The description is a state: what JSON carries, tuples, dicts with any keys, arrays (one part each), and the
small values that :mod:`airflow_ml_provider.artifacts.scalars` knows. Nothing in it names a class.
"""

from __future__ import annotations

import base64
import collections
import json
from collections.abc import Sequence
from typing import Any

from airflow_ml_provider.artifacts import limits, values
from airflow_ml_provider.artifacts.codecs import registry
from airflow_ml_provider.exceptions import ArtifactCorruptError, UnsupportedTypeError

_MAGIC = b"AMLP"
_ALIGNED = 64
_DICTS: dict[str, Any] = {
    "dict": dict,
    "OrderedDict": collections.OrderedDict,
    "defaultdict": collections.defaultdict,
}
# A default factory is kept by name.
_FACTORIES = {"OrderedDict": collections.OrderedDict, "list": list, "dict": dict}


def _padding(length: int) -> int:
    return -length % _ALIGNED


def pack(about: Any, parts: Sequence[Sequence[memoryview]]) -> list[memoryview]:
    """Lay out a header and parts, each of several buffers; the buffers are not copied."""
    lengths = [sum(buffer.nbytes for buffer in part) for part in parts]
    with limits.any_length_of_int():
        text = json.dumps({"about": about, "parts": lengths}, separators=(",", ":"))
    head = text.encode("ascii")
    head += b" " * _padding(len(head) + 8)
    found = [memoryview(_MAGIC + len(head).to_bytes(4, "little") + head)]
    for part, length in zip(parts, lengths, strict=True):
        found += part
        if padding := _padding(length):
            found.append(memoryview(bytes(padding)))
    return found


def unpack(data: memoryview, whose: str) -> tuple[Any, list[memoryview]]:
    """
    Read what :func:`pack` laid out; the buffers are slices of ``data``.

    :raises ArtifactCorruptError: if it is anything else.
    """
    length = int.from_bytes(data[4:8], "little")
    if bytes(data[:4]) != _MAGIC or len(data) < 8 + length:
        raise ArtifactCorruptError(f"{whose} does not begin as this store writes it")
    try:
        with limits.any_length_of_int():
            head = json.loads(bytes(data[8 : 8 + length]))
        about, lengths = head["about"], list(head["parts"])
    except (ValueError, KeyError, TypeError) as exc:
        raise ArtifactCorruptError(f"{whose} has a header that cannot be read") from exc
    start = 8 + length
    parts = []
    for size in lengths:
        if type(size) is not int or size < 0 or start + size > len(data):
            raise ArtifactCorruptError(f"{whose} is shorter than its header says")
        parts.append(data[start : start + size])
        start += size + _padding(size)
    if start != len(data):
        raise ArtifactCorruptError(f"{whose} is longer than its header says")
    return about, parts


class StateWriter:
    """Turns small Python objects and arrays into JSON and :attr:`parts`."""

    def __init__(self) -> None:
        self.parts: list[list[memoryview]] = []
        self._arrays: dict[int, tuple[Any, int]] = {}

    def write(self, value: Any, where: str) -> Any:
        """
        Return what stands for ``value``.

        :param where: Named in the error.
        :raises UnsupportedTypeError: if it holds anything but plain values and arrays.
        """
        kind = type(value)
        if kind in (list, tuple):
            return [kind.__name__, [self.write(item, f"{where}[{i}]") for i, item in enumerate(value)]]
        if kind.__name__ in _DICTS and kind is _DICTS[kind.__name__]:
            factory = getattr(value, "default_factory", None)
            name = None if factory is None else getattr(factory, "__name__", "")
            if name is not None and _FACTORIES.get(name) is not factory:
                raise UnsupportedTypeError(f"{where} has the default factory {factory!r}, which is no data")
            pairs = [
                [self.write(key, f"a key of {where}"), self.write(item, f"{where}[{key!r}]")]
                for key, item in value.items()
            ]
            return [kind.__name__, pairs, name]
        if registry.type_name(kind) == "numpy.ndarray":
            return ["array", self._array(value, where)]
        if kind is bytes:
            return ["bytes", base64.b64encode(value).decode("ascii")]
        try:
            return ["plain", values.to_plain(value, where)]
        except UnsupportedTypeError as exc:
            raise UnsupportedTypeError(
                f"{where} is {_shown(value)} of the type {registry.type_name(kind)}, which is stored nowhere "
                "but in Python's memory"
            ) from exc

    def _array(self, value: Any, where: str) -> int:
        from airflow_ml_provider.artifacts.codecs import npy

        if found := self._arrays.get(id(value)):
            return found[1]
        try:
            data = npy.to_parts(value)
        except UnsupportedTypeError as exc:
            if value.dtype != object:
                raise UnsupportedTypeError(f"{where}: {exc}") from exc
            # Class labels that are text often come as objects.
            items = self.write(value.ravel().tolist(), where)
            data = [memoryview(json.dumps([list(value.shape), items]).encode("ascii"))]
        self.parts.append(data)
        self._arrays[id(value)] = (value, len(self.parts) - 1)
        return len(self.parts) - 1


class StateReader:
    """Turns what :class:`StateWriter` made into the values again."""

    def __init__(self, parts: list[memoryview]) -> None:
        self._parts = parts
        self._arrays: dict[int, Any] = {}

    def read(self, tree: Any) -> Any:  # noqa: PLR0911 - one for each kind
        tag = tree[0]
        if tag == "list":
            return [self.read(item) for item in tree[1]]
        if tag == "tuple":
            return tuple(self.read(item) for item in tree[1])
        if tag in _DICTS:
            pairs = [(self.read(key), self.read(item)) for key, item in tree[1]]
            if tag == "defaultdict":
                return collections.defaultdict(_FACTORIES[tree[2]] if tree[2] else None, pairs)
            return _DICTS[tag](pairs)
        if tag == "array":
            if tree[1] not in self._arrays:
                self._arrays[tree[1]] = self._array(self._parts[tree[1]])
            return self._arrays[tree[1]]
        if tag == "bytes":
            return base64.b64decode(tree[1])
        if tag == "plain":
            return values.from_plain(tree[1])
        raise ArtifactCorruptError(f"a stored state of the unknown kind {tag!r}")

    def _array(self, data: memoryview) -> Any:
        import numpy as np

        from airflow_ml_provider.artifacts.codecs import npy

        if bytes(data[:6]) == b"\x93NUMPY":
            return npy.from_buffer(data)
        shape, items = json.loads(bytes(data))
        array = np.empty(int(np.prod(shape)), dtype=object)
        array[:] = self.read(items)
        return array.reshape(shape)


def _shown(value: Any) -> str:
    name = getattr(value, "__qualname__", None)
    return f"{name!r}" if isinstance(name, str) else "an object"
