# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
from urllib.parse import urlsplit

import pytest
from airflow.sdk import Asset

from airflow_ml_provider.assets import handlers
from airflow_ml_provider.assets.assets import ArtifactAsset, ModelAsset
from airflow_ml_provider.lineage.openlineage import DataSet
from airflow_ml_provider.settings import load_settings

AWKWARD_MODEL_NAMES = [
    "flight_delay",
    "Flight Delay",
    "ü-modell",
    "50%",
    "a?b#c",
    "[x]",
    " padded ",
    ".hidden",
]
AWKWARD_ARTIFACT_NAMES = ["features", "dag.task", "team/features", "50% off", "ü", "a?b#c", "x@y", "Ab"]


def test_a_model_asset_is_named_by_model_and_alias():
    asset = ModelAsset("flight_delay")
    assert (asset.name, asset.uri) == ("flight_delay@champion", "mlflow://flight_delay/champion")
    assert asset.model_uri == "models:/flight_delay@champion"
    assert asset.group == "ml-model"
    assert asset.extra == {"registered_model_name": "flight_delay", "alias": "champion"}


@pytest.mark.parametrize("name", AWKWARD_MODEL_NAMES)
def test_an_awkward_model_name_survives_the_uri(name):
    asset = ModelAsset(name, alias="shadow-2")
    assert (asset.registered_model_name, asset.alias) == (name, "shadow-2")
    decayed = Asset(name=asset.name, uri=asset.uri, group=asset.group, extra=asset.extra)
    assert decayed.uri == asset.uri
    assert handlers.parse_model_asset_uri(decayed.uri) == (name, "shadow-2")


@pytest.mark.parametrize("name", ["", "  ", "a/b", "a:b", "a@b", ".", "..x", "a\nb", "x" * 257, None, 3])
def test_a_model_name_that_mlflow_refuses_is_refused_when_the_dag_is_parsed(name):
    with pytest.raises(ValueError, match="registered_model_name"):
        ModelAsset(name)


@pytest.mark.parametrize("alias", ["", "a b", "a/b", "latest", "Latest", "v3", "V12", "x" * 256, None, "a\n"])
def test_an_alias_that_mlflow_refuses_is_refused_when_the_dag_is_parsed(alias):
    with pytest.raises(ValueError, match="alias"):
        ModelAsset("flight_delay", alias)


@pytest.mark.parametrize("name", AWKWARD_ARTIFACT_NAMES)
def test_an_awkward_artifact_name_survives_the_uri(name):
    asset = ArtifactAsset(name)
    assert asset.artifact_name == name
    assert Asset(name=asset.name, uri=asset.uri).uri == asset.uri


def test_artifact_assets_have_no_trailing_slash_after_airflow_normalizes_them():
    parts = urlsplit("ml-artifact://flight_features/")
    assert handlers.sanitize_artifact_uri(parts).geturl() == "ml-artifact://flight_features"


@pytest.mark.parametrize("name", ["", "/a", "a/", "x" * 201, "a\tb"])
def test_a_name_that_no_artifact_can_have_is_refused(name):
    with pytest.raises(ValueError, match="artifact"):
        ArtifactAsset(name)


@pytest.mark.parametrize(
    ("sanitize", "uri"),
    [
        (handlers.sanitize_model_uri, "mlflow://flight_delay/champion"),
        (handlers.sanitize_model_uri, "mlflow://Flight%20Delay/champion"),
        (handlers.sanitize_artifact_uri, "ml-artifact://team/features"),
    ],
)
def test_sanitizing_twice_changes_nothing(sanitize, uri):
    once = sanitize(urlsplit(uri))
    assert once.geturl() == uri
    assert sanitize(once) == once


@pytest.mark.parametrize(
    ("sanitize", "uri"),
    [
        (handlers.sanitize_model_uri, "mlflow://flight_delay"),
        (handlers.sanitize_model_uri, "mlflow://flight_delay/v3"),
        (handlers.sanitize_model_uri, "mlflow://flight_delay/champion/more"),
        (handlers.sanitize_model_uri, "mlflow://flight_delay/champion?a=b"),
        (handlers.sanitize_artifact_uri, "ml-artifact://"),
        (handlers.sanitize_artifact_uri, "ml-artifact://features?version=3"),
    ],
)
def test_a_uri_that_names_nothing_is_refused(sanitize, uri):
    with pytest.raises(ValueError, match=r"URI|alias"):
        sanitize(urlsplit(uri))


def test_own_extra_is_kept_and_equal_assets_are_equal():
    one, other = (ModelAsset("m", extra={"owner": "team"}) for _ in range(2))
    assert one == other == copy.deepcopy(one)
    assert hash(one) == hash(other)
    assert one.extra["owner"] == "team"
    assert one != ModelAsset("m", "challenger", extra={"owner": "team"})


def test_factories_make_the_assets_of_their_scheme():
    assert handlers.create_model_asset(registered_model_name="m", alias="shadow") == ModelAsset("m", "shadow")
    assert handlers.create_artifact_asset(artifact_name="features") == ArtifactAsset("features")


def test_openlineage_names_follow_the_uri():
    pytest.importorskip("openlineage.client")
    model = handlers.convert_model_asset_to_openlineage(ModelAsset("flight_delay"), None)
    artifact = handlers.convert_artifact_asset_to_openlineage(ArtifactAsset("team/features"), None)
    assert (model.namespace, model.name) == ("mlflow", "flight_delay/champion")
    assert (artifact.namespace, artifact.name) == (load_settings().artifact_root, "team/features")
    for found, asset_name in ((model, "flight_delay"), (artifact, "team/features")):
        assert [each["name"] for each in found.facets["symlinks"].identifiers] == [asset_name]


def test_openlineage_is_told_what_a_task_reports_beside_an_asset():
    pytest.importorskip("openlineage.client")
    reported = DataSet("mlflow", "flight_delay", {"version": {"datasetVersion": "3"}}, "input")
    for convert in (
        handlers.convert_artifact_asset_to_openlineage,
        handlers.convert_model_asset_to_openlineage,
    ):
        found = convert(ArtifactAsset("mlflow"), reported)
        assert (found.namespace, found.name) == ("mlflow", "flight_delay")
        assert found.facets["version"].datasetVersion == "3"
