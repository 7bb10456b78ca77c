# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from airflow_ml_provider import MLClient
from airflow_ml_provider.artifacts.objects import ObjectStore
from airflow_ml_provider.artifacts.refs import Producer
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import ArtifactNotFoundError, ModelNotFoundError, SignatureError
from airflow_ml_provider.lineage.index import index_attempt
from airflow_ml_provider.lineage.records import TaskRecord, VersionUse, write_record
from airflow_ml_provider.settings import Settings, derive_key, load_settings
from airflow_ml_provider.tracking.ledger import AliasMove, Ledger
from airflow_ml_provider.tracking.models import ModelRef

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


KEY = "k" * 40


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A store of another deployment, whose configuration is not here, and how to reach it."""
    monkeypatch.setattr("airflow_ml_provider.client.load_settings", lambda: pytest.fail("asked Airflow"))
    root = f"file://{tmp_path}/elsewhere"
    store = ArtifactStore(root, signing_key=derive_key(KEY.encode()))
    return store, MLClient(root=root, signing_key=f"{'n' * 40}, {KEY}")


def test_artifacts_are_found_by_name_version_and_time_without_any_configuration(elsewhere):
    store, client = elsewhere
    day = datetime(2013, 5, 14, tzinfo=UTC)
    first, second = (
        store.save(pd.DataFrame({"a": [number]}), "features", effective_at=day + timedelta(days=number))
        for number in (0, 1)
    )
    store.save(b"1", "other")
    assert client.artifact("features").load()["a"].tolist() == [1]
    assert client.artifact("features", first.version_id) == first
    assert client.artifact("features", as_of="2013-05-14T12:00").load()["a"].tolist() == [0]
    assert client.artifact("features", as_of=datetime.now(UTC), clock="wall") == second
    assert [ref.name for ref in client.artifacts()] == ["features", "other"]
    assert client.artifacts("FEAT") == [second]
    assert client.versions("features", limit=1) == [second]
    with pytest.raises(ArtifactNotFoundError):
        client.artifact("features", as_of="2013-05-13")
    with pytest.raises(TypeError, match="'yesterday'"):
        client.artifact("features", as_of="yesterday")
    with pytest.raises(ValueError, match="give one of them"):
        client.artifact("features", first.version_id, as_of=day)
    with pytest.raises(SignatureError):
        MLClient(root=store.objects.root, signing_key="w" * 40).artifact("features")


def keep(store, run, task_id, map_index=-1, **measured):
    run_after = datetime(2013, 2, 1, tzinfo=UTC) + timedelta(days=run)
    doc = {
        "dag_id": "training",
        "run_id": f"run {run}",
        "task_id": task_id,
        "map_index": map_index,
        "try_number": 1,
        "outcome": "success",
        "recorded_at": "2026-01-01T00:00:00+00:00",
        "data_interval": [run_after.isoformat(), run_after.isoformat()],
        "run": {"run_type": "scheduled", "run_after": run_after.isoformat()},
        **measured,
    }
    index_attempt(store.objects, doc)


def test_runs_are_a_table_of_params_and_metrics(elsewhere):
    store, client = elsewhere
    for run in range(4):
        keep(store, run, "load")
        keep(store, run, "fit", params={"depth": run}, models_written=[{"model_uri": f"models:/m-{run}"}])
        keep(store, run, "evaluate", metrics={"auc": run / 10})
    keep(store, 3, "search", 1, metrics={"auc": 0.9})
    table = client.runs("training", limit=3)
    assert table["run_id"].tolist() == ["run 3", "run 2", "run 1"]
    assert table.columns.tolist()[-3:] == [
        "params.fit.depth",
        "metrics.evaluate.auc",
        "metrics.search[1].auc",
    ]
    assert table["metrics.evaluate.auc"].tolist() == [0.3, 0.2, 0.1]
    assert table["metrics.search[1].auc"].isna().tolist() == [False, True, True]
    assert str(table["run_after"].dtype).endswith("UTC]")
    assert str(table["logical_date"].dtype).endswith("UTC]")
    rows = client.measured("training", task_id="fit", limit=2)
    assert rows[["run_id", "params.depth", "model_uri"]].values.tolist() == [
        ["run 3", 3, "models:/m-3"],
        ["run 2", 2, "models:/m-2"],
    ]
    assert len(client.measured("training")) == 9


def test_a_dag_that_measured_nothing_is_an_empty_table(elsewhere):
    store, client = elsewhere
    assert client.runs("training").empty
    assert client.measured("training").empty
    keep(store, 1, "load")
    assert client.runs("training")["run_id"].tolist() == ["run 1"]


def test_a_model_is_loaded_by_alias_version_and_time(client, monkeypatch):
    from airflow_ml_provider.tracking.models import ModelRef

    monkeypatch.setattr(ModelRef, "load", lambda self: (self.model_uri, self.mlflow_conn_id))
    model = client.model("flight_delay")
    assert model.load() == ("models:/flight_delay@champion", "mlflow_default")
    assert model.load("7") == ("models:/flight_delay/7", "mlflow_default")
    assert model.load("champion", as_of="2013-05-14") == ("models:/flight_delay/3", "mlflow_default")
    with pytest.raises(ModelNotFoundError, match="as of 2013-01-01"):
        model.load(as_of="2013-01-01")
    elsewhere = MLClient(tracking_uri="http://mlflow:5000").model("flight_delay").ref()
    assert (elsewhere.tracking_uri, elsewhere.mlflow_conn_id) == ("http://mlflow:5000", None)


def test_a_model_that_mlflow_does_not_have_is_named_with_the_aliases_there_are(client, monkeypatch):
    def missing(self):
        raise ModelNotFoundError(f"there is no {self.model_uri!r} on http://mlflow:5000")

    monkeypatch.setattr(ModelRef, "load", missing)
    with pytest.raises(ModelNotFoundError, match=r"flight_delay@champoin.*the ledger knows: champion"):
        client.model("flight_delay").load("champoin")


def test_an_address_without_its_name_is_refused():
    with pytest.raises(TypeError, match=r"MLClient\(root='s3://bucket/prefix'\)"):
        MLClient("s3://bucket/prefix")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"conn_id": "a", "storage_options": {}}, "give one of them"),
        ({"signing_key": KEY}, "give root too"),
        ({"root": "here"}, "must start with file:// or s3://"),
    ],
)
def test_wrong_arguments_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        MLClient(**given)


def test_another_root_keeps_the_other_options(tmp_path):
    settings = Settings("s3://bucket/root", b"k" * 32, previews=False, artifact_conn_id="aws")
    other = MLClient(settings, root=f"file://{tmp_path}")
    assert (other.store.objects.root, other.store.previews) == (f"file://{tmp_path}", False)
    assert repr(MLClient(settings)) == "MLClient('s3://bucket/root')"


def test_more_artifacts_are_found_than_are_on_one_page(elsewhere, monkeypatch):
    store, client = elsewhere
    for name in "cab":
        store.save(b"1", name)
    assert [ref.name for ref in client.artifacts(limit=5_000)] == ["a", "b", "c"]
    monkeypatch.setattr("airflow_ml_provider.client.MAX_PAGE", 1)
    assert [ref.name for ref in client.artifacts(limit=2)] == ["a", "b"]


def test_lineage_is_asked_of_artifacts_models_and_names(elsewhere):
    store, client = elsewhere
    me = Producer("training", "run 1", "fit")
    raw = store.save(b"raw", "raw", producer=Producer("training", "run 1", "load"))
    table = store.save(b"table", "table", producer=me)
    model = {"model_id": "m-1", "model_uri": "models:/m-1", "registered_model_name": "late", "version": "1"}
    model["role"] = "trained"
    write_record(
        store.objects,
        TaskRecord(
            "training",
            "run 1",
            "fit",
            -1,
            1,
            "success",
            run={"run_after": "2013-02-01T00:00:00+00:00"},
            reads=(VersionUse.of(raw),),
            writes=(VersionUse.of(table),),
            models_written=(model,),
        ),
    )
    for of in (table, table.uri, "table", ModelRef.coerce("models:/late/1"), "training/run 1/fit"):
        graph = client.upstream(of)
        assert "raw" in {node.name for node in graph.nodes}, of
    found = {node.name or node.model_id for node in client.downstream(raw).nodes}
    assert {"table", "m-1"} <= found
    assert client.upstream(table, depth=0).nodes[0].version_id == table.version_id
    assert [run.run_id for run in client.blast_radius(raw).runs] == ["run 1"]
    assert client.diff("models:/late/1", "models:/m-1").params == ()
    with pytest.raises(TypeError, match="got 3"):
        client.upstream(3)
    with pytest.raises(ArtifactNotFoundError):
        client.upstream("raw", as_of="2013-01-01")
