# SPDX-License-Identifier: Apache-2.0
"""Which task instance an MLflow run belongs to."""

from __future__ import annotations

from dataclasses import dataclass

#: The tag by which a retry finds the run of the try before it.
KEY_TAG = "airflow.key"
TRY_TAG = "airflow.try_number"


@dataclass(frozen=True)
class TaskIdentity:
    """
    A task instance, in the words of Airflow.

    :param map_index: -1 for a task that is not mapped.
    :param try_number: Counts from 1; a cleared task instance goes on counting.
    :param slice: Label of the data that the task instance is about: the end of its data interval in
        ISO 8601, or its partition key.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    try_number: int = 1
    slice: str | None = None

    @property
    def mapped(self) -> bool:
        """Whether this is one of several instances of a mapped task."""
        return self.map_index >= 0

    @property
    def key(self) -> str:
        """The same text for every try of a task instance, different for any two task instances."""
        return _searchable(f"{self.dag_id}/{self.run_id}/{self.task_id}/{self.map_index}")

    @property
    def parent_key(self) -> str:
        """The same text for all instances of a mapped task in one DAG run."""
        return _searchable(f"{self.dag_id}/{self.run_id}/{self.task_id}")

    @property
    def group_key(self) -> str:
        """The same text for all task instances of one DAG run."""
        return _searchable(f"{self.dag_id}/{self.run_id}/")

    @property
    def label(self) -> str:
        """A name for people: task, data slice and map index."""
        parts = [self.task_id, self.slice or self.run_id]
        if self.mapped:
            parts.append(str(self.map_index))
        return " ".join(parts)

    def tags(self) -> dict[str, str]:
        """MLflow tags that lead back to the task instance."""
        tags = {
            "airflow.dag_id": self.dag_id,
            "airflow.dag_run_id": self.run_id,
            "airflow.task_id": self.task_id,
            "airflow.map_index": str(self.map_index),
            TRY_TAG: str(self.try_number),
            KEY_TAG: self.key,
        }
        if self.slice is not None:
            tags["airflow.slice"] = self.slice
        return tags


def _searchable(text: str) -> str:
    # MLflow's search language has no escape for quotes, and run ids are user text.
    return text.replace("'", "%27").replace('"', "%22").replace("`", "%60")
