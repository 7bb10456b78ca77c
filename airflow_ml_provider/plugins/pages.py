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

# The label is the name under which the UI keeps the component it loaded, so all entries are one bundle, whose
# component chooses the page. Airflow drops an entry whose url_route another one has.
_LABEL = "ML"
_BUNDLE = "ml.js"
_PAGES = (("nav", "ml"), ("dag", "ml-dag"), ("dag_run", "ml-run"), ("task_instance", "ml-task"))


def react_apps(folder: Path = STATIC_FOLDER) -> list[dict[str, Any]]:
    """Return the entries of the pages; none if the bundle is not built."""
    if not (folder / _BUNDLE).is_file():
        return []
    # Without a leading slash they follow a path in [api] base_url.
    prefix = STATIC_PREFIX.lstrip("/")
    return [
        {
            "name": _LABEL,
            "bundle_url": f"{prefix}/{_BUNDLE}",
            "destination": destination,
            "url_route": route,
            "icon": f"{prefix}/ml.svg",
            "nav_top_level": True,
        }
        for destination, route in _PAGES
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
