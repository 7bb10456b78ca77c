# SPDX-License-Identifier: Apache-2.0
"""
Where a challenger is worse than the champion by more than noise.

Plain Python on what an evaluation returned, as ``gates.py``. A metric counts if the evaluation measured it of
both models and it is known whether larger is better. It is worse by more than noise

- on all rows, where the evaluation drew samples (``bootstrap_draws``): if its gain is below zero with
  ``confidence``, one-sided, by the paired bootstrap;
- otherwise, and in slices: if the loss is more than ``|champion's value| / sqrt(rows)``. That is a rule of
  thumb for what the choice of the rows alone does; it needs no more than what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_ml_provider.tracking.gates import MetricGate, known_direction
from airflow_ml_provider.tracking.paired import bound

#: Numbers of rows rather than rates; accuracy, precision and recall say the same of any number of rows.
COUNTS = frozenset(
    {"example_count", "false_negatives", "false_positives", "true_negatives", "true_positives"}
)
#: Slices of fewer rows are not judged, unless a gate by that column says how many.
LEAST_SLICE_ROWS = 30
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Regression:
    """
    One metric, of all rows or of a slice, by which the champion is better.

    :param value: The challenger's; None if it has none and the champion does.
    """

    metric: str
    value: float | None
    baseline: float
    reason: str
    slice: str | None = None


def directions(gates: Sequence[MetricGate] = ()) -> dict[str, bool]:
    """Say of the metrics that gates name whether larger is better, where they do."""
    return {gate.metric: gate.larger_is_better for gate in gates if gate.larger_is_better is not None}


def gain(value: float, baseline: float, *, larger_is_better: bool) -> float:
    """Give by how much a value is better; negative where it is worse."""
    return value - baseline if larger_is_better else baseline - value


def judged(metric: str, known: Mapping[str, bool]) -> bool | None:
    """Whether a larger value is better; None for a metric that says nothing about regressions."""
    if metric in COUNTS:
        return None
    return known[metric] if metric in known else known_direction(metric)


def regressions(
    evaluation: Mapping[str, Any],
    gates: Sequence[MetricGate] = (),
    *,
    confidence: float = CONFIDENCE,
) -> list[Regression]:
    """
    Find the metrics and slices by which the challenger is worse than the champion by more than noise.

    :param evaluation: What an evaluation with a baseline returned. Without ``baseline_metrics`` there is
        nothing to compare and so no regression.
    :param gates: They say the direction of metrics that MLflow does not know, and from how many rows slices
        count.
    """
    baseline = evaluation.get("baseline_metrics")
    if baseline is None:
        return []
    known = directions(gates)
    found = list(
        _worse(
            evaluation["metrics"],
            baseline,
            known,
            rows=int(evaluation.get("rows") or 0),
            gains=evaluation.get("gains") or {},
            confidence=confidence,
        )
    )
    least = {gate.by: gate.min_rows for gate in gates if gate.by is not None and gate.min_rows > 1}
    for column, parts in sorted((evaluation.get("slices") or {}).items()):
        for name, part in sorted(parts.items()):
            if part["rows"] >= least.get(column, LEAST_SLICE_ROWS):
                label = f"{column}={name}"
                found += _worse(
                    part["metrics"], part.get("baseline_metrics") or {}, known, rows=part["rows"], label=label
                )
    return found


def _worse(
    metrics: Mapping[str, float],
    baseline: Mapping[str, float],
    known: Mapping[str, bool],
    *,
    rows: int,
    gains: Mapping[str, Sequence[float]] | None = None,
    confidence: float = CONFIDENCE,
    label: str | None = None,
) -> Iterator[Regression]:
    where = f"{label}: " if label else ""
    for metric, before in sorted(baseline.items()):
        larger = judged(metric, known)
        if larger is None or not math.isfinite(before):
            continue
        value = metrics.get(metric)
        if value is None or not math.isfinite(value):
            if label is None:  # a slice's rows can leave it undefined
                reason = f"{metric} is {before:.6g} of the champion and was not measured of the challenger"
                yield Regression(metric, None, before, reason)
            continue
        loss = -gain(value, before, larger_is_better=larger)
        shown = f"{where}{metric} {value:.6g} is worse than the champion's {before:.6g}"
        if gains and metric in gains:
            most = bound(gains[metric], 1 - confidence, larger_is_better=larger)
            if loss > 0 and most < 0:
                reason = f"{shown}: by {-most:.6g} or more with {confidence:.4g} confidence"
                yield Regression(metric, value, before, reason, label)
            continue
        noise = abs(before) / math.sqrt(max(rows, 1))
        if loss > noise:
            reason = f"{shown} by {loss:.6g}, more than the {noise:.6g} that {rows} rows leave to chance"
            yield Regression(metric, value, before, reason, label)
