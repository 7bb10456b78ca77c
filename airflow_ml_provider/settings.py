# SPDX-License-Identifier: Apache-2.0
"""
The options of ``[ml_provider]``, read once a process and checked.

``Settings`` is plain data; only :func:`load_settings` asks Airflow for its configuration.
"""

from __future__ import annotations

import functools
import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from airflow_ml_provider.artifacts.preview import SECRET_NAMES
from airflow_ml_provider.exceptions import SettingsError

SECTION = "ml_provider"
_SCHEMES = ("file://", "s3://")
_KEY_FILE = "ml_provider_signing.key"
_KEY_BYTES = 32
# What the Task SDK reads where airflow.cfg has no fernet_key: it leaves Airflow's template unfilled.
_NO_FERNET_KEY = "{FERNET_KEY}"


@dataclass(frozen=True)
class Settings:
    """What a deployment set under ``[ml_provider]``."""

    artifact_root: str
    """Where artifacts live: ``file:///abs/path`` or ``s3://bucket/prefix``."""
    signing_key: bytes = field(repr=False)
    """Signs; the keys before it, in ``verify_with``, are accepted only."""
    verify_with: tuple[bytes, ...] = field(default=(), repr=False)
    signing_key_source: str = "signing_key"
    """Where the key came from: ``signing_key``, ``fernet_key`` or ``key file``."""
    artifact_conn_id: str | None = None
    """AWS connection whose credentials reach ``s3://``; None: those of the machine."""
    mlflow_conn_id: str = "mlflow_default"
    parent_run: bool = True
    """Whether the runs of ``ml.tracked`` are below one run of the whole DAG run."""
    inline_max_bytes: int = 16_384
    """JSON values up to this size, in bytes, stay in the XCom table."""
    allow_pickle: bool = False
    """Write what no codec knows by pickle, and read it: whoever can write to the store runs code here."""
    max_artifact_bytes: int = 0
    """The most that one artifact takes, in bytes, stored or unpacked; 0: no limit."""
    verify_on_read: bool = True
    previews: bool = True
    preview_mask: tuple[str, ...] = SECRET_NAMES
    """Globs of the columns and keys whose cells previews show as ``***``."""
    allowed_classes: tuple[str, ...] = ()
    """Globs of dotted class paths that reading may import (dataclasses, pydantic models, enums)."""


def derive_key(secret: bytes, *, purpose: bytes = b"airflow-ml-provider signing v1") -> bytes:
    """
    Derive a signing key of 32 bytes from a secret that serves another purpose.

    HKDF with SHA-256 (RFC 5869), so that a leaked signature says nothing about the secret.
    """
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=hashes.SHA256(), length=_KEY_BYTES, salt=None, info=purpose).derive(secret)


def key_from_file(path: Path) -> bytes:
    """
    Read the signing key of one machine, making it (mode 0600) the first time.

    :raises SettingsError: if the file cannot be made, or others may read it.
    """
    if not path.exists():
        draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_hex(_KEY_BYTES).encode())
            os.link(draft, path)  # whole: another process may read it in this moment
        except FileExistsError:
            pass  # that process was first, and its key counts
        except OSError as exc:
            raise SettingsError(
                f"making the signing key file {str(path)!r} failed: {exc.strerror}; set "
                "[ml_provider] signing_key or [core] fernet_key, which every machine of the deployment shares"
            ) from exc
        finally:
            draft.unlink(missing_ok=True)
    if path.stat().st_mode & 0o077:
        raise SettingsError(f"others may read the signing key file {str(path)!r}; run: chmod 600 {path}")
    key = path.read_bytes().strip()
    if len(key) < _KEY_BYTES:
        raise SettingsError(
            f"the signing key file {str(path)!r} holds {len(key)} bytes, at least {_KEY_BYTES} are needed; "
            "remove it to have a new one made (artifacts signed with the old key will be refused)"
        )
    return derive_key(key)


def check_root(root: str) -> str:
    """
    Return an artifact root without its trailing slash.

    :raises SettingsError: unless it is an absolute ``file://`` or an ``s3://`` address and nothing else.
    """
    if not root.startswith(_SCHEMES):
        raise SettingsError(
            f"[ml_provider] artifact_root must start with {' or '.join(_SCHEMES)}, got {root!r}; "
            "for example file:///var/lib/airflow/artifacts or s3://bucket/prefix"
        )
    scheme, _, rest = root.partition("://")
    if not rest.strip("/") or (scheme == "file" and not rest.startswith("/")):
        raise SettingsError(f"[ml_provider] artifact_root names no absolute folder or bucket: {root!r}")
    if re.search(r"\s[#;]", root):
        raise SettingsError(
            f"[ml_provider] artifact_root is {root!r}, with a comment in it; in airflow.cfg a comment needs "
            "a line of its own"
        )
    if strange := re.search(r"[?#]", root):
        raise SettingsError(
            f"[ml_provider] artifact_root is {root!r}; what follows {strange[0]!r} is no part of a folder "
            f"or bucket; write %{ord(strange[0]):02X} for a {strange[0]!r} in a name"
        )
    return root.rstrip("/")


@functools.cache
def load_settings() -> Settings:
    """
    Read ``[ml_provider]`` from Airflow's configuration.

    :raises SettingsError: naming the option, what was found and what it takes.
    """
    from airflow.sdk.configuration import conf

    def text(option: str, fallback: str = "") -> str:
        return str(conf.get(SECTION, option, fallback=fallback) or fallback).strip()

    def flag(option: str, fallback: bool) -> bool:
        found = text(option, str(fallback)).lower()
        if found in ("true", "t", "1", "yes"):
            return True
        if found in ("false", "f", "0", "no"):
            return False
        raise SettingsError(f"[ml_provider] {option} must be True or False, got {found!r}")

    home = os.environ.get("AIRFLOW_HOME") or os.path.expanduser("~/airflow")
    root = text("artifact_root", "file://{AIRFLOW_HOME}/ml_artifacts").replace("{AIRFLOW_HOME}", home)

    def size(option: str, fallback: int) -> int:
        found = text(option, str(fallback))
        if not found.isdecimal():
            raise SettingsError(f"[ml_provider] {option} must be a whole number of bytes, got {found!r}")
        return int(found)

    if secrets_found := _words(text("signing_key")):
        for number, secret in enumerate(secrets_found, 1):
            if len(secret) < _KEY_BYTES:
                which = f" number {number}" if len(secrets_found) > 1 else ""
                raise SettingsError(
                    f"[ml_provider] signing_key{which} has {len(secret)} characters, at least {_KEY_BYTES} "
                    "are needed; make one with: python -c 'import secrets; print(secrets.token_hex(32))'"
                )
        source = "signing_key"
    elif secrets_found := _words(
        str(conf.get("core", "fernet_key", fallback="") or "").replace(_NO_FERNET_KEY, "")
    ):
        source = "fernet_key"
    else:
        source = "key file"
    keys = [derive_key(secret.encode()) for secret in secrets_found]
    keys = keys or [key_from_file(Path(home) / _KEY_FILE)]

    # Airflow's own list of what else is secret here, parts of names.
    further = _words(str(conf.get("core", "sensitive_var_conn_names", fallback="") or ""))
    mask = conf.get(SECTION, "preview_mask", fallback=None)
    masked = SECRET_NAMES if mask is None else tuple(_words(str(mask)))

    return Settings(
        artifact_root=check_root(root),
        signing_key=keys[0],
        verify_with=tuple(keys[1:]),
        signing_key_source=source,
        artifact_conn_id=text("artifact_conn_id") or None,
        mlflow_conn_id=text("mlflow_conn_id", "mlflow_default"),
        parent_run=flag("parent_run", True),
        inline_max_bytes=size("inline_max_bytes", 16_384),
        allow_pickle=flag("allow_pickle", False),
        max_artifact_bytes=size("max_artifact_bytes", 0),
        verify_on_read=flag("verify_on_read", True),
        previews=flag("previews", True),
        preview_mask=(*masked, *(f"*{name}*" for name in further)),
        allowed_classes=tuple(_words(text("allowed_classes"))),
    )


def _words(text: str) -> list[str]:
    """Split a list that is separated by commas, blanks or new lines."""
    return text.replace(",", " ").split()
