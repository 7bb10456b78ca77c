# SPDX-License-Identifier: Apache-2.0
"""Loopback ports: those that are free, and those that were asked for."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from demo.errors import PortTakenError

LOOPBACK = "127.0.0.1"


def host_name() -> str:
    """Return the name that components note for this machine; it resolves without a name server."""
    return "localhost"


def free_ports(count: int) -> list[int]:
    """Return that many different ports nobody listens on now."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]


def require_free(port: int, purpose: str) -> int:
    """Return ``port``, or raise PortTakenError naming it and what it was wanted for."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as exc:
            raise PortTakenError(
                f"port {port} of {LOOPBACK} is wanted for {purpose}, but cannot be had ({exc.strerror}); "
                "stop what listens there, give another port, or give none and get a free one"
            ) from exc
    return port
