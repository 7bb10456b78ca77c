# SPDX-License-Identifier: Apache-2.0
"""
Objects of the user's own classes: their state as JSON, and the classes found again without importing
anything.

A class is taken from ``sys.modules`` only: a task has imported its DAG file, and a stored name must not make
it import more. Airflow names a DAG file's module ``unusual_prefix_<hash>_<stem>`` with a hash of its path,
which may differ between workers, so there the stem decides.
"""

from __future__ import annotations

import dataclasses
import enum
import fnmatch
import functools
import importlib
import re
import sys
from collections.abc import Sequence
from typing import Any

from airflow_ml_provider.artifacts.codecs.registry import type_name
from airflow_ml_provider.exceptions import ClassChangedError, UnsupportedTypeError, UntrustedTypeError

_DAG_MODULE = re.compile(r"unusual_prefix_[0-9a-f]+_(.+)")
_CONTAINERS = (str, bytes, int, float, complex, list, dict, tuple, set, frozenset)


def kind_of(value: Any) -> str | None:
    """``enum``, ``namedtuple``, ``pydantic`` or ``dataclass``; None for anything else."""
    cls = type(value)
    if isinstance(value, enum.Enum):
        return "enum"
    if isinstance(value, tuple):
        return "namedtuple" if isinstance(getattr(cls, "_fields", None), tuple) else None
    if isinstance(value, (*_CONTAINERS, type)):
        return None
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(value, pydantic.BaseModel):
        return "pydantic"
    return "dataclass" if dataclasses.is_dataclass(value) else None


def name_of(cls: type) -> str:
    """
    Return ``module:qualname`` of a class that can be found again.

    :raises UnsupportedTypeError: for classes made inside functions.
    """
    if _look_up(sys.modules.get(cls.__module__), cls.__qualname__) is not cls:
        raise UnsupportedTypeError(
            f"values of {type_name(cls)} cannot be read back, because the class is not found "
            "under that name; "
            "define it at the top of a module"
        )
    return f"{cls.__module__}:{cls.__qualname__}"


def find(name: str, allowed: Sequence[str]) -> type:
    """
    Find a class by :func:`name_of`.

    :param allowed: Glob patterns of dotted paths that may be imported for it.
    :raises UntrustedTypeError: if nothing here imported it, and no pattern allows that.
    """
    module, _, qualname = name.partition(":")
    found = _look_up(sys.modules.get(module), qualname)
    match = _DAG_MODULE.fullmatch(module)
    if found is None and match:
        stem = match[1]
        candidates = {
            id(candidate): candidate
            for other, loaded in list(sys.modules.items())
            if ((there := _DAG_MODULE.fullmatch(other)) and there[1] == stem)
            or (other == "__main__" and _stem(loaded) == stem)
            if (candidate := _look_up(loaded, qualname)) is not None
        }
        if len(candidates) > 1:
            raise UntrustedTypeError(
                f"{len(candidates)} DAG files named {stem!r} define {qualname!r}; "
                "move the class to a module of its own"
            )
        found = next(iter(candidates.values()), None)
    dotted = f"{module}.{qualname}"
    if found is None and any(fnmatch.fnmatchcase(dotted, pattern) for pattern in allowed):
        found = _look_up(importlib.import_module(module), qualname)
        if found is None:
            raise ClassChangedError(
                f"a value of {dotted} was stored, but {module!r} has no class {qualname!r} now"
            )
    if found is None:
        raise UntrustedTypeError(
            f"a value of {dotted} was stored, but this process has not imported that class, and "
            "stored values "
            "import nothing; import it in the DAG file, or add it to [ml_provider] allowed_classes"
        )
    return found


def _stem(module: Any) -> str:
    file = getattr(module, "__file__", None) or ""
    return file.rsplit("/", 1)[-1].removesuffix(".py")


def _look_up(module: Any, qualname: str) -> type | None:
    found = module
    for part in qualname.split("."):
        # Reading vars() runs no __getattr__ of a lazy module.
        found = vars(found).get(part) if hasattr(found, "__dict__") else None
        if found is None:
            return None
    return found if isinstance(found, type) else None


def state_of(value: Any, kind: str) -> dict[str, dict[str, Any]]:
    """Return the values that make up an object, by the parts in which :func:`rebuild` wants them."""
    cls = type(value)
    if kind == "enum":
        if value.name is None or cls.__members__.get(value.name) is not value:
            raise UnsupportedTypeError(
                f"{value!r} is not one named member of {type_name(cls)}; return its value"
            )
        return {"member": {"name": value.name, "value": value.value}}
    if kind == "namedtuple":
        if own := getattr(value, "__dict__", None):
            raise UnsupportedTypeError(
                f"this {type_name(cls)} has the attribute {next(iter(own))!r} beside its fields, which would "
                "be lost; make it a field"
            )
        return {"fields": dict(zip(cls._fields, value, strict=True))}
    if kind == "pydantic":
        state = value.__getstate__()
        private = state["__pydantic_private__"]
        return {
            "fields": dict(state["__dict__"]),
            "set": dict.fromkeys(sorted(state["__pydantic_fields_set__"])),
            **({} if state["__pydantic_extra__"] is None else {"extra": dict(state["__pydantic_extra__"])}),
            **({} if private is None else {"private": dict(private)}),
        }
    names = [field.name for field in dataclasses.fields(value)]
    known = set(names)
    extra = {
        name: item
        for name, item in getattr(value, "__dict__", {}).items()
        if name not in known and not isinstance(getattr(cls, name, None), functools.cached_property)
    }
    fields = {name: getattr(value, name) for name in names if hasattr(value, name)}
    return {"fields": fields, **({"extra": extra} if extra else {})}


def field_names(cls: type, kind: str) -> list[str]:
    """Names of the fields that values of a class have now."""
    if kind == "namedtuple":
        return list(cls._fields)  # type: ignore[attr-defined]
    if kind == "pydantic":
        return sorted(cls.model_fields)  # type: ignore[attr-defined]
    return sorted(field.name for field in dataclasses.fields(cls))


def rebuild(
    name: str, kind: str, defined: list[str], state: dict[str, dict[str, Any]], allowed: Sequence[str]
) -> Any:
    """
    Make an object again from its state, without running its ``__init__`` or validators.

    :param defined: Fields that the class had when the value was written.
    :raises UntrustedTypeError: if the class is not imported here.
    :raises ClassChangedError: if the class has other fields, members or another nature now.
    """
    cls: Any = find(name, allowed)
    if kind == "enum":
        wanted = state["member"]
        member = cls.__members__.get(wanted["name"]) if issubclass(cls, enum.Enum) else None
        if (
            member is None
            or type(member.value) is not type(wanted["value"])
            or member.value != wanted["value"]
        ):
            now = None if member is None else member.value
            raise ClassChangedError(
                f"{type_name(cls)}.{wanted['name']} was stored with the value "
                f"{wanted['value']!r}; it is {now!r} now"
            )
        return member
    natures = {
        "namedtuple": issubclass(cls, tuple) and hasattr(cls, "_fields"),
        "pydantic": hasattr(cls, "__pydantic_fields__") and hasattr(cls, "model_fields"),
        "dataclass": dataclasses.is_dataclass(cls),
    }
    if not natures.get(kind):
        raise ClassChangedError(f"{type_name(cls)} was a {kind} when its value was stored; it is none now")
    now = field_names(cls, kind)
    if now != defined:
        raise ClassChangedError(
            f"{type_name(cls)} had the fields {', '.join(defined) or 'none'} when its value was "
            "stored; now it has "
            f"{', '.join(now) or 'none'}. Re-run the task that wrote it, or restore the class"
        )
    if kind == "namedtuple":
        return tuple.__new__(cls, (state["fields"][field] for field in now))
    made = cls.__new__(cls)
    if kind == "pydantic":
        cls.__setstate__(
            made,
            {
                "__dict__": state["fields"],
                "__pydantic_fields_set__": set(state["set"]),
                "__pydantic_extra__": state.get("extra"),
                "__pydantic_private__": state.get("private"),
            },
        )
        return made
    for part in ("fields", "extra"):
        for field, item in state.get(part, {}).items():
            object.__setattr__(made, field, item)
    return made
