# SPDX-License-Identifier: Apache-2.0
"""
``skops-v1``: estimators in skops' format, read back without pickle.

The archive is written again with ids counted from one and without times, so equal estimators give equal
bytes, and then compressed as a whole with zstd.
"""

from __future__ import annotations

import ast
import fnmatch
import functools
import io
import json
import math
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, cast

import zstandard
from numpy.lib import format as npy  # noqa: TID253 - this module is imported on first use

from airflow_ml_provider.artifacts import preview
from airflow_ml_provider.artifacts.codecs.registry import Encoded, Stored, type_name
from airflow_ml_provider.artifacts.libraries import import_skops
from airflow_ml_provider.artifacts.unpacking import UNPACKED, check_unpacked
from airflow_ml_provider.exceptions import ArtifactCorruptError, UnsupportedTypeError, UntrustedTypeError

skops_io = import_skops()

_MAX_HEADER_BYTES = 1 << 20
# Not as many as there are processors: the bytes depend on whether there are several.
_THREADS = 2

_TRUSTED = (
    "sklearn.*",
    "numpy.random.*",
    "numpy._core.*",
    "numpy.core.*",
    "numpy.ma.*",
    "numpy.dtype*",
    "numpy.[a-z]*",
    "scipy.sparse.*",
    "collections.OrderedDict",
    "collections.defaultdict",
    # Steps of a pipeline: they restore themselves from their library's own bytes.
    "xgboost.core.Booster",
    "xgboost.sklearn.XGB*",
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBM*",
    "catboost.core.CatBoost*",
)
# Test helpers and compilers run text; nothing that is fitted refers to them.
_NEVER = (
    "sklearn.*test*",
    "sklearn.datasets.*",
    "sklearn.externals.*",
    "numpy.*test*",
    "numpy.*f2py*",
    "numpy.*load*",
)


def _untrusted(names: list[str], allowed: tuple[str, ...]) -> list[str]:
    return [
        name
        for name in names
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in allowed)
        and (
            not any(fnmatch.fnmatchcase(name, pattern) for pattern in _TRUSTED)
            or any(fnmatch.fnmatchcase(name, pattern) for pattern in _NEVER)
        )
    ]


class _Members(dict[str, memoryview]):
    """
    The members of an archive by name, as skops writes and reads them; none is copied before it is read.

    Nor is its checksum compared: all of an archive was, by its hash, unless the deployment relaxed that.
    """

    def writestr(self, name: str, data: Any) -> None:
        self[name] = memoryview(data)

    def namelist(self) -> _Members:
        return self

    def read(self, name: str) -> bytes:
        return bytes(self[name])


class _Parts:
    """A file whose parts stay where they are; of what was written the same length may be written again."""

    def __init__(self) -> None:
        self._parts: dict[int, memoryview] = {}
        self._at = self.size_bytes = 0

    def __iter__(self) -> Iterator[memoryview]:
        return iter(self._parts.values())

    def write(self, data: Any) -> int:
        part = memoryview(data)
        if self._at != self.size_bytes and self._parts[self._at].nbytes != part.nbytes:
            raise io.UnsupportedOperation("only a whole part can be written again")
        self._parts[self._at] = part
        self._at += part.nbytes
        self.size_bytes = max(self.size_bytes, self._at)
        return part.nbytes

    def tell(self) -> int:
        return self._at

    def seek(self, at: int, whence: int = 0) -> int:
        self._at = at
        return at

    def flush(self) -> None:
        """Nothing waits."""


class _SchemaAlone:
    """An archive whose members are empty but for the schema: types are found in that."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._text = json.dumps(schema).encode("ascii")

    def read(self, name: str) -> bytes:
        return self._text if name == "schema.json" else b""


def _state(value: Any) -> tuple[dict[str, Any], _Members]:
    """Return the schema that skops makes of an estimator, and the members of its archive."""
    members = _Members()
    try:
        from skops import __version__
        from skops.io._utils import SaveContext, get_state
    except ImportError:  # a release of skops that keeps them elsewhere: twice as slow
        members = _members(skops_io.dumps(value), type_name(type(value)))
        return json.loads(bytes(members.pop("schema.json"))), members
    context = SaveContext(zip_file=members)
    state = get_state(value, context)
    context.clear_memo()
    # As text and back: what JSON makes of tuples and keys.
    schema: dict[str, Any] = json.loads(json.dumps(state))
    return {**schema, "protocol": context.protocol, "_skops_version": __version__}, members


def dump(value: Any) -> Encoded:
    try:
        schema, members = _state(value)
    except Exception as exc:
        raise UnsupportedTypeError(
            f"skops cannot write this {type_name(type(value))}: {exc}; log it with @task.train, "
            "or save it to a "
            "file and return its Path"
        ) from exc
    archive = _canonical(schema, members)
    # What nobody could load is refused now rather than in the next task.
    if unknown := _untrusted(_parsed(_SchemaAlone(schema), lambda: b"".join(archive))[0], ()):
        own = [
            name
            for name in unknown
            if name.split(".")[0] not in ("builtins", "os", "sys", "posix", "subprocess")
        ]
        if own != unknown:
            raise UnsupportedTypeError(
                f"{type_name(type(value))} holds {unknown}, which is never loaded back"
            )
    compressor = zstandard.ZstdCompressor(level=1, threads=_THREADS).compressobj(size=archive.size_bytes)
    compressed = [*map(compressor.compress, archive), compressor.flush()]
    return Encoded(
        parts=[memoryview(part) for part in compressed if part],
        schema={
            "class": type_name(type(value)),
            "params": _params(value),
            "needs": unknown[:20],
            UNPACKED: archive.size_bytes + _unpacked(members, type_name(type(value))),
        },
        preview=preview.short(_summary(value), 400),
        type=type_name(type(value)),
        needs=tuple(unknown),
    )


def load(data: memoryview, info: Stored) -> Any:
    plain = _decompressed(data, info)
    archive = _members(plain, info.name)
    check_unpacked(len(plain) + _unpacked(archive, info.name), info)
    wrong = f"the estimator {info.name!r} is not laid out as skops does"
    try:
        found, build = _parsed(archive, lambda: plain)
    except Exception as exc:
        raise ArtifactCorruptError(f"{wrong}: {exc}") from exc
    # Judged before anything that the archive names is imported.
    if refused := _untrusted(found, info.allowed_classes):
        raise UntrustedTypeError(
            f"the estimator {info.name!r} holds {', '.join(refused)}; if these are yours, add them to "
            "[ml_provider] allowed_classes"
        )
    try:
        return build()
    except skops_io.exceptions.UntrustedTypesFoundException as exc:
        raise UntrustedTypeError(f"the estimator {info.name!r} is refused by skops: {exc}") from exc
    except (zipfile.BadZipFile, RecursionError, MemoryError) as exc:
        raise ArtifactCorruptError(f"{wrong}: {exc}") from exc


def _parsed(
    archive: _Members | _SchemaAlone, plain: Callable[[], bytes]
) -> tuple[list[str], Callable[[], Any]]:
    """
    Return the types that skops does not trust by itself, and what builds the value with these trusted.

    :param plain: Returns all bytes of the archive.
    """
    try:
        from skops.io._audit import get_tree
        from skops.io._utils import read_schema
    except ImportError:  # a release of skops that keeps them elsewhere: it reads the archive twice
        found = list(skops_io.get_untrusted_types(data=plain()))
        return found, lambda: skops_io.loads(plain(), trusted=found)
    schema, context = read_schema(archive)
    tree = get_tree(schema, context, trusted=None)
    found = sorted(tree.get_unsafe_set())

    # What is found is judged by the caller: skops would look through the tree once more.
    return found, tree.construct


def _decompressed(data: memoryview, info: Stored) -> bytes:
    try:
        size = zstandard.frame_content_size(data)
        if size < 0:
            raise ArtifactCorruptError(f"the estimator {info.name!r} does not say how large it is")
        check_unpacked(size, info)
        # It allocates what the frame says, and stops where the frame goes beyond.
        return zstandard.ZstdDecompressor().decompress(data)
    except (zstandard.ZstdError, MemoryError) as exc:
        raise ArtifactCorruptError(f"the estimator {info.name!r} cannot be decompressed: {exc}") from exc


def _members(plain: bytes, name: str) -> _Members:
    """
    Find the members of an archive.

    :raises ArtifactCorruptError: if it is none, or a member is compressed or not all there.
    """
    found = _Members()
    stored = 0
    try:
        with zipfile.ZipFile(io.BytesIO(plain)) as archive:
            for member in archive.infolist():
                shown = f"{name!r} holds a member {member.filename[:100]!r}"
                if member.compress_type != zipfile.ZIP_STORED:
                    raise ArtifactCorruptError(f"{shown} that is compressed")
                stored += member.file_size
                if stored > len(plain):
                    raise ArtifactCorruptError(f"the members of {name!r} are longer than its archive")
                content = _stored(memoryview(plain), member)
                if content.nbytes != member.file_size:
                    raise ArtifactCorruptError(f"{shown} that is cut off")
                found[member.filename] = content
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as exc:
        raise ArtifactCorruptError(f"the estimator {name!r} is not a whole archive: {exc}") from exc
    return found


def _stored(plain: memoryview, member: zipfile.ZipInfo) -> memoryview:
    """Return a member that is stored as it is; to open and read each takes ten times as long."""
    start = member.header_offset
    # APPNOTE 4.3.7: the name and an extra field follow 30 bytes, which end with the lengths of both.
    lengths = plain[start + 26 : start + 30]
    start += 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
    return plain[start : start + member.file_size]


def _unpacked(members: _Members, name: str) -> int:
    """
    Return how many bytes more an archive takes with all that is compressed inside of its members.

    :raises ArtifactCorruptError: if an array claims more than is there.
    """
    total = 0
    for member, content in members.items():
        if member.endswith(".npy"):
            _check_array(content[:_MAX_HEADER_BYTES], member, content.nbytes)
        elif member.endswith(".npz"):
            try:
                with zipfile.ZipFile(io.BytesIO(content)) as inner:
                    for part in inner.infolist():
                        total += part.file_size
                        if part.filename.endswith(".npy"):
                            with inner.open(part) as array:
                                _check_array(array.read(_MAX_HEADER_BYTES), part.filename, part.file_size)
            except (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error, RuntimeError) as exc:
                raise ArtifactCorruptError(f"{member!r} in {name!r} is not a whole archive: {exc}") from exc
    return total


_ARRAY = re.compile(
    rb"\{'descr': (.+), 'fortran_order': (?:True|False), 'shape': \(((?:\d+, ?)*\d*)\), \} *\n", re.DOTALL
)


def _check_array(start: bytes | memoryview, member: str, size_bytes: int) -> None:
    """Compare what the header of an array promises with the size of its member."""
    long = start[:8] == b"\x93NUMPY\x02\x00"
    begins = 12 if long else 10
    length = int.from_bytes(start[8:begins], "little")
    # Of a header that is not all there nothing is believed.
    match = (
        _ARRAY.fullmatch(bytes(start[begins : begins + length])) if begins + length <= len(start) else None
    )
    promised = -1
    if match and start[:6] == b"\x93NUMPY":
        promised = (
            begins
            + length
            + _item_size(match[1]) * math.prod(int(part) for part in match[2].split(b",") if part.strip())
        )
    if promised != size_bytes:
        raise ArtifactCorruptError(f"an array in {member[:100]!r} of {promised:,} bytes, got {size_bytes:,}")


@functools.lru_cache(maxsize=64)
def _item_size(described: bytes) -> int:
    try:
        dtype = npy.descr_to_dtype(ast.literal_eval(described.decode("latin1")))
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as exc:
        raise ArtifactCorruptError(f"an array of the dtype {described[:100]!r}") from exc
    if dtype.hasobject:
        raise ArtifactCorruptError("an array of Python objects, which this store never writes")
    return dtype.itemsize


def _canonical(schema: dict[str, Any], members: _Members) -> _Parts:
    numbers: dict[int, int] = {}
    files: dict[str, str] = {}
    count = 0

    def renumber(node: Any) -> None:
        nonlocal count
        if isinstance(node, list):
            for item in node:
                renumber(item)
            return
        if not isinstance(node, dict):
            return
        if "__id__" in node:
            found = node["__id__"]
            if node.get("is_json") or found not in numbers:
                # Numbers and text are interned or not by chance: each occurrence counts on its own.
                count += 1
                if not node.get("is_json"):
                    numbers[found] = count
                node["__id__"] = count
            else:
                node["__id__"] = numbers[found]
        name = node.get("file")
        if "__loader__" in node and isinstance(name, str):
            files.setdefault(name, f"{len(files) + 1}{name[name.rfind('.') :]}")
            node["file"] = files[name]
        for key, item in node.items():
            if key not in ("__id__", "file"):
                renumber(item)

    renumber(schema)
    result = _Parts()
    with zipfile.ZipFile(cast("Any", result), "w", zipfile.ZIP_STORED) as target:
        written = set()
        for old, new in files.items():
            if new not in written:
                written.add(new)
                target.writestr(zipfile.ZipInfo(new), members[old])
        for name in sorted(set(members) - set(files)):
            target.writestr(zipfile.ZipInfo(name), members[name])
        target.writestr(zipfile.ZipInfo("schema.json"), json.dumps(schema))
    return result


def _params(value: Any) -> dict[str, Any]:
    try:
        params = value.get_params(deep=False)
    except Exception:  # noqa: BLE001 - a summary never fails the task
        return {}
    shown = {
        str(key): preview.cell(item)
        if isinstance(item, (str, int, float, bool, type(None)))
        else _class_of(item)
        for key, item in list(params.items())[:40]
    }
    return preview.fit(shown) or {}


def _class_of(value: Any) -> str:
    return f"<{type(value).__name__}>"


def _summary(value: Any) -> str:
    steps = getattr(value, "steps", None)
    inner = ""
    if isinstance(steps, list):
        inner = ", ".join(f"{name}={type(step).__name__}" for name, step in steps)
    return f"{type(value).__name__}({inner})"
