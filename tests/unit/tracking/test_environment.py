# SPDX-License-Identifier: Apache-2.0
"""What a run keeps of the place that its task ran in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from airflow_ml_provider.tracking import environment
from airflow_ml_provider.tracking.environment import (
    Usage,
    environment_tags,
    image_of_worker,
    installed_packages,
    log_surroundings,
)
from airflow_ml_provider.tracking.identity import TaskIdentity
from airflow_ml_provider.tracking.runs import task_run


def test_the_interpreter_the_machine_and_the_image_are_told():
    tags = environment_tags("trainer:1")
    assert tags["environment.python"] == ".".join(map(str, sys.version_info[:3]))
    assert tags["environment.image"] == "trainer:1"
    assert int(tags["hardware.cpus"]) >= 1
    assert int(tags["hardware.memory_megabytes"]) > 100


@pytest.mark.parametrize(
    ("variables", "image"),
    [
        ({}, None),
        ({"AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_REPOSITORY": "a/b"}, None),  # no pod
        (
            {
                "KUBERNETES_SERVICE_HOST": "10.0.0.1",
                "AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_REPOSITORY": "a/b",
                "AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_TAG": "3",
            },
            "a/b:3",
        ),
    ],
)
def test_the_image_of_a_worker_is_what_its_executor_was_told(variables, image):
    assert image_of_worker(variables) == image


def test_packages_are_listed_as_pip_takes_them():
    lines = installed_packages().splitlines()
    assert any(line.startswith("mlflow==") for line in lines)
    assert lines == sorted(lines, key=lambda line: line.partition("==")[0].lower())


def test_use_of_the_machine_counts_children_too():
    usage = Usage()
    subprocess.run([sys.executable, "-c", "sum(range(10**6))"], check=True)
    found = usage.metrics()
    assert found["system/task_seconds"] >= found["system/task_cpu_seconds"] * 0.1
    assert found["system/task_cpu_seconds"] > 0
    assert found["system/task_peak_memory_megabytes"] > 10


@pytest.fixture
def kept(client):
    """Gives the texts of what a run keeps."""

    def find(run):
        found = {}
        for folder in client.list_artifacts(run.run_id):
            for file in client.list_artifacts(run.run_id, folder.path):
                found[file.path] = Path(client.download_artifacts(run.run_id, file.path)).read_text()
        return found

    return find


def test_packages_and_changes_are_kept_once_and_again_when_they_differ(client, name, kept, monkeypatch):
    diff = ["first"]
    monkeypatch.setattr(environment, "installed_packages", lambda: "a==1\n")
    monkeypatch.setattr(environment, "uncommitted_diff", lambda path: diff[0])
    sent = []
    real = client.log_artifacts
    monkeypatch.setattr(client, "log_artifacts", lambda *a: (sent.append(a), real(*a)), raising=False)

    def attempt(number):
        identity = TaskIdentity("d", "r", "t", try_number=number)
        with task_run(client, experiment=name, identity=identity) as run:
            log_surroundings(run, code_path="x.py")
        return run

    assert kept(attempt(1)) == {"environment/requirements.txt": "a==1\n", "code/uncommitted.diff": "first"}
    attempt(2)
    assert len(sent) == 1
    diff[0] = "second"
    assert kept(attempt(3))["code/uncommitted.diff"] == "second"
    diff[0] = ""
    assert "git.diff" not in client.get_run(attempt(4).run_id).data.tags


def test_a_failure_to_keep_them_fails_nothing(client, name, monkeypatch, caplog):
    monkeypatch.setattr(environment, "installed_packages", lambda: 1 / 0)
    with task_run(client, experiment=name, identity=TaskIdentity("d", "r", "t")) as run:
        log_surroundings(run, code_path=None)
    assert "was not kept" in caplog.text
    assert client.get_run(run.run_id).info.status == "FINISHED"


def test_a_run_can_leave_the_process_alone(client, name, monkeypatch):
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    before = mlflow.get_tracking_uri()
    for number in (1, 2):
        identity = TaskIdentity("d", "r", "t", try_number=number)
        with task_run(client, experiment=name, identity=identity, fluent=False) as run:
            assert mlflow.active_run() is None
            assert mlflow.get_tracking_uri() == before
            assert client.get_run(run.run_id).info.status == "RUNNING"
        assert client.get_run(run.run_id).info.status == "FINISHED"
