# SPDX-License-Identifier: Apache-2.0
"""
How far a table has moved from a reference: a test and two effect sizes for each column.

With many rows every difference is significant, with few rows none is, and of many columns some differ by
chance. So a column has drifted if its difference is *significant* after correction for the number of tests
(Benjamini and Hochberg, 1995, by ``scipy.stats.false_discovery_control``) *and large*.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_BINS = 10
_CATEGORIES = 50
# Added to each share, so that an empty bin is far away and not infinitely far (the usual choice).
_LEAST_SHARE = 1e-4


@dataclass(frozen=True)
class DriftLimits:
    """
    When a difference counts.

    :param alpha: The share of false alarms that is accepted among the columns called drifted.
    :param min_effect: Least effect, from 0 to 1: the Kolmogorov-Smirnov distance for numbers, Cramér's V for
        categories, the difference of the shares of missing values for both.
    :param psi: Population stability index that counts as large too; 0.1 is called moderate and 0.25 large.
    :param min_rows: With fewer rows on either side nothing is judged.
    :param max_columns: So many columns may drift without the table being called drifted.
    """

    alpha: float = 0.01
    min_effect: float = 0.1
    psi: float = 0.25
    min_rows: int = 100
    max_columns: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (("alpha", 0.0, 1.0), ("min_effect", 0.0, 1.0), ("psi", 0.0, math.inf)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low < value <= high:
                raise ValueError(f"{name} must be above {low:g} and at most {high:g}, got {value!r}")
        for name, least in (("min_rows", 2), ("max_columns", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be a whole number from {least}, got {value!r}")


@dataclass
class ColumnDrift:
    """
    What was found about a column.

    :param kind: ``number``, ``category`` or ``time``.
    :param skipped: Why it was not tested; None if it was.
    :param effect: Of the values that are there; see :class:`DriftLimits`.
    :param p_value: After correction; the smaller one of the values and of the missing ones.
    """

    column: str
    kind: str
    drifted: bool = False
    skipped: str | None = None
    test: str | None = None
    effect: float | None = None
    psi: float | None = None
    p_value: float | None = None
    missing: tuple[float, float] | None = None
    new_categories: int | None = None
    reasons: list[str] = field(default_factory=list)


_FIELDS = [item.name for item in fields(ColumnDrift) if item.name != "missing"]


@dataclass
class DriftReport:
    """
    The verdict and what it rests on.

    :param rows: Of the reference and of the current table.
    :param schema: Columns that are ``missing``, ``added``, or of another ``type`` by now.
    """

    drifted: bool
    reasons: list[str]
    rows: tuple[int, int]
    schema: dict[str, Any]
    columns: list[ColumnDrift]
    limits: DriftLimits

    def to_frame(self) -> pd.DataFrame:
        """Give a row for each column that both tables have."""
        import pandas as pd

        rows = []
        for column in self.columns:
            row = asdict(column)
            row["missing_in_reference"], row["missing_in_current"] = row.pop("missing") or (None, None)
            row["reasons"] = "; ".join(column.reasons)
            rows.append(row)
        numbers = ["effect", "psi", "p_value", "missing_in_reference", "missing_in_current"]
        frame = pd.DataFrame(rows, columns=[*_FIELDS, "missing_in_reference", "missing_in_current"])
        types = {**dict.fromkeys(numbers, "float64"), "new_categories": "Int64", "drifted": "bool"}
        texts = ["column", "kind", "skipped", "test", "reasons"]
        return frame.astype({**types, **dict.fromkeys(texts, "string")})

    @property
    def drifted_columns(self) -> list[str]:
        """Names of the columns whose values drifted, in the table's order."""
        return [column.column for column in self.columns if column.drifted]


def compare_schemas(
    reference: Mapping[str, str], current: Mapping[str, str], columns: Sequence[str] | None = None
) -> dict[str, Any]:
    """
    Say what changed between two tables' columns.

    :param reference: Type by name.
    :param columns: Look at these only; each must be in the reference.
    :raises ValueError: naming columns that the reference lacks.
    """
    if columns is not None and (unknown := [name for name in columns if name not in reference]):
        raise ValueError(f"the reference has no columns {unknown}; it has {', '.join(reference)}")
    watched = list(reference) if columns is None else list(columns)
    return {
        "missing": [name for name in watched if name not in current],
        "added": [] if columns is not None else [name for name in current if name not in reference],
        "type": {
            name: [reference[name], current[name]]
            for name in watched
            if name in current and current[name] != reference[name]
        },
    }


def compare_tables(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    schema: dict[str, Any],
    limits: DriftLimits,
    *,
    named: Sequence[str] = (),
) -> DriftReport:
    """
    Judge the columns that both tables have.

    :param schema: From :func:`compare_schemas`. A missing column and one of another type are drift; an
        added one is not.
    :param named: Columns that were asked for by name, which are tested whatever they look like.
    """
    rows = (len(reference), len(current))
    reasons = [f"column {name!r} is missing" for name in schema["missing"]]
    reasons += [f"column {name!r} was {was}, is {now}" for name, (was, now) in schema["type"].items()]
    found: list[ColumnDrift] = []
    if min(rows) < limits.min_rows:
        note = f"not judged: {rows[0]} and {rows[1]} rows, at least {limits.min_rows} are needed"
        return DriftReport(bool(reasons), [*reasons, note], rows, schema, found, limits)
    tests: list[tuple[ColumnDrift, float, bool, str]] = []
    for name in reference.columns:
        if name in current.columns:
            column, of_column = _column(str(name), reference[name], current[name], limits, str(name) in named)
            found.append(column)
            tests += [(column, *test) for test in of_column]
    _correct(tests, limits)
    drifted = [column for column in found if column.drifted]
    if len(drifted) > limits.max_columns:
        reasons += [f"column {column.column!r}: {'; '.join(column.reasons)}" for column in drifted]
    return DriftReport(bool(reasons), reasons or ["no drift"], rows, schema, found, limits)


def population_stability_index(expected: Any, actual: Any) -> float:
    """
    Measure how far a histogram has moved.

    The Jeffreys divergence between two histograms (H. Jeffreys, 1946, Proc. R. Soc. A 186, 453-461).

    :param expected: Counts in each bin of the reference, a sequence.
    :param actual: Counts in the same bins.
    :returns: Nats. 0 for equal shares.
    :raises ValueError: if one of them counts nothing.
    """
    import numpy as np

    shares = []
    for counts in (np.asarray(expected, dtype=float), np.asarray(actual, dtype=float)):
        if counts.sum() <= 0:
            raise ValueError("the population stability index needs at least one value on each side")
        share = counts / counts.sum() + _LEAST_SHARE
        shares.append(share / share.sum())
    was, now = shares
    return float(((now - was) * np.log(now / was)).sum())


def _correct(tests: list[tuple[ColumnDrift, float, bool, str]], limits: DriftLimits) -> None:
    """Correct the p-values for their number, and call columns drifted."""
    if not tests:
        return
    from scipy.stats import false_discovery_control

    corrected = false_discovery_control([p_value for _, p_value, _, _ in tests])
    for (column, _, large, words), p_value in zip(tests, corrected, strict=True):
        column.p_value = min(float(p_value), 1.0 if column.p_value is None else column.p_value)
        if large and p_value <= limits.alpha:
            column.drifted = True
            column.reasons.append(words)


def _column(
    name: str, reference: pd.Series, current: pd.Series, limits: DriftLimits, named: bool
) -> tuple[ColumnDrift, list[tuple[float, bool, str]]]:
    kinds = _kind(reference), _kind(current)
    column = ColumnDrift(name, kinds[0])
    if kinds[0] != kinds[1]:
        column.skipped = f"was a {kinds[0]}, is a {kinds[1]}"
        return column, []
    if kinds[0] == "time" and not named:
        column.skipped = "times move on; name it in columns=[...] to test it"
        return column, []
    missing = reference.isna(), current.isna()
    shares = float(missing[0].mean()), float(missing[1].mean())
    column.missing = shares
    tests = []
    if shares[0] != shares[1]:
        counts = [[int(side.sum()), int((~side).sum())] for side in missing]
        words = f"missing in {shares[0]:.1%}, now in {shares[1]:.1%} of the rows"
        tests.append((_independence(counts)[0], abs(shares[1] - shares[0]) >= limits.min_effect, words))
    was, now = reference[~missing[0]], current[~missing[1]]
    if not len(was) or not len(now):
        column.skipped = "no values to compare" if not tests else None
        return column, tests
    judge = _categories if kinds[0] == "category" else _numbers
    if judge is _categories and not named and _names_rows(was):
        column.skipped = "almost every row has its own value; name it in columns=[...] to test it"
        return column, tests
    p_value = judge(column, was, now)
    large = (column.effect or 0.0) >= limits.min_effect or (column.psi or 0.0) >= limits.psi
    words = f"{column.test} effect {column.effect:.3f}, PSI {column.psi:.3f}"
    return column, [*tests, (p_value, large, words)]


def _kind(column: pd.Series) -> str:
    from pandas.api import types

    if types.is_bool_dtype(column.dtype):
        return "category"
    if types.is_datetime64_any_dtype(column.dtype) or types.is_timedelta64_dtype(column.dtype):
        return "time"
    return "number" if types.is_numeric_dtype(column.dtype) else "category"


def _names_rows(values: pd.Series) -> bool:
    return values.astype(str).nunique() > len(values) / 2


def _numbers(column: ColumnDrift, was: pd.Series, now: pd.Series) -> float:
    import numpy as np
    from scipy.stats import ks_2samp

    first, second = _ranked(*(_as_numbers(side) for side in (was, now)))
    column.test = "Kolmogorov-Smirnov"
    tested = ks_2samp(first, second, method="asymp")
    column.effect = float(tested.statistic)
    edges = np.unique(np.quantile(first, np.linspace(0, 1, _BINS + 1)[1:-1], method="lower"))
    if edges[0] == first.min():  # what is below the least value of before is not as before
        edges = np.concatenate([[edges[0] - 1], edges])
    counts = [np.bincount(np.searchsorted(edges, side), minlength=len(edges) + 1) for side in (first, second)]
    column.psi = population_stability_index(*counts)
    return float(tested.pvalue)


def _as_numbers(values: pd.Series) -> Any:
    import numpy as np

    if _kind(values) == "time":
        # In one unit, whatever the unit of the column; with a time zone it is the time in UTC.
        name = "timedelta64[us]" if values.dtype.kind == "m" else "datetime64[us]"
        return values.to_numpy(dtype=name).astype("int64")
    numbers = values.to_numpy()
    if np.iscomplexobj(numbers):
        numbers = np.abs(numbers)
    return numbers if numbers.dtype.kind in "iuf" else numbers.astype("float64")


def _ranked(first: Any, second: Any) -> tuple[Any, Any]:
    """Put ranks for values: they are ordered the same, and floats would not tell large integers apart."""
    import numpy as np

    _, ranks = np.unique(np.concatenate([first, second]), return_inverse=True)
    return ranks[: len(first)], ranks[len(first) :]


def _categories(column: ColumnDrift, was: pd.Series, now: pd.Series) -> float:
    import pandas as pd

    counted = pd.DataFrame({"was": _counts(was), "now": _counts(now)}).fillna(0)
    column.new_categories = int(((counted["was"] == 0) & (counted["now"] > 0)).sum())
    counted = counted.loc[counted.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    table = counted.iloc[:_CATEGORIES]
    if len(counted) > _CATEGORIES:  # the rare ones together
        table = pd.concat([table, counted.iloc[_CATEGORIES:].sum().to_frame().T])
    counts = table.to_numpy().T.tolist()
    column.test = "chi-squared"
    p_value, column.effect = _independence(counts)
    column.psi = population_stability_index(counts[0], counts[1])
    return p_value


def _counts(values: pd.Series) -> pd.Series:
    # As text, since a category may be anything that hashes, and some that does not.
    return values.astype(str).value_counts()


def _independence(counts: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Return the p-value of a table of counts with two rows, and Cramér's V."""
    from scipy.stats import chi2_contingency

    filled = [pair for pair in zip(*counts, strict=True) if sum(pair) > 0]
    if len(filled) < 2:
        return 1.0, 0.0
    columns: Callable[[int], list[float]] = lambda row: [pair[row] for pair in filled]  # noqa: E731
    tested = chi2_contingency([columns(0), columns(1)], correction=False)
    return float(tested.pvalue), math.sqrt(float(tested.statistic) / sum(map(sum, filled)))
