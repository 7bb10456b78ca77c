# SPDX-License-Identifier: Apache-2.0
"""The same frames under pandas 2, and from one pandas to the other."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Of the versions that run here, so that files are equal to the byte.
SHARED = ("pyarrow", "numpy", "obstore", "blake3", "zstandard")


@pytest.fixture(scope="session")
def pandas_2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with pandas 2 and what the ground floor needs, without Airflow."""
    home = tmp_path_factory.mktemp("pandas_2")
    pins = [f"{name}=={importlib.metadata.version(name)}" for name in SHARED]
    wanted = ["pandas>=2.2,<3", *pins]
    python = home / "bin" / "python"
    if uv := shutil.which("uv"):
        commands = [
            [uv, "venv", "-q", str(home)],
            [uv, "pip", "install", "-q", "--python", str(python), *wanted],
        ]
    else:
        commands = [
            [sys.executable, "-m", "venv", "--without-pip", str(home)],
            [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-compile", *wanted],
        ]
    for command in commands:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr
    return python


def run(python: Path | str, mode: str, root: Path) -> Any:
    done = subprocess.run(
        [str(python), "-m", "tests.support.exchange_frames", mode, root.as_uri()],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="session")
def written(pandas_2: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """What each pandas wrote, and what it said of it."""
    made = {}
    for version, python in {"2": pandas_2, "3": Path(sys.executable)}.items():
        root = tmp_path_factory.mktemp(f"by_pandas_{version}")
        made[version] = (root, run(python, "write", root))
    return made


@pytest.mark.parametrize("version", ["2", "3"])
def test_frames_come_back_as_they_were(written: dict[str, tuple[Path, Any]], version: str) -> None:
    _root, found = written[version]

    assert found["pandas"].startswith(f"{version}.")
    assert found["wrong"] == []
    assert len([name for name in found["written"] if name.startswith("parquet/")]) > 25


@pytest.mark.parametrize(("writer", "reader"), [("2", "3"), ("3", "2")])
def test_frames_go_from_one_pandas_to_the_other(
    written: dict[str, tuple[Path, Any]], pandas_2: Path, writer: str, reader: str
) -> None:
    root, found = written[writer]

    back = run(pandas_2 if reader == "2" else sys.executable, "read", root)

    assert back["pandas"].startswith(f"{reader}.")
    assert back["refused"] == {}
    assert {name: back["taken"].get(name) for name in found["written"]} == found["written"]
