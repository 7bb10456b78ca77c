# SPDX-License-Identifier: Apache-2.0
"""
A process that moves an alias each time it is told to, for test_moves_on_mlflow.py.

``racing_mover.py <mlflow> <root> <model> <who> [before|after]``: for each line of standard input, the version
to move to, it looks, says ``ready``, waits for the next line, moves and says what came of it. With the last
argument it kills itself with SIGKILL right before or right after the request that sets the alias.
"""

from __future__ import annotations

import os
import signal
import sys
from datetime import UTC, datetime
from typing import Any

from airflow_ml_provider.artifacts.objects import ObjectStore
from airflow_ml_provider.exceptions import AliasMovedError
from airflow_ml_provider.tracking import moves
from airflow_ml_provider.tracking.client import connect
from airflow_ml_provider.tracking.ledger import AliasMove, Ledger


def kill_around(point: str) -> None:
    original = moves._set

    def die(*args: Any) -> None:
        if point == "after":
            original(*args)
        os.kill(os.getpid(), signal.SIGKILL)

    moves._set = die


def main(address: str, root: str, name: str, who: str, kill: str = "") -> None:
    client, ledger = connect(address), Ledger(ObjectStore(root))
    if kill:
        kill_around(kill)
    for line in sys.stdin:
        standing = moves.where(client, ledger, name, "champion")
        print("ready", flush=True)
        sys.stdin.readline()
        now = datetime.now(UTC)
        actor = {"dag_id": who, "run_id": line.strip(), "task_id": "promote"}
        move = AliasMove(name, "champion", line.strip(), None, now, now, actor=actor)
        try:
            print("won", moves.make_move(client, ledger, move, standing).version, flush=True)
        except AliasMovedError as exc:
            print("lost", exc, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
