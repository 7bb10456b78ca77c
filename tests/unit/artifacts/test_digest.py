# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys

FORKED = """
import os, signal
from airflow_ml_provider.artifacts.digest import digest_of
large = [memoryview(bytes(5 << 20))]
wanted = digest_of(large)
if (child := os.fork()) == 0:
    signal.alarm(20)
    os._exit(0 if digest_of(large) == wanted else 1)
assert os.waitpid(child, 0)[1] == 0
"""


def test_a_forked_process_hashes_large_content_as_its_parent_does() -> None:
    """The threads that hash do not survive a fork."""
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=60)
