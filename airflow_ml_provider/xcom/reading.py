# SPDX-License-Identifier: Apache-2.0
"""
What a value is read for: as an argument, as one element of a mapped argument, or by the user's own code.

Airflow tells a backend nothing of this, so the stack is asked. Where it does not say, the whole value is
read, which is right always and fast most of the time.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_ml_provider.xcom.annotations import parameters_that_take_refs

if TYPE_CHECKING:
    from airflow_ml_provider.xcom.state import TaskState

_XCOM_ARG = "airflow.sdk.definitions.xcom_arg"
_EXPAND_INPUT = "airflow.sdk.definitions._internal.expandinput"
_LAZY_SEQUENCE = "airflow.sdk.execution_time.lazy_sequence"


@dataclass(frozen=True)
class Reading:
    """
    What is to be made of a value that is read.

    :param one_element: Airflow takes one element of the list or dict, and nobody else sees it.
    :param keyed: The element is a dict of arguments, or will be (``expand_kwargs``).
    :param refs: The parameters that take references; True: the value does so whatever it becomes.
    :param parameters: The parameters that the value becomes, unless it is keyed.
    """

    one_element: bool = False
    keyed: bool = False
    refs: frozenset[str] | bool = False
    parameters: frozenset[str] = frozenset()

    def takes_refs(self, name: str | None = None) -> bool:
        """Tell whether references stand for artifacts, of an argument or of the value as it is."""
        if isinstance(self.refs, bool):
            return self.refs
        if name is not None:
            return name in self.refs
        # One value for two parameters, of which one wants the value, is the value.
        return not self.keyed and bool(self.parameters) and self.parameters <= self.refs


def of(task: TaskState) -> Reading:
    """Tell what the running task reads a value for."""
    operator = task.context.get("task")
    found = _resolving()
    # An item of the outputs of a mapped task is an element itself.
    one_element = any(_expands(resolved) for resolved in found) and not any(
        _is_lazy_sequence(resolved) for resolved in found
    )
    if getattr(operator, "ml_lazy_artifacts", False) or getattr(
        getattr(operator, "operator_class", None), "ml_lazy_artifacts", False
    ):
        # What the user's own code pulls is a value in such a task too, and so is what .map() is called with.
        return Reading(one_element, refs=bool(found) and not any(_maps(resolved) for resolved in found))
    function = function_of(operator) if found else None
    refs = parameters_that_take_refs(function) if function is not None else frozenset()
    # A function given to .map() gets the value.
    if not refs or any(_maps(resolved) for resolved in found):
        return Reading(one_element)
    outermost = found[-1]
    if _expands(outermost):
        if not isinstance(outermost.value, Mapping):
            return Reading(one_element, keyed=True, refs=refs)
        names = {name for name, given in outermost.value.items() if _holds(given, found[0])}
    else:
        names = _parameters_given(operator, function, outermost)
    return Reading(one_element, refs=refs, parameters=frozenset(names))


def _expands(resolved: Any) -> bool:
    return hasattr(resolved, "EXPAND_INPUT_TYPE")


def _maps(resolved: Any) -> bool:
    return hasattr(resolved, "callables")


def _is_lazy_sequence(resolved: Any) -> bool:
    return type(resolved).__module__ == _LAZY_SEQUENCE


def _resolving() -> list[Any]:
    """Return what Airflow resolves right now on behalf of nobody's code but its own, innermost first."""
    found: list[Any] = []
    frame = sys._getframe(2)
    entered = False
    while frame is not None:
        module = frame.f_globals.get("__name__") or ""
        inside = module.startswith("airflow.sdk.")
        if entered and not inside:
            break
        entered = entered or inside
        name = frame.f_code.co_name
        if name == "render_template":
            break
        if (name == "resolve" and module in (_XCOM_ARG, _EXPAND_INPUT)) or (
            name == "__getitem__" and module in (_XCOM_ARG, _LAZY_SEQUENCE)
        ):
            found.append(frame.f_locals.get("self"))
        frame = frame.f_back  # type: ignore[assignment]
    return found


def function_of(operator: Any) -> Callable[..., Any] | None:
    """Return the function that a task calls in its own process; what runs elsewhere cannot use references."""
    module = sys.modules.get("airflow.providers.standard.operators.python")
    if module is None:
        return None
    cls = getattr(operator, "operator_class", None) or type(operator)
    if not isinstance(cls, type) or not issubclass(cls, module.PythonOperator):
        return None
    if issubclass(cls, module._BasePythonVirtualenvOperator):
        return None
    function = getattr(operator, "python_callable", None)
    return function if callable(function) else None


def _parameters_given(operator: Any, function: Any, wanted: Any) -> set[str]:
    """Name the parameters of a task whose arguments are or hold ``wanted``."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return set()
    positional = [(name, param) for name, param in parameters.items() if param.kind <= param.VAR_POSITIONAL]
    rest = next((name for name, param in parameters.items() if param.kind is param.VAR_KEYWORD), "")
    found = set()
    for place, value in enumerate(getattr(operator, "op_args", None) or ()):
        if _holds(value, wanted) and positional:
            found.add(positional[min(place, len(positional) - 1)][0])
    for name, value in (getattr(operator, "op_kwargs", None) or {}).items():
        if _holds(value, wanted):
            found.add(name if name in parameters else rest)
    return found


def _holds(value: Any, wanted: Any) -> bool:
    """Tell whether an argument is ``wanted``, made from it, or a list or dict with it inside."""
    if value is wanted:
        return True
    kind = type(value)
    if kind in (list, tuple, set):
        parts: Any = value
    elif kind is dict:
        parts = value.values()
    elif kind.__module__ == _XCOM_ARG:
        parts = [*getattr(value, "args", ()), getattr(value, "arg", None)]
    else:
        return False
    if _is_lazy_sequence(wanted) and value is wanted._xcom_arg:
        return True
    return any(_holds(part, wanted) for part in parts)


def lazily(parts: Any, load: Callable[[Any], Any]) -> Any:
    """Return a list or dict that is loaded element by element, each time that one is taken."""
    return _Items(parts, load) if type(parts) is dict else _Elements(parts, load)


class _Elements(Sequence[Any]):
    def __init__(self, parts: list[Any], load: Callable[[Any], Any]) -> None:
        self._parts = parts
        self._load = load

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._load(part) for part in self._parts[index]]
        return self._load(self._parts[index])


class _Items(dict[str, Any]):
    """Iterating over the items loads them up to where it ends."""

    def __init__(self, parts: dict[str, Any], load: Callable[[Any], Any]) -> None:
        super().__init__(parts)
        self._load = load

    def __getitem__(self, key: str) -> Any:
        return self._load(super().__getitem__(key))

    def get(self, key: str, default: Any = None) -> Any:
        try:
            return self[key]
        except KeyError:
            return default

    def items(self) -> Iterator[tuple[str, Any]]:  # type: ignore[override]
        return ((key, self[key]) for key in self)

    def values(self) -> Iterator[Any]:  # type: ignore[override]
        return (self[key] for key in self)
