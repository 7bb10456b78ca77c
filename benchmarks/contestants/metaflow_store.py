# SPDX-License-Identifier: Apache-2.0
"""
Metaflow's datastore on local files: what ``self.value = ...`` at the end of a step and ``self.value`` in the
next one do (``metaflow/task.py``: ``init_task``, ``save_artifacts``, ``done``; then ``TaskDataStore[name]``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from metaflow.datastore import FlowDataStore
from metaflow.event_logger import NullEventLogger
from metaflow.metaflow_environment import MetaflowEnvironment
from metaflow.monitor import NullMonitor
from metaflow.plugins import DATASTORES


class Contestant:
    def __init__(self, options: dict[str, Any]) -> None:
        self._flow: Any = None

    def begin(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._flow = FlowDataStore(
            "BenchFlow",
            MetaflowEnvironment(None),
            event_logger=NullEventLogger(),
            monitor=NullMonitor(),
            storage_impl=next(each for each in DATASTORES if each.TYPE == "local"),
            ds_root=str(folder),
        )

    def save(self, value: Any, folder: Path) -> Any:
        task = self._flow.get_task_datastore("1", "start", "1", attempt=0, mode="w")
        task.init_task()
        task.save_artifacts([("value", value)])
        task.done()
        return str(folder)

    def load(self, token: Any) -> Any:
        return self._flow.get_task_datastore("1", "start", "1", attempt=0, mode="r")["value"]

    def stored(self, token: Any) -> int:
        return sum(path.stat().st_size for path in Path(token).rglob("*") if path.is_file())
