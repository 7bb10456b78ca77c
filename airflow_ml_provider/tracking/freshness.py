# SPDX-License-Identifier: Apache-2.0
"""
How long ago the model behind an alias was evaluated.

What counts is the evaluations in MLflow, by whichever DAG: each says in its tags which models it measured, as
the model or as the baseline, and which data time it speaks for. Both clocks can be asked: ``data``, up to
which data time the model was measured, and ``wall``, when somebody measured it last. An evaluation of last
May's data that runs today is old news in data time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from airflow_ml_provider.tracking.clocks import moment

if TYPE_CHECKING:
    from airflow_ml_provider.tracking.models import ModelRef

Clock = Literal["data", "wall"]

_EFFECTIVE_AT = "airflow.effective_at"
# Of one page; MLflow takes up to 1,000 experiments and 50,000 runs.
_EXPERIMENTS = 1_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Evaluation:
    """
    One evaluation of a model.

    :param effective_at: The data time it speaks for; None if its run does not say.
    :param recorded_at: When its run ended, on the wall clock.
    """

    mlflow_run_id: str
    effective_at: datetime | None
    recorded_at: datetime

    def at(self, clock: Clock) -> datetime | None:
        """Return its time on one of the clocks."""
        return self.effective_at if clock == "data" else self.recorded_at


@dataclass(frozen=True)
class Freshness:
    """
    A verdict.

    :param since: What the age counts from; None if the model was never evaluated nor made champion in a way
        that is known.
    """

    fresh: bool
    reason: str
    age: timedelta | None
    since: datetime | None


def judge_freshness(
    name: str,
    last: Evaluation | None,
    champion_since: datetime | None,
    *,
    max_age: timedelta,
    now: datetime,
    clock: Clock = "data",
) -> Freshness:
    """
    Say whether a model was evaluated recently enough.

    A champion that was not evaluated since it became champion is as old as its promotion: it gets the same
    time. An age of exactly ``max_age`` is fresh.

    :param name: The model, for the reason: ``flight_delay@champion (version 3)``.
    :param last: Its latest evaluation on this clock; None if there is none.
    :param champion_since: When it got its alias, on this clock; None if nobody knows.
    :param now: On this clock.
    """
    evaluated = None if last is None else last.at(clock)
    known = [when for when in (evaluated, champion_since) if when is not None]
    words = {"data": "by data time", "wall": "by the wall clock"}[clock]
    if not known:
        reason = f"{name} was never evaluated, and nobody knows since when it has the alias"
        return Freshness(False, reason, None, None)
    since = max(known)
    age = now - since
    if evaluated is None:
        what = f"{name} was not evaluated since it got the alias at {_shown(since)}"
    elif evaluated < since:
        what = f"{name} was last evaluated at {_shown(evaluated)}, before it got the alias at {_shown(since)}"
    else:
        what = f"{name} was last evaluated at {_shown(since)}"
    fresh = age <= max_age
    verdict = "within" if fresh else "longer ago than"
    return Freshness(fresh, f"{what} {words}: {verdict} the {max_age} that are allowed", age, since)


def last_evaluation(client: Any, ref: ModelRef, clock: Clock = "data") -> Evaluation | None:
    """
    Find the latest finished evaluation of a model in MLflow, on one of the clocks.

    Three requests, whatever the number of evaluations, and one more for each 1,000 experiments.

    :param ref: With its model id, or else the URI of its version, as evaluations note it.
    """
    order = f"tags.`{_EFFECTIVE_AT}` DESC" if clock == "data" else "attributes.end_time DESC"
    value = ref.model_id or ref.model_uri
    tags = ("evaluation.model_id", "evaluation.baseline_id")
    if ref.model_id is None:
        tags = ("evaluation.model", "evaluation.baseline")
    found = []
    for experiments in _experiments(client):
        for tag in tags:
            said = f"tags.`{tag}` = '{value}' AND attributes.status = 'FINISHED'"
            if clock == "data":
                said += f" AND tags.`{_EFFECTIVE_AT}` != ''"
            found += client.search_runs(experiments, said, order_by=[order], max_results=1)
    known = [_read(run) for run in found]
    return max(known, key=lambda each: each.at(clock) or _EPOCH, default=None)


def _experiments(client: Any) -> Any:
    token = None
    while True:
        page = client.search_experiments(max_results=_EXPERIMENTS, page_token=token)
        if page:
            yield [experiment.experiment_id for experiment in page]
        if not (token := page.token):
            return


def _read(run: Any) -> Evaluation:
    return Evaluation(
        mlflow_run_id=run.info.run_id,
        effective_at=moment(run.data.tags.get(_EFFECTIVE_AT)),
        recorded_at=_EPOCH + timedelta(milliseconds=run.info.end_time or run.info.start_time or 0),
    )


def _shown(when: datetime) -> str:
    return when.isoformat(timespec="minutes")
