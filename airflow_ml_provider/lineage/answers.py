# SPDX-License-Identifier: Apache-2.0
"""What :mod:`.queries` answers: plain data, and the same as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from airflow_ml_provider.exceptions import ArtifactCorruptError
from airflow_ml_provider.lineage.records import TaskRecord, VersionUse

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.refs import ArtifactRef, Producer
    from airflow_ml_provider.tracking.ledger import AliasMove

Json = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Page(Generic[T]):
    """
    Some of many.

    A page may be shorter than asked for and not the last.

    :param cursor: Give it back for the next page; None if this is the last.
    """

    items: tuple[T, ...]
    cursor: str | None = None

    def to_json(self) -> Json:
        return {"items": [item.to_json() for item in self.items], "cursor": self.cursor}  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Version:
    """
    One stored version, without what is in it.

    :param recorded_at: Wall clock of the write, UTC.
    :param effective_at: The data time it speaks for, UTC.
    :param problem: Why its manifest cannot be believed or read; the fields below are empty then.
    :param shares: In how many stored objects its bytes are; more than one can be shared in parts.
    """

    name: str
    version_id: str
    recorded_at: datetime
    effective_at: datetime
    uri: str = ""
    type: str = ""
    format: str = ""
    digest: str = ""
    size_bytes: int = 0
    data_interval: tuple[datetime, datetime] | None = None
    producer: Producer | None = None
    shares: int = 1
    problem: str | None = None

    @classmethod
    def of(cls, ref: ArtifactRef) -> Version:
        return cls(**_version_fields(ref))

    def to_json(self) -> Json:
        return _plain_fields(self)


@dataclass(frozen=True)
class VersionDetail(Version):
    """
    One stored version, with what its manifest shows of the content.

    :param schema: Columns, shape or parameters.
    :param preview: The first rows; None where previews are off.
    """

    schema: Json | None = None
    preview: Any = None

    @classmethod
    def of(cls, ref: ArtifactRef) -> VersionDetail:
        return cls(**_version_fields(ref), schema=ref.schema, preview=ref.preview)


@dataclass(frozen=True)
class Growth:
    """
    What a version adds to the store.

    :param new_bytes: Stored for it alone; the rest of ``size_bytes`` older versions have stored already.
    """

    version_id: str
    recorded_at: datetime
    size_bytes: int
    new_bytes: int

    def to_json(self) -> Json:
        return _plain_fields(self)


@dataclass(frozen=True)
class Storage:
    """
    What the newest versions of a name take.

    :param size_bytes: Sum over versions: what they would take without sharing.
    :param stored_bytes: What they take.
    :param complete: Whether these are all versions of the name.
    """

    name: str
    size_bytes: int
    stored_bytes: int
    versions: tuple[Growth, ...]
    complete: bool

    def to_json(self) -> Json:
        return _plain_fields(self)


@dataclass(frozen=True)
class Reader:
    """
    An attempt that used a version.

    :param outcome: As its record tells; ``running`` where the attempt has not ended.
    :param use: ``read``, ``handed`` (a reference that it did not load) or ``reused`` (by a cache hit).
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    outcome: str = "running"
    use: str = "read"
    recorded_at: datetime | None = None

    def to_json(self) -> Json:
        return _plain_fields(self)


@dataclass(frozen=True)
class Run:
    """A DAG run that left at least one record."""

    dag_id: str
    run_id: str
    run_after: datetime | None = None
    run_type: str | None = None
    logical_date: datetime | None = None
    partition_key: str | None = None
    data_interval: tuple[datetime, datetime] | None = None
    effective_at: datetime | None = None

    def to_json(self) -> Json:
        return _plain_fields(self)


@dataclass(frozen=True)
class Measured:
    """What a task instance measured in its last attempt that did: one row of a table of runs."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    outcome: str
    run_after: datetime | None = None
    run_type: str | None = None
    logical_date: datetime | None = None
    partition_key: str | None = None
    effective_at: datetime | None = None
    started_at: datetime | None = None
    recorded_at: datetime | None = None
    mlflow_run_id: str | None = None
    params: Json = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    models_written: tuple[Json, ...] = ()
    evaluation: Json | None = None
    promotion: Json | None = None
    cached: Json | None = None

    def to_json(self) -> Json:
        return _plain_fields(self)


@dataclass(frozen=True)
class Model:
    """
    A registered model whose aliases moved.

    :param aliases: Of each alias the move that it points where it does since.
    """

    name: str
    aliases: dict[str, AliasMove]

    def to_json(self) -> Json:
        return {"name": self.name, "aliases": {alias: move.to_json() for alias, move in self.aliases.items()}}


@dataclass(frozen=True)
class RegisteredVersion:
    """
    A version of a registered model, as the attempt that made or promoted it knew it.

    :param record: The key of that attempt's record.
    """

    registered_model_name: str
    version: str
    model_key: str = ""
    model_id: str | None = None
    model_uri: str | None = None
    mlflow_run_id: str | None = None
    record: str = ""
    further: Json = field(default_factory=dict)

    def to_json(self) -> Json:
        return _plain_fields(self)


@dataclass(frozen=True)
class Verdict:
    """What a promotion task decided about a model: promoted or not, and why."""

    registered_model_name: str
    alias: str
    verdict: str
    reasons: tuple[str, ...] = ()
    model_uri: str | None = None
    model_id: str | None = None
    version: str | None = None
    previous_version: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    baseline_metrics: dict[str, float] | None = None
    gates: tuple[Json, ...] = ()
    mlflow_run_id: str | None = None
    dag_id: str = ""
    run_id: str = ""
    task_id: str = ""
    map_index: int = -1
    try_number: int = 1
    started_at: datetime | None = None
    recorded_at: datetime | None = None
    effective_at: datetime | None = None
    further: Json = field(default_factory=dict)

    def to_json(self) -> Json:
        return _plain_fields(self)


def _version_fields(ref: ArtifactRef) -> dict[str, Any]:
    same = "name version_id uri type format digest size_bytes recorded_at effective_at data_interval producer"
    return {**{name: getattr(ref, name) for name in same.split()}, "shares": len(ref.blobs)}


_TIMES = ("started_at", "recorded_at", "effective_at", "run_after", "logical_date")
_NUMBERS = ("metrics", "baseline_metrics")
_USES = ("reads", "writes", "reused")
_LISTS = (
    "models_read",
    "models_written",
    "inlets",
    "outlets",
    "triggered_by",
    "emitted",
    "reasons",
    "gates",
)


def made_of(cls: type[T], doc: Mapping[str, Any]) -> T:
    """Make a dataclass of JSON; what it does not know goes to ``further``, what is missing stays empty."""
    known = cls.__dataclass_fields__  # type: ignore[attr-defined]
    given: dict[str, Any] = {}
    further: dict[str, Any] = {}
    try:
        for name, value in doc.items():
            if name == "kind" or value is None:
                continue
            if name not in known or name == "further":
                further[name] = value
            elif name in _TIMES:
                given[name] = datetime.fromisoformat(value)
            elif name == "data_interval":
                given[name] = (datetime.fromisoformat(value[0]), datetime.fromisoformat(value[1]))
            elif name in _USES:
                given[name] = tuple(_use(item) for item in value)
            elif name in _NUMBERS:
                given[name] = {key: float(item) for key, item in value.items()}
            elif name in _LISTS:
                given[name] = tuple(value)
            else:
                given[name] = value
        if "further" in known:
            given["further"] = further
        return cls(**given)
    except (TypeError, ValueError, AttributeError, KeyError, IndexError) as exc:
        who = ", ".join(f"{name} {doc[name]!r}" for name in ("dag_id", "run_id", "task_id") if name in doc)
        raise ArtifactCorruptError(
            f"what is kept of {who or 'a task'} cannot be read as {cls.__name__}: {exc}"
        ) from exc


def _use(item: Mapping[str, Any]) -> VersionUse:
    return VersionUse(**{name: item[name] for name in VersionUse.__dataclass_fields__ if name in item})


def _plain_fields(item: Any) -> Json:
    return {name: plain(getattr(item, name)) for name in item.__dataclass_fields__}


def plain(value: Any) -> Any:
    """Give JSON of what the answers are made of: times in ISO 8601, numbers that JSON lacks as text."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return plain(asdict(value))
    return value


def latest_attempts(attempts: Iterable[TaskRecord]) -> list[TaskRecord]:
    """Of each task instance its last attempt, in the order of the first."""
    found: dict[tuple[str, int], TaskRecord] = {}
    for each in attempts:
        who = (each.task_id, each.map_index)
        if who not in found or found[who].try_number < each.try_number:
            found[who] = each
    return list(found.values())


def flat(rows: Sequence[Measured]) -> list[Json]:
    """
    Rows for a table: ``params.<name>`` and ``metrics.<name>`` beside who measured them, and when.

    All rows have the same keys; what a row lacks is None.
    """
    columns = [
        *dict.fromkeys(f"params.{name}" for row in rows for name in row.params),
        *dict.fromkeys(f"metrics.{name}" for row in rows for name in row.metrics),
    ]
    fixed = [
        name
        for name in Measured.__dataclass_fields__
        if name not in ("params", "metrics", "models_written", "evaluation", "promotion", "cached")
    ]
    table = []
    for row in rows:
        found: Json = {name: getattr(row, name) for name in fixed}
        found["model_uri"] = next(
            (each["model_uri"] for each in row.models_written if each.get("model_uri")), None
        )
        found.update(dict.fromkeys(columns))
        found.update({f"params.{name}": value for name, value in row.params.items()})
        found.update({f"metrics.{name}": value for name, value in row.metrics.items()})
        table.append(found)
    return table
