# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_ml_provider.artifacts import scratch

MAKE = """
import sys
from airflow_ml_provider.artifacts import scratch
(scratch.folder() / "model").write_bytes(b"x")
print("made", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files that this process has not used yet."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(scratch, "_folder", None)
    return tmp_path


def start(shared: Path) -> subprocess.Popen[str]:
    made = subprocess.Popen(
        [sys.executable, "-c", MAKE],
        env={**os.environ, "TMPDIR": str(shared)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert made.stdout is not None
    assert made.stdout.readline() == "made\n"
    return made


def models(shared: Path) -> int:
    return len(list(shared.rglob("model")))


def test_local_copies_go_with_their_process(shared: Path) -> None:
    other = start(shared)
    other.communicate()
    assert list(shared.iterdir()) == []


def test_what_a_killed_process_left_goes_with_the_next_that_makes_some(shared: Path) -> None:
    other = start(shared)
    other.send_signal(signal.SIGKILL)
    other.communicate()
    assert models(shared) == 1
    scratch.folder()
    assert models(shared) == 0


def test_a_process_whose_number_says_nothing_here_keeps_its_copies(shared: Path) -> None:
    """Workers in containers that share a folder do not see each other's processes."""
    other = start(shared)
    (made,) = shared.iterdir()
    made = made.rename(made.with_name("airflow-ml-4194305-other"))  # beyond what Linux gives
    try:
        scratch.folder()
        assert models(shared) == 1
    finally:
        other.kill()
        other.communicate()
    scratch._sweep(shared)
    assert models(shared) == 0


@pytest.mark.parametrize("content", [[], ["other"]], ids=["empty", "of something else"])
def test_what_has_another_form_is_left_alone(shared: Path, content: list[str]) -> None:
    other = shared / "airflow-ml-1-mine"
    other.mkdir()
    for name in content:
        (other / name).touch()
    (shared / "airflow-ml-link").symlink_to(other)
    scratch.folder()
    assert sorted(path.name for path in other.iterdir()) == content
