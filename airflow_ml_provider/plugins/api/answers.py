# SPDX-License-Identifier: Apache-2.0
"""What every answer has in common: JSON, headers, errors."""

from __future__ import annotations

import logging
from typing import Any

import anyio
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import JSONResponse

from airflow_ml_provider.artifacts.preview import short
from airflow_ml_provider.exceptions import ArtifactNotFoundError, SettingsError, StoreError

log = logging.getLogger(__name__)

_CODES = {
    401: "not_authenticated",
    403: "forbidden",
    404: "not_found",
    405: "invalid",
    422: "invalid",
    503: "store_unavailable",
}
# Answers are one user's: nothing keeps them, and nothing but a script of this origin reads them.
_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"vary", b"Cookie, Authorization"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
]


# Of the 40 threads that an API server has for all it does: a store that hangs must not hold those that take
# the heartbeats of tasks.
_AT_ONCE = 10
_WAIT_SECONDS = 10.0


class Guard:
    """
    Puts the headers on every answer of an app, answers what nobody expected, and lets in few at a time.

    Starlette's own handler of such errors answers with text and raises them again to Airflow's app.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._places = anyio.CapacityLimiter(_AT_ONCE)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def with_headers(message: Any) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        with anyio.move_on_after(_WAIT_SECONDS) as waited:
            await self._places.acquire()
        if waited.cancelled_caught:
            log.error(
                "%s found no thread in %.0f seconds: is the artifact store slow?",
                scope["path"],
                _WAIT_SECONDS,
            )
            busy = error(503, "Too many requests wait for the artifact store. Try again in a minute.")
            await busy(scope, receive, with_headers)
            return
        try:
            await self._app(scope, receive, with_headers)
        except Exception:
            log.exception("answering %s failed", scope["path"])
            if not started:
                failed = error(500, "Answering failed; the API server's log says why.")
                await failed(scope, receive, with_headers)
        finally:
            self._places.release()


def not_found(what: str) -> HTTPException:
    """Say that something is not there, in the same words whether it is absent or may not be seen."""
    return HTTPException(404, f"There is no {what}, or you may not read it.")


def invalid(why: object) -> HTTPException:
    """Say what is wrong with a parameter."""
    return HTTPException(422, short(str(why), 300))


def error(status: int, detail: str, headers: Any = None) -> JSONResponse:
    """Make the answer of an error."""
    code = _CODES.get(status, "internal")
    return JSONResponse({"detail": detail, "code": code}, status_code=status, headers=headers)


def handle_errors(app: FastAPI) -> None:
    """Turn what endpoints raise into answers that say no more than the user may know."""

    @app.exception_handler(StarletteHTTPException)
    async def on_http(_: Request, exc: StarletteHTTPException) -> JSONResponse:
        detail = exc.detail if isinstance(exc.detail, str) else "The request was refused."
        return error(exc.status_code, detail, exc.headers)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(_: Request, exc: RequestValidationError) -> JSONResponse:
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "the request"
        return error(422, f"{short(where)}: {first['msg']}")

    @app.exception_handler(ArtifactNotFoundError)
    async def on_gone(_: Request, exc: ArtifactNotFoundError) -> JSONResponse:
        # What is missing is for the log: its address may name a DAG that the user may not see.
        log.info("not found: %s", exc)
        return error(404, "It is not there, or you may not read it.")

    @app.exception_handler(StoreError)
    async def on_store(_: Request, exc: StoreError) -> JSONResponse:
        from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook

        log.error("the artifact store did not answer: %s", exc)
        ArtifactStoreHook.forget()  # its keys may have been rotated: the next request reads the connection
        return error(
            503, "The artifact store does not answer; the API server's log says why. Try again in a minute."
        )

    @app.exception_handler(SettingsError)
    async def on_settings(_: Request, exc: SettingsError) -> JSONResponse:
        log.error("the configuration is wrong: %s", exc)
        return error(
            503, "The ML provider's configuration is wrong; `airflow ml doctor` on the API server says how."
        )
