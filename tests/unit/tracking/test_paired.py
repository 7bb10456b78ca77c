# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sklearn_metrics

from airflow_ml_provider.tracking.paired import bootstrap_gains, bound, by_slice, weighted_metrics

RANDOM = np.random.default_rng(0)
ROWS = 400
TRUTH = RANDOM.integers(0, 2, ROWS)
SCORE = np.round(np.clip(TRUTH * 0.3 + RANDOM.random(ROWS) * 0.7, 0.01, 0.99), 2)  # with ties
WORSE = np.round(np.clip(TRUTH * 0.1 + RANDOM.random(ROWS) * 0.9, 0.01, 0.99), 2)


def classifier(score):
    return weighted_metrics("classifier", TRUTH, score > 0.5, score)


@pytest.mark.parametrize("weights", [np.ones(ROWS), RANDOM.integers(0, 4, ROWS).astype(float)])
def test_weighted_metrics_are_those_of_sklearn(weights):
    found = {name: measure(weights[None, :])[0] for name, measure in classifier(SCORE).items()}
    options = {"sample_weight": weights}
    assert found["roc_auc"] == pytest.approx(sklearn_metrics.roc_auc_score(TRUTH, SCORE, **options))
    assert found["log_loss"] == pytest.approx(sklearn_metrics.log_loss(TRUTH, SCORE, **options))
    assert found["accuracy_score"] == pytest.approx(
        sklearn_metrics.accuracy_score(TRUTH, SCORE > 0.5, **options)
    )
    truth, prediction = TRUTH + SCORE, WORSE
    found = weighted_metrics("regressor", truth, prediction)
    for name in ("mean_absolute_error", "mean_squared_error", "root_mean_squared_error"):
        expected = getattr(sklearn_metrics, name)(truth, prediction, **options)
        assert found[name](weights[None, :])[0] == pytest.approx(expected)


def test_slices_are_measured_alone_and_what_is_undefined_in_one_is_absent():
    groups = np.where(TRUTH == 1, "late", None)
    groups[:50] = "mixed"
    found = by_slice(classifier(SCORE), list(groups))
    assert sum(part["rows"] for part in found.values()) == ROWS
    assert found["mixed"]["rows"] == 50
    assert found["mixed"]["metrics"]["roc_auc"] == pytest.approx(
        sklearn_metrics.roc_auc_score(TRUTH[:50], SCORE[:50])
    )
    assert set(found["late"]["metrics"]) == {"accuracy_score", "log_loss"}
    assert len(found) == 3


def test_every_row_is_in_a_slice_also_where_values_read_the_same():
    groups = pd.Series([1, "1", None, "nan", "None", np.nan, 1.5, 2, "2", "b"] * 20, dtype=object)
    found = by_slice({"share": lambda weights: weights.mean(axis=1)}, groups)
    assert sum(part["rows"] for part in found.values()) == 200
    assert (found["1"]["rows"], found["2"]["rows"]) == (40, 40)


def test_log_loss_of_certain_single_precision_probabilities_is_that_of_sklearn():
    truth, probability = np.array([1, 0, 1, 0]), np.array([1, 1, 0.5, 0.25], dtype="float32")
    both = np.column_stack([1 - probability, probability])
    found = weighted_metrics("classifier", truth, truth, probability)["log_loss"](np.ones((1, 4)))
    assert found[0] == pytest.approx(sklearn_metrics.log_loss(truth, both), rel=1e-6)


def test_the_bootstrap_draws_the_same_rows_for_both_and_the_same_each_time():
    drawn = {"draws": 500, "seed": 7}
    gains = bootstrap_gains(classifier(SCORE), classifier(WORSE), ROWS, **drawn)
    assert gains == bootstrap_gains(classifier(SCORE), classifier(WORSE), ROWS, **drawn)
    assert gains != bootstrap_gains(classifier(SCORE), classifier(WORSE), ROWS, draws=500, seed=8)
    same = bootstrap_gains(classifier(SCORE), classifier(SCORE), ROWS, **drawn)
    assert set(same["roc_auc"]) == {0.0}  # unpaired draws would differ


def test_the_bootstrap_agrees_with_drawing_rows_one_by_one():
    gains = bootstrap_gains(classifier(SCORE), classifier(WORSE), ROWS, draws=2000, seed=1)["roc_auc"]
    random = np.random.default_rng(99)
    plain = []
    for _ in range(2000):
        rows = random.integers(0, ROWS, ROWS)
        plain.append(
            sklearn_metrics.roc_auc_score(TRUTH[rows], SCORE[rows])
            - sklearn_metrics.roc_auc_score(TRUTH[rows], WORSE[rows])
        )
    expected = np.quantile(plain, [0.05, 0.5, 0.95])
    assert [gains[10], gains[100], gains[190]] == pytest.approx(list(expected), abs=0.006)


def test_a_bound_is_one_sided_and_knows_which_way_is_better():
    quantiles = [step / 200 for step in range(201)]  # gains from 0 to 1
    assert bound(quantiles, 0.95, larger_is_better=True) == pytest.approx(0.05)
    assert bound(quantiles, 0.9512, larger_is_better=True) == pytest.approx(0.0488)
    losses = [-step / 200 for step in reversed(range(201))]
    assert bound(losses, 0.95, larger_is_better=False) == pytest.approx(0.05)


def test_a_metric_that_most_draws_leave_undefined_is_left_out():
    truth = np.array([1, 0])
    few = weighted_metrics("classifier", truth, truth, np.array([0.9, 0.1]))
    gains = bootstrap_gains(few, few, 2, draws=100, seed=0)
    assert "accuracy_score" in gains
    one = weighted_metrics("classifier", np.ones(3), np.ones(3), np.full(3, 0.9))
    assert "roc_auc" not in bootstrap_gains(one, one, 3, draws=100, seed=0)
