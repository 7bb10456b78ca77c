# SPDX-License-Identifier: Apache-2.0
"""What Airflow reads of the provider info is complete, valid and true."""

from __future__ import annotations

import importlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest

from airflow_ml_provider.artifacts.preview import SECRET_NAMES
from airflow_ml_provider.provider_info import get_provider_info

INFO = get_provider_info()
CONNECTION = INFO["connection-types"][0]
OPTIONS = INFO["config"]["ml_provider"]["options"]


def _load(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _schema(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((Path(airflow.__file__).parent / name).read_text())
    return schema


def test_it_is_valid_against_the_schema_that_airflow_checks_at_run_time() -> None:
    jsonschema.validate(INFO, _schema("provider_info.schema.json"))


@pytest.mark.parametrize(
    "key",
    [
        "integrations",
        "operators",
        "hooks",
        "connection-types",
        "extra-links",
        "task-decorators",
        "asset-uris",
        "cli",
        "config",
    ],
)
def test_each_part_is_valid_against_the_stricter_schema_of_airflows_own_providers(key: str) -> None:
    part = _schema("provider.yaml.schema.json")["properties"][key]
    definitions = _schema("provider.yaml.schema.json").get("definitions", {})
    if key == "integrations":  # the only one we fall short of: a how-to guide in Airflow's own doc tree
        part = {
            **part,
            "items": {**part["items"], "required": ["integration-name", "external-doc-url", "tags"]},
        }
    jsonschema.validate(INFO[key], {**part, "definitions": definitions})


def test_every_integration_that_a_part_names_is_declared() -> None:
    declared = {integration["integration-name"] for integration in INFO["integrations"]}
    named = {part["integration-name"] for key in ("operators", "hooks") for part in INFO[key]}
    assert named == declared


def _operators(module: Any) -> list[type]:
    from airflow.sdk import BaseOperator

    return [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, BaseOperator) and value.__module__ == module.__name__
    ]


@pytest.mark.parametrize("module", [name for part in INFO["operators"] for name in part["python-modules"]])
def test_every_operator_module_defines_an_operator(module: str) -> None:
    assert _operators(importlib.import_module(module))


def test_every_operator_of_the_package_is_in_a_module_that_is_listed() -> None:
    import airflow_ml_provider.operators as room

    listed = {name for part in INFO["operators"] for name in part["python-modules"]}
    files = {
        f"airflow_ml_provider.operators.{path.stem}" for path in Path(room.__path__[0]).glob("[a-z]*.py")
    }
    assert {name for name in files if _operators(importlib.import_module(name))} == listed


@pytest.mark.parametrize("module", [name for part in INFO["hooks"] for name in part["python-modules"]])
def test_every_hook_module_defines_a_hook(module: str) -> None:
    from airflow.sdk import BaseHook

    found = importlib.import_module(module)
    assert any(
        isinstance(value, type) and issubclass(value, BaseHook) and value.__module__ == module
        for value in vars(found).values()
    )


def test_the_hook_of_the_connection_type_says_the_same_type() -> None:
    hook = _load(CONNECTION["hook-class-name"])
    assert hook.conn_type == CONNECTION["connection-type"] == "mlflow"
    assert hook.hook_name == CONNECTION["hook-name"]
    assert hook.default_conn_name == "mlflow_default"
    assert callable(hook.test_connection)


@pytest.mark.parametrize("decorator", INFO["task-decorators"], ids=lambda item: item["name"])
def test_every_task_decorator_is_reached_as_task_dot_name(decorator: dict[str, str]) -> None:
    from airflow.sdk import task

    assert callable(_load(decorator["class-name"]))
    assert getattr(task, decorator["name"]) is _load(decorator["class-name"])


@pytest.mark.parametrize("path", INFO["extra-links"])
def test_every_extra_link_is_an_operator_link(path: str) -> None:
    from airflow.sdk import BaseOperatorLink

    assert issubclass(_load(path), BaseOperatorLink)


@pytest.mark.parametrize(
    ("scheme", "given", "kept"),
    [
        ("mlflow", "mlflow://flight_delay/champion", "mlflow://flight_delay/champion"),
        ("ml-artifact", "ml-artifact://flight_features", "ml-artifact://flight_features"),
    ],
)
def test_an_asset_with_our_scheme_goes_through_our_handler(scheme: str, given: str, kept: str) -> None:
    from airflow.sdk import Asset
    from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

    entry = next(item for item in INFO["asset-uris"] if scheme in item["schemes"])
    manager = ProvidersManagerTaskRuntime()
    assert manager.asset_uri_handlers[scheme] is _load(entry["handler"])
    assert manager.asset_factories[scheme] is _load(entry["factory"])
    assert manager.asset_to_openlineage_converters[scheme] is _load(entry["to_openlineage_converter"])
    assert Asset(uri=given).uri == kept


@pytest.mark.parametrize("uri", ["mlflow://", "mlflow://flight_delay/", "ml-artifact://"])
def test_an_asset_with_half_a_uri_of_ours_is_refused(uri: str) -> None:
    from airflow.sdk import Asset

    with pytest.raises(ValueError, match=r"asset URI|nonempty|scheme"):
        Asset(name="x", uri=uri)


def test_airflow_lists_the_provider_with_its_version() -> None:
    from airflow.providers_manager import ProvidersManager

    import airflow_ml_provider

    assert ProvidersManager().providers["airflow-ml-provider"].version == airflow_ml_provider.__version__


def test_the_connection_form_shows_our_fields_without_importing_the_hook() -> None:
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    widgets = {
        widget.field_name: widget
        for widget in manager._connection_form_widgets_from_metadata.values()
        if widget.package_name == "airflow-ml-provider"
    }
    assert list(widgets) == ["token", "registry_uri", "ui_url", "ca_bundle", "webhook_secret", "insecure_tls"]
    assert [name for name, widget in widgets.items() if widget.is_sensitive] == ["token", "webhook_secret"]
    form = next(
        entry
        for entry in manager.iter_connection_type_hook_ui_metadata()
        if entry.connection_type == "mlflow"
    )
    assert form.hook_name == "MLflow"
    assert form.field_behaviour is not None
    assert form.field_behaviour["relabeling"]["host"] == "Tracking URI"
    assert form.field_behaviour["hidden_fields"] == ["schema"]


def test_the_cli_group_is_registered() -> None:
    from airflow.providers_manager import ProvidersManager

    functions = ProvidersManager().cli_command_functions
    groups = [group.name for function in functions for group in function()]
    assert groups.count("ml") == 1


@pytest.mark.parametrize(
    ("option", "default"),
    [
        ("artifact_root", None),  # has AIRFLOW_HOME in it
        ("artifact_conn_id", ""),
        ("mlflow_conn_id", "mlflow_default"),
        ("inline_max_bytes", "16384"),
        ("allow_pickle", "False"),
        ("max_artifact_bytes", "0"),
        ("signing_key", ""),
        ("verify_on_read", "True"),
        ("previews", "True"),
        ("preview_mask", ", ".join(SECRET_NAMES)),
        ("allowed_classes", ""),
    ],
)
def test_every_option_has_its_default(option: str, default: str | None) -> None:
    from airflow.configuration import conf

    found = conf.get_default_value("ml_provider", option)
    if option == "artifact_root":
        assert str(found).startswith("file:///")
        assert str(found).endswith("/ml_artifacts")
    else:
        assert found == default


def test_airflow_config_list_shows_every_option_with_its_description() -> None:
    from airflow.configuration import conf

    shown = io.StringIO()
    conf.write(shown, section="ml_provider", include_descriptions=True, include_providers=True)
    text = shown.getvalue()
    for name, option in OPTIONS.items():
        assert f"{name} = " in text
        assert option["description"].splitlines()[0] in text


def test_no_option_is_declared_twice_or_forgotten_by_the_settings() -> None:
    from airflow_ml_provider.settings import Settings

    assert set(OPTIONS) == set(Settings.__dataclass_fields__) - {"signing_key_source", "verify_with"}


def test_declared_defaults_are_the_defaults_of_the_settings() -> None:
    from airflow_ml_provider.settings import Settings

    fields = Settings.__dataclass_fields__
    readers: dict[str, Callable[[str], object]] = {
        "boolean": lambda text: text == "True",
        "integer": int,
        "string": str,
    }
    names = (
        "inline_max_bytes",
        "max_artifact_bytes",
        "allow_pickle",
        "verify_on_read",
        "previews",
        "mlflow_conn_id",
    )
    for name in names:
        declared = readers[OPTIONS[name]["type"]](OPTIONS[name]["default"])
        assert declared == fields[name].default, name


def test_the_signing_key_is_secret() -> None:
    from airflow.configuration import conf
    from airflow.providers_manager import ProvidersManager

    ProvidersManager().initialize_providers_configuration()
    assert conf.is_sensitive_option("ml_provider", "signing_key")
    assert [name for name, option in OPTIONS.items() if option.get("sensitive")] == ["signing_key"]


def test_importing_the_provider_info_imports_nothing_of_airflow_and_nothing_heavy() -> None:
    code = (
        "import sys; before = set(sys.modules)\n"
        "import airflow_ml_provider.provider_info as info; info.get_provider_info()\n"
        "roots = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(roots - {'airflow_ml_provider'} - set(sys.stdlib_module_names)))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"
