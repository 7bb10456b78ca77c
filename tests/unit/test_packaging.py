# SPDX-License-Identifier: Apache-2.0
"""The distribution, its pinned versions, the Makefile and CI."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import metadata
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import airflow_ml_provider

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text().splitlines()
PINNED = {
    canonicalize_name(line.partition("==")[0]): Version(line.partition("==")[2])
    for line in CONSTRAINTS
    if not line.startswith("#")
}
HEAVY = (
    "pandas",
    "numpy",
    "pyarrow",
    "sklearn",
    "mlflow",
    "boto3",
    "kubernetes",
    "obstore",
    "skops",
    "torch",
    "scipy",
    "xgboost",
    "lightgbm",
    "catboost",
    "PIL",
    "matplotlib",
    "plotly",
)
GROUND_FLOOR = ("artifacts", "lineage", "caching", "tracking", "exceptions", "provider_info")
LEAVES = "airflow_ml_provider.artifacts.codecs."  # imported on first use, so they import at the top


def names(requirements: list[str]) -> set[str]:
    return {Requirement(requirement).name for requirement in requirements}


def modules() -> Iterator[str]:
    package = ROOT / "airflow_ml_provider"
    for path in sorted(package.rglob("*.py")):
        dotted = ".".join(("airflow_ml_provider", *path.relative_to(package).with_suffix("").parts))
        yield dotted.removesuffix(".__init__")


def needed(requirement: Requirement, seen: set[tuple[str, str]]) -> None:
    """Collect (distribution, extra) of all that a requirement installs into this environment."""
    for extra in ("", *sorted(requirement.extras)):
        key = (canonicalize_name(requirement.name), extra)
        if key in seen:
            continue
        seen.add(key)
        for line in metadata.requires(requirement.name) or []:
            further = Requirement(line)
            if further.marker is None or further.marker.evaluate({"extra": extra}):
                needed(further, seen)


def test_the_version_is_written_once() -> None:
    assert PROJECT["dynamic"] == ["version"]
    assert metadata.version("airflow-ml-provider") == airflow_ml_provider.__version__


def test_the_core_is_what_the_dependency_page_explains() -> None:
    core = {
        "apache-airflow",
        "apache-airflow-providers-standard",
        "mlflow-skinny",
        "pyarrow",
        "obstore",
        "blake3",
        "cloudpickle",
        "zstandard",
    }
    assert names(PROJECT["dependencies"]) == core
    page = (ROOT / "docs" / "dependencies.md").read_text()
    everything = PROJECT["dependencies"] + [
        requirement
        for extra, requirements in PROJECT["optional-dependencies"].items()
        for requirement in requirements
        if extra != "dev"
    ]
    assert sorted(name for name in names(everything) if f"`{name}`" not in page) == ["airflow-ml-provider"]
    assert [extra for extra in PROJECT["optional-dependencies"] if f"`{extra}`" not in page] == []


def test_the_extras_are_those_that_the_docs_name() -> None:
    assert set(PROJECT["optional-dependencies"]) == {
        "train",
        "s3",
        "polars",
        "kubernetes",
        "openlineage",
        "xgboost",
        "lightgbm",
        "catboost",
        "torch",
        "images",
        "demo",
        "dev",
        "all",
    }
    assert names(PROJECT["optional-dependencies"]["s3"]) == {"boto3", "apache-airflow-providers-amazon"}


@pytest.mark.parametrize(
    ("group", "value"),
    [
        ("apache_airflow_provider", "airflow_ml_provider.provider_info:get_provider_info"),
        ("airflow.plugins", "airflow_ml_provider.plugins.ml_plugin:MLPlugin"),
    ],
)
def test_both_entry_points_are_installed_and_load(group: str, value: str) -> None:
    found = [point for point in metadata.entry_points(group=group) if point.value == value]
    assert len(found) == 1
    assert callable(found[0].load())


def test_constraints_are_exact_versions_and_name_no_host_file_or_index() -> None:
    for line in CONSTRAINTS:
        if not line.startswith("#"):
            assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._!-]+", line), line
        assert "://" not in line
    assert "airflow-ml-provider" not in PINNED


@pytest.mark.parametrize("extra", ["dev", "all"])
def test_everything_that_an_extra_installs_is_pinned(extra: str) -> None:
    seen: set[tuple[str, str]] = set()
    needed(Requirement(f"airflow-ml-provider[{extra}]"), seen)
    closure = {name for name, _ in seen} - {"airflow-ml-provider"}
    assert len(closure) > 100
    assert sorted(closure - set(PINNED)) == []


def test_pinned_versions_are_allowed_by_what_pyproject_asks_for() -> None:
    extras = PROJECT["optional-dependencies"].values()
    for requirement in map(Requirement, chain(PROJECT["dependencies"], *extras)):
        if requirement.name != "airflow-ml-provider":
            assert PINNED[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)],
        check=True,
        capture_output=True,
        cwd=ROOT,
    )
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.split("/")[0] for name in inside}
    assert tops == {"airflow_ml_provider", f"airflow_ml_provider-{airflow_ml_provider.__version__}.dist-info"}
    assert "airflow_ml_provider/py.typed" in inside
    assert any(name.endswith("licenses/LICENSE") for name in inside)
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "airflow_ml_provider").rglob("*.py")}
    assert files <= inside


def test_importing_every_module_imports_nothing_heavy() -> None:
    wanted = [name for name in modules() if not (name.startswith(LEAVES) and name != f"{LEAVES}registry")]
    code = (
        "import importlib, sys\n"
        "import airflow.sdk, airflow.cli.cli_config, airflow.sdk.plugins_manager\n"
        f"heavy = {HEAVY!r}\n"
        "before = {name for name in heavy if name in sys.modules}\n"
        f"for module in {wanted!r}:\n"
        "    importlib.import_module(module)\n"
        "    found = {name for name in heavy if name in sys.modules} - before\n"
        "    before |= found\n"
        "    for name in found: print('FOUND', module, 'imports', name)\n"
    )
    env = {**os.environ, "AIRFLOW__CORE__XCOM_BACKEND": "airflow.sdk.bases.xcom.BaseXCom"}
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env)
    assert [line for line in found.stdout.splitlines() if line.startswith("FOUND")] == []


@pytest.mark.parametrize(
    ("room", "names"),
    [
        ("hooks", {"ArtifactStoreHook", "MlflowHook"}),
        ("operators", {"EvaluateModelOperator", "PromoteModelOperator", "TrainModelOperator"}),
        ("sensors", {"ModelVersionSensor"}),
        ("triggers", {"ModelAliasTrigger"}),
        ("xcom", {"ArtifactXComBackend"}),
    ],
)
def test_public_names_are_imported_from_their_room(room: str, names: set[str]) -> None:
    module = importlib.import_module(f"airflow_ml_provider.{room}")

    assert names <= set(dir(module))
    assert {getattr(module, name).__name__ for name in dir(module)} == set(dir(module))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = module.nothing


def test_the_ground_floor_imports_without_airflow() -> None:
    wanted = [name for name in modules() if name.count(".") and name.split(".")[1] in GROUND_FLOOR]
    assert len(wanted) > 20
    code = (
        "import importlib, sys\n"
        "sys.modules['airflow'] = None\n"  # importing it raises from now on
        f"for module in {wanted!r}: importlib.import_module(module)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)


def make(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *words],  # noqa: S607
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**inherited, **env},
    )


def test_make_alone_lists_every_target() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert phony is not None
    listed = re.findall(r"^  make (\S+)", make().stdout, flags=re.MULTILINE)
    assert sorted(listed) == sorted(phony[1].split())
    assert {"install", "demo", "demo-ui", "demo-stop", "test", "lint", "constraints", "clean"} <= set(listed)


def test_a_missing_python_is_reported_with_what_to_do(tmp_path: Path) -> None:
    found = make("install", VENV=str(tmp_path / "venv"), PYTHON=str(tmp_path / "python3.11"))
    assert found.returncode != 0
    assert "error: no " in found.stderr
    assert "make install PYTHON=/path/to/python3" in found.stderr
    assert not (tmp_path / "venv").exists()


def test_a_python_that_is_too_old_is_reported(tmp_path: Path) -> None:
    old = tmp_path / "python3.10"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.10.1" && exit 0\nexit 1\n')
    old.chmod(0o700)
    found = make("install", VENV=str(tmp_path / "venv"), PYTHON=str(old))
    assert found.returncode != 0
    assert "Python 3.10.1 is too old; Python 3.11 or newer is needed" in found.stderr


def test_an_environment_that_is_up_to_date_is_left_alone(tmp_path: Path) -> None:
    plan = make("--dry-run", "install", VENV=str(tmp_path)).stdout
    stamp = re.search(rf"touch ({re.escape(str(tmp_path))}/\.installed-\S+)", plan)
    assert stamp is not None
    Path(stamp[1]).touch()
    assert "Nothing to be done" in make("install", VENV=str(tmp_path)).stdout


def test_ci_runs_installation_lint_and_every_test() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "set -euo pipefail" in script
    assert re.findall(r"^make (\S+)$", script, flags=re.MULTILINE) == ["install", "lint", "test"]
    plan = make("--dry-run", "lint", "test").stdout
    for word in (
        "ruff check",
        "ruff format --check",
        "mypy",
        "lint-imports",
        "tests/e2e tests/integration tests/unit",
    ):
        assert word in plan
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100
