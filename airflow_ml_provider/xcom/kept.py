# SPDX-License-Identifier: Apache-2.0
"""A result that is in the store already: it goes to the XCom table as it was, and nothing of it is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class Kept:
    """
    Stands for a value whose JSON of the XCom table is known.

    :param tree: The JSON.
    """

    tree: Any

    def __init__(self, tree: Any) -> None:
        self.tree = tree

    def __repr__(self) -> str:
        return "<a stored result>"


class KeptList(Kept, Sequence[Any]):
    """A list or tuple of a known length, which Airflow may map a task over."""

    def __init__(self, tree: Any, length: int) -> None:
        super().__init__(tree)
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if type(self.tree) is not list:
            raise TypeError("the elements of a stored result are not loaded")
        return kept(self.tree[index])


class KeptDict(Kept, dict[Any, Any]):
    """A dict whose parts Airflow may push one by one, or map a task over."""

    def __init__(self, tree: Any, parts: Mapping[Any, Any], length: int | None = None) -> None:
        super().__init__(tree)
        self.update(parts)
        self._length = len(parts) if length is None else length

    def __len__(self) -> int:
        return self._length

    def __bool__(self) -> bool:
        return self._length > 0

    __repr__ = Kept.__repr__


def kept(
    tree: Any, *, kind: str | None = None, length: int | None = None, outputs: Mapping[Any, Any] | None = None
) -> Any:
    """
    Return what a task returns in place of a stored result.

    :param kind: ``list`` or ``dict``, if the result is one.
    :param length: Its length.
    :param outputs: Of a dict: what is pushed one by one, where the JSON does not say.
    """
    if tree is None or type(tree) is bool:
        return tree
    if kind == "dict":
        parts = outputs or {}
        if _is_plain(tree, length):
            parts = {name: kept(part) for name, part in tree.items()}
        return KeptDict(tree, parts, length)
    if kind == "list" and length is not None:
        return KeptList(tree, length)
    return Kept(tree)


def _is_plain(tree: Any, length: int | None) -> bool:
    from airflow_ml_provider.artifacts.envelope import is_node

    return type(tree) is dict and not is_node(tree) and len(tree) == length
