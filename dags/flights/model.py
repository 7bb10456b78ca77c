# SPDX-License-Identifier: Apache-2.0
"""The classifier that the example DAGs train."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from flights.features import CATEGORIES, NUMBERS

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


def delay_classifier(*, max_depth: int = 6, max_iter: int = 100) -> Pipeline:
    """
    Return an unfitted classifier of late flights.

    It picks its columns by name, so it can be given whole feature tables. Airlines and airports that it never
    met count as missing. Early stopping is off: the number of trees and so the time are the same every month.
    """
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    columns = make_column_transformer(
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=float("nan")), CATEGORIES),
        ("passthrough", NUMBERS),
    )
    trees = HistGradientBoostingClassifier(
        max_depth=max_depth,
        max_iter=max_iter,
        min_samples_leaf=200,
        l2_regularization=1.0,
        early_stopping=False,
        categorical_features=list(range(len(CATEGORIES))),
        random_state=2013,
    )
    return make_pipeline(columns, trees)


def one_thread() -> AbstractContextManager[Any]:
    """
    Keep the trees from using several threads in a ``with`` block.

    On an idle machine two threads are a little faster. Beside other busy processes, as on any Airflow worker,
    OpenMP's threads spin waiting for each other: on two busy cores we measured 145 seconds in place of 9.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    limits: AbstractContextManager[Any] = threadpool_limits(limits=1)
    return limits
