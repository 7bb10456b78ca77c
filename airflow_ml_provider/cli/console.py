# SPDX-License-Identifier: Apache-2.0
"""How the commands speak: tables for people, JSON and YAML for programs, errors in one line."""

from __future__ import annotations

import functools
import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from airflow.cli.simple_table import AirflowConsole
from airflow.configuration import conf
from airflow.exceptions import AirflowException
from airflow.utils import yaml
from airflow.utils.cli import suppress_logs_and_warning
from airflow.utils.providers_configuration_loader import providers_configuration_loaded
from rich.markup import escape

from airflow_ml_provider.exceptions import (
    ArtifactNotFoundError,
    MlflowUnavailableError,
    MLProviderError,
    ModelNotFoundError,
    StoreError,
)

FAILED = 1
WRONG = 2
NOT_FOUND = 3
UNREACHABLE = 4

T = TypeVar("T")


def command(function: Callable[[Namespace], int]) -> Callable[[Namespace], None]:
    """
    Make a command of a function that returns an exit code.

    What users can act on is told in one line on standard error; ``--verbose`` shows the traceback instead.
    """

    @suppress_logs_and_warning  # type: ignore[untyped-decorator]
    @providers_configuration_loaded  # type: ignore[untyped-decorator]
    @functools.wraps(function)
    def run(args: Namespace) -> None:
        _find_connections_in_the_metadata_database()
        try:
            code = function(args)
        except (MLProviderError, AirflowException, OSError, ValueError) as exc:
            if args.verbose:
                raise
            code = _code_of(exc)
            say_error(exc)
        if code:
            raise SystemExit(code)

    return run  # type: ignore[no-any-return]


class WrongArgumentsError(ValueError):
    """Arguments that do not go together."""


def _code_of(exc: Exception) -> int:
    if isinstance(exc, WrongArgumentsError):
        return WRONG
    if isinstance(exc, (ArtifactNotFoundError, ModelNotFoundError)):
        return NOT_FOUND
    return UNREACHABLE if isinstance(exc, (StoreError, MlflowUnavailableError)) else FAILED


def say(text: str) -> None:
    """Tell people something that is no data, on standard error."""
    print(text, file=sys.stderr)


def tracked(items: Iterable[T], doing: str, total: int | None = None) -> Iterator[T]:
    """Yield items; people at a terminal see on standard error how far it is."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, escape(doing), total=total, console=Console(stderr=True), transient=True)


@contextmanager
def working(doing: str) -> Iterator[None]:
    """Show people at a terminal that something is going on."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(escape(doing)):
        yield


def say_error(error: object) -> None:
    """Print an error as one line on standard error."""
    print("error:", one_line(error), file=sys.stderr)


def one_line(text: object) -> str:
    """Return a text without line breaks; for an exception without words, its type."""
    return " ".join(str(text).split()) or type(text).__name__


def show_rows(rows: Sequence[Mapping[str, Any]], output: str) -> None:
    """Print rows that have the same keys; numbers stay numbers in JSON and YAML."""
    console = AirflowConsole()
    if output in ("json", "yaml"):
        _show_data([dict(row) for row in rows], output)
    elif output == "plain":
        console.print_as_plain_table([{key: cell(value) for key, value in row.items()} for row in rows])
    else:
        # Square brackets are rich's markup: "[ml_provider]" would vanish.
        console.print_as_table([{key: escape(cell(value)) for key, value in row.items()} for row in rows])


def show_document(document: Mapping[str, Any], output: str) -> None:
    """Print one thing: as it is in JSON and YAML, as rows of key and value in a table."""
    if output in ("json", "yaml"):
        _show_data(dict(document), output)
    else:
        show_rows([{"key": key, "value": value} for key, value in document.items()], output)


def _show_data(data: Any, output: str) -> None:
    console = AirflowConsole()
    if console.is_terminal:
        (console.print_as_json if output == "json" else console.print_as_yaml)(data)
        return
    # Colours that nobody sees take 16 KB of memory a row.
    text = json.dumps(data) + "\n" if output == "json" else yaml.dump(data)
    console.out(text, highlight=False, end="")


def cell(value: Any) -> str:
    """Return what a table shows of a value."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={cell(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(cell(item) for item in value)
    return str(value)


def _find_connections_in_the_metadata_database() -> None:
    """
    Let connections that were made in the UI be found on machines that have the metadata database.

    Airflow asks it only in processes that call themselves a server. Others, such as workers, have none; then
    connections come from the environment and the secrets backend, and nothing here needs the database.
    """
    if has_metadata_database():
        os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")


def has_metadata_database() -> bool:
    """Whether this machine may ask a metadata database; asking a file that is not there would make one."""
    address = conf.get("database", "sql_alchemy_conn", fallback="") or ""
    if not address.startswith("sqlite:"):
        return bool(address)
    return Path(address.partition(":///")[2].partition("?")[0]).is_file()
