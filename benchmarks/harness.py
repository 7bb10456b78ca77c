# SPDX-License-Identifier: Apache-2.0
"""Workers, alternation, ratios and the report; nothing here knows what is measured."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[1]


class CaseFailedError(RuntimeError):
    """A worker could not do what a case asked; the run goes on with the next case."""


class Worker:
    """
    A long-lived process of one environment that is told over a pipe what to do.

    :param environment: Variables on top of this process's own, without those of Airflow, MLflow and AWS.
    :param log: What it prints.
    """

    def __init__(self, name: str, python: str, environment: dict[str, str], log: Path) -> None:
        self.name = name
        self._log = log
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("AIRFLOW", "MLFLOW", "AWS_", "PYTHON", "METAFLOW", "DAGSTER"))
        }
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.worker"],
                cwd=log.parent,
                env={**kept, "PYTHONPATH": str(ROOT), **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                start_new_session=True,
            )

    def call(self, function: str, **arguments: Any) -> Any:
        """
        Run ``module:function`` (or a function of the worker) there and return its result.

        :raises CaseFailedError: if it raises, or the process ends.
        """
        to, back = self._process.stdin, self._process.stdout
        assert to is not None
        assert back is not None
        try:
            to.write(json.dumps({"call": function, "arguments": arguments}) + "\n")
            to.flush()
            line = back.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise CaseFailedError(f"the worker of {self.name} ended; see {self._log}")
        reply = json.loads(line)
        if "error" in reply:
            raise CaseFailedError(f"{self.name}: {reply['error']}")
        return reply["result"]

    def close(self) -> None:
        """End the process and its children."""
        for stream in (self._process.stdin, self._process.stdout):
            _close(stream)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _close(stream: IO[str] | None) -> None:
    if stream is not None:
        with contextlib.suppress(BrokenPipeError):
            stream.close()


@dataclass(frozen=True)
class Spread:
    """Several measurements of one thing."""

    median: float
    lower: float
    upper: float
    least: float
    most: float
    count: int

    @classmethod
    def of(cls, found: Sequence[float]) -> Spread:
        """
        :param found: At least one number.
        """
        if len(found) < 2:
            only = found[0]
            return cls(only, only, only, only, only, 1)
        lower, _, upper = statistics.quantiles(found, n=4, method="inclusive")
        return cls(statistics.median(found), lower, upper, min(found), max(found), len(found))


def alternate(
    ours: Callable[[int], float], theirs: Callable[[int], float], repetitions: int
) -> tuple[list[float], list[float]]:
    """
    Run both once for warmth, then in turn, changing who goes first, so that neither has the quiet moments.

    :returns: What each run of ours and of theirs gave; the n-th of both were neighbours in time.
    """
    first: list[float] = []
    second: list[float] = []
    for number in range(-1, repetitions):
        if number % 2:
            theirs_now, ours_now = theirs(number), ours(number)
        else:
            ours_now, theirs_now = ours(number), theirs(number)
        if number >= 0:
            first.append(ours_now)
            second.append(theirs_now)
    return first, second


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Divide neighbours: what slowed the machine for a while slowed both."""
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]


@dataclass
class Row:
    """
    One line of the table.

    :param unit: ``ratio`` (ours / the other's), ``x`` (of the value's size, or of one version), ``ms``,
        ``count`` or ``s``.
    :param limit: At most this much is the target.
    :param skipped: Why there is no figure.
    """

    case: str
    against: str = ""
    unit: str = "ratio"
    value: float | None = None
    limit: float | None = None
    spread: Spread | None = None
    ours_s: float | None = None
    theirs_s: float | None = None
    detail: str = ""
    skipped: str = ""

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "skipped"
        if self.limit is None:
            return ""
        return "yes" if self.value <= self.limit else "no"


def compare(
    case: str,
    against: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    limit: float | None,
    detail: str = "",
) -> Row:
    """Make the row of two that ran in turn."""
    spread = Spread.of(ratios(ours, theirs))
    return Row(
        case,
        against,
        value=spread.median,
        limit=limit,
        spread=spread,
        ours_s=statistics.median(ours),
        theirs_s=statistics.median(theirs),
        detail=detail,
    )


@dataclass
class Report:
    """
    Everything a run found.

    :param note: What readers must know to judge the figures, such as that the machine was busy.
    """

    taken: str = ""
    quick: bool = False
    repetitions: int = 0
    seconds: float = 0
    note: str = ""
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        doc = json.loads(text)
        rows = [
            Row(**{**row, "spread": row["spread"] and Spread(**row["spread"])}) for row in doc.pop("rows")
        ]
        return cls(**doc, rows=rows)


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if unit == "count":
        return f"{value:.0f}"
    if unit == "ms":
        return f"{value:.1f} ms"
    return f"{value:.3f}{'x' if unit == 'x' else ' s' if unit == 's' else ''}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 0.001:
        return f"{seconds * 1e6:.1f} us"
    return f"{seconds * 1e3:.0f} ms" if seconds >= 0.01 else f"{seconds * 1e3:.2f} ms"


_TITLES = ("case", "against", "figure", "target", "met", "quartiles", "ours", "theirs", "remarks")


def cells(row: Row) -> tuple[str, ...]:
    """Return the texts of a row, one for each of the titles."""
    quartiles = (
        f"{_figure(row.spread.lower, row.unit)} - {_figure(row.spread.upper, row.unit)}" if row.spread else ""
    )
    return (
        row.case,
        row.against,
        _figure(row.value, row.unit),
        f"<= {row.limit:g}" if row.limit is not None else "",
        row.verdict,
        quartiles,
        _time(row.ours_s),
        _time(row.theirs_s),
        row.skipped or row.detail,
    )


def table(rows: Sequence[Row]) -> str:
    """Lay rows out for a terminal."""
    lines = [_TITLES, *map(cells, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_TITLES))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def markdown(report: Report) -> str:
    """Write a report as it stands in the docs."""
    shown = [f"| {' | '.join(_TITLES)} |", f"|{'---|' * len(_TITLES)}"]
    shown += [f"| {' | '.join(cells(row))} |" for row in report.rows]
    machine = ", ".join(f"{name} {value}" for name, value in report.machine.items())
    packages = "; ".join(
        f"{name}: {', '.join(f'{package} {version}' for package, version in found.items())}"
        for name, found in report.versions.items()
    )
    head = (
        f"Taken {report.taken}, {report.repetitions} repetitions, {report.seconds:.0f} s in all"
        f"{' (quick: small values, figures mean little)' if report.quick else ''}. Machine: {machine}."
    )
    if report.note:
        head += f" {report.note}"
    return "\n".join([head, "", *shown, "", f"Environments: {packages}."])


def into_docs(text: str, report: Report) -> str:
    """Return a page with the report between its marks."""
    return between_marks(text, "benchmark", markdown(report))


def between_marks(text: str, name: str, content: str) -> str:
    """
    Return a page with something else between the marks of a name.

    :raises ValueError: if it has none.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"the page has no {begin} ... {end}")
    return f"{before}{begin}\n{content}\n{end}{after}"


def now() -> str:
    return time.strftime("%Y-%m-%d")
