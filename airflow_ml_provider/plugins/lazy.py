# SPDX-License-Identifier: Apache-2.0
"""Apps for the API server that cost nothing in the other processes, which load plugins too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class LazyApp:
    """
    An ASGI app that is made at its first request.

    :param make: Makes the app.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._app is None:
            self._app = self._make()
        await self._app(scope, receive, send)
