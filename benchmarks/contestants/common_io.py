# SPDX-License-Identifier: Apache-2.0
"""
Airflow's ``XComObjectStorageBackend`` with everything in object storage and no compression, its default.

Set up by the environment, as in "Object Storage XCom Backend" of apache-airflow-providers-common-io's docs.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from airflow.providers.common.io.xcom.backend import XComObjectStorageBackend


class Contestant:
    def __init__(self, options: dict[str, Any]) -> None:
        self._run = 0

    def begin(self, folder: Path) -> None:
        self._run += 1

    def save(self, value: Any, folder: Path) -> Any:
        return XComObjectStorageBackend.serialize_value(
            value,
            key="return_value",
            dag_id="bench",
            run_id=f"run{self._run}",
            task_id="produce",
            map_index=-1,
        )

    def load(self, token: Any) -> Any:
        return XComObjectStorageBackend.deserialize_value(SimpleNamespace(key="return_value", value=token))

    def stored(self, token: Any) -> int:
        path = XComObjectStorageBackend._get_full_path(token)
        size = int(path.stat().st_size)
        path.unlink()
        return size
