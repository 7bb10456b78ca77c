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
from collections.abc import Callable, Mapping
from typing import Any

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


class _Members(dict[str, bytes]):
    """Takes what skops writes to an archive, without the archive."""

    def writestr(self, name: str, data: Any) -> None:
        self[name] = bytes(data)

    def namelist(self) -> _Members:
        return self


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
        with zipfile.ZipFile(io.BytesIO(skops_io.dumps(value))) as archive:
            for name in archive.namelist():
                members[name] = archive.read(name)
        return json.loads(members.pop("schema.json")), members
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
    plain = _canonical(schema, members)
    # What nobody could load is refused now rather than in the next task.
    if unknown := _untrusted(_parsed(_SchemaAlone(schema), plain)[0], ()):
        own = [
            name
            for name in unknown
            if name.split(".")[0] not in ("builtins", "os", "sys", "posix", "subprocess")
        ]
        if own != unknown:
            raise UnsupportedTypeError(
                f"{type_name(type(value))} holds {unknown}, which is never loaded back"
            )
    compressed = zstandard.ZstdCompressor(level=1, threads=_THREADS).compress(plain)
    return Encoded(
        parts=[memoryview(compressed)],
        schema={
            "class": type_name(type(value)),
            "params": _params(value),
            "needs": unknown[:20],
            UNPACKED: _unpacked(plain, type_name(type(value))),
        },
        preview=preview.short(_summary(value), 400),
        type=type_name(type(value)),
        needs=tuple(unknown),
    )


def load(data: memoryview, info: Stored) -> Any:
    plain = _decompressed(data, info)
    check_unpacked(_unpacked(plain, info.name), info)
    wrong = f"the estimator {info.name!r} is not laid out as skops does"
    with zipfile.ZipFile(io.BytesIO(plain)) as archive:
        try:
            found, build = _parsed(archive, plain)
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


def _parsed(archive: zipfile.ZipFile | _SchemaAlone, plain: bytes) -> tuple[list[str], Callable[[], Any]]:
    """Return the types that skops does not trust by itself, and what builds the value with these trusted."""
    try:
        from skops.io._audit import get_tree
        from skops.io._utils import read_schema
    except ImportError:  # a release of skops that keeps them elsewhere: it reads the archive twice
        found = list(skops_io.get_untrusted_types(data=plain))
        return found, lambda: skops_io.loads(plain, trusted=found)
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


def _unpacked(plain: bytes, name: str) -> int:
    """
    Return how many bytes an archive takes with all that is compressed inside of it.

    :raises ArtifactCorruptError: if a member is not stored as it is, or an array claims more than is there.
    """
    stored = total = 0
    try:
        with zipfile.ZipFile(io.BytesIO(plain)) as archive:
            for member in archive.infolist():
                if member.compress_type != zipfile.ZIP_STORED:
                    raise ArtifactCorruptError(
                        f"{name!r} holds a compressed member {member.filename[:100]!r}"
                    )
                stored += member.file_size
                if stored > len(plain):
                    raise ArtifactCorruptError(f"the members of {name!r} are longer than its archive")
                if member.filename.endswith(".npy"):
                    _check_array(_beginning(memoryview(plain), member), member)
                elif member.filename.endswith(".npz"):
                    with archive.open(member) as file, zipfile.ZipFile(file) as inner:
                        for part in inner.infolist():
                            total += part.file_size
                            if part.filename.endswith(".npy"):
                                with inner.open(part) as array:
                                    _check_array(array.read(_MAX_HEADER_BYTES), part)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error, RuntimeError) as exc:
        raise ArtifactCorruptError(f"the estimator {name!r} is not a whole archive: {exc}") from exc
    return len(plain) + total


_ARRAY = re.compile(
    rb"\{'descr': (.+), 'fortran_order': (?:True|False), 'shape': \(((?:\d+, ?)*\d*)\), \} *\n", re.DOTALL
)


def _beginning(plain: memoryview, member: zipfile.ZipInfo) -> memoryview:
    """Return what a member that is stored as it is begins with; to open each takes ten times as long."""
    start = member.header_offset
    # APPNOTE 4.3.7: the name and an extra field follow 30 bytes, which end with the lengths of both.
    lengths = plain[start + 26 : start + 30]
    start += 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
    return plain[start : start + min(member.file_size, _MAX_HEADER_BYTES)]


def _check_array(start: bytes | memoryview, member: zipfile.ZipInfo) -> None:
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
    if promised != member.file_size:
        raise ArtifactCorruptError(
            f"an array in {member.filename[:100]!r} of {promised:,} bytes, got {member.file_size:,}"
        )


@functools.lru_cache(maxsize=64)
def _item_size(described: bytes) -> int:
    try:
        dtype = npy.descr_to_dtype(ast.literal_eval(described.decode("latin1")))
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as exc:
        raise ArtifactCorruptError(f"an array of the dtype {described[:100]!r}") from exc
    if dtype.hasobject:
        raise ArtifactCorruptError("an array of Python objects, which this store never writes")
    return dtype.itemsize


def _canonical(schema: dict[str, Any], members: Mapping[str, bytes]) -> bytes:
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
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w", zipfile.ZIP_STORED) as target:
        written = set()
        for old, new in files.items():
            if new not in written:
                written.add(new)
                target.writestr(zipfile.ZipInfo(new), members[old])
        for name in sorted(set(members) - set(files)):
            target.writestr(zipfile.ZipInfo(name), members[name])
        target.writestr(zipfile.ZipInfo("schema.json"), json.dumps(schema))
    return result.getvalue()


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
