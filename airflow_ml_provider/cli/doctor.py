# SPDX-License-Identifier: Apache-2.0
"""``airflow ml doctor``: is this machine set up, and if not, what to do."""

from __future__ import annotations

import difflib
import logging
import os
import re
import secrets
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Literal

from airflow.configuration import conf
from airflow.exceptions import AirflowConfigException

from airflow_ml_provider.cli.console import FAILED, command, one_line, show_rows
from airflow_ml_provider.exceptions import MLProviderError
from airflow_ml_provider.provider_info import get_provider_info
from airflow_ml_provider.settings import SECTION, Settings, load_settings
from airflow_ml_provider.tracking.errors import without_password

log = logging.getLogger(__name__)

BACKEND = "airflow_ml_provider.xcom.backend.ArtifactXComBackend"
_PACKAGES = (
    "airflow-ml-provider",
    "apache-airflow-core",
    "apache-airflow-task-sdk",
    "mlflow",
    "mlflow-skinny",
)
_ANSWERS_WITHIN = 5.0  # seconds
# A name that was meant for [ml_provider]: an underscore too few is ignored by Airflow without a word.
_MEANT = re.compile(r"AIRFLOW_+ML_?PROVIDER_+(.+)")
_MAKE_KEY = "python -c 'import secrets; print(secrets.token_hex(32))'"


@dataclass(frozen=True)
class Finding:
    """What one check saw."""

    check: str
    status: Literal["ok", "warning", "problem"]
    found: str
    fix: str = ""


@command
def doctor(args: Namespace) -> int:
    """Run every check, print what was found and how to fix it; 1 if there is a problem."""
    findings = list(examine())
    show_rows([_row(finding, args.output) for finding in findings], args.output)
    if args.output in ("table", "plain"):
        for finding in findings:
            if finding.fix:
                print(f"{finding.check}: {finding.fix}")
    bad = ("problem", "warning") if args.strict else ("problem",)
    return FAILED if any(finding.status in bad for finding in findings) else 0


def _row(finding: Finding, output: str) -> dict[str, str]:
    row = asdict(finding)
    if output in ("table", "plain"):
        del row["fix"]  # told below the table, where there is room for it
    return row


def examine() -> Iterator[Finding]:
    """Yield one finding a check; a check that cannot be made is a finding too."""
    yield _guarded("packages", check_packages)
    yield _guarded("xcom backend", check_backend)
    yield _guarded("listener", check_listener)
    try:
        settings = load_settings()
    except MLProviderError as exc:
        yield Finding("options", "problem", one_line(exc), "correct it in airflow.cfg or the environment")
        return
    yield _guarded("options", check_options)
    yield _guarded("signing key", lambda: check_signing_key(settings))
    yield _guarded("artifact root", lambda: check_root(settings))
    yield _guarded("artifact store", lambda: check_store(settings))
    yield _guarded("mlflow", lambda: check_mlflow(settings))
    yield _guarded("webhook", lambda: check_webhook(settings))


def _guarded(name: str, check: Callable[[], Finding]) -> Finding:
    # A doctor that dies at the first patient helps nobody: whatever goes wrong in a check is its finding.
    try:
        return check()
    except MLProviderError as exc:
        return Finding(name, "problem", one_line(exc))  # our errors say what to do
    except Exception as exc:
        log.exception("the check %r failed", name)  # --verbose shows it
        found = f"{type(exc).__name__}: {one_line(exc)}"
        return Finding(name, "problem", found, "run again with --verbose to see where")


def check_packages() -> Finding:
    """Report the versions that matter in a bug report."""
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"no {name}")
    return Finding("packages", "ok", ", ".join(found))


def check_backend() -> Finding:
    """Is ``[core] xcom_backend`` ours, or a class made of ours?"""
    from airflow_ml_provider.xcom.backend import ArtifactXComBackend

    path = conf.get("core", "xcom_backend")
    fix = f"set [core] xcom_backend = {BACKEND}, or AIRFLOW__CORE__XCOM_BACKEND, on every machine"
    try:
        backend = conf.getimport("core", "xcom_backend")
    except AirflowConfigException as exc:
        return Finding("xcom backend", "problem", one_line(exc), fix)
    if isinstance(backend, type) and issubclass(backend, ArtifactXComBackend):
        return Finding("xcom backend", "ok", path)
    return Finding("xcom backend", "problem", f"{path} does not store artifacts", fix)


def check_listener() -> Finding:
    """Does Airflow call our listener in task processes?"""
    from airflow.sdk.listener import get_listener_manager
    from airflow.sdk.plugins_manager import _get_plugins

    from airflow_ml_provider.listeners import task_listener

    hooks = get_listener_manager().hook.on_task_instance_running.get_hookimpls()
    if any(hook.plugin is task_listener for hook in hooks):
        return Finding("listener", "ok", "records what tasks read and write")
    errors = [
        f"{name}: {error}" for name, error in _get_plugins()[1].items() if "airflow_ml_provider" in name
    ]
    return Finding(
        "listener",
        "problem",
        one_line("; ".join(errors) or "the plugin airflow_ml_provider is not loaded"),
        "reinstall airflow-ml-provider, so that its entry point airflow.plugins is found; no lineage without",
    )


def check_options() -> Finding:
    """Is there an option that nobody reads? The values of those that are read were checked before."""
    known = list(get_provider_info()["config"][SECTION]["options"])
    given = {name: re.sub("_(cmd|secret)$", "", name) for name in conf.getsection(SECTION) or {}}
    strange = {name: option for name, option in given.items() if option not in known}
    for name in os.environ:
        if (meant := _MEANT.fullmatch(name)) and not name.startswith(f"AIRFLOW__{SECTION.upper()}__"):
            strange[name] = meant[1].lower()
    if not strange:
        return Finding("options", "ok", "every option of [ml_provider] can be used")
    close = [each for option in strange.values() for each in difflib.get_close_matches(option, known, n=1)]
    hints = [f"[ml_provider] {option}, or AIRFLOW__ML_PROVIDER__{option.upper()}" for option in close]
    return Finding(
        "options",
        "warning",
        f"nobody reads {', '.join(sorted(strange))}",
        f"perhaps you mean {'; '.join(hints)}" if hints else f"the options are {', '.join(known)}",
    )


def check_signing_key(settings: Settings) -> Finding:
    """Where does the key come from, and do other machines have it?"""
    if settings.signing_key_source == "key file":
        return Finding(
            "signing key",
            "warning",
            "a key file in AIRFLOW_HOME, which serves this machine only",
            f"if there are other machines, give all the same [ml_provider] signing_key, made by: {_MAKE_KEY}",
        )
    option = (
        "[core] fernet_key" if settings.signing_key_source == "fernet_key" else "[ml_provider] signing_key"
    )
    return Finding("signing key", "ok", f"from {option}")


def check_root(settings: Settings) -> Finding:
    """Can the executor's workers reach the root at all?"""
    executors = [name.strip() for name in conf.get("core", "executor").split(",")]
    remote = [name for name in executors if "Local" not in name]
    if settings.artifact_root.startswith("file://") and remote:
        return Finding(
            "artifact root",
            "warning",
            f"{settings.artifact_root} with {', '.join(remote)}: every worker must mount this folder",
            "set [ml_provider] artifact_root = s3://bucket/prefix, or mount the folder everywhere",
        )
    return Finding("artifact root", "ok", settings.artifact_root)


def check_store(settings: Settings) -> Finding:
    """Write, read and delete a small object."""
    from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook

    objects = ArtifactStoreHook(settings).store.objects
    key, probe = f"probe/doctor-{secrets.token_hex(8)}", secrets.token_bytes(64)
    started = time.monotonic()
    objects.put(key, probe)
    try:
        again = objects.put(key, b"another")
        found = bytes(objects.get(key))
    finally:
        objects.delete([key])
    took = round((time.monotonic() - started) * 1000)
    if again:
        return Finding(
            "artifact store",
            "problem",
            f"{key} was replaced by a second writer: conditional puts (If-None-Match) are not kept",
            "use storage that supports them, or update it; without them two writers can undo each other",
        )
    if found != probe:
        return Finding(
            "artifact store",
            "problem",
            f"reading {key} gave {len(found)} other bytes than were written",
            "something between this machine and the storage changes content; look for a proxy or a cache",
        )
    if objects.exists(key):
        return Finding(
            "artifact store",
            "problem",
            f"{key} is still there after it was deleted",
            "allow deletion under the root: garbage collection needs it",
        )
    return Finding("artifact store", "ok", f"wrote, read and deleted an object in {took} ms")


def check_mlflow(settings: Settings) -> Finding:
    """Does the tracking server of the default connection answer and let us in?"""
    from airflow.sdk.exceptions import AirflowNotFoundException

    from airflow_ml_provider.hooks.mlflow import MlflowHook

    conn_id = settings.mlflow_conn_id
    hook = MlflowHook(conn_id)
    try:
        address = hook.tracking_uri
    except AirflowNotFoundException as exc:
        return Finding(
            "mlflow",
            "warning",
            one_line(exc),
            "training, evaluation and promotion need it; storing artifacts does not",
        )
    works, message = hook.test_connection()
    if works:
        return Finding("mlflow", "ok", f"{conn_id}: {one_line(message)}")
    fix = f"start the server at {without_password(address)}, or correct the connection {conn_id!r}"
    return Finding("mlflow", "problem", one_line(message), fix)


def check_webhook(settings: Settings) -> Finding:
    """If webhooks of MLflow are set up: do they arrive, and does MLflow send them?"""
    from airflow.sdk.exceptions import AirflowNotFoundException

    from airflow_ml_provider.hooks.mlflow import MlflowHook

    conn_id = settings.mlflow_conn_id
    hook = MlflowHook(conn_id)
    try:
        secret = (hook.get_connection(conn_id).extra_dejson or {}).get("webhook_secret")
    except AirflowNotFoundException:
        return Finding("webhook", "ok", "none, as there is no MLflow connection")
    if not secret:
        return Finding(
            "webhook", "ok", f"{conn_id} has no webhook_secret: moves of aliases are found by polling"
        )
    path = f"/ml-provider/webhooks/mlflow/{conn_id}"
    base = conf.get("api", "base_url", fallback="") or "http://localhost:8080/"
    if (failure := _deliver(f"{base.rstrip('/')}{path}", str(secret))) is not None:
        return failure
    found = [each for each in hook.client.list_webhooks() if each.url.endswith(path)]
    active = [each for each in found if str(getattr(each.status, "value", each.status)) == "ACTIVE"]
    if active:
        return Finding("webhook", "ok", f"MLflow sends to {active[0].url}, and a signed delivery arrives")
    return Finding(
        "webhook",
        "warning",
        f"a signed delivery arrives, but MLflow has {'only disabled ones' if found else 'none'} to {path}",
        f"create it in MLflow with the connection's webhook_secret and the address {base.rstrip('/')}{path}",
    )


def _deliver(url: str, secret: str) -> Finding | None:
    """Send what MLflow would send, of an event that announces nothing; None if it was accepted."""
    import urllib.error
    import urllib.request

    from airflow_ml_provider.tracking.webhooks import signature_of

    body = b'{"entity":"doctor","action":"probed","data":{}}'
    delivery, sent = f"doctor-{secrets.token_hex(8)}", str(int(time.time()))
    headers = {
        "Content-Type": "application/json",
        "X-MLflow-Delivery-Id": delivery,
        "X-MLflow-Timestamp": sent,
        "X-MLflow-Signature": signature_of(body, delivery, sent, secret),
    }
    request = urllib.request.Request(url, body, headers)  # noqa: S310 - [api] base_url is the deployment's
    try:
        with urllib.request.urlopen(request, timeout=_ANSWERS_WITHIN):  # noqa: S310
            return None
    except urllib.error.HTTPError as exc:
        found = f"the API server answers {exc.code} to a signed delivery at {url}"
        fix = "give the API server the same connection, with the same webhook_secret, and an exact clock"
        if exc.code == 404:
            fix = "correct [api] base_url, or restart the API server with this provider installed"
        return Finding("webhook", "problem", found, fix)
    except OSError as exc:
        return Finding(
            "webhook",
            "warning",
            f"no answer at {url}: {one_line(getattr(exc, 'reason', exc))}",
            "start the API server, or correct [api] base_url: MLflow's webhooks need it",
        )
