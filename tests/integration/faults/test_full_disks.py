# SPDX-License-Identifier: Apache-2.0
"""Full disks, for real: the process that saves or reads has one of 8 MiB."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_ml_provider.artifacts.store import ArtifactStore
from tests.support import seaweed, tiny_disk

pytestmark = pytest.mark.skipif(
    tiny_disk.way() is None, reason="nobody may mount a tmpfs here, neither by a user namespace nor as root"
)

SIZE = 8 << 20


def run(scenario: str, tmp_path: Path, options: dict[str, Any]) -> None:
    disk, other = tmp_path / "disk", tmp_path / "other"
    disk.mkdir()
    other.mkdir()
    command = [sys.executable, "-m", "tests.integration.faults.on_a_full_disk", scenario]
    tiny_disk.run_on(disk, SIZE, [*command, str(disk), str(other), json.dumps(options)])


def test_a_save_to_a_full_disk_fails_whole_and_works_when_there_is_room(tmp_path: Path) -> None:
    run("a_save", tmp_path, {})


def test_a_reader_whose_scratch_disk_is_full_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    run("a_read", tmp_path, {})


@pytest.mark.s3
def test_a_reader_of_s3_whose_scratch_disk_is_full_says_so_and_leaves_nothing(
    tmp_path: Path, server: seaweed.S3Server, direct: ArtifactStore
) -> None:
    run("a_read", tmp_path, {**server.options, "root": direct.objects.root})
