# SPDX-License-Identifier: Apache-2.0
"""
MLflow with a SQLite database and artifacts in a folder, in this process: no server, no upload.

A frame is logged as a Parquet file (``log_artifact``, ``download_artifacts``), a model by ``log_model`` with
its requirements given, since finding them out takes seconds: both as these functions' documentation has it.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import mlflow
import mlflow.sklearn
import pandas as pd

logging.getLogger("mlflow").setLevel(logging.ERROR)


class Contestant:
    """
    :param options: ``database``: a file; ``model``: ``skops`` or ``pickle``, absent for frames.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
        self._model = options.get("model")
        self._database = Path(options["database"])
        mlflow.set_tracking_uri(f"sqlite:///{self._database}")

    def begin(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        mlflow.end_run()
        experiment = mlflow.create_experiment(
            f"bench-{folder}", artifact_location=(folder / "store").as_uri()
        )
        mlflow.start_run(experiment_id=experiment)

    def save(self, value: Any, folder: Path) -> Any:
        if self._model:
            info = mlflow.sklearn.log_model(
                value,
                name="value",
                serialization_format=self._model,
                pip_requirements=["scikit-learn"],
                # skops asks for this one of every forest.
                skops_trusted_types=["sklearn.tree._tree.Tree"] if self._model == "skops" else None,
            )
            return [str(folder), info.model_uri]
        path = folder / "value.parquet"
        value.to_parquet(path)
        mlflow.log_artifact(str(path))
        path.unlink()
        return [str(folder), mlflow.active_run().info.run_id]

    def load(self, token: Any) -> Any:
        if self._model:
            return mlflow.sklearn.load_model(token[1])
        path = mlflow.artifacts.download_artifacts(run_id=token[1], artifact_path="value.parquet")
        return pd.read_parquet(path)

    def stored(self, token: Any) -> int:
        mlflow.end_run()
        return sum(path.stat().st_size for path in Path(token[0]).rglob("*") if path.is_file())
