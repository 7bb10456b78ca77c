# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import warnings
import airflow.sdk.execution_time.task_runner
import sklearn
from airflow_ml_provider.artifacts.libraries import import_skops
said = []
warnings.showwarning = lambda message, *rest: said.append(message)
assert import_skops().__name__ == "skops.io"
assert not said, said[:3]
"""


def test_skops_is_imported_without_a_thousand_warnings():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
