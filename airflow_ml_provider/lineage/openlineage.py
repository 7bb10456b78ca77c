# SPDX-License-Identifier: Apache-2.0
"""
Artifacts, models and attempts in the words of OpenLineage: data sets and facets, as plain data.

Nothing of OpenLineage is imported here; :mod:`airflow_ml_provider.lineage.openlineage_client` makes the
client's objects. Nothing is fetched either: all of it is said by references that the attempt holds anyway.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from airflow_ml_provider.artifacts.envelope import ARTIFACT
from airflow_ml_provider.artifacts.statistics import SAMPLE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from airflow_ml_provider.artifacts.refs import ArtifactRef

    Facet = dict[str, Any]
    Facets = dict[str, Facet]

MODEL_NAMESPACE = "mlflow"
ASSET_NAMESPACE = ARTIFACT.partition("/")[0]  # the scheme of the asset URI too

ARTIFACT_FACET = "airflowml_artifact"
MODEL_FACET = "airflowml_model"
ATTEMPT_FACET = "airflowml_attempt"

_MODEL_FORMATS = ("skops", "xgboost", "lightgbm", "catboost")
_PATH_FORMATS = ("file", "directory")
_MOST_REASONS = 20

Side = Literal["input", "output"]


@dataclass(frozen=True)
class DataSet:
    """
    A data set of an event.

    :param side: Whether the attempt read it or wrote it; None: it was only declared.
    :param side_facets: What this one reading or writing is about: ``inputFacets`` or ``outputFacets``.
    """

    namespace: str
    name: str
    facets: Facets = field(default_factory=dict, hash=False)
    side: Side | None = None
    side_facets: Facets = field(default_factory=dict, hash=False)
    asset_uri: str | None = None
    """The Airflow asset that stands for it, as a user declares it; None: there is none."""

    @property
    def key(self) -> tuple[str, str]:
        """What a consumer of events tells data sets apart by; versions are a facet."""
        return (self.namespace, self.name)


def artifact_asset_data_set(root: str, name: str, asset_uri: str) -> DataSet:
    """
    Name a declared artifact, of which no version is known.

    :param root: The artifact root, such as ``s3://bucket/prefix``: the namespace.
    """
    return DataSet(root, name, {**_places(root), **_artifact_symlinks(name)}, asset_uri=asset_uri)


def model_asset_data_set(registered_model_name: str, alias: str, asset_uri: str) -> DataSet:
    """Name a declared alias: a data set of its own, and another name of its model."""
    facets = {
        "datasetType": {"datasetType": "MODEL", "subType": "alias"},
        "symlinks": _symlinks((MODEL_NAMESPACE, registered_model_name, "MODEL")),
    }
    return DataSet(MODEL_NAMESPACE, f"{registered_model_name}/{alias}", facets, asset_uri=asset_uri)


def artifact_data_set(
    ref: ArtifactRef, root: str, side: Side, *, loaded: bool = True, description: str | None = None
) -> DataSet:
    """
    Describe an artifact version that an attempt read or wrote.

    :param loaded: False for a version that the attempt was only handed, or returned without making it.
    :param description: Of a written one: what it is, in Markdown.
    """
    schema = ref.schema or {}
    kind = ref.format.rpartition("-v")[0]
    rows = _rows(schema)
    columns = _columns(schema)
    facets: Facets = {
        **_places(root),
        "version": {"datasetVersion": ref.version_id},
        "datasetType": {"datasetType": _dataset_type(kind, rows), "subType": ref.type},
        "storage": {"storageLayer": root.partition("://")[0], "fileFormat": kind},
        **_artifact_symlinks(ref.name),
        ARTIFACT_FACET: _without_none(
            {
                "uri": ref.uri,
                "versionId": ref.version_id,
                "digest": ref.digest,
                "type": ref.type,
                "format": ref.format,
                "sizeBytes": ref.size_bytes,
                "rowCount": rows,
                "columnCount": _column_count(schema),
                "shape": schema.get("shape") if isinstance(schema.get("shape"), list) else None,
                "recordedAt": ref.recorded_at.isoformat(),
                "effectiveAt": ref.effective_at.isoformat(),
                "dataInterval": _interval(ref.data_interval),
                "writtenBy": None if ref.producer is None else _camel(asdict(ref.producer)),
                "loaded": loaded if side == "input" else None,
                "reused": True if side == "output" and not loaded else None,
            }
        ),
    }
    if columns:
        facets["schema"] = {"fields": columns}
    counted: Facet = _without_none({"rowCount": rows, "size": ref.size_bytes, "fileCount": len(ref.blobs)})
    quality = _quality(schema, rows, ref)
    if side == "input":
        side_facets = {"inputStatistics": counted}
        if quality:
            side_facets["dataQualityMetrics"] = quality
        return DataSet(root, ref.name, facets, side, side_facets, _artifact_uri(ref))
    if quality:
        facets["dataQualityMetrics"] = quality
    if loaded:
        facets["lifecycleStateChange"] = {"lifecycleStateChange": "CREATE"}
    if description:
        facets["documentation"] = {"description": description, "contentType": "text/markdown"}
    return DataSet(
        root, ref.name, facets, side, {"outputStatistics": counted} if loaded else {}, _artifact_uri(ref)
    )


def model_data_set(model: Mapping[str, Any], side: Side, *, description: str | None = None) -> DataSet:
    """
    Describe a model that an attempt used or made.

    A registered model is one data set whose versions are the registry's. A model that is not registered is
    one of what its experiment logs under that name, and its version is its id.

    :param model: As lineage records name it, with what a :class:`ModelRef` knows beyond that.
    """
    registered = model.get("registered_model_name")
    version = model.get("version") if registered else model.get("model_id")
    logged = _logged_name(model)
    name = str(registered or logged)
    others = [(MODEL_NAMESPACE, logged, "LOGGED_MODEL")] if registered and logged else []
    if registered and model.get("alias"):
        others.append((MODEL_NAMESPACE, f"{registered}/{model['alias']}", "ASSET"))
    facets: Facets = {
        "datasetType": _without_none({"datasetType": "MODEL", "subType": model.get("flavor")}),
        "storage": {"storageLayer": "mlflow", "fileFormat": model.get("flavor") or "mlflow"},
        MODEL_FACET: _without_none(
            {
                "modelUri": model.get("model_uri"),
                "modelId": model.get("model_id"),
                "registeredModelName": registered,
                "version": model.get("version"),
                "alias": model.get("alias"),
                "role": model.get("role"),
                "flavor": model.get("flavor"),
                "mlflowRunId": model.get("mlflow_run_id"),
                "experimentId": model.get("experiment_id"),
                "trackingUri": model.get("tracking_uri"),
                "effectiveAt": model.get("effective_at"),
                "dataUntil": model.get("data_until"),
                "metrics": finite(model.get("metrics")) or None,
            }
        ),
    }
    if version:
        facets["version"] = {"datasetVersion": str(version)}
    if others:
        facets["symlinks"] = _symlinks(*others)
    if "://" in str(tracking_uri := model.get("tracking_uri")):
        facets["dataSource"] = {"name": MODEL_NAMESPACE, "uri": str(tracking_uri)}
    if side == "output":
        facets["lifecycleStateChange"] = {"lifecycleStateChange": "ALTER" if registered else "CREATE"}
        if description:
            facets["documentation"] = {"description": description, "contentType": "text/markdown"}
    return DataSet(MODEL_NAMESPACE, name, facets, side)


def attempt_facet(
    *,
    effective_at: datetime | None = None,
    data_interval: tuple[datetime, datetime] | None = None,
    mlflow_run_id: str | None = None,
    experiment_id: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    cached: bool | None = None,
    evaluation: Mapping[str, Any] | None = None,
    promotion: Mapping[str, Any] | None = None,
) -> Facet:
    """Describe the attempt itself: its data time, its MLflow run, what it measured and decided."""
    return _without_none(
        {
            "effectiveAt": None if effective_at is None else effective_at.isoformat(),
            "dataInterval": _interval(data_interval),
            "mlflowRunId": mlflow_run_id,
            "experimentId": experiment_id,
            "metrics": finite(metrics) or None,
            "cached": cached,
            "evaluation": None if evaluation is None else _evaluation(evaluation),
            "promotion": None if promotion is None else _promotion(promotion),
        }
    )


def finite(metrics: Any) -> dict[str, float]:
    """Return the metrics that JSON has numbers for."""
    if not isinstance(metrics, Mapping):
        return {}
    return {
        str(name): value
        for name, value in metrics.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }


def distinct(data_sets: Iterable[DataSet]) -> list[DataSet]:
    """
    Leave out a second data set of one name and version; two versions of one name stay.

    A task that compares an artifact with its version before has read both.
    """
    found: dict[tuple[str, str, str], DataSet] = {}
    for each in data_sets:
        version = each.facets.get("version", {}).get("datasetVersion", "")
        found.setdefault((*each.key, version), each)
    return list(found.values())


def _evaluation(evaluation: Mapping[str, Any]) -> Facet:
    rows = evaluation.get("rows")
    return _without_none(
        {
            "mlflowRunId": evaluation.get("mlflow_run_id"),
            "metrics": finite(evaluation.get("metrics")) or None,
            "baselineMetrics": finite(evaluation.get("baseline_metrics")) or None,
            "rowCount": rows if isinstance(rows, int) else None,
        }
    )


def _promotion(promotion: Mapping[str, Any]) -> Facet:
    reasons = promotion.get("reasons")
    promoted = promotion.get("promoted")
    return _without_none(
        {
            "registeredModelName": promotion.get("registered_model_name"),
            "alias": promotion.get("alias"),
            "promoted": promoted if isinstance(promoted, bool) else None,
            "version": _text(promotion.get("version")),
            "previousVersion": _text(promotion.get("previous_version")),
            "reasons": [str(each) for each in reasons[:_MOST_REASONS]] if isinstance(reasons, list) else None,
        }
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _places(root: str) -> Facets:
    return {"dataSource": {"name": root, "uri": root}}


def _symlinks(*identifiers: tuple[str, str, str]) -> Facet:
    return {
        "identifiers": [
            {"namespace": namespace, "name": name, "type": kind} for namespace, name, kind in identifiers
        ]
    }


def _artifact_symlinks(name: str) -> Facets:
    return {"symlinks": _symlinks((ASSET_NAMESPACE, name, "ASSET"))}


def _artifact_uri(ref: ArtifactRef) -> str:
    return ref.uri.partition("?")[0]


def _logged_name(model: Mapping[str, Any]) -> str:
    if model.get("experiment_id") and model.get("name"):
        return f"experiments/{model['experiment_id']}/{model['name']}"
    if model.get("model_id"):
        return f"models/{model['model_id']}"
    return "" if model.get("registered_model_name") else str(model.get("model_uri"))


def _dataset_type(kind: str, rows: int | None) -> str:
    if kind in _MODEL_FORMATS:
        return "MODEL"
    if kind in _PATH_FORMATS:
        return "FILE"
    return "TABLE" if rows is not None else "JOB_OUTPUT"


def _rows(schema: Mapping[str, Any]) -> int | None:
    rows = schema.get("rows")
    return rows if isinstance(rows, int) else None


def _column_count(schema: Mapping[str, Any]) -> int | None:
    """Say how many columns there are; manifests describe the first of many only."""
    if isinstance(schema.get("column_count"), int):
        return int(schema["column_count"])
    columns = schema.get("columns")
    return len(columns) if isinstance(columns, list) else None


def _columns(schema: Mapping[str, Any]) -> list[Facet]:
    columns = schema.get("columns")
    if not isinstance(columns, list):
        # A series or an array is one column; its name, if it has one, is in the manifest.
        kind = schema.get("dtype") or schema.get("type")
        if kind is None or ("rows" not in schema and "shape" not in schema):
            return []
        columns = [{"name": schema.get("name") or "values", "type": kind}]
    return [
        _without_none(
            {"name": str(each.get("name")), "type": _text(each.get("type")), "ordinal_position": place}
        )
        for place, each in enumerate(columns, 1)
        if isinstance(each, Mapping)
    ]


def _quality(schema: Mapping[str, Any], rows: int | None, ref: ArtifactRef) -> Facet:
    if rows is None:
        return {}
    # Those of a sample are not those of the table.
    columns = None if SAMPLE in schema else schema.get("columns")
    measured = {
        str(each["name"]): found
        for each in (columns if isinstance(columns, list) else ())
        if isinstance(each, Mapping) and (found := _column_quality(each))
    }
    return {
        "rowCount": rows,
        "bytes": ref.size_bytes,
        "fileCount": len(ref.blobs),
        "lastUpdated": ref.recorded_at.isoformat(),
        "columnMetrics": measured,
    }


def _column_quality(column: Mapping[str, Any]) -> Facet:
    nulls = column.get("nulls")
    found: Facet = {"nullCount": nulls} if isinstance(nulls, int) else {}
    return {**found, **finite({name: column.get(name) for name in ("min", "max")})}


def _interval(interval: tuple[datetime, datetime] | None) -> Facet | None:
    return None if interval is None else {"start": interval[0].isoformat(), "end": interval[1].isoformat()}


def _camel(fields: Mapping[str, Any]) -> Facet:
    def name(text: str) -> str:
        first, *rest = text.split("_")
        return first + "".join(part.capitalize() for part in rest)

    return {name(key): value for key, value in fields.items()}


def _without_none(fields: Mapping[str, Any]) -> Facet:
    return {key: value for key, value in fields.items() if value is not None}
