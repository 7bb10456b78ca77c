# SPDX-License-Identifier: Apache-2.0
"""
``python -m demo``: a year of real flights, a real Airflow and a real MLflow, in a few minutes.

``--keep`` leaves them running to be looked at, ``--stop`` ends them.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Never

from demo.cluster import ROOT, LocalCluster, owner_of, running_in, stop_in
from demo.errors import AlreadyRunningError, DemoError
from demo.output import Output

FAILED = 1
FOLDER = ".demo"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m demo", description="Run the demo; see docs/guides/demo.md."
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--keep", action="store_true", help="leave Airflow and MLflow running afterwards")
    what.add_argument("--stop", action="store_true", help="only stop what an earlier --keep left running")
    parser.add_argument("--folder", type=Path, default=ROOT / FOLDER, help="where everything is kept")
    parser.add_argument("--dags", type=Path, default=ROOT / "dags", help="folder of the DAG files")
    parser.add_argument("--airflow-port", type=port, help="by default a free one")
    parser.add_argument("--mlflow-port", type=port, help="by default a free one")
    return parser.parse_args(arguments)


def port(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"a port is a number from 1 to 65535, got {text!r}")
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if options.stop:
        stopped = stop_in(options.folder)
        print(f"stopped what ran in {options.folder}" if stopped else f"nothing runs in {options.folder}")
        return 0
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    output = Output()
    try:
        run(options, output)
    except DemoError as exc:
        output.blank()
        sys.stdout.flush()
        print(f"The demo failed: {exc}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def leave(number: int, _: object) -> Never:
    raise SystemExit(128 + number)


def run(options: argparse.Namespace, output: Output) -> None:
    """Run the demo and stop what it started. Raises DemoError if something goes wrong."""
    make_room(options.folder, output)
    cluster = LocalCluster(
        options.folder, options.dags, airflow_port=options.airflow_port, mlflow_port=options.mlflow_port
    )
    try:
        with output.working():
            output.doing("Airflow and MLflow start")
            cluster.start(output.line)
            # Imported late: they load the package, and a port that is taken is told at once.
            from demo.story import Story
            from demo.summary import show

            summary = Story(cluster, output).run()
        path = cluster.folder / "summary.json"
        summary.write(path)
        show(summary, output)
        output.blank()
        output.text(f"The same as JSON: {path}")
        if options.keep:
            cluster.keep()
            tell_addresses(cluster, output, summary.champion.name)
        else:
            output.text(
                f"Logs and data stay in {cluster.folder}; `make demo-ui` leaves Airflow and MLflow running."
            )
    finally:
        # Does nothing where the cluster is kept.
        cluster.stop()


def make_room(folder: Path, output: Output) -> None:
    """Stop what an earlier ``--keep`` left. Raises AlreadyRunningError while another demo is at work."""
    if owner := owner_of(folder):
        raise AlreadyRunningError(
            f"another demo is at work in {folder} (process {owner.pid}); wait, or stop that one"
        )
    if running_in(folder):
        output.line(f"an earlier demo still runs in {folder}: it is stopped first")
        stop_in(folder)


def tell_addresses(cluster: LocalCluster, output: Output, model: str) -> None:
    airflow, mlflow = cluster.airflow_url, cluster.mlflow_url
    output.blank()
    output.text("Airflow and MLflow go on running. Worth a look:", "bold")
    for what, address in (
        ("Airflow, no login", f"{airflow}/"),
        ("the trainings", f"{airflow}/dags/flight_delay_training"),
        ("the assets: training -> champion -> scoring", f"{airflow}/assets"),
        ("what made the champion, and how it did", f"{airflow}/plugin/ml?tab=models&model={model}"),
        ("MLflow's experiments", f"{mlflow}/#/experiments"),
        ("the model's versions", f"{mlflow}/#/models/{model}"),
    ):
        output.text(f"  {what:<45}{address}")
    output.text(f"For the `airflow` command line on it:  . {cluster.folder / 'airflow.env'}")
    elsewhere = cluster.folder != (ROOT / FOLDER).resolve()
    stop = f"python -m demo --stop --folder {cluster.folder}" if elsewhere else "make demo-stop"
    output.text(f"Stop them with `{stop}`.")


if __name__ == "__main__":
    sys.exit(main())
