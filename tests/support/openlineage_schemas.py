# SPDX-License-Identifier: Apache-2.0
"""
Judges OpenLineage events by the official JSON schemas, and our own facets by the schemas that we ship.

The official ones lie beside the project, in ``../shared/openlineage-spec``, where that folder is there. There
is no network: a schema that neither has is an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource

SPECIFICATION = Path(__file__).resolve().parents[3] / "shared" / "openlineage-spec"
EVENT = "https://openlineage.io/spec/2-0-2/OpenLineage.json"
# The openlineage provider's own facets point at the repository of Airflow.
OF_THE_PROVIDER = "https://raw.githubusercontent.com/"

Json = dict[str, Any]


def skip_without_the_specification() -> None:
    """Skip the test, and say so, where the official schemas are not at hand."""
    if not (SPECIFICATION / "OpenLineage.json").is_file():
        pytest.skip(f"the official OpenLineage schemas are not at {SPECIFICATION}")


def own_schemas() -> dict[str, Json]:
    """Return the schemas of our facets, by file name."""
    folder = files("airflow_ml_provider.lineage") / "facets"
    return {
        each.name: json.loads(each.read_text()) for each in folder.iterdir() if each.name.endswith(".json")
    }


@cache
def _registry() -> Registry[Json]:
    skip_without_the_specification()
    documents = [json.loads(path.read_text()) for path in sorted(SPECIFICATION.glob("*.json"))]
    documents += own_schemas().values()
    return Registry().with_resources([(each["$id"], Resource.from_contents(each)) for each in documents])


def check(document: Any, schema_id: str) -> None:
    """Raise if a document is not what a schema says."""
    schema = _registry()[schema_id].contents
    validator = Draft202012Validator(schema, registry=_registry(), format_checker=FormatChecker())
    errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]
    assert not errors, f"{schema_id}: {errors}"


def facets_of(event: Json) -> Iterator[tuple[str, Json]]:
    """Yield the facets of an event with their keys."""
    for part in (event["run"], event["job"], *event.get("inputs", ()), *event.get("outputs", ())):
        for kind in ("facets", "inputFacets", "outputFacets"):
            yield from (part.get(kind) or {}).items()


def check_event(event: Json) -> set[str]:
    """
    Raise if an event, or one of its facets, is not what its schema says.

    :returns: The keys of the facets that were checked.
    """
    check(event, EVENT)
    checked = set()
    for key, facet in facets_of(event):
        schema_id = facet["_schemaURL"].partition("#")[0]
        if schema_id == EVENT or schema_id.startswith(OF_THE_PROVIDER):
            continue  # no facet but any facet, of which the event's schema says all there is
        # A schema's file says which key its facet has, and what it holds.
        assert key in _registry()[schema_id].contents["properties"], f"{key!r} is no key of {schema_id}"
        check({key: facet}, schema_id)
        checked.add(key)
    return checked
