# SPDX-License-Identifier: Apache-2.0
"""The key of an execution: named parts, so that a miss can say which of them changed."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from airflow_ml_provider.artifacts.refs import ArtifactRef
from airflow_ml_provider.caching.code import add_part, code_of
from airflow_ml_provider.caching.values import describe, digest
from airflow_ml_provider.exceptions import UncacheableError

_SHOWN_NAMES = 4


@dataclass(frozen=True)
class CacheKey:
    """
    What makes two executions the same.

    :param parts: A digest for each: ``function m.f``, ``argument data``, ``environment python`` ...
    :param shown: What a person may read of a part, where that is short and no secret.
    :param unknown: What the result may depend on and the key does not hold.
    """

    parts: Mapping[str, str]
    shown: Mapping[str, str] = field(default_factory=dict)
    unknown: Sequence[str] = ()

    @cached_property
    def text(self) -> str:
        """Name the cache entry: 64 hexadecimal digits."""
        return digest(dict(self.parts))


class KeyMaker:
    """Collect the parts of a key."""

    def __init__(self) -> None:
        self._parts: dict[str, str] = {}
        self._shown: dict[str, str] = {}
        self._unknown: list[str] = []

    def key(self) -> CacheKey:
        return CacheKey(dict(self._parts), dict(self._shown), tuple(dict.fromkeys(self._unknown)))

    def add(self, name: str, value: Any, *, show: bool = False) -> None:
        """
        Add a plain value.

        :param show: Its text may be stored and logged.
        :raises UncacheableError: if it has no canonical form.
        """
        self._parts[name] = digest(describe(value))
        if show and value is not None:
            self._shown[name] = str(value)

    def add_function(self, function: Callable[..., Any], packages: Iterable[str] = ()) -> None:
        """Add a function and the project code that it calls."""
        self._take(code_of(function, packages=packages))

    def add_class(self, cls: type, packages: Iterable[str] = ()) -> None:
        """Add an operator's class, as far as it is the project's own."""
        self._take(code_of(cls, packages=packages, task=False))

    def _take(self, code: Any) -> None:
        for name, value in code.parts.items():
            add_part(self._parts, name, value)
        self._unknown.extend(code.unknown)

    def add_argument(self, name: str, value: Any, *, packages: Iterable[str] = ()) -> None:
        """
        Add an argument; of artifacts their digests alone.

        :raises UncacheableError: naming the argument, if it has no canonical form.
        """
        try:
            self._parts[f"argument {name}"] = digest(describe(value, self._code_in(packages)))
        except UncacheableError as exc:
            raise UncacheableError(
                f"the cache key cannot hold the argument {name!r}: {exc}; leave it out of the key by "
                f"@ml.cached(ignore=[{name!r}]) if the result does not depend on it, or return it from a task"
            ) from exc
        refs = list(_refs_in(value))
        if refs:
            shown = ", ".join(f"{ref.name} {ref.version_id}" for ref in refs[:_SHOWN_NAMES])
            self._shown[f"argument {name}"] = shown + (", ..." if len(refs) > _SHOWN_NAMES else "")

    def add_option(self, name: str, value: Any, *, packages: Iterable[str] = ()) -> None:
        """Add an argument of the operator; what has no canonical form is named as unknown."""
        try:
            self._parts[f"option {name}"] = digest(describe(value, self._code_in(packages)))
        except UncacheableError as exc:
            self._unknown.append(f"the operator's option {name}: {exc}")

    def _code_in(self, packages: Iterable[str]) -> Callable[[Any], str]:
        from airflow_ml_provider.caching.values import name_of

        def follow(code: Any) -> str:
            found = code_of(code, packages=packages, task=False)
            self._take(found)
            # Two functions that one function made have one name, and each its own closure.
            return f"{name_of(code)} {digest(found.parts)}"

        return follow

    def add_environment(self, names: Iterable[str]) -> None:
        """Add ``python`` (its minor version) and versions of installed distributions."""
        for name in names:
            if name == "python":
                found = f"{sys.version_info.major}.{sys.version_info.minor}"
            else:
                try:
                    found = metadata.version(name)
                except metadata.PackageNotFoundError:
                    found = "not installed"
                    self._unknown.append(
                        f"a version of {name!r} in environment=, which is no installed distribution here"
                    )
            self.add(f"environment {name}", found, show=True)

    def add_files(self, paths: Iterable[str | Path], folder: Path) -> None:
        """
        Add the content of files, and of all files in folders.

        :param folder: What relative paths are relative to.
        :raises FileNotFoundError: naming the file.
        """
        for given in paths:
            path = folder / given
            if path.is_dir():
                files = sorted(each for each in path.rglob("*") if each.is_file())
                found = {each.relative_to(path).as_posix(): _content_of(each) for each in files}
            elif path.is_file():
                found = {"": _content_of(path)}
            else:
                raise FileNotFoundError(
                    f"@ml.cached(depends_on=[{str(given)!r}]) names neither a file nor a folder: "
                    f"{str(path)!r} is not there"
                )
            self._parts[f"file {given}"] = digest(found)


def changes(key: CacheKey, parts: Mapping[str, str], shown: Mapping[str, str]) -> list[str]:
    """Say which parts of a key differ from those of an earlier one, most telling first."""
    found = []
    for name in sorted({*key.parts, *parts}, key=_telling):
        before, now = parts.get(name), key.parts.get(name)
        if before == now:
            continue
        was, is_now = shown.get(name), key.shown.get(name)
        if before is None:
            found.append(f"{name} is new")
        elif now is None:
            found.append(f"{name} is gone")
        elif was is not None and is_now is not None:
            found.append(f"{name} changed from {was} to {is_now}")
        else:
            found.append(f"{name} changed")
    return found


def _telling(name: str) -> tuple[int, str]:
    order = ("version", "task", "argument", "function", "class", "constant", "module", "file", "option")
    kind = name.partition(" ")[0]
    return (order.index(kind) if kind in order else len(order), name)


def _content_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refs_in(value: Any) -> Iterable[ArtifactRef]:
    if isinstance(value, ArtifactRef):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _refs_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _refs_in(item)
