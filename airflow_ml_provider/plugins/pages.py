# SPDX-License-Identifier: Apache-2.0
"""
The ML pages of Airflow's UI: their built bundles, and where they are shown.

The bundles hold no data and are served to anybody, as Airflow serves its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow_ml_provider import __version__

STATIC_PREFIX = "/ml-provider/static"
STATIC_FOLDER = Path(__file__).parent / "static"

# The UI keeps one component for a label, so all entries share a bundle whose component chooses the page by
# what it is given. Airflow drops an entry whose url_route another one has.
_LABEL = "ML"
_BUNDLE = "ml.js"
_PAGES = (("nav", "ml"), ("dag", "ml-dag"), ("dag_run", "ml-run"), ("task_instance", "ml-task"))


def react_apps(folder: Path = STATIC_FOLDER) -> list[dict[str, Any]]:
    """Return the entries of the pages, if their bundle is there; a source tree may have none built."""
    if not (folder / _BUNDLE).is_file():
        return []
    # Relative, so that an Airflow below a path finds it too; another release is another address.
    bundle = f"{STATIC_PREFIX.lstrip('/')}/{_BUNDLE}?v={__version__}"
    return [
        {
            "name": _LABEL,
            "bundle_url": bundle,
            "destination": destination,
            "url_route": route,
            **_icons(folder),
            **({"nav_top_level": True} if destination == "nav" else {}),
        }
        for destination, route in _PAGES
    ]


def _icons(folder: Path) -> dict[str, str]:
    named = {"icon": "ml.svg", "icon_dark_mode": "ml-dark.svg"}
    return {
        option: f"{STATIC_PREFIX.lstrip('/')}/{file}"
        for option, file in named.items()
        if (folder / file).is_file()
    }


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
