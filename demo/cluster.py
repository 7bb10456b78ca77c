# SPDX-License-Identifier: Apache-2.0
"""
A real Airflow and a real MLflow server on this machine, in one folder.

``LocalCluster`` starts the four components of Airflow (api-server, scheduler, dag-processor, triggerer) and
an MLflow server under one supervisor process (``demo.supervisor``), on loopback ports, with SQLite and the
LocalExecutor. Nothing of it outlives the cluster, not even when this process is killed.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil  # type: ignore[import-untyped, unused-ignore]

from demo import mlflow_server, supervisor
from demo.airflow_api import AirflowApi
from demo.errors import AlreadyRunningError, ApiError, ComponentDiedError, ImportFailedError, StalledError
from demo.ports import LOOPBACK, free_ports, require_free

ROOT = Path(__file__).resolve().parent.parent
STATE_FILE = "cluster.json"
COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
LOG_TAIL = 30  # lines
START_TIMEOUT = 180.0  # seconds; 30 are usual on two free cores
STOP_TIMEOUT = 60.0  # seconds; far above the graces of the supervisor
POLL_INTERVAL = 0.25  # seconds

# What a task of the examples imports anyway. The scheduler's forkserver imports it once, and each task then
# starts with it, instead of spending 5 s on imports: Airflow's own option for this, new in 3.3.
PRELOADED = (
    "skops.io",  # first: it asks every module loaded before it for the names of a thousand functions
    "airflow.executors.local_executor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.sdk.execution_time.supervisor",
    "airflow_ml_provider.xcom.backend",
    "pandas",
    "pyarrow.parquet",
    "sklearn.ensemble",
    "sklearn.metrics",
    "mlflow.sklearn",
    "mlflow.models",
    "mlflow.data",
)


class LocalCluster:
    """
    One Airflow and one MLflow server.

    :param folder: Where everything of it is kept; must be absent, empty or left by an earlier cluster.
    :param dags_folder: The DAG files that it runs.
    :param airflow_port: Port of the api-server; a free one by default.
    :param mlflow_port: Port of MLflow; a free one by default.
    :param parallelism: Tasks that run at the same time.
    :param environment: More variables for every component.
    :raises PortTakenError: if a port that was asked for is in use.
    """

    def __init__(
        self,
        folder: Path,
        dags_folder: Path,
        *,
        airflow_port: int | None = None,
        mlflow_port: int | None = None,
        parallelism: int = 3,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder.resolve()
        self.dags_folder = dags_folder.resolve()
        free = free_ports(3)
        self._unused_port = free[2]
        self.airflow_port = require_free(airflow_port, "Airflow") if airflow_port else free[0]
        self.mlflow_port = require_free(mlflow_port, "MLflow") if mlflow_port else free[1]
        self.airflow_url = f"http://{LOOPBACK}:{self.airflow_port}"
        self.mlflow_url = f"http://{LOOPBACK}:{self.mlflow_port}"
        self.parallelism = parallelism
        self.extra_environment = dict(environment or {})
        self.airflow = AirflowApi(self.airflow_url)
        self.pids: dict[str, int] = {}
        self._exits: dict[str, int] = {}
        self._once: set[str] = set()
        self._kept = threading.Event()
        self._changed = threading.Condition()
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._fernet_key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()

    @property
    def artifacts(self) -> Path:
        return self.folder / "artifacts"

    @property
    def home(self) -> Path:
        return self.folder / "airflow"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def fernet_key(self) -> str:
        """The secret from which the provider derives its signing key."""
        return self._fernet_key

    def environment(self) -> dict[str, str]:
        """Return the variables of every component; nothing of the caller's own Airflow or MLflow gets in."""
        loopback = f"{LOOPBACK},localhost"
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AIRFLOW_", "_AIRFLOW_", "MLFLOW_", "PYTEST_"))
        }
        connection = {"conn_type": "mlflow", "host": self.mlflow_url}
        return {
            **inherited,
            **mlflow_server.ENVIRONMENT,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "PYTHONUNBUFFERED": "1",
            "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY"), loopback])),
            "no_proxy": ",".join(filter(None, [os.environ.get("no_proxy"), loopback])),
            # A few cores are shared by all tasks; a pool of threads in each only makes them fight.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps(connection),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags_folder),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": str(self.parallelism),
            "AIRFLOW__CORE__FERNET_KEY": self._fernet_key,
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.airflow_url}/execution/",
            "AIRFLOW__CORE__XCOM_BACKEND": "airflow_ml_provider.xcom.backend.ArtifactXComBackend",
            "AIRFLOW__CORE__HOSTNAME_CALLABLE": "demo.ports.host_name",
            "AIRFLOW__ML_PROVIDER__ARTIFACT_ROOT": self.artifacts.as_uri(),
            # Seconds that a component waits for the writes of another, where SQLite's default is 5.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home / 'airflow.db'}?timeout=60",
            "AIRFLOW__API__HOST": LOOPBACK,
            "AIRFLOW__API__PORT": str(self.airflow_port),
            "AIRFLOW__API__BASE_URL": self.airflow_url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(64),
            # Nobody listens there (see start), so that the log server of another Airflow is not asked.
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(self._unused_port),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(self._unused_port),
            "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
            "AIRFLOW__SCHEDULER__MP_START_METHOD": "forkserver",
            "AIRFLOW__CORE__MP_FORKSERVER_PRELOAD": ",".join(PRELOADED),
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
            # The end of a task's process is noticed so many seconds late at most. By default 5: a task
            # that was deferred and resumed meanwhile is failed then (apache/airflow#72716).
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "15",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "60",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            **self.extra_environment,
        }

    def start(self, tell: Callable[[str], None] = lambda _: None) -> Self:
        """
        Start everything and wait until it answers.

        :param tell: Called with a short line for each step that is done.
        :raises AlreadyRunningError: if a cluster still runs in the folder.
        :raises ComponentDiedError: if a process ends by itself.
        :raises StalledError: if something does not answer in time.
        """
        if running_in(self.folder):
            raise AlreadyRunningError(f"a cluster still runs in {self.folder}; stop it first")
        wipe(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / STATE_FILE).write_text("{}\n")  # marks the folder as ours
        for each in (self.home, self.artifacts, self.logs, self.folder / "mlflow"):
            each.mkdir()
        environment = self.environment()
        try:
            self._start_supervisor()
            self._write_environment_file(environment)
            mlflow_folder = self.folder / "mlflow"
            command = mlflow_server.server_command(mlflow_folder, self.mlflow_port)
            self._start("mlflow", command, environment, last=True)
            self._run_once("db-migrate", airflow_command("db", "migrate"), environment)
            tell("metadata database made")
            for name in COMPONENTS:
                # Log servers would listen on every interface, and the api-server reads the files itself.
                quiet = ["--skip-serve-logs"] if name in ("scheduler", "triggerer") else []
                self._start(name, airflow_command(name, *quiet), environment)
            self._wait_until("MLflow answers", self._mlflow_answers)
            tell(f"MLflow answers at {self.mlflow_url}")
            self._wait_until("Airflow is healthy", self._airflow_is_healthy)
            tell(f"Airflow is healthy at {self.airflow_url}")
        except BaseException:
            self.stop()
            raise
        return self

    def _start_supervisor(self) -> None:
        token = secrets.token_hex(16)
        log = (self.logs / "supervisor.log").open("ab")
        with log:
            self._supervisor = subprocess.Popen(
                [sys.executable, "-m", "demo.supervisor"],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), supervisor.TREE_VARIABLE: token},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        state = {
            "pid": self._supervisor.pid,
            "create_time": psutil.Process(self._supervisor.pid).create_time(),
            "token": token,
            "owner": {"pid": os.getpid(), "create_time": psutil.Process().create_time()},
            "airflow": self.airflow_url,
            "mlflow": self.mlflow_url,
        }
        self._write_state(state)
        threading.Thread(target=self._listen, name="supervisor", daemon=True).start()

    def _write_state(self, state: Mapping[str, Any]) -> None:
        new = self.folder / f"{STATE_FILE}.new"
        new.write_text(json.dumps(state, indent=2) + "\n")
        new.replace(self.folder / STATE_FILE)

    def _write_environment_file(self, environment: Mapping[str, str]) -> None:
        """Leave what ``. airflow.env`` needs to use the CLI on this cluster."""
        prefixes = ("AIRFLOW", "MLFLOW", "PYTHONPATH", "NO_PROXY", "no_proxy")
        ours = {name: value for name, value in environment.items() if name.startswith(prefixes)}
        ours["MLFLOW_TRACKING_URI"] = self.mlflow_url
        path = self.folder / "airflow.env"
        path.touch(mode=0o600)
        path.write_text("".join(f"export {k}={shlex.quote(v)}\n" for k, v in sorted(ours.items())))

    def _listen(self) -> None:
        assert self._supervisor is not None
        assert self._supervisor.stdout is not None
        for line in self._supervisor.stdout:
            event = json.loads(line)
            with self._changed:
                match event["event"]:
                    case "started":
                        self.pids[event["name"]] = event["pid"]
                    case "exited":
                        self._exits[event["name"]] = event["code"]
                    case "kept":
                        self._kept.set()
                self._changed.notify_all()

    def _command(self, **command: Any) -> None:
        assert self._supervisor is not None
        assert self._supervisor.stdin is not None
        try:
            self._supervisor.stdin.write(json.dumps(command).encode() + b"\n")
            self._supervisor.stdin.flush()
        except OSError as exc:
            raise self._died("supervisor", self._supervisor.poll()) from exc

    def _start(self, name: str, argv: Sequence[str], env: Mapping[str, str], *, last: bool = False) -> None:
        log = str(self.logs / f"{name}.log")
        self._command(do="start", name=name, argv=list(argv), env=dict(env), log=log, last=last)

    def _run_once(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> None:
        self._once.add(name)
        self._start(name, argv, env)
        self._wait_until(f"{name} ends", lambda: name in self._exits)

    def check(self) -> None:
        """Raise ComponentDiedError, with the end of its log, if a process has ended by itself."""
        if self._supervisor is None or self._supervisor.poll() is not None:
            raise self._died("supervisor", self._supervisor.poll() if self._supervisor else None)
        for name, code in dict(self._exits).items():
            if name not in self._once or code != 0:
                raise self._died(name, code)

    def _died(self, name: str, code: int | None) -> ComponentDiedError:
        how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        log = self.logs / f"{name}.log"
        return ComponentDiedError(f"{name} ended by itself ({how}). The end of {log}:\n{tail(log)}")

    def _wait_until(self, what: str, happened: Callable[[], bool], timeout: float = START_TIMEOUT) -> None:
        deadline = time.monotonic() + timeout
        while not happened():
            self.check()
            if time.monotonic() > deadline:
                raise StalledError(
                    f"waited {timeout:.0f} s until {what}, in vain; the logs are in {self.logs}\n"
                    + "\n".join(f"{name}:\n{tail(self.logs / f'{name}.log', 5)}" for name in self.pids)
                )
            with self._changed:
                self._changed.wait(POLL_INTERVAL)

    def _mlflow_answers(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return (
                httpx.get(f"{self.mlflow_url}/health", trust_env=False, timeout=5).status_code
                == httpx.codes.OK
            )
        return False

    def _airflow_is_healthy(self) -> bool:
        with contextlib.suppress(ApiError):
            health = self.airflow.health()
            wanted = ("metadatabase", "scheduler", "dag_processor", "triggerer")
            return all(health.get(name) == "healthy" for name in wanted)
        return False

    def wait_for_dags(self, dag_ids: Sequence[str], timeout: float = START_TIMEOUT) -> None:
        """Wait until the DAGs are known. Raises ImportFailedError if a file does not import."""

        def known() -> bool:
            if errors := self.airflow.import_errors():
                text = "\n".join(f"{e['filename']}:\n{e['stack_trace']}" for e in errors)
                raise ImportFailedError(f"Airflow cannot import these DAG files:\n{text}")
            return set(dag_ids) <= self.airflow.dags().keys()

        self._wait_until(f"the DAGs {', '.join(dag_ids)} are known", known, timeout)

    def keep(self) -> None:
        """Let everything run on after this process; ``stop_in`` ends it."""
        self._command(do="keep")
        if not self._kept.wait(10):
            raise StalledError("the supervisor did not say within 10 s that it goes on")
        self._write_state({**(read_state(self.folder) or {}), "owner": None})
        self._supervisor = None

    def stop(self) -> None:
        """End everything, and wait until it has ended. Does nothing after ``keep``, or the second time."""
        ended, self._supervisor = self._supervisor, None
        self.airflow.close()
        if ended is None:
            return
        assert ended.stdin is not None
        with contextlib.suppress(OSError):
            ended.stdin.close()  # the end of its stdin is the supervisor's order to end everything
        try:
            ended.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            ended.kill()
            ended.wait()
        stop_in(self.folder)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def airflow_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "airflow", *arguments]


def tail(path: Path, lines: int = LOG_TAIL) -> str:
    try:
        text = path.read_text(errors="replace")
    except OSError as exc:
        return f"(no log: {exc.strerror})"
    return "\n".join(text.splitlines()[-lines:]) or "(the log is empty)"


def read_state(folder: Path) -> dict[str, Any] | None:
    """Return what a cluster noted, empty until its supervisor runs; None if no cluster wrote the file."""
    try:
        state = json.loads((folder / STATE_FILE).read_text())
    except (OSError, ValueError):
        return None
    ours = isinstance(state, dict) and (not state or {"pid", "token", "create_time"} <= state.keys())
    return state if ours else None


def living(noted: Mapping[str, Any]) -> psutil.Process | None:
    """Return the process that was noted by pid and start time; None if it ended, whoever has its pid now."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(noted["pid"])
        same = abs(process.create_time() - noted["create_time"]) < 1.0
        if same and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def owner_of(folder: Path) -> psutil.Process | None:
    """Return the other process that works with the cluster in ``folder`` right now, if there is one."""
    owner = (read_state(folder) or {}).get("owner")
    process = living(owner) if owner else None
    return None if process is None or process.pid == os.getpid() else process


def running_in(folder: Path) -> list[psutil.Process]:
    """Return the living processes of the cluster in ``folder``, its supervisor first."""
    folder = folder.resolve()
    if not (state := read_state(folder)):
        return []
    leader = living(state)
    tree = supervisor.Tree(state["pid"], state["token"], str(folder))
    members = list(tree.members(leader_is_alive=leader is not None))
    return [leader, *members] if leader else members


def stop_in(folder: Path) -> bool:
    """End the cluster in ``folder``, if one runs; returns whether there was one."""
    found = running_in(folder)
    if not found:
        return False
    if (state := read_state(folder)) and (leader := living(state)):
        with contextlib.suppress(psutil.Error):
            leader.terminate()
        # Not Process.wait: where nobody reaps orphans, as in many containers, a zombie stays for ever.
        deadline = time.monotonic() + STOP_TIMEOUT
        while living(state) and time.monotonic() < deadline:
            time.sleep(POLL_INTERVAL)
    while rest := running_in(folder):
        # Its supervisor was killed, so nobody else ends these.
        supervisor.send(rest, signal.SIGKILL)
        time.sleep(POLL_INTERVAL)
    return True


def wipe(folder: Path) -> None:
    """Remove what an earlier cluster left. Raises AlreadyRunningError for a folder that is not ours."""
    if not folder.exists():
        return
    if any(folder.iterdir()) and read_state(folder) is None:
        raise AlreadyRunningError(
            f"{folder} is not empty, and no earlier cluster made it; give an empty folder, or remove it"
        )
    shutil.rmtree(folder)
