# SPDX-License-Identifier: Apache-2.0
"""
Layers that stack on a task of any flavour.

A layer is put around ``execute`` by a subclass of the task's operator class, made on the fly. It keeps the
name and module of the class, so that Airflow shows the task as what it is, and needs no arguments of its own,
so that ``.partial()``, ``.expand()`` and ``.override()`` work as they do without it.

The inputs of such a task arrive as references. What no layer answers for is loaded just before the operator's
own ``execute``.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from airflow.sdk.bases.decorator import _TaskDecorator
from airflow.sdk.bases.operator import BaseOperator
from airflow.sdk.definitions.mappedoperator import MappedOperator, OperatorPartial
from airflow.sdk.definitions.xcom_arg import XComArg

from airflow_ml_provider.xcom import reading
from airflow_ml_provider.xcom.annotations import parameters_that_take_refs
from airflow_ml_provider.xcom.loading import load_refs, materialised, refs_in

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context

T = TypeVar("T")

_LAYERS = "ml_layers"
_BELOW = "ml_operator_class"


class Layer(Protocol):
    """What is put around the execution of a task."""

    name: ClassVar[str]
    """As users write it, for messages."""
    links: ClassVar[Sequence[BaseOperatorLink]]
    """Buttons on the task's page."""

    def check(self, operator_class: type, function: Callable[..., Any] | None) -> None:
        """Refuse a task that the layer cannot work for, when the DAG is parsed."""

    def run(self, operator: Any, context: Context, execute: Callable[[Context], Any]) -> Any:
        """Return the task's result, by calling ``execute`` or in another way."""

    def resume(self, operator: Any, context: Context, proceed: Callable[[Context], Any]) -> Any:
        """Return the result of a task that was deferred and goes on; by default, what ``proceed`` gives."""
        return proceed(context)

    def kill(self, operator: Any) -> None:
        """Take note that the task is being ended from outside. Called in signal handlers."""
        return

    def source(self, operator: Any, source: str) -> str:
        """Return what runs in an interpreter of its own, by default as it is."""
        return source


def stack(task: T, layer: Layer) -> T:
    """
    Put a layer around a task.

    :param task: What a task decorator made of a function, the task that calling it gave, an operator, or
        ``SomeOperator.partial(...)``. Operators change in place.
    :raises TypeError: if it is none of them.
    """
    found: Any = task
    if isinstance(found, _TaskDecorator):
        layer.check(found.operator_class, found.function)
        import attr

        return attr.evolve(found, operator_class=layered(found.operator_class, layer))
    if isinstance(found, XComArg):
        stack(found.operator, layer)
        return task
    if isinstance(found, MappedOperator):
        layer.check(found.operator_class, getattr(found, "python_callable", None))
        found.operator_class = layered(found.operator_class, layer)
        found.operator_extra_links = found.operator_class.operator_extra_links
        return task
    if isinstance(found, OperatorPartial):
        layer.check(found.operator_class, found.kwargs.get("python_callable"))
        found.operator_class = layered(found.operator_class, layer)
        return task
    if isinstance(found, BaseOperator):
        layer.check(type(found), getattr(found, "python_callable", None))
        object.__setattr__(found, "__class__", layered(type(found), layer))
        return task
    kind = (
        "a function" if inspect.isfunction(found) else f"{type(found).__module__}.{type(found).__qualname__}"
    )
    raise TypeError(
        f"{layer.name} stacks on a task, got {kind}; write it above @task (or @task.train, @task.virtualenv "
        "...), or call it with an operator"
    )


def layered(operator_class: type, layer: Layer) -> type:
    """Return a subclass whose ``execute`` runs inside a layer; layers that are there stay inside of it."""
    below = getattr(operator_class, _BELOW, operator_class)
    layers = (*getattr(operator_class, _LAYERS, ()), layer)
    links = operator_class.operator_extra_links  # type: ignore[attr-defined]
    namespace = {
        "__module__": below.__module__,
        "__qualname__": below.__qualname__,
        "__doc__": below.__doc__,
        _BELOW: below,
        _LAYERS: layers,
        "ml_lazy_artifacts": True,
        "execute": _execute,
        "resume_execution": _resume,
        "on_kill": _on_kill,
    }
    if hasattr(below, "get_python_source"):
        namespace["get_python_source"] = _get_python_source
    if isinstance(links, (list, tuple, set, frozenset)):
        known = {type(link) for link in links}
        namespace["operator_extra_links"] = (
            *links,
            *(each for each in layer.links if type(each) not in known),
        )
    return type(below)(below.__name__, (below,), namespace)


def below(operator: Any) -> Any:
    """Return the operator's class without the layers."""
    return below_class(type(operator))


def below_class(operator_class: type) -> Any:
    """Return a class without the layers."""
    return getattr(operator_class, _BELOW, operator_class)


def _execute(self: Any, context: Context) -> Any:
    def innermost(context: Context) -> Any:
        load_inputs(self)
        return below(self).execute(self, context)

    run: Callable[[Context], Any] = innermost
    for layer in getattr(self, _LAYERS):
        run = functools.partial(_run, layer, self, run)
    return run(context)


def _resume(self: Any, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
    def innermost(context: Context) -> Any:
        load_inputs(self)  # Airflow has rendered them anew
        return below(self).resume_execution(self, next_method, next_kwargs, context)

    run: Callable[[Context], Any] = innermost
    for layer in getattr(self, _LAYERS):
        run = functools.partial(layer.resume, self, proceed=run)
    return run(context)


def _on_kill(self: Any) -> None:
    for layer in getattr(self, _LAYERS):
        layer.kill(self)
    below(self).on_kill(self)


def layers_of(operator_class: type) -> tuple[Layer, ...]:
    """Return what is stacked on an operator's class, the innermost first."""
    found: tuple[Layer, ...] = getattr(operator_class, _LAYERS, ())
    return found


def _run(layer: Layer, operator: Any, inner: Callable[[Context], Any], context: Context) -> Any:
    return layer.run(operator, context, inner)


def _get_python_source(self: Any) -> str:
    """Return the source that runs elsewhere, where our decorators are not known."""
    source = _without_ours(self, below(self).get_python_source(self))
    for layer in getattr(self, _LAYERS):
        source = layer.source(self, source)
    return source


def _without_ours(operator: Any, source: str) -> str:
    try:
        function = ast.parse(textwrap.dedent(source)).body[0]
    except (SyntaxError, IndexError):
        return source
    lines = textwrap.dedent(source).splitlines(keepends=True)
    known = inspect.getclosurevars(inspect.unwrap(operator.python_callable))
    scope = {**getattr(operator.python_callable, "__globals__", {}), **known.nonlocals}
    above = _decorators_above_task(operator)
    decorators: list[ast.expr] = getattr(function, "decorator_list", [])
    for place, decorator in reversed(list(enumerate(decorators))):
        if place < above or _is_ours(decorator, scope):
            del lines[decorator.lineno - 1 : decorator.end_lineno]
    return "".join(lines)


def _decorators_above_task(operator: Any) -> int:
    """Count the decorators above ``@task...``: they stack on the task, whatever they are called."""
    name = getattr(operator, "custom_operator_name", "").removeprefix("@")
    try:
        function = ast.parse(textwrap.dedent(inspect.getsource(operator.python_callable))).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):
        return 0
    for place, decorator in enumerate(getattr(function, "decorator_list", [])):
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        if name and ast.unparse(called) == name:
            return place
    return 0


def _is_ours(decorator: ast.expr, scope: dict[str, Any]) -> bool:
    while isinstance(decorator, ast.Call):
        decorator = decorator.func
    names = ast.unparse(decorator).split(".")
    found = scope.get(names[0])
    for name in names[1:]:
        found = getattr(found, name, None)
    module = getattr(found, "__module__", None) or ""
    return found is not None and module.startswith("airflow_ml_provider.")


def materialise_inputs(operator: Any) -> None:
    """Fetch the list of references behind the lazy results of mapped tasks among the inputs."""
    for name in operator.template_fields:
        value = getattr(operator, name, None)
        found = materialised(value)
        if found is not value:
            setattr(operator, name, found)


def load_inputs(operator: Any) -> None:
    """Put values in place of references, unless the operator's class or parameter takes references."""
    materialise_inputs(operator)
    if getattr(below(operator), "ml_lazy_artifacts", False):
        return
    function = reading.function_of(operator)
    as_refs = parameters_that_take_refs(function) if function is not None else frozenset()
    for name in operator.template_fields:
        value: Any = getattr(operator, name, None)
        if not any(refs_in(value)):
            continue
        if name == "op_kwargs":
            value = {key: load_refs(item, skip=key in as_refs) for key, item in value.items()}
        elif name == "op_args" and function is not None:
            parameters = _positional(function, len(value))
            value = [
                load_refs(item, skip=parameter in as_refs)
                for item, parameter in zip(value, parameters, strict=True)
            ]
        else:
            value = load_refs(value)
        setattr(operator, name, value)


def _positional(function: Callable[..., Any], count: int) -> list[str | None]:
    names: list[str | None] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            names.extend([name] * max(count - len(names), 0))
        elif parameter.kind < parameter.VAR_POSITIONAL:
            names.append(name)
    return [*names, *([None] * count)][:count]
