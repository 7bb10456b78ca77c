# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess

import pytest

from airflow_ml_provider.tracking.code import code_state, uncommitted_diff


@pytest.fixture
def repository(tmp_path):
    def git(*arguments):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True, capture_output=True)  # noqa: S607

    git("init", "-b", "main")
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "train.py").write_text("x = 1\n")
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-m", "first")
    return tmp_path


def test_a_file_knows_its_commit(repository):
    state = code_state(repository / "dags" / "train.py")
    assert len(state.pop("git.commit")) == 40
    assert state == {"git.branch": "main", "git.dirty": "false", "git.path": "dags/train.py"}


def test_changes_that_are_not_committed_show(repository):
    (repository / "dags" / "train.py").write_text("x = 2\n")
    assert code_state(repository / "dags" / "train.py")["git.dirty"] == "true"


def test_outside_a_repository_there_is_nothing_to_say(tmp_path):
    assert code_state(tmp_path / "train.py") == {}
    assert code_state(tmp_path / "missing" / "train.py") == {}
    assert code_state(None) == {}


def test_changes_that_are_not_committed_can_be_applied_to_the_commit(repository):
    file = repository / "dags" / "train.py"
    assert uncommitted_diff(file) == ""
    file.write_text("x = 2\n \n")
    diff = uncommitted_diff(repository)
    subprocess.run(["git", "-C", str(repository), "checkout", "-q", "."], check=True)  # noqa: S607
    applied = ["git", "-C", str(repository), "apply", "--whitespace=nowarn"]
    subprocess.run(applied, input=diff, text=True, check=True)
    assert file.read_text() == "x = 2\n \n"


def test_a_huge_change_is_cut_and_says_so(repository):
    (repository / "dags" / "train.py").write_text("x = 2\n" * 300_000)
    diff = uncommitted_diff(repository)
    assert diff.startswith("# Cut: the first 1000000 of ")
    assert len(diff) < 1_001_000


def test_outside_a_repository_no_change_is_known(tmp_path):
    assert uncommitted_diff(tmp_path) is None
    assert uncommitted_diff(tmp_path / "missing" / "train.py") is None
    assert uncommitted_diff(None) is None
