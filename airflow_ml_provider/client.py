# SPDX-License-Identifier: Apache-2.0
"""Ask a deployment's store from Python: notebooks, services, tests. Reads only."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from airflow_ml_provider.exceptions import ModelNotFoundError
from airflow_ml_provider.lineage.queries import MAX_PAGE, Queries
from airflow_ml_provider.settings import Settings, check_root, derive_key, load_settings
from airflow_ml_provider.tracking.clocks import moment
from airflow_ml_provider.tracking.models import ModelRef

if TYPE_CHECKING:
    import pandas as pd

    from airflow_ml_provider.artifacts.refs import ArtifactRef
    from airflow_ml_provider.artifacts.store import ArtifactStore
    from airflow_ml_provider.lineage.answers import Measured, RegisteredVersion, Run, Verdict, Version
    from airflow_ml_provider.lineage.blast import Blast
    from airflow_ml_provider.lineage.diff import ModelDiff
    from airflow_ml_provider.lineage.graph import Graph, Lineage
    from airflow_ml_provider.lineage.records import TaskRecord
    from airflow_ml_provider.tracking.ledger import AliasMove, Ledger

Clock = Literal["data", "wall"]


class MLClient:
    """
    Answer what a deployment stored, measured and decided.

    ::

        ml = MLClient()
        ml.artifact("flight_features", as_of="2013-05-14").load()
        ml.runs("flight_delay_training")[["run_id", "metrics.evaluate.roc_auc"]]
        ml.model("flight_delay").as_of("champion", "2013-05-14").version

    Reads the artifact store that ``[ml_provider]`` names, as workers do, and needs no metadata database of
    Airflow. MLflow is asked only to load a model. Without Airflow's configuration, in a notebook for
    example, say where the store is and with which key its deployment signs.

    .. versionadded:: 0.1.0

    :param settings: What to connect to; by default the options of ``[ml_provider]``.
    :param root: Another artifact root: ``file:///folder`` or ``s3://bucket/prefix``.
    :param signing_key: What the deployment has as ``[ml_provider] signing_key``, else its
        ``[core] fernet_key``; several are separated by commas.
    :param conn_id: The Airflow connection (type ``aws``) with the credentials of an ``s3://`` root.
    :param storage_options: The credentials themselves: ``access_key_id``, ``secret_access_key``,
        ``session_token``, ``region``, ``endpoint_url``. With neither the machine's own are used.
    :param tracking_uri: The MLflow server that models are loaded from; by default that of
        ``[ml_provider] mlflow_conn_id``.
    :raises SettingsError: if an option is wrong.
    :raises TypeError: if ``settings`` are none, as where an address is given without ``root=``.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        root: str | None = None,
        signing_key: str | None = None,
        conn_id: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        tracking_uri: str | None = None,
    ) -> None:
        if isinstance(settings, str):
            raise TypeError(f"an address is given by name: MLClient(root={settings!r})")
        if conn_id is not None and storage_options is not None:
            raise ValueError("conn_id and storage_options both give credentials; give one of them")
        if signing_key is not None and root is None:
            raise ValueError("signing_key is that of the deployment whose root is given; give root too")
        self._given = settings
        self._root = None if root is None else check_root(root)
        self._keys = [derive_key(secret.encode()) for secret in (signing_key or "").replace(",", " ").split()]
        self._conn_id = conn_id
        self._storage_options = storage_options
        self._tracking_uri = tracking_uri

    def __repr__(self) -> str:
        return f"MLClient({self._root or self._settings.artifact_root!r})"

    @functools.cached_property
    def _settings(self) -> Settings:
        if self._root is None:
            found = self._given or load_settings()
        elif self._keys:
            found = Settings(self._root, self._keys[0], tuple(self._keys[1:]))
        else:
            found = replace(self._given or load_settings(), artifact_root=self._root, artifact_conn_id=None)
        return found if self._conn_id is None else replace(found, artifact_conn_id=self._conn_id)

    @functools.cached_property
    def store(self) -> ArtifactStore:
        """The artifact store."""
        from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook, open_store

        if self._storage_options is None:
            return ArtifactStoreHook(self._settings).store
        return open_store(self._settings, self._storage_options)

    @functools.cached_property
    def queries(self) -> Queries:
        """The questions that the UI and the command line ask too, page by page."""
        return Queries(self.store)

    @property
    def ledger(self) -> Ledger:
        """The ledger of alias moves."""
        return self.queries.ledger

    # -- artifacts

    def artifact(
        self,
        name: str,
        version_id: str | None = None,
        *,
        as_of: datetime | str | None = None,
        clock: Clock = "data",
    ) -> ArtifactRef:
        """
        Find one version of an artifact: by id, by time, or the newest. ``.load()`` gives the value.

        :param as_of: A datetime or ISO 8601 text; without a time zone it counts as UTC.
        :param clock: ``data``: the version that speaks for data up to then. ``wall``: the one recorded last
            by then.
        :raises ArtifactNotFoundError: if there is none.
        """
        if version_id is not None and as_of is not None:
            raise ValueError("version_id and as_of both choose a version; give one of them")
        if as_of is None:
            return self.store.get(name, version_id)
        when = moment(as_of)
        if when is None:
            raise TypeError(f"as_of must be a datetime or ISO 8601 text, got {as_of!r}")
        return self.store.as_of(name, when, clock=clock)

    def artifacts(self, search: str = "", *, limit: int = 100) -> list[ArtifactRef]:
        """
        Find artifacts by a part of their names, each as its newest version, by name.

        :param limit: At most so many.
        """
        found: list[Version] = self._pages(self.queries.artifacts, search, limit=limit)
        return [self.store.get(item.name, item.version_id) for item in found if item.problem is None]

    def versions(self, name: str, *, limit: int = 100) -> list[ArtifactRef]:
        """
        List the versions of an artifact by wall clock, newest first.

        :param limit: At most so many.
        """
        return self.store.versions(name, limit=limit)

    # -- runs

    def runs(self, dag_id: str, *, limit: int = 100) -> pd.DataFrame:
        """
        Return the latest runs of a DAG as a table, the latest first: one row a run.

        Columns are ``run_id``, ``run_type``, ``run_after``, ``logical_date``, ``partition_key``,
        ``data_interval_start``, ``data_interval_end``, ``effective_at`` and then, of each task that measured
        something, ``params.<task>.<name>`` and ``metrics.<task>.<name>``; of mapped ones
        ``metrics.<task>[<map index>].<name>``. What a run lacks is missing (NaN).

        :param limit: At most so many runs.
        """
        import pandas as pd

        runs, measured = self.runs_and_measured(dag_id, limit=limit)
        rows = []
        for run in runs:
            row: dict[str, Any] = {
                "run_id": run.run_id,
                "run_type": run.run_type,
                "run_after": run.run_after,
                "logical_date": run.logical_date,
                "partition_key": run.partition_key,
                "data_interval_start": run.data_interval and run.data_interval[0],
                "data_interval_end": run.data_interval and run.data_interval[1],
                "effective_at": run.effective_at,
            }
            columns = list(row)
            for found in measured[run.run_id]:
                task = found.task_id if found.map_index < 0 else f"{found.task_id}[{found.map_index}]"
                row.update({f"params.{task}.{name}": item for name, item in found.params.items()})
                row.update({f"metrics.{task}.{name}": item for name, item in found.metrics.items()})
            rows.append(row)
        table = pd.DataFrame(rows)
        if not rows:
            return table
        return _with_times(table[[*columns, *sorted(set(table.columns) - set(columns), key=_metrics_last)]])

    def runs_and_measured(
        self, dag_id: str, *, limit: int = 100
    ) -> tuple[list[Run], dict[str, list[Measured]]]:
        """
        Return the latest runs of a DAG, the latest first, and by run id what their tasks measured.

        :param limit: At most so many runs.
        """
        runs = self._pages(self.queries.runs, dag_id, limit=limit)
        measured: dict[str, list[Measured]] = {run.run_id: [] for run in runs}
        for row in self._measured_since(dag_id, runs[-1].run_after if runs else None):
            if row.run_id in measured:
                measured[row.run_id].append(row)
        return runs, measured

    def measured(self, dag_id: str, *, task_id: str | None = None, limit: int = 100) -> pd.DataFrame:
        """
        Return what the task instances of a DAG measured, those of the latest run first: one row each.

        Columns are who and when (``run_id``, ``task_id``, ``map_index``, ``try_number``, ``outcome``,
        ``run_after``, ``effective_at`` ...), ``mlflow_run_id``, ``model_uri``, ``params.<name>`` and
        ``metrics.<name>``.

        :param task_id: Of this task alone.
        :param limit: At most so many rows.
        """
        import pandas as pd

        from airflow_ml_provider.lineage.answers import flat

        return _with_times(
            pd.DataFrame(flat(self._pages(self.queries.measured, dag_id, limit=limit, task_id=task_id)))
        )

    def record(
        self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, try_number: int | None = None
    ) -> TaskRecord:
        """
        Return what a task instance read, wrote and measured, in its last attempt or the one that is named.

        :raises ArtifactNotFoundError: if it left no record.
        """
        return self.queries.attempt(dag_id, run_id, task_id, map_index, try_number)

    def records(self, dag_id: str, run_id: str, *, limit: int = 1000) -> list[TaskRecord]:
        """
        Return the records of all attempts of a DAG run, by task, map index and try.

        :param limit: At most so many.
        """
        return self._pages(self.queries.run_attempts, dag_id, run_id, limit=limit)

    # -- lineage

    def upstream(
        self,
        of: ArtifactRef | ModelRef | AliasMove | str,
        *,
        depth: int | None = None,
        limit: int = 500,
        as_of: datetime | str | None = None,
        clock: Clock = "data",
    ) -> Graph:
        """
        Return what made something: the versions, tasks and models before it, across DAGs.

        :param of: An artifact, a model, a move of an alias, or a name: that of an artifact,
            ``models:/<name>/<version>``, ``models:/<name>@<alias>``, ``<dag>/<run>/<task>``, a node's id.
        :param depth: So many steps at most; None: to the end.
        :param limit: At most so many nodes; ``graph.truncated`` says if there are more.
        :param as_of: What a name or an alias meant then.
        :raises ArtifactNotFoundError: if there is no such artifact or attempt.
        :raises ModelNotFoundError: if no record or ledger knows the model.
        """
        lineage = self.lineage
        root = _node(lineage, of, as_of, clock)
        return lineage.explore(root, direction="up", depth=depth, limit=limit)

    def downstream(
        self,
        of: ArtifactRef | ModelRef | AliasMove | str,
        *,
        depth: int | None = None,
        limit: int = 500,
        as_of: datetime | str | None = None,
        clock: Clock = "data",
    ) -> Graph:
        """Return what came from something; as :meth:`upstream`."""
        lineage = self.lineage
        root = _node(lineage, of, as_of, clock)
        return lineage.explore(root, direction="down", depth=depth, limit=limit)

    def blast_radius(
        self,
        of: ArtifactRef | ModelRef | AliasMove | str,
        *,
        as_of: datetime | str | None = None,
        clock: Clock = "data",
    ) -> Blast:
        """Return all that came from something bad, and the commands that make exactly that again."""
        from airflow_ml_provider.lineage.blast import blast_radius

        lineage = self.lineage
        return blast_radius(lineage, _node(lineage, of, as_of, clock))

    def diff(self, before: ModelRef | AliasMove | str, after: ModelRef | AliasMove | str) -> ModelDiff:
        """Say what changed between two models: code, parameters, data, environment, metrics."""
        from airflow_ml_provider.lineage.diff import diff_models

        return diff_models(self.lineage, _named(before), _named(after))

    @property
    def lineage(self) -> Lineage:
        """The graph of what made what as it is now, to be walked step by step."""
        from airflow_ml_provider.lineage.graph import Lineage

        return Lineage(self.store)

    # -- models

    def model(self, registered_model_name: str) -> ModelHistory:
        """Give the history of a registered model; asks nothing yet."""
        return ModelHistory(self, registered_model_name)

    def models(self) -> list[ModelHistory]:
        """The registered models that have an alias that ever moved, by name."""
        names = sorted({name for name, _ in self.ledger.aliases()})
        return [ModelHistory(self, name) for name in names]

    # -- how

    @staticmethod
    def _pages(ask: Any, *args: Any, limit: int, **kwargs: Any) -> list[Any]:
        found: list[Any] = []
        cursor = None
        while len(found) < limit:
            page = ask(*args, limit=min(limit - len(found), MAX_PAGE), cursor=cursor, **kwargs)
            found.extend(page.items)
            cursor = page.cursor
            if cursor is None:
                break
        return found

    def _measured_since(self, dag_id: str, first: datetime | None) -> list[Measured]:
        found: list[Measured] = []
        cursor = None
        while first is not None:
            page = self.queries.measured(dag_id, limit=200, cursor=cursor)
            found.extend(page.items)
            cursor = page.cursor
            last = page.items[-1].run_after if page.items else None
            if cursor is None or (last is not None and last < first):
                break
        return found


class ModelHistory:
    """
    What became of a registered model: where its aliases pointed, what was decided about it.

    :param client: Whose store is asked.
    :param registered_model_name: The model's name in MLflow.
    """

    def __init__(self, client: MLClient, registered_model_name: str) -> None:
        self._client = client
        self.registered_model_name = registered_model_name

    def __repr__(self) -> str:
        return f"ModelHistory({self.registered_model_name!r})"

    def as_of(self, alias: str, when: datetime | str, clock: Clock = "data") -> AliasMove | None:
        """
        Give the move that decided where an alias pointed; its ``version`` is where.

        :param when: A datetime or ISO 8601 text; without a time zone it counts as UTC.
        :param clock: ``data``: the version that counts for data up to ``when``, whenever it was promoted.
            ``wall``: the version that was serving at ``when``.
        :returns: None if the alias had not been moved yet.
        """
        return self._client.ledger.as_of(self.registered_model_name, alias, when, clock=clock)

    def history(
        self, alias: str = "champion", *, limit: int | None = None, clock: Clock = "data"
    ) -> list[AliasMove]:
        """
        Give the moves of an alias, the latest first.

        :param limit: At most so many.
        :param clock: The time that they are sorted by. ``wall`` reads all moves, ``data`` as many as asked.
        """
        return self._client.ledger.history(self.registered_model_name, alias, limit=limit, clock=clock)

    def aliases(self) -> list[str]:
        """The aliases that ever moved."""
        return self._client.ledger.aliases_of(self.registered_model_name)

    def verdicts(self, alias: str = "champion", *, limit: int = 100) -> list[Verdict]:
        """
        Give what promotion tasks decided about an alias, rejections too, the latest first.

        :param limit: At most so many.
        """
        ask = self._client.queries.verdicts
        return self._client._pages(ask, self.registered_model_name, alias, limit=limit)

    def versions(self, *, limit: int = 100) -> list[RegisteredVersion]:
        """
        List the versions that tasks registered or promoted, the highest first.

        :param limit: At most so many.
        """
        ask = self._client.queries.model_versions
        return self._client._pages(ask, self.registered_model_name, limit=limit)

    def ref(self, which: str = "champion") -> ModelRef:
        """
        Name a version, by number or by alias as MLflow knows it now; asks nothing yet.

        :param which: ``"3"`` or ``"champion"``.
        """
        name = self.registered_model_name
        uri = f"models:/{name}/{which}" if str(which).isdecimal() else f"models:/{name}@{which}"
        address = self._client._tracking_uri
        conn_id = None if address is not None else self._client._settings.mlflow_conn_id
        return replace(ModelRef.coerce(uri), tracking_uri=address, mlflow_conn_id=conn_id)

    def load(
        self, which: str = "champion", *, as_of: datetime | str | None = None, clock: Clock = "data"
    ) -> Any:
        """
        Load a version from MLflow.

        :param which: An alias or the number of a version.
        :param as_of: What the alias pointed at then, by the ledger.
        :param clock: The time that ``as_of`` means, as for :meth:`as_of`.
        :raises ModelNotFoundError: if the alias pointed at nothing then, or MLflow has no such model, version
            or alias.
        """
        if as_of is not None:
            move = self.as_of(which, as_of, clock)
            if move is None or move.version is None:
                raise ModelNotFoundError(
                    f"{self.registered_model_name}@{which} pointed at nothing as of {as_of} ({clock} clock)"
                )
            which = move.version
        ref = self.ref(which)
        try:
            return ref.load()
        except ModelNotFoundError as exc:
            aliases = ", ".join(self.aliases()) or "none"
            raise ModelNotFoundError(f"{exc}; aliases that the ledger knows: {aliases}") from exc


def _node(lineage: Lineage, of: Any, as_of: datetime | str | None, clock: Clock) -> str:
    when = moment(as_of)
    if as_of is not None and when is None:
        raise TypeError(f"as_of must be a datetime or ISO 8601 text, got {as_of!r}")
    return lineage.find(_named(of), as_of=when, clock=clock)


def _named(of: Any) -> str:
    """Name what lineage is asked of, as :meth:`Lineage.find` reads it."""
    if isinstance(of, str):
        return of
    if isinstance(of, ModelRef):
        return f"models:/{of.model_id}" if of.model_id else of.model_uri
    name = getattr(of, "model_uri", None) or getattr(of, "uri", None)
    if name is None:
        raise TypeError(f"lineage is asked of an artifact, a model, a move or a name, got {of!r:.200}")
    return str(name)


_TIMES = (
    "run_after",
    "logical_date",
    "data_interval_start",
    "data_interval_end",
    "effective_at",
    "started_at",
    "recorded_at",
)


def _with_times(table: pd.DataFrame) -> pd.DataFrame:
    """Make columns of times that pandas understands even where all are missing."""
    import pandas as pd

    for name in _TIMES:
        if name in table.columns:
            table[name] = pd.to_datetime(table[name], utc=True)
    return table


def _metrics_last(name: str) -> tuple[bool, str]:
    return name.startswith("metrics."), name
