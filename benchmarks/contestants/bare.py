# SPDX-License-Identifier: Apache-2.0
"""
The least that writes and reads a value on this machine: one file, one library call each way.

Nothing is hashed, signed, flushed, named, shared or made safe to load, so no store can be much faster in the
same format. It tells how much of a ratio is the machine's, where processor and page cache differ in speed.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np


class Contestant:
    """
    :param options: ``format``: ``arrow``, with its ``compression`` or None; ``npy`` or ``pickle``, ``hashed``
        or not: once when it is written and once when it is read.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options

    def begin(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, value: Any, folder: Path) -> Any:
        path = folder / "value"
        match self._options["format"]:
            case "arrow":
                import pyarrow as pa

                table = pa.Table.from_pandas(value)
                settings = pa.ipc.IpcWriteOptions(compression=self._options["compression"])
                with (
                    pa.OSFile(str(path), "wb") as out,
                    pa.ipc.new_file(out, table.schema, options=settings) as writer,
                ):
                    writer.write_table(table)
            case "npy":
                self._hash(memoryview(value).cast("B"))
                with path.open("wb", buffering=0) as file:
                    np.lib.format.write_array_header_1_0(
                        file, np.lib.format.header_data_from_array_1_0(value)
                    )
                    _write(file, memoryview(value).cast("B"))
            case "pickle":
                if self._options.get("hashed"):
                    data = pickle.dumps(value, protocol=5)
                    self._hash(data)
                    path.write_bytes(data)
                else:
                    with path.open("wb") as file:
                        pickle.dump(value, file, protocol=5)
        return str(path)

    def load(self, token: Any) -> Any:
        match self._options["format"]:
            case "arrow":
                import pyarrow as pa

                with pa.memory_map(token) as source:
                    return pa.ipc.open_file(source).read_all().to_pandas()
            case "npy":
                with open(token, "rb", buffering=0) as file:
                    np.lib.format.read_magic(file)
                    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
                    value = np.empty(shape, dtype)
                    _read(file, memoryview(value).cast("B"))
                self._hash(memoryview(value).cast("B"))
                return value
            case _:
                if self._options.get("hashed"):
                    data = Path(token).read_bytes()
                    self._hash(data)
                    return pickle.loads(data)  # noqa: S301 - written above, by this benchmark
                with open(token, "rb") as file:
                    return pickle.load(file)  # noqa: S301 - written above, by this benchmark

    def _hash(self, data: Any) -> None:
        if self._options.get("hashed"):
            from blake3 import blake3

            blake3(max_threads=blake3.AUTO).update(data).digest()

    def stored(self, token: Any) -> int:
        return Path(token).stat().st_size


def _write(file: Any, data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]


def _read(file: Any, target: memoryview) -> None:
    while target:
        if not (count := file.readinto(target)):
            raise EOFError(f"{file.name} ended {len(target)} bytes too early")
        target = target[count:]
