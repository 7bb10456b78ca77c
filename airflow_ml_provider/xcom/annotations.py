# SPDX-License-Identifier: Apache-2.0
"""Which parameters of a user's function take references in place of values."""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable
from typing import Any

from airflow_ml_provider.artifacts.refs import ArtifactRef


def parameters_that_take_refs(function: Callable[..., Any]) -> frozenset[str]:
    """Return the names of the parameters whose annotation mentions :class:`ArtifactRef`."""
    plain = _plain_function(function)
    annotations = dict(getattr(plain, "__annotations__", {}))
    annotations.pop("return", None)
    names = getattr(plain, "__globals__", {})
    return frozenset(name for name, value in annotations.items() if _mentions_ref(value, names))


def _plain_function(function: Callable[..., Any]) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    return function if inspect.isroutine(function) else type(function).__call__


def _mentions_ref(annotation: Any, names: dict[str, Any]) -> bool:
    if isinstance(annotation, str):
        # One annotation at a time: a neighbour may name what only type checkers import.
        holder = types.SimpleNamespace(__annotations__={"it": annotation})
        try:
            annotation = typing.get_type_hints(holder, globalns=names, include_extras=True)["it"]
        except (NameError, AttributeError, TypeError, SyntaxError):
            return re.search(rf"\b{ArtifactRef.__name__}\b", annotation) is not None
    if isinstance(annotation, typing.ForwardRef):
        return _mentions_ref(annotation.__forward_arg__, names)
    return annotation is ArtifactRef or any(
        _mentions_ref(item, names) for item in typing.get_args(annotation) if not isinstance(item, str)
    )
