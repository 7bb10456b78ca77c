# SPDX-License-Identifier: Apache-2.0
"""The client against a small real HTTP server that pages, expires tokens and fails as Airflow does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from demo.airflow_api import AirflowApi, log_lines
from demo.errors import ApiError

TOTAL = 250


class FakeAirflow(ThreadingHTTPServer):
    tokens_given = 0
    expired: frozenset[str] = frozenset()
    refusals = 0


class Handler(BaseHTTPRequestHandler):
    server: FakeAirflow

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/auth/token":
            self.server.tokens_given += 1
            self.answer(201, {"access_token": f"token-{self.server.tokens_given}"})
        elif self.headers["Authorization"] in self.server.expired:
            self.answer(401, {"detail": "expired"})
        elif url.path == "/api/v2/dags/~/dagRuns":
            query = {
                name: int(values[0]) for name, values in parse_qs(url.query).items() if values[0].isdigit()
            }
            rows = list(range(TOTAL))[query["offset"] : query["offset"] + query["limit"]]
            self.answer(200, {"dag_runs": rows, "total_entries": TOTAL})
        else:
            self.answer(404, {"detail": "The DAG with ID 'x' was not found"})

    def do_PUT(self) -> None:
        self.server.refusals -= 1
        refused = {"detail": {"reason": "Database error", "message": "Serious error"}}
        self.answer(*((500, refused) if self.server.refusals >= 0 else (200, {"id": 8})))

    def do_POST(self) -> None:
        self.do_PUT()

    def answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[FakeAirflow]:
    with FakeAirflow(("127.0.0.1", 0), Handler) as it:
        threading.Thread(target=it.serve_forever, daemon=True).start()
        yield it
        it.shutdown()


@pytest.fixture
def api(server: FakeAirflow) -> Iterator[AirflowApi]:
    it = AirflowApi(f"http://127.0.0.1:{server.server_address[1]}")
    yield it
    it.close()


def test_all_pages_are_read(api: AirflowApi) -> None:
    assert api.dag_runs() == list(range(TOTAL))  # type: ignore[comparison-overlap]


def test_an_expired_token_is_renewed(api: AirflowApi, server: FakeAirflow) -> None:
    api.dag_runs()
    server.expired = frozenset({"Bearer token-1"})
    assert len(api.dag_runs()) == TOTAL
    assert server.tokens_given == 2


def test_a_server_that_never_accepts_its_token_is_an_error(api: AirflowApi, server: FakeAirflow) -> None:
    server.expired = frozenset({"Bearer token-1", "Bearer token-2"})
    with pytest.raises(ApiError, match="refuses its own token"):
        api.dag_runs()


def test_an_error_of_the_server_names_the_request_and_keeps_its_status(api: AirflowApi) -> None:
    with pytest.raises(ApiError, match=r"GET /api/v2/dags/x.* 404 .*was not found") as caught:
        api.request("GET", "/dags/x")
    assert caught.value.status == 404


def test_a_server_that_is_not_there_is_an_error_with_its_address() -> None:
    with pytest.raises(ApiError, match=r"GET http://127\.0\.0\.1:9/auth/token"):
        AirflowApi("http://127.0.0.1:9").dag_runs()


@pytest.mark.parametrize(
    ("row", "lines"),
    [
        pytest.param("as it is", ["as it is"], id="text"),
        pytest.param({"event": "::group::Log message source details"}, [], id="decoration"),
        pytest.param(
            {"event": "hello", "timestamp": "2026-01-02T03:04:05.678Z", "level": "info"},
            ["03:04:05 INFO hello"],
            id="structured",
        ),
        pytest.param(
            {
                "event": "Task failed",
                "level": "error",
                "error_detail": [
                    {
                        "exc_type": "ValueError",
                        "exc_value": "no flights",
                        "frames": [{"filename": "a.py", "lineno": n, "name": "f"} for n in range(9)],
                    }
                ],
            },
            [
                "ERROR Task failed",
                *(f"    a.py:{n} in f" for n in range(5, 9)),
                "  ValueError: no flights",
            ],
            id="exception",
        ),
    ],
)
def test_a_log_row_is_written_for_a_reader(row: object, lines: list[str]) -> None:
    assert list(log_lines(row)) == lines  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "refusals", "answered"), [("PUT", 5, True), ("PUT", 6, False), ("POST", 1, False)]
)
def test_what_the_database_refused_is_asked_again_where_it_can_be_asked_twice(
    server: FakeAirflow, monkeypatch: pytest.MonkeyPatch, method: str, refusals: int, answered: bool
) -> None:
    monkeypatch.setattr("demo.airflow_api.REFUSED_WAIT", 0.0)
    server.refusals = refusals
    api = AirflowApi(f"http://127.0.0.1:{server.server_port}")

    if answered:
        assert api.request(method, "/backfills/8/cancel") == {"id": 8}
    else:
        with pytest.raises(ApiError, match="Database error") as raised:
            api.request(method, "/backfills/8/cancel")
        assert raised.value.status == 500
    assert server.refusals == (-1 if answered else 0)
