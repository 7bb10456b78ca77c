# SPDX-License-Identifier: Apache-2.0
"""Which commit a file belongs to, and what was changed since."""

from __future__ import annotations

import hashlib
import inspect
import logging
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

_TIMEOUT_SECONDS = 5.0
_DIFF_CHARACTERS = 1_000_000

_log = logging.getLogger(__name__)


def code_state(path: str | Path | None) -> dict[str, str]:
    """
    Say which git commit the code at a path is, as tags.

    :param path: A file or folder.
    :returns: ``git.commit``, ``git.branch``, ``git.path`` (of the file, in the repository) and ``git.dirty``
        (``true`` if tracked files of the repository differ from the commit). Empty outside a repository,
        without git, or if git takes more than 5 seconds.
    """
    if path is None:
        return {}
    place = Path(path)
    folder = place if place.is_dir() else place.parent
    if not folder.is_dir():
        return {}
    head = _head(str(folder))
    if head is None:
        return {}
    root, commit, branch = head
    state = {"git.commit": commit}
    changes = _git(folder, "status", "--porcelain", "-uno")
    if changes is not None:
        state["git.dirty"] = "true" if changes else "false"
    if branch and branch != "HEAD":
        state["git.branch"] = branch
    if place.is_relative_to(root) or place.resolve().is_relative_to(root):
        state["git.path"] = place.resolve().relative_to(root).as_posix()
    return state


def uncommitted_diff(path: str | Path | None) -> str | None:
    """
    Return how the tracked files of a path's repository differ from the commit, as ``git apply`` takes it.

    :returns: None outside a repository and without git, an empty text if nothing differs. A diff of more than
        a million characters is cut, and says so in its first line.
    """
    if path is None:
        return None
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    if not folder.is_dir():
        return None
    found = _git(folder, "diff", "HEAD", "--binary", "--no-ext-diff", "--no-color")
    if found is None or len(found) <= _DIFF_CHARACTERS:
        return f"{found}\n" if found else found
    return f"# Cut: the first {_DIFF_CHARACTERS} of {len(found)} characters.\n{found[:_DIFF_CHARACTERS]}\n"


def function_digest(function: Callable[..., Any]) -> str | None:
    """Return a digest of a function's source; None where Python cannot find it."""
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):
        return None
    return hashlib.sha256(source.encode()).hexdigest()[:32]


def _head(folder: str) -> tuple[Path, str, str] | None:
    found = _git(Path(folder), "rev-parse", "--show-toplevel", "HEAD", "--abbrev-ref", "HEAD")
    lines = (found or "").splitlines()
    return (Path(lines[0]).resolve(), lines[1], lines[2]) if len(lines) == 3 else None


def _git(folder: Path, *arguments: str) -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    try:
        done = subprocess.run(
            [git, "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        _log.debug("git told nothing about %s", folder, exc_info=True)
        return None
    return done.stdout.rstrip("\n")
