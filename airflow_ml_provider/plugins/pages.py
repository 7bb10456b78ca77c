# SPDX-License-Identifier: Apache-2.0
"""
The ML pages of Airflow's UI: their built bundles, and where they are shown.

The bundles hold no data and are served to anybody, as Airflow serves its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

STATIC_PREFIX = "/ml-provider/static"
STATIC_FOLDER = Path(__file__).parent / "static"

# The label is the name under which the UI looks the component up, so the bundles share one component that
# chooses the page. Airflow drops an entry whose url_route another one has.
_LABEL = "ML"
_PAGES = (
    ("nav", "nav.js", "ml"),
    ("dag", "dag.js", "ml-dag"),
    ("dag_run", "dag_run.js", "ml-run"),
    ("task_instance", "task_instance.js", "ml-task"),
)


def react_apps(folder: Path = STATIC_FOLDER) -> list[dict[str, Any]]:
    """Return the entries of the pages whose bundle is there; a source tree may have none built."""
    return [
        {
            "name": _LABEL,
            "bundle_url": f"{STATIC_PREFIX}/{file}",
            "destination": destination,
            "url_route": route,
        }
        for destination, file, route in _PAGES
        if (folder / file).is_file()
    ]


def make_static_app(folder: Path = STATIC_FOLDER) -> Any:
    """Make the app that serves the bundles. Browsers ask each time whether a bundle changed."""
    from starlette.staticfiles import StaticFiles

    files = StaticFiles(directory=folder, check_dir=False)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"cache-control", b"no-cache"),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        await files(scope, receive, with_headers)

    return app
