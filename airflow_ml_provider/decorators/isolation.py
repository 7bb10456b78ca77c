# SPDX-License-Identifier: Apache-2.0
"""
Tasks whose code runs in a process or pod of its own, and how such a place gets environment variables.

What is passed goes to that process or pod alone: not into ``os.environ`` here, not into arguments, and not
into template fields, which Airflow keeps and shows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_ml_provider.tracking.session import Credentials

#: Variables that hold secrets; a Kubernetes secret can bring them instead.
_SECRETS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


@dataclass(frozen=True)
class Isolation:
    """A kind of place outside of the task's own process."""

    kind: str
    """``interpreter``, ``shell`` or ``pod``, as tags say it."""
    enter: Callable[[Any, Mapping[str, str | None], str | None], Any]
    runs_source: bool
    """Whether the task's function is sent there as source code."""

    def environment(
        self, operator: Any, variables: Mapping[str, str | None], secret: str | None = None
    ) -> Any:
        """
        Give the place these variables for the length of a ``with`` block.

        :param variables: None for one that must not be set.
        :param secret: A Kubernetes secret whose keys become variables in the pod.
        """
        return self.enter(operator, variables, secret)


def isolation_of(operator_class: type) -> Isolation | None:
    """Say where an operator runs its code; None for this process."""
    if hasattr(operator_class, "_execute_python_callable_in_subprocess"):
        return _INTERPRETER
    if hasattr(operator_class, "build_pod_request_obj"):
        return Isolation("pod", _in_pod, runs_source=hasattr(operator_class, "_generate_cmds"))
    if hasattr(operator_class, "get_env") and hasattr(operator_class, "_run_inline_command"):
        return _SHELL
    return None


def run_variables(
    *, tracking_uri: str, registry_uri: str, experiment_id: str, run_id: str, credentials: Credentials
) -> dict[str, str | None]:
    """Return what MLflow reads in a process that goes on with a run."""
    return {
        "MLFLOW_TRACKING_URI": tracking_uri,
        "MLFLOW_REGISTRY_URI": registry_uri,
        "MLFLOW_EXPERIMENT_ID": experiment_id,
        "MLFLOW_RUN_ID": run_id,
        **credentials.environment(),
    }


@contextmanager
def _in_interpreter(operator: Any, variables: Mapping[str, str | None], secret: str | None) -> Iterator[None]:
    before = operator.env_vars
    inherited = os.environ if operator.inherit_env else {}
    operator.env_vars = {**(before or {}), **_overriding(variables, inherited)}
    try:
        yield
    finally:
        operator.env_vars = before


def _overriding(variables: Mapping[str, str | None], inherited: Mapping[str, str]) -> dict[str, str]:
    """Values that stand for "not set" where a variable of this process is inherited."""
    given = {name: value for name, value in variables.items() if value is not None}
    for name in variables.keys() & inherited.keys() - given.keys():
        if name == "MLFLOW_TRACKING_SERVER_CERT_PATH":
            import certifi

            given[name] = certifi.where()
        else:
            given[name] = "false" if name == "MLFLOW_TRACKING_INSECURE_TLS" else ""
    return given


@contextmanager
def _in_shell(operator: Any, variables: Mapping[str, str | None], secret: str | None) -> Iterator[None]:
    def get_env(context: Any) -> dict[str, str]:
        environment: dict[str, str] = dict(type(operator).get_env(operator, context))
        for name, value in variables.items():
            if value is None:
                environment.pop(name, None)
            else:
                environment[name] = value
        return environment

    operator.__dict__["get_env"] = get_env
    try:
        yield
    finally:
        operator.__dict__.pop("get_env", None)


@contextmanager
def _in_pod(operator: Any, variables: Mapping[str, str | None], secret: str | None) -> Iterator[None]:
    def build_pod_request_obj(*args: Any, **kwargs: Any) -> Any:
        pod = type(operator).build_pod_request_obj(operator, *args, **kwargs)
        _add_to_pod(pod, operator.base_container_name, variables, secret)
        return pod

    operator.__dict__["build_pod_request_obj"] = build_pod_request_obj
    try:
        yield
    finally:
        operator.__dict__.pop("build_pod_request_obj", None)


def _add_to_pod(
    pod: Any, container_name: str, variables: Mapping[str, str | None], secret: str | None
) -> None:
    from kubernetes.client import models as k8s

    container = next(each for each in pod.spec.containers if each.name == container_name)
    given = {
        name: value
        for name, value in variables.items()
        if value is not None and not (secret and name in _SECRETS)
    }
    # The certificates lie on this machine and not in the image.
    given.pop("MLFLOW_TRACKING_SERVER_CERT_PATH", None)
    kept = [each for each in container.env or () if each.name not in given]
    container.env = [*kept, *(k8s.V1EnvVar(name=name, value=value) for name, value in given.items())]
    if secret:
        reference = k8s.V1EnvFromSource(secret_ref=k8s.V1SecretEnvSource(name=secret))
        container.env_from = [*(container.env_from or ()), reference]


_INTERPRETER = Isolation("interpreter", _in_interpreter, runs_source=True)
_SHELL = Isolation("shell", _in_shell, runs_source=False)
