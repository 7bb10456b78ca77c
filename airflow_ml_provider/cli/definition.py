# SPDX-License-Identifier: Apache-2.0
"""
The commands of ``airflow ml``.

Airflow imports this module at every CLI call, so the commands themselves are imported when they run.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from datetime import UTC, datetime

from airflow.cli.cli_config import (
    ARG_OUTPUT,
    ARG_VERBOSE,
    ActionCommand,
    Arg,
    CLICommand,
    GroupCommand,
    lazy_load_command,
    positive_int,
)

_EXIT_CODES = "Exit code: 0 done; 1 it failed or a check did; 2 wrong arguments; 3 no such artifact or model."


def moment(text: str) -> datetime:
    """Read a time; UTC where no zone is given."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ArgumentTypeError(f"not a time: {text!r}; give for example 2013-05-14T06:00:00+00:00") from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def not_negative(text: str) -> float:
    """Read a number of hours or days: 0 or more."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1e6:
        raise ArgumentTypeError(f"not a number from 0 to 1,000,000: {text!r}")
    return number


ARG_STRICT = Arg(("--strict",), help="Exit with 1 on warnings too.", action="store_true")
ARG_NAME = Arg(("name",), help="Name of the artifact.")
ARG_OPTIONAL_NAME = Arg(("name",), nargs="?", help="Name of the artifact; without it, all of them.")
ARG_VERSION = Arg(("--version",), help="Version id; the newest version if not given.")
ARG_AS_OF = Arg(
    ("--as-of",),
    help="The version that was current at this time, e.g. 2013-05-14 or 2013-05-14T06:00:00+00:00 "
    "(UTC where no zone is given).",
    type=moment,
)
ARG_CLOCK = Arg(
    ("--clock",),
    help="Which time --as-of means: data, the time a version speaks for, or wall, when it was written "
    "(default: data).",
    choices=("data", "wall"),
    default="data",
)
ARG_LIMIT = Arg(
    ("--limit",),
    help="Show or check this many names, versions or moves (default: 100).",
    type=positive_int(allow_zero=False),
    default=100,
)
ARG_TO = Arg(
    ("--to",),
    help="File or directory to write, or an existing directory to write into (default: here). A table is "
    "converted if the name ends in .csv or .parquet.",
    default=".",
)
ARG_FORCE = Arg(("--force",), help="Replace what is there.", action="store_true")
ARG_DELETE = Arg(("--delete",), help="Do it; without it, only say what would go.", action="store_true")
ARG_KEEP_LAST = Arg(
    ("--keep-last",),
    help="Keep so many versions of each name, and let older ones go.",
    type=positive_int(allow_zero=False),
)
ARG_KEEP_DAYS = Arg(
    ("--keep-days",),
    help="Keep versions written in the last so many days, and let older ones go. With --keep-last, a "
    "version stays if either keeps it.",
    type=not_negative,
)
ARG_NAMES = Arg(
    ("--name",),
    help="Let go only versions of names that match this pattern, such as 'training.*'; may be repeated.",
    action="append",
)
ARG_EXCLUDE = Arg(
    ("--exclude",),
    help="Keep all versions of names that match this pattern; may be repeated.",
    action="append",
)
ARG_GRACE_HOURS = Arg(
    ("--grace-hours",),
    help="Delete nothing younger; longer than any task takes to store what it returns (default: 24).",
    type=not_negative,
    default=24.0,
)

ARTIFACTS_COMMANDS = (
    ActionCommand(
        name="list",
        help="List artifacts, or the versions of one",
        description="List the names of artifacts, each with its newest version; or the versions of one, "
        "newest first.",
        epilog=_EXIT_CODES,
        func=lazy_load_command("airflow_ml_provider.cli.artifacts.list_artifacts"),
        args=(ARG_OPTIONAL_NAME, ARG_LIMIT, ARG_OUTPUT, ARG_VERBOSE),
    ),
    ActionCommand(
        name="show",
        help="Show a version: what it is, who made it, who read it",
        epilog=_EXIT_CODES,
        func=lazy_load_command("airflow_ml_provider.cli.artifacts.show_artifact"),
        args=(ARG_NAME, ARG_VERSION, ARG_AS_OF, ARG_CLOCK, ARG_LIMIT, ARG_OUTPUT, ARG_VERBOSE),
    ),
    ActionCommand(
        name="get",
        help="Write a version to a file or directory",
        epilog=_EXIT_CODES,
        func=lazy_load_command("airflow_ml_provider.cli.artifacts.get_artifact"),
        args=(ARG_NAME, ARG_VERSION, ARG_AS_OF, ARG_CLOCK, ARG_TO, ARG_FORCE, ARG_VERBOSE),
    ),
    ActionCommand(
        name="verify",
        help="Compare stored bytes and manifests with their hashes and signatures",
        description="Read versions back and compare their bytes with the hash and their manifest with the "
        "signature: one version, the versions of a name, or the newest version of every name.",
        epilog=_EXIT_CODES,
        func=lazy_load_command("airflow_ml_provider.cli.artifacts.verify_artifacts"),
        args=(ARG_OPTIONAL_NAME, ARG_VERSION, ARG_LIMIT, ARG_OUTPUT, ARG_VERBOSE),
    ),
)

ARG_MODEL = Arg(("name",), help="Name of the registered model.")
ARG_ALIAS = Arg(("--alias",), help="The alias (default: champion).", default="champion")
ARG_WHEN = Arg(
    ("when",),
    help="A time, e.g. 2013-05-14 or 2013-05-14T06:00:00+00:00 (UTC where no zone is given).",
    type=moment,
)
ARG_MOVE_CLOCK = Arg(
    ("--clock",),
    help="Which time of a move counts: data, the data time from which it counts, or wall, when it was made "
    "(default: data).",
    choices=("data", "wall"),
    default="data",
)

MODELS_COMMANDS = (
    ActionCommand(
        name="list",
        help="List the aliases that moved, and where they point",
        description="List the aliases that ever moved, by the ledger, and where they point since.",
        epilog=_EXIT_CODES,
        func=lazy_load_command("airflow_ml_provider.cli.models.list_models"),
        args=(ARG_OUTPUT, ARG_VERBOSE),
    ),
    ActionCommand(
        name="history",
        help="Show who moved an alias, when, from where to where, and why",
        epilog=_EXIT_CODES,
        func=lazy_load_command("airflow_ml_provider.cli.models.show_history"),
        args=(ARG_MODEL, ARG_ALIAS, ARG_MOVE_CLOCK, ARG_LIMIT, ARG_OUTPUT, ARG_VERBOSE),
    ),
    ActionCommand(
        name="as-of",
        help="Show where an alias pointed at a time",
        epilog=_EXIT_CODES,
        func=lazy_load_command("airflow_ml_provider.cli.models.show_as_of"),
        args=(ARG_MODEL, ARG_WHEN, ARG_ALIAS, ARG_MOVE_CLOCK, ARG_OUTPUT, ARG_VERBOSE),
    ),
)

ML_COMMANDS = (
    ActionCommand(
        name="doctor",
        help="Check that this machine is set up: options, storage, MLflow, signing key",
        description="Check the options of [ml_provider], the XCom backend, the listener, the signing key, "
        "that the artifact store can be written, read and deleted from, and that MLflow answers; say what to "
        "fix.",
        epilog=_EXIT_CODES,
        func=lazy_load_command("airflow_ml_provider.cli.doctor.doctor"),
        args=(ARG_STRICT, ARG_OUTPUT, ARG_VERBOSE),
    ),
    ActionCommand(
        name="gc",
        help="Delete versions that retention lets go, and content that nobody refers to",
        description="Say which versions retention lets go, which content nobody refers to, and why; with "
        "--delete, remove them. Without --keep-last or --keep-days every version stays. The newest version "
        "of a name, what a cache entry names, what a kept version holds, what open runs use and what "
        "trained a model that an alias points at always stay.",
        epilog=_EXIT_CODES,
        func=lazy_load_command("airflow_ml_provider.cli.gc.collect_garbage"),
        args=(
            ARG_DELETE,
            ARG_KEEP_LAST,
            ARG_KEEP_DAYS,
            ARG_NAMES,
            ARG_EXCLUDE,
            ARG_GRACE_HOURS,
            ARG_OUTPUT,
            ARG_VERBOSE,
        ),
    ),
    GroupCommand(name="artifacts", help="Look at stored artifacts", subcommands=ARTIFACTS_COMMANDS),
    GroupCommand(name="models", help="Look at the history of models", subcommands=MODELS_COMMANDS),
)


def get_ml_cli_commands() -> list[CLICommand]:
    """Return the group ``ml``; named in the provider info."""
    return [
        GroupCommand(
            name="ml",
            help="Artifacts and models of airflow-ml-provider",
            subcommands=ML_COMMANDS,
        )
    ]
