# SPDX-License-Identifier: Apache-2.0
"""
Write, read back or take over the table of awkward frames, under whatever pandas runs this file.

``python -m tests.support.exchange_frames write|read <root>`` prints JSON. It needs the ground floor of the
package, pandas, and nothing else of this environment.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pandas as pd

from airflow_ml_provider.artifacts.store import ArtifactStore
from tests.unit.artifacts.awkward_frames import AWKWARD
from tests.unit.artifacts.sameness import same

FORMATS = ("arrow", "parquet")


def _name(format: str, frame: str) -> str:
    return f"{format}/{frame}"


def write(store: ArtifactStore) -> dict[str, Any]:
    """Save every frame in every format that stores it, and say what does not come back as it was."""
    written: dict[str, str] = {}
    wrong: list[str] = []
    for label, frame in AWKWARD.items():
        for format in FORMATS:
            name = _name(format, label)
            try:
                ref = store.save(frame, name, format=format)
            except TypeError as exc:
                wrong += [f"{name}: {exc}"] if format == "arrow" else []
                continue
            written[name] = ref.digest
            try:
                right = same(ref.load(), frame)
            except AssertionError as exc:
                wrong.append(f"{name}: {exc}")
            else:
                wrong += [] if right else [name]
    return {"written": written, "wrong": wrong}


def read(store: ArtifactStore) -> dict[str, Any]:
    """Load what another pandas wrote and save it again: the same digest, so the same in every dtype."""
    taken: dict[str, str] = {}
    refused: dict[str, str] = {}
    for name in sorted(store.names()):
        try:
            value = store.get(name).load()
        except ValueError as exc:
            refused[name] = f"{type(exc).__name__}: {exc}"
            continue
        taken[name] = store.save(value, "again", format=name.partition("/")[0]).digest
    return {"taken": taken, "refused": refused}


if __name__ == "__main__":
    mode, root = sys.argv[1:]
    store = ArtifactStore(root, signing_key=b"a key of the tests, 32 bytes long")
    found = write(store) if mode == "write" else read(store)
    print(json.dumps({"pandas": pd.__version__, **found}))
