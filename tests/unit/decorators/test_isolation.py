# SPDX-License-Identifier: Apache-2.0
"""Who runs elsewhere, and what the process or pod there is given."""

from __future__ import annotations

import pytest
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.python import (
    ExternalPythonOperator,
    PythonOperator,
    PythonVirtualenvOperator,
)

from airflow_ml_provider.decorators.isolation import _overriding, isolation_of, run_variables
from airflow_ml_provider.tracking.session import Credentials

SECRET = "s3cret"
VARIABLES = {
    **run_variables(
        tracking_uri="http://mlflow:5000",
        registry_uri="http://registry:5000",
        experiment_id="7",
        run_id="abc",
        credentials=Credentials("ann", SECRET, ca_bundle="/etc/ca.pem"),
    )
}


def work():
    pass


@pytest.fixture
def pod_operator():
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator

    return KubernetesPodOperator(
        task_id="pod", image="trainer:1", name="pod", env_vars={"MLFLOW_RUN_ID": "old", "MINE": "1"}
    )


def test_each_kind_of_operator_has_its_place(pod_operator):
    from airflow.providers.cncf.kubernetes.decorators.kubernetes import _KubernetesDecoratedOperator

    kinds = {
        PythonVirtualenvOperator: ("interpreter", True),
        ExternalPythonOperator: ("interpreter", True),
        BashOperator: ("shell", False),
        type(pod_operator): ("pod", False),
        _KubernetesDecoratedOperator: ("pod", True),
    }
    for operator_class, wanted in kinds.items():
        place = isolation_of(operator_class)
        assert (place.kind, place.runs_source) == wanted, operator_class
    assert isolation_of(PythonOperator) is None


def environment_of(pod):
    (container,) = pod.spec.containers
    return container, {each.name: each.value for each in container.env}


def test_a_pod_gets_them_in_its_specification_and_the_operator_keeps_none(pod_operator):
    place = isolation_of(type(pod_operator))
    with place.environment(pod_operator, VARIABLES):
        _, given = environment_of(pod_operator.build_pod_request_obj(dry_run=True))
    assert given["MLFLOW_RUN_ID"] == "abc"
    assert given["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    assert given["MLFLOW_TRACKING_PASSWORD"] == SECRET
    assert given["MINE"] == "1"
    assert "MLFLOW_TRACKING_SERVER_CERT_PATH" not in given  # a path of this machine
    assert SECRET not in str(vars(pod_operator))
    _, later = environment_of(pod_operator.build_pod_request_obj(dry_run=True))
    assert later["MLFLOW_RUN_ID"] == "old"


def test_a_kubernetes_secret_brings_the_credentials_instead(pod_operator):
    place = isolation_of(type(pod_operator))
    with place.environment(pod_operator, VARIABLES, "mlflow-credentials"):
        pod = pod_operator.build_pod_request_obj(dry_run=True)
    container, given = environment_of(pod)
    assert given["MLFLOW_RUN_ID"] == "abc"
    assert not {"MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"} & given.keys()
    assert container.env_from[-1].secret_ref.name == "mlflow-credentials"
    assert SECRET not in str(pod)


def test_a_shell_gets_them_and_what_must_not_be_set_is_taken_out(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "the worker's own")
    operator = BashOperator(task_id="b", bash_command="true", env={"MINE": "1"}, append_env=True)
    with isolation_of(BashOperator).environment(operator, VARIABLES):
        given = operator.get_env({})
    assert (given["MLFLOW_RUN_ID"], given["MINE"]) == ("abc", "1")
    assert "MLFLOW_TRACKING_TOKEN" not in given
    assert operator.env == {"MINE": "1"}
    assert "MLFLOW_RUN_ID" not in operator.get_env({})


def test_an_interpreter_gets_them_for_the_length_of_the_block():
    operator = PythonVirtualenvOperator(task_id="v", python_callable=work, env_vars={"MINE": "1"})
    place = isolation_of(PythonVirtualenvOperator)
    with place.environment(operator, VARIABLES):
        assert operator.env_vars["MLFLOW_RUN_ID"] == "abc"
        assert operator.env_vars["MINE"] == "1"
    assert operator.env_vars == {"MINE": "1"}


def test_what_is_inherited_and_must_not_be_set_gets_a_value_that_means_so():
    wanted = {
        "MLFLOW_TRACKING_TOKEN": None,
        "MLFLOW_TRACKING_USERNAME": None,
        "MLFLOW_TRACKING_INSECURE_TLS": None,
        "MLFLOW_TRACKING_SERVER_CERT_PATH": None,
        "MLFLOW_RUN_ID": "abc",
    }
    inherited = dict.fromkeys(wanted, "x")
    del inherited["MLFLOW_TRACKING_USERNAME"]
    given = _overriding(wanted, inherited)
    assert given.pop("MLFLOW_TRACKING_SERVER_CERT_PATH").endswith(".pem")
    assert given == {
        "MLFLOW_RUN_ID": "abc",
        "MLFLOW_TRACKING_TOKEN": "",
        "MLFLOW_TRACKING_INSECURE_TLS": "false",
    }
