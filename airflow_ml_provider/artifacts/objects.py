# SPDX-License-Identifier: Apache-2.0
"""
Objects by key, in a folder or in a bucket.

A folder is written through a private file that is flushed and then linked to its final name: readers see all
of an object or nothing, whenever the writer dies, and of two writers exactly one creates it. A bucket gives
the same by conditional puts (``If-None-Match: *``).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import json
import mmap
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, Protocol, TypeVar, cast
from urllib.parse import unquote, urlsplit

from airflow_ml_provider.artifacts import scratch
from airflow_ml_provider.artifacts.retries import Retries, may_pass
from airflow_ml_provider.exceptions import ArtifactCorruptError, ArtifactNotFoundError, StoreError

# An anonymous mapping is not zeroed by hand as a bytearray is, and numpy may later write into it.
_MAPPED_FROM_BYTES = 1 << 20
# S3 wants parts for large objects; parts cannot be combined with a conditional put on every server.
_PARTS_FROM_BYTES = 64 << 20
# S3 copies up to here in one request.
_COPIES_UP_TO_BYTES = 5 << 30
# What is handed to a disk at once, and how many parts of it: IOV_MAX of Linux is 1,024.
_BATCH_BYTES = 1 << 20
_BATCH_PARTS = 1000
# What is read at once: a few of the pages of 2 MiB that large memory consists of.
_READ_BYTES = 16 << 20
# Ranges of an object that lie so near to each other are asked for as one.
_GAP_BYTES = 256 << 10
_SYNC_FILE_RANGE_WRITE = 2  # <fcntl.h>
# A read that breaks goes on where it stopped; counting of attempts begins anew after so much.
_RESUMED_FROM_BYTES = 8 << 20
# Larger objects are named by their hashes: the same key and size is the same content.
_COMPARED_UP_TO_BYTES = 1 << 20
_KEY = re.compile(r"[A-Za-z0-9_=.+-]+(/[A-Za-z0-9_=.+-]+)*")
_TEMPORARY = ".tmp"
_CONCURRENT_REQUESTS = 16

T = TypeVar("T")
R = TypeVar("R")


def at_once(
    function: Callable[[T], R], items: Iterable[T], at_hand: Callable[[T], bool] = lambda item: False
) -> list[R]:
    """
    Make one request for each item, several at the same time; results are in the order of the items.

    :param at_hand: Whether an item needs no request: it is not worth a thread.
    """
    items = list(items)
    far = [place for place, item in enumerate(items) if not at_hand(item)]
    if len(far) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(_CONCURRENT_REQUESTS, len(far))) as pool:
        found = dict(zip(far, pool.map(function, (items[place] for place in far)), strict=True))
    return [found[place] if place in found else function(item) for place, item in enumerate(items)]


# Manifests and records are a few KiB.
_MAX_JSON_BYTES = 64 << 20


@dataclass(frozen=True)
class ObjectInfo:
    """An object of a list; ``modified`` is the server's clock, UTC."""

    key: str
    size_bytes: int
    modified: datetime


_Data = bytes | bytearray | memoryview | Path | list[memoryview]


# What a get returns: read it through a memoryview.
Content = bytes | mmap.mmap | memoryview
# What a get tells of the bytes that it has read.
OnRead = Callable[[memoryview], None]


def as_bytes(part: memoryview) -> memoryview:
    """Return the memory of numbers, or of nothing, as bytes."""
    return part.cast("B") if part.nbytes else memoryview(b"")


class Source(Protocol):
    """An object that is open for reading, from any thread."""

    size_bytes: int

    def read(self, at: int, size: int) -> memoryview:
        """
        Return some of its bytes.

        :raises ValueError: if they lie outside of it, or it was cut off since it was opened.
        """

    def read_into(self, at: int, targets: Sequence[memoryview]) -> None:
        """
        Fill some memory with its bytes, one target after the other.

        :raises ValueError: as :meth:`read`.
        """

    def prepare(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch at once what will be read: offsets and lengths."""

    def close(self) -> None:
        """Let it go; nothing can be read after it."""


class _Backend(Protocol):
    def put(self, key: str, parts: Sequence[memoryview] | Path, *, create_only: bool) -> bool: ...
    def get(self, key: str, at_most: int | None = None, on_read: OnRead | None = None) -> Content: ...
    def source(self, key: str, at_most: int | None = None, end: int | None = None) -> Source: ...
    def fetch(self, key: str, target: BinaryIO, at_most: int | None = None) -> int: ...
    def info(self, key: str) -> ObjectInfo | None: ...
    def delete(self, keys: Sequence[str]) -> None: ...
    def move(self, key: str, target: str) -> bool: ...
    def copy(self, key: str, target: str) -> bool: ...
    def list(self, prefix: str, after: str | None) -> Iterator[ObjectInfo]: ...
    def children(self, prefix: str) -> Iterator[str]: ...


def _within(size: int, at_most: int | None, where: str) -> int:
    if at_most is not None and size > at_most:
        raise ArtifactCorruptError(
            f"{where} is damaged: it holds {size:,} bytes, and at most {at_most:,} were written there; "
            "nothing of it was read. Delete it and re-run what wrote it"
        )
    return size


class ObjectStore:
    """
    Objects under one root.

    :param root: ``file:///folder`` (or a plain absolute path), or ``s3://bucket/prefix``.
    :param options: For ``s3://``: ``endpoint_url``, ``access_key_id``, ``secret_access_key``,
        ``session_token``, ``region``, ``allow_http``, ``skip_signature``, ``virtual_hosted_style``,
        ``credential_provider``, ``root_certificate`` (PEM of an authority to trust besides the system's),
        ``allow_invalid_certificates``, ``timeout`` (seconds for one request and its answer, 120),
        ``connect_timeout`` (seconds, 5), ``max_retries`` (10, with growing waits up to 5 seconds) and
        ``retry_timeout`` (seconds after which no attempt begins, 180). Without keys the client finds the
        machine's own credentials.
    :raises ValueError: if the root or an option is none of these.
    """

    def __init__(self, root: str, options: Mapping[str, Any] | None = None) -> None:
        if root.startswith("/"):
            root = Path(root).as_uri()
        parts = urlsplit(root)
        self.root = root.rstrip("/")
        self._backend: _Backend
        if parts.scheme == "file":
            if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
                raise ValueError(f"a folder is named file:///absolute/path, got {root!r}")
            self._backend = _Folder(Path(unquote(parts.path)))
        elif parts.scheme == "s3":
            if not parts.netloc:
                raise ValueError(f"a bucket is named s3://bucket/prefix, got {root!r}")
            self._backend = _Bucket(parts.netloc, unquote(parts.path).strip("/"), dict(options or {}))
        else:
            raise ValueError(f"artifact roots begin with file:// or s3://, got {root!r}")

    def __repr__(self) -> str:
        return f"ObjectStore({self.root!r})"

    @property
    def is_local(self) -> bool:
        """Whether it is a folder."""
        return isinstance(self._backend, _Folder)

    def put(self, key: str, data: _Data | BinaryIO, *, create_only: bool = True) -> bool:
        """
        Write an object, all of it or nothing.

        :param data: Bytes, parts to join, a file's path, or a file open for reading.
        :param create_only: Leave an existing object alone.
        :returns: False if it existed already and was left alone.
        :raises StoreError: if the storage refuses or cannot be reached.
        """
        _check(key)
        parts: Sequence[memoryview] | Path
        if isinstance(data, Path):
            parts = data
        elif isinstance(data, (bytes, bytearray, memoryview)):
            parts = [as_bytes(memoryview(data))]
        elif isinstance(data, list):
            parts = [as_bytes(part) for part in data]
        else:
            parts = [memoryview(data.read())]
        return self._backend.put(key, parts, create_only=create_only)

    def get(self, key: str, *, at_most: int | None = None, on_read: OnRead | None = None) -> Content:
        """
        Read an object, as a buffer. A large one may be written to, for it is a private copy.

        :param at_most: A longer one, in bytes, is refused before memory is taken for it.
        :param on_read: Called with its bytes, one stretch after the other, while more are read.
        :raises ArtifactCorruptError: if it is longer than that.
        :raises ArtifactNotFoundError: if there is none.
        :raises StoreError: if the storage refuses or cannot be reached.
        """
        return self._backend.get(_check(key), at_most, on_read)

    def source(self, key: str, *, at_most: int | None = None, end: int | None = None) -> Source:
        """
        Open an object to read parts of it: one request, of a bucket for all of it.

        :param at_most: As for :meth:`get`.
        :param end: For few parts of an object in a bucket: so many bytes of its end are fetched at once, and
            others when they are prepared for, or read.
        :raises ArtifactNotFoundError: if it is not there.
        """
        return self._backend.source(_check(key), at_most, end)

    def fetch(self, key: str, target: Path, *, at_most: int | None = None) -> int:
        """
        Copy an object to a new local file; returns its size in bytes. No file is left after an error.

        :param at_most: A longer one, in bytes, is refused before it is copied.
        :raises ArtifactCorruptError: if it is longer than that.
        :raises ArtifactNotFoundError: if there is no such object.
        :raises StoreError: if the storage refuses or cannot be reached, or the local disk is full.
        """
        _check(key)
        with (
            scratch.explained(f"copy {self.root}/{key}", target.parent),
            target.open("xb", buffering=0) as file,
        ):
            try:
                return self._backend.fetch(key, file, at_most)
            except BaseException:
                target.unlink(missing_ok=True)
                raise

    def info(self, key: str) -> ObjectInfo | None:
        return self._backend.info(_check(key))

    def exists(self, key: str) -> bool:
        return self.info(key) is not None

    def size(self, key: str) -> int | None:
        """Size in bytes; None if there is no such object."""
        found = self.info(key)
        return None if found is None else found.size_bytes

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are gone already are no error."""
        self._backend.delete([_check(key) for key in keys])

    def move(self, key: str, target: str) -> bool:
        """
        Give an object another key, replacing what is there; False if there is no such object.

        A bucket copies and then deletes: at no moment is there neither.
        """
        return self._backend.move(_check(key), _check(target))

    def copy(self, key: str, target: str) -> bool:
        """Give an object a second key, replacing what is there; False if there is no such object."""
        return self._backend.copy(_check(key), _check(target))

    def list(
        self, prefix: str, *, after: str | None = None, limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        """
        Yield the objects whose keys begin with ``prefix``, in order of their bytes.

        :param prefix: Whole segments, with or without the last ``/``; empty for everything.
        :param after: Only keys that sort after this one.
        :param limit: At most so many.
        """
        prefix = prefix.rstrip("/")
        if prefix:
            _check(prefix)
        yield from itertools.islice(self._backend.list(prefix, after), limit)

    def children(self, prefix: str) -> Iterator[str]:
        """Yield the distinct next segments below ``prefix`` that hold further segments, in order."""
        return self._backend.children(_check(prefix.rstrip("/")))

    def at_hand(self, key: str) -> bool:
        """Tell whether reading an object takes no request; here it always takes one."""
        return False

    def get_json(self, key: str) -> Any:
        """
        Read a JSON object.

        :raises ArtifactCorruptError: if it is not JSON.
        """
        data = self.get(key, at_most=_MAX_JSON_BYTES)
        try:
            return json.loads(bytes(data))
        except (ValueError, RecursionError) as exc:
            raise ArtifactCorruptError(f"{self.root}/{key} is not JSON: {exc}; delete it") from exc

    def put_json(self, key: str, doc: Any, create_only: bool = True) -> bool:
        """Write a JSON object; NaN and infinities are refused."""
        text = json.dumps(doc, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        return self.put(key, text.encode("ascii"), create_only=create_only)


def _check(key: str) -> str:
    if not _KEY.fullmatch(key) or any(part in (".", "..") for part in key.split("/")):
        raise ValueError(f"not a key of the store: {key!r}")
    if len(key) > 900:  # S3 allows 1,024 bytes a key, the root's prefix included
        raise ValueError(f"a key of the store has at most 900 bytes, got {len(key)}: {key[:60]!r}...")
    return key


class _Folder:
    """Objects as files. Names are ASCII, so sorting text sorts bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _refuse(self, doing: str, exc: OSError) -> NoReturn:
        why = exc.strerror or str(exc)
        if exc.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS) and exc.filename2 is not None:
            todo = (
                "its file system must let a file have two names (hard links), as those of Linux and NFS do; "
                "set [ml_provider] artifact_root to a folder on such a one, or to s3://"
            )
        elif exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            todo = (
                f"let user id {os.geteuid()} write there, "
                "or set [ml_provider] artifact_root to a folder it owns"
            )
        elif exc.errno in (errno.ENOSPC, errno.EDQUOT):
            todo = "free space there"
        else:
            todo = "check [ml_provider] artifact_root"
        raise StoreError(f"cannot {doing} under the artifact root {self.path}: {why}; {todo}") from exc

    def _file(self, key: str) -> Path:
        return self.path / key

    def put(self, key: str, parts: Sequence[memoryview] | Path, *, create_only: bool) -> bool:
        final = self._file(key)
        try:
            if create_only and final.exists():
                return False
            holding = self.path / _TEMPORARY
            holding.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=holding)
            try:
                with os.fdopen(descriptor, "wb", buffering=0) as file:
                    if isinstance(parts, Path):
                        with parts.open("rb", buffering=0) as source:
                            _write_batches(file.fileno(), _blocks(source))
                    else:
                        _write_batches(file.fileno(), _batches(parts))
                    os.fchmod(file.fileno(), 0o666 & ~_umask())
                    # Without it a power cut may leave a name without its content, for ever taken.
                    os.fsync(file.fileno())
                final.parent.mkdir(parents=True, exist_ok=True)
                if not create_only:
                    os.replace(temporary, final)
                    return True
                try:
                    os.link(temporary, final)
                except FileExistsError:
                    # On NFS it may be this one: the server did it, and its answer was lost, see link(2).
                    return os.stat(temporary).st_nlink > 1
                return True
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
        except OSError as exc:
            self._refuse(f"write {key}", exc)

    def _open(self, key: str) -> BinaryIO:
        try:
            return self._file(key).open("rb", buffering=0)
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise ArtifactNotFoundError(f"{self.path}/{key} is not in the store") from exc
        except OSError as exc:
            self._refuse(f"read {key}", exc)

    def get(self, key: str, at_most: int | None = None, on_read: OnRead | None = None) -> Content:
        with self._open(key) as file:
            try:
                size = _within(os.fstat(file.fileno()).st_size, at_most, f"{self.path}/{key}")
                if size < _MAPPED_FROM_BYTES:
                    content = file.read()
                    if on_read is not None:
                        on_read(memoryview(content))
                    return content
                data = _memory(size)
                view = memoryview(data)
                filled = 0
                while filled < size:
                    stretch = view[filled : filled + _READ_BYTES]
                    count = os.readv(file.fileno(), [stretch])
                    if not count:
                        raise ArtifactCorruptError(f"{self.path}/{key} shrank while it was read")
                    if on_read is not None:
                        on_read(stretch[:count])
                    filled += count
                return data
            except OSError as exc:
                self._refuse(f"read {key}", exc)

    def source(self, key: str, at_most: int | None = None, end: int | None = None) -> Source:
        file = self._open(key)
        try:
            size = _within(os.fstat(file.fileno()).st_size, at_most, f"{self.path}/{key}")
        except BaseException:
            file.close()
            raise
        return _OpenFile(file, size, lambda exc: self._refuse(f"read {key}", exc))

    def fetch(self, key: str, target: BinaryIO, at_most: int | None = None) -> int:
        with self._open(key) as file:
            _within(os.fstat(file.fileno()).st_size, at_most, f"{self.path}/{key}")
            count = 0
            while True:
                try:
                    chunk = file.read(1 << 20)
                except OSError as exc:
                    self._refuse(f"read {key}", exc)
                if not chunk:
                    return count
                _write_all(target.fileno(), memoryview(chunk))
                count += len(chunk)

    def info(self, key: str) -> ObjectInfo | None:
        try:
            found = self._file(key).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            self._refuse(f"read {key}", exc)
        return ObjectInfo(key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            try:
                self._file(key).unlink(missing_ok=True)
            except OSError as exc:
                self._refuse(f"delete {key}", exc)

    def move(self, key: str, target: str) -> bool:
        final = self._file(target)
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self._file(key), final)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as exc:
            self._refuse(f"move {key}", exc)
        return True

    def copy(self, key: str, target: str) -> bool:
        final, holding = self._file(target), self.path / _TEMPORARY
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            holding.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=holding) as folder:
                # Objects are replaced, never written to: a second name of the same file is a copy.
                temporary = os.path.join(folder, "copy")
                os.link(self._file(key), temporary)
                os.replace(temporary, final)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as exc:
            self._refuse(f"copy {key}", exc)
        return True

    def list(self, prefix: str, after: str | None) -> Iterator[ObjectInfo]:
        try:
            yield from self._walk(prefix, after)
        except OSError as exc:
            self._refuse(f"list {prefix or 'objects'}", exc)

    def _walk(self, prefix: str, after: str | None) -> Iterator[ObjectInfo]:
        try:
            with os.scandir(self.path / prefix) as entries:
                # A folder sorts as its keys do: "a/" after "a-b", because "-" sorts before "/".
                found = sorted(
                    ((entry.name + "/" if entry.is_dir(follow_symlinks=False) else entry.name), entry)
                    for entry in entries
                    if prefix or entry.name != _TEMPORARY
                )
        except (FileNotFoundError, NotADirectoryError):
            return
        for name, entry in found:
            key = f"{prefix}/{name}" if prefix else name
            if name.endswith("/"):
                if after is None or key > after or after.startswith(key):
                    yield from self._walk(key[:-1], after)
            elif (after is None or key > after) and entry.is_file(follow_symlinks=False):
                try:
                    status = entry.stat()
                except FileNotFoundError:
                    continue  # removed since the folder was read
                yield ObjectInfo(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    def children(self, prefix: str) -> Iterator[str]:
        try:
            with os.scandir(self.path / prefix) as entries:
                yield from sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as exc:
            self._refuse(f"list {prefix}", exc)


class _OpenFile:
    def __init__(self, file: BinaryIO, size_bytes: int, refuse: Callable[[OSError], NoReturn]) -> None:
        self.size_bytes = size_bytes
        self._file = file
        self._refuse = refuse

    def read(self, at: int, size: int) -> memoryview:
        if at + size > self.size_bytes:  # before memory is taken for it
            raise ValueError(f"it has no bytes {at} to {at + size}")
        made = memoryview(bytearray(size))
        self.read_into(at, [made])
        return made

    def read_into(self, at: int, targets: Sequence[memoryview]) -> None:
        wanted = sum(target.nbytes for target in targets)
        try:
            got = os.preadv(self._file.fileno(), targets, at)
            if got == wanted:
                return
            for target in targets:  # Linux reads at most 2 GiB at once
                filled = 0
                while filled < target.nbytes:
                    got = os.preadv(self._file.fileno(), [target[filled : filled + (1 << 30)]], at)
                    if not got:
                        raise ValueError(f"it ends at {at} although {self.size_bytes} bytes were there")
                    filled, at = filled + got, at + got
        except OSError as exc:
            self._refuse(exc)

    def prepare(self, ranges: Iterable[tuple[int, int]]) -> None:
        """A disk is asked when something is read."""

    def close(self) -> None:
        self._file.close()


class _Fetched:
    """
    An object of a bucket, or what is known of it so far.

    :param fetch: Returns some of its bytes, by their offset and number.
    """

    def __init__(self, size_bytes: int, fetch: Callable[[int, int], memoryview]) -> None:
        self.size_bytes = size_bytes
        self._fetch = fetch
        self._known: list[tuple[int, memoryview]] = []

    def add(self, at: int, content: memoryview) -> None:
        self._known.append((at, content))

    def prepare(self, ranges: Iterable[tuple[int, int]]) -> None:
        wanted: list[tuple[int, int]] = []
        for start, size in sorted(ranges):
            if self._found(start, size) is not None:
                continue
            if wanted and start - wanted[-1][1] <= _GAP_BYTES:
                wanted[-1] = wanted[-1][0], max(wanted[-1][1], start + size)
            else:
                wanted.append((start, start + size))
        if 2 * sum(stop - start for start, stop in wanted) > self.size_bytes:
            wanted = [(0, self.size_bytes)]
        for (start, _), content in zip(
            wanted, at_once(lambda some: self._fetch(some[0], some[1] - some[0]), wanted), strict=True
        ):
            self.add(start, content)

    def read(self, at: int, size: int) -> memoryview:
        if at + size > self.size_bytes:
            raise ValueError(f"it has no bytes {at} to {at + size}")
        found = self._found(at, size)
        return self._fetch(at, size) if found is None else found

    def _found(self, at: int, size: int) -> memoryview | None:
        for start, content in self._known:
            if start <= at and at + size <= start + content.nbytes:
                return content[at - start : at - start + size]
        return None

    def read_into(self, at: int, targets: Sequence[memoryview]) -> None:
        content = self.read(at, sum(target.nbytes for target in targets))
        begin = 0
        for target in targets:
            target[:] = content[begin : begin + target.nbytes]
            begin += target.nbytes

    def close(self) -> None:
        self._known = []
        self._fetch = _nothing


def _nothing(at: int, size: int) -> memoryview:
    raise ValueError(f"bytes {at} to {at + size} are not there any more")


def in_memory(content: Content) -> Source:
    """Read from bytes that are there already."""
    view = memoryview(content)
    found = _Fetched(view.nbytes, _nothing)
    found.add(0, view)
    return found


def _memory(size: int) -> mmap.mmap:
    # Python maps shared by default: slow to touch, and a forked child would write into its parent's array.
    if not hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, size)
    data = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            data.madvise(mmap.MADV_HUGEPAGE)
    return data


def _write_batches(descriptor: int, batches: Iterable[list[memoryview]]) -> None:
    """Write one batch after the other, while the disk takes those before."""
    start = 0
    for batch in batches:
        size = sum(part.nbytes for part in batch)
        written = os.writev(descriptor, batch)
        for part in batch if written < size else ():  # the disk is nearly full, or a signal came
            _write_all(descriptor, part[min(written, part.nbytes) :])
            written -= min(written, part.nbytes)
        _start_writing_back(descriptor, start, size)
        start += size


def _blocks(source: BinaryIO) -> Iterator[list[memoryview]]:
    while block := source.read(_BATCH_BYTES):
        yield [memoryview(block)]


def _batches(parts: Sequence[memoryview]) -> Iterator[list[memoryview]]:
    """Put small parts together, and cut large ones, to what one call to the system writes."""
    batch: list[memoryview] = []
    size = 0
    for part in parts:
        for start in range(0, part.nbytes, _BATCH_BYTES):
            piece = part[start : start + _BATCH_BYTES]
            if size + piece.nbytes > _BATCH_BYTES or len(batch) == _BATCH_PARTS:
                yield batch
                batch, size = [], 0
            batch.append(piece)
            size += piece.nbytes
    if batch:
        yield batch


@functools.cache
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    import ctypes

    with contextlib.suppress(OSError, AttributeError):  # Linux has it
        found = ctypes.CDLL(None).sync_file_range
        found.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
        call: Callable[[int, int, int, int], int] = found
        return call
    return None


def _start_writing_back(descriptor: int, start: int, size: int) -> None:
    """
    Ask the system to begin with what ``fsync`` will wait for; an answer is not needed, for fsync gives it.

    A disk that is idle until then makes it wait: 98 MiB took twice as long, 512 MiB 1.3 times.
    """
    if size >= _BATCH_BYTES // 2 and (call := _sync_file_range()) is not None:
        call(descriptor, start, size, _SYNC_FILE_RANGE_WRITE)


def _write_all(descriptor: int, part: memoryview) -> None:
    written = 0
    while written < part.nbytes:
        # Linux writes at most 2 GiB at once.
        written += os.write(descriptor, part[written : written + (1 << 30)])


def _umask() -> int:
    # Reading it any other way changes it for all threads for a moment.
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("Umask:"):
                    return int(line.split()[1], 8)
    except OSError:
        pass
    return 0o022


_S3_KEYS = {
    "endpoint_url": "endpoint",
    "endpoint": "endpoint",
    "access_key_id": "access_key_id",
    "secret_access_key": "secret_access_key",
    "session_token": "session_token",
    "region": "region",
    "skip_signature": "skip_signature",
    "virtual_hosted_style": "virtual_hosted_style_request",
    "checksum_algorithm": "checksum_algorithm",
}
# Where the client finds an endpoint by itself. A plain http:// one that somebody put there is meant.
_ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_CERTIFICATE_KEYS = ("root_certificate", "allow_invalid_certificates")
_OTHER_KEYS = frozenset(
    {
        "allow_http",
        "timeout",
        "connect_timeout",
        "retry_timeout",
        "max_retries",
        "credential_provider",
        *_CERTIFICATE_KEYS,
    }
)


# The process whose threads serve the client, one set for all buckets.
_client_pid: int | None = None


class _Bucket:
    """Objects in S3 or a server that speaks it."""

    def __init__(self, bucket: str, prefix: str, options: dict[str, Any]) -> None:
        if unknown := sorted(set(options) - set(_S3_KEYS) - _OTHER_KEYS):
            raise ValueError(
                f"unknown options for s3://{bucket}: {unknown}; known: {sorted(set(_S3_KEYS) | _OTHER_KEYS)}"
            )
        self.bucket = bucket
        self.prefix = prefix
        self._options = {key: value for key, value in options.items() if value is not None}
        self._max_retries = int(self._options.get("max_retries", 10))
        self._retry_timeout = float(self._options.get("retry_timeout", 180))
        self._store: Any = None

    @property
    def store(self) -> Any:
        global _client_pid  # noqa: PLW0603
        if _client_pid not in (None, os.getpid()):
            # The client's threads do not survive a fork: a request would wait for ever.
            raise StoreError(
                f"cannot reach s3://{self.bucket}: process {_client_pid} talked to it and then forked this "
                "one; start it with multiprocessing's 'spawn' or 'forkserver', or use the store in the parent"
            )
        if self._store is None:
            self._store = self._connect()
            _client_pid = os.getpid()
        return self._store

    def _connect(self) -> Any:
        from obstore.store import S3Store

        options = self._options
        config: Any = {_S3_KEYS[key]: value for key, value in options.items() if key in _S3_KEYS}
        if config.get("endpoint") and not config.get("region"):
            config["region"] = "us-east-1"
        named = [config.get("endpoint"), *map(os.environ.get, _ENDPOINT_VARIABLES)]
        endpoint = next((str(address) for address in named if address), "")
        if endpoint and not endpoint.startswith(("http://", "https://")):
            raise StoreError(
                f"cannot connect to s3://{self.bucket}: the endpoint must start with http:// or https://, "
                f"got {endpoint.rpartition('@')[2]!r}; correct what names it, or AWS_ENDPOINT_URL"
            )
        allow_http = options.get("allow_http", endpoint.startswith("http://"))
        certificates: Any = {key: options[key] for key in _CERTIFICATE_KEYS if key in options}
        extra: dict[str, Any] = {}
        if "credential_provider" in options:
            extra["credential_provider"] = options["credential_provider"]
        try:
            return S3Store(
                self.bucket,
                prefix=self.prefix or None,
                config=config,
                client_options=certificates
                | {
                    "allow_http": bool(allow_http),
                    "timeout": timedelta(seconds=float(options.get("timeout", 120))),
                    "connect_timeout": timedelta(seconds=float(options.get("connect_timeout", 5))),
                },
                retry_config={
                    "max_retries": self._max_retries,
                    "retry_timeout": timedelta(seconds=self._retry_timeout),
                    "backoff": {
                        "init_backoff": timedelta(milliseconds=100),
                        "max_backoff": timedelta(seconds=5),
                        "base": 3,  # with its jitter about ten seconds in all, for a server that is busy
                    },
                },
                **extra,
            )
        except Exception as exc:  # noqa: BLE001 - every error of the client is translated here
            self._refuse("connect", exc)

    def _retries(self) -> Retries:
        return Retries(self._max_retries, self._retry_timeout)

    def _refuse(self, doing: str, exc: Exception, tries: object = "") -> NoReturn:
        if isinstance(exc, StoreError):
            raise exc
        raise StoreError(f"cannot {doing} in s3://{self.bucket}: {self._explain(exc)}{tries}") from None

    def _explain(self, exc: Exception) -> str:
        from obstore import exceptions

        text = str(exc)
        code = next(iter(re.findall(r"<Code>(\w+)</Code>", text)), "")
        where = self._options.get("endpoint_url") or self._options.get("endpoint")
        at = f" at {_without_credentials(where)}" if where else ""
        if code == "NoSuchBucket" or "NoSuchBucket" in text:
            return f"there is no such bucket{at}; create it, or correct [ml_provider] artifact_root"
        if (
            code
            in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken", "InvalidToken")
            or isinstance(exc, (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError))
            or "403 Forbidden" in text
        ):
            return (
                f"the server{at} refused the credentials ({code or 'access denied'}); "
                "check the connection that [ml_provider] artifact_conn_id names, or else those of this "
                "machine, and their rights to the bucket"
            )
        if re.search(r"body error|response body", text):
            to = at.replace(" at ", " to ")
            return f"the connection{to} broke, or stalled, before the end; check the network and try again"
        if re.search(
            r"error sending request|ConnectError|connect error|Connect\b|dns error|timed out|TimedOut", text
        ):
            todo = "check the endpoint of the connection and the network"
            if "InvalidCertificate(" in text:
                todo = (
                    "its certificate is not trusted; name its CA in the extra field verify of the connection"
                )
            return f"no answer{at or ' from the endpoint'}; {todo}"
        if (status := re.search(r"status code: (5\d\d|4\d\d)", text)) and may_pass(exc):
            return (
                f"the server{at} answered {status[1]}{f' {code}' if code else ''}; try again, and look into "
                "its log if it goes on"
            )
        first = text.split("\n", 1)[0]
        for secret in ("access_key_id", "secret_access_key", "session_token"):
            if value := self._options.get(secret):
                first = first.replace(str(value), "***")
        return f"{first[:300]}{at}"

    def _gone(self, key: str, exc: Exception) -> NoReturn:
        if "NoSuchBucket" in str(exc):
            self._refuse(f"read {key}", exc)
        raise ArtifactNotFoundError(f"s3://{self.bucket}/{self._full(key)} is not in the store") from None

    def _full(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def put(self, key: str, parts: Sequence[memoryview] | Path, *, create_only: bool) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        size = parts.stat().st_size if isinstance(parts, Path) else sum(part.nbytes for part in parts)
        large = size >= _PARTS_FROM_BYTES
        if large and create_only and self.info(key) is not None:
            return False
        mode: Any = "create" if create_only else "overwrite"
        data: Any = parts
        if not isinstance(parts, Path) and not large:
            data = parts[0] if len(parts) == 1 else b"".join(parts)
        tries = self._retries()
        while True:
            try:
                # Large objects are written in parts, which become visible at once at the end. Should another
                # writer finish first, it is replaced: by the same content, for keys of large objects are
                # hashes.
                if large:
                    if not isinstance(parts, Path):
                        data = parts[0] if len(parts) == 1 else _slices(parts)
                    obstore.put(
                        self.store, key, data, use_multipart=True, chunk_size=16 << 20, max_concurrency=4
                    )
                else:
                    obstore.put(self.store, key, data, mode=mode, use_multipart=False)
                return True
            except (AlreadyExistsError, PreconditionError):
                # It may be this one: an earlier attempt came through, and its answer was lost.
                return tries.may_have_repeated and self._is_written(key, data, size)
            except Exception as exc:  # noqa: BLE001 - every error of the client is translated here
                if not tries.again(exc):
                    self._refuse(f"write {key}", exc, tries)
            if large and create_only and self._is_written(key, data, size):
                return True

    def _is_written(self, key: str, data: Any, size: int) -> bool:
        """Tell whether an object is what was to be written. A large one is, if it has the size."""
        if size > _COMPARED_UP_TO_BYTES:
            found = self.info(key)
            return found is not None and found.size_bytes == size
        try:
            return bytes(self.get(key)) == (data.read_bytes() if isinstance(data, Path) else bytes(data))
        except ArtifactNotFoundError:
            return False

    def get(self, key: str, at_most: int | None = None, on_read: OnRead | None = None) -> Content:
        import obstore

        tries = self._retries()
        while True:
            try:
                response = obstore.get(self.store, key)
                size = _within(response.meta["size"], at_most, f"s3://{self.bucket}/{self._full(key)}")
                large = size >= _RESUMED_FROM_BYTES
                data = memoryview(b"" if large else response.bytes())
            except FileNotFoundError as exc:
                self._gone(key, exc)
            except ArtifactCorruptError:
                raise
            except Exception as exc:  # noqa: BLE001 - every error of the client is translated here
                if not tries.again(exc):
                    self._refuse(f"read {key}", exc, tries)
            else:
                break
        if large:
            return self._get_large(key, response, on_read, tries)
        if data.nbytes != size:
            raise ArtifactCorruptError(
                f"s3://{self.bucket}/{self._full(key)} ended after {data.nbytes} of {size} bytes"
            )
        if on_read is not None:
            on_read(data)
        return data

    def _get_large(self, key: str, response: Any, on_read: OnRead | None, tries: Retries) -> Content:
        """Read an object into memory of its own, once; the client would gather it and then copy it."""
        size, told = response.meta["size"], 0
        data = _memory(size)
        view = memoryview(data)

        def take(offset: int, chunk: memoryview) -> None:
            nonlocal told
            end = offset + chunk.nbytes
            if end > size:
                raise ArtifactCorruptError(f"s3://{self.bucket}/{self._full(key)} grew while it was read")
            known = max(0, min(told, end) - offset)
            if view[offset : offset + known] != chunk[:known]:
                raise ArtifactCorruptError(
                    f"s3://{self.bucket}/{self._full(key)} was replaced by other content while it was read"
                )
            view[offset + known : end] = chunk[known:]
            if on_read is not None and end > told:
                on_read(view[told:end])
                told = end

        count = self._stream(key, take, tries, response=response)
        if count != size:
            raise ArtifactCorruptError(
                f"s3://{self.bucket}/{self._full(key)} ended after {count} of {size} bytes"
            )
        return data

    def _stream(
        self,
        key: str,
        take: Callable[[int, memoryview], None],
        tries: Retries,
        at_most: int | None = None,
        response: Any = None,
    ) -> int:
        """
        Read an object from its beginning to its end, and from where it stopped after each fault.

        :param response: The answer to a first request.
        """
        import obstore
        from obstore.exceptions import PreconditionError

        count, moved_on_at, size, e_tag = 0, 0, -1, None
        while count != size:
            try:
                wanted: Any = {"range": {"offset": count}, "if_match": e_tag} if count else {}
                found = response or obstore.get(self.store, key, options=wanted)
                response = None
                size, e_tag = found.meta["size"], found.meta["e_tag"]
                _within(size, at_most, f"s3://{self.bucket}/{self._full(key)}")
                chunks = iter(found.stream(min_chunk_size=4 << 20))
            except FileNotFoundError as exc:
                self._gone(key, exc)
            except ArtifactCorruptError:
                raise
            except PreconditionError:
                count, e_tag = 0, None  # replaced meanwhile: from the beginning
                continue
            except Exception as exc:  # noqa: BLE001 - every error of the client is translated here
                if not tries.again(exc):
                    self._refuse(f"read {key}", exc, tries)
                continue
            while True:
                try:
                    chunk = next(chunks, None)
                except Exception as exc:  # noqa: BLE001 - every error of the client is translated here
                    if "precondition failure" in str(exc):  # the client itself asked for the rest
                        count = 0
                        break
                    if not tries.again(exc):
                        self._refuse(f"read {key}", exc, tries)
                    break
                if chunk is None:
                    return count
                take(count, memoryview(chunk))
                count += len(chunk)
                if count - moved_on_at >= _RESUMED_FROM_BYTES:
                    moved_on_at = count
                    tries.moved_on()
        return count

    def source(self, key: str, at_most: int | None = None, end: int | None = None) -> Source:
        if end is None:
            return in_memory(self.get(key, at_most))
        known = self.info(key)
        if known is None:
            raise ArtifactNotFoundError(f"s3://{self.bucket}/{self._full(key)} is not in the store")
        size_bytes = _within(known.size_bytes, at_most, f"s3://{self.bucket}/{self._full(key)}")
        found = _Fetched(
            size_bytes,
            # A whole object goes on where it broke.
            lambda at, size: memoryview(self.get(key)) if size == size_bytes else self._range(key, at, size),
        )
        if end:
            found.prepare([(max(0, size_bytes - end), min(end, size_bytes))])
        return found

    def _range(self, key: str, at: int, size: int) -> memoryview:
        import obstore

        try:
            content = self._repeated(
                f"read {key}", lambda: obstore.get_range(self.store, key, start=at, length=size)
            )
        except FileNotFoundError as exc:
            self._gone(key, exc)
        data = memoryview(content)
        if data.nbytes != size:
            raise ArtifactCorruptError(
                f"s3://{self.bucket}/{self._full(key)} gave {data.nbytes} bytes in place of {size} from {at}"
            )
        return data

    def fetch(self, key: str, target: BinaryIO, at_most: int | None = None) -> int:
        def take(offset: int, chunk: memoryview) -> None:
            target.seek(offset)
            _write_all(target.fileno(), chunk)

        count = self._stream(key, take, self._retries(), at_most)
        target.truncate(count)
        return count

    def info(self, key: str) -> ObjectInfo | None:
        import obstore

        try:
            found = self._repeated(f"read {key}", lambda: obstore.head(self.store, key))
        except FileNotFoundError as exc:
            if "NoSuchBucket" in str(exc):
                self._refuse(f"read {key}", exc)
            return None
        return ObjectInfo(key, found["size"], found["last_modified"])

    def _repeated(self, doing: str, request: Callable[[], T]) -> T:
        """Make a request that can be made again, until it is answered."""
        tries = self._retries()
        while True:
            try:
                return request()
            except FileNotFoundError:
                raise
            except Exception as exc:  # noqa: BLE001 - every error of the client is translated here
                if not tries.again(exc):
                    self._refuse(doing, exc, tries)

    def delete(self, keys: Sequence[str]) -> None:
        import obstore

        if not keys:
            return
        doing = f"delete {keys[0]}" + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")
        try:
            self._repeated(doing, lambda: obstore.delete(self.store, list(keys)))
        except FileNotFoundError as exc:
            if "NoSuchBucket" in str(exc):
                self._refuse(doing, exc)

    def move(self, key: str, target: str) -> bool:
        if not self.copy(key, target):
            return False
        self.delete([key])
        return True

    def copy(self, key: str, target: str) -> bool:
        import obstore

        found = self.info(key)
        if found is None:
            return False
        try:
            if found.size_bytes <= _COPIES_UP_TO_BYTES:
                self._repeated(f"copy {key} to {target}", lambda: obstore.copy(self.store, key, target))
            else:
                where = Path(tempfile.gettempdir())
                with (
                    scratch.explained(f"copy {key}", where),
                    tempfile.NamedTemporaryFile(buffering=0) as file,
                ):
                    self.fetch(key, cast("BinaryIO", file))
                    self.put(target, Path(file.name), create_only=False)
        except (FileNotFoundError, ArtifactNotFoundError) as exc:
            if "NoSuchBucket" in str(exc):
                self._refuse(f"copy {key} to {target}", exc)
            return False
        return True

    def list(self, prefix: str, after: str | None) -> Iterator[ObjectInfo]:
        import obstore

        doing, tries = f"list {prefix or 'objects'}", self._retries()
        while True:
            try:
                pages = obstore.list(self.store, prefix or None, offset=after, chunk_size=1000)
                for page in pages:
                    for entry in page:
                        after = entry["path"]
                        yield ObjectInfo(entry["path"], entry["size"], entry["last_modified"])
                    tries.moved_on()
                return
            except FileNotFoundError as exc:
                self._refuse(doing, exc)
            except StoreError:
                raise
            except Exception as exc:  # noqa: BLE001 - every error of the client is translated here
                if not tries.again(exc):
                    self._refuse(doing, exc, tries)

    def children(self, prefix: str) -> Iterator[str]:
        import obstore

        try:
            found = self._repeated(f"list {prefix}", lambda: obstore.list_with_delimiter(self.store, prefix))
        except FileNotFoundError as exc:
            self._refuse(f"list {prefix}", exc)
        yield from sorted(path.rsplit("/", 1)[-1] for path in found["common_prefixes"])


def _slices(parts: Sequence[memoryview]) -> Iterator[memoryview]:
    for part in parts:
        for start in range(0, part.nbytes, 16 << 20):
            yield part[start : start + (16 << 20)]


def _without_credentials(url: str) -> str:
    parts = urlsplit(str(url))
    return parts._replace(netloc=parts.netloc.rsplit("@", 1)[-1], query="").geturl()
