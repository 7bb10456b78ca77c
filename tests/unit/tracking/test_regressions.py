# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest

from airflow_ml_provider.tracking.gates import MetricGate
from airflow_ml_provider.tracking.regressions import regressions


def evaluation(metrics, baseline, *, rows=10_000, **more):
    return {"metrics": metrics, "baseline_metrics": baseline, "rows": rows, **more}


def found(*args, **kwargs):
    return [(each.metric, each.slice) for each in regressions(*args, **kwargs)]


@pytest.mark.parametrize(
    ("metric", "before", "value", "rows", "worse"),
    [
        ("roc_auc", 0.80, 0.79, 10_000, True),  # a loss of 0.01 against 0.8 / 100
        ("roc_auc", 0.80, 0.795, 10_000, False),
        ("roc_auc", 0.80, 0.79, 100, False),
        ("roc_auc", 0.80, 0.90, 10_000, False),
        ("log_loss", 0.50, 0.52, 10_000, True),
        ("log_loss", 0.50, 0.40, 10_000, False),
        ("r2_score", -1.0, -1.2, 10_000, True),
        ("false_negatives", 10, 500, 10_000, False),  # recall says it as a rate
        ("example_count", 100, 90, 10_000, False),
        ("my_score", 0.9, 0.1, 10_000, False),  # nobody said which way is better
        ("roc_auc", math.nan, 0.1, 10_000, False),
    ],
)
def test_a_loss_beyond_what_the_rows_leave_to_chance_is_a_regression(metric, before, value, rows, worse):
    said = found(evaluation({metric: value}, {metric: before}, rows=rows))
    assert said == ([(metric, None)] if worse else [])


def test_a_gate_says_which_way_a_metric_of_ones_own_is_better():
    gate = MetricGate("cost", at_most=100, larger_is_better=False)
    assert found(evaluation({"cost": 50.0}, {"cost": 10.0}), [gate]) == [("cost", None)]
    assert found(evaluation({"cost": 5.0}, {"cost": 10.0}), [gate]) == []


def test_drawn_samples_decide_in_place_of_the_rule_of_thumb():
    sure = [-0.02 + 0.01 * step / 200 for step in range(201)]
    unsure = [-0.02 + 0.03 * step / 200 for step in range(201)]
    worse = evaluation({"roc_auc": 0.79}, {"roc_auc": 0.80}, rows=100, gains={"roc_auc": sure})
    (regression,) = regressions(worse)
    assert "by 0.0105 or more with 0.95 confidence" in regression.reason
    assert found({**worse, "gains": {"roc_auc": unsure}}) == []
    # Smaller is better: the gains are of challenger minus baseline all the same.
    up = [0.01 + 0.01 * step / 200 for step in range(201)]
    assert found(evaluation({"log_loss": 0.52}, {"log_loss": 0.50}, rows=9, gains={"log_loss": up})) == [
        ("log_loss", None)
    ]


def test_slices_count_from_as_many_rows_as_a_gate_by_their_column_says():
    parts = {
        "JFK": {"rows": 400, "metrics": {"roc_auc": 0.6}, "baseline_metrics": {"roc_auc": 0.8}},
        "LGA": {"rows": 29, "metrics": {"roc_auc": 0.1}, "baseline_metrics": {"roc_auc": 0.8}},
        "EWR": {"rows": 400, "metrics": {}, "baseline_metrics": {"roc_auc": 0.8}},
        "new": {"rows": 400, "metrics": {"roc_auc": 0.1}, "baseline_metrics": {}},
    }
    both = evaluation({"roc_auc": 0.8}, {"roc_auc": 0.8}, slices={"origin": parts})
    assert found(both) == [("roc_auc", "origin=JFK")]
    assert "origin=JFK: roc_auc 0.6 is worse than the champion's 0.8" in regressions(both)[0].reason
    gates = [MetricGate("roc_auc", at_least=0.0, by="origin", min_rows=20)]
    assert found(both, gates) == [("roc_auc", "origin=JFK"), ("roc_auc", "origin=LGA")]
    gates = [MetricGate("roc_auc", at_least=0.0, by="origin", min_rows=500)]
    assert found(both, gates) == []


def test_what_the_challenger_cannot_be_measured_by_is_a_regression():
    (regression,) = regressions(evaluation({}, {"roc_auc": 0.8}))
    assert regression.value is None
    assert "was not measured of the challenger" in regression.reason


def test_without_a_baseline_nothing_is_worse():
    assert found(evaluation({"roc_auc": 0.1}, None)) == []
