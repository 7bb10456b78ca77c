# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from airflow.cli.cli_config import ActionCommand, GroupCommand

from airflow_ml_provider.cli import definition
from tests.unit.cli.conftest import Answer

Run = Callable[..., Answer]


def commands(group: GroupCommand, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ActionCommand]]:
    for command in group.subcommands:
        if isinstance(command, GroupCommand):
            yield from commands(command, (*path, command.name))
        else:
            yield " ".join((*path, command.name)), command


COMMANDS = dict(commands(definition.get_ml_cli_commands()[0]))  # type: ignore[arg-type]


def test_the_commands_are_these() -> None:
    assert set(COMMANDS) == {
        "doctor",
        "gc",
        "artifacts list",
        "artifacts show",
        "artifacts get",
        "artifacts verify",
        "models list",
        "models history",
        "models as-of",
        "lineage up",
        "lineage down",
        "lineage blast",
        "lineage diff",
        "runs list",
        "runs compare",
        "runs sweep",
        "cache explain",
        "cache clear",
    }


def test_every_command_has_a_heading_in_the_reference() -> None:
    page = Path(__file__).parents[3] / "docs" / "reference" / "cli.md"
    assert set(re.findall(r"^## `airflow ml (.*)`$", page.read_text(), flags=re.MULTILINE)) == set(COMMANDS)


@pytest.mark.parametrize("words", sorted(COMMANDS))
def test_every_command_has_help_that_tells_its_exit_codes(airflow: Run, words: str) -> None:
    answer = airflow("ml", *words.split(), "--help")
    assert answer.code == 0
    assert "Exit code: 0 done" in answer.out


@pytest.mark.parametrize("words", sorted(COMMANDS))
def test_help_has_no_brackets_which_airflow_takes_for_markup_and_drops(words: str) -> None:
    command = COMMANDS[words]
    texts = [command.help, command.description, *(arg.kwargs.get("help") for arg in command.args)]
    assert [text for text in texts if text and "[" in text] == []


@pytest.mark.parametrize(
    "path",
    [
        "doctor.doctor",
        "gc.collect_garbage",
        "artifacts.list_artifacts",
        "artifacts.show_artifact",
        "artifacts.get_artifact",
        "artifacts.verify_artifacts",
        "models.list_models",
        "models.show_history",
        "models.show_as_of",
        "runs.list_runs",
        "runs.compare_runs",
        "cache.explain_cache",
        "cache.clear_cache",
    ],
)
def test_every_command_is_where_the_definition_looks_for_it(path: str) -> None:
    module, _, name = path.partition(".")
    assert callable(getattr(importlib.import_module(f"airflow_ml_provider.cli.{module}"), name))


def test_the_definition_that_every_airflow_command_imports_is_light() -> None:
    code = (
        "import sys, airflow.cli.cli_config\n"
        "before = set(sys.modules)\n"
        "import airflow_ml_provider.cli.definition as d; d.get_ml_cli_commands()\n"
        "print(sorted(set(sys.modules) - before))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip().splitlines()[-1] in (
        "['airflow_ml_provider.cli', 'airflow_ml_provider.cli.definition']",
        "['airflow_ml_provider', 'airflow_ml_provider.cli', 'airflow_ml_provider.cli.definition']",
    )


def test_verbose_shows_where_an_error_comes_from(airflow: Run) -> None:
    from airflow_ml_provider.exceptions import ArtifactNotFoundError

    with pytest.raises(ArtifactNotFoundError):
        airflow("ml", "artifacts", "show", "nope", "--verbose")
