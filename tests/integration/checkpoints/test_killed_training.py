# SPDX-License-Identifier: Apache-2.0
"""A training that is killed again and again ends bit for bit as one that nobody disturbed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.integration.checkpoints.training_to_kill import checkpoint_in, one_step, start

PROJECT = Path(__file__).parents[3]
KILLS = 10
SEED = 20130514


def undisturbed(steps: int) -> str:
    state = start()
    for _ in range(steps):
        state = one_step(state)
    weights: str = state["weights"].tobytes().hex()
    return weights


def attempt(folder: Path, steps: int, number: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.integration.checkpoints.training_to_kill"),
            *(str(folder), str(steps), str(number)),
        ],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )


def test_ten_kills_at_random_steps_change_nothing(tmp_path: Path) -> None:
    lots = random.Random(SEED)  # noqa: S311
    reached, steps = 0, 200
    resumed = []
    for number in range(1, KILLS + 1):
        with attempt(tmp_path, steps, number) as process:
            assert process.stdout
            began = int(process.stdout.readline().removeprefix("from "))
            # All that was pointed at is there; of the step that was being saved, all or nothing.
            assert reached - 1 <= began <= reached
            resumed.append(began)
            stop_at = began + lots.randint(1, 15)
            for line in process.stdout:
                if line == f"saving {stop_at}\n":
                    break
            time.sleep(lots.random() * 0.004)  # before, within or after the save
            process.send_signal(signal.SIGKILL)
            later = [int(line.split()[1]) for line in process.stdout if line.startswith("saving")]
            reached = max([stop_at, *later])
        assert process.returncode == -signal.SIGKILL
    assert resumed[-1] > 0
    assert reached < steps

    with attempt(tmp_path, steps, KILLS + 1) as process:
        assert process.stdout
        *_, last = process.stdout
    assert process.returncode == 0
    assert last == f"done {undisturbed(steps)}\n"

    checkpoint = checkpoint_in(tmp_path, KILLS + 2)
    assert checkpoint.load()["step"] == steps
    store = checkpoint._store
    assert len(list(store.objects.list("versions"))) == checkpoint.options.keep
    checkpoint.succeeded()
    assert list(store.objects.list("versions")) == []
