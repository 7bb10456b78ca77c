# SPDX-License-Identifier: Apache-2.0
"""
Who gets the alias: conditions on the metrics of a challenger and of the baseline.

Plain Python. Nothing here talks to MLflow or Airflow, so every decision is a function of its arguments.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

from airflow_ml_provider.exceptions import GateMetricError, NoBaselineError
from airflow_ml_provider.tracking.paired import bound

#: Metrics that MLflow's evaluators report, by the direction that is better.
LARGER_IS_BETTER = frozenset(
    {
        "accuracy",
        "accuracy_score",
        "exact_match",
        "f1_score",
        "ndcg",
        "precision_recall_auc",
        "precision_score",
        "r2_score",
        "recall_score",
        "roc_auc",
        "rouge1",
        "rouge2",
        "rougeL",
        "rougeLsum",
        "score",
        "true_negatives",
        "true_positives",
    }
)
SMALLER_IS_BETTER = frozenset(
    {
        "false_negatives",
        "false_positives",
        "latency",
        "log_loss",
        "max_error",
        "mean_absolute_error",
        "mean_absolute_percentage_error",
        "mean_squared_error",
        "root_mean_squared_error",
        "toxicity",
    }
)


@dataclass(frozen=True)
class MetricGate:
    """
    Conditions that one metric must meet before an alias moves; all of those given must hold.

    Wrong arguments are refused when the gate is built, which for a DAG is when its file is parsed.

    :param metric: Name of the metric as the evaluation reports it, for example ``"roc_auc"``.
    :param at_least: The metric must be this or more, in its own unit.
    :param at_most: The metric must be this or less, in its own unit.
    :param gain_over_baseline: The challenger must be better than the baseline by this or more, in the
        metric's own unit. ``0.0`` lets an equal challenger pass, a negative value tolerates a small loss.
    :param larger_is_better: The direction of "better" for ``gain_over_baseline``. Known for the metrics of
        MLflow's evaluators, to be given for any other.
    :param by: A column: the conditions must hold in each of its slices. The evaluation must have been made
        with ``slices=[column]``.
    :param min_rows: Slices of fewer rows are not judged, and the reasons say so; if all are too small, the
        gate does not open.
    :param confidence: How sure the gain must be, e.g. 0.95: a one-sided bound, by bootstrap on paired rows.
        The evaluation must have been made with ``bootstrap_draws``.
    :raises ValueError: if no condition is given, a number is not finite, the two limits exclude each
        other, or the direction of an unknown metric is missing.
    """

    metric: str
    _: KW_ONLY
    at_least: float | None = None
    at_most: float | None = None
    gain_over_baseline: float | None = None
    larger_is_better: bool | None = None
    by: str | None = None
    min_rows: int = 1
    confidence: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.metric, str):
            raise TypeError(f"metric must be the name of a metric, got {self.metric!r}")
        if not self.metric or self.metric != self.metric.strip():
            raise ValueError(f"metric must be a name without surrounding blanks, got {self.metric!r}")
        limits = {
            label: getattr(self, label)
            for label in ("at_least", "at_most", "gain_over_baseline")
            if getattr(self, label) is not None
        }
        for label, value in limits.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{label} of the gate on {self.metric!r} must be a number, got {value!r}")
            if not math.isfinite(value):
                raise ValueError(f"{label} of the gate on {self.metric!r} must be finite, got {value!r}")
        if not limits:
            raise ValueError(
                f"the gate on {self.metric!r} has no condition; give at_least, at_most or gain_over_baseline"
            )
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(
                f"the gate on {self.metric!r} can never open: at_least {self.at_least!r} is above "
                f"at_most {self.at_most!r}"
            )
        if self.larger_is_better is not None and not isinstance(self.larger_is_better, bool):
            raise TypeError(
                f"larger_is_better of the gate on {self.metric!r} must be True or False, "
                f"got {self.larger_is_better!r}"
            )
        self._check_slices_and_confidence()
        if self.gain_over_baseline is not None and self.larger_is_better is None:
            direction = known_direction(self.metric)
            if direction is None:
                raise ValueError(
                    f"it is not known whether a larger {self.metric!r} is better, so gain_over_baseline "
                    f"needs larger_is_better=True or False; known metrics: "
                    f"{', '.join(sorted(LARGER_IS_BETTER | SMALLER_IS_BETTER))}"
                )
            object.__setattr__(self, "larger_is_better", direction)

    def _check_slices_and_confidence(self) -> None:
        if self.by is not None and (not isinstance(self.by, str) or not self.by):
            raise TypeError(f"by of the gate on {self.metric!r} must name a column, got {self.by!r}")
        if isinstance(self.min_rows, bool) or not isinstance(self.min_rows, int) or self.min_rows < 1:
            raise ValueError(
                f"min_rows of the gate on {self.metric!r} must be rows from 1, got {self.min_rows!r}"
            )
        if self.min_rows > 1 and self.by is None:
            raise ValueError(
                f"min_rows of the gate on {self.metric!r} is about slices; give by='<column>' too"
            )
        if self.confidence is None:
            return
        if isinstance(self.confidence, bool) or not isinstance(self.confidence, int | float):
            raise TypeError(
                f"confidence of the gate on {self.metric!r} must be a number, got {self.confidence!r}"
            )
        if not 0.5 <= self.confidence < 1:
            raise ValueError(
                f"confidence of the gate on {self.metric!r} must be from 0.5 to below 1, "
                f"got {self.confidence!r}"
            )
        if self.gain_over_baseline is None or self.by is not None:
            raise ValueError(
                f"confidence of the gate on {self.metric!r} is about gain_over_baseline on all rows; "
                "give that, and slices in a gate of their own"
            )

    @property
    def needs_baseline(self) -> bool:
        """Whether the gate compares with a baseline."""
        return self.gain_over_baseline is not None


@dataclass(frozen=True)
class GateResult:
    """What one condition of one gate said."""

    metric: str
    condition: str
    passed: bool
    value: float | None
    baseline: float | None
    reason: str
    slice: str | None = None


@dataclass(frozen=True)
class Decision:
    """Whether the alias moves, and a readable sentence for every condition that was judged."""

    promoted: bool
    reasons: list[str]
    results: list[GateResult]


def known_direction(metric: str) -> bool | None:
    """Whether a larger value of one of MLflow's metrics is better; None for a metric of your own."""
    # Retrieval metrics carry their k (``ndcg_at_3``) and some a version (``toxicity/v1``).
    plain = metric.partition("/")[0].partition("_at_")[0]
    if metric in LARGER_IS_BETTER or plain in LARGER_IS_BETTER | {"precision", "recall"}:
        return True
    if metric in SMALLER_IS_BETTER or plain in SMALLER_IS_BETTER:
        return False
    return None


def decide(
    gates: Sequence[MetricGate],
    metrics: Mapping[str, float],
    baseline_metrics: Mapping[str, float] | None,
    *,
    bootstrap: bool = False,
    slices: Mapping[str, Mapping[str, Any]] | None = None,
    gains: Mapping[str, Sequence[float]] | None = None,
) -> Decision:
    """
    Judge a challenger's metrics by every gate.

    :param gates: All of them must pass. No gate at all promotes, and says so.
    :param metrics: The challenger's metrics.
    :param baseline_metrics: The baseline's on the same rows; None where there is no baseline yet.
    :param bootstrap: Let gates that compare with a baseline pass where there is none yet.
    :param slices: For each column, for each of its values: ``rows``, ``metrics`` and ``baseline_metrics``.
    :param gains: For each metric, the quantiles of its bootstrapped gain, from
        :func:`airflow_ml_provider.tracking.paired.bootstrap_gains`.
    :raises GateMetricError: if a gate names a metric, or slices, that were not measured.
    :raises NoBaselineError: if a gate compares with a baseline, there is none, and ``bootstrap`` is off.
    """
    results: list[GateResult] = []
    for gate in gates:
        if gate.by is not None:
            results += _judge_slices(gate, gate.by, slices or {}, baseline_metrics, bootstrap=bootstrap)
            continue
        results += _judge(gate, metrics=metrics, baseline_metrics=baseline_metrics, bootstrap=bootstrap)
        if gate.confidence is not None and baseline_metrics is not None:
            results.append(_judge_confidence(gate, gate.confidence, metrics, gains or {}))
    reasons = [result.reason for result in results] or ["no gate was given, so nothing was compared"]
    return Decision(promoted=all(result.passed for result in results), reasons=reasons, results=results)


def _judge_slices(
    gate: MetricGate,
    by: str,
    slices: Mapping[str, Mapping[str, Any]],
    baseline_metrics: Mapping[str, float] | None,
    *,
    bootstrap: bool,
) -> Iterable[GateResult]:
    if by not in slices:
        raise GateMetricError(
            f"the gate on {gate.metric!r} asks for slices by {by!r}, but the evaluation was made with slices "
            f"by: {', '.join(sorted(slices)) or 'nothing'}; give the evaluation slices=[{by!r}]"
        )
    judged = False
    for value, part in sorted(slices[by].items()):
        label = f"{by}={value}"
        metrics, compared = part["metrics"], part.get("baseline_metrics")
        known = gate.metric in metrics
        if known and gate.needs_baseline and baseline_metrics is not None:
            known = gate.metric in (compared or {})
        if part["rows"] < gate.min_rows or not known:
            why = (
                f"has {part['rows']} rows, fewer than {gate.min_rows}"
                if part["rows"] < gate.min_rows
                else f"has {part['rows']} rows that leave {gate.metric} undefined"
            )
            reason = f"{label}: {why}, and is not judged"
            yield GateResult(gate.metric, "min_rows", True, None, None, reason, label)
            continue
        judged = True
        for result in _judge(
            gate,
            metrics=metrics,
            baseline_metrics=None if baseline_metrics is None else compared,
            bootstrap=bootstrap,
        ):
            yield replace(result, reason=f"{label}: {result.reason}", slice=label)
    if not judged:
        reason = f"no slice by {by} has {gate.min_rows} rows and a {gate.metric}, so none could be judged"
        yield GateResult(gate.metric, "min_rows", False, None, None, reason)


def _judge_confidence(
    gate: MetricGate,
    confidence: float,
    metrics: Mapping[str, float],
    gains: Mapping[str, Sequence[float]],
) -> GateResult:
    if gate.metric not in gains:
        raise GateMetricError(
            f"the gate on {gate.metric!r} asks for confidence, but the evaluation drew no samples for it, "
            f"only for: {', '.join(sorted(gains)) or 'nothing'}; give the evaluation bootstrap_draws=1000"
        )
    least, wanted = (
        bound(gains[gate.metric], confidence, larger_is_better=bool(gate.larger_is_better)),
        float(gate.gain_over_baseline or 0.0),
    )
    passed = _reaches(least, wanted, scale=abs(float(metrics[gate.metric])))
    reason = (
        f"{gate.metric} gains at least {_number(least)} with {confidence:.4g} confidence, "
        f"{'which is' if passed else 'below'} {'at least ' if passed else ''}{_number(wanted)}"
    )
    return GateResult(gate.metric, "confidence", passed, float(metrics[gate.metric]), None, reason)


def _judge(
    gate: MetricGate,
    *,
    metrics: Mapping[str, float],
    baseline_metrics: Mapping[str, float] | None,
    bootstrap: bool,
) -> Iterable[GateResult]:
    value = _measured(gate.metric, metrics, whose="the evaluation")
    shown = f"{gate.metric} {_number(value)}"
    for condition, limit in (("at_least", gate.at_least), ("at_most", gate.at_most)):
        if limit is None:
            continue
        if math.isnan(value):
            passed, verdict = False, "is not a number and so meets no condition"
        elif condition == "at_least":
            passed = value >= limit
            verdict = f"is {'at least' if passed else 'below'} {_number(limit)}"
        else:
            passed = value <= limit
            verdict = f"is {'at most' if passed else 'above'} {_number(limit)}"
        yield GateResult(gate.metric, condition, passed, value, None, f"{shown} {verdict}")
    if gate.gain_over_baseline is not None:
        yield _compare(gate, gate.gain_over_baseline, value, baseline_metrics, bootstrap=bootstrap)


def _compare(
    gate: MetricGate,
    min_gain: float,
    value: float,
    baseline_metrics: Mapping[str, float] | None,
    *,
    bootstrap: bool,
) -> GateResult:
    name = "gain_over_baseline"
    shown = f"{gate.metric} {_number(value)}"
    if math.isnan(value):
        reason = f"{shown} is not a number and so is no gain over a baseline"
        return GateResult(gate.metric, name, False, value, None, reason)
    if baseline_metrics is None:
        if not bootstrap:
            raise NoBaselineError(
                f"the gate on {gate.metric!r} compares with a baseline and there is none yet; "
                f"pass bootstrap=True to let the first version in without one"
            )
        reason = f"{shown} has no baseline to exceed: first version, bootstrap"
        return GateResult(gate.metric, name, True, value, None, reason)
    baseline = _measured(gate.metric, baseline_metrics, whose="the evaluation of the baseline")
    if math.isnan(baseline):
        reason = f"{shown} cannot be compared: the baseline's {gate.metric} is not a number"
        return GateResult(gate.metric, name, False, value, baseline, reason)
    gain = value - baseline if gate.larger_is_better else baseline - value
    # 0.82 - 0.80 is 0.0199999... in binary: a gain of exactly the margin must not fail on its last bit.
    passed = _reaches(gain, min_gain, scale=max(abs(value), abs(baseline)))
    if gate.larger_is_better:
        verdict = "exceeds" if passed else "does not exceed"
    else:
        verdict = "is below" if passed else "is not below"
    if passed and min_gain <= 0 and gain <= 0:
        margin = "equals" if gain == 0 else "stays within the tolerance of"
        reason = f"{shown} {margin} the baseline's {_number(baseline)} (smallest gain {_number(min_gain)})"
    else:
        reason = f"{shown} {verdict} the baseline's {_number(baseline)} by at least {_number(min_gain)}"
    return GateResult(gate.metric, name, passed, value, baseline, reason)


def _measured(metric: str, metrics: Mapping[str, float], *, whose: str) -> float:
    if metric not in metrics:
        measured = ", ".join(sorted(metrics)) or "nothing"
        raise GateMetricError(f"a gate asks for {metric!r}, but {whose} measured: {measured}")
    return float(metrics[metric])


def _reaches(gain: float, wanted: float, *, scale: float) -> bool:
    """Whether a gain is large enough, but for the last bits of numbers of this scale."""
    return gain >= wanted or math.isclose(gain, wanted, rel_tol=1e-9, abs_tol=1e-12 * min(scale, 1.0))


def _number(value: float) -> str:
    return f"{value:.6g}"
