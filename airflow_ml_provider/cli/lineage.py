# SPDX-License-Identifier: Apache-2.0
"""``airflow ml lineage``: what made a thing, what came from it, and what changed between two models."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow.cli.simple_table import AirflowConsole
from rich.markup import escape
from rich.tree import Tree

from airflow_ml_provider.cli.console import cell, command, show_document, show_rows
from airflow_ml_provider.lineage.graph import ASSET, EVENT, MODEL, RUN, TASK, VERSION, Lineage

if TYPE_CHECKING:
    from airflow_ml_provider.lineage.blast import Blast
    from airflow_ml_provider.lineage.diff import ModelDiff
    from airflow_ml_provider.lineage.graph import Graph, Node

_MOST_SHOWN = 20
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


@command
def show_upstream(args: Namespace) -> int:
    """Print what made a version, model, evaluation or attempt."""
    return _walk(args, "up")


@command
def show_downstream(args: Namespace) -> int:
    """Print what came from a version, model, evaluation or attempt."""
    return _walk(args, "down")


@command
def show_blast(args: Namespace) -> int:
    """Print everything that came from a bad version, and the commands that make it again."""
    from airflow_ml_provider.lineage.blast import blast_radius

    lineage = _lineage()
    blast = blast_radius(lineage, _find(lineage, args), limit=args.limit)
    if args.output == "table":
        _show_blast(blast)
    elif args.output == "plain":
        for line in blast.commands:
            if line.purpose == "clear":
                print(line.shell)
    else:
        show_document(blast.to_json(), args.output)
    for note in blast.notes:
        _say(note)
    return 0


@command
def show_diff(args: Namespace) -> int:
    """Print what changed between two models."""
    from airflow_ml_provider.lineage.diff import SECTIONS, diff_models

    found = diff_models(_lineage(), args.before, args.after)
    if args.output in ("json", "yaml"):
        show_document(found.to_json(), args.output)
        return 0
    if args.output == "plain":
        show_rows([row for name in SECTIONS for row in _flat(name, getattr(found, name))], "plain")
    else:
        _show_diff(found)
    for note in found.notes:
        _say(note)
    return 0


def _lineage() -> Lineage:
    from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook

    return Lineage(ArtifactStoreHook().store)


def _find(lineage: Lineage, args: Namespace) -> str:
    return lineage.find(args.what, as_of=args.as_of, clock=args.clock)


def _walk(args: Namespace, direction: Any) -> int:
    lineage = _lineage()
    root = _find(lineage, args)
    graph = lineage.explore(
        root, direction=direction, depth=args.depth, limit=args.limit, events=not args.no_events
    )
    if args.output == "table":
        AirflowConsole().print(_tree(graph, root, up=direction == "up"))
    elif args.output == "plain":
        show_rows([_row(node) for node in graph.nodes], "plain")
    else:
        show_document(graph.to_json(), args.output)
    if graph.truncated:
        _say(f"there are more than {args.limit} nodes; use --limit or --depth")
    if gone := sum(1 for node in graph.nodes if node.missing):
        _say(f"broken links: {gone}")
    return 0


def _tree(graph: Graph, root: str, *, up: bool) -> Tree:
    """Draw a graph from its root on; what stands in it twice is drawn out once."""
    nodes = {node.id: node for node in graph.nodes}
    around: dict[str, list[tuple[str, str]]] = {}
    for edge in graph.edges:
        here, there = (edge.target, edge.source) if up else (edge.source, edge.target)
        around.setdefault(here, []).append((edge.kind, there))
    tree = Tree(_line(nodes[root]))
    drawn = {root}
    pending = [(root, tree)]
    for node_id, branch in pending:  # breadth first, so that a node is drawn out where it is nearest
        for kind, other in around.get(node_id, ()):
            how = f"[dim]{escape(kind)}[/dim] "
            if other in drawn:
                branch.add(
                    f"{how}[bold]{escape(_title(nodes[other]))}[/bold] [dim](it is in here already)[/dim]"
                )
                continue
            drawn.add(other)
            pending.append((other, branch.add(how + _line(nodes[other]))))
        node = nodes[node_id]
        if node.more_up if up else node.more_down:
            branch.add("[dim]...[/dim]")
    return tree


def _line(node: Node) -> str:
    text = f"[bold]{escape(_title(node))}[/bold]"
    facts = ", ".join(_facts(node))
    if facts:
        text += f" {escape(facts)}"
    return f"{text} [red]{escape(node.missing)}[/red]" if node.missing else text


def _title(node: Node) -> str:
    if node.kind == TASK:
        return f"{node.dag_id}.{node.label}"
    if node.kind == MODEL:
        return f"model {node.label}"
    if node.kind == EVENT:
        return f"event of {node.label}"
    if node.kind == RUN:
        return f"run {node.label} of {node.dag_id}"
    return f"asset {node.label}" if node.kind == ASSET else node.label


def _facts(node: Node) -> Iterator[str]:
    tell = {VERSION: _of_version, TASK: _of_attempt, MODEL: _of_model}.get(node.kind, _of_others)
    yield from (fact for fact in tell(node) if fact)
    for name, value in list(node.metrics.items())[:3]:
        yield f"{name} {_number(value)}"


def _of_version(node: Node) -> Iterator[str | None]:
    yield "prediction" if node.prediction else None
    yield None if node.size_bytes is None else _size(node.size_bytes)
    yield f"data of {_short(node.effective_at)}"
    yield f"written {_short(node.recorded_at)}"
    yield f"version {node.version_id}"


def _of_attempt(node: Node) -> Iterator[str | None]:
    yield f"in {node.run_id}"
    yield f"try {node.try_number}"
    yield node.outcome
    yield "reused" if (node.details.get("cached") or {}).get("hit") else None
    yield (node.details.get("decision") or {}).get("verdict")
    yield node.details.get("error")


def _of_model(node: Node) -> Iterator[str | None]:
    yield node.model_id if node.registered_model_name else None
    yield f"data of {_short(node.effective_at)}" if node.effective_at else None


def _of_others(node: Node) -> Iterator[str | None]:
    yield f"version {node.version}" if node.version else None
    yield f"data of {_short(node.effective_at)}" if node.effective_at else None


def _row(node: Node) -> dict[str, Any]:
    return {
        "kind": node.kind,
        "node": node.id,
        "title": _title(node),
        "dag_id": node.dag_id,
        "run_id": node.run_id,
        "task_id": node.task_id,
        "effective_at": node.effective_at,
        "recorded_at": node.recorded_at,
        "missing": node.missing,
    }


def _show_blast(blast: Blast) -> None:
    console = AirflowConsole()
    console.print(f"Came from {_line(blast.root)}")
    if blast.origin is not None:
        console.print(f"made by {_line(blast.origin)}")
    for title, nodes in (
        ("Models", blast.models),
        ("Evaluations", blast.evaluations),
        ("Predictions", blast.predictions),
        ("Other versions", blast.versions),
    ):
        console.print(f"\n{title}: {len(nodes)}", style="bold")
        for node in nodes[:_MOST_SHOWN]:
            console.print(f"  {_line(node)}")
        if len(nodes) > _MOST_SHOWN:
            console.print(f"  and {len(nodes) - _MOST_SHOWN} more; see --output json")
    for alias in blast.aliases:
        said = (
            f"{alias['registered_model_name']}@{alias['alias']} points at version {alias['version']} of these"
        )
        console.print(f"[red]{escape(said)}[/red], since {_short(alias['since'])}")
    console.print(f"\nDAG runs: {len(blast.runs)}", style="bold")
    if blast.runs:
        show_rows([run.to_json() for run in blast.runs[:_MOST_SHOWN]], "table")
    for run in blast.started[:_MOST_SHOWN]:
        console.print(escape(f"started by an event of these: {run['run_id']} of {run['dag_id']}"))
    for purpose, title in (
        ("origin", "To make the bad version again, once its cause is mended"),
        ("clear", "To make again what came from it, in the same runs"),
        ("backfill", "Or as backfills, which move no alias"),
    ):
        lines = [line for line in blast.commands if line.purpose == purpose]
        if lines:
            console.print(f"\n{title}:", style="bold")
        for line in lines:
            # Not through rich, which would break a command into lines.
            print(line.shell)
            if line.note and purpose != "backfill":
                print(f"  # {line.note}")
        sys.stdout.flush()


def _show_diff(found: ModelDiff) -> None:
    from airflow_ml_provider.lineage.diff import SECTIONS

    console = AirflowConsole()
    console.print(f"before {_line(found.before)}")
    console.print(f"after  {_line(found.after)}")
    for name in SECTIONS:
        rows = list(_flat(name, getattr(found, name)))
        if rows:
            console.print(f"\n{name}", style="bold")
            show_rows(
                [{key: value for key, value in row.items() if key != "section"} for row in rows], "table"
            )
    if found.source:
        console.print("\nsource", style="bold")
        print(found.source)
    if found.same:
        console.print(f"\nthe same: {', '.join(found.same)}")


def _flat(section: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Give the rows of a section the same keys: what, before and after."""
    for row in rows:
        if section != "data":
            what = ".".join(str(row[key]) for key in ("name", "what", "part") if row.get(key))
            yield _difference(section, what, row["before"], row["after"])
            continue
        ids = [None if side is None else side["version_id"] for side in (row["before"], row["after"])]
        content = "same content" if row["same_content"] else "content"
        yield _difference(section, f"{row['name']} ({content})", *ids)
        if row["rows"]:
            yield _difference(section, f"{row['name']} rows", row["rows"]["before"], row["rows"]["after"])
        for column in row["schema"]:
            what = f"{row['name']}.{column['column']} type"
            yield _difference(section, what, column["before"], column["after"])
        for column in row["statistics"]:
            what = f"{row['name']}.{column['column']} {column['name']}"
            yield _difference(section, what, column["before"], column["after"])


def _difference(section: str, what: str, before: Any, after: Any) -> dict[str, Any]:
    return {"section": section, "what": what, "before": _number(before), "after": _number(after)}


def _number(value: Any) -> str:
    if isinstance(value, str) and value.startswith("blake3:"):
        return value[:19]
    return f"{value:.6g}" if isinstance(value, float) else cell(value)


def _short(when: str | None) -> str:
    return "" if when is None else f"{when[:19]}Z" if when.endswith("+00:00") else when


def _size(number: float) -> str:
    for unit in _UNITS[:-1]:
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} {_UNITS[-1]}"


def _say(text: str) -> None:
    sys.stdout.flush()
    print(text, file=sys.stderr)
