# SPDX-License-Identifier: Apache-2.0
"""Names of artifacts, and references to one stored version of one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar
from urllib.parse import quote

from airflow_ml_provider.exceptions import UnboundReferenceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ml_provider.artifacts.store import ArtifactStore

MAX_NAME_CHARS = 200
#: How the names of checkpoints begin, which are versions too: the states of running tasks, see
#: :mod:`..tracking.checkpoints`. Those of the first go with their run, those of the second stay.
PASSING = "checkpoints/"
LASTING = "kept-checkpoints/"
CHECKPOINTS = (PASSING, LASTING)

T = TypeVar("T")


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


def part_name(name: str) -> str:
    """Shorten and replace what names may not hold, in a name made of dict keys, indexes or ids."""
    shown = "".join(char if char.isprintable() else "_" for char in name).rstrip("/ ")
    if len(shown) > MAX_NAME_CHARS:
        mark = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        shown = f"{shown[: MAX_NAME_CHARS - 17]}.{mark}"
    return shown


@dataclass(frozen=True)
class Artifact:
    """
    Name what a task returns: ``Annotated[pd.DataFrame, Artifact("flight_features")]``.

    :param name: Under which all versions are listed, across runs and DAGs. Names that begin with
        ``checkpoints/`` or ``kept-checkpoints/`` are those of ``ml.checkpoint()`` and are refused.
    :param format: Store it in this format instead of the one its type has by default: the format of a
        codec of yours, such as ``mycsv-v1``, or ``mycsv`` for its newest version.
    :param preview: False keeps the first rows out of the XCom table and of the UI.
    :param mask: Columns and keys whose cells the preview shows as ``***``, as glob patterns such as
        ``email_*``, in any case; those of ``[ml_provider] preview_mask`` are masked anyway. What is stored
        stays as it is.
    """

    name: str
    format: str | None = None
    preview: bool = True
    mask: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.name.startswith(CHECKPOINTS):
            raise ValueError(
                f"an artifact is not named {self.name!r}: names that begin with {' or '.join(CHECKPOINTS)} "
                "are those of ml.checkpoint(), which lists and lineage leave out and garbage collection "
                "removes by age; choose another name"
            )
        if not isinstance(self.mask, (tuple, list)) or not all(isinstance(each, str) for each in self.mask):
            raise TypeError(f"mask is a tuple of column names or patterns, got {self.mask!r}")
        object.__setattr__(self, "mask", tuple(self.mask))


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
    One stored version of an artifact. Small; :meth:`load` fetches the value or a part of it, :meth:`open`
    and :meth:`path` give the stored bytes. Each of them counts as a read of the current task.

    :param digest: ``blake3:`` and 64 hexadecimal digits of the content: of the stored bytes, or, where they
        are in several objects, of the pieces that make it, however they are packed.
    :param format: Layout of the stored bytes, such as ``arrow-v1``.
    :param type: The value's type, such as ``pandas.DataFrame``.
    :param size_bytes: Length of the stored bytes, those that other versions share included.
    :param recorded_at: Wall clock of the write, UTC.
    :param effective_at: The data time that the value speaks for, UTC.
    :param schema: Columns, shape or parameters, as small JSON.
    :param preview: The first rows as small JSON; None where previews are off.
    :param parts: Digests of the objects that hold the bytes, where it is not one that ``digest`` names.
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
    parts: tuple[str, ...] = ()
    _store: ArtifactStore | None = field(default=None, compare=False, repr=False)
    _on_read: Callable[[ArtifactRef, Any], None] | None = field(default=None, compare=False, repr=False)

    @property
    def uri(self) -> str:
        """``ml-artifact://<name>?version=<version id>``."""
        return f"ml-artifact://{quote(self.name, safe='/')}?version={self.version_id}"

    @property
    def blobs(self) -> tuple[str, ...]:
        """Digests of the stored objects that the value is read from."""
        return self.parts or (self.digest,)

    def load(self, *, columns: Sequence[Any] | None = None, rows: slice | int | None = None) -> Any:
        """
        Fetch the value, exactly as it was written, or a part of a table or data frame.

        A part is of the type that was written, and equals the same part of the whole: dtypes, index,
        ``attrs`` and all. The stored bytes are fetched and verified whole; columns that were not asked for
        are not decoded.

        :param columns: Labels, in the order in which to return them.
        :param rows: So many from the beginning, or a slice of positions without a step; negative ones count
            from the end.
        :raises ValueError: if there is no such column, or ``rows`` has a step or is below 0.
        :raises TypeError: if the value has no columns or rows to choose from.
        :raises UnboundReferenceError: if the reference was made by hand, without a store.
        :raises ArtifactNotFoundError: if the content is gone.
        :raises ArtifactCorruptError: if the content is not what was written.
        """
        return self._note(self._bound.load(self, columns=columns, rows=rows))

    def open(self) -> BinaryIO:
        """
        Open the stored bytes for reading, in the layout of :attr:`format`.

        They are streamed to a private local file and verified before this returns, so that no byte is read
        that was not written, and none of it is held in memory. The file can seek; closing it removes it.

        :raises UnboundReferenceError: if the reference was made by hand, without a store.
        :raises ArtifactNotFoundError: if the content is gone.
        :raises ArtifactCorruptError: if the content is not what was written.
        """
        return self._note(self._bound.open(self))

    def path(self, to: str | Path | None = None) -> Path:
        """
        Copy the stored bytes to a local file, verified: a stored file or folder as it was, of others the
        bytes in the layout of :attr:`format`, with a suffix that tells it.

        :param to: The file or folder to make; a file that is there is replaced. A private one that
            disappears with this process if absent.
        :raises FileExistsError: if a folder is to be made and ``to`` is there and not empty.
        :raises IsADirectoryError: if a file is to be made and ``to`` is a folder.
        :raises UnboundReferenceError: if the reference was made by hand, without a store.
        :raises ArtifactNotFoundError: if the content is gone.
        :raises ArtifactCorruptError: if the content is not what was written.
        """
        return self._note(self._bound.path(self, to))

    @property
    def _bound(self) -> ArtifactStore:
        if self._store is None:
            raise UnboundReferenceError(
                f"{self.uri} is not bound to a store; get it from a task's input, "
                f"or call ArtifactStoreHook().store.load(ref)"
            )
        return self._store

    def _note(self, given: T) -> T:
        if self._on_read is not None:
            self._on_read(self, given)
        return given

    def __repr__(self) -> str:
        return f"ArtifactRef({self.name!r}, version_id={self.version_id!r}, type={self.type!r})"

    def __getstate__(self) -> dict[str, Any]:
        # A store holds the signing key and credentials: they stay in the process that made them.
        return {**self.__dict__, "_store": None, "_on_read": None}
