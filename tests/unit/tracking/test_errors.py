# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from airflow_ml_provider.tracking.errors import is_duplicate, is_missing, without_password


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://ada:secret@mlflow:5000/x", "http://***@mlflow:5000/x"),
        ("http://mlflow:5000", "http://mlflow:5000"),
        ("sqlite:////tmp/mlflow.db", "sqlite:////tmp/mlflow.db"),
        ("postgresql://ada:p%40ss@db/mlflow", "postgresql://***@db/mlflow"),
    ],
)
def test_passwords_do_not_show(address, shown):
    assert without_password(address) == shown


def test_what_exists_and_what_does_not():
    from mlflow.exceptions import RestException

    missing = RestException({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "x"})
    alias = RestException(
        {"error_code": "INVALID_PARAMETER_VALUE", "message": "Registered model alias a not found."}
    )
    double = RestException({"error_code": "RESOURCE_ALREADY_EXISTS", "message": "x"})
    assert is_missing(missing)
    assert is_missing(alias)
    assert not is_missing(double)
    assert is_duplicate(double)
    assert not is_duplicate(missing)
