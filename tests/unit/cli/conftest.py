# SPDX-License-Identifier: Apache-2.0
"""Run ``airflow ml ...`` as Airflow does, against a store of this test alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook
from airflow_ml_provider.settings import load_settings


@dataclass
class Answer:
    code: int
    out: str
    err: str


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "root"
    monkeypatch.setenv("AIRFLOW__ML_PROVIDER__ARTIFACT_ROOT", f"file://{folder}")
    load_settings.cache_clear()
    yield folder
    load_settings.cache_clear()


@pytest.fixture
def store(root: Path) -> ArtifactStore:
    return ArtifactStoreHook().store


@pytest.fixture
def airflow(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Answer]:
    """Return a function that runs a command and gives its exit code and what it printed."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "client")  # put back what the commands set

    def run(*words: str) -> Answer:
        from airflow.cli import cli_parser

        load_settings.cache_clear()
        capsys.readouterr()
        code: int | str | None = 0
        try:
            args = cli_parser.get_parser().parse_args(words)
            args.func(args)
        except SystemExit as exc:
            code = exc.code
        printed = capsys.readouterr()
        return Answer(code if isinstance(code, int) else 1, printed.out, printed.err)

    return run
