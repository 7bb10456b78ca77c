# SPDX-License-Identifier: Apache-2.0
"""
What this package tells Airflow about itself; Airflow reads it by the entry point ``apache_airflow_provider``.

Every Airflow component and every CLI call imports this module, so it imports nothing.
"""

from __future__ import annotations

from typing import Any

_MLFLOW = "MLflow"
_ARTIFACTS = "ML artifacts"
_MASKED_NAMES = (
    "*password*, *passwd*, *passphrase*, *secret*, *api_key*, *api-key*, *apikey*, *access_key*, "
    "*private_key*, *credential*, *authorization*, token, *[_-]token"
)


def get_provider_info() -> dict[str, Any]:
    """Return the provider info, valid against Airflow's ``provider_info.schema.json``."""
    return {
        "package-name": "airflow-ml-provider",
        "name": "ML",
        "description": (
            "Makes ordinary DAGs ML-aware: typed and versioned artifacts as XComs, "
            "`MLflow <https://mlflow.org/>`__ runs, model lineage and promotion.\n"
        ),
        "integrations": [
            {
                "integration-name": _MLFLOW,
                "external-doc-url": "https://mlflow.org/docs/latest/ml/",
                "tags": ["software"],
            },
            {
                "integration-name": _ARTIFACTS,
                "external-doc-url": "https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/xcoms.html",
                "tags": ["software"],
            },
        ],
        "operators": [
            {
                "integration-name": _MLFLOW,
                "python-modules": [
                    "airflow_ml_provider.operators.train",
                    "airflow_ml_provider.operators.evaluate",
                    "airflow_ml_provider.operators.register",
                    "airflow_ml_provider.operators.promote",
                    "airflow_ml_provider.operators.rollback",
                    "airflow_ml_provider.operators.predict",
                    "airflow_ml_provider.operators.drift",
                    "airflow_ml_provider.operators.freshness",
                    "airflow_ml_provider.operators.sweep",
                ],
            },
        ],
        "sensors": [
            {"integration-name": _MLFLOW, "python-modules": ["airflow_ml_provider.sensors.model_version"]},
        ],
        "triggers": [
            {
                "integration-name": _MLFLOW,
                "python-modules": [
                    "airflow_ml_provider.triggers.model_alias",
                    "airflow_ml_provider.triggers.model_version",
                ],
            },
        ],
        "hooks": [
            {"integration-name": _MLFLOW, "python-modules": ["airflow_ml_provider.hooks.mlflow"]},
            {"integration-name": _ARTIFACTS, "python-modules": ["airflow_ml_provider.hooks.artifact_store"]},
        ],
        "connection-types": [_mlflow_connection()],
        "extra-links": [
            "airflow_ml_provider.links.mlflow.MlflowRunLink",
            "airflow_ml_provider.links.mlflow.MlflowModelLink",
            "airflow_ml_provider.links.cache.ReusedFromLink",
        ],
        "task-decorators": [
            {"name": "train", "class-name": "airflow_ml_provider.decorators.train.train_task"},
            {"name": "evaluate", "class-name": "airflow_ml_provider.decorators.evaluate.evaluate_task"},
        ],
        "asset-uris": [
            {
                "schemes": ["mlflow"],
                "handler": "airflow_ml_provider.assets.handlers.sanitize_model_uri",
                "factory": "airflow_ml_provider.assets.handlers.create_model_asset",
                "to_openlineage_converter": (
                    "airflow_ml_provider.assets.handlers.convert_model_asset_to_openlineage"
                ),
            },
            {
                "schemes": ["ml-artifact"],
                "handler": "airflow_ml_provider.assets.handlers.sanitize_artifact_uri",
                "factory": "airflow_ml_provider.assets.handlers.create_artifact_asset",
                "to_openlineage_converter": (
                    "airflow_ml_provider.assets.handlers.convert_artifact_asset_to_openlineage"
                ),
            },
        ],
        "cli": ["airflow_ml_provider.cli.definition.get_ml_cli_commands"],
        "config": {
            "ml_provider": {
                "description": "Where artifacts are kept and how they are written and read.\n",
                "options": _config_options(),
            },
        },
    }


def _mlflow_connection() -> dict[str, Any]:
    return {
        "connection-type": "mlflow",
        "hook-class-name": "airflow_ml_provider.hooks.mlflow.MlflowHook",
        "hook-name": "MLflow",
        "ui-field-behaviour": {
            "hidden-fields": ["schema"],
            "relabeling": {
                "host": "Tracking URI",
                "login": "User name",
            },
            "placeholders": {
                "host": "https://mlflow.example.com",
                "port": "only if it is not in the tracking URI",
                "login": "for basic authentication",
                "password": "for basic authentication",
            },
        },
        "conn-fields": {
            "token": {
                "label": "Token",
                "description": "Bearer token, instead of user name and password.",
                "schema": {"type": ["string", "null"], "format": "password"},
            },
            "registry_uri": {
                "label": "Registry URI",
                "description": "Where models are registered, if that is not the tracking server.",
                "schema": {"type": ["string", "null"]},
            },
            "ui_url": {
                "label": "UI address",
                "description": (
                    "Address of MLflow as your browser reaches it, for the links on a task's page; "
                    "by default the tracking URI."
                ),
                "schema": {"type": ["string", "null"]},
            },
            "ca_bundle": {
                "label": "CA bundle",
                "description": "Path, on the workers, of the certificates that sign the server's own.",
                "schema": {"type": ["string", "null"]},
            },
            "webhook_secret": {
                "label": "Webhook secret",
                "description": "Secret of MLflow's webhooks to this Airflow; empty: they are refused.",
                "schema": {"type": ["string", "null"], "format": "password"},
            },
            "insecure_tls": {
                "label": "Skip TLS verification",
                "description": "Accept any certificate. For tests; a CA bundle is the safe way.",
                "schema": {"type": ["boolean", "null"], "default": False},
            },
        },
    }


def _option(
    kind: str, default: str | None, description: str, *, example: str | None = None, sensitive: bool = False
) -> dict[str, Any]:
    option: dict[str, Any] = {
        "description": description,
        "version_added": "0.1.0",
        "type": kind,
        "example": example,
        "default": default,
    }
    if sensitive:
        option["sensitive"] = True
    return option


def _config_options() -> dict[str, Any]:
    return {
        "artifact_root": _option(
            "string",
            "file://{AIRFLOW_HOME}/ml_artifacts",
            "Where artifacts live: ``file://`` and an absolute path that every worker mounts, or\n"
            "``s3://bucket/prefix``. Workers, the CLI and the client read and write it directly.\n",
            example="s3://ml-artifacts/production",
        ),
        "artifact_conn_id": _option(
            "string",
            "",
            "AWS connection (type ``aws``) whose credentials and endpoint reach an ``s3://`` root.\n"
            "Empty: the credentials of the machine. Needs the extra ``s3``.\n",
            example="artifacts_s3",
        ),
        "mlflow_conn_id": _option(
            "string",
            "mlflow_default",
            "Connection (type ``mlflow``) of the tracking server, where an operator names no other.\n",
            example="mlflow_production",
        ),
        "parent_run": _option(
            "boolean",
            "True",
            "Put the MLflow runs of ``ml.tracked`` below one run of the whole DAG run, so that an\n"
            "experiment shows a line for each DAG run. A task's own ``parent_run=`` wins.\n",
        ),
        "inline_max_bytes": _option(
            "integer",
            "16384",
            "JSON values up to this size, in bytes, stay in the XCom table as they are; larger ones become\n"
            "artifacts.\n",
        ),
        "allow_pickle": _option(
            "boolean",
            "False",
            "Store what no codec knows by pickle (``pickle-v1``), and read such artifacts. Reading them\n"
            "runs whatever code their writer chose, so turn it on only where everybody who can write to the\n"
            "store or to XComs may run code in your tasks. Off: writing and reading them is refused.\n",
        ),
        "max_artifact_bytes": _option(
            "integer",
            "0",
            "The most that one artifact may take, in bytes, stored or unpacked in memory. More is refused\n"
            "when it is written and before it is read. 0: no limit.\n",
            example="21474836480",
        ),
        "signing_key": _option(
            "string",
            "",
            "Secret of at least 32 characters that signs envelopes and manifests; every machine of a\n"
            "deployment needs the same. Of several, separated by commas or blanks, the first signs and all\n"
            "are accepted, so that a new key keeps old artifacts readable. Empty: derived from\n"
            "``[core] fernet_key``, and without that a key file in AIRFLOW_HOME, which serves one machine.\n",
            sensitive=True,
        ),
        "verify_on_read": _option(
            "boolean",
            "True",
            "Compare the hash of an artifact's bytes with its manifest each time it is read.\n",
        ),
        "previews": _option(
            "boolean",
            "True",
            "Keep a few rows of each artifact in its envelope, where the Airflow UI shows them. Turn it off\n"
            "where the metadata database must not hold user data.\n",
        ),
        "preview_mask": _option(
            "string",
            _MASKED_NAMES,
            "Columns and keys whose cells previews show as ``***``: names separated by commas or blanks, in\n"
            "any case; ``*`` stands for any part of a name. One artifact's own:\n"
            "``Artifact(name, mask=(...))``.\n",
            example="*password*, *secret*, ssn, email_*",
        ),
        "allowed_classes": _option(
            "string",
            "",
            "Dotted paths, separated by commas or spaces, of the dataclasses, pydantic models and enums\n"
            "that reading an artifact may import; ``*`` stands for any part of a name.\n",
            example="mycompany.features.*, mycompany.models.Customer",
        ),
    }
