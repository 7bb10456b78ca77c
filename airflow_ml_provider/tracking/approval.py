# SPDX-License-Identifier: Apache-2.0
"""
The person's part in a promotion: when to ask, what to show, what was answered.

Plain Python. Which page shows the question, and how an answer comes back, is Airflow's part.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow_ml_provider.tracking.clocks import moment
from airflow_ml_provider.tracking.models import ModelRef
from airflow_ml_provider.tracking.regressions import directions, gain, judged, regressions

if TYPE_CHECKING:
    from airflow_ml_provider.tracking.gates import GateResult, MetricGate
    from airflow_ml_provider.tracking.moves import Standing

Approval = Literal["always", "on_regression", "never"]
OnTimeout = Literal["reject", "approve", "fail"]

APPROVE = "Approve"
REJECT = "Reject"
#: Field of the form in which a person may say why.
COMMENT = "comment"

# What of an evaluation an answer is about.
_COMPARED = ("mlflow_run_id", "baseline_uri", "baseline_version", "baseline_metrics", "slices", "data")
_BOLD = "worse in bold is by more than noise"
_MOST_METRICS = 30
_MOST_SLICES = 20
_MOST_REASONS = 20
_TEXT = 300
_COMMENT = 2_000


def choice(option: str, value: Any, allowed: Any) -> Any:
    """
    Return a value if it is among those of a Literal.

    :raises ValueError: naming the option and what it may be.
    """
    if value not in get_args(allowed):
        raise ValueError(f"{option} must be one of {', '.join(get_args(allowed))}, got {value!r}")
    return value


def reasons_to_ask(
    approval: Approval,
    champion: Standing,
    evaluation: Mapping[str, Any] | None,
    gates: Sequence[MetricGate] = (),
    *,
    registered_model_name: str,
) -> list[str]:
    """
    Say why a person must be asked before an alias moves to a challenger that passed its gates.

    :param approval: ``always``: for every move, a first champion's too. ``on_regression``: where the
        challenger is worse by more than noise than the version that has the alias, on some metric or slice
        (see ``regressions.py``), or where it was not compared with that version. ``never``.
    :returns: Nothing if nobody need be asked.
    """
    if approval == "never":
        return []
    if approval == "always":
        return ["every move of this alias is approved by a person"]
    if champion.version is None:
        return []
    if evaluation is None or compared_with(evaluation) != (registered_model_name, champion.version):
        return [
            f"the evaluation did not compare with version {champion.version}, which has the alias, so nobody "
            "knows whether this one is worse"
        ]
    return [found.reason for found in regressions(evaluation, gates)]


def compared_with(evaluation: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Name the registered model and the version that an evaluation measured beside the challenger."""
    asked, version = evaluation.get("baseline_uri"), evaluation.get("baseline_version")
    if asked is None or version is None or evaluation.get("baseline_metrics") is None:
        return (None, None)
    return (ModelRef.coerce(asked).registered_model_name, str(version))


@dataclass(frozen=True)
class Question:
    """
    What a person is asked.

    :param key: Names what is compared: the same for two questions if an answer to one answers the other.
    :param model: The challenger.
    :param champion: The version that had the alias.
    """

    key: str
    subject: str
    body: str
    model: str
    champion: str | None

    def asked(self) -> dict[str, Any]:
        """Give what is kept of it until the answer comes."""
        return {"key": self.key, "model": self.model, "champion": self.champion}


@dataclass(frozen=True)
class Answer:
    """
    What a person, or nobody in time, answered.

    :param user_id: Of Airflow's user; None if the time ran out.
    :param answered_at: Wall clock, ISO 8601.
    """

    approved: bool
    user_id: str | None = None
    user_name: str | None = None
    answered_at: str | None = None
    comment: str = ""
    timed_out: bool = False

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Answer:
        """
        Read what Airflow's human-in-the-loop gives a task that goes on.

        :raises ValueError: if it is neither an approval nor a rejection.
        """
        chosen = list(event.get("chosen_options") or ())
        if chosen not in ([APPROVE], [REJECT]):
            raise ValueError(f"the answer must be {APPROVE!r} or {REJECT!r}, Airflow gave {chosen!r}")
        user = event.get("responded_by_user") or {}
        when = moment(event.get("responded_at"))
        comment = (event.get("params_input") or {}).get(COMMENT)
        return cls(
            approved=chosen == [APPROVE],
            user_id=None if user.get("id") is None else str(user["id"]),
            user_name=None if user.get("name") is None else str(user["name"]),
            answered_at=None if when is None else when.isoformat(),
            comment=" ".join(str(comment or "").split())[:_COMMENT],
            timed_out=bool(event.get("timedout")),
        )

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Answer:
        """Read what :meth:`to_json` gave."""
        return cls(**{name: document[name] for name in cls.__dataclass_fields__ if name in document})

    def to_json(self) -> dict[str, Any]:
        """Give plain JSON."""
        return asdict(self)

    @property
    def who(self) -> str:
        """Name and id of the person."""
        if self.user_id is None:
            return "nobody"
        same = self.user_name in (None, "", self.user_id)
        return self.user_id if same else f"{self.user_name} ({self.user_id})"

    def __str__(self) -> str:
        """Say it for the reasons of a move."""
        verdict = "approved" if self.approved else "rejected"
        if self.timed_out:
            return f"{verdict} because nobody answered in time"
        said = f": {self.comment}" if self.comment else ""
        return f"{verdict} by {self.who} at {self.answered_at}{said}"

    def tags(self, alias: str) -> dict[str, str]:
        """Tags of the model version, or of the model and run that were rejected."""
        prefix = f"airflow.approval.{alias}"
        return {
            prefix: "approved" if self.approved else "rejected",
            f"{prefix}.by": "nobody: time-out" if self.timed_out else self.who,
            f"{prefix}.at": self.answered_at or "",
            f"{prefix}.comment": self.comment,
        }


def question_about(
    *,
    registered_model_name: str,
    alias: str,
    challenger: ModelRef,
    challenger_version: str | None,
    champion: Standing,
    evaluation: Mapping[str, Any] | None,
    metrics: Mapping[str, float],
    gates: Sequence[MetricGate],
    results: Sequence[GateResult],
    why: Sequence[str],
    links: Mapping[str, str | None] | None = None,
) -> Question:
    """
    Put a promotion to a person: the challenger beside the champion, in Markdown.

    What users named or wrote stands there as they wrote it and never as Markdown or HTML.

    :param links: Addresses of MLflow's pages: ``champion``, ``challenger``, ``run``, ``evaluation``.
    """
    links = links or {}
    named = challenger.model_id or challenger.model_uri
    seen = evaluation or {}
    baseline = seen.get("baseline_metrics")
    compared = {
        name: seen.get(name)
        for name in (
            "mlflow_run_id",
            "baseline_uri",
            "baseline_version",
            "baseline_metrics",
            "slices",
            "data",
        )
    }
    content = [registered_model_name, alias, named, champion.version, compared, dict(metrics), list(why)]
    key = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:12]
    to = f"version {challenger_version}" if challenger_version else "a new version"
    stands = f"version {champion.version}" if champion.version else "nothing yet"
    worse = {(found.metric, found.slice) for found in regressions(seen, gates)} if seen else set()
    shown_champion = _link(stands, links.get("champion"))
    parts = [
        f"Point {code(alias)} of {code(registered_model_name)}, now at {shown_champion}, at {to}: "
        f"{_link('model', links.get('challenger'))} {code(named)}"
        + (f", {_link('trained in this run', links['run'])}" if links.get("run") else "")
        + ".",
        _because(why),
        _metrics_table(metrics, baseline, directions(gates), worse, _beside(evaluation, champion)),
        _slices_table(seen.get("slices") or {}, directions(gates), worse),
        _gates_table(results),
        _data_line(seen, links.get("evaluation")),
        f"Moved last: {escape(str(champion.move))}." if champion.move is not None else "",
        f"Comparison {code(key)}",
    ]
    subject = f"{registered_model_name}: make {to} the {alias}?"
    return Question(
        key, " ".join(subject.split())[:_TEXT], "\n\n".join(filter(None, parts)), named, champion.version
    )


def escape(text: Any) -> str:
    """Give text that Markdown shows as it is: no emphasis, HTML, link or table cell begins in it."""
    plain = " ".join(str(text).split())
    if len(plain) > _TEXT:
        plain = plain[: _TEXT - 1] + "…"
    # The colon, dot and at-sign are what turns bare addresses into links.
    return re.sub(r"([\\`*_{}\[\]<>#+!|~&$^:.@])", r"\\\1", plain)


def code(text: Any) -> str:
    """Give a name as Markdown code, whatever it holds, in a table too."""
    plain = " ".join(str(text).split()).replace("`", "'").replace("\\", "/")
    if len(plain) > _TEXT:
        plain = plain[: _TEXT - 1] + "…"
    return f"`{plain or ' '}`".replace("|", "\\|")


def _link(text: str, address: str | None) -> str:
    if not address or not re.match(r"https?://", address) or re.search(r"[\s<>()\\|`]", address):
        return text
    return f"[{text}]({address})"


def _because(lines: Sequence[str]) -> str:
    if len(lines) == 1:
        return f"**Asked because** {escape(lines[0])}."
    shown = [f"- {escape(line)}" for line in lines[:_MOST_REASONS]]
    if len(lines) > _MOST_REASONS:
        shown.append(f"- and {len(lines) - _MOST_REASONS} more")
    return "**Asked because**\n\n" + "\n".join(shown)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], left_out: int = 0) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    more = f"\n\n{left_out} more are in MLflow." if left_out > 0 else ""
    return "\n".join(lines) + more


def _beside(evaluation: Mapping[str, Any] | None, champion: Standing) -> str:
    version = (evaluation or {}).get("baseline_version")
    if version is None:
        return "compared with"
    return f"champion, version {version}" if str(version) == champion.version else f"version {version}"


def _metrics_table(
    metrics: Mapping[str, float],
    baseline: Mapping[str, float] | None,
    known: Mapping[str, bool],
    worse: Set[tuple[str, str | None]],
    beside: str,
) -> str:
    if not metrics:
        return "No metric was measured."
    measured = {*metrics, *(baseline or {})} - {"example_count"}
    names = sorted(measured, key=lambda name: (judged(name, known) is None, name))
    shown = names[:_MOST_METRICS]
    if baseline is None:
        rows = [[code(name), _number(metrics.get(name))] for name in shown]
        return "**Metrics**; there was nothing to compare with.\n\n" + _table(
            ["metric", "challenger"], rows, len(names) - len(shown)
        )
    rows = [
        [
            code(name),
            _number(baseline.get(name)),
            _number(metrics.get(name)),
            *_change(metrics.get(name), baseline.get(name), judged(name, known), (name, None) in worse),
        ]
        for name in shown
    ]
    head = ["metric", beside, "challenger", "change", ""]
    return f"**Metrics** on the same rows; {_BOLD}\n\n" + _table(head, rows, len(names) - len(shown))


def _change(
    value: float | None, before: float | None, larger_is_better: bool | None, beyond_noise: bool
) -> tuple[str, str]:
    if value is None or before is None:
        return "", "**missing**" if beyond_noise else ""
    verdict = ""
    if larger_is_better is not None and value != before:
        better = gain(value, before, larger_is_better=larger_is_better) > 0
        verdict = "better" if better else "**worse**" if beyond_noise else "worse"
    return f"{value - before:+.4g}" if value != before else "0", verdict


def _gates_table(results: Sequence[GateResult]) -> str:
    if not results:
        return "No gate was given."
    rows = [
        ["passed" if each.passed else "**failed**", escape(each.reason)] for each in results[:_MOST_METRICS]
    ]
    return "**Gates**\n\n" + _table(["verdict", "reason"], rows, len(results) - _MOST_METRICS)


def _slices_table(
    slices: Mapping[str, Mapping[str, Any]], known: Mapping[str, bool], worse: Set[tuple[str, str | None]]
) -> str:
    """Show the slices, those that lose most first."""
    rows = []
    for column, parts in slices.items():
        for name, part in parts.items():
            compared = part.get("baseline_metrics") or {}
            for metric, value in part["metrics"].items():
                larger, before = judged(metric, known), compared.get(metric)
                relative = 0.0
                if larger is not None and before is not None:
                    relative = gain(value, before, larger_is_better=larger) / (abs(before) or 1.0)
                label = f"{column}={name}"
                where = [code(label), str(part["rows"]), code(metric)]
                change = _change(value, before, larger, (metric, label) in worse)
                rows.append((relative, where, [_number(before)], [_number(value)], list(change)))
    if not rows:
        return ""
    rows.sort(key=lambda row: row[:2])
    shown, left_out = rows[:_MOST_SLICES], len(rows) - _MOST_SLICES
    if not any(before[0] for _, _, before, _, _ in rows):
        alone = [[*where, *value] for _, where, _, value, _ in shown]
        return "**Slices**\n\n" + _table(["slice", "rows", "metric", "challenger"], alone, left_out)
    head = ["slice", "rows", "metric", "champion", "challenger", "change", ""]
    both = [[*where, *before, *value, *change] for _, where, before, value, change in shown]
    return f"**Slices**, the largest losses first; {_BOLD}\n\n" + _table(head, both, left_out)


def _data_line(evaluation: Mapping[str, Any], link: str | None) -> str:
    if not evaluation:
        return "There was no evaluation."
    data = evaluation.get("data")
    what = (
        f"artifact {code(data['name'])}, version {code(data['version_id'])}"
        if data
        else "data without a version"
    )
    said = f"**Data**: {what}, {int(evaluation.get('rows') or 0)} rows"
    if evaluation.get("effective_at"):
        said += f", data time {escape(str(evaluation['effective_at'])[:16].replace('T', ' '))}"
    if evaluation.get("leakage"):
        said += f"; leakage that was allowed: {escape('; '.join(evaluation['leakage']))}"
    return f"{said}. {_link('Evaluation in MLflow', link)}" if link else f"{said}."


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
