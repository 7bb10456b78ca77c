# SPDX-License-Identifier: Apache-2.0
"""Write .env from .env.example with a fresh secret in every empty line. Needs Python only."""

from __future__ import annotations

import base64
import os
import re
import secrets
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def fill(template: str) -> str:
    """Return the template with a secret for each ``NAME=`` that has no value."""

    def secret(match: re.Match[str]) -> str:
        name = match[1]
        if name == "FERNET_KEY":
            value = base64.urlsafe_b64encode(os.urandom(32)).decode()
        else:
            value = secrets.token_hex(32 if name.endswith(("_KEY", "_SECRET")) else 16)
        return f"{name}={value}"

    return re.sub(r"^([A-Z][A-Z0-9_]*)=$", secret, template, flags=re.MULTILINE)


def main() -> int:
    """Write the file, readable by its owner alone; leave one that exists alone."""
    target = ROOT / ".env"
    text = fill((ROOT / ".env.example").read_text())
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        print(f"error: {target} exists already; its secrets are in use, so it is left alone", file=sys.stderr)
        return 1
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    print(f"wrote {target}; the admin's password is in it, as ADMIN_PASSWORD")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
