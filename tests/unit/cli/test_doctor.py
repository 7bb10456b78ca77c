# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from airflow_ml_provider.exceptions import WebhookRefusedError
from airflow_ml_provider.tracking.webhooks import verified
from tests.unit.cli.conftest import Answer

Run = Callable[..., Answer]


def findings(answer: Answer) -> dict[str, dict[str, str]]:
    return {row["check"]: row for row in json.loads(answer.out)}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow") / "mlflow.db"  # making one takes MLflow some seconds


@pytest.fixture
def mlflow(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "mlflow", "host": f"sqlite:///{database}"}
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps(connection))


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as held:  # bound and not listening: nobody else gets it, and it refuses
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.mark.usefixtures("mlflow")
def test_a_machine_that_is_set_up_gets_a_clean_bill(airflow: Run, root: Path) -> None:
    answer = airflow("ml", "doctor", "-o", "json")
    found = findings(answer)
    assert {name: row["status"] for name, row in found.items() if row["status"] != "ok"} == {}
    assert set(found) == {
        "packages",
        "xcom backend",
        "listener",
        "options",
        "signing key",
        "artifact root",
        "artifact store",
        "mlflow",
        "webhook",
    }
    assert answer.code == 0
    assert [path for path in root.rglob("*") if path.is_file()] == [], "the probe is gone"


@pytest.mark.usefixtures("mlflow")
def test_the_table_tells_people_what_to_do(airflow: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__XCOM_BACKEND", "airflow.sdk.bases.xcom.BaseXCom")
    answer = airflow("ml", "doctor")
    assert answer.code == 1
    assert "xcom backend: set [core] xcom_backend = airflow_ml_provider" in answer.out


@pytest.mark.usefixtures("mlflow")
@pytest.mark.parametrize(
    ("option", "value", "check", "said"),
    [
        ("CORE__XCOM_BACKEND", "airflow.sdk.bases.xcom.BaseXCom", "xcom backend", "does not store artifacts"),
        ("CORE__XCOM_BACKEND", "nowhere.Backend", "xcom backend", "nowhere"),
        ("ML_PROVIDER__ARTIFACT_ROOT", "ftp://host/x", "options", "ftp://host/x"),
        ("ML_PROVIDER__SIGNING_KEY", "short", "options", "signing_key"),
        ("ML_PROVIDER__INLINE_MAX_BYTES", "16k", "options", "'16k'"),
        ("ML_PROVIDER__ARTIFACT_ROOT", "file:///proc/version/x", "artifact store", "/proc/version/x"),
    ],
)
def test_each_fault_is_found_and_named(
    airflow: Run, monkeypatch: pytest.MonkeyPatch, option: str, value: str, check: str, said: str
) -> None:
    monkeypatch.setenv(f"AIRFLOW__{option}", value)
    answer = airflow("ml", "doctor", "-o", "json")
    found = findings(answer)[check]
    assert (found["status"], answer.code) == ("problem", 1)
    assert said in found["found"]


@pytest.mark.usefixtures("mlflow")
@pytest.mark.parametrize("name", ["AIRFLOW__ML_PROVIDER__ALLOW_PICKEL", "AIRFLOW_ML_PROVIDER__ALLOW_PICKLE"])
def test_an_option_that_nobody_reads_is_a_warning(
    airflow: Run, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "True")
    found = findings(airflow("ml", "doctor", "-o", "json"))["options"]
    assert found["status"] == "warning"
    assert name.rpartition("__")[2] in found["found"].upper()
    assert "AIRFLOW__ML_PROVIDER__ALLOW_PICKLE" in found["fix"]


@pytest.mark.usefixtures("mlflow")
def test_a_backend_with_a_typo_gets_its_name(airflow: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__XCOM_BACKEND", "airflow_ml_provider.xcom.backend.Typo")
    found = findings(airflow("ml", "doctor", "-o", "json"))["xcom backend"]
    assert found["status"] == "problem"
    assert "ArtifactXComBackend" in found["fix"]


def test_a_missing_mlflow_connection_is_a_warning_unless_warnings_count(
    airflow: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_MLFLOW_DEFAULT", raising=False)
    answer = airflow("ml", "doctor", "-o", "json")
    assert findings(answer)["mlflow"]["status"] == "warning"
    assert "mlflow_default" in findings(answer)["mlflow"]["found"]
    assert answer.code == 0
    assert airflow("ml", "doctor", "--strict").code == 1


def test_a_server_that_is_down_is_a_problem(
    airflow: Run, monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> None:
    connection = {"conn_type": "mlflow", "host": f"http://127.0.0.1:{closed_port}"}
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps(connection))
    answer = airflow("ml", "doctor", "-o", "json")
    found = findings(answer)["mlflow"]
    assert (found["status"], answer.code) == ("problem", 1)
    assert str(closed_port) in found["found"]


@pytest.mark.usefixtures("mlflow")
def test_a_key_file_is_a_warning_because_other_machines_do_not_have_it(
    airflow: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIRFLOW__ML_PROVIDER__SIGNING_KEY", "")
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "")
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    found = findings(airflow("ml", "doctor", "-o", "json"))["signing key"]
    assert found["status"] == "warning"
    assert "this machine only" in found["found"]
    assert "secrets.token_hex(32)" in found["fix"]


@pytest.mark.usefixtures("mlflow")
@pytest.mark.parametrize("executor", ["CeleryExecutor", "LocalExecutor,CeleryExecutor"])
def test_a_local_folder_under_a_remote_executor_is_a_warning(
    airflow: Run, monkeypatch: pytest.MonkeyPatch, executor: str
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    found = findings(airflow("ml", "doctor", "-o", "json"))["artifact root"]
    assert found["status"] == "warning"
    assert "every worker must mount" in found["found"]


@pytest.mark.usefixtures("mlflow")
def test_neither_password_nor_signing_key_is_printed(airflow: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {
        "conn_type": "mlflow",
        "host": "http://127.0.0.1:9",
        "login": "ada",
        "password": "hunter2hunter2",
    }
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps(connection))
    answer = airflow("ml", "doctor", "-o", "json")
    printed = answer.out + answer.err
    assert "hunter2hunter2" not in printed
    assert os.environ["AIRFLOW__ML_PROVIDER__SIGNING_KEY"] not in printed


@pytest.mark.parametrize("scheme", ["mysql+nothing", "postgres"], ids=["no driver", "not known to MLflow"])
def test_the_password_in_the_address_of_a_database_is_not_printed(
    airflow: Run, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    connection = {"conn_type": "mlflow", "host": f"{scheme}://ada:hunter2hunter2@127.0.0.1:9/mlflow"}
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps(connection))
    answer = airflow("ml", "doctor", "-o", "json")
    assert findings(answer)["mlflow"]["status"] == "problem"
    assert "hunter2hunter2" not in answer.out + answer.err
    assert "127.0.0.1:9/mlflow" in answer.out


@pytest.mark.usefixtures("mlflow")
def test_without_a_metadata_database_it_works_and_makes_none(
    airflow: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    database = tmp_path / "none.db"
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", f"sqlite:///{database}")
    assert airflow("ml", "doctor").code == 0
    assert not database.exists()


class _ApiServer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        try:
            verified(headers, body, "shared", now=time.time())
        except WebhookRefusedError:
            code = 401
        else:
            code = 200 if self.path.endswith("/ml-provider/webhooks/mlflow/mlflow_default") else 404
        self.send_response(code)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def api_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _ApiServer)
    server.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", f"http://127.0.0.1:{server.server_port}/")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def with_secret(monkeypatch: pytest.MonkeyPatch, database: Path, secret: str) -> str:
    uri = f"sqlite:///{database}"
    connection = {"conn_type": "mlflow", "host": uri, "extra": {"webhook_secret": secret}}
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps(connection))
    return uri


def test_webhooks_are_tried_with_a_signed_delivery_and_looked_up_in_mlflow(
    airflow: Run, database: Path, api_server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = with_secret(monkeypatch, database, "shared")
    found = findings(airflow("ml", "doctor", "-o", "json"))["webhook"]
    assert (found["status"], "MLflow has none" in found["found"]) == ("warning", True)
    assert found["fix"].endswith(f":{api_server.server_port}/ml-provider/webhooks/mlflow/mlflow_default")

    from mlflow import MlflowClient
    from mlflow.entities.webhook import WebhookAction, WebhookEntity, WebhookEvent

    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    made = client.create_webhook(
        "airflow",
        "https://127.0.0.1/ml-provider/webhooks/mlflow/mlflow_default",
        [WebhookEvent(WebhookEntity.MODEL_VERSION_ALIAS, WebhookAction.CREATED)],
        secret="shared",
    )
    try:
        found = findings(airflow("ml", "doctor", "-o", "json"))["webhook"]
        assert (found["status"], "a signed delivery arrives" in found["found"]) == ("ok", True)
    finally:
        client.delete_webhook(made.webhook_id)


@pytest.mark.parametrize(
    ("secret", "path", "status", "said"),
    [("another", "", "problem", "answers 401"), ("shared", "wrong", "problem", "answers 404")],
)
def test_a_webhook_that_is_refused_is_a_problem(
    airflow: Run,
    database: Path,
    api_server: ThreadingHTTPServer,
    monkeypatch: pytest.MonkeyPatch,
    secret: str,
    path: str,
    status: str,
    said: str,
) -> None:
    with_secret(monkeypatch, database, secret)
    if path:
        monkeypatch.setattr(_ApiServer, "do_POST", _not_here)
    found = findings(airflow("ml", "doctor", "-o", "json"))["webhook"]
    assert (found["status"], said in found["found"]) == (status, True)


def _not_here(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(404)
    handler.end_headers()


def test_an_api_server_that_does_not_answer_is_a_warning(
    airflow: Run, database: Path, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", f"http://127.0.0.1:{closed_port}")
    with_secret(monkeypatch, database, "shared")
    found = findings(airflow("ml", "doctor", "-o", "json"))["webhook"]
    assert (found["status"], "no answer at" in found["found"]) == ("warning", True)


def test_storage_that_lets_a_second_writer_replace_an_object_is_a_problem(
    airflow: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_ml_provider.artifacts.objects import _Folder

    real = _Folder.put
    monkeypatch.setattr(
        _Folder, "put", lambda self, key, parts, *, create_only: real(self, key, parts, create_only=False)
    )
    found = findings(airflow("ml", "doctor", "-o", "json"))["artifact store"]
    assert (found["status"], "If-None-Match" in found["found"]) == ("problem", True)
