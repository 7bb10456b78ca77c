# SPDX-License-Identifier: Apache-2.0
"""Libraries that need care when they are imported inside a task."""

from __future__ import annotations

import warnings
from typing import Any


def import_skops() -> Any:
    """
    Import ``skops.io`` and return it.

    Its import asks every module of the process for the names of a thousand functions, and each of Airflow's
    deprecated names answers with a warning: a thousand lines in the log of a task.

    :raises ImportError: if skops is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import skops.io
    return skops.io
