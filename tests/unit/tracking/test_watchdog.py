# SPDX-License-Identifier: Apache-2.0
"""The watchdog as a process, against a server that answers as told."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from airflow_ml_provider.tracking.guard import Guard, start_guard
from airflow_ml_provider.tracking.session import Credentials, request_environment
from tests.support.stub_mlflow import stub_server

TAGS = {"airflow.try_number": "2", "airflow.attempt_id": "abc"}


def run_of(status: str = "RUNNING", **tags: str) -> dict:
    listed = [{"key": key, "value": value} for key, value in {**TAGS, **tags}.items()]
    return {"run": {"info": {"status": status}, "data": {"tags": listed}}}


@pytest.fixture
def stub():
    answers = {
        "runs/get": (200, run_of()),
        "runs/update": (200, {}),
        "runs/set-tag": (200, {}),
    }
    with stub_server(**answers) as server:
        yield server


def guard_for(stub, credentials=None) -> Guard:
    guard = start_guard(
        tracking_uri=stub.uri,
        run_id="r1",
        tags=TAGS,
        credentials=credentials or Credentials(token="x7Qz-token"),
    )
    assert guard is not None
    return guard


def updates(stub) -> list[dict]:
    return [body for _, path, body, _ in stub.requests if path.endswith("runs/update")]


def ended(guard: Guard, seconds: float = 15.0) -> bool:
    guard._process.stdin.close()
    return guard._process.wait(seconds) == 0


def test_a_task_that_says_done_is_left_alone(stub):
    assert guard_for(stub).dismiss()
    assert stub.requests == []


def test_a_pipe_that_ends_without_a_word_means_killed(stub):
    assert ended(guard_for(stub))
    (update,) = updates(stub)
    assert (update["run_id"], update["status"]) == ("r1", "KILLED")
    assert abs(update["end_time"] / 1000 - time.time()) < 60
    assert {header for *_, header in stub.requests} == {"Bearer x7Qz-token"}


def test_kill_closes_the_run_while_the_task_still_ends(stub):
    guard = guard_for(stub, Credentials(username="ada", password="one"))
    guard.tell("kill")
    assert guard._process.wait(15) == 0
    assert [update["status"] for update in updates(stub)] == ["KILLED"]
    assert {header for *_, header in stub.requests} == {"Basic YWRhOm9uZQ=="}
    assert not guard.dismiss()


def test_an_end_that_the_task_could_not_report_is_reported_later(stub):
    stub.answers["runs/get"] = (503, "away")
    guard = guard_for(stub)
    guard.tell("end FINISHED")
    while len(stub.requests) < 2:
        time.sleep(0.05)
    stub.answers["runs/get"] = (200, run_of())
    assert guard._process.wait(15) == 0
    assert [update["status"] for update in updates(stub)] == ["FINISHED"]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param((404, "404 page not found"), id="a proxy without a backend"),
        pytest.param((200, "<html>We are back soon</html>"), id="a maintenance page"),
    ],
)
def test_a_proxy_in_place_of_mlflow_is_waited_out(stub, answer):
    stub.answers["runs/get"] = answer
    guard = guard_for(stub)
    guard.tell("kill")
    while not stub.requests:
        time.sleep(0.05)
    stub.answers["runs/get"] = (200, run_of())
    assert guard._process.wait(15) == 0
    assert [update["status"] for update in updates(stub)] == ["KILLED"]


def test_a_run_that_was_deleted_is_given_up_at_once(stub):
    stub.answers["runs/get"] = (404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no run"})
    guard = guard_for(stub)
    guard.tell("kill")
    assert guard._process.wait(15) == 1
    assert len(stub.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(run_of("FINISHED"), id="closed already"),
        pytest.param(run_of(**{"airflow.try_number": "3"}), id="a later try"),
        pytest.param(run_of(**{"airflow.attempt_id": "other"}), id="another attempt of the same number"),
    ],
)
def test_a_run_that_is_no_longer_this_attempts_is_left_alone(stub, answer):
    stub.answers["runs/get"] = (200, answer)
    assert ended(guard_for(stub))
    assert updates(stub) == []


def test_a_new_run_takes_the_place_of_the_superseded_one(stub):
    guard = guard_for(stub)
    guard.tell("run r2")
    assert ended(guard)
    assert [update["run_id"] for update in updates(stub)] == ["r2"]


def test_a_forked_process_that_holds_the_pipe_does_not_hide_a_death(stub):
    code = f"""
import os, time
from airflow_ml_provider.tracking.guard import start_guard
from airflow_ml_provider.tracking.session import Credentials
start_guard(tracking_uri={stub.uri!r}, run_id="r1", tags={TAGS!r}, credentials=Credentials())
if os.fork() == 0:
    time.sleep(60)
print(os.getpid(), flush=True)
os.kill(os.getpid(), 9)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        try:
            deadline = time.monotonic() + 15
            while not updates(stub) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert [update["status"] for update in updates(stub)] == ["KILLED"]
        finally:
            os.killpg(process.pid, 9)


def test_secrets_are_in_neither_arguments_nor_environment(stub):
    with request_environment(Credentials(token="x7Qz-token")):
        guard = guard_for(stub)
    proc = Path(f"/proc/{guard.pid}")
    if proc.exists():
        assert b"x7Qz" not in (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes()
    guard.dismiss()


def test_other_stores_have_no_watchdog():
    assert start_guard(tracking_uri="sqlite:///x.db", run_id="r", tags={}, credentials=Credentials()) is None


def test_the_parents_that_are_ours_become_failed_with_it(monkeypatch):
    from airflow_ml_provider.tracking import watchdog

    def run(parent, **tags):
        tags = {"mlflow.parentRunId": parent, **tags} if parent else tags
        told = [{"key": key, "value": value} for key, value in tags.items()]
        return {"run": {"info": {"status": "RUNNING"}, "data": {"tags": told}}}

    runs = {
        "child": run("task", **{"airflow.attempt_id": "one"}),
        "task": run("dag", **{"airflow.parent": "mapped task"}),
        "dag": run("foreign", **{"airflow.parent": "dag run"}),
        "foreign": run(None),
    }
    updated = {}

    def request(orders, method, path, body=None):
        if method == "GET":
            return runs[path.rpartition("=")[2]]
        if path == "runs/update":
            updated[body["run_id"]] = body["status"]
        return {}

    monkeypatch.setattr(watchdog, "_request", request)
    watchdog._close_once({"run_id": "child", "tags": {"airflow.attempt_id": "one"}}, "KILLED")
    assert updated == {"child": "KILLED", "task": "FAILED", "dag": "FAILED"}

    for status in ("FINISHED", "SCHEDULED"):  # a task that went well, and could not say so itself
        updated.clear()
        watchdog._close_once({"run_id": "child", "tags": {"airflow.attempt_id": "one"}}, status)
        assert updated == {"child": status}

    updated.clear()
    runs["task"]["run"]["data"]["tags"].pop()  # somebody else's
    watchdog._close_once({"run_id": "child", "tags": {"airflow.attempt_id": "one"}}, "KILLED")
    assert updated == {"child": "KILLED"}
