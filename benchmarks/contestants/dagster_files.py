# SPDX-License-Identifier: Apache-2.0
"""Dagster's ``FilesystemIOManager``, called as in "Testing I/O managers" of its documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dagster import AssetKey, FilesystemIOManager, build_input_context, build_output_context


class Contestant:
    def __init__(self, options: dict[str, Any]) -> None:
        self._manager: Any = None

    def begin(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        config = FilesystemIOManager(base_dir=str(folder))
        self._manager = config.create_io_manager(None)
        self._output = build_output_context(asset_key=AssetKey(["value"]))
        self._input = build_input_context(asset_key=AssetKey(["value"]), upstream_output=self._output)

    def save(self, value: Any, folder: Path) -> Any:
        self._manager.handle_output(self._output, value)
        return str(folder)

    def load(self, token: Any) -> Any:
        return self._manager.load_input(self._input)

    def stored(self, token: Any) -> int:
        return sum(path.stat().st_size for path in Path(token).rglob("*") if path.is_file())
