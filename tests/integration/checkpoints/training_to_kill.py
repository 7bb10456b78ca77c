# SPDX-License-Identifier: Apache-2.0
"""
A small training that any attempt may be killed in: ``python -m ... <folder> <steps> <attempt>``.

Stochastic gradient descent with momentum, whose random numbers are part of the state: a step that is left
out, or done twice, changes the end.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.tracking.checkpoints import Attempt, Checkpoint, FolderValues

KEY = b"a key of the tests, 32 bytes long"


def checkpoint_in(folder: Path, attempt: int) -> Checkpoint:
    return Checkpoint(
        ArtifactStore((folder / "artifacts").as_uri(), signing_key=KEY),
        FolderValues(folder / "state"),
        identity=("killed", "train", "run", "-1"),
        attempt=Attempt("0", attempt),
    )


def start() -> dict[str, Any]:
    return {
        "step": 0,
        "weights": np.zeros(16),
        "momentum": np.zeros(16),
        "random": np.random.default_rng(20130514).bit_generator.state,
    }


def one_step(state: dict[str, Any]) -> dict[str, Any]:
    random = np.random.default_rng()
    random.bit_generator.state = state["random"]
    rows = random.normal(size=(32, 16))
    target = rows @ np.linspace(-1, 1, 16) + random.normal(size=32)
    gradient = rows.T @ (rows @ state["weights"] - target) / 32
    momentum = 0.9 * state["momentum"] + gradient
    return {
        "step": state["step"] + 1,
        "weights": state["weights"] - 0.01 * momentum,
        "momentum": momentum,
        "random": random.bit_generator.state,
    }


def main(folder: Path, steps: int, attempt: int) -> None:
    checkpoint = checkpoint_in(folder, attempt)
    state = checkpoint.load(start())
    print(f"from {state['step']}", flush=True)
    while state["step"] < steps:
        state = one_step(state)
        print(f"saving {state['step']}", flush=True)
        checkpoint.save(state, step=state["step"])
    print("done", state["weights"].tobytes().hex(), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
