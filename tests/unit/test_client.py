# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import pytest

from airflow_ml_provider import MLClient
from airflow_ml_provider.artifacts.objects import ObjectStore
from airflow_ml_provider.settings import load_settings
from airflow_ml_provider.tracking.ledger import AliasMove, Ledger

RECORDED = datetime(2026, 1, 9, 12, tzinfo=UTC)


@pytest.fixture
def client(tmp_path, monkeypatch):
    root = f"file://{tmp_path}/root"
    monkeypatch.setenv("AIRFLOW__ML_PROVIDER__ARTIFACT_ROOT", root)
    load_settings.cache_clear()
    ledger = Ledger(ObjectStore(root))
    for hour, (version, month) in enumerate([("1", 2), ("2", 6), ("3", 4)]):
        ledger.record(
            AliasMove(
                "flight_delay",
                "champion",
                version,
                None,
                datetime(2013, month, 1, tzinfo=UTC),
                RECORDED.replace(hour=12 + hour),
            )
        )
    yield MLClient()
    load_settings.cache_clear()


def test_the_champion_of_a_day_is_asked_by_either_clock(client):
    model = client.model("flight_delay")
    assert model.as_of("champion", "2013-05-14").version == "3"
    assert model.as_of("champion", datetime(2013, 7, 1)).model_uri == "models:/flight_delay/2"
    assert model.as_of("champion", "2013-01-31") is None
    assert model.as_of("champion", "2026-01-09T13:30", clock="wall").version == "2"
    with pytest.raises(TypeError, match="'yesterday'"):
        model.as_of("champion", "yesterday")


def test_the_history_is_sorted_by_either_clock(client):
    model = client.model("flight_delay")
    assert [move.version for move in model.history("champion")] == ["2", "3", "1"]
    assert [move.version for move in model.history("champion", clock="wall", limit=2)] == ["3", "2"]
    assert model.history("shadow") == []
    with pytest.raises(ValueError, match="'moon'"):
        model.history("champion", clock="moon")


def test_models_and_their_aliases_are_listed(client):
    assert [repr(model) for model in client.models()] == ["ModelHistory('flight_delay')"]
    assert client.model("flight_delay").aliases() == ["champion"]
    assert client.model("nobody").aliases() == []


def test_the_client_needs_neither_the_metadata_database_nor_mlflow(client, monkeypatch):
    code = (
        "import sys\n"
        "from airflow_ml_provider import MLClient\n"
        "print(MLClient().model('flight_delay').as_of('champion', '2013-05-14').version)\n"
        "print({'mlflow', 'pandas'} & set(sys.modules))"
    )
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "sqlite:////no/such/folder/airflow.db")
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.splitlines()[-2:] == ["3", "set()"]
