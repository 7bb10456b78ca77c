# SPDX-License-Identifier: Apache-2.0
"""Keys and passwords stay out of envelopes, previews, manifests, errors, logs and whatever is printed."""

from __future__ import annotations

import base64
import copy
import json
import logging
import pickle
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from airflow.sdk import DAG, task
from cryptography.fernet import Fernet

from airflow_ml_provider.artifacts.objects import ObjectStore
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import MLProviderError
from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook
from airflow_ml_provider.hooks.mlflow import MlflowHook
from airflow_ml_provider.settings import load_settings
from tests.support.mlflow_server import free_port
from tests.support.stub_mlflow import stub_server

SIGNING = "s1gn1ng-key-of-the-tests-1234567890"
EARLIER = "an-ear1ier-key-of-the-tests-1234567890"
FERNET = Fernet.generate_key().decode()
ACCESS = "AKIATHEACCESSKEYID01"
SECRET = "S3cretAccessKeyOfTheTests/0123456789abcd"
SESSION = "S3ssionTokenOfTheTests0123456789"
PASSWORD = "hunter2hunter2hunter2"
FRAME = pd.DataFrame({"user": ["ada"], "db_password": [PASSWORD], "api_key": [SECRET]})


@pytest.fixture(autouse=True)
def deployment(monkeypatch: pytest.MonkeyPatch, artifact_root: Path) -> Iterator[None]:
    """A deployment with all the secrets it can have."""
    monkeypatch.setenv("AIRFLOW__ML_PROVIDER__SIGNING_KEY", f"{SIGNING},{EARLIER}")
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", FERNET)
    load_settings.cache_clear()
    ArtifactStoreHook.forget()
    yield
    load_settings.cache_clear()
    ArtifactStoreHook.forget()


def forms(secret: str | bytes) -> list[str]:
    """A secret as it might be printed."""
    raw = secret.encode() if isinstance(secret, str) else secret
    text = secret if isinstance(secret, str) else repr(secret)[2:-1]
    return [text, raw.hex(), base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()]


def assert_no_secret(*shown: str) -> None:
    settings = load_settings()
    secrets = [
        SIGNING,
        EARLIER,
        FERNET,
        SECRET,
        SESSION,
        PASSWORD,
        settings.signing_key,
        *settings.verify_with,
    ]
    for secret in secrets:
        for form in forms(secret):
            for text in shown:
                assert form not in text, f"{form[:6]}... is in: {text[:2000]}"


def s3_store(endpoint: str) -> ArtifactStore:
    options = {
        "endpoint_url": endpoint,
        "access_key_id": ACCESS,
        "secret_access_key": SECRET,
        "session_token": SESSION,
        "region": "us-east-1",
        "allow_http": True,
        "max_retries": 0,
        "retry_timeout": 2,
        "connect_timeout": 1,
    }
    settings = load_settings()
    return ArtifactStore(
        "s3://bucket/prefix",
        signing_key=settings.signing_key,
        verify_with=settings.verify_with,
        options=options,
    )


def everything_about(value: object) -> list[str]:
    return [repr(value), str(value), f"{value}"]


def test_settings_hooks_and_stores_print_none(deployment: None) -> None:
    hook = ArtifactStoreHook()
    store = s3_store(f"http://127.0.0.1:{free_port()}")
    for value in (
        hook, hook.settings, hook.store, hook.store.signer, hook.store.objects, store, store.objects,
        store.objects._backend, store.signer, vars(hook), [hook.settings],
    ):  # fmt: skip
        assert_no_secret(*everything_about(value))


def test_envelopes_manifests_and_references_hold_none(artifact_root: Path) -> None:
    store = ArtifactStoreHook().store

    tree = store.encode({"frame": FRAME, "password": PASSWORD.encode(), "n": np.arange(3)}, name="task")

    refs = [store.get(f"task.{part}") for part in ("frame", "password", "n")]
    manifests = [path.read_text() for path in artifact_root.glob("versions/**/*.json")]
    assert len(manifests) == 3
    assert_no_secret(json.dumps(tree), *manifests, *map(repr, refs), *(str(vars(ref)) for ref in refs))
    assert_no_secret(*(repr(pickle.dumps(ref)) for ref in refs), repr(copy.deepcopy(refs[0].__getstate__())))
    assert refs[0].load().equals(FRAME)


def errors() -> dict[str, Callable[[], Any]]:
    def wrong_credentials() -> None:
        with stub_server(**{"": (403, f"<Error><Code>SignatureDoesNotMatch</Code><Secret>{ACCESS}</Secret></Error>")}) as server:  # fmt: skip # noqa: E501
            s3_store(server.uri).save(b"x", "task")

    def forged() -> None:
        store = ArtifactStoreHook().store
        store.decode({**store.encode(np.arange(3), name="task"), "preview": None})

    def mlflow(**connection: Any) -> None:
        with pytest.MonkeyPatch.context() as patch:
            found = {"conn_type": "mlflow", "login": "airflow", "password": PASSWORD, **connection}
            patch.setenv("AIRFLOW_CONN_WRONG_SERVER", json.dumps(found))
            hook = MlflowHook("wrong_server")
            assert_no_secret(*everything_about(hook))
            hook.client.search_experiments()

    def refused() -> None:
        ArtifactStoreHook().store.encode(lambda: SECRET, name="task")

    return {
        "an S3 server that is down": lambda: s3_store(f"http://127.0.0.1:{free_port()}").save(b"x", "task"),
        "an S3 server that refuses": wrong_credentials,
        "reading from one that is down": lambda: s3_store(f"http://127.0.0.1:{free_port()}").get("task"),
        "a wrong option of the store": lambda: ObjectStore(
            "s3://b", {"secret_access_key": SECRET, "colour": 1}
        ),
        "a forged envelope": forged,
        "a type that nobody knows": refused,
        "an MLflow server that is down": lambda: mlflow(host=f"http://127.0.0.1:{free_port()}"),
        "a token that an MLflow server refuses": lambda: mlflow(
            host=f"http://127.0.0.1:{free_port()}", login=None, password=None, extra={"token": SESSION}
        ),
    }


@pytest.mark.parametrize("what", errors())
def test_errors_and_logs_name_none(what: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    with pytest.raises((MLProviderError, ValueError)) as error:
        errors()[what]()

    assert_no_secret(*traceback.format_exception(error.value), repr(error.value), caplog.text)


def test_the_log_and_the_xcoms_of_a_task_hold_none(
    run_dag: Callable[..., Any], artifact_root: Path, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    caplog.set_level(logging.DEBUG, logger="airflow_ml_provider")
    with DAG("secret", schedule=None) as dag:
        # Airflow's own operator logs what a function returned.
        @task(show_return_value_in_logs=False)
        def produce():
            return FRAME

        @task
        def consume(frame):
            assert frame.db_password[0] == PASSWORD

        consume(produce())

    run = run_dag(dag)

    assert str(run.state) == "success"
    printed = capfd.readouterr()
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("airflow_ml_provider")]
    records = [path.read_text() for path in artifact_root.glob("*/**/*.json")]
    assert records
    assert_no_secret(*ours, *records, printed.out, printed.err)
