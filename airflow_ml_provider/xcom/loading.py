# SPDX-License-Identifier: Apache-2.0
"""Turn references into values, where an operator asked for references first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow_ml_provider.artifacts.refs import ArtifactRef


def load_refs(value: Any, skip: bool = False) -> Any:
    """
    Return ``value`` with every :class:`ArtifactRef` in lists, tuples and dicts loaded.

    :param skip: True leaves the references as they are.
    """
    if skip:
        return value
    if isinstance(value, ArtifactRef):
        return value.load()
    if type(value) in (list, tuple):
        return type(value)(load_refs(item) for item in value)
    if type(value) is dict:
        return {key: load_refs(item) for key, item in value.items()}
    return value


def refs_in(value: Any) -> Iterator[ArtifactRef]:
    """Yield every :class:`ArtifactRef` in lists, tuples and dicts, in order."""
    if isinstance(value, ArtifactRef):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from refs_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from refs_in(item)
