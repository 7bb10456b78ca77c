# SPDX-License-Identifier: Apache-2.0
"""A server that answers as told: for refusals and outages that a real MLflow will not stage."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Stub:
    """``answers`` maps the end of a path (before ``?``) to a status and a body; anything else is 404."""

    uri: str = ""
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, Any] | None, str | None]] = field(default_factory=list)


@contextmanager
def stub_server(**answers: Any) -> Iterator[Stub]:
    """Serve a :class:`Stub`; its ``requests`` hold method, path, JSON body and Authorization header."""
    stub = Stub(answers=dict(answers))

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            stub.requests.append((self.command, self.path, body, self.headers.get("Authorization")))
            path = self.path.partition("?")[0]
            status, payload = next(
                (answer for end, answer in stub.answers.items() if path.endswith(end)), (404, "not here")
            )
            data = payload.encode() if isinstance(payload, str) else json.dumps(payload).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = _answer  # noqa: N815 - the base class calls these names

        def log_message(self, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    stub.uri = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
