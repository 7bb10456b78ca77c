# SPDX-License-Identifier: Apache-2.0
"""An HTTP proxy in front of a real S3 server that breaks what a test tells it to, and counts requests."""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

FAULTS = (
    "500",
    "503",
    "reset before",  # the headers came, and the connection is reset
    "reset within",  # half of the request's body came
    "half sent",  # half of the request's body came to the server
    "lost answer",  # the server did the work, and the connection is reset before the answer
    "500 after",  # the server did the work, and the answer says that it did not
    "truncated",  # the connection is reset after half of the answer's body
    "stalled",  # no answer, ever
    "stalled within",  # half of the answer's body, and no more
)
SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code>'
    b"<Message>Please reduce your request rate.</Message></Error>"
)
INTERNAL = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>InternalError</Code><Message>Oh.</Message></Error>'
)


@dataclass(frozen=True)
class Request:
    """What a client asked for: ``put blobs``, ``get versions``, ``list versions``, ``part blobs``, ..."""

    method: str
    path: str
    headers: dict[str, str]

    @property
    def operation(self) -> str:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query, keep_blank_values=True)
        segments = unquote(query["prefix"][0] if "prefix" in query else parts.path).split("/")
        known = ("blobs", "versions", "trash", "records", "cache", "heads")
        room = next((segment for segment in segments if segment in known), "other")
        if "list-type" in query:
            verb = "list"
        elif "delete" in query:
            return "delete"  # the keys are in the body
        elif "uploads" in query:
            verb = "start"
        elif "partNumber" in query:
            verb = "part"
        elif "uploadId" in query:
            verb = {"POST": "complete", "DELETE": "abort"}.get(self.method, "upload")
        elif "x-amz-copy-source" in self.headers:
            verb = "copy"
        else:
            verb = self.method.lower()
        return f"{verb} {room}"


@dataclass
class FaultProxy:
    """
    Where clients connect to, what to break, and what was asked for.

    :param times: How many requests of the operation are broken before the next one passes.
    """

    endpoint_url: str
    seen: list[Request] = field(default_factory=list)
    broken: int = 0
    _operation: str = ""
    _fault: str = ""
    _times: int = 0
    _hooks: dict[str, Callable[[Request], None]] = field(default_factory=dict)
    _countdown: tuple[int, Callable[[Request], None], str] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _gate: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._gate.set()

    def inject(self, operation: str, fault: str, times: int) -> None:
        assert fault in FAULTS
        with self._lock:
            self._operation, self._fault, self._times, self.broken = operation, fault, times, 0

    def heal(self) -> None:
        with self._lock:
            self._times = 0
            self._hooks.clear()
            self._countdown = None

    def before(self, operation: str, act: Callable[[Request], None]) -> None:
        """Run ``act`` once, when the next request of an operation has come and not gone on."""
        self._hooks[operation] = act

    def at(self, count: int, act: Callable[[Request], None], fault: str = "") -> None:
        """Run ``act`` when so many requests have come, and break that one."""
        assert not fault or fault in FAULTS
        with self._lock:
            self._countdown = (count, act, fault)

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Let no request pass meanwhile."""
        self._gate.clear()
        try:
            yield
        finally:
            self._gate.set()

    def counts(self) -> Counter[str]:
        return Counter(request.operation for request in self.seen)

    def forget(self) -> None:
        with self._lock:
            self.seen.clear()

    def _take(self, request: Request) -> tuple[str, Callable[[Request], None] | None]:
        self._gate.wait(60)
        with self._lock:
            self.seen.append(request)
            if self._countdown is not None:
                count, act, fault = self._countdown
                if count == 1:
                    self._countdown = None
                    return fault, act
                self._countdown = (count - 1, act, fault)
            hook = self._hooks.pop(request.operation, None)
            if self._times > 0 and request.operation == self._operation:
                self._times -= 1
                self.broken += 1
                return self._fault, hook
        return "", hook


@contextlib.contextmanager
def in_front_of(upstream_url: str) -> Iterator[FaultProxy]:
    """Listen on a free loopback port and pass requests on to ``upstream_url``."""
    target = urlsplit(upstream_url)
    assert target.hostname
    assert target.port
    upstream = (target.hostname, target.port)
    stopping = threading.Event()
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        proxy = FaultProxy(f"http://127.0.0.1:{listener.getsockname()[1]}")
        accepting = threading.Thread(target=_accept, args=(listener, upstream, proxy, stopping), daemon=True)
        accepting.start()
        try:
            yield proxy
        finally:
            stopping.set()
            accepting.join(10)


def _accept(
    listener: socket.socket, upstream: tuple[str, int], proxy: FaultProxy, stopping: threading.Event
) -> None:
    listener.settimeout(0.1)
    while not stopping.is_set():
        with contextlib.suppress(TimeoutError):
            client, _ = listener.accept()
            client.settimeout(None)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_serve, args=(client, upstream, proxy, stopping), daemon=True).start()


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _serve(
    client: socket.socket, upstream: tuple[str, int], proxy: FaultProxy, stopping: threading.Event
) -> None:
    server = http.client.HTTPConnection(*upstream, timeout=60)
    with client, contextlib.closing(server), client.makefile("rb") as incoming, contextlib.suppress(OSError):
        while not stopping.is_set():
            first = incoming.readline()
            if not first:
                return
            method, path, _ = first.decode("latin-1").split(" ", 2)
            headers = dict[str, str]()
            while (line := incoming.readline()) not in (b"\r\n", b""):
                name, _, text = line.decode("latin-1").partition(":")
                headers[name.strip().lower()] = text.strip()
            request = Request(method, path, headers)
            fault, hook = proxy._take(request)
            if hook is not None:
                hook(request)
            if not _answer(client, incoming, server, request, fault, stopping):
                return


def _answer(  # noqa: PLR0911 - one for each fault
    client: socket.socket,
    incoming: object,
    server: http.client.HTTPConnection,
    request: Request,
    fault: str,
    stopping: threading.Event,
) -> bool:
    """Pass one request on and its answer back; False if the connection is not to be used again."""
    length = int(request.headers.get("content-length", 0))
    read: Callable[[int], bytes] = incoming.read  # type: ignore[attr-defined]
    if fault == "reset before":
        _reset(client)
        return False
    if fault == "reset within":
        read(length // 2)
        _reset(client)
        return False
    body = read(length)
    if fault in ("500", "503"):
        _send(client, int(fault), SLOW_DOWN if fault == "503" else INTERNAL)
        return True
    if fault == "stalled":
        _stall(client, stopping)
        return False
    server.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
    for name, text in request.headers.items():
        server.putheader(name, text)
    if fault == "half sent":
        server.endheaders(body[: length // 2])
        _reset(client)
        return False
    server.endheaders(body)
    response = server.getresponse()
    data = response.read()
    if fault == "lost answer":
        _reset(client)
        return False
    if fault == "500 after":
        _send(client, 500, INTERNAL)
        return True
    length = len(data) if request.method != "HEAD" else int(response.headers.get("Content-Length", 0))
    lines = [f"HTTP/1.1 {response.status} {response.reason}"]
    lines += [
        f"{name}: {text}"
        for name, text in response.headers.items()
        if name.lower() not in ("content-length", "transfer-encoding", "connection")
    ]
    lines += [f"Content-Length: {length}", "", ""]
    head = "\r\n".join(lines).encode("latin-1")
    if fault in ("truncated", "stalled within"):
        client.sendall(head + data[: len(data) // 2])
        if fault == "truncated":
            # An orderly end, so that what was sent arrives: a reset could overtake it.
            client.shutdown(socket.SHUT_WR)
        else:
            _stall(client, stopping)
        return False
    client.sendall(head)
    client.sendall(data)
    return True


def _stall(client: socket.socket, stopping: threading.Event) -> None:
    """Say nothing until the client gives up."""
    while not stopping.is_set():
        readable, _, _ = select.select([client], [], [], 0.1)
        if readable and not client.recv(1 << 16):
            return


def _send(client: socket.socket, status: int, body: bytes) -> None:
    reason = http.client.responses[status]
    head = (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    client.sendall(head.encode() + body)
