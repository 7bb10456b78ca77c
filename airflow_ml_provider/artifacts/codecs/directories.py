# SPDX-License-Identifier: Apache-2.0
"""
``directory-v1``: a folder as one POSIX tar, in order of names, without owners and times.

So equal folders give equal bytes. Links and devices are refused on the way in and on the way out.
"""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from airflow_ml_provider.artifacts import scratch
from airflow_ml_provider.artifacts.codecs.files import file_name, regular
from airflow_ml_provider.artifacts.codecs.registry import Encoded, Stored
from airflow_ml_provider.artifacts.preview import fit, short
from airflow_ml_provider.exceptions import ArtifactCorruptError, UnsupportedTypeError

READS_FILES = True


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        for entry in sorted(found, key=lambda item: os.fsencode(item.name)):
            yield entry
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(Path(entry.path))


def dump(value: Path) -> Encoded:
    root = regular(value)
    target = scratch.folder() / "directory.tar"
    names: list[str] = []
    total = 0
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        for entry in _entries(root):
            relative = os.path.relpath(entry.path, root)
            found = entry.stat(follow_symlinks=False)
            member = tarfile.TarInfo(relative)
            member.mtime = 0
            if stat.S_ISDIR(found.st_mode):
                member.type = tarfile.DIRTYPE
                member.mode = 0o755
                archive.addfile(member)
            elif stat.S_ISREG(found.st_mode):
                member.mode = 0o755 if found.st_mode & stat.S_IXUSR else 0o644
                with open(entry.path, "rb") as file:
                    member.size = os.fstat(file.fileno()).st_size
                    archive.addfile(member, file)
                names.append(relative)
                total += member.size
            else:
                raise UnsupportedTypeError(
                    f"{entry.path!r} is a link or a device; a stored folder holds files and folders only, "
                    "so copy what the link names"
                )
    return Encoded(
        parts=target,
        schema={"directory_name": short(root.name, 255) or "root", "files": len(names), "total_bytes": total},
        preview=fit([short(name) for name in names[:20]]),
        type="pathlib.Path",
        temporary=True,
    )


def load(data: Path, info: Stored) -> Path:
    root = data.parent / "directory" / file_name((info.schema or {}).get("directory_name"))
    root.mkdir(parents=True, mode=0o700)
    with tarfile.open(data, "r:") as archive:
        for member in archive:
            path = PurePosixPath(member.name)
            if path.is_absolute() or ".." in path.parts or not path.parts:
                raise ArtifactCorruptError(f"{info.name!r} holds a file that wants to be at {member.name!r}")
            target = root / path
            if member.isdir():
                target.mkdir(mode=0o700)
            elif member.isreg():
                source = archive.extractfile(member)
                assert source is not None  # noqa: S101 - a regular file has content
                with source, target.open("xb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
                target.chmod(0o700 if member.mode & stat.S_IXUSR else 0o600)
            else:
                raise ArtifactCorruptError(f"{info.name!r} holds a link or device at {member.name!r}")
    data.unlink()
    return root
