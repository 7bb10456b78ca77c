# SPDX-License-Identifier: Apache-2.0
"""Names of artifacts, and references to one stored version of one."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_ml_provider.exceptions import UnboundReferenceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ml_provider.artifacts.store import ArtifactStore

MAX_NAME_CHARS = 200


def check_name(name: str) -> str:
    """
    Return ``name`` if it can name an artifact.

    :raises ValueError: if it is empty, longer than 200 characters, begins or ends with ``/`` or a blank, or
        holds control characters or text that UTF-8 cannot carry.
    """
    if not isinstance(name, str):
        raise TypeError(f"an artifact name is text, got {type(name).__name__}")
    if not name:
        raise ValueError("an artifact needs a name, got ''")
    if len(name) > MAX_NAME_CHARS:
        raise ValueError(
            f"an artifact name has at most {MAX_NAME_CHARS} characters, got {len(name)}: {name[:40]!r}..."
        )
    if name[0] in "/ " or name[-1] in "/ ":
        raise ValueError(f"an artifact name neither begins nor ends with '/' or a blank, got {name!r}")
    if not name.isprintable():
        raise ValueError(f"an artifact name holds printable characters only, got {name!r}")
    return name


@dataclass(frozen=True)
class Artifact:
    """
    Name what a task returns: ``Annotated[pd.DataFrame, Artifact("flight_features")]``.

    :param name: Under which all versions are listed, across runs and DAGs.
    :param format: Store it in this format instead of the one its type has by default.
    :param preview: False keeps the first rows out of the XCom table and of the UI.
    """

    name: str
    format: str | None = None
    preview: bool = True

    def __post_init__(self) -> None:
        check_name(self.name)


@dataclass(frozen=True)
class Producer:
    """The attempt of a task instance that wrote an artifact, and the XCom key it was pushed under."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    try_number: int = 1
    key: str = "return_value"

    def __str__(self) -> str:
        mapped = f"[{self.map_index}]" if self.map_index >= 0 else ""
        return f"{self.dag_id}.{self.task_id}{mapped} in run {self.run_id}, try {self.try_number}"


@dataclass(frozen=True)
class ArtifactRef:
    """
    One stored version of an artifact. Small; :meth:`load` fetches the value.

    :param digest: ``blake3:`` and 64 hexadecimal digits of the stored bytes.
    :param format: Layout of the stored bytes, such as ``arrow-v1``.
    :param type: The value's type, such as ``pandas.DataFrame``.
    :param size_bytes: Length of the stored bytes.
    :param recorded_at: Wall clock of the write, UTC.
    :param effective_at: The data time that the value speaks for, UTC.
    :param schema: Columns, shape or parameters, as small JSON.
    :param preview: The first rows as small JSON; None where previews are off.
    """

    name: str
    version_id: str
    digest: str
    format: str
    type: str
    size_bytes: int
    producer: Producer | None
    recorded_at: datetime
    effective_at: datetime
    data_interval: tuple[datetime, datetime] | None = None
    schema: dict[str, Any] | None = field(default=None, hash=False)
    preview: Any | None = field(default=None, hash=False)
    _store: ArtifactStore | None = field(default=None, compare=False, repr=False)
    _on_read: Callable[[ArtifactRef, Any], None] | None = field(default=None, compare=False, repr=False)

    @property
    def uri(self) -> str:
        """``ml-artifact://<name>?version=<version id>``."""
        return f"ml-artifact://{quote(self.name, safe='/')}?version={self.version_id}"

    def load(self) -> Any:
        """
        Fetch the value, exactly as it was written.

        :raises UnboundReferenceError: if the reference was made by hand, without a store.
        :raises ArtifactNotFoundError: if the content is gone.
        :raises ArtifactCorruptError: if the content is not what was written.
        """
        if self._store is None:
            raise UnboundReferenceError(
                f"{self.uri} is not bound to a store; get it from a task's input, "
                f"or call ArtifactStoreHook().store.load(ref)"
            )
        value = self._store.load(self)
        if self._on_read is not None:
            self._on_read(self, value)
        return value

    def __repr__(self) -> str:
        return f"ArtifactRef({self.name!r}, version_id={self.version_id!r}, type={self.type!r})"

    def __getstate__(self) -> dict[str, Any]:
        # A store holds the signing key and credentials: they stay in the process that made them.
        return {**self.__dict__, "_store": None, "_on_read": None}
