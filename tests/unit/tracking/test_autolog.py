# SPDX-License-Identifier: Apache-2.0
"""Which of MLflow's autologging is switched on, and off again."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from airflow_ml_provider.tracking import autolog
from airflow_ml_provider.tracking.autolog import autolog_source, autologging, check_autolog


@pytest.fixture
def called(monkeypatch):
    calls = []

    def module(name):
        return SimpleNamespace(autolog=lambda **options: calls.append((name, options)))

    monkeypatch.setattr(autolog, "_import", module)
    return calls


QUIET = {"log_models": False, "log_datasets": False}
OFF = {"disable": True, "silent": True}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (True, [("mlflow", QUIET)]),
        (["sklearn", "torch", "pytorch"], [("mlflow.sklearn", QUIET), ("mlflow.pytorch", QUIET)]),
        ("lightgbm", [("mlflow.lightgbm", QUIET)]),
        (("xgboost",), [("mlflow.xgboost", QUIET)]),
        ({"log_models": True, "silent": True}, [("mlflow", {**QUIET, "log_models": True, "silent": True})]),
    ],
)
def test_it_is_on_inside_and_off_afterwards(called, given, expected):
    with autologging(check_autolog(given)):
        assert called == expected
    assert called == expected + [(name, OFF) for name, _ in expected]


def test_nothing_is_imported_where_it_is_off(called):
    with autologging(False):
        pass
    assert called == []
    assert autolog_source(False) == ""


def test_the_lines_for_another_interpreter_run(monkeypatch):
    calls = []
    fake = SimpleNamespace(start_run=lambda: calls.append("run"))
    library = SimpleNamespace(autolog=lambda **options: calls.append(options))
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.setitem(sys.modules, "mlflow.sklearn", library)
    exec(autolog_source(("sklearn",)), {})  # noqa: S102 - what is tested
    assert calls == ["run", QUIET]


@pytest.mark.parametrize("library", ["sklearn", "lightgbm", "torch"])
def test_mlflow_has_what_is_named(library):
    with autologging((library,)):
        pass
