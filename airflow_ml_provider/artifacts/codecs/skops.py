# SPDX-License-Identifier: Apache-2.0
"""
``skops-v1``: estimators in skops' format, read back without pickle.

The archive is written again with ids counted from one and without times, so equal estimators give equal
bytes, and then compressed as a whole with zstd.
"""

from __future__ import annotations

import fnmatch
import io
import json
import zipfile
from typing import Any

import zstandard

from airflow_ml_provider.artifacts import preview
from airflow_ml_provider.artifacts.codecs.registry import Encoded, Stored, type_name
from airflow_ml_provider.artifacts.libraries import import_skops
from airflow_ml_provider.exceptions import ArtifactCorruptError, UnsupportedTypeError, UntrustedTypeError

skops_io = import_skops()

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


def dump(value: Any) -> Encoded:
    try:
        archive = skops_io.dumps(value)
    except Exception as exc:
        raise UnsupportedTypeError(
            f"skops cannot write this {type_name(type(value))}: {exc}; log it with @task.train, "
            "or save it to a "
            "file and return its Path"
        ) from exc
    # What nobody could load is refused now rather than in the next task.
    if unknown := _untrusted(skops_io.get_untrusted_types(data=archive), ()):
        own = [
            name
            for name in unknown
            if name.split(".")[0] not in ("builtins", "os", "sys", "posix", "subprocess")
        ]
        if own != unknown:
            raise UnsupportedTypeError(
                f"{type_name(type(value))} holds {unknown}, which is never loaded back"
            )
    plain = _canonical(archive)
    compressed = zstandard.ZstdCompressor(level=1, threads=0).compress(plain)
    return Encoded(
        parts=[memoryview(compressed)],
        schema={"class": type_name(type(value)), "params": _params(value), "needs": unknown[:20]},
        preview=preview.short(_summary(value), 400),
        type=type_name(type(value)),
        needs=tuple(unknown),
    )


def load(data: memoryview, info: Stored) -> Any:
    limit = zstandard.frame_content_size(data)
    if limit < 0:
        raise ArtifactCorruptError(f"the estimator {info.name!r} does not say how large it is")
    plain = zstandard.ZstdDecompressor().decompress(data)
    found = skops_io.get_untrusted_types(data=plain)
    if refused := _untrusted(found, info.allowed_classes):
        raise UntrustedTypeError(
            f"the estimator {info.name!r} holds {', '.join(refused)}; if these are yours, add them to "
            "[ml_provider] allowed_classes"
        )
    try:
        return skops_io.loads(plain, trusted=found)
    except skops_io.exceptions.UntrustedTypesFoundException as exc:
        raise UntrustedTypeError(f"the estimator {info.name!r} is refused by skops: {exc}") from exc


def _canonical(archive: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(archive)) as source:
        schema = json.loads(source.read("schema.json"))
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
                    target.writestr(zipfile.ZipInfo(new), source.read(old))
            left = set(source.namelist()) - set(files) - {"schema.json"}
            for name in sorted(left):
                target.writestr(zipfile.ZipInfo(name), source.read(name))
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
