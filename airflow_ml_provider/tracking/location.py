# SPDX-License-Identifier: Apache-2.0
"""Where a file of a repository can be looked at in a browser."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote, urlsplit

from airflow_ml_provider.tracking.code import _git, _head

# git@host:group/project.git
_SCP = re.compile(r"(?:[^@/]+@)?(?P<host>[\w.\-]+):(?!//)(?P<path>[^:]+)")


def code_location(path: str | Path | None) -> dict[str, str] | None:
    """
    Say where the code at a path is in its git repository.

    :param path: A file.
    :returns: ``type``, ``url`` (of the file at its commit), ``repoUrl`` (without credentials), ``path``,
        ``version`` (the commit) and ``branch``, as in OpenLineage's facet of that name; None outside a
        repository, or where its remote ``origin`` has no web address.
    """
    place = None if path is None else Path(path).resolve()
    if place is None or not place.is_file() or (head := _head(str(place.parent))) is None:
        return None
    root, commit, branch = head
    web = web_address(_git(root, "config", "--get", "remote.origin.url") or "")
    if web is None or not place.is_relative_to(root):
        return None
    inside = place.relative_to(root).as_posix()
    found = {
        "type": "git",
        "url": f"{web}/blob/{commit}/{quote(inside)}",
        "repoUrl": web,
        "path": inside,
        "version": commit,
    }
    return found if branch == "HEAD" else {**found, "branch": branch}


def web_address(remote: str) -> str | None:
    """
    Return the ``https://`` address of a repository by its remote; no user, password or ``.git`` is in it.

    :returns: None for remotes without one, such as folders.
    """
    parts = urlsplit(remote)
    if parts.scheme in ("http", "https"):
        host, path = parts.netloc.rpartition("@")[2], parts.path
        scheme = parts.scheme
    elif parts.scheme == "ssh":
        host, path, scheme = parts.hostname or "", parts.path, "https"
    elif not parts.scheme and (match := _SCP.fullmatch(remote)):
        host, path, scheme = match["host"], match["path"], "https"
    else:
        return None
    path = path.strip("/").removesuffix(".git")
    return f"{scheme}://{host}/{quote(path)}" if host and path else None
