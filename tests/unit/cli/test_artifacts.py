# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
import yaml

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.refs import ArtifactRef, Producer
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.lineage.records import TaskRecord, VersionUse, write_record
from tests.unit.cli.conftest import Answer

Run = Callable[..., Answer]
FRAME = pd.DataFrame({"origin": ["EWR", "JFK", "LGA"], "late": [0.5, None, 1.0]})


@pytest.fixture
def versions(store: ArtifactStore) -> list[ArtifactRef]:
    """Two versions of ``flights``: May's, written first, and April's, written later."""
    saved = []
    for month in (5, 4):
        end = datetime(2013, month + 1, 1, tzinfo=UTC)
        saved.append(
            store.save(
                FRAME.assign(month=month),
                "flights",
                producer=Producer("training", f"run-{month}", "features"),
                effective_at=end,
                data_interval=(datetime(2013, month, 1, tzinfo=UTC), end),
            )
        )
    return saved


@pytest.fixture
def reader(store: ArtifactStore, versions: list[ArtifactRef]) -> TaskRecord:
    record = TaskRecord("training", "run-5", "fit", -1, 2, "success", reads=(VersionUse.of(versions[0]),))
    write_record(store.objects, record)
    return record


def damage(store: ArtifactStore, root: Path, ref: ArtifactRef) -> None:
    blob = root / keys.blob_key(ref.digest)
    blob.chmod(0o600)
    blob.write_bytes(b"x" * blob.stat().st_size)


def test_an_empty_store_lists_nothing(airflow: Run) -> None:
    answer = airflow("ml", "artifacts", "list")
    assert (answer.code, answer.out.strip()) == (0, "No data found")


def test_names_are_listed_with_their_newest_version(
    airflow: Run, store: ArtifactStore, versions: list[ArtifactRef]
) -> None:
    store.save(b"\x00", "raw/blob")
    rows = json.loads(airflow("ml", "artifacts", "list", "-o", "json").out)
    assert {row["name"]: row["type"] for row in rows} == {
        "flights": "pandas.DataFrame",
        "raw/blob": "bytes",
    }
    newest = next(row for row in rows if row["name"] == "flights")
    assert newest["version_id"] == versions[1].version_id
    assert newest["size_bytes"] == versions[1].size_bytes
    assert newest["producer"]["run_id"] == "run-4"
    assert "training.features in run run-4, try 1" in airflow("ml", "artifacts", "list", "-o", "plain").out
    found = json.loads(airflow("ml", "artifacts", "list", "--search", "RAW", "-o", "json").out)
    assert [row["name"] for row in found] == ["raw/blob"]


@pytest.mark.parametrize(("output", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_the_versions_of_a_name_are_listed_newest_first(
    airflow: Run, versions: list[ArtifactRef], output: str, read: Callable[[str], Any]
) -> None:
    rows = read(airflow("ml", "artifacts", "list", "flights", "--output", output).out)
    assert [row["version_id"] for row in rows] == [versions[1].version_id, versions[0].version_id]
    assert [row["effective_at"] for row in rows] == ["2013-05-01T00:00:00+00:00", "2013-06-01T00:00:00+00:00"]


@pytest.mark.parametrize("output", ["table", "plain"])
def test_tables_show_names_that_look_like_markup_as_they_are(
    airflow: Run, store: ArtifactStore, output: str
) -> None:
    store.save(b"1", "[red]x[/red]")
    assert "[red]x[/red]" in airflow("ml", "artifacts", "list", "-o", output).out


def test_a_limit_that_cuts_the_list_is_said(airflow: Run, versions: list[ArtifactRef]) -> None:
    answer = airflow("ml", "artifacts", "list", "flights", "--limit", "1", "-o", "json")
    assert len(json.loads(answer.out)) == 1
    assert "more than 1; use --limit" in answer.err


@pytest.mark.parametrize("words", [("list", "nope"), ("show", "nope"), ("get", "nope"), ("verify", "nope")])
def test_a_missing_name_is_an_error_of_one_line_with_its_own_exit_code(
    airflow: Run, words: tuple[str]
) -> None:
    answer = airflow("ml", "artifacts", *words)
    assert answer.code == 3
    assert answer.out == ""
    assert answer.err.startswith("error: ")
    assert "'nope'" in answer.err
    assert answer.err.count("\n") == 1


def test_a_version_is_shown_with_its_manifest_and_readers(
    airflow: Run, versions: list[ArtifactRef], reader: TaskRecord
) -> None:
    words = ("ml", "artifacts", "show", "flights", "--version", versions[0].version_id)
    found = json.loads(airflow(*words, "-o", "json").out)
    assert found["digest"] == versions[0].digest
    assert found["data_interval"] == ["2013-05-01T00:00:00+00:00", "2013-06-01T00:00:00+00:00"]
    assert found["producer"]["task_id"] == "features"
    assert [edge["task_id"] for edge in found["read_by"]] == ["fit"]
    table = airflow(*words).out
    assert "training.features in run run-5, try 1" in table
    assert "training.fit in run run-5, try 2: success" in table
    assert "origin" in table


def test_a_version_that_nobody_read_says_so(airflow: Run, versions: list[ArtifactRef]) -> None:
    assert "nobody yet" in airflow("ml", "artifacts", "show", "flights").out


@pytest.mark.parametrize(
    ("when", "clock", "expected"),
    [
        pytest.param(
            "2013-05-14", "data", 1, id="in data time April's holds until June, though written last"
        ),
        pytest.param("2013-06-02T00:00:00+00:00", "data", 0, id="May's from June on"),
        pytest.param("2099-01-01", "wall", 1, id="by wall clock the one written last"),
    ],
)
def test_as_of_chooses_by_the_clock_that_was_asked_for(
    airflow: Run, versions: list[ArtifactRef], when: str, clock: str, expected: int
) -> None:
    answer = airflow("ml", "artifacts", "show", "flights", "--as-of", when, "--clock", clock, "-o", "json")
    assert json.loads(answer.out)["version_id"] == versions[expected].version_id


def test_as_of_a_time_before_the_first_version_is_not_found(
    airflow: Run, versions: list[ArtifactRef]
) -> None:
    assert airflow("ml", "artifacts", "show", "flights", "--as-of", "2012-01-01").code == 3


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        pytest.param(("--as-of", "May"), 2, "not a time: 'May'", id="no time"),
        pytest.param(("--limit", "0"), 2, "--limit", id="no limit"),
        pytest.param(("--clock", "moon"), 2, "invalid choice: 'moon'", id="no clock"),
        pytest.param(("--version", "7"), 2, "version id: '7'", id="no version id"),
        pytest.param(("--version", "7", "--as-of", "2013-05-14"), 2, "give one of them", id="two choices"),
    ],
)
def test_wrong_arguments_are_named(
    airflow: Run, versions: list[ArtifactRef], words: tuple[str, ...], code: int, said: str
) -> None:
    answer = airflow("ml", "artifacts", "show", "flights", *words)
    assert answer.code == code
    assert said in answer.err + answer.out


def test_get_writes_the_stored_format_into_a_directory(
    airflow: Run, versions: list[ArtifactRef], tmp_path: Path
) -> None:
    answer = airflow("ml", "artifacts", "get", "flights", "--to", str(tmp_path))
    assert answer.out.strip() == str(tmp_path / "flights.arrow")
    with pa.OSFile(str(tmp_path / "flights.arrow")) as file:
        found = pa.ipc.open_file(file).read_all()
    assert found.column("month").to_pylist() == [4, 4, 4]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_get_converts_a_table_to_the_format_that_the_name_asks_for(
    airflow: Run, versions: list[ArtifactRef], tmp_path: Path, suffix: str
) -> None:
    target = tmp_path / f"flights{suffix}"
    assert airflow("ml", "artifacts", "get", "flights", "--to", str(target)).code == 0
    found = pd.read_csv(target) if suffix == ".csv" else pd.read_parquet(target)
    assert found.columns.tolist() == ["origin", "late", "month"]
    assert found["origin"].tolist() == ["EWR", "JFK", "LGA"]


def test_get_converts_an_arrow_table_too(airflow: Run, store: ArtifactStore, tmp_path: Path) -> None:
    store.save(pa.table({"a": [1, 2]}), "table")
    assert airflow("ml", "artifacts", "get", "table", "--to", str(tmp_path / "t.csv")).code == 0
    assert (tmp_path / "t.csv").read_text() == "a\n1\n2\n"


@pytest.mark.parametrize("library", ["pyarrow", "polars"])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_missing_values_leave_the_integers_beside_them_exact(
    airflow: Run, store: ArtifactStore, tmp_path: Path, library: str, suffix: str
) -> None:
    table = pa.table({"id": pa.array([2**60 + 1, None], pa.int64()), "at": pa.array([["x"], None])})
    store.save(table if library == "pyarrow" else pl.DataFrame(table), "ids")
    target = tmp_path / f"ids{suffix}"
    assert airflow("ml", "artifacts", "get", "ids", "--to", str(target)).code == 0
    if suffix == ".csv":
        assert target.read_text() == "id,at\n1152921504606846977,['x']\n,\n"
    else:
        assert pq.read_table(target).column("id").to_pylist() == [2**60 + 1, None]


@pytest.mark.parametrize(
    ("index", "text"),
    [
        (pd.RangeIndex(2), "a\n1\n2\n"),
        (pd.RangeIndex(2, name="id"), "id,a\n0,1\n1,2\n"),
        (pd.RangeIndex(10, 12), ",a\n10,1\n11,2\n"),
    ],
    ids=["numbered anew", "named", "cut from a larger table"],
)
def test_a_csv_file_has_row_labels_that_mean_something(
    airflow: Run, store: ArtifactStore, tmp_path: Path, index: pd.Index, text: str
) -> None:
    store.save(pd.DataFrame({"a": [1, 2]}, index=index), "table")
    assert airflow("ml", "artifacts", "get", "table", "--to", str(tmp_path / "t.csv")).code == 0
    assert (tmp_path / "t.csv").read_text() == text


def test_get_refuses_to_make_a_table_of_something_else(
    airflow: Run, store: ArtifactStore, tmp_path: Path
) -> None:
    store.save(np.arange(3), "vector")
    answer = airflow("ml", "artifacts", "get", "vector", "--to", str(tmp_path / "v.csv"))
    assert answer.code == 1
    assert "numpy.ndarray, which is no table" in answer.err
    assert list(tmp_path.glob("v*")) == []
    assert airflow("ml", "artifacts", "get", "vector", "--to", str(tmp_path / "v.npy")).code == 0
    assert np.load(tmp_path / "v.npy").tolist() == [0, 1, 2]


def test_get_gives_files_directories_and_bytes_as_they_were(
    airflow: Run, store: ArtifactStore, tmp_path: Path
) -> None:
    source = tmp_path / "model.txt"
    source.write_text("weights")
    folder = tmp_path / "pages"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.html").write_text("<p>")
    store.save(source, "file")
    store.save(folder, "folder")
    store.save(b"\x00\x01", "raw/bytes")
    out = tmp_path / "out"
    out.mkdir()
    for name in ("file", "folder", "raw/bytes"):
        assert airflow("ml", "artifacts", "get", name, "--to", str(out)).code == 0
    assert (out / "model.txt").read_text() == "weights"
    assert (out / "pages" / "deep" / "a.html").read_text() == "<p>"
    assert (out / "raw=2Fbytes.bin").read_bytes() == b"\x00\x01"


def test_get_gives_a_stored_file_that_is_a_table_already_as_it_was(
    airflow: Run, store: ArtifactStore, tmp_path: Path
) -> None:
    report = tmp_path / "report.csv"
    report.write_text("a;b\n1;2\n")
    store.save(report, "report")
    store.save(b"PAR1", "export")
    for name, target in (("report", tmp_path / "mine.csv"), ("export", tmp_path / "mine.parquet")):
        assert airflow("ml", "artifacts", "get", name, "--to", str(target)).code == 0
    assert (tmp_path / "mine.csv").read_text() == "a;b\n1;2\n"
    assert (tmp_path / "mine.parquet").read_bytes() == b"PAR1"


def test_get_replaces_nothing_unless_it_is_told_to(
    airflow: Run, store: ArtifactStore, tmp_path: Path
) -> None:
    store.save(b"new", "x")
    target = tmp_path / "x.bin"
    target.write_bytes(b"old")
    answer = airflow("ml", "artifacts", "get", "x", "--to", str(target))
    assert answer.code == 1
    assert "--force" in answer.err
    assert target.read_bytes() == b"old"
    assert airflow("ml", "artifacts", "get", "x", "--to", str(target), "--force").code == 0
    assert target.read_bytes() == b"new"


def test_get_replaces_a_directory_whole(airflow: Run, store: ArtifactStore, tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    folder.mkdir()
    (folder / "new.html").write_text("new")
    store.save(folder, "folder")
    out = tmp_path / "out"
    (out / "pages").mkdir(parents=True)
    (out / "pages" / "old.html").write_text("old")
    assert airflow("ml", "artifacts", "get", "folder", "--to", str(out), "--force").code == 0
    assert [path.name for path in (out / "pages").iterdir()] == ["new.html"]


def test_get_into_a_directory_that_does_not_exist_says_so(
    airflow: Run, versions: list[ArtifactRef], tmp_path: Path
) -> None:
    answer = airflow("ml", "artifacts", "get", "flights", "--to", str(tmp_path / "no" / "f.arrow"))
    assert answer.code == 1
    assert "there is no directory" in answer.err


def test_get_leaves_nothing_behind_when_the_content_is_damaged(
    airflow: Run, store: ArtifactStore, root: Path, versions: list[ArtifactRef], tmp_path: Path
) -> None:
    damage(store, root, versions[1])
    out = tmp_path / "out"
    out.mkdir()
    answer = airflow("ml", "artifacts", "get", "flights", "--to", str(out))
    assert answer.code == 1
    assert versions[1].digest in answer.err
    assert list(out.iterdir()) == []


def test_verify_is_content_with_what_was_written(airflow: Run, versions: list[ArtifactRef]) -> None:
    answer = airflow("ml", "artifacts", "verify", "-o", "json")
    assert answer.code == 0
    assert [(row["name"], row["verdict"]) for row in json.loads(answer.out)] == [("flights", "ok")]
    assert "1 versions verified, 0 bad" in answer.err
    every = airflow("ml", "artifacts", "verify", "flights", "-o", "json")
    assert {row["version_id"] for row in json.loads(every.out)} == {ref.version_id for ref in versions}


def test_verify_tells_damaged_lost_and_forged_versions_apart_and_goes_on(
    airflow: Run, store: ArtifactStore, root: Path, versions: list[ArtifactRef]
) -> None:
    damage(store, root, versions[0])
    (root / keys.blob_key(versions[1].digest)).unlink()
    forged = store.save(b"1", "flights")
    manifest = root / keys.version_key("flights", forged.version_id)
    manifest.chmod(0o600)
    manifest.write_text(manifest.read_text().replace('"size_bytes":1', '"size_bytes":2'))
    good = store.save(b"2", "flights")

    answer = airflow("ml", "artifacts", "verify", "flights", "-o", "json")
    verdicts = {row["version_id"]: row["verdict"] for row in json.loads(answer.out)}
    assert answer.code == 1
    assert verdicts[good.version_id] == "ok"
    assert "is damaged: expected" in verdicts[versions[0].version_id]
    assert "its content is gone" in verdicts[versions[1].version_id]
    assert "sign" in verdicts[forged.version_id]
    assert "4 versions verified, 3 bad" in answer.err


@pytest.mark.parametrize("fault", ["gone", "damaged"])
def test_verify_of_a_dict_looks_at_its_parts(
    airflow: Run, store: ArtifactStore, root: Path, fault: str
) -> None:
    store.save({"outer": {"frame": FRAME}, "again": FRAME}, "report")
    assert airflow("ml", "artifacts", "verify", "report").code == 0
    part = store.get("report.outer.frame")
    if fault == "damaged":
        damage(store, root, part)
    else:
        (root / keys.blob_key(part.digest)).unlink()
    answer = airflow("ml", "artifacts", "verify", "report", "-o", "json")
    (row,) = json.loads(answer.out)
    assert (answer.code, part.uri in row["verdict"] or "report.again" in row["verdict"]) == (1, True)


def test_verify_of_one_version_needs_its_name(airflow: Run) -> None:
    answer = airflow("ml", "artifacts", "verify", "--version", "7")
    assert answer.code == 2
    assert "needs the name" in answer.err
