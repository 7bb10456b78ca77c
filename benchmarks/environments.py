# SPDX-License-Identifier: Apache-2.0
"""An environment for each of the others, made once and kept in a cache folder."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import ROOT

OWN = "ours"
# The values are of the same libraries everywhere.
_SHARED = ("pandas", "numpy", "pyarrow")
_WANTED = {
    "dagster": ["dagster>=1.11,<2"],
    "metaflow": ["metaflow>=2.18,<3"],
    "joblib": ["joblib>=1.5,<2"],
    "common-io": [
        f"apache-airflow=={importlib.metadata.version('apache-airflow')}",
        "apache-airflow-providers-common-io",
        "apache-airflow-providers-amazon",
        # Named with lower bounds, or pip goes back to an s3fs of 2020 to keep the newest boto3.
        "aiobotocore[boto3]>=3",
        "s3fs>=2025.9",
    ],
}
# These take Airflow and all that it needs from our own pins, but for what s3fs holds back.
_PINNED = ("common-io",)
_NOT_PINNED = ("aiobotocore", "boto3", "botocore", "s3transfer", "s3fs", "urllib3")
# Named in the report.
REPORTED = {
    OWN: ["apache-airflow-core", "mlflow", "scikit-learn", "skops", "obstore", "blake3", *_SHARED],
    "dagster": ["dagster", *_SHARED],
    "metaflow": ["metaflow", *_SHARED],
    "joblib": ["joblib", "numpy"],
    "common-io": ["apache-airflow-core", "apache-airflow-providers-common-io", "s3fs", *_SHARED],
}


def default_cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "airflow-ml-provider" / "benchmarks"


def python_of(name: str, cache: Path, tell: Callable[[str], None]) -> str:
    """
    Return the interpreter of an environment, making it the first time and when what it needs changed.

    :raises RuntimeError: if pip fails, with the end of what it said.
    """
    if name == OWN:
        return sys.executable
    pins = _pins() if name in _PINNED else ""
    wanted = [*_WANTED[name], *(f"{shared}=={importlib.metadata.version(shared)}" for shared in _SHARED)]
    mark = hashlib.blake2b(" ".join([sys.version, *wanted]).encode(), digest_size=6).hexdigest()
    folder = cache / f"{name}-{mark}"
    python = folder / "bin" / "python"
    if (folder / "complete").exists():
        return str(python)
    tell(f"making an environment for {name} in {folder} (once) ...")
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    constraints = folder / "constraints.txt"
    constraints.write_text(pins, encoding="utf-8")
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, "--constraint", str(constraints), *wanted],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"installing {' '.join(wanted)} failed:\n{done.stderr[-2000:]}")
    (folder / "complete").touch()
    return str(python)


def _pins() -> str:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if line.split("==")[0] not in _NOT_PINNED)
