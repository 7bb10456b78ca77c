# SPDX-License-Identifier: Apache-2.0
"""
The XCom backend: values go to the artifact store, a small signed envelope goes to the XCom table.

Switched on by ``[core] xcom_backend = airflow_ml_provider.xcom.backend.ArtifactXComBackend``. Every Airflow
component imports this module, so nothing heavy is imported here, and what works is in
:mod:`airflow_ml_provider.xcom.exchange`.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk.bases.xcom import BaseXCom


class ArtifactXComBackend(BaseXCom):
    """
    Store what tasks return as typed, versioned, verified artifacts.

    JSON values up to ``[ml_provider] inline_max_bytes`` stay in the XCom table as they are. Whatever
    Airflow's own serialisation knows and we do not (time zones, assets, ...) goes through it unchanged.

    Airflow 3.3 calls ``serialize_value`` and ``deserialize_value``, Airflow 3.4 prefers ``store_value`` and
    ``load_value`` of a class that has both.
    """

    @staticmethod
    def serialize_value(
        value: Any,
        *,
        key: str | None = None,
        task_id: str | None = None,
        dag_id: str | None = None,
        run_id: str | None = None,
        map_index: int | None = None,
    ) -> Any:
        """
        Return the JSON that goes into the XCom table.

        :raises UnsupportedTypeError: if no codec writes a part of the value.
        :raises StoreError: if the object storage refuses; nothing half-written is left for a retry to meet.
        """
        from airflow_ml_provider.xcom import exchange

        return exchange.store(
            value, dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=map_index, key=key
        )

    @staticmethod
    def deserialize_value(result: Any) -> Any:
        """
        Return the value an XCom stands for; references for operators that ask for them.

        :raises SignatureError: if an envelope was not written by this deployment.
        :raises ArtifactNotFoundError: if the stored object is gone.
        :raises ArtifactCorruptError: if the stored object is not what was written.
        """
        from airflow_ml_provider.xcom import exchange

        return exchange.load(result.value)

    @classmethod
    def store_value(cls, coordinate: Any, key: str, value: Any) -> Any:
        """
        Return the JSON that goes into the XCom table (Airflow 3.4).

        :param coordinate: ``XComCoordinate``: the task instance that the XCom is written for. Its region
            index is the map index of a mapped task, and the iteration of a task in a loop.
        :raises UnsupportedTypeError: if no codec writes a part of the value.
        :raises StoreError: if the object storage refuses; nothing half-written is left for a retry to meet.
        """
        from airflow_ml_provider.xcom import exchange

        return exchange.store(
            value,
            dag_id=coordinate.dag_id,
            run_id=coordinate.run_id,
            task_id=coordinate.task_id,
            map_index=coordinate.region_index,
            key=key,
            ti_id=coordinate.ti_id,
        )

    @classmethod
    def load_value(cls, stored: Any) -> Any:
        """
        Return the value an XCom stands for (Airflow 3.4); as :meth:`deserialize_value`.
        """
        from airflow_ml_provider.xcom import exchange

        return exchange.load(stored)

    @classmethod
    def purge(cls, xcom: Any, *args: Any) -> None:
        """Leave the content alone: other runs may share it. Garbage collection removes what nobody needs."""
