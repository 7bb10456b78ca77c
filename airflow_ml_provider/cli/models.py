# SPDX-License-Identifier: Apache-2.0
"""``airflow ml models``: what the ledger knows of registered models."""

from __future__ import annotations

import sys
from argparse import Namespace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_ml_provider.cli.console import command, show_document, show_rows
from airflow_ml_provider.client import MLClient
from airflow_ml_provider.exceptions import ModelNotFoundError
from airflow_ml_provider.tracking.ledger import actor_text

if TYPE_CHECKING:
    from airflow_ml_provider.tracking.ledger import AliasMove


@command
def list_models(args: Namespace) -> int:
    """Print each alias that ever moved, and where it points since its latest move."""
    client, now = MLClient(), datetime.now(UTC)
    rows = []
    for name, alias in client.ledger.aliases():
        move = client.model(name).as_of(alias, now, clock="wall")
        if move is not None:
            rows.append({"name": name, "alias": alias, **_row(move)})
    show_rows(rows, args.output)
    return 0


@command
def show_history(args: Namespace) -> int:
    """Print the moves of an alias, the latest first."""
    client = MLClient()
    moves = client.model(args.name).history(args.alias, limit=args.limit + 1, clock=args.clock)
    turn = client.ledger.latest_turn(args.name, args.alias)
    unfinished = turn is not None and not client.ledger.is_recorded(turn)
    if not moves and not unfinished:
        raise ModelNotFoundError(_never_moved(client, args.name, args.alias))
    shown = moves[: args.limit]
    if args.output in ("table", "plain"):
        show_rows([{**_row(move), "reasons": "; ".join(move.reasons)} for move in shown], args.output)
    else:
        show_rows([move.to_json() for move in shown], args.output)
    if unfinished:
        print(f"not finished: {turn}; a retry of its task or the next move finishes it", file=sys.stderr)
    if len(moves) > args.limit:
        print(f"there are more than {args.limit}; use --limit", file=sys.stderr)
    return 0


@command
def show_as_of(args: Namespace) -> int:
    """Print the move that decided where an alias pointed at a time."""
    client = MLClient()
    move = client.model(args.name).as_of(args.alias, args.when, clock=args.clock)
    if move is None:
        when = f"{args.when.isoformat()} in {args.clock} time"
        raise ModelNotFoundError(
            f"{args.name}@{args.alias} pointed at nothing as of {when}: "
            f"{_never_moved(client, args.name, args.alias)}"
        )
    if args.output in ("table", "plain"):
        document: dict[str, Any] = {
            "model_uri": move.model_uri,
            **_row(move),
            "reasons": "\n".join(move.reasons),
            "metrics": move.metrics,
            "mlflow_run_id": move.mlflow_run_id,
        }
    else:
        document = {"model_uri": move.model_uri, **move.to_json()}
    show_document(document, args.output)
    return 0


def _row(move: AliasMove) -> dict[str, Any]:
    return {
        "version": move.version,
        "previous": move.previous_version,
        "kind": move.kind,
        "effective_at": move.effective_at.isoformat(),
        "recorded_at": move.recorded_at.isoformat(timespec="seconds"),
        "by": actor_text(move.actor),
    }


def _never_moved(client: MLClient, name: str, alias: str) -> str:
    first = client.model(name).history(alias)[-1:]
    if first:
        return f"its first move counts from {first[0].effective_at.isoformat()} on"
    aliases = ", ".join(client.model(name).aliases())
    if aliases:
        return f"the ledger knows no move of {name}@{alias}; aliases of {name!r}: {aliases}"
    return f"the ledger knows no move of {name}@{alias}; models: airflow ml models list"
