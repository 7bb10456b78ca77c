# SPDX-License-Identifier: Apache-2.0
"""From options and Airflow connections to a store: on a real S3 server, and with what users get wrong."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import obstore
import pandas as pd
import pytest
from airflow.sdk import DAG, task
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from airflow_ml_provider.artifacts.objects import ObjectStore
from airflow_ml_provider.exceptions import SettingsError, StoreError
from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook, s3_options
from airflow_ml_provider.settings import Settings, load_settings
from tests.support import seaweed

pytestmark = pytest.mark.s3

FRAME = pd.DataFrame({"a": [1, 2, 3]})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[seaweed.S3Server]:
    with seaweed.running(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture
def on_s3(server: seaweed.S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Return a function that points the deployment at the server through an AWS connection."""

    def connect(**changes: Any) -> None:
        connection = {
            "conn_type": "aws",
            "login": server.access_key_id,
            "password": server.secret_access_key,
            "extra": {"endpoint_url": server.endpoint_url, "region_name": "us-east-1"},
        } | changes
        monkeypatch.setenv("AIRFLOW_CONN_ARTIFACTS_S3", json.dumps(connection))
        monkeypatch.setenv("AIRFLOW__ML_PROVIDER__ARTIFACT_CONN_ID", "artifacts_s3")
        monkeypatch.setenv("AIRFLOW__ML_PROVIDER__ARTIFACT_ROOT", server.root(f"airflow/{len(changes)}"))
        load_settings.cache_clear()
        ArtifactStoreHook.forget()

    yield connect
    load_settings.cache_clear()
    ArtifactStoreHook.forget()


def test_a_dag_passes_frames_through_s3(on_s3, run_dag, server):
    on_s3()
    seen = []
    with DAG("through_s3", schedule=None) as dag:

        @task
        def produce():
            return FRAME

        @task
        def consume(frame):
            seen.append(frame)

        consume(produce())

    assert str(run_dag(dag).state) == "success"
    pd.testing.assert_frame_equal(seen[0], FRAME)
    store = ArtifactStoreHook().store
    assert store.objects.root.startswith(f"s3://{server.bucket}/")
    assert list(store.names()) == ["through_s3.produce"]


def test_a_wrong_secret_is_an_error_that_does_not_show_it(on_s3):
    on_s3(password="not-the-secret-0123456789")
    with pytest.raises(StoreError) as error:
        ArtifactStoreHook().store.save(FRAME, "frame")
    assert "not-the-secret" not in str(error.value)


def test_a_connection_of_another_type_is_refused_by_name(on_s3):
    on_s3(conn_type="http", extra=None)
    with pytest.raises(SettingsError, match=r"artifacts_s3.*'http'.*'aws'"):
        s3_options("artifacts_s3")


def test_a_connection_that_is_not_there_is_named_with_what_to_do():
    with pytest.raises(SettingsError, match=r"'nowhere'.*airflow connections add nowhere --conn-type aws"):
        s3_options("nowhere")


def test_without_a_connection_the_machine_has_the_credentials():
    assert s3_options(None) == {}


def test_the_machine_may_name_an_endpoint_without_tls(server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_access_key)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    settings = Settings(server.root("machine"), b"k" * 32)
    ref = ArtifactStoreHook(settings).store.save(FRAME, "frame")
    pd.testing.assert_frame_equal(ref.load(), FRAME)


def test_an_endpoint_that_is_no_address_is_refused(on_s3):
    on_s3(extra={"endpoint_url": "minio:9000"})
    with pytest.raises(SettingsError, match=r"'artifacts_s3' must start with http://.*'minio:9000'"):
        s3_options("artifacts_s3")


@pytest.mark.parametrize(
    ("extra", "variables", "region"),
    [
        ({"region_name": "eu-west-1"}, {"AWS_DEFAULT_REGION": "eu-central-1"}, "eu-west-1"),
        ({}, {"AWS_DEFAULT_REGION": "eu-central-1"}, "eu-central-1"),
        ({}, {"AWS_REGION": "eu-north-1"}, "eu-north-1"),
        ({}, {}, "us-east-1"),
    ],
)
def test_a_connection_without_a_region_is_in_that_of_the_machine(
    on_s3, monkeypatch, extra, variables, region
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    on_s3(extra=extra)
    client = ObjectStore("s3://bucket", s3_options("artifacts_s3"))._backend.store
    assert f"%2F{region}%2Fs3%2F" in obstore.sign(client, "GET", "key", timedelta(minutes=1))


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server with a certificate that it signed itself, and no objects; its address and certificate."""
    own = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = x509.CertificateBuilder(name, name, own.public_key(), 1, now - timedelta(1), now + timedelta(1))
    certificate = made.add_extension(address, critical=False).sign(own, hashes.SHA256())
    folder = tmp_path_factory.mktemp("tls")
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    class Empty(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}", folder / "certificate.pem"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("verify", "answers"), [(None, False), (False, True), ("its certificate", True)])
def test_certificates_are_verified_as_the_connection_says(on_s3, tls, verify, answers):
    address, certificate = tls
    extra = {"endpoint_url": address, "region_name": "us-east-1"}
    on_s3(extra=extra if verify is None else {**extra, "verify": verify and str(certificate)})
    objects = ObjectStore("s3://bucket", {**s3_options("artifacts_s3"), "max_retries": 0})
    if answers:
        assert not objects.exists("key")
    else:
        with pytest.raises(StoreError, match="certificate"):
            objects.exists("key")


def test_certificates_that_are_not_there_are_named(on_s3):
    on_s3(extra={"verify": "/no/such/ca.pem"})
    with pytest.raises(SettingsError, match=r"verify of the connection 'artifacts_s3'.*'/no/such/ca.pem'"):
        s3_options("artifacts_s3")


def test_temporary_keys_are_asked_for_again(on_s3):
    on_s3(
        extra={
            "endpoint_url": "http://127.0.0.1:1",
            "region_name": "eu-west-1",
            "aws_session_token": "a-token",
        }
    )
    options = s3_options("artifacts_s3")
    assert options["region"] == "eu-west-1"
    assert options["credential_provider"]()["token"] == "a-token"
    assert "secret_access_key" not in options


def test_an_unwritable_root_fails_the_task_and_says_which(run_dag, monkeypatch, tmp_path: Path, caplog):
    blocker = tmp_path / "a file where a folder should be"
    blocker.touch()
    monkeypatch.setenv("AIRFLOW__ML_PROVIDER__ARTIFACT_ROOT", f"file://{blocker}/artifacts")
    load_settings.cache_clear()
    with pytest.raises(StoreError, match="a file where a folder should be"):
        ArtifactStoreHook().store.save(FRAME, "frame")
    load_settings.cache_clear()
