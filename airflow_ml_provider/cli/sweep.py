# SPDX-License-Identifier: Apache-2.0
"""``airflow ml runs sweep``: close the MLflow runs that lost workers left open."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from datetime import timedelta

from airflow_ml_provider.cli.console import command, has_metadata_database, show_rows
from airflow_ml_provider.exceptions import MLProviderError


@command
def sweep_runs(args: Namespace) -> int:
    """Print the open runs and what should become of them; with ``--close``, close them."""
    from airflow_ml_provider.hooks.mlflow import MlflowHook
    from airflow_ml_provider.operators.sweep import row_of
    from airflow_ml_provider.settings import load_settings
    from airflow_ml_provider.tracking.sweep import sweep

    findings = sweep(
        MlflowHook(load_settings().mlflow_conn_id).client,
        _states_in_database,
        experiments=tuple(args.experiment or ()),
        older_than=timedelta(minutes=args.older_than_minutes),
        close=args.close,
        close_unknown=args.unknown,
    )
    shown = [each for each in findings if each.becomes is not None or args.verbose]
    show_rows([row_of(each) for each in shown], args.output)
    closed = sum(each.closed for each in findings)
    would = sum(each.becomes is not None for each in findings)
    done = f"{closed} were closed" if args.close else f"{would} would be closed; --close does it"
    print(f"{len(findings)} runs are open, {done}", file=sys.stderr)
    return 0


def _states_in_database(dag_id: str, run_ids: Sequence[str]) -> Mapping[str, Mapping[str, str | None]]:
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select
    from sqlalchemy.exc import SQLAlchemyError

    from airflow_ml_provider.tracking.sweep import state_key

    elsewhere = (
        "run this on a machine that reaches it, or use SweepRunsOperator in a DAG, which asks over the API"
    )
    if not has_metadata_database():
        raise MLProviderError(
            f"no metadata database here, so the states of tasks of {dag_id!r} are not known; {elsewhere}"
        )
    wanted = select(
        TaskInstance.run_id, TaskInstance.task_id, TaskInstance.map_index, TaskInstance.state
    ).where(TaskInstance.dag_id == dag_id, TaskInstance.run_id.in_(run_ids))
    found: dict[str, dict[str, str | None]] = {}
    try:
        with create_session() as session:
            for run_id, task_id, map_index, state in session.execute(wanted):
                states = found.setdefault(run_id, {})
                states[state_key(task_id, map_index)] = None if state is None else str(state)
    except SQLAlchemyError as exc:
        raise MLProviderError(
            f"cannot ask the metadata database for the states of tasks of {dag_id!r}: "
            f"{str(exc).splitlines()[0]}; {elsewhere}"
        ) from exc
    return found
