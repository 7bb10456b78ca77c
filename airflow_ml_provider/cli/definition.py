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

_EXIT_CODES = (
    "Exit code: 0 done; 1 it failed or a check did; 2 wrong arguments; 3 no such artifact, run or model; "
    "4 the storage or MLflow does not answer."
)


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
ARG_SEARCH = Arg(("--search",), help="Only artifacts whose names contain this, in any case.")
ARG_CHECKPOINTS = Arg(
    ("--checkpoints",), help="List those of ml.checkpoint() too, where no name is given.", action="store_true"
)
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
ARG_CHECKPOINT_DAYS = Arg(
    ("--checkpoint-days",),
    help="Let checkpoints of tasks that did not succeed go so many days after they were saved, unless their "
    "run is open (default: default_retention_days of the section state_store, after which Airflow forgets "
    "them; where that is 0 they stay).",
    type=not_negative,
)
ARG_RECORDS_DAYS = Arg(
    ("--records-days",),
    help="Let the records of runs go that wrote none for so many days, with the lists that they are in. What "
    "wrote a version that stays, or made a model that an alias points at, keeps its record (default: all "
    "stay).",
    type=not_negative,
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
        args=(ARG_OPTIONAL_NAME, ARG_SEARCH, ARG_CHECKPOINTS, ARG_LIMIT, ARG_OUTPUT, ARG_VERBOSE),
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

ARG_DAG_ID = Arg(("dag_id",), help="Id of the DAG.")
ARG_TASK_ID = Arg(("task_id",), help="Id of the task.")
ARG_RUN_IDS = Arg(
    ("run_id",),
    nargs="*",
    help="Runs to compare, the earlier one first. One is compared with the run before it; without any, the "
    "latest two are.",
)
ARG_ALL_FACTS = Arg(("--all",), help="Show what is the same too.", action="store_true")
ARG_RUN_LIMIT = Arg(
    ("--limit",),
    help="Look at this many of the latest runs (default: 20).",
    type=positive_int(allow_zero=False),
    default=20,
)
ARG_MAP_INDEX = Arg(("--map-index",), help="Of a mapped task this instance.", type=int, default=-1)
ARG_RUN = Arg(
    ("--run",),
    help="Compare the key of this run with the last one that was computed under, in place of the code as it "
    "is here and now.",
)

ARG_CLOSE = Arg(("--close",), help="Do it; without it, only say what would be closed.", action="store_true")
ARG_EXPERIMENT = Arg(
    ("--experiment",),
    help="Look only at this MLflow experiment; may be repeated (default: all).",
    action="append",
)
ARG_OLDER_THAN_MINUTES = Arg(
    ("--older-than-minutes",),
    help="Leave MLflow runs alone that began later than so long ago (default: 5).",
    type=not_negative,
    default=5.0,
)
ARG_UNKNOWN = Arg(
    ("--unknown",),
    help="Also those whose task instance this Airflow does not know, because its run was deleted. Not where "
    "several Airflows share the MLflow server.",
    action="store_true",
)

RUNS_COMMANDS = (
    ActionCommand(
        name="list",
        help="List the runs of a DAG and what they measured",
        description="List the runs of a DAG that left records, the latest first, and what they measured.",
        epilog=_EXIT_CODES,
        func=lazy_load_command("airflow_ml_provider.cli.runs.list_runs"),
        args=(ARG_DAG_ID, ARG_RUN_LIMIT, ARG_OUTPUT, ARG_VERBOSE),
    ),
    ActionCommand(
        name="compare",
        help="Show what differs between runs of a DAG",
        description="Show what differs between runs of a DAG: parameters, metrics, versions of artifacts (by "
        "content), models, code, environment, outcomes.",
        epilog=_EXIT_CODES,
        func=lazy_load_command("airflow_ml_provider.cli.runs.compare_runs"),
        args=(ARG_DAG_ID, ARG_RUN_IDS, ARG_ALL_FACTS, ARG_OUTPUT, ARG_VERBOSE),
    ),
    ActionCommand(
        name="sweep",
        help="Close MLflow runs that lost workers left open",
        description="Show the MLflow runs that are open although their task instance is over or waits for "
        "its next try, as after the loss of a machine; with --close, close them. --verbose shows those that "
        "stay open too. It asks the metadata database; SweepRunsOperator does the same in a DAG.",
        epilog=_EXIT_CODES,
        func=lazy_load_command("airflow_ml_provider.cli.sweep.sweep_runs"),
        args=(ARG_CLOSE, ARG_EXPERIMENT, ARG_OLDER_THAN_MINUTES, ARG_UNKNOWN, ARG_OUTPUT, ARG_VERBOSE),
    ),
)

ARG_CACHE_DAG = Arg(
    ("--dag",), help="Entries of DAGs whose ids match this pattern; may be repeated.", action="append"
)
ARG_CACHE_TASK = Arg(
    ("--task",), help="Entries of tasks whose ids match this pattern; may be repeated.", action="append"
)
ARG_CACHE_NAME = Arg(
    ("--name",),
    help="Entries with an artifact whose name matches this pattern; may be repeated.",
    action="append",
)
ARG_OLDER_THAN_DAYS = Arg(
    ("--older-than-days",), help="Entries that were computed so many days ago or earlier.", type=not_negative
)
ARG_ALL_ENTRIES = Arg(("--all",), help="Every entry.", action="store_true")

CACHE_COMMANDS = (
    ActionCommand(
        name="explain",
        help="Show why a cached task computed or did not",
        description="Show what a task marked @ml.cached reused or computed in its latest runs and why, and "
        "what the code as it is here and now, or one run, has in its key that the last computation had not.",
        epilog=_EXIT_CODES,
        func=lazy_load_command("airflow_ml_provider.cli.cache.explain_cache"),
        args=(
            ARG_DAG_ID,
            ARG_TASK_ID,
            ARG_MAP_INDEX,
            ARG_RUN,
            ARG_RUN_LIMIT,
            ARG_OUTPUT,
            ARG_VERBOSE,
        ),
    ),
    ActionCommand(
        name="clear",
        help="Forget stored results, so that their tasks compute again",
        description="Say which entries of the cache would be forgotten; with --delete, forget them. An entry "
        "goes if all that is given fits it. The artifacts stay until garbage collection lets them go.",
        epilog=_EXIT_CODES,
        func=lazy_load_command("airflow_ml_provider.cli.cache.clear_cache"),
        args=(
            ARG_CACHE_DAG,
            ARG_CACHE_TASK,
            ARG_CACHE_NAME,
            ARG_OLDER_THAN_DAYS,
            ARG_ALL_ENTRIES,
            ARG_DELETE,
            ARG_OUTPUT,
            ARG_VERBOSE,
        ),
    ),
)

ARG_WHAT = Arg(
    ("what",),
    help="An artifact by its name (the newest version) or as ml-artifact://<name>?version=<id>; a model as "
    "models:/<name>/<version>, models:/<name>@<alias> or models:/m-<id>; an attempt as "
    "<dag>/<run>/<task>, with /<map index> and /<try> where needed; or the id of a node as --output json "
    "gives it.",
)
ARG_DEPTH = Arg(
    ("--depth",),
    help="Go so many steps away at most (default: to the end).",
    type=positive_int(allow_zero=True),
)
ARG_NODES = Arg(
    ("--limit",),
    help="Show this many nodes at most (default: 500).",
    type=positive_int(allow_zero=False),
    default=500,
)
ARG_BLAST_NODES = Arg(
    ("--limit",),
    help="Look at this many nodes at most (default: 5000).",
    type=positive_int(allow_zero=False),
    default=5000,
)
ARG_NO_EVENTS = Arg(
    ("--no-events",), help="Follow data alone, not the asset events that started runs.", action="store_true"
)
ARG_BEFORE = Arg(
    ("before",), help="A model, such as models:/flight_delay/2 or models:/flight_delay@champion."
)
ARG_AFTER = Arg(("after",), help="The model to compare it with.")

_WALK_ARGS = (
    ARG_WHAT,
    ARG_AS_OF,
    ARG_CLOCK,
    ARG_DEPTH,
    ARG_NODES,
    ARG_NO_EVENTS,
    ARG_OUTPUT,
    ARG_VERBOSE,
)

LINEAGE_COMMANDS = (
    ActionCommand(
        name="up",
        help="Show what made a version, model or evaluation",
        description="Show what made a version, a model, an evaluation or an attempt: tasks, data, models and "
        "the asset events that started their runs.",
        epilog=_EXIT_CODES,
        func=lazy_load_command("airflow_ml_provider.cli.lineage.show_upstream"),
        args=_WALK_ARGS,
    ),
    ActionCommand(
        name="down",
        help="Show what came from a version, model or evaluation",
        description="Show what came from a version, a model, an evaluation or an attempt, across DAGs and "
        "runs.",
        epilog=_EXIT_CODES,
        func=lazy_load_command("airflow_ml_provider.cli.lineage.show_downstream"),
        args=_WALK_ARGS,
    ),
    ActionCommand(
        name="blast",
        help="Show all that came from a bad version, and the commands that make it again",
        description="Show every model, prediction, evaluation and DAG run into which a bad version flowed, "
        "and the commands of Airflow that clear or backfill those; --output plain gives those that clear.",
        epilog=_EXIT_CODES,
        func=lazy_load_command("airflow_ml_provider.cli.lineage.show_blast"),
        args=(ARG_WHAT, ARG_AS_OF, ARG_CLOCK, ARG_BLAST_NODES, ARG_OUTPUT, ARG_VERBOSE),
    ),
    ActionCommand(
        name="diff",
        help="Show what changed between two models",
        description="Show what changed between two models: code, parameters, data, packages, metrics, "
        "evaluations and the tasks before their trainings.",
        epilog=_EXIT_CODES,
        func=lazy_load_command("airflow_ml_provider.cli.lineage.show_diff"),
        args=(ARG_BEFORE, ARG_AFTER, ARG_OUTPUT, ARG_VERBOSE),
    ),
)

ML_COMMANDS = (
    ActionCommand(
        name="doctor",
        help="Check that this machine is set up: options, storage, MLflow, signing key, webhook",
        description="Check the options of the section ml_provider, the XCom backend, the listener, the "
        "signing key, that the artifact store can be written, read and deleted from, that MLflow answers, "
        "and that its webhooks arrive; say what to fix.",
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
        "trained a model that an alias points at always stay. With --records-days, old records go too.",
        epilog=_EXIT_CODES,
        func=lazy_load_command("airflow_ml_provider.cli.gc.collect_garbage"),
        args=(
            ARG_DELETE,
            ARG_KEEP_LAST,
            ARG_KEEP_DAYS,
            ARG_NAMES,
            ARG_EXCLUDE,
            ARG_CHECKPOINT_DAYS,
            ARG_RECORDS_DAYS,
            ARG_GRACE_HOURS,
            ARG_OUTPUT,
            ARG_VERBOSE,
        ),
    ),
    GroupCommand(name="artifacts", help="Look at stored artifacts", subcommands=ARTIFACTS_COMMANDS),
    GroupCommand(name="models", help="Look at the history of models", subcommands=MODELS_COMMANDS),
    GroupCommand(name="lineage", help="Look at what made what", subcommands=LINEAGE_COMMANDS),
    GroupCommand(name="runs", help="Look at what DAG runs measured", subcommands=RUNS_COMMANDS),
    GroupCommand(name="cache", help="Look into the cache of @ml.cached", subcommands=CACHE_COMMANDS),
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
