# SPDX-License-Identifier: Apache-2.0
"""What of a cluster can be tested without starting one; ``tests/e2e`` starts one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import psutil
import pytest

from demo import cluster
from demo.cluster import STATE_FILE, LocalCluster, owner_of, running_in, stop_in, tail, wipe
from demo.errors import AlreadyRunningError, PortTakenError
from demo.ports import LOOPBACK


def note(folder: Path, **changes: Any) -> None:
    me = {"pid": os.getpid(), "create_time": psutil.Process().create_time()}
    (folder / STATE_FILE).write_text(
        json.dumps({**me, "token": "a token of nobody", "owner": None, **changes})
    )


def test_the_callers_airflow_and_mlflow_do_not_get_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AIRFLOW__CORE__EXECUTOR", "AIRFLOW_CONN_X", "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"):
        monkeypatch.setenv(name, "the caller's")
    assert "the caller's" not in LocalCluster(tmp_path, tmp_path).environment().values()


def test_everything_listens_on_loopback_only(tmp_path: Path) -> None:
    environment = LocalCluster(tmp_path, tmp_path).environment()
    assert environment["AIRFLOW__API__HOST"] == LOOPBACK
    assert environment["AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK"] == "False"


@pytest.mark.parametrize(
    "secret", ["AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API__SECRET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET"]
)
def test_secrets_differ_from_cluster_to_cluster(tmp_path: Path, secret: str) -> None:
    one, two = (LocalCluster(tmp_path, tmp_path).environment()[secret] for _ in range(2))
    assert one != two


def test_proxies_are_not_asked_for_loopback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "example.org")
    assert LocalCluster(tmp_path, tmp_path).environment()["NO_PROXY"] == "example.org,127.0.0.1,localhost"


def test_a_taken_port_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    import socket

    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortTakenError, match=rf"port {port} .* MLflow"):
            LocalCluster(tmp_path / "new", tmp_path, mlflow_port=port)
    assert not (tmp_path / "new").exists()


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("".join(f"line {n}\n" for n in range(100)))
    assert tail(log, 2) == "line 98\nline 99"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(None, "no log", id="no such file"),
        pytest.param(b"", "the log is empty", id="empty"),
        pytest.param(b"\xff\xfe broken", "broken", id="not UTF-8"),
    ],
)
def test_the_tail_of_a_strange_log_is_still_text(tmp_path: Path, content: bytes | None, said: str) -> None:
    log = tmp_path / "x.log"
    if content is not None:
        log.write_bytes(content)
    assert said in tail(log)


def test_a_folder_of_somebody_else_is_not_wiped(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(AlreadyRunningError, match="no earlier cluster made it"):
        wipe(tmp_path)
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize("content", ['{"apiVersion": "v1", "pid": 1}', "[]", "not JSON"])
def test_a_file_that_only_has_the_name_of_ours_lets_nothing_be_wiped(tmp_path: Path, content: str) -> None:
    (tmp_path / STATE_FILE).write_text(content)
    with pytest.raises(AlreadyRunningError, match="no earlier cluster made it"):
        wipe(tmp_path)
    assert (tmp_path / STATE_FILE).read_text() == content


def test_what_an_earlier_cluster_left_is_wiped(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    (folder / "airflow").mkdir(parents=True)
    (folder / STATE_FILE).write_text("{}")
    wipe(folder)
    assert not folder.exists()


@pytest.mark.parametrize("state", ["{}", "", "not json", "[]"])
def test_an_unreadable_state_file_means_that_nothing_runs(tmp_path: Path, state: str) -> None:
    (tmp_path / STATE_FILE).write_text(state)
    assert running_in(tmp_path) == []
    assert stop_in(tmp_path) is False


def test_a_pid_that_another_process_has_now_is_left_alone(tmp_path: Path) -> None:
    # This very process, but noted with another start time: were it stopped, this test would be gone.
    note(tmp_path, create_time=psutil.Process().create_time() - 1000)
    assert running_in(tmp_path) == []
    assert stop_in(tmp_path) is False


def test_the_cluster_of_a_living_process_has_an_owner(tmp_path: Path) -> None:
    parent = psutil.Process(os.getppid())
    note(tmp_path, owner={"pid": parent.pid, "create_time": parent.create_time()})
    assert owner_of(tmp_path) == parent


@pytest.mark.parametrize("owner", [None, {"pid": 2**22 + 1, "create_time": 0.0}])
def test_a_kept_or_abandoned_cluster_has_no_owner(tmp_path: Path, owner: dict[str, float] | None) -> None:
    note(tmp_path, owner=owner)
    assert owner_of(tmp_path) is None


def test_stopping_twice_is_harmless(tmp_path: Path) -> None:
    never_started = LocalCluster(tmp_path, tmp_path)
    never_started.stop()
    never_started.stop()
    assert cluster.read_state(tmp_path) is None
