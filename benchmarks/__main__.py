# SPDX-License-Identifier: Apache-2.0
"""Run the benchmark: one table on the screen, the same as JSON."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import artifacts, environments, harness

RESULTS = harness.ROOT / "benchmarks" / "results.json"
PAGE = harness.ROOT / "docs" / "performance.md"


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "cases", nargs="*", metavar="case", help=f"of: {', '.join(artifacts.CASES)}; default all"
    )
    parser.add_argument("--quick", action="store_true", help="small values, to see that it runs")
    parser.add_argument("--without-peers", action="store_true", help="measure our side alone")
    parser.add_argument("--repetitions", type=int, default=7, metavar="N", help="default %(default)s")
    parser.add_argument("--folder", type=Path, help="where to write; default the temporary folder")
    parser.add_argument(
        "--cache",
        type=Path,
        default=environments.default_cache(),
        help="environments of the others (about 2 GB); default %(default)s",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    parser.add_argument(
        "--write-docs",
        action="store_true",
        help=f"write {RESULTS.name} and the table of docs/{PAGE.name}",
    )
    parser.add_argument("--note", default="", help="kept with the result: what readers must know to judge it")
    parser.add_argument("--from-json", type=Path, metavar="FILE", help="measure nothing, show this result")
    found = parser.parse_args(arguments)
    if unknown := [name for name in found.cases if name not in artifacts.CASES]:
        parser.error(f"unknown cases {unknown}; known: {', '.join(artifacts.CASES)}")
    if found.repetitions < 1:
        parser.error(f"--repetitions is at least 1, got {found.repetitions}")
    return found


def machine() -> dict[str, str]:
    """Describe the machine, not who it belongs to."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return {
        "CPUs": str(os.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "architecture": platform.machine(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "Python": platform.python_version(),
    }


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    # Whoever ends us by a timeout wants the server and the workers gone as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if options.from_json:
        report = harness.Report.from_json(options.from_json.read_text(encoding="utf-8"))
    else:
        report = _measure(options)
    print()
    print(harness.table(report.rows))
    if options.json:
        options.json.write_text(report.to_json(), encoding="utf-8")
    if options.write_docs:
        page = harness.into_docs(PAGE.read_text(encoding="utf-8"), report)
        RESULTS.write_text(report.to_json(), encoding="utf-8")
        PAGE.write_text(page, encoding="utf-8")
    return 0


def _measure(options: argparse.Namespace) -> harness.Report:
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="airflow-ml-bench-", dir=options.folder))

    def tell(line: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {line}", file=sys.stderr, flush=True)

    try:
        with artifacts.Bench(
            folder,
            options.cache,
            sizes=artifacts.QUICK if options.quick else artifacts.FULL,
            repetitions=options.repetitions,
            peers=not options.without_peers,
            tell=tell,
        ) as bench:
            rows = artifacts.run(bench, options.cases or list(artifacts.CASES))
            versions = bench.versions()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return harness.Report(
        taken=harness.now(),
        quick=options.quick,
        repetitions=options.repetitions,
        seconds=round(time.monotonic() - started),
        note=options.note,
        machine=machine(),
        versions=versions,
        rows=rows,
    )


if __name__ == "__main__":
    raise SystemExit(main())
