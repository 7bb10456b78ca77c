# SPDX-License-Identifier: Apache-2.0
"""
A process of one environment that stays, so that imports are not timed.

It reads one JSON request a line and answers one line each. A contestant is a module with a class
``Contestant(options)`` that has ``save(value, folder) -> token`` and ``load(token) -> value``; its
``begin(folder)`` and ``stored(token)`` are not timed.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import importlib.metadata
import json
import os
import platform
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from benchmarks import values

_contestants: dict[str, Any] = {}


def _contestant(module: str, options: dict[str, Any]) -> Any:
    key = json.dumps([module, options], sort_keys=True)
    if key not in _contestants:
        _contestants[key] = importlib.import_module(module).Contestant(options)
    return _contestants[key]


def round_trip(
    module: str, options: dict[str, Any], value: dict[str, Any], folder: str, check: bool
) -> dict[str, Any]:
    """Save a value to a new place and load it again, as another object."""
    contestant = _contestant(module, options)
    made = values.make(value)
    contestant.begin(Path(folder))
    os.sync()  # nobody pays for what others left in the page cache
    gc.collect()
    before = time.perf_counter()
    token = contestant.save(made, Path(folder))
    between = time.perf_counter()
    loaded = contestant.load(token)
    after = time.perf_counter()
    if loaded is made:
        raise RuntimeError(f"{module} gave the value back without reading it")
    return {
        "save": between - before,
        "load": after - between,
        "stored": contestant.stored(token),
        "in_memory": values.size_of(made) if check else None,
        "exact": values.same(made, loaded) if check else None,
    }


def memory_of_save(
    module: str, options: dict[str, Any], value: dict[str, Any], warm: dict[str, Any], folder: str
) -> dict[str, Any]:
    """Bytes that a save adds to what the process holds at most."""
    contestant = _contestant(module, options)
    contestant.begin(Path(folder) / "warm")
    contestant.load(contestant.save(values.make(warm), Path(folder) / "warm"))
    made = values.make(value)
    size = values.size_of(made)
    contestant.begin(Path(folder) / "real")
    before = _resident_now()
    token = contestant.save(made, Path(folder) / "real")
    return {"added": _peak() - before, "in_memory": size, "token": token}


def memory_of_load(
    module: str, options: dict[str, Any], token: Any, warm: dict[str, Any], folder: str
) -> dict[str, Any]:
    """Bytes that a load adds to what the process holds at most, the value included."""
    contestant = _contestant(module, options)
    contestant.begin(Path(folder) / "warm again")
    contestant.load(contestant.save(values.make(warm), Path(folder) / "warm again"))
    before = _resident_now()
    loaded = contestant.load(token)
    return {"added": _peak() - before, "in_memory": values.size_of(loaded)}


def _resident_now() -> int:
    """Give free memory back, begin a new peak, and return what the process holds."""
    gc.collect()
    if "pyarrow" in sys.modules:
        sys.modules["pyarrow"].default_memory_pool().release_unused()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) << 10
    raise RuntimeError(f"this kernel does not tell {field}; memory is measured on Linux only")


def versions(names: list[str]) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _answer(request: dict[str, Any]) -> Any:
    module, _, name = request["call"].rpartition(":")
    function = getattr(importlib.import_module(module), name) if module else globals()[name]
    return function(**request["arguments"])


def main() -> None:
    # What libraries print goes to the log, not between the answers.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            reply = {"result": _answer(json.loads(line))}
        except Exception as exc:  # noqa: BLE001 - told to the parent, which names the case
            traceback.print_exc()
            reply = {"error": f"{type(exc).__name__}: {exc}"}
        out.write(json.dumps(reply) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
