# SPDX-License-Identifier: Apache-2.0
"""MLflow's autologging for the length of a task."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

#: Libraries as users name them, and the modules of MLflow that watch them.
LIBRARIES = {
    "sklearn": "sklearn",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "torch": "pytorch",
    "pytorch": "pytorch",
    "keras": "tensorflow",
    "tensorflow": "tensorflow",
    "statsmodels": "statsmodels",
}
#: The model is logged once, from what the task returns, and its artifacts are the data sets.
DEFAULTS = {"log_models": False, "log_datasets": False}

Autolog = bool | str | Sequence[str] | Mapping[str, Any]


def check_autolog(given: Any) -> Autolog:
    """
    Return what a user gave as ``autolog``, lists as tuples.

    :raises TypeError: if it is none of the forms.
    :raises ValueError: for a library that MLflow's autologging does not know.
    """
    if isinstance(given, (bool, Mapping)):
        return given
    names = (given,) if isinstance(given, str) else given
    listed = isinstance(names, (list, tuple, set, frozenset)) and all(isinstance(n, str) for n in names)
    unknown = [name for name in names if name not in LIBRARIES] if listed else [given]
    if unknown:
        raise (ValueError if listed else TypeError)(
            "autolog must be True, False or a dict of options, or a list of libraries "
            f"({', '.join(LIBRARIES)}); got {', '.join(map(repr, unknown))}"
        )
    return tuple(names)


@contextmanager
def autologging(given: Autolog) -> Iterator[None]:
    """
    Let MLflow record the libraries in use, and stop afterwards.

    :param given: True for all that MLflow knows, names of :data:`LIBRARIES`, or options of
        ``mlflow.autolog``.
    """
    if given is False:
        yield
        return
    for module, options in _calls(given):
        _import(module).autolog(**options)
    try:
        yield
    finally:
        for module, _ in _calls(given):
            _import(module).autolog(disable=True, silent=True)


def autolog_source(given: Autolog) -> str:
    """Return the lines that do the same in a script of its own, whose run is named by its environment."""
    if given is False:
        return ""
    lines = ["import importlib as _ml_importlib", "import mlflow as _ml_mlflow", "_ml_mlflow.start_run()"]
    lines += [
        f"_ml_importlib.import_module({module!r}).autolog(**{options!r})" for module, options in _calls(given)
    ]
    return "".join(f"{line}\n" for line in lines)


def _calls(given: Autolog) -> list[tuple[str, dict[str, Any]]]:
    if isinstance(given, Mapping):
        return [("mlflow", {**DEFAULTS, **given})]
    if given is True:
        return [("mlflow", dict(DEFAULTS))]
    names = (given,) if isinstance(given, str) else tuple(given)  # type: ignore[arg-type]
    modules = dict.fromkeys(f"mlflow.{LIBRARIES[name]}" for name in names)
    return [(module, dict(DEFAULTS)) for module in modules]


def _import(module: str) -> Any:
    return importlib.import_module(module)
