# SPDX-License-Identifier: Apache-2.0
"""
The URI schemes ``mlflow`` and ``ml-artifact``: spelling, reading, factories, and their OpenLineage names.

The functions named ``sanitize_*``, ``create_*`` and ``convert_*`` are registered in the provider info under
``asset-uris``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

from airflow_ml_provider.artifacts.refs import Artifact

if TYPE_CHECKING:
    from airflow.sdk import Asset
    from openlineage.client.event_v2 import Dataset as OpenLineageDataset

    from airflow_ml_provider.assets.assets import ArtifactAsset, ModelAsset

MODEL_SCHEME = "mlflow"
ARTIFACT_SCHEME = "ml-artifact"

_ALIAS = re.compile(r"[\w\-]{1,255}")
_VERSION_ALIAS = re.compile(r"[vV]\d+")


def check_registered_model_name(name: str) -> None:
    """Raise ValueError if MLflow would refuse ``name``, or could not name its aliases by URI."""
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"registered_model_name must be a non-empty string, got {name!r}")
    if "/" in name or ":" in name or name == "." or name.startswith(".."):
        raise ValueError(f"registered_model_name must not contain '/' or ':' or be a path, got {name!r}")
    if "@" in name:
        raise ValueError(
            f"registered_model_name must not contain '@', the sign before an alias; got {name!r}"
        )
    if len(name) > 256:
        raise ValueError(f"registered_model_name must not exceed 256 characters, got {len(name)}")
    if any(not character.isprintable() for character in name):
        raise ValueError(f"registered_model_name must be printable, got {name!r}")


def check_alias(alias: str) -> None:
    """Raise ValueError if MLflow would refuse ``alias``."""
    if not isinstance(alias, str) or not _ALIAS.fullmatch(alias):
        raise ValueError(f"alias must be 1 to 255 letters, digits, underscores and dashes, got {alias!r}")
    if alias.lower() == "latest" or _VERSION_ALIAS.fullmatch(alias):
        raise ValueError(f"alias {alias!r} is reserved by MLflow; choose another, e.g. 'champion'")


def model_asset_uri(registered_model_name: str, alias: str) -> str:
    """Spell the asset URI of an alias: ``mlflow://<registered model>/<alias>``."""
    return f"{MODEL_SCHEME}://{quote(registered_model_name, safe='')}/{quote(alias, safe='')}"


def parse_model_asset_uri(uri: str) -> tuple[str, str]:
    """
    Read the registered model name and the alias from an asset URI.

    :raises ValueError: if it is not ``mlflow://<registered model>/<alias>``.
    """
    parts = urlsplit(uri)
    name, alias = unquote(parts.netloc), unquote(parts.path.strip("/"))
    if parts.scheme != MODEL_SCHEME or not name or not alias:
        raise ValueError(f"a model's asset URI is mlflow://<registered model>/<alias>, got {uri!r}")
    check_registered_model_name(name)
    check_alias(alias)
    return name, alias


def artifact_asset_uri(artifact_name: str) -> str:
    """Spell the asset URI of an artifact: ``ml-artifact://<artifact name>``."""
    return f"{ARTIFACT_SCHEME}://{quote(artifact_name, safe='/')}"


def parse_artifact_asset_uri(uri: str) -> str:
    """
    Read the artifact's name from an asset URI.

    :raises ValueError: if it is not ``ml-artifact://<artifact name>``.
    """
    parts = urlsplit(uri)
    name = unquote(f"{parts.netloc}{parts.path}".rstrip("/"))
    if parts.scheme != ARTIFACT_SCHEME or not name:
        raise ValueError(f"an artifact's asset URI is ml-artifact://<artifact name>, got {uri!r}")
    Artifact(name)  # refuses a bad name
    return name


def sanitize_model_uri(uri: SplitResult) -> SplitResult:
    """
    Check and normalize a URI of the scheme ``mlflow``.

    :raises ValueError: if it is not ``mlflow://<registered model>/<alias>``.
    """
    if uri.query:
        raise ValueError(f"a model's asset URI has no query, got {uri.geturl()!r}")
    return urlsplit(model_asset_uri(*parse_model_asset_uri(uri.geturl())))


def sanitize_artifact_uri(uri: SplitResult) -> SplitResult:
    """
    Check and normalize a URI of the scheme ``ml-artifact``.

    :raises ValueError: if it is not ``ml-artifact://<artifact name>``.
    """
    if uri.query:
        raise ValueError(
            f"an artifact's asset URI names all its versions and has no query, got {uri.geturl()!r}"
        )
    return urlsplit(artifact_asset_uri(parse_artifact_asset_uri(uri.geturl())))


def create_model_asset(
    *, registered_model_name: str, alias: str = "champion", extra: dict[str, Any] | None = None
) -> ModelAsset:
    """Make the asset of an alias; the factory of the scheme ``mlflow``."""
    from airflow_ml_provider.assets.assets import ModelAsset

    return ModelAsset(registered_model_name, alias, extra=extra)


def create_artifact_asset(*, artifact_name: str, extra: dict[str, Any] | None = None) -> ArtifactAsset:
    """Make the asset of an artifact; the factory of the scheme ``ml-artifact``."""
    from airflow_ml_provider.assets.assets import ArtifactAsset

    return ArtifactAsset(artifact_name, extra=extra)


def convert_model_asset_to_openlineage(asset: Asset, lineage_context: object) -> OpenLineageDataset:
    """
    Name a model alias in OpenLineage: namespace ``mlflow``, name ``<registered model>/<alias>``.

    :param lineage_context: The data set itself, where a task of ours reports what it used.
    """
    from airflow_ml_provider.lineage import openlineage as words
    from airflow_ml_provider.lineage.openlineage_client import to_client

    if isinstance(lineage_context, words.DataSet):
        return to_client(lineage_context)
    return to_client(words.model_asset_data_set(*parse_model_asset_uri(asset.uri), asset.uri))


def convert_artifact_asset_to_openlineage(asset: Asset, lineage_context: object) -> OpenLineageDataset:
    """
    Name an artifact in OpenLineage: namespace ``[ml_provider] artifact_root``, name ``<artifact name>``.

    :param lineage_context: The data set itself, where a task of ours reports what it read or wrote.
    """
    from airflow_ml_provider.lineage import openlineage as words
    from airflow_ml_provider.lineage.openlineage_client import to_client
    from airflow_ml_provider.settings import load_settings

    if isinstance(lineage_context, words.DataSet):
        return to_client(lineage_context)
    root = load_settings().artifact_root
    return to_client(words.artifact_asset_data_set(root, parse_artifact_asset_uri(asset.uri), asset.uri))
