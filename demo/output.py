# SPDX-License-Identifier: Apache-2.0
"""Short lines while the demo works, and tables at its end; plain text where nobody watches a terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TextIO

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 150  # columns; a file or a CI log does not wrap


class Output:
    """
    Where the demo talks.

    :param stream: Standard output by default. Colours and a spinner only where it is a terminal.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._started = time.monotonic()
        stream = stream or sys.stdout
        self.console = Console(
            file=stream, highlight=False, width=None if stream.isatty() else PLAIN_WIDTH, soft_wrap=True
        )
        self._status = self.console.status("", spinner="dots") if self.console.is_terminal else None

    @property
    def seconds(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._started

    def line(self, text: str, style: str = "") -> None:
        stamp = Text(f"{self.seconds:6.1f} s  ", style="dim")
        self.console.print(stamp + Text(text, style=style))

    def doing(self, text: str) -> None:
        """Show what is going on now, on a terminal only."""
        if self._status is not None:
            self._status.update(Text(text, style="cyan"))

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Show a spinner on a terminal while the block runs."""
        with self._status or contextlib.nullcontext():
            yield

    def blank(self) -> None:
        self.console.print()

    def text(self, text: str, style: str = "") -> None:
        self.console.print(Text(text, style=style))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table; columns whose name begins with ``#`` hold numbers."""
        self.console.print()
        self.console.print(Text(title, style="bold"))
        table = Table(box=SIMPLE, show_edge=False, pad_edge=False)
        for name in columns:
            table.add_column(name.lstrip("#"), justify="right" if name.startswith("#") else "left")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self.console.print(table)
