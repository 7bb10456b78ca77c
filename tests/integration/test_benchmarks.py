# SPDX-License-Identifier: Apache-2.0
"""The benchmark runs, small and without the others; its figures are not looked at."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks import __main__ as benchmark
from benchmarks import harness


def test_the_quick_benchmark_runs(tmp_path, capsys):
    result = tmp_path / "result.json"
    cases = ["frame", "array", "runs", "sharing"]
    arguments = [*cases, "--quick", "--without-peers", "--repetitions=1", f"--json={result}"]
    assert benchmark.main([*arguments, f"--folder={tmp_path}"]) == 0
    report = json.loads(result.read_text())
    assert report["quick"] is True
    assert [row["case"] for row in report["rows"] if row["skipped"]] == []
    assert [row["case"] for row in report["rows"] if "NOT equal" in row["detail"]] == []
    assert {row["case"] for row in report["rows"]} >= {
        "frame, local",
        "8 MiB float32 array",
        "same frame saved by 10 runs, bytes",
        "4 versions, 1% of rows appended: bytes",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]  # it cleans up
    assert "frame, local" in capsys.readouterr().out


def test_a_run_that_is_ended_leaves_nothing_behind(tmp_path):
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "frame",
        "--quick",
        "--without-peers",
        f"--folder={tmp_path}",
    ]
    with subprocess.Popen(command, cwd=harness.ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "A frame on local files" in process.stderr.readline()
        process.terminate()
        assert process.wait(30) == 143
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_case_is_refused_by_name(capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["frames"])
    assert "unknown cases ['frames']; known: frame, s3," in capsys.readouterr().err


def test_the_page_shows_the_result_that_is_kept():
    report = harness.Report.from_json(benchmark.RESULTS.read_text(encoding="utf-8"))
    page = benchmark.PAGE.read_text(encoding="utf-8")
    command = "python -m benchmarks --from-json benchmarks/results.json --write-docs"
    assert harness.into_docs(page, report) == page, f"run: {command}"


def test_the_endpoints_of_the_pages_are_asked(tmp_path):
    result = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks.endpoints", "--only", "local", f"--json={result}"]
    done = subprocess.run(
        [*command, "--versions=30", "--runs=12", "--repetitions=1"],
        cwd=harness.ROOT,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "| artifact, 50 versions |" in done.stdout
    assert len(json.loads(result.read_text())["seconds"]["local"]) > 20
