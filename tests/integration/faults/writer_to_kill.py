# SPDX-License-Identifier: Apache-2.0
"""
A process that forks writers, which save value after value until they are killed.

Reads lines of JSON: ``{"root", "options", "first", "dies_in", "count"}``. With ``dies_in`` a writer kills
itself by SIGKILL at its call number ``count`` to that function of the operating system, in the middle of it
if it is a write. Prints the writer's process id, and how it ended and where.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from airflow_ml_provider.artifacts.store import ArtifactStore
from tests.integration.faults.values import KEY, KINDS, made, name_of

CALLS = ("mkdir", "open", "writev", "fchmod", "fsync", "link", "unlink")


def dying_in(name: str, number: int, tell: int) -> None:
    """Let the process die at its call number ``number`` to a function of ``os``."""
    count = 0
    original, write = getattr(os, name), os.write

    def call(*args: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == number:
            write(tell, name.encode())
            if name == "writev":
                whole = b"".join(args[1])
                write(args[0], whole[: len(whole) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **options)

    setattr(os, name, call)


def write(order: dict[str, Any], tell: int) -> None:
    """Save until somebody kills this process."""
    store = ArtifactStore(order["root"], signing_key=KEY, options=order["options"])
    with tempfile.TemporaryDirectory() as folder:
        values = [(kind, number, made(kind, number, Path(folder))) for number in range(5) for kind in KINDS]
        if order["dies_in"]:
            dying_in(order["dies_in"], order["count"], tell)
        first = order["first"]
        for turn in range(1000):
            kind, number, value = values[(first + turn) % len(values)]
            store.save(value, name_of(kind, number))


def main() -> None:
    # Imported before the fork, so that a writer writes at once.
    with tempfile.TemporaryDirectory() as folder:
        warm = ArtifactStore(folder, signing_key=KEY)
        for kind in KINDS:
            warm.save(made(kind, 0, Path(folder)), kind)
    for line in sys.stdin:
        heard, tell = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                write(json.loads(line), tell)
            finally:
                os._exit(1)
        os.close(tell)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        with open(heard, "rb") as pipe:
            where = pipe.read().decode()
        ended = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {status >> 8}"
        print(f"{ended} {where}".strip(), flush=True)


if __name__ == "__main__":
    main()
