# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from airflow_ml_provider.tracking.drift import (
    DriftLimits,
    compare_schemas,
    compare_tables,
    population_stability_index,
)

ROWS = 2_000


def types(frame):
    return {name: str(dtype) for name, dtype in frame.dtypes.items()}


def judge(reference, current, *, named=(), **limits):
    schema = compare_schemas(types(reference), types(current))
    return compare_tables(reference, current, schema, DriftLimits(**limits), named=named)


def normal(seed, shift=0.0, rows=ROWS):
    return np.random.default_rng(seed).normal(shift, 1, rows)


def choice(seed, chances, rows=ROWS):
    return np.random.default_rng(seed).choice(list("abc"), rows, p=chances)


def with_missing(seed, share):
    values = normal(seed)
    values[: int(share * ROWS)] = np.nan
    return values


@pytest.mark.parametrize(
    ("was", "now", "drifted"),
    [
        pytest.param(normal(1), normal(2), False, id="the same distribution"),
        pytest.param(normal(1), normal(2, 0.5), True, id="moved by half a deviation"),
        pytest.param(normal(1), normal(2) * 2, True, id="twice as wide"),
        pytest.param(np.zeros(ROWS), np.zeros(ROWS), False, id="constant"),
        pytest.param(np.zeros(ROWS), np.ones(ROWS), True, id="another constant"),
        pytest.param(choice(1, [0.5, 0.3, 0.2]), choice(2, [0.5, 0.3, 0.2]), False, id="same categories"),
        pytest.param(choice(1, [0.5, 0.3, 0.2]), choice(2, [0.2, 0.3, 0.5]), True, id="other shares"),
        pytest.param(choice(1, [0.5, 0.5, 0]), choice(2, [0.4, 0.4, 0.2]), True, id="a new category"),
        pytest.param(with_missing(1, 0), with_missing(2, 0.3), True, id="missing by now"),
        pytest.param(with_missing(1, 0.1), with_missing(2, 0.12), False, id="missing a little more"),
        pytest.param(np.arange(ROWS) % 2 == 0, np.arange(ROWS) % 10 == 0, True, id="flags"),
        pytest.param(np.full(ROWS, np.nan), np.full(ROWS, np.nan), False, id="nothing on both sides"),
        pytest.param(normal(1), np.full(ROWS, np.nan), True, id="nothing by now"),
        pytest.param(
            pd.array([1, None] * (ROWS // 2), dtype="Int64"),
            pd.array([9, None] * (ROWS // 2), dtype="Int64"),
            True, id="nullable integers",
        ),
        pytest.param(
            pd.Categorical(choice(1, [0.5, 0.3, 0.2])), pd.Categorical(choice(2, [0.5, 0.3, 0.2])), False,
            id="pandas categories",
        ),
        pytest.param(
            np.append(normal(1)[1:], np.inf), np.append(normal(2)[1:], -np.inf), False, id="infinities"
        ),
    ],
)  # fmt: skip
def test_a_column_has_drifted_if_the_difference_is_significant_and_large(was, now, drifted):
    report = judge(pd.DataFrame({"x": was}), pd.DataFrame({"x": now}))
    assert report.drifted is drifted, report
    assert report.drifted_columns == (["x"] if drifted else [])
    [row] = report.to_frame().to_dict("records")
    assert (row["column"], row["drifted"], bool(row["reasons"])) == ("x", drifted, drifted)


def test_large_integers_are_told_apart():
    was, now = (pd.DataFrame({"id": 2**60 + np.arange(ROWS) % 2 + shift}) for shift in (0, 2))
    assert judge(was, now).columns[0].effect == 1.0
    assert not judge(was, was).drifted


@pytest.mark.parametrize("zone", [None, "Asia/Tokyo"])
def test_the_same_times_in_another_unit_are_the_same_times(zone):
    times = pd.Series(pd.date_range("2013-01-01", periods=ROWS, tz=zone))
    was, now = (pd.DataFrame({"at": times.dt.as_unit(unit)}) for unit in ("s", "ns"))
    (column,) = judge(was, now, named=["at"]).columns
    assert (column.effect, column.psi, column.drifted) == (0.0, 0.0, False)


@pytest.mark.parametrize("new", [-1.0, 1.0])
def test_new_values_beside_a_frequent_one_count_on_either_side_of_it(new):
    was = pd.DataFrame({"delay": np.zeros(ROWS)})
    now = was.assign(delay=np.where(np.arange(ROWS) % 16 == 0, new, 0.0))
    (column,) = judge(was, now).columns
    assert column.effect == pytest.approx(0.0625)
    assert column.psi == pytest.approx(
        population_stability_index([ROWS, 0, 0], [15 * ROWS // 16, ROWS // 16, 0])
    )
    assert column.drifted


def test_a_small_difference_of_many_rows_is_significant_and_no_drift():
    report = judge(
        pd.DataFrame({"x": normal(1, rows=200_000)}), pd.DataFrame({"x": normal(2, 0.03, rows=200_000)})
    )
    assert report.columns[0].p_value < 1e-6
    assert not report.drifted


def test_of_two_hundred_columns_that_did_not_move_none_drifts_by_chance():
    tables = [
        pd.DataFrame({f"c{number}": normal(number + start, rows=100) for number in range(200)})
        for start in (0, 1_000)
    ]
    uncorrected = [column for column in judge(*tables).columns if column.effect >= 0.1]
    assert len(uncorrected) > 20  # so few rows differ by chance
    assert judge(*tables).drifted_columns == []


def test_a_column_that_went_away_or_changed_its_type_is_drift_and_a_new_one_is_not():
    reference = pd.DataFrame({"gone": normal(1), "number": normal(2), "kept": normal(3)})
    current = pd.DataFrame({"number": choice(2, [0.5, 0.3, 0.2]), "kept": reference["kept"], "new": 1})
    report = judge(reference, current)
    assert report.drifted
    assert report.schema["missing"] == ["gone"]
    assert report.schema["added"] == ["new"]
    assert list(report.schema["type"]) == ["number"]
    assert report.reasons[0] == "column 'gone' is missing"
    assert not judge(reference, reference.assign(new=1)).drifted


def test_too_few_rows_are_not_judged_and_say_so():
    report = judge(pd.DataFrame({"x": normal(1)}), pd.DataFrame({"x": normal(2, 9, rows=99)}))
    assert not report.drifted
    assert report.reasons == ["not judged: 2000 and 99 rows, at least 100 are needed"]
    assert report.to_frame().empty
    assert judge(pd.DataFrame({"x": normal(1)}), pd.DataFrame({"y": [1]})).drifted  # the schema still is


@pytest.mark.parametrize(
    "column",
    [
        pytest.param([f"id-{number}" for number in range(ROWS)], id="names of rows"),
        pytest.param(pd.date_range("2013-01-01", periods=ROWS, freq="h"), id="times"),
    ],
)
def test_columns_that_always_differ_are_tested_only_if_they_are_named(column):
    reference = pd.DataFrame({"x": column})
    current = pd.DataFrame({"x": reference["x"].sample(frac=1, random_state=1).to_numpy()})
    moved = (
        current
        if reference["x"].dtype.kind != "M"
        else pd.DataFrame({"x": reference["x"] + pd.Timedelta("99D")})
    )
    assert judge(reference, moved).columns[0].skipped
    assert judge(reference, moved, named=["x"]).columns[0].skipped is None


def test_some_columns_may_drift_if_that_is_allowed():
    reference = pd.DataFrame({"x": normal(1), "y": normal(2)})
    assert judge(reference, reference + 1, max_columns=1).drifted
    report = judge(reference, reference.assign(x=reference["x"] + 1), max_columns=1)
    assert (report.drifted, report.drifted_columns) == (False, ["x"])


def test_only_the_columns_that_are_asked_for_count():
    schema = compare_schemas({"a": "int64", "b": "str"}, {"a": "float64"}, ["a"])
    assert schema == {"missing": [], "added": [], "type": {"a": ["int64", "float64"]}}
    with pytest.raises(ValueError, match=r"no columns \['c'\]; it has a, b"):
        compare_schemas({"a": "int64", "b": "str"}, {}, ["c"])


@pytest.mark.parametrize(
    "limits",
    [{"alpha": 0}, {"alpha": 1.5}, {"min_effect": 2}, {"psi": -1}, {"min_rows": 1}, {"max_columns": -1}],
)  # fmt: skip
def test_limits_that_make_no_sense_are_refused(limits):
    with pytest.raises(ValueError, match=f"{next(iter(limits))} must be"):
        DriftLimits(**limits)


def test_the_stability_index_is_that_of_the_textbook():
    assert population_stability_index([10, 20], [1, 2]) == pytest.approx(0)
    assert population_stability_index([50, 50], [80, 20]) == pytest.approx(0.4159, abs=1e-3)
    with pytest.raises(ValueError, match="at least one value"):
        population_stability_index([1], [0])
