# SPDX-License-Identifier: Apache-2.0
"""
Two models on the same rows: by slice, and with the doubt that the rows leave.

A metric is a function of what each row adds, weighted. So one pass over the predictions serves the whole, the
slices (weight 1 for the rows of a slice) and the bootstrap (weight = how often a row was drawn).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

#: Metrics that can be measured so, by model type.
CLASSIFIER_METRICS = ("accuracy_score", "log_loss", "roc_auc")
REGRESSOR_METRICS = ("mean_absolute_error", "mean_squared_error", "root_mean_squared_error")
#: What a bootstrapped gain is kept as: its quantiles in steps of half a percent.
QUANTILE_STEPS = 200
# Draws times rows that are weighed at once: 64 MB of them.
_CELLS = 8_000_000

Weighted = Callable[[Any], Any]


def weighted_metrics(
    model_type: str, truth: Any, prediction: Any, probability: Any = None
) -> dict[str, Weighted]:
    """
    Give functions from row weights, shape ``(draws, rows)``, to one value of a metric a draw.

    :param truth: For a classifier with probabilities, 0 and 1.
    :param prediction: What the model predicts, of the kind of ``truth``.
    :param probability: Of class 1, for ``roc_auc`` and ``log_loss``; None where there is none.
    """
    import numpy as np

    truth = np.asarray(truth)
    prediction = np.asarray(prediction)
    if model_type == "regressor":
        error = truth.astype("float64") - prediction.astype("float64")
        squared = _mean(error**2)
        return {
            "mean_absolute_error": _mean(np.abs(error)),
            "mean_squared_error": squared,
            "root_mean_squared_error": lambda weights: np.sqrt(squared(weights)),
        }
    found: dict[str, Weighted] = {"accuracy_score": _mean((truth == prediction).astype("float64"))}
    if probability is not None:
        probability = np.asarray(probability)
        if not np.issubdtype(probability.dtype, np.floating):
            probability = probability.astype("float64")
        # As scikit-learn does: how near to 0 and 1 is told apart depends on the model's own precision.
        tiny = np.finfo(probability.dtype).eps
        likely = np.clip(np.where(truth == 1, probability, 1 - probability), tiny, 1 - tiny)
        likely = likely.astype("float64")
        found["log_loss"] = _mean(-np.log(likely))
        found["roc_auc"] = _roc_auc(truth == 1, probability)
    return found


def _mean(parts: Any) -> Weighted:
    import numpy as np

    def measure(weights: Any) -> Any:
        total = weights.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return (weights @ parts) / total

    return measure


def _roc_auc(positive: Any, score: Any) -> Weighted:
    """
    The chance that a positive row scores above a negative one, ties counting half.

    This is the Mann-Whitney statistic (D. Bamber, 1975, J. Math. Psychol. 12, 387-415), with weights.
    """
    import numpy as np

    order = np.argsort(score, kind="stable")
    ranked = score[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    sign = positive[order]

    def measure(weights: Any) -> Any:
        sorted_weights = weights[:, order]
        up = np.add.reduceat(sorted_weights * sign, starts, axis=1)
        down = np.add.reduceat(sorted_weights * ~sign, starts, axis=1)
        below = np.cumsum(down, axis=1) - down / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            return (up * below).sum(axis=1) / (up.sum(axis=1) * down.sum(axis=1))

    return measure


def by_slice(metrics: Mapping[str, Weighted], groups: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """
    Measure each group of rows.

    :param groups: The group of each row; missing values are a group of their own. Values that read the same
        as text, such as ``1`` and ``"1"``, are one group.
    :returns: For each group, as text: ``rows`` and ``metrics``, without those that its rows leave undefined.
    """
    import numpy as np
    import pandas as pd

    codes, values = pd.factorize(pd.Series(groups), use_na_sentinel=False)
    again, labels = pd.factorize(np.array([str(value) for value in values], dtype=object))
    codes = again[codes]
    found = {}
    for code, label in enumerate(labels):
        weights = (codes == code).astype("float64")[None, :]
        measured = {name: float(measure(weights)[0]) for name, measure in metrics.items()}
        found[label] = {
            "rows": int(np.sum(codes == code)),
            "metrics": {name: value for name, value in measured.items() if math.isfinite(value)},
        }
    return found


def bootstrap_gains(
    model: Mapping[str, Weighted],
    baseline: Mapping[str, Weighted],
    rows: int,
    *,
    draws: int,
    seed: int,
) -> dict[str, list[float]]:
    """
    Say how far the difference of two models on the same rows is to be trusted.

    Rows are drawn with replacement, the same for both models, ``draws`` times; each draw gives the model's
    metric minus the baseline's (the paired bootstrap: B. Efron and R. Tibshirani, 1993, An Introduction to
    the Bootstrap, chapters 8 and 13; for comparing systems, P. Koehn, 2004, EMNLP, 388-395).

    :param model: From :func:`weighted_metrics`.
    :param seed: The same seed and rows give the same numbers.
    :returns: For each metric both have, the difference's quantiles 0, 0.005, ... 1. Draws that leave a metric
        undefined do not count; a metric undefined in more than half of them is left out.
    """
    import numpy as np

    random = np.random.default_rng(seed)
    shared = [name for name in model if name in baseline]
    gains: dict[str, list[Any]] = {name: [] for name in shared}
    at_once = max(1, _CELLS // max(rows, 1))
    for first in range(0, draws, at_once):
        count = min(at_once, draws - first)
        drawn = random.integers(0, rows, size=(count, rows))
        offsets = np.arange(count)[:, None] * rows
        weights = np.bincount((drawn + offsets).ravel(), minlength=count * rows).reshape(count, rows)
        weights = weights.astype("float64")
        for name in shared:
            gains[name].append(model[name](weights) - baseline[name](weights))
    steps = np.linspace(0, 1, QUANTILE_STEPS + 1)
    found = {}
    for name, parts in gains.items():
        values = np.concatenate(parts)
        values = values[np.isfinite(values)]
        if len(values) * 2 > draws:
            found[name] = [float(value) for value in np.quantile(values, steps)]
    return found


def bound(quantiles: Sequence[float], confidence: float, *, larger_is_better: bool) -> float:
    """
    Give the gain that is exceeded with this confidence: one-sided, by the percentile method.

    :param quantiles: Of model minus baseline, from :func:`bootstrap_gains`.
    """
    share = 1 - confidence if larger_is_better else confidence
    place = share * (len(quantiles) - 1)
    low = min(int(place), len(quantiles) - 2)
    value = quantiles[low] + (place - low) * (quantiles[low + 1] - quantiles[low])
    return value if larger_is_better else -value
