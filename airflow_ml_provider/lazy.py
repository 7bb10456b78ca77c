# SPDX-License-Identifier: Apache-2.0
"""Public names that cost nothing until somebody asks for them: parsing a DAG file is the hot path."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def exports(module: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """
    Make ``__getattr__`` and ``__dir__`` of a module (PEP 562), which imports a name when it is asked for.

    :param module: Its ``__name__``.
    :param homes: Where each of its public names is defined: an absolute name, or one that begins with a dot
        for a module of the package.
    """

    def find(name: str) -> Any:
        if name in homes:
            return getattr(importlib.import_module(homes[name], module), name)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return find, lambda: sorted(homes)
