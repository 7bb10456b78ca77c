# SPDX-License-Identifier: Apache-2.0
"""Values as canonical JSON: equal text for what is the same to a function, different text for what is not."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import functools
import hashlib
import json
import math
import re
import types
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePath
from typing import Any
from uuid import UUID

from airflow_ml_provider.artifacts.refs import ArtifactRef
from airflow_ml_provider.exceptions import UncacheableError

MAX_DEPTH = 100

CODE = (types.FunctionType, types.MethodType, type)


def digest(description: Any) -> str:
    """Hash canonical JSON: 64 hexadecimal digits of SHA-256."""
    text = json.dumps(description, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def describe(value: Any, on_code: Callable[[Any], str] | None = None) -> Any:
    """
    Return canonical JSON of a value. Of an artifact only its digest counts, and nothing of it is loaded.

    :param on_code: Gets each function and class in the value and names what its code is.
    :raises UncacheableError: naming the part that has no canonical form.
    """
    return _describe(value, on_code or name_of, 0)


def name_of(code: Any) -> str:
    """Name a function or class, the same wherever a DAG bundle is unpacked."""
    module = getattr(code, "__module__", None) or "builtins"
    # Airflow calls the module of a DAG file after a hash of the file's path.
    module = re.sub(r"^unusual_prefix_[0-9a-f]+_", "", module)
    return f"{module}.{getattr(code, '__qualname__', type(code).__qualname__)}"


def _describe(value: Any, on_code: Callable[[Any], str], depth: int) -> Any:  # noqa: PLR0911, PLR0912
    if depth > MAX_DEPTH:
        raise UncacheableError(f"values are nested more than {MAX_DEPTH} deep, or contain themselves")
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return {"int": str(value)}
    if kind is float:
        return {"float": "nan" if math.isnan(value) else value.hex()}
    if isinstance(value, ArtifactRef):
        return {"artifact": value.digest, "format": value.format, "type": value.type}

    def again(part: Any) -> Any:
        return _describe(part, on_code, depth + 1)

    if kind in (list, tuple):
        return {kind.__name__: [again(part) for part in value]}
    if kind in (set, frozenset):
        return {kind.__name__: sorted(digest(again(part)) for part in value)}
    if kind is dict or kind is types.MappingProxyType:
        # By the keys' digests alone: NaN is a key as often as one likes.
        items = [[digest(again(key)), again(part)] for key, part in value.items()]
        return {"dict": sorted(items, key=lambda item: str(item[0]))}
    if isinstance(value, enum.Enum):
        return {"enum": on_code(kind), "name": value.name}
    plain = _plain(value)
    if plain is not None:
        return plain
    if isinstance(value, CODE):
        bound = getattr(value, "__self__", None)
        found = {"code": on_code(value)}
        return found if bound is None or isinstance(bound, type) else {**found, "self": again(bound)}
    if isinstance(value, types.BuiltinFunctionType):
        owner = value.__self__
        if owner is None or isinstance(owner, (type, types.ModuleType)):
            return {"code": name_of(value)}
        return {"code": name_of(value), "self": again(owner)}
    if isinstance(value, types.ModuleType):
        return {"module": value.__name__}
    if isinstance(value, functools.partial):
        return {"partial": [again(value.func), again(value.args), again(value.keywords)]}
    own = getattr(value, "__cache_key__", None)
    if callable(own):
        return {"type": on_code(kind), "key": again(own())}
    if dataclasses.is_dataclass(value):
        fields = [(item.name, getattr(value, item.name)) for item in dataclasses.fields(value)]
        return {"type": on_code(kind), "fields": {name: again(part) for name, part in fields}}
    if isinstance(value, (tuple, list)):
        return {"type": on_code(kind), "items": [again(part) for part in tuple(value)]}
    if isinstance(value, collections.OrderedDict):
        return {"type": on_code(kind), "ordered": [[again(key), again(part)] for key, part in value.items()]}
    if isinstance(value, Mapping):
        return {"type": on_code(kind), "items": again(dict(value))}
    if hasattr(value, "model_dump") and hasattr(kind, "model_fields"):
        # model_dump() leaves out what is excluded, and what a subclass adds to the type of a field.
        found = {name: again(getattr(value, name)) for name in kind.model_fields}
        return {"type": on_code(kind), "fields": found, "extra": again(value.model_extra)}
    return _content(value)


def _plain(value: Any) -> Any:  # noqa: PLR0911 - one for each kind of value
    if isinstance(value, (bytes, bytearray)):
        return {type(value).__name__: hashlib.sha256(value).hexdigest()}
    if isinstance(value, (dt.datetime, dt.timedelta)) and (exact := _of_pandas(value)):
        return exact
    if isinstance(value, dt.datetime):
        aware = value.tzinfo is not None
        when = value.astimezone(dt.UTC) if aware else value
        found = {"datetime": dt.datetime.isoformat(when.replace(tzinfo=None)), "aware": aware}
        # One moment has another date in another zone; UTC is one zone, whoever wrote it.
        return found | {"zone": zone} if aware and (zone := _zone_of(value)) else found
    if isinstance(value, dt.time) and value.tzinfo is not None:
        return {"time": value.isoformat(), "zone": str(value.tzinfo)}
    if isinstance(value, (dt.date, dt.time)):
        return {type(value).__name__: value.isoformat()}
    if isinstance(value, dt.timedelta):
        return {"timedelta": [value.days, value.seconds, value.microseconds]}
    if isinstance(value, dt.tzinfo):
        return {"zone": str(value)}
    if isinstance(value, (Decimal, Fraction, UUID, PurePath, complex, range, slice)):
        return {type(value).__name__: repr(value)}
    if isinstance(value, re.Pattern):
        return {"pattern": repr(value.pattern), "flags": value.flags}
    return None


def _zone_of(when: dt.datetime) -> str | None:
    """Name the zone of a moment; None for UTC."""
    name = getattr(when.tzinfo, "key", None) or getattr(when.tzinfo, "zone", None)
    if name is None:
        return str(when.utcoffset()) if when.utcoffset() else None
    return None if name in ("UTC", "Etc/UTC") else str(name)


def _of_pandas(value: Any) -> Any:
    """Describe what pandas' times hold and Python's do not; None where there is no such thing."""
    if str(value) == "NaT":
        return {"NaT": type(value).__name__}
    if rest := getattr(value, "nanosecond", 0) or getattr(value, "nanoseconds", 0):
        to_python = getattr(value, "to_pytimedelta", None)
        whole = value.to_pydatetime(warn=False) if to_python is None else to_python()
        return {"nanoseconds": rest, "of": _plain(whole)}
    return None


def _content(value: Any) -> Any:
    """Describe what a codec writes by what it would write; writing is deterministic."""
    import tempfile

    from airflow_ml_provider.artifacts.store import ArtifactStore
    from airflow_ml_provider.exceptions import ArtifactError

    name = name_of(type(value))
    try:
        with tempfile.TemporaryDirectory(prefix="airflow-ml-key-") as folder:
            store = ArtifactStore(f"file://{folder}", signing_key=bytes(32), previews=False)
            ref = store.save(value, "argument")
    except (ArtifactError, TypeError, ValueError) as exc:
        raise UncacheableError(f"a {name} has no canonical form: {exc}") from exc
    return {"artifact": ref.digest, "format": ref.format, "type": ref.type}
