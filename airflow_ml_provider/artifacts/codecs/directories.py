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

# What dump() writes: files, folders, and the extended headers of long names.
_KINDS = (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.XHDTYPE)
# A name that stands twice, or below a file, or below a folder that is not there.
_TWICE = (FileExistsError, FileNotFoundError, NotADirectoryError, IsADirectoryError)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        for entry in sorted(found, key=lambda item: os.fsencode(item.name)):
            yield entry
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(Path(entry.path))


def _pack(root: Path, target: Path) -> tuple[list[str], int]:
    """Write the tar; returns the names of the files and the sum of their sizes."""
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
    return names, total


def dump(value: Path) -> Encoded:
    root = regular(value)
    target = scratch.folder() / "directory.tar"
    try:
        with scratch.explained(f"pack the folder {str(root)!r}", target.parent):
            names, total = _pack(root, target)
    except BaseException:
        scratch.discard(target)
        raise
    return Encoded(
        parts=target,
        schema={"directory_name": short(root.name, 255) or "root", "files": len(names), "total_bytes": total},
        preview=fit([short(name) for name in names[:20]]),
        type="pathlib.Path",
        temporary=True,
    )


def load(data: Path, info: Stored) -> Path:
    root = data.parent / "directory" / file_name((info.schema or {}).get("directory_name"))
    try:
        with scratch.explained(f"unpack {info.name!r}", data.parent):
            _unpack(data, root, info)
    except BaseException:
        shutil.rmtree(data.parent / "directory", ignore_errors=True)
        raise
    finally:
        scratch.discard(data)
    return root


def _unpack(data: Path, root: Path, info: Stored) -> None:
    schema = info.schema or {}
    root.mkdir(parents=True, mode=0o700)
    files = total = 0
    try:
        size = data.stat().st_size
        with tarfile.open(data, "r:", tarinfo=_members_within(size)) as archive:
            for member in archive:
                # The extended headers may have changed what the plain one said.
                if not 0 <= member.size <= size or member.issparse():
                    raise ArtifactCorruptError(f"{member.name[:300]!r} claims more bytes than there are")
                _extract(archive, member, root, info.name)
                if member.isreg():
                    files, total = files + 1, total + member.size
    except (tarfile.TarError, ValueError, RecursionError, MemoryError, *_TWICE) as exc:
        if isinstance(exc, ArtifactCorruptError):
            raise
        raise ArtifactCorruptError(f"{info.name!r} is not a folder as this store writes it: {exc}") from exc
    if (files, total) != (schema.get("files", files), schema.get("total_bytes", total)):
        raise ArtifactCorruptError(
            f"{info.name!r} held {schema['files']} files of {schema['total_bytes']:,} bytes when it was "
            f"written, and holds {files} of {total:,}"
        )


def _members_within(size: int) -> type[tarfile.TarInfo]:
    """Return a class of members that refuses one before anything of its announced size is allocated."""

    class Member(tarfile.TarInfo):
        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Member:
            made = super().frombuf(buf, encoding, errors)
            if made.type not in _KINDS or not 0 <= made.size <= size:
                raise ArtifactCorruptError(
                    f"an entry of the kind {made.type!r} and of {made.size} bytes in an archive of {size}"
                )
            return made

    return Member


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, root: Path, name: str) -> None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ArtifactCorruptError(f"{name!r} holds a file that wants to be at {member.name[:300]!r}")
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
        raise ArtifactCorruptError(f"{name!r} holds a link or device at {member.name[:300]!r}")
