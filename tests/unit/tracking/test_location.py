# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess

import pytest

from airflow_ml_provider.tracking.location import code_location, web_address


@pytest.fixture
def git(tmp_path):
    def run(*arguments):
        done = subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True, capture_output=True)  # noqa: S607
        return done.stdout.decode().strip()

    run("init", "-b", "main")
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "my train.py").write_text("x = 1\n")
    run("add", ".")
    run("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-m", "first")
    return run


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("https://github.com/org/repo.git", "https://github.com/org/repo"),
        ("https://user:ghp_secret@github.com/org/repo", "https://github.com/org/repo"),
        (
            "https://token@git.example.com:8443/group/sub/repo.git/",
            "https://git.example.com:8443/group/sub/repo",
        ),
        ("git@github.com:org/repo.git", "https://github.com/org/repo"),
        ("ssh://git@git.example.com:2222/org/repo.git", "https://git.example.com/org/repo"),
        ("http://git.internal/org/repo", "http://git.internal/org/repo"),
        ("/srv/git/repo.git", None),
        ("file:///srv/git/repo.git", None),
        ("", None),
    ],
)
def test_a_remote_becomes_an_address_without_credentials(remote, address):
    assert web_address(remote) == address


def test_a_file_is_found_at_its_commit(git, tmp_path):
    git("remote", "add", "origin", "https://me:secret@github.com/org/repo.git")
    commit = git("rev-parse", "HEAD")
    assert code_location(tmp_path / "dags" / "my train.py") == {
        "type": "git",
        "url": f"https://github.com/org/repo/blob/{commit}/dags/my%20train.py",
        "repoUrl": "https://github.com/org/repo",
        "path": "dags/my train.py",
        "version": commit,
        "branch": "main",
    }


def test_without_a_remote_or_a_repository_there_is_nothing_to_say(git, tmp_path, tmp_path_factory):
    assert code_location(tmp_path / "dags" / "my train.py") is None
    assert code_location(tmp_path_factory.mktemp("elsewhere") / "train.py") is None
    assert code_location(None) is None
