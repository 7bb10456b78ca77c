# SPDX-License-Identifier: Apache-2.0
"""Local copies of files for as long as the process runs."""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from airflow_ml_provider.exceptions import ArtifactError, StoreError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PREFIX = "airflow-ml-"
# Locked as long as the process lives: its number means nothing in another container that shares the folder.
_LOCK = "in-use"
_lock = threading.Lock()
_folder: Path | None = None
_owner = 0


def folder() -> Path:
    """
    A new empty folder of mode 0700 that is removed when this process ends.

    :raises StoreError: if the disk is full.
    """
    global _folder, _owner  # noqa: PLW0603
    with _lock, explained("make a folder for local copies", Path(tempfile.gettempdir())):
        if _folder is None or _owner != os.getpid() or not _folder.is_dir():
            parent = Path(tempfile.gettempdir())
            _sweep(parent)
            _folder = _locked_folder(parent)
            _owner = os.getpid()
            atexit.register(_remove, _folder, _owner)
        return Path(tempfile.mkdtemp(dir=_folder))


def _locked_folder(parent: Path) -> Path:
    while True:
        made = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent))
        # Open until the process ends, and closed in what it executes.
        descriptor = os.open(made / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # somebody sweeps it already
            os.close(descriptor)
            continue
        except OSError:  # where nobody can lock, nobody sweeps
            return made
        if (made / _LOCK).exists():
            return made
        os.close(descriptor)  # somebody swept it before it was locked


@contextlib.contextmanager
def explained(doing: str, where: Path) -> Iterator[None]:
    """Say of a full disk what was being done where, and what helps."""
    try:
        yield
    except OSError as exc:
        if isinstance(exc, ArtifactError) or exc.errno not in _FULL:
            raise
        raise StoreError(
            f"cannot {doing} in {str(where)!r}: {exc.strerror}; free space there, or let the environment "
            "variable TMPDIR name a larger folder"
        ) from exc


def discard(path: Path) -> None:
    """Remove a file or folder, and the folder that was made for it alone."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.unlink()
    with contextlib.suppress(OSError):  # holds something else
        path.parent.rmdir()


def _remove(path: Path, owner: int) -> None:
    if owner == os.getpid():  # a forked child ends before its parent
        shutil.rmtree(path, ignore_errors=True)


def _sweep(parent: Path) -> None:
    """Remove what killed processes of this user left behind, in whichever container they ran."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(parent):
            if not entry.name.startswith(_PREFIX) or entry.is_symlink():
                continue
            with contextlib.suppress(OSError):  # it is gone, locked, or somebody else's
                if entry.stat().st_uid != os.geteuid():
                    continue
                descriptor = os.open(os.path.join(entry.path, _LOCK), os.O_RDWR)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(entry.path, ignore_errors=True)
                finally:
                    os.close(descriptor)
