# SPDX-License-Identifier: Apache-2.0
"""One throw-away AIRFLOW_HOME for the whole test session, set before anything imports airflow."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

DEMO_PROCESSES = "tests/e2e/test_demo_processes.py"  # starts demos of its own

_TEMPORARY = tempfile.gettempdir()
_HOME = Path(tempfile.mkdtemp(prefix="airflow-ml-tests-"))
(_HOME / "dags").mkdir()
(_HOME / "tmp").mkdir()
tempfile.tempdir = str(_HOME / "tmp")

for _name in [name for name in os.environ if name.startswith(("AIRFLOW", "MLFLOW_", "AWS_"))]:
    del os.environ[_name]
os.environ.update(
    {
        "AIRFLOW_HOME": str(_HOME),
        "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
        "AIRFLOW__CORE__DAGS_FOLDER": str(_HOME / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__FERNET_KEY": "",
        "AIRFLOW__CORE__XCOM_BACKEND": "airflow_ml_provider.xcom.backend.ArtifactXComBackend",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{_HOME}/airflow.db",
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(64),
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(_HOME / "logs"),
        "AIRFLOW__ML_PROVIDER__ARTIFACT_ROOT": f"file://{_HOME}/artifacts",
        "AIRFLOW__ML_PROVIDER__SIGNING_KEY": secrets.token_hex(32),
        "MPLBACKEND": "Agg",
        "TMPDIR": tempfile.tempdir,  # what programs that are killed leave behind goes with it
    }
)
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", _TEMPORARY)  # what a failed test wrote stays


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of a file in one process, and all that use the cluster: a second would starve both."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            folder = file.rpartition("/")[0]
            return folder if folder == "tests/e2e" and file != DEMO_PROCESSES else file

    return Scheduling(config, log)


@pytest.fixture(scope="session")
def airflow_home() -> Path:
    """The AIRFLOW_HOME of this test session."""
    return _HOME


def pytest_unconfigure() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def airflow_db(airflow_home: Path) -> Path:
    """A migrated metadata database, one for the session."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.utils import db

    db.initdb()
    DagBundlesManager().sync_bundles_to_db()
    return airflow_home / "airflow.db"
