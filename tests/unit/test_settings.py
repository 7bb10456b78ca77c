# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_ml_provider.artifacts.preview import SECRET_NAMES
from airflow_ml_provider.exceptions import SettingsError
from airflow_ml_provider.settings import check_root, derive_key, key_from_file, load_settings


@pytest.fixture(autouse=True)
def _fresh_settings() -> Iterator[None]:
    load_settings.cache_clear()
    yield
    load_settings.cache_clear()


def option(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"AIRFLOW__ML_PROVIDER__{name.upper()}", value)


@pytest.mark.parametrize(
    ("root", "cleaned"),
    [
        pytest.param("file:///data/artifacts/", "file:///data/artifacts", id="trailing slash"),
        pytest.param("s3://bucket", "s3://bucket", id="bucket alone"),
        pytest.param("s3://bucket/a/b", "s3://bucket/a/b", id="prefix"),
    ],
)
def test_a_root_is_an_absolute_address(root, cleaned):
    assert check_root(root) == cleaned


@pytest.mark.parametrize("root", ["/data", "data", "file://data", "file://", "s3://", "gs://bucket", ""])
def test_a_root_that_is_no_absolute_address_is_refused_by_name(root):
    with pytest.raises(SettingsError, match="artifact_root"):
        check_root(root)


@pytest.mark.parametrize(
    ("root", "escaped"), [("s3://bucket/team#1", "%23"), ("file:///data/what?/artifacts", "%3F")]
)
def test_a_root_of_which_a_part_would_be_dropped_is_refused(root, escaped):
    with pytest.raises(SettingsError, match=f"no part of a folder or bucket; write {escaped}"):
        check_root(root)


def test_a_comment_behind_a_root_is_no_part_of_it():
    with pytest.raises(SettingsError, match="a comment needs a line of its own"):
        check_root("s3://bucket/airflow   # or file:///data")


def test_the_default_root_lies_in_airflow_home(monkeypatch, airflow_home):
    monkeypatch.delenv("AIRFLOW__ML_PROVIDER__ARTIFACT_ROOT")
    assert load_settings().artifact_root == f"file://{airflow_home}/ml_artifacts"


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("inline_max_bytes", "16 KB", "16 KB"),
        ("inline_max_bytes", "-1", "-1"),
        ("max_artifact_bytes", "20 GB", "20 GB"),
        ("allow_pickle", "perhaps", "perhaps"),
        ("verify_on_read", "2", "2"),
    ],
)
def test_a_wrong_option_is_named_with_what_was_found(monkeypatch, name, value, found):
    option(monkeypatch, name, value)
    with pytest.raises(SettingsError, match=f"{name}.*{found}"):
        load_settings()


def test_a_short_signing_key_is_refused_without_showing_it(monkeypatch):
    option(monkeypatch, "signing_key", "hunter2")
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert "hunter2" not in str(error.value)
    assert "7 characters" in str(error.value)


def test_the_key_comes_from_the_option_then_fernet_then_a_file(monkeypatch, airflow_home):
    option(monkeypatch, "signing_key", "x" * 40)
    first = load_settings()
    assert (first.signing_key_source, first.signing_key) == ("signing_key", derive_key(b"x" * 40))

    option(monkeypatch, "signing_key", "")
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "new-key,old-key")
    load_settings.cache_clear()
    second = load_settings()
    assert (second.signing_key_source, second.signing_key) == ("fernet_key", derive_key(b"new-key"))
    assert second.verify_with == (derive_key(b"old-key"),)

    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "")
    load_settings.cache_clear()
    third = load_settings()
    assert third.signing_key_source == "key file"
    assert (airflow_home / "ml_provider_signing.key").stat().st_mode & 0o777 == 0o600


def test_an_airflow_cfg_without_a_fernet_key_gives_no_key_that_everybody_knows(tmp_path: Path):
    (tmp_path / "airflow.cfg").write_text("[core]\nload_examples = False\n")
    secret = (
        "AIRFLOW__CORE__FERNET_KEY",
        "AIRFLOW__ML_PROVIDER__SIGNING_KEY",
        "AIRFLOW__CORE__UNIT_TEST_MODE",
    )
    env = {name: value for name, value in os.environ.items() if name not in secret}
    code = "from airflow_ml_provider.settings import load_settings; print(load_settings().signing_key_source)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**env, "AIRFLOW_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split("\n")[-2:] == ["key file", ""], done.stderr
    assert (tmp_path / "ml_provider_signing.key").exists()


@pytest.mark.parametrize("between", [",", "\n", ", ", "  "])
def test_the_first_of_several_keys_signs_and_all_verify(monkeypatch, between):
    option(monkeypatch, "signing_key", between.join(["n" * 32, "o" * 32, "p" * 32]))
    settings = load_settings()
    assert settings.signing_key == derive_key(b"n" * 32)
    assert settings.verify_with == (derive_key(b"o" * 32), derive_key(b"p" * 32))


def test_a_short_earlier_key_is_refused_by_its_place(monkeypatch):
    option(monkeypatch, "signing_key", "n" * 32 + ",hunter2")
    with pytest.raises(SettingsError, match="number 2 has 7 characters") as error:
        load_settings()
    assert "hunter2" not in str(error.value)


def test_settings_do_not_show_the_keys(monkeypatch):
    option(monkeypatch, "signing_key", "n" * 32 + "," + "o" * 32)
    settings = load_settings()
    for key in (settings.signing_key, *settings.verify_with):
        assert key.hex() not in repr(settings)
        assert repr(key) not in repr(settings)


def test_previews_mask_secret_names_what_airflow_calls_sensitive_and_what_the_option_says(monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__SENSITIVE_VAR_CONN_NAMES", "salary, iban")
    assert load_settings().preview_mask == (*SECRET_NAMES, "*salary*", "*iban*")

    load_settings.cache_clear()
    option(monkeypatch, "preview_mask", "ssn, email_*")
    assert load_settings().preview_mask == ("ssn", "email_*", "*salary*", "*iban*")


def test_the_key_file_is_made_once(tmp_path: Path):
    path = tmp_path / "key"
    assert key_from_file(path) == key_from_file(path)


def test_two_processes_that_make_the_key_file_at_once_agree(tmp_path: Path, monkeypatch):
    path = tmp_path / "key"
    token, others = secrets.token_hex, []

    def while_another_makes_it(count: int) -> str:
        if count == 32 and not others:  # the key is about to be written
            others.append(None)
            others.append(key_from_file(path))
        return token(count)

    monkeypatch.setattr("airflow_ml_provider.settings.secrets.token_hex", while_another_makes_it)
    assert key_from_file(path) == others[1]
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_takes_no_key_file_is_named(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"gone/key.*set \[ml_provider\] signing_key"):
        key_from_file(tmp_path / "gone" / "key")


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path):
    path = tmp_path / "key"
    path.write_text(secrets.token_hex(32))
    path.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        key_from_file(path)


def test_an_emptied_key_file_is_refused(tmp_path: Path):
    path = tmp_path / "key"
    path.touch(mode=0o600)
    with pytest.raises(SettingsError, match="holds 0 bytes"):
        key_from_file(path)
