# SPDX-License-Identifier: Apache-2.0
"""
Copy the marked parts of example DAGs into the guides, so that quoted code cannot rot.

A guide asks for a part with a line ``<!-- quote dags/x.py name -->`` before a code block; the part lies
between ``# [START name]`` and ``# [END name]`` in that file. Run ``python docs/quote.py`` after changing
either; a test fails when a guide and its source differ.
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_QUOTE = re.compile(
    r"(<!-- quote (?P<file>\S+) (?P<name>\S+) -->\n```python\n)(?P<code>.*?)(```\n)", re.DOTALL
)


def part(file: str, name: str) -> str:
    """
    Return the marked part of a source file, dedented.

    :raises ValueError: if the file has no such part.
    """
    found = re.search(
        rf"^[ ]*# \[START {re.escape(name)}\]\n(.*?)^[ ]*# \[END {re.escape(name)}\]$",
        (ROOT / file).read_text(),
        re.DOTALL | re.MULTILINE,
    )
    if found is None:
        raise ValueError(f"{file} has no part between '# [START {name}]' and '# [END {name}]'")
    marks = re.compile(r"^[ ]*# \[(START|END) \S+\]\n", re.MULTILINE)  # of parts inside this one
    return textwrap.dedent(marks.sub("", found.group(1))).strip("\n") + "\n"


def refreshed(text: str) -> str:
    """Return a guide's text with each quoted block as its source has it now."""
    return _QUOTE.sub(lambda m: m.group(1) + part(m["file"], m["name"]) + m.group(5), text)


def guides() -> list[Path]:
    """List the pages that may quote."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def main() -> int:
    """Rewrite the guides whose quotations are stale and name them."""
    for guide in guides():
        text = guide.read_text()
        if (fresh := refreshed(text)) != text:
            guide.write_text(fresh)
            print(f"refreshed {guide.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
