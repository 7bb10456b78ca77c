# SPDX-License-Identifier: Apache-2.0
"""
The data sets and facets of :mod:`airflow_ml_provider.lineage.openlineage` as objects of OpenLineage's client.

A leaf: imported while an event is made, and only where the client is installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attr
from openlineage.client import facet_v2
from openlineage.client.event_v2 import Dataset, InputDataset, OutputDataset

from airflow_ml_provider.lineage.openlineage import ARTIFACT_FACET, ATTEMPT_FACET, MODEL_FACET

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_ml_provider.lineage.openlineage import DataSet, Facets

PRODUCER = "urn:airflow-ml-provider"
SCHEMAS = f"{PRODUCER}:openlineage:1-0-0:"


@attr.define
class _DataQualityMetricsDatasetFacet(facet_v2.data_quality_metrics_dataset.DataQualityMetricsDatasetFacet):
    """The client 1.54 names the schema's version 1-0-1, which the specification does not have."""

    @staticmethod
    def _get_schema() -> str:
        name = "DataQualityMetricsDatasetFacet"
        return f"https://openlineage.io/spec/facets/1-0-0/{name}.json#/$defs/{name}"


@attr.define(kw_only=True)
class AirflowMlArtifactDatasetFacet(facet_v2.DatasetFacet):
    """A version of an artifact; ``facets/AirflowMlArtifactDatasetFacet.json`` describes its fields."""

    uri: str
    versionId: str  # noqa: N815
    digest: str
    type: str
    format: str
    sizeBytes: int  # noqa: N815
    recordedAt: str  # noqa: N815
    effectiveAt: str  # noqa: N815
    rowCount: int | None = None  # noqa: N815
    columnCount: int | None = None  # noqa: N815
    shape: list[int] | None = None
    dataInterval: dict[str, str] | None = None  # noqa: N815
    writtenBy: dict[str, Any] | None = None  # noqa: N815
    loaded: bool | None = None
    reused: bool | None = None

    @staticmethod
    def _get_schema() -> str:
        return _schema_url("AirflowMlArtifactDatasetFacet")


@attr.define(kw_only=True)
class AirflowMlModelDatasetFacet(facet_v2.DatasetFacet):
    """A model in MLflow; ``facets/AirflowMlModelDatasetFacet.json`` describes its fields."""

    modelUri: str  # noqa: N815
    modelId: str | None = None  # noqa: N815
    registeredModelName: str | None = None  # noqa: N815
    version: str | None = None
    alias: str | None = None
    role: str | None = None
    flavor: str | None = None
    mlflowRunId: str | None = None  # noqa: N815
    experimentId: str | None = None  # noqa: N815
    trackingUri: str | None = None  # noqa: N815
    effectiveAt: str | None = None  # noqa: N815
    dataUntil: str | None = None  # noqa: N815
    metrics: dict[str, float] | None = None

    @staticmethod
    def _get_schema() -> str:
        return _schema_url("AirflowMlModelDatasetFacet")


@attr.define(kw_only=True)
class AirflowMlAttemptRunFacet(facet_v2.RunFacet):
    """An attempt of a task; ``facets/AirflowMlAttemptRunFacet.json`` describes its fields."""

    effectiveAt: str | None = None  # noqa: N815
    dataInterval: dict[str, str] | None = None  # noqa: N815
    mlflowRunId: str | None = None  # noqa: N815
    experimentId: str | None = None  # noqa: N815
    metrics: dict[str, float] | None = None
    cached: bool | None = None
    evaluation: dict[str, Any] | None = None
    promotion: dict[str, Any] | None = None

    @staticmethod
    def _get_schema() -> str:
        return _schema_url("AirflowMlAttemptRunFacet")


_CLASSES: dict[str, Any] = {
    "schema": facet_v2.schema_dataset.SchemaDatasetFacet,
    "version": facet_v2.dataset_version_dataset.DatasetVersionDatasetFacet,
    "datasetType": facet_v2.dataset_type_dataset.DatasetTypeDatasetFacet,
    "dataSource": facet_v2.datasource_dataset.DatasourceDatasetFacet,
    "storage": facet_v2.storage_dataset.StorageDatasetFacet,
    "symlinks": facet_v2.symlinks_dataset.SymlinksDatasetFacet,
    "documentation": facet_v2.documentation_dataset.DocumentationDatasetFacet,
    "lifecycleStateChange": facet_v2.lifecycle_state_change_dataset.LifecycleStateChangeDatasetFacet,
    "dataQualityMetrics": _DataQualityMetricsDatasetFacet,
    "outputStatistics": facet_v2.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet,
    "inputStatistics": facet_v2.input_statistics_input_dataset.InputStatisticsInputDatasetFacet,
    "sourceCode": facet_v2.source_code_job.SourceCodeJobFacet,
    "sourceCodeLocation": facet_v2.source_code_location_job.SourceCodeLocationJobFacet,
    ARTIFACT_FACET: AirflowMlArtifactDatasetFacet,
    MODEL_FACET: AirflowMlModelDatasetFacet,
    ATTEMPT_FACET: AirflowMlAttemptRunFacet,
}
_OF_INPUTS = {
    **_CLASSES,
    "dataQualityMetrics": facet_v2.data_quality_metrics_input_dataset.DataQualityMetricsInputDatasetFacet,
}


def to_client(data_set: DataSet) -> Dataset:
    """Make the client's object of a data set."""
    facets = to_facets(data_set.facets)
    if data_set.side == "input":
        found = {
            key: _OF_INPUTS[key](**fields, producer=PRODUCER) for key, fields in data_set.side_facets.items()
        }
        return InputDataset(data_set.namespace, data_set.name, inputFacets=found, facets=facets)
    if data_set.side == "output":
        found = to_facets(data_set.side_facets)
        return OutputDataset(data_set.namespace, data_set.name, outputFacets=found, facets=facets)
    return Dataset(data_set.namespace, data_set.name, facets=facets)


def to_facets(facets: Facets | Mapping[str, Any]) -> dict[str, Any]:
    """Make the client's objects of facets, by their key."""
    return {key: _CLASSES[key](**fields, producer=PRODUCER) for key, fields in facets.items()}


def _schema_url(name: str) -> str:
    return f"{SCHEMAS}{name}.json#/$defs/{name}"
