# SPDX-License-Identifier: Apache-2.0
"""What a user's function is called with: artifacts loaded, scalars told apart as parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.sdk.definitions.context import KNOWN_CONTEXT_KEYS

from airflow_ml_provider.xcom.annotations import parameters_that_take_refs
from airflow_ml_provider.xcom.loading import load_refs, materialised, refs_in

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_ml_provider.artifacts.refs import ArtifactRef

_SCALARS = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class Call:
    """One call of a user's function, ready to make."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    refs: tuple[ArtifactRef, ...]
    """The artifacts among the arguments, loaded or not."""
    scalars: dict[str, Any]
    """Arguments that are plain values and no artifacts, defaults included; a dict gives ``name.key``."""
    loaded: dict[str, Any]
    """All arguments by name, context variables left out."""


def prepare_call(
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    context_keys: Collection[str] = (),
) -> Call:
    """
    Load the artifacts among the arguments, except where a parameter is annotated ``ArtifactRef``.

    :param context_keys: Names that Airflow fills from the task's context; they are no parameters.
    :raises TypeError: if the function does not take these arguments.
    """
    signature = inspect.signature(function)
    bound = signature.bind(*args, **kwargs)
    as_refs = parameters_that_take_refs(function)
    refs: list[ArtifactRef] = []
    stored: set[str] = set()
    for name, given in bound.arguments.items():
        value = materialised(given)
        found = list(refs_in(value)) if name not in context_keys else []
        refs.extend(found)
        if found:
            stored.add(name)
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            stored.update(key for key, item in value.items() if any(refs_in(item)))
        bound.arguments[name] = load_refs(value, skip=name in as_refs)

    complete = inspect.BoundArguments(signature, bound.arguments.copy())
    complete.apply_defaults()
    named: dict[str, Any] = {}
    for name, value in complete.arguments.items():
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            named.update(value)
        else:
            named[name] = value
    named = {name: value for name, value in named.items() if name not in context_keys}
    plain = {name: value for name, value in named.items() if name not in stored}
    return Call(bound.args, bound.kwargs, tuple(refs), _scalars(plain), named)


def scalars_of(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what :class:`Call` has as scalars, before Airflow's context is filled in and nothing loaded."""
    signature = inspect.signature(function)
    bound = bound_to(signature, args, kwargs)
    bound.apply_defaults()
    named: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            named.update(value)
        else:
            named[name] = value
    return _scalars(
        {
            name: value
            for name, value in named.items()
            if name not in KNOWN_CONTEXT_KEYS and name != "templates_dict" and not any(refs_in(value))
        }
    )


def bound_to(
    signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> inspect.BoundArguments:
    """
    Bind what an operator has for its function, which may be a part of what the function needs.

    Keywords that the function does not take are left out, as Airflow leaves them out of the call.
    """
    takes_all = any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values())
    taken = {name: value for name, value in kwargs.items() if takes_all or name in signature.parameters}
    return signature.bind_partial(*args, **taken)


class LoadsArguments:
    """
    Mixed into operators that call a user's function: it gets values where its arguments were references.

    The function of an async task is called another way, but with the same arguments.
    """

    python_callable: Callable[..., Any]
    op_args: Any
    op_kwargs: Any

    def execute_callable(self) -> Any:
        self._load_arguments()
        return super().execute_callable()  # type: ignore[misc]

    async def aexecute_callable(self) -> Any:
        self._load_arguments()
        return await super().aexecute_callable()  # type: ignore[misc]

    def _load_arguments(self) -> None:
        call = prepare_call(
            self.python_callable,
            self.op_args,
            self.op_kwargs,
            context_keys={*KNOWN_CONTEXT_KEYS, "templates_dict"},
        )
        self.op_args, self.op_kwargs = call.args, call.kwargs
        self.before_call(call)

    def before_call(self, call: Call) -> None:
        """Do what the operator does between loading the arguments and calling the function."""


def _scalars(named: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in named.items():
        if isinstance(value, _SCALARS):
            found[name] = value
        elif isinstance(value, dict) and all(isinstance(key, str) for key in value):
            found |= {f"{name}.{key}": item for key, item in value.items() if isinstance(item, _SCALARS)}
    return found
