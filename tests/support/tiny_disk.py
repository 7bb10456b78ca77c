# SPDX-License-Identifier: Apache-2.0
"""A disk of a few MiB, for a process that runs on it."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

# As root of its own user namespace anybody may mount; as root of the machine no such namespace is needed.
_WAYS = (["unshare", "--mount", "--map-root-user"], ["unshare", "--mount"])


@functools.cache
def way() -> list[str] | None:
    """Return the command that mounts here; None if this machine lets nobody mount."""
    for command in _WAYS:
        try:
            subprocess.run(
                [*command, "mount", "-t", "tmpfs", "-o", "size=64k", "tiny", "/mnt"],
                check=True,
                capture_output=True,
                timeout=20,
            )
        except (OSError, subprocess.SubprocessError):
            continue
        return command
    return None


def run_on(folder: Path, size_bytes: int, command: Sequence[str], **environment: str) -> str:
    """Run a command to which ``folder`` is a disk of so many bytes, and return what it prints."""
    mounting = way()
    assert mounting is not None
    script = 'mount -t tmpfs -o "size=$1" tiny "$2" && shift 2 && exec "$@"'
    done = subprocess.run(
        [*mounting, "sh", "-c", script, "sh", str(size_bytes), str(folder), *command],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
