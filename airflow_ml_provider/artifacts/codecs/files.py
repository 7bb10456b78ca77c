# SPDX-License-Identifier: Apache-2.0
"""``file-v1``: a file's bytes as they are; its name and executable bit stand in the signed schema."""

from __future__ import annotations

import stat
from pathlib import Path

from airflow_ml_provider.artifacts.codecs.registry import Encoded, Stored
from airflow_ml_provider.artifacts.preview import short
from airflow_ml_provider.exceptions import ArtifactCorruptError, UnsupportedTypeError

READS_FILES = True


def regular(path: Path) -> Path:
    """
    Return the absolute path of a file or folder that can be stored.

    :raises UnsupportedTypeError: if there is none, or it is a link, a device or a socket.
    """
    try:
        mode = path.lstat().st_mode
    except OSError as exc:
        raise UnsupportedTypeError(
            f"a returned path stands for its content, but {str(path)!r} cannot be read: {exc.strerror}; "
            "return str(path) if the text is the value"
        ) from exc
    if stat.S_ISLNK(mode):
        raise UnsupportedTypeError(
            f"{str(path)!r} is a symbolic link; return path.resolve() to store what it names"
        )
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise UnsupportedTypeError(
            f"{str(path)!r} is neither a file nor a folder, so it has no content to store"
        )
    return path.absolute()


def file_name(name: object) -> str:
    """Return a name that stays in its folder."""
    if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ArtifactCorruptError(f"a file that wants to be named {name!r}")
    return name


def dump(value: Path) -> Encoded:
    path = regular(value)
    found = path.stat()
    name = path.name
    if short(name, 255) != name:
        raise UnsupportedTypeError(f"the file name {name!r} is not text that a database can hold; rename it")
    return Encoded(
        parts=path,
        schema={"file_name": name, "executable": bool(found.st_mode & stat.S_IXUSR)},
        preview=None,
        type="pathlib.Path",
    )


def load(data: Path, info: Stored) -> Path:
    schema = info.schema or {}
    target = data.with_name(file_name(schema.get("file_name")))
    if target != data:
        data.rename(target)
    target.chmod(0o700 if schema.get("executable") else 0o600)
    return target
