# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import math
import pickle

import pytest

from airflow_ml_provider.exceptions import GateMetricError, NoBaselineError
from airflow_ml_provider.tracking.gates import MetricGate, decide

CHALLENGER = {"roc_auc": 0.641, "log_loss": 0.4, "nan": math.nan, "own": 5.0}
BASELINE = {"roc_auc": 0.652, "log_loss": 0.5, "own": 4.0}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        pytest.param({"metric": "roc_auc"}, ValueError, "no condition", id="no condition"),
        pytest.param({"metric": "", "at_least": 1}, ValueError, "name", id="empty name"),
        pytest.param({"metric": " roc_auc", "at_least": 1}, ValueError, "blanks", id="blank in name"),
        pytest.param({"metric": 7, "at_least": 1}, TypeError, "name of a metric", id="no name"),
        pytest.param({"metric": "roc_auc", "at_least": math.nan}, ValueError, "finite", id="nan"),
        pytest.param({"metric": "roc_auc", "at_most": math.inf}, ValueError, "finite", id="infinity"),
        pytest.param({"metric": "roc_auc", "at_least": "0.6"}, TypeError, "number", id="text"),
        pytest.param({"metric": "roc_auc", "at_least": True}, TypeError, "number", id="bool"),
        pytest.param(
            {"metric": "roc_auc", "at_least": 2, "at_most": 1}, ValueError, "never", id="empty range"
        ),
        pytest.param(
            {"metric": "own", "gain_over_baseline": 0}, ValueError, "larger_is_better", id="direction"
        ),
        pytest.param(
            {"metric": "own", "at_least": 1, "larger_is_better": "yes"}, TypeError, "True or False", id="word"
        ),
    ],
)
def test_a_wrong_gate_is_refused_when_it_is_built(arguments, error, message):
    with pytest.raises(error, match=message):
        MetricGate(**arguments)


def test_conditions_are_given_by_keyword_only():
    with pytest.raises(TypeError):
        MetricGate("roc_auc", 0.6)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("metric", "larger"),
    [
        ("roc_auc", True),
        ("accuracy_score", True),
        ("r2_score", True),
        ("ndcg_at_3", True),
        ("log_loss", False),
        ("mean_squared_error", False),
        ("root_mean_squared_error", False),
        ("toxicity/v1", False),
    ],
)
def test_the_direction_of_mlflows_metrics_is_known(metric, larger):
    assert MetricGate(metric, gain_over_baseline=0.0).larger_is_better is larger


def test_a_given_direction_wins_over_the_known_one():
    assert MetricGate("roc_auc", gain_over_baseline=0.0, larger_is_better=False).larger_is_better is False


@pytest.mark.parametrize(
    ("gate", "promotes", "reason"),
    [
        (MetricGate("roc_auc", at_least=0.6), True, "roc_auc 0.641 is at least 0.6"),
        (MetricGate("roc_auc", at_least=0.641), True, "roc_auc 0.641 is at least 0.641"),
        (MetricGate("roc_auc", at_least=0.7), False, "roc_auc 0.641 is below 0.7"),
        (MetricGate("log_loss", at_most=0.5), True, "log_loss 0.4 is at most 0.5"),
        (MetricGate("log_loss", at_most=0.3), False, "log_loss 0.4 is above 0.3"),
        (
            MetricGate("roc_auc", gain_over_baseline=0.0),
            False,
            "roc_auc 0.641 does not exceed the baseline's 0.652 by at least 0",
        ),
        (
            MetricGate("roc_auc", gain_over_baseline=-0.02),
            True,
            "roc_auc 0.641 stays within the tolerance of the baseline's 0.652 (smallest gain -0.02)",
        ),
        (
            MetricGate("log_loss", gain_over_baseline=0.05),
            True,
            "log_loss 0.4 is below the baseline's 0.5 by at",
        ),
        (
            MetricGate("log_loss", gain_over_baseline=0.2),
            False,
            "log_loss 0.4 is not below the baseline's 0.5",
        ),
        (
            MetricGate("own", gain_over_baseline=1, larger_is_better=True),
            True,
            "own 5 exceeds the baseline's 4",
        ),
        (MetricGate("nan", at_least=0.1), False, "nan nan is not a number"),
        (MetricGate("nan", gain_over_baseline=0, larger_is_better=True), False, "nan nan is not a number"),
    ],
)
def test_who_gets_the_alias(gate, promotes, reason):
    decision = decide([gate], CHALLENGER, BASELINE, bootstrap=False)
    assert decision.promoted is promotes
    assert reason in decision.reasons[0]
    assert decision.results[0].passed is promotes


def test_an_equal_challenger_passes_a_gain_of_zero():
    decision = decide([MetricGate("roc_auc", gain_over_baseline=0.0)], BASELINE, BASELINE)
    assert decision.promoted
    assert decision.reasons == ["roc_auc 0.652 equals the baseline's 0.652 (smallest gain 0)"]


def test_a_gain_of_exactly_the_margin_does_not_fail_on_its_last_bit():
    gate = MetricGate("roc_auc", gain_over_baseline=0.02)
    assert 0.82 - 0.80 < 0.02  # what a plain comparison would see
    assert decide([gate], {"roc_auc": 0.82}, {"roc_auc": 0.80}).promoted


def test_a_loss_of_a_tiny_metric_is_a_loss():
    gate = MetricGate("mean_squared_error", gain_over_baseline=0.0)
    assert not decide([gate], {"mean_squared_error": 9e-13}, {"mean_squared_error": 1e-13}).promoted


def test_all_conditions_of_all_gates_must_hold_and_each_gives_a_reason():
    gates = [MetricGate("roc_auc", at_least=0.6, at_most=0.9), MetricGate("log_loss", at_most=0.3)]
    decision = decide(gates, CHALLENGER, BASELINE)
    assert not decision.promoted
    assert [result.passed for result in decision.results] == [True, True, False]
    assert len(decision.reasons) == 3


def test_a_nan_baseline_is_no_baseline_to_beat():
    decision = decide([MetricGate("roc_auc", gain_over_baseline=0)], CHALLENGER, {"roc_auc": math.nan})
    assert not decision.promoted
    assert "the baseline's roc_auc is not a number" in decision.reasons[0]


def test_a_metric_that_was_not_measured_is_named_with_those_that_were():
    with pytest.raises(GateMetricError, match=r"asks for 'f1_score'.*log_loss, nan, own, roc_auc"):
        decide([MetricGate("f1_score", at_least=0.1)], CHALLENGER, BASELINE)
    with pytest.raises(GateMetricError, match="evaluation of the baseline measured: nothing"):
        decide([MetricGate("roc_auc", gain_over_baseline=0.1)], CHALLENGER, {})


def test_the_first_version_needs_bootstrap_and_says_so():
    gates = [MetricGate("roc_auc", at_least=0.6), MetricGate("roc_auc", gain_over_baseline=0.0)]
    with pytest.raises(NoBaselineError, match="bootstrap=True"):
        decide(gates, CHALLENGER, None)
    decision = decide(gates, CHALLENGER, None, bootstrap=True)
    assert decision.promoted
    assert "first version, bootstrap" in decision.reasons[1]


def test_bootstrap_does_not_open_the_other_gates():
    assert not decide([MetricGate("roc_auc", at_least=0.9)], CHALLENGER, None, bootstrap=True).promoted


def test_no_gate_promotes_and_says_so():
    assert decide([], CHALLENGER, None) == decide([], CHALLENGER, BASELINE)
    assert decide([], {}, None).reasons == ["no gate was given, so nothing was compared"]


def test_a_gate_survives_copies():
    gate = MetricGate("roc_auc", at_least=0.6, gain_over_baseline=0.0)
    assert copy.deepcopy(gate) == gate == pickle.loads(pickle.dumps(gate))  # noqa: S301
    assert "roc_auc" in repr(gate)


SLICES = {
    "origin": {
        "EWR": {"rows": 500, "metrics": {"roc_auc": 0.7}, "baseline_metrics": {"roc_auc": 0.65}},
        "JFK": {"rows": 400, "metrics": {"roc_auc": 0.55}, "baseline_metrics": {"roc_auc": 0.6}},
        "LGA": {"rows": 12, "metrics": {"roc_auc": 0.1}, "baseline_metrics": {"roc_auc": 0.9}},
        "nan": {"rows": 300, "metrics": {}, "baseline_metrics": {}},
    }
}
WHOLE = {"roc_auc": 0.68}, {"roc_auc": 0.64}


@pytest.mark.parametrize(
    ("gate", "promoted", "reason"),
    [
        (
            {"at_least": 0.5, "min_rows": 100},
            True,
            "origin=LGA: has 12 rows, fewer than 100, and is not judged",
        ),
        ({"at_least": 0.5, "min_rows": 100}, True, "origin=nan: has 300 rows that leave roc_auc undefined"),
        ({"at_least": 0.6, "min_rows": 100}, False, "origin=JFK: roc_auc 0.55 is below 0.6"),
        ({"at_least": 0.5}, False, "origin=LGA: roc_auc 0.1 is below 0.5"),
        ({"gain_over_baseline": 0.0, "min_rows": 450}, True, "origin=EWR: roc_auc 0.7 exceeds"),
        ({"gain_over_baseline": 0.0, "min_rows": 100}, False, "origin=JFK: roc_auc 0.55 does not exceed"),
        ({"at_least": 0.0, "min_rows": 9999}, False, "no slice by origin has 9999 rows and a roc_auc"),
    ],
)
def test_a_gate_by_slice_must_open_in_every_slice_that_is_large_enough(gate, promoted, reason):
    decision = decide([MetricGate("roc_auc", by="origin", **gate)], *WHOLE, slices=SLICES)
    assert decision.promoted is promoted
    assert any(reason in said for said in decision.reasons), decision.reasons


def test_the_first_champion_has_no_slices_to_compare_with():
    alone = {"origin": {"EWR": {"rows": 9, "metrics": {"roc_auc": 0.7}, "baseline_metrics": None}}}
    gate = MetricGate("roc_auc", gain_over_baseline=0.0, by="origin")
    assert decide([gate], {"roc_auc": 0.7}, None, bootstrap=True, slices=alone).promoted
    with pytest.raises(NoBaselineError):
        decide([gate], {"roc_auc": 0.7}, None, slices=alone)


@pytest.mark.parametrize(
    ("metric", "quantiles", "margin", "confidence", "promoted"),
    [
        pytest.param("roc_auc", (-0.01, 0.09), 0.0, 0.95, False, id="the gain may be below zero"),
        pytest.param("roc_auc", (-0.01, 0.09), 0.0, 0.8, True, id="less confidence is asked"),
        pytest.param("roc_auc", (0.02, 0.09), 0.02, 0.99, True, id="surely above the margin"),
        pytest.param(
            "log_loss", (-0.09, 0.01), 0.0, 0.95, False, id="smaller is better, and it may be larger"
        ),
        pytest.param("log_loss", (-0.09, -0.01), 0.0, 0.95, True, id="surely smaller"),
    ],
)
def test_a_gain_must_be_as_sure_as_asked(metric, quantiles, margin, confidence, promoted):
    low, high = quantiles
    gains = {metric: [low + (high - low) * step / 200 for step in range(201)]}
    gate = MetricGate(metric, gain_over_baseline=margin, confidence=confidence)
    measured = {"roc_auc": 0.7, "log_loss": 0.4}, {"roc_auc": 0.66, "log_loss": 0.44}
    decision = decide([gate], *measured, gains=gains)
    assert decision.promoted is promoted
    assert f"with {confidence} confidence" in decision.reasons[-1]


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        (
            {"at_least": 0.5, "by": "carrier"},
            r"slices by 'carrier', .* by: origin; give .*slices=\['carrier'\]",
        ),
        ({"gain_over_baseline": 0.0, "confidence": 0.9}, r"only for: log_loss; give .* bootstrap_draws=1000"),
    ],
)
def test_what_the_evaluation_did_not_look_at_cannot_be_judged(gate, message):
    with pytest.raises(GateMetricError, match=message):
        decide([MetricGate("roc_auc", **gate)], *WHOLE, slices=SLICES, gains={"log_loss": [0.0] * 201})


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ({"at_least": 0.5, "min_rows": 10}, "give by="),
        ({"at_least": 0.5, "by": "x", "min_rows": 0}, "rows from 1, got 0"),
        ({"at_least": 0.5, "by": ""}, "must name a column"),
        ({"at_least": 0.5, "confidence": 0.9}, "about gain_over_baseline"),
        ({"gain_over_baseline": 0.0, "confidence": 0.9, "by": "x"}, "gate of their own"),
        ({"gain_over_baseline": 0.0, "confidence": 95}, "from 0.5 to below 1, got 95"),
        ({"gain_over_baseline": 0.0, "confidence": "high"}, "must be a number"),
    ],
)
def test_wrong_slices_and_confidence_are_refused(gate, message):
    with pytest.raises((TypeError, ValueError), match=message):
        MetricGate("roc_auc", **gate)
