# SPDX-License-Identifier: Apache-2.0
"""Artifacts as MLflow sees them: the datasets that went into a run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

SOURCE_TYPE = "ml-artifact"
# MLflow allows 36 characters for a digest and 500 for a name.
_DIGEST_CHARACTERS = 36
_NAME_CHARACTERS = 500
_COLUMN_TYPES = {
    "bool": "boolean",
    "date": "datetime",
    "double": "double",
    "float": "float",
    "float32": "float",
    "float64": "double",
    "int8": "integer",
    "int16": "integer",
    "int32": "integer",
    "int64": "long",
    "object": "string",
    "str": "string",
    "string": "string",
}


class ArtifactLike(Protocol):
    """What an ArtifactRef tells about itself without being loaded."""

    name: str
    version_id: str
    digest: str
    type: str
    schema: dict[str, Any] | None

    @property
    def uri(self) -> str: ...


def dataset_inputs(values: Iterable[Any], *, context: str) -> list[DatasetInput]:
    """
    Describe what went into a run: artifacts by their references, other DataFrames by their content.

    :param values: ArtifactRefs, or DataFrames that came from no artifact. Nothing is loaded.
    :param context: MLflow's word for the role: ``training``, ``evaluation``, ...
    :raises TypeError: for anything else.
    """
    from mlflow.entities import DatasetInput, InputTag

    found = []
    for value in values:
        entity = _from_artifact(value) if hasattr(value, "version_id") else _from_frame(value)
        found.append(DatasetInput(entity, [InputTag("mlflow.data.context", context)]))
    return found


def _from_artifact(ref: ArtifactLike) -> Any:
    from mlflow.entities import Dataset

    schema = ref.schema or {}
    source = {"uri": ref.uri, "name": ref.name, "version_id": ref.version_id, "digest": ref.digest}
    profile = {"type": ref.type}
    if "rows" in schema:
        profile["num_rows"] = schema["rows"]
    if "shape" in schema:
        profile["shape"] = schema["shape"]
    return Dataset(
        name=ref.name[:_NAME_CHARACTERS],
        digest=ref.digest.rpartition(":")[2][:_DIGEST_CHARACTERS],
        source_type=SOURCE_TYPE,
        source=json.dumps(source),
        schema=_schema(schema),
        profile=json.dumps(profile),
    )


def _schema(schema: dict[str, Any]) -> str | None:
    columns = schema.get("columns")
    if not isinstance(columns, list) or not all(isinstance(column, dict) for column in columns):
        return None
    described = [
        {
            "name": str(column.get("name")),
            "type": _COLUMN_TYPES.get(str(column.get("type")), str(column.get("type"))),
            "required": False,
        }
        for column in columns
    ]
    return json.dumps({"mlflow_colspec": described})


def _from_frame(value: Any) -> Any:
    import pandas as pd

    if not isinstance(value, pd.DataFrame):
        raise TypeError(
            f"an input of an MLflow run is an ArtifactRef or a DataFrame, got {type(value).__name__}"
        )
    import mlflow.data
    from mlflow.entities import Dataset

    # MLflow's own entity infers a schema by looking at every value, which costs a second on a large frame.
    known = mlflow.data.from_pandas(value)
    columns = [{"name": str(name), "type": str(dtype)} for name, dtype in value.dtypes.items()]
    return Dataset(
        name=known.name,
        digest=known.digest,
        source_type=known.source._get_source_type(),
        source=known.source.to_json(),
        schema=_schema({"columns": columns}),
        profile=json.dumps({"num_rows": len(value), "num_elements": int(value.size)}),
    )
