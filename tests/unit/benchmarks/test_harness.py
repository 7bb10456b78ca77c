# SPDX-License-Identifier: Apache-2.0
"""The benchmark's arithmetic, table and JSON, on stubs; no time is ever asserted."""

from __future__ import annotations

import sys

import pytest

from benchmarks import harness
from benchmarks.harness import CaseFailedError, Report, Row, Spread, Worker, alternate, compare, ratios


def test_ratios_are_of_neighbours_and_not_of_medians():
    row = compare("a case", "somebody", [1.0, 10.0, 2.0], [10.0, 20.0, 8.0], 0.3)
    assert ratios([1.0, 10.0, 2.0], [10.0, 20.0, 8.0]) == [0.1, 0.5, 0.25]
    assert row.value == 0.25
    assert (row.ours_s, row.theirs_s) == (2.0, 10.0)
    assert row.verdict == "yes"


def test_the_two_sides_change_who_goes_first_and_the_warm_up_does_not_count():
    calls = []

    def side(name):
        def run(number):
            calls.append((name, number))
            return float(number)

        return run

    ours, theirs = alternate(side("ours"), side("theirs"), 3)
    assert ours == theirs == [0.0, 1.0, 2.0]
    assert [name for name, number in calls if number >= 0] == [
        "ours",
        "theirs",
        "theirs",
        "ours",
        "ours",
        "theirs",
    ]
    assert [number for _, number in calls] == [-1, -1, 0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("found", "spread"),
    [
        pytest.param([3.0], Spread(3, 3, 3, 3, 3, 1), id="one"),
        pytest.param([1.0, 3.0], Spread(2, 1.5, 2.5, 1, 3, 2), id="two"),
        pytest.param([5.0, 1.0, 2.0, 4.0, 3.0], Spread(3, 2, 4, 1, 5, 5), id="odd, not in order"),
    ],
)
def test_the_spread_of_measurements(found, spread):
    assert Spread.of(found) == spread


@pytest.mark.parametrize(
    ("value", "limit", "verdict"),
    [(0.5, 0.5, "yes"), (0.51, 0.5, "no"), (0.5, None, ""), (None, 0.5, "skipped")],
)
def test_what_meets_a_target(value, limit, verdict):
    assert Row("case", value=value, limit=limit).verdict == verdict


def report():
    return Report(
        taken="2026-01-02",
        repetitions=3,
        seconds=12,
        note="The machine was busy.",
        machine={"CPUs": "2"},
        versions={"ours": {"python": "3.11.7"}},
        rows=[
            compare("frame", "somebody", [0.25, 0.5], [1.0, 1.0], 0.3, "10 MB"),
            Row("requests", unit="count", value=3, limit=3),
            Row("bytes", unit="x", value=1.2345),
            Row("forest", "somebody", limit=1.1, skipped="no codec reads the format 'pickle'"),
        ],
    )


def test_a_report_survives_json():
    assert Report.from_json(report().to_json()) == report()


def test_the_table_says_why_there_is_no_figure():
    lines = harness.table(report().rows).splitlines()
    assert len(lines) == 5
    assert "0.375" in lines[1]
    assert "no" in lines[1].split()
    assert "1.234x" in lines[3] or "1.235x" in lines[3]
    assert lines[4].split()[:4] == ["forest", "somebody", "<=", "1.1"]
    assert lines[4].endswith("  no codec reads the format 'pickle'")


def test_the_table_of_a_page_is_replaced_and_nothing_else():
    page = "before\n<!-- benchmark: begin -->\nold\n<!-- benchmark: end -->\nafter\n"
    once = harness.into_docs(page, report())
    assert once.startswith("before\n")
    assert once.endswith("-->\nafter\n")
    assert "old" not in once
    assert "12 s in all. Machine: CPUs 2. The machine was busy." in once
    assert "| frame | somebody | 0.375 | <= 0.3 | no |" in once
    assert harness.into_docs(once, report()) == once


def test_a_page_without_marks_is_refused():
    with pytest.raises(ValueError, match="benchmark: begin"):
        harness.into_docs("no marks", report())


@pytest.fixture
def worker(tmp_path):
    made = Worker("stub", sys.executable, {}, tmp_path / "log.txt")
    yield made
    made.close()


def test_a_worker_answers_with_the_result(worker):
    assert worker.call("math:hypot") == 0.0


def test_a_worker_that_fails_says_so_and_goes_on(worker):
    with pytest.raises(CaseFailedError, match="stub: ModuleNotFoundError: No module named 'nobody'"):
        worker.call("nobody:anything")
    assert worker.call("math:hypot") == 0.0


def test_a_worker_that_died_is_named(worker):
    with pytest.raises(CaseFailedError, match=r"the worker of stub ended; see .*log\.txt"):
        worker.call("os:abort")
