# SPDX-License-Identifier: Apache-2.0
"""
What a task has got done so far, kept where the next attempt finds it.

A checkpoint is a version in the artifact store, named after its task instance. A small *pointer*, kept by
somebody who knows task instances (:class:`Values`), says which versions count. It is written last: an
attempt that dies at any moment leaves the checkpoint before or the new one, and never half of one.

The pointer also says to which *generation* of attempts the checkpoints belong. A retry is of the same
generation; clearing a task begins a new one, which does not continue what was thrown away on purpose.
"""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from airflow_ml_provider.artifacts import bundle, chunks, keys
from airflow_ml_provider.artifacts.refs import CHECKPOINTS, LASTING, PASSING, part_name
from airflow_ml_provider.exceptions import (
    ArtifactCorruptError,
    ArtifactNotFoundError,
    CheckpointLostError,
    NonFiniteLossError,
)

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.refs import Producer
    from airflow_ml_provider.artifacts.store import ArtifactStore

log = logging.getLogger(__name__)

OnSuccess = Literal["clear", "keep"]
OnClear = Literal["restart", "resume"]

_VERSION = 1
_PACKED = "packed"
_WHOLE = "whole"


class Values(Protocol):
    """Small JSON by key, kept for one task instance across its attempts."""

    def get(self, key: str) -> Any: ...

    def set(self, key: str, value: Any) -> None: ...

    def delete(self, key: str) -> None: ...


@dataclass(frozen=True)
class Attempt:
    """
    Which attempt of a task instance is running.

    :param generation: The same for an attempt and its retries; another one after the task was cleared.
    :param number: The attempt's number, for people.
    """

    generation: str
    number: int = 1


@dataclass(frozen=True)
class Options:
    """
    How checkpoints are kept.

    :param keep: So many of the last ones.
    :param every: Seconds; what is saved earlier after the last save is not written.
    :param on_success: What becomes of them when the task succeeds.
    :param on_clear: Whether a task that was cleared begins anew or goes on.
    :raises ValueError: if one is out of range.
    """

    keep: int = 2
    every: float = 0.0
    on_success: OnSuccess = "clear"
    on_clear: OnClear = "restart"

    def __post_init__(self) -> None:
        if isinstance(self.keep, bool) or not isinstance(self.keep, int) or self.keep < 1:
            raise ValueError(f"keep must be at least 1 checkpoint, got {self.keep!r}")
        if not isinstance(self.every, (int, float)) or not 0 <= self.every < math.inf:
            raise ValueError(f"every must be 0 seconds or more, got {self.every!r}")
        for option, allowed in (("on_success", OnSuccess), ("on_clear", OnClear)):
            if getattr(self, option) not in get_args(allowed):
                words = " or ".join(repr(word) for word in get_args(allowed))
                raise ValueError(f"{option} must be {words}, got {getattr(self, option)!r}")


@dataclass(frozen=True)
class Saved:
    """One checkpoint, as the pointer names it."""

    name: str
    version_id: str
    how: str
    step: int | None
    saved_at: str
    attempt: int

    def to_json(self) -> list[Any]:
        return [self.name, self.version_id, self.how, self.step, self.saved_at, self.attempt]

    def __str__(self) -> str:
        step = "" if self.step is None else f" of step {self.step}"
        return f"the checkpoint{step} that attempt {self.attempt} saved at {self.saved_at}"


class Checkpoint:
    """
    The checkpoints of one task instance under one key. Made by :func:`airflow_ml_provider.ml.checkpoint`.

    :param values: Where the pointer is kept.
    :param identity: Names the task instance, for ever and among all of a deployment.
    :param key: Tells several checkpoints of one task apart.
    """

    def __init__(
        self,
        store: ArtifactStore,
        values: Values,
        *,
        identity: Iterable[str],
        key: str = "default",
        attempt: Attempt,
        producer: Producer | None = None,
        options: Options | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.options = options or Options()
        self.attempt = attempt
        self._store = store
        self._values = values
        self._path = "/".join(keys.segment(part) for part in (*identity, key))
        self._key = f"ml.checkpoint.{key}"
        self._producer = producer
        self._clock = clock
        self._last_save: float | None = None
        self._kept: list[Saved] | None = None
        self._step: int | None = None

    def __repr__(self) -> str:
        return f"Checkpoint({self._path!r}, step={self._step!r})"

    @property
    def step(self) -> int | None:
        """The step of the checkpoint that was loaded or saved last; None before the first."""
        return self._step

    def load(self, default: Any = None) -> Any:
        """
        Return the state that was saved last by this attempt or by those before it; ``default`` if none was.

        Three requests, and one more in a retry. If the last checkpoint is damaged or gone, the one before it
        is returned, loudly.

        :raises CheckpointLostError: if checkpoints were saved and none of them can be read.
        :raises StoreError: if the storage cannot be reached.
        """
        kept = self._known()
        failure: Exception | None = None
        while kept:
            saved = kept[0]
            try:
                state = self._read(saved)
            except (ArtifactNotFoundError, ArtifactCorruptError) as exc:
                log.warning("%s cannot be read: %s", saved, exc)
                failure = failure or exc
                kept.pop(0)
                continue
            self._step = saved.step
            log.info("Going on from %s", saved)
            return state
        if failure is not None:
            self._kept = None  # asking again gives the same answer
            raise CheckpointLostError(
                f"the task saved checkpoints ({self._path}), and none of them can be read: {failure}. Clear "
                "the task, which begins anew"
            ) from failure
        return default

    def save(
        self, state: Any, *, step: int | None = None, loss: float | None = None, force: bool = False
    ) -> bool:
        """
        Keep a state for the next attempt. Four requests, however many parts it has.

        :param state: Whatever the artifact store stores: tensors, arrays, estimators, tables, files, and
            lists and dicts of them.
        :param step: How far the state is, for the log and :attr:`step`.
        :param loss: If it is NaN or infinite, nothing is saved and the task fails.
        :param force: Save even if the last save was less than ``every`` seconds ago.
        :returns: Whether it was saved.
        :raises NonFiniteLossError: if the loss is NaN or infinite; what was saved before stays.
        :raises UnsupportedTypeError: if a part of it has no codec.
        :raises StoreError: if the storage refuses or cannot be reached.
        """
        if step is not None and (isinstance(step, bool) or not isinstance(step, int)):
            step = _whole(step)
        if loss is not None and not math.isfinite(loss):
            at = "" if step is None else f" at step {step}"
            raise NonFiniteLossError(
                f"the loss is {float(loss)!r}{at}: training diverged, and another attempt would too. Lower "
                "the learning rate or look at the data; the last checkpoint was left as it is"
            )
        began = self._clock()
        if not force and self._last_save is not None and began - self._last_save < self.options.every:
            return False
        kept = self._known()
        prefix = PASSING if self.options.on_success == "clear" else LASTING
        name = part_name(f"{prefix}{self._path}")
        how = _WHOLE if bundle.is_one_part(state) else _PACKED
        content = state if how == _WHOLE else bundle.pack(self._store, state, name)
        ref = self._store.save(content, name, producer=self._producer, preview=False)
        saved = Saved(
            name,
            ref.version_id,
            how,
            step,
            datetime.now(UTC).isoformat(timespec="milliseconds"),
            self.attempt.number,
        )
        new = [saved, *kept][: self.options.keep]
        self._values.set(
            self._key,
            {
                "version": _VERSION,
                "generation": self.attempt.generation,
                "kept": [item.to_json() for item in new],
            },
        )
        self._remove(kept[len(new) - 1 :])
        self._kept, self._step, self._last_save = new, step, self._clock()
        return True

    def clear(self) -> None:
        """
        Forget all checkpoints: the pointer first, so that nothing points at what is gone.

        The contents go with the next garbage collection.
        """
        self._values.delete(self._key)
        self._sweep(keep=())
        self._kept, self._step, self._last_save = [], None, None

    def succeeded(self) -> None:
        """Do what was asked for when the task succeeds. Without a load or a save there is nothing to do."""
        if self.options.on_success == "clear" and self._kept is not None:
            self.clear()

    def _known(self) -> list[Saved]:
        """Return the checkpoints that count, the last first. Asks once."""
        if self._kept is not None:
            return self._kept
        pointer = self._values.get(self._key)
        if pointer is None:
            self._kept = []
            return self._kept
        try:
            if pointer["version"] != _VERSION:
                raise ValueError(f"version {pointer['version']!r}")
            generation = str(pointer["generation"])
            found = [Saved(*item) for item in pointer["kept"]]
            for item in found:
                keys.version_key(item.name, item.version_id)
        except (KeyError, TypeError, ValueError) as exc:
            raise CheckpointLostError(
                f"the pointer to the checkpoints ({self._key!r} of {self._path}) cannot be read: {exc}. It "
                "was edited, or written by another release; delete that key of the task state, then clear "
                "the task"
            ) from exc
        ours = {part_name(f"{prefix}{self._path}") for prefix in CHECKPOINTS}
        if strange := [item.name for item in found if item.name not in ours]:
            raise CheckpointLostError(
                f"the pointer to the checkpoints of {self._path} names {strange[0]!r}, which belongs to "
                "another task; delete that key of the task state, then clear the task"
            )
        if generation != self.attempt.generation and self.options.on_clear == "restart":
            log.info("The task was cleared: it begins anew, and its checkpoints are removed")
            self.clear()
            return self._kept or []
        self._kept = found
        if self.attempt.number > 1:
            # What an attempt had stored that died before it could point at it.
            self._sweep(keep=found)
        return self._kept

    def _read(self, saved: Saved) -> Any:
        ref = self._store.get(saved.name, saved.version_id)
        value = self._store.load(ref)
        return value if saved.how == _WHOLE else bundle.unpack(self._store, value, saved.name)

    def _remove(self, gone: Iterable[Saved]) -> None:
        found = [keys.version_key(item.name, item.version_id) for item in gone]
        if found:
            self._delete(found)

    def _sweep(self, keep: Iterable[Saved]) -> None:
        """Remove the versions of these checkpoints that do not count. Those that last stay."""
        kept = {keys.version_key(item.name, item.version_id) for item in keep}
        name = part_name(f"{PASSING}{self._path}")
        found = [
            entry.key
            for entry in self._store.objects.list(keys.versions_prefix(name))
            if entry.key not in kept
        ]
        if found:
            self._delete([*found, *([] if kept else [chunks.head_key(name)])])

    def _delete(self, found: list[str]) -> None:
        try:
            self._store.objects.delete(found)
        except OSError as exc:  # what stays is removed by the next attempt, or by garbage collection
            log.warning("%d checkpoints that are not needed any more stay: %s", len(found), exc)


def _whole(step: Any) -> int:
    import operator

    try:
        return operator.index(step)
    except TypeError:
        raise TypeError(f"step is a whole number, got {step!r}") from None


class FolderValues:
    """
    :class:`Values` in a folder, for scripts and tests: one small file a key, replaced at once.

    :param folder: Made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def _file(self, key: str) -> Path:
        return self._folder / f"{keys.segment(key)}.json"

    def get(self, key: str) -> Any:
        try:
            return json.loads(self._file(key).read_text("utf-8"))
        except FileNotFoundError:
            return None

    def set(self, key: str, value: Any) -> None:
        descriptor, path = tempfile.mkstemp(prefix=".writing-", dir=self._folder)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(value, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(path, self._file(key))
        except BaseException:
            Path(path).unlink(missing_ok=True)
            raise

    def delete(self, key: str) -> None:
        self._file(key).unlink(missing_ok=True)
