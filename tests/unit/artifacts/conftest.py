# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from airflow_ml_provider.artifacts.store import ArtifactStore

KEY = b"a key of the tests, 32 bytes long"


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore((tmp_path / "root").as_uri(), signing_key=KEY)
