# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from airflow_ml_provider.artifacts.refs import Producer
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.lineage import openlineage as words
from tests.support import openlineage_schemas as schemas

pytest.importorskip("openlineage.client")

ROOT = "s3://ml-artifacts/production"
FEBRUARY, MARCH = datetime(2013, 2, 1, tzinfo=UTC), datetime(2013, 3, 1, tzinfo=UTC)
FRAME = pd.DataFrame({"wind": [1.0, 2.0], "api_token": ["x", "y"]})
MODEL = {
    "model_uri": "models:/m-1",
    "model_id": "m-1",
    "registered_model_name": None,
    "version": None,
    "mlflow_run_id": "abc",
    "alias": None,
    "role": "trained",
    "flavor": "sklearn",
    "name": "fit",
    "experiment_id": "7",
    "tracking_uri": "http://mlflow:5000",
    "metrics": {"auc": 0.7, "loss": math.inf, "f1": "nan"},
}
REGISTERED = {**MODEL, "registered_model_name": "flight_delay", "version": "3", "role": "promoted"}


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(f"file://{tmp_path}/root", signing_key=b"k" * 32)


@pytest.fixture
def ref(store):
    producer = Producer("training", "scheduled__1", "features")
    return store.save(FRAME, "team/features", producer=producer, data_interval=(FEBRUARY, MARCH))


def as_event(*data_sets: words.DataSet) -> dict[str, Any]:
    """An event with these data sets, redacted and written as the openlineage provider does it."""
    from airflow.providers.openlineage.utils.utils import OpenLineageRedactor
    from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
    from openlineage.client.serde import Serde

    from airflow_ml_provider.lineage.openlineage_client import PRODUCER, to_client

    event = RunEvent(
        eventType=RunState.COMPLETE,
        eventTime=MARCH.isoformat(),
        run=Run("01941f29-7c00-7087-8940-40e5bd6f2c4f"),
        job=Job("airflow", "training.features"),
        inputs=[to_client(each) for each in data_sets if each.side == "input"],
        outputs=[to_client(each) for each in data_sets if each.side != "input"],
        producer=PRODUCER,
    )
    return json.loads(Serde.to_json(OpenLineageRedactor().redact(event, max_depth=20)))


def test_a_table_that_was_read_says_its_version_schema_and_size(ref):
    found = words.artifact_data_set(ref, ROOT, "input")
    assert found.key == (ROOT, "team/features")
    assert found.asset_uri == "ml-artifact://team/features"
    assert found.facets["version"] == {"datasetVersion": ref.version_id}
    assert found.facets["schema"]["fields"] == [
        {"name": "wind", "type": "float64", "ordinal_position": 1},
        {"name": "api_token", "type": "str", "ordinal_position": 2},
    ]
    assert found.facets["datasetType"] == {"datasetType": "TABLE", "subType": "pandas.DataFrame"}
    assert found.facets["storage"] == {"storageLayer": "s3", "fileFormat": "arrow"}
    assert found.facets["symlinks"]["identifiers"] == [
        {"namespace": "ml-artifact", "name": "team/features", "type": "ASSET"}
    ]
    assert found.side_facets["inputStatistics"] == {"rowCount": 2, "size": ref.size_bytes, "fileCount": 1}
    assert found.side_facets["dataQualityMetrics"]["rowCount"] == 2
    own = found.facets[words.ARTIFACT_FACET]
    assert own["effectiveAt"] == "2013-03-01T00:00:00+00:00"
    assert own["writtenBy"]["dagId"] == "training"
    assert "lifecycleStateChange" not in found.facets


def test_a_table_that_was_written_says_so(ref):
    found = words.artifact_data_set(ref, ROOT, "output", description="What a month brought.")
    assert found.facets["lifecycleStateChange"] == {"lifecycleStateChange": "CREATE"}
    assert found.facets["documentation"]["description"] == "What a month brought."
    assert found.facets["dataQualityMetrics"]["rowCount"] == 2
    assert found.side_facets["outputStatistics"]["rowCount"] == 2


def test_what_the_cache_returned_was_not_written_again(ref):
    found = words.artifact_data_set(ref, ROOT, "output", loaded=False)
    assert found.facets[words.ARTIFACT_FACET]["reused"] is True
    assert "lifecycleStateChange" not in found.facets
    assert found.side_facets == {}


def test_quality_metrics_are_those_of_the_manifest(ref):
    from dataclasses import replace

    column = {"name": "wind", "type": "float64", "nulls": 1, "min": 0.5, "max": math.nan}
    known = replace(ref, schema={"columns": [column, {"name": "late", "type": "bool"}], "rows": 9})
    quality = words.artifact_data_set(known, ROOT, "output").facets["dataQualityMetrics"]
    assert quality["columnMetrics"] == {"wind": {"nullCount": 1, "min": 0.5}}
    of_a_sample = replace(known, schema={**known.schema, "rows": 10**6, "statistics_rows": 50_000})
    quality = words.artifact_data_set(of_a_sample, ROOT, "output").facets["dataQualityMetrics"]
    assert (quality["rowCount"], quality["columnMetrics"]) == (10**6, {})


@pytest.mark.parametrize(
    ("value", "kind", "fields"),
    [
        pytest.param(np.zeros((3, 2)), "JOB_OUTPUT", ["values"], id="array"),
        pytest.param(pd.Series([1], name="wind"), "TABLE", ["wind"], id="series"),
        pytest.param({"a": 1}, "JOB_OUTPUT", None, id="dict"),
        pytest.param(b"\0", "JOB_OUTPUT", None, id="bytes"),
        pytest.param(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), "MODEL", None, id="estimator"),
        pytest.param(pd.DataFrame(), "TABLE", None, id="empty frame"),
        pytest.param(pd.DataFrame({1: [1], ("a", 2): [None]}), "TABLE", ["1", "('a', 2)"], id="labels"),
    ],
)
def test_each_kind_of_value_makes_a_valid_event(store, value, kind, fields):
    saved = store.save(value, "value")
    read, written = (words.artifact_data_set(saved, ROOT, side) for side in ("input", "output"))
    assert written.facets["datasetType"]["datasetType"] == kind
    named = written.facets.get("schema", {}).get("fields")
    assert fields == (named and [each["name"] for each in named])
    schemas.check_event(as_event(read, written))


def test_columns_with_secret_names_keep_valid_metrics_and_no_cell_is_told(ref):
    from dataclasses import replace

    column = {"name": "api_token", "type": "str", "nulls": 0}
    known = replace(ref, schema={"columns": [column], "rows": 2})
    event = as_event(words.artifact_data_set(known, ROOT, "input"))
    schemas.check_event(event)
    metrics = event["inputs"][0]["inputFacets"]["dataQualityMetrics"]["columnMetrics"]
    assert metrics == {"api_token": {"nullCount": 0}}
    assert ref.preview
    assert '"***"' not in json.dumps(event)
    assert str(ref.preview[0]["wind"]) not in json.dumps(event["inputs"][0]["facets"]["schema"])


def test_a_model_that_is_not_registered_is_one_of_its_experiment():
    found = words.model_data_set(MODEL, "output", description="Fit.")
    assert found.key == ("mlflow", "experiments/7/fit")
    assert found.facets["version"] == {"datasetVersion": "m-1"}
    assert found.facets["lifecycleStateChange"] == {"lifecycleStateChange": "CREATE"}
    assert found.facets[words.MODEL_FACET]["metrics"] == {"auc": 0.7}
    schemas.check_event(as_event(found))


def test_a_registered_model_has_its_versions_and_the_names_it_had_before():
    found = words.model_data_set({**REGISTERED, "alias": "champion"}, "output")
    assert found.key == ("mlflow", "flight_delay")
    assert found.facets["version"] == {"datasetVersion": "3"}
    assert [each["name"] for each in found.facets["symlinks"]["identifiers"]] == [
        "experiments/7/fit",
        "flight_delay/champion",
    ]
    assert found.facets["lifecycleStateChange"] == {"lifecycleStateChange": "ALTER"}
    schemas.check_event(as_event(found))


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ({"model_uri": "models:/m-9", "model_id": "m-9"}, "models/m-9"),
        ({"model_uri": "runs:/abc/model"}, "runs:/abc/model"),
        ({"model_uri": "models:/a/3", "registered_model_name": "a", "version": "3"}, "a"),
    ],
)
def test_a_model_of_which_little_is_known_still_has_a_name(model, name):
    found = words.model_data_set(model, "input")
    assert found.name == name
    schemas.check_event(as_event(found))


def test_declared_assets_have_the_names_of_what_is_read_and_written(ref):
    artifact = words.artifact_asset_data_set(ROOT, "team/features", "ml-artifact://team/features")
    assert artifact.key == words.artifact_data_set(ref, ROOT, "input").key
    alias = words.model_asset_data_set("flight_delay", "champion", "mlflow://flight_delay/champion")
    model = words.model_data_set({**REGISTERED, "alias": "champion"}, "input")
    assert alias.name in [each["name"] for each in model.facets["symlinks"]["identifiers"]]
    schemas.check_event(as_event(artifact, alias))


def test_two_versions_of_one_name_are_both_told(store, ref):
    other = store.save(FRAME.head(1), "team/features")
    found = [words.artifact_data_set(each, ROOT, "input") for each in (ref, other, ref)]
    assert [each.facets["version"]["datasetVersion"] for each in words.distinct(found)] == [
        ref.version_id,
        other.version_id,
    ]


def test_an_attempt_says_what_it_measured_and_decided():
    facet = words.attempt_facet(
        effective_at=MARCH,
        data_interval=(FEBRUARY, MARCH),
        metrics={"auc": 0.7, "loss": math.nan, "ok": True},
        evaluation={"metrics": {"auc": 0.7}, "rows": 60, "slices": {"much": 1}},
        promotion={"promoted": True, "version": 3, "previous_version": None, "reasons": ["better"]},
    )
    assert facet["metrics"] == {"auc": 0.7}
    assert facet["evaluation"] == {"metrics": {"auc": 0.7}, "rowCount": 60}
    assert facet["promotion"] == {"promoted": True, "version": "3", "reasons": ["better"]}


def test_our_schemas_are_valid_and_describe_every_field():
    import attr
    from jsonschema import Draft202012Validator
    from openlineage.client.generated.base import DatasetFacet

    from airflow_ml_provider.lineage import openlineage_client as client

    shipped = schemas.own_schemas()
    own = (
        client.AirflowMlArtifactDatasetFacet,
        client.AirflowMlModelDatasetFacet,
        client.AirflowMlAttemptRunFacet,
    )
    assert {f"{each.__name__}.json" for each in own} == set(shipped)
    base = {each.name for each in attr.fields(DatasetFacet)}
    for each in own:
        schema = shipped[f"{each.__name__}.json"]
        Draft202012Validator.check_schema(schema)
        assert each._get_schema() == f"{schema['$id']}#/$defs/{each.__name__}"
        described = schema["$defs"][each.__name__]["allOf"][1]["properties"]
        assert {field.name for field in attr.fields(each)} - base == set(described)


def test_wrong_facets_are_noticed(ref):
    event = as_event(words.artifact_data_set(ref, ROOT, "input"))
    event["inputs"][0]["facets"][words.ARTIFACT_FACET]["digest"] = "md5:1"
    with pytest.raises(AssertionError, match="digest"):
        schemas.check_event(event)
