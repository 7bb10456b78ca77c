# SPDX-License-Identifier: Apache-2.0
"""Turn references into values, where an operator asked for references first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from airflow_ml_provider.artifacts.refs import ArtifactRef

# Of what ``concat()``, ``zip()`` and ``map()`` give a task that is not mapped over them.
_XCOM_ARG = "airflow.sdk.definitions.xcom_arg"


def materialised(value: Any) -> Any:
    """
    Return ``value`` with lists in place of the sequences that Airflow fills when they are read.

    Whoever reads them later is the user's code, to which references mean nothing.
    """
    from airflow.sdk.execution_time.lazy_sequence import LazyXComSequence

    if isinstance(value, LazyXComSequence):
        return value[:]
    kind = type(value)
    if kind.__module__ == _XCOM_ARG and isinstance(value, Sequence):
        if hasattr(value, "values"):  # the parts of concat() and zip(): one request each, not one an element
            import attrs

            value = attrs.evolve(value, values=[materialised(part) for part in value.values])  # type: ignore[misc]
        return list(value)
    if kind in (list, tuple):
        found = [materialised(item) for item in value]
        return kind(found) if any(a is not b for a, b in zip(found, value, strict=True)) else value
    if kind is dict:
        changed = {key: materialised(item) for key, item in value.items()}
        return changed if any(changed[key] is not value[key] for key in value) else value
    return value


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
