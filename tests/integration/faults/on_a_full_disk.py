# SPDX-License-Identifier: Apache-2.0
"""What a process does on a disk of 8 MiB: ``python -m ... <scenario> <the disk> <another folder> <JSON>``."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_ml_provider.artifacts import scratch
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import StoreError
from tests.integration.faults.values import KEY

LARGE = 3 << 20


def values(folder: Path) -> dict[str, Any]:
    """Values of 3 MiB or more."""
    path = folder / "a folder"
    path.mkdir()
    (path / "weights").write_bytes(os.urandom(LARGE))
    rng = np.random.default_rng(0)
    return {
        "bytes": rng.bytes(LARGE),
        "array": rng.random(LARGE // 8),
        "frame": pd.DataFrame(rng.random((LARGE // 16, 2)), columns=["a", "b"]),
        "file": path / "weights",
        "folder": path,
        "tree": [rng.random(LARGE // 8), {b"small"}],
    }


def same(value: Any, back: Any) -> bool:
    if isinstance(value, Path):
        return (
            [same(entry, back / entry.name) for entry in value.iterdir()] == [True]
            if value.is_dir()
            else value.read_bytes() == back.read_bytes()
        )
    if isinstance(value, pd.DataFrame):
        return back.equals(value)
    if isinstance(value, list):
        return np.array_equal(value[0], back[0]) and value[1:] == back[1:]
    return np.array_equal(value, back) if isinstance(value, np.ndarray) else value == back


@contextmanager
def filled(disk: Path, leave: int) -> Iterator[None]:
    """Fill the disk up to so many bytes."""
    filler = disk / "filler"
    status = os.statvfs(disk)
    with filler.open("wb", buffering=0) as file:
        left = status.f_bavail * status.f_frsize - leave
        while left > 0:
            left -= file.write(bytes(min(left, 1 << 16)))
    yield
    filler.unlink()


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def refused(act: Callable[[], Any], *words: str) -> None:
    with pytest.raises(StoreError, match="No space left on device; free space") as caught:
        act()
    for word in words:
        assert word in str(caught.value), str(caught.value)


def a_save(disk: Path, other: Path, options: dict[str, Any]) -> None:
    """The artifact root is on the full disk."""
    root = disk / "root"
    store = ArtifactStore(root.as_uri(), signing_key=KEY)
    old = store.save(b"an older value", "flights")
    for kind, value in values(other).items():
        before = files(root)
        with filled(disk, leave=1 << 20):
            refused(lambda kind=kind, value=value: store.save(value, kind), "cannot write ", str(root))
            assert files(root) == before
            assert not store.versions(kind)
            assert old.load() == b"an older value"
        ref = store.save(value, kind)
        assert same(value, ref.load()), kind
        for path in root.glob("blobs/*/*"):  # make room for the next kind
            if path.stat().st_size > 1 << 20:
                path.unlink()
    # Its content is there, and there is no room for the version.
    with filled(disk, leave=0):
        refused(lambda: store.save(b"an older value", "late"), "write versions/late/")
        assert not store.versions("late")
    assert store.save(b"an older value", "late").load() == b"an older value"
    assert not list((root / ".tmp").iterdir())


def a_read(disk: Path, other: Path, options: dict[str, Any]) -> None:
    """The folder for local copies is on the full disk."""
    tempfile.tempdir = str(disk)
    root = options.pop("root", None) or (other / "root").as_uri()
    store = ArtifactStore(root, signing_key=KEY, options=options)
    wanted = values(other)
    refs = {kind: store.save(wanted[kind], kind) for kind in ("bytes", "file", "folder")}
    folder = scratch.folder().parent
    before = sorted(folder.rglob("*"))

    with filled(disk, leave=1 << 20):
        for ref in refs.values():
            for act in (ref.open, ref.path, lambda ref=ref: store.path(ref, disk / "copy")):
                refused(act, "TMPDIR", "blobs/", str(disk))
        for kind in ("file", "folder"):
            refused(refs[kind].load, "TMPDIR", str(disk))
        refused(lambda: store.save(wanted["folder"], "again"), "TMPDIR", "a folder", str(disk))
        assert sorted(folder.rglob("*")) == before
        assert sorted(path.name for path in disk.iterdir()) == sorted(["filler", folder.name])
    assert not store.versions("again")
    # Room for the archive, and not for what is in it as well.
    with filled(disk, leave=LARGE + (1 << 20)):
        refused(refs["folder"].load, "unpack 'folder'", str(disk))
        assert sorted(folder.rglob("*")) == before
    for kind, ref in refs.items():
        assert same(wanted[kind], ref.load())
        shutil.rmtree(scratch.folder().parent)  # made anew by the next one


if __name__ == "__main__":
    {"a_save": a_save, "a_read": a_read}[sys.argv[1]](
        Path(sys.argv[2]), Path(sys.argv[3]), json.loads(sys.argv[4])
    )
