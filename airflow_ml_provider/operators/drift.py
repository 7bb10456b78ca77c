# SPDX-License-Identifier: Apache-2.0
"""Compare a table with a reference, and say whether it drifted."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from airflow.sdk import BaseOperator

from airflow_ml_provider.artifacts.refs import ArtifactRef
from airflow_ml_provider.operators.base import data_time, load_frame
from airflow_ml_provider.operators.outlets import announce, silence
from airflow_ml_provider.tracking.drift import DriftLimits, compare_schemas, compare_tables
from airflow_ml_provider.xcom.context import effective_at_of, run_type_of

if TYPE_CHECKING:
    import pandas as pd
    from airflow.sdk import Context

log = logging.getLogger(__name__)

_SHOWN_REASONS = 20


class DetectDriftOperator(BaseOperator):
    """
    Compare a table with a reference, column by column; emit the events of its outlets only if it drifted.

    A column drifted if its values differ significantly, after correction for the number of columns, *and*
    by much. A column that is missing or of another type is drift too. Returns ``{"drifted", "reasons",
    "columns", "tested", "rows", "reference", "current"}``; the XCom ``report`` is an artifact: a
    DataFrame with a row for each column that was compared.

    Drift is a result and no failure. Without it the task succeeds and emits no event, so a DAG that retrains
    is scheduled by an asset among this task's outlets. Nor is there an event in a backfill run, unless
    ``emit_in_backfill``.

    .. versionadded:: 0.1.0

    :param reference: The table to compare with: an artifact, a DataFrame, or the name of an artifact, which
        means the version of ``reference_version`` or ``reference_as_of``. (templated)
    :param current: The table to judge: an artifact, a DataFrame, or the name of an artifact, whose latest
        version it means. (templated)
    :param reference_version: Version id of the named reference. (templated)
    :param reference_as_of: Take the version of the named reference that spoke for this time: a datetime or
        ISO 8601 text; without a time zone it counts as UTC. (templated)
    :param clock: What ``reference_as_of`` is: ``data``, or ``wall`` for what was the latest then.
    :param columns: Names of the columns to compare; by default all, but times and columns in which almost
        every row has its own value. (templated)
    :param alpha: Accepted share of false alarms among the columns called drifted.
    :param min_effect: Least effect, from 0 to 1: Kolmogorov-Smirnov distance, Cramér's V, or difference of
        the shares of missing values.
    :param psi: Population stability index that counts as a large difference too.
    :param min_rows: With fewer rows on either side no column is judged.
    :param max_columns: So many columns may drift without the table being called drifted.
    :param emit_in_backfill: Emit the events in backfill runs too.
    """

    ml_lazy_artifacts = True
    template_fields: Sequence[str] = (
        "reference",
        "current",
        "reference_version",
        "reference_as_of",
        "columns",
    )
    ui_color = "#f5e9f7"
    outlets: list[Any]

    def __init__(
        self,
        *,
        reference: Any,
        current: Any,
        reference_version: str | None = None,
        reference_as_of: datetime | str | None = None,
        clock: Literal["data", "wall"] = "data",
        columns: Sequence[str] | None = None,
        alpha: float = DriftLimits.alpha,
        min_effect: float = DriftLimits.min_effect,
        psi: float = DriftLimits.psi,
        min_rows: int = DriftLimits.min_rows,
        max_columns: int = DriftLimits.max_columns,
        emit_in_backfill: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if clock not in ("data", "wall"):
            raise ValueError(f"clock must be 'data' or 'wall', got {clock!r}")
        if isinstance(columns, str) and "{" not in columns:
            raise TypeError(f"columns must be a list of names, got {columns!r}")
        if reference_version is not None and reference_as_of is not None:
            raise ValueError("give reference_version or reference_as_of, not both: each names a version")
        if not isinstance(emit_in_backfill, bool):
            raise TypeError(f"emit_in_backfill must be True or False, got {emit_in_backfill!r}")
        self.reference = reference
        self.current = current
        self.reference_version = reference_version
        self.reference_as_of = reference_as_of
        self.clock = clock
        self.columns = columns
        self.alpha = alpha
        self.min_effect = min_effect
        self.psi = psi
        self.min_rows = min_rows
        self.max_columns = max_columns
        self.emit_in_backfill = emit_in_backfill
        self._limits()  # refuses what makes no sense

    def execute(self, context: Context) -> dict[str, Any]:
        named = None if self.columns is None else [str(name) for name in self.columns]
        reference, current = self._reference(), self._named(self.current)
        types = _types if _library(reference) == _library(current) else _kinds
        loaded = types(reference), types(current)
        schema = compare_schemas(loaded[0], loaded[1], named)
        compared = [name for name in named or loaded[0] if name in loaded[1]]
        report = compare_tables(
            _part(reference, compared, "reference"),
            _part(current, compared, "current"),
            schema,
            self._limits(),
            named=named or (),
        )
        context["ti"].xcom_push(key="report", value=report.to_frame())
        reasons = list(report.reasons)
        drifted = report.drifted
        if len(reasons) > _SHOWN_REASONS:
            reasons[_SHOWN_REASONS:] = [f"and {len(reasons) - _SHOWN_REASONS} more, see the report"]
        result = {
            "drifted": drifted,
            "reasons": reasons,
            "columns": report.drifted_columns[:_SHOWN_REASONS],
            "tested": sum(column.skipped is None for column in report.columns),
            "rows": list(report.rows),
            "reference": _uri(reference),
            "current": _uri(current),
            "effective_at": effective_at_of(context).isoformat(),
        }
        if drifted and run_type_of(context) == "backfill" and not self.emit_in_backfill:
            reasons.append("a backfill run emits no event; emit_in_backfill=True would")
            drifted = False
        if drifted:
            self._announce(context, result)
        else:
            silence(self, context)
        log.info("%s: %s", "Drift" if result["drifted"] else "No drift", "; ".join(reasons))
        return result

    def _limits(self) -> DriftLimits:
        return DriftLimits(self.alpha, self.min_effect, self.psi, self.min_rows, self.max_columns)

    def _reference(self) -> Any:
        if not isinstance(self.reference, str):
            if self.reference_version or self.reference_as_of:
                raise ValueError(
                    "reference_version and reference_as_of choose a version of an artifact that is named; "
                    f"reference is {self.reference!r:.200}"
                )
            return self.reference
        store = _store()
        when = data_time(self.reference_as_of, option="reference_as_of")
        if when is not None:
            return store.as_of(self.reference, when, clock=self.clock)
        return store.get(self.reference, self.reference_version or None)

    @staticmethod
    def _named(table: Any) -> Any:
        return _store().get(table) if isinstance(table, str) else table

    def _announce(self, context: Context, result: dict[str, Any]) -> None:
        said = {key: result[key] for key in ("reasons", "columns", "reference", "current", "effective_at")}
        announce(self, context, said)


def _store() -> Any:
    from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook

    return ArtifactStoreHook().store


def _uri(table: Any) -> str | None:
    return table.uri if isinstance(table, ArtifactRef) else None


def _types(table: Any) -> dict[str, str]:
    """Column names and types; of an artifact by its manifest, without reading it."""
    if (named := _columns_in_manifest(table)) is not None:
        return named
    frame = load_frame(table, option="reference and current")
    return {str(name): str(dtype) for name, dtype in frame.dtypes.items()}


def _library(table: Any) -> str:
    """Whose names of types :func:`_types` gives."""
    return table.type.partition(".")[0] if _columns_in_manifest(table) is not None else "pandas"


def _kinds(table: Any) -> dict[str, str]:
    """Column names, and what can be told of their types beside a table of another library."""
    rows = table.load(rows=0) if _columns_in_manifest(table) is not None else table
    frame = load_frame(rows, option="reference and current")
    return {
        str(name): "numbers" if dtype.kind in "iuf" else "no numbers" for name, dtype in frame.dtypes.items()
    }


def _part(table: Any, columns: list[str], option: str) -> pd.DataFrame:
    if _columns_in_manifest(table) is not None:
        with suppress(ValueError):  # labels that are no text, which the manifest writes as text
            return load_frame(table.load(columns=columns), option=option)
    return load_frame(table, option=option).rename(columns=str)[columns]


def _columns_in_manifest(table: Any) -> dict[str, str] | None:
    columns = (table.schema or {}).get("columns") if isinstance(table, ArtifactRef) else None
    if not isinstance(columns, list) or not all(isinstance(each.get("name"), str) for each in columns):
        return None
    named = {each["name"]: str(each.get("type")) for each in columns}
    return named if len(named) == len(columns) else None
