# SPDX-License-Identifier: Apache-2.0
"""Turn references into values, where an operator asked for references first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow_ml_provider.artifacts.refs import ArtifactRef


def load_refs(value: Any, skip: bool = False) -> Any:
    """
    Return ``value`` with every :class:`ArtifactRef` in lists, tuples and dicts loaded.

    A version that stands in it twice is one object, as it was when it was written.

    :param skip: True leaves the references as they are.
    """
    return value if skip else _load(value, {})


def _load(value: Any, loaded: dict[str, Any]) -> Any:
    if isinstance(value, ArtifactRef):
        if value.version_id not in loaded:
            loaded[value.version_id] = value.load()
        return loaded[value.version_id]
    if type(value) in (list, tuple):
        return type(value)(_load(item, loaded) for item in value)
    if type(value) is dict:
        return {key: _load(item, loaded) for key, item in value.items()}
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
