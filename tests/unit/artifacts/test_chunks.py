# SPDX-License-Identifier: Apache-2.0
"""Tables in pieces that versions share. The cut is made small here, so that small tables have many pieces."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from airflow_ml_provider.artifacts import chunks, keys
from airflow_ml_provider.artifacts.codecs import arrow_chunks
from airflow_ml_provider.artifacts.collection import Retention, execute, plan
from airflow_ml_provider.artifacts.objects import ObjectStore
from airflow_ml_provider.artifacts.refs import ArtifactRef
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import ArtifactCorruptError, ArtifactNotFoundError
from tests.unit.artifacts.conftest import KEY
from tests.unit.artifacts.sameness import same
from tests.unit.artifacts.test_frames import FRAMES

N = 100_000


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow_chunks, "MIN_BYTES", 0)
    monkeypatch.setattr(arrow_chunks, "_ROWS_LOG2", 9)
    monkeypatch.setattr(arrow_chunks, "_MIN_PIECE_BYTES", 1 << 12)


def table(rows: int = N, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "x": random.normal(size=rows),
            "y": random.integers(0, 1 << 40, rows),
            "flag": random.random(rows) < 0.5,
            "when": pd.Timestamp("2013-01-01")
            + pd.to_timedelta(random.integers(0, 1 << 40, rows), unit="us"),
            "word": random.choice([f"word {i}" for i in range(500)], rows),
            "kind": pd.Categorical.from_codes(random.integers(0, 5, rows), list("abcde")),
            "maybe": pd.array(np.where(random.random(rows) < 0.1, None, 1.5), dtype="Float64"),
        }
    )


BASE = table()
MORE = table(N // 10, seed=1)
CHANGES: dict[str, tuple[pd.DataFrame, float]] = {
    "rows appended": (pd.concat([BASE, MORE.iloc[:200]], ignore_index=True), 0.05),
    "rows inserted": (pd.concat([BASE[:35_000], MORE[:200], BASE[35_000:]], ignore_index=True), 0.05),
    "rows removed": (pd.concat([BASE[:35_000], BASE[35_200:]], ignore_index=True), 0.05),
    "the first rows removed": (BASE[300:].reset_index(drop=True), 0.05),
    "a window moved": (pd.concat([BASE[200:], MORE[:200]], ignore_index=True), 0.06),
    "a block changed": (pd.concat([BASE[:35_000], MORE[:200], BASE[35_200:]], ignore_index=True), 0.05),
    "a column replaced": (BASE.assign(flag=BASE["flag"].to_numpy()[::-1]), 0.07),
    "a column added": (BASE.assign(new=BASE["flag"].to_numpy()[::-1]), 0.08),
    "columns removed": (BASE.drop(columns=["flag", "kind"]), 0.03),
    "the last columns in another order": (BASE[["x", "y", "flag", "maybe", "kind", "word", "when"]], 0.08),
    "a category more": (
        BASE.assign(kind=BASE["kind"].cat.add_categories(["f"])),
        0.03,
    ),
    "other attributes": (BASE.copy(), 0.03),
}
CHANGES["other attributes"][0].attrs["source"] = "elsewhere"


def stored(store: ArtifactStore) -> int:
    return store.usage().bytes_stored


def blob(store: ArtifactStore, digest: str) -> Path:
    return Path(store.objects.root.removeprefix("file://")) / keys.blob_key(digest)


@pytest.mark.parametrize("name", FRAMES)
def test_frames_come_back_exactly(store: ArtifactStore, name: str) -> None:
    ref = store.save(FRAMES[name], "task")

    assert same(store.load(ref), FRAMES[name])


OTHERS: dict[str, Any] = {
    "series": BASE["word"].rename("w"),
    "index": pd.MultiIndex.from_frame(BASE[["y", "word"]]),
    "arrow table of many batches": pa.Table.from_batches(
        pa.Table.from_pandas(BASE[["x", "word", "flag"]]).to_batches(max_chunksize=999)
    ),
    "record batch": pa.RecordBatch.from_pandas(BASE[["x", "word"]]),
    "dictionaries that differ": pa.chunked_array(
        [pa.array(["a", "b"] * 200).dictionary_encode(), pa.array(["c", "a"] * 200).dictionary_encode()]
    ),
    "nested": pa.table(
        {"l": [[1, None], None, []] * 300, "s": [{"a": 1, "b": "x"}, None, {"a": 2, "b": None}] * 300}
    ),
    "sliced": pa.table({"x": range(5000), "b": [True, False, None, True, None] * 1000})[1003:4001],
    "only nulls": pa.table({"n": pa.nulls(2000), "i": pa.nulls(2000, pa.int64())}),
    "polars": pl.from_pandas(BASE[["x", "word", "when"]]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_tables_come_back_exactly(store: ArtifactStore, name: str) -> None:
    value = OTHERS[name]
    if isinstance(value, pa.ChunkedArray):
        value = pa.table({"d": value, "n": range(len(value))})

    ref = store.save(value, "task")

    assert ref.format == "arrow-chunks-v1"
    found = store.load(ref)
    assert type(found) is type(value)
    if isinstance(value, pl.DataFrame):
        assert found.equals(value)
        assert found.schema == value.schema
    elif isinstance(value, (pa.Table, pa.RecordBatch)):
        # However it was held in chunks, and numbered its dictionaries.
        assert found.schema == value.schema
        assert found.to_pydict() == value.to_pydict()
    else:
        assert same(found, value)


@pytest.mark.parametrize(
    "value",
    [
        pa.table({"v": pa.array(["some text beyond twelve bytes"] * 2000, pa.string_view())}),
        pa.table({"r": pc.run_end_encode(pa.array([1] * 500 + [2] * 500))}),
        pa.table({"l": pa.array([["a"]] * 2000, pa.list_(pa.dictionary(pa.int8(), pa.string())))}),
    ],
    ids=["views", "runs", "nested dictionaries"],
)
def test_columns_whose_rows_share_buffers_are_stored_in_one_object(
    store: ArtifactStore, value: pa.Table
) -> None:
    ref = store.save(value, "task")

    assert ref.format == "arrow-v1"
    assert store.load(ref).equals(value)


def test_a_small_table_is_one_object(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow_chunks, "MIN_BYTES", BASE.memory_usage().sum() * 2)

    ref = store.save(BASE, "task")

    assert (ref.format, ref.parts) == ("arrow-v1", ())


@pytest.mark.parametrize("change", CHANGES)
def test_a_version_adds_little_more_than_what_changed(store: ArtifactStore, change: str) -> None:
    value, share = CHANGES[change]
    first = store.save(BASE, "task")
    before = stored(store)

    ref = store.save(value, "task")

    assert stored(store) - before <= share * before
    assert same(store.load(ref), value)
    assert same(store.load(first), BASE)


def test_a_new_value_of_another_kind_shares_nothing_and_does_no_harm(store: ArtifactStore) -> None:
    store.save(BASE, "task")

    ref = store.save(table(seed=5), "task")

    assert len(ref.parts) == 1
    assert same(store.load(ref), table(seed=5))


def test_the_same_table_is_stored_once_under_any_name_and_has_one_digest(store: ArtifactStore) -> None:
    first = store.save(BASE, "one")
    before = stored(store)

    refs = [store.save(BASE.copy(), name) for name in ("one", "two", "one", "two")]

    assert {ref.digest for ref in refs} == {first.digest}
    assert stored(store) == before


def test_equal_tables_have_equal_digests_whatever_they_were_stored_after(store: ArtifactStore) -> None:
    value, _ = CHANGES["rows inserted"]
    store.save(BASE, "one")

    after_another, alone = store.save(value, "one"), store.save(value, "two")

    assert after_another.parts != alone.parts
    assert after_another.digest == alone.digest
    assert after_another.size_bytes == alone.size_bytes


@pytest.mark.parametrize("seed", range(20))
def test_cuts_are_the_least_hashes_within_reach_and_the_first_of_equal_ones(seed: int) -> None:
    random = np.random.default_rng(seed)
    places = np.unique(random.integers(0, 300, random.integers(0, 60))).tolist()
    hashes = random.integers(0, random.choice([2, 10, 1000]), len(places)).tolist()
    reach = int(random.integers(1, 60))
    ranked = list(zip(hashes, places, strict=True))
    expected = [
        place
        for own, place in ranked
        if not any((own, place) > other for other in ranked if abs(other[1] - place) <= reach)
    ]

    assert arrow_chunks._least(places, hashes, reach) == expected


@pytest.mark.parametrize("change", ["a block changed", "rows inserted", "rows removed", "rows appended"])
def test_no_cut_moves_that_is_out_of_reach_of_a_change(change: str) -> None:
    value = CHANGES[change][0]
    first = N if change == "rows appended" else 35_000
    reach = round(arrow_chunks._REACH * (1 << arrow_chunks._ROWS_LOG2))
    before, after = (arrow_chunks._bounds(pa.Table.from_pandas(each)) for each in (BASE, value))

    moved = len(value) - N
    assert [cut for cut in after if cut < first - reach] == [cut for cut in before if cut < first - reach]
    assert [cut - moved for cut in after if cut > first + 200 + reach + max(0, moved)] == [
        cut for cut in before if cut > first + 200 + reach + max(0, moved) - moved
    ]


def test_stretches_are_alike_in_length() -> None:
    lengths = np.diff(arrow_chunks._bounds(pa.Table.from_pandas(BASE)))

    assert lengths[1:-1].min() > arrow_chunks._REACH * (1 << arrow_chunks._ROWS_LOG2)
    assert lengths.max() <= 4 << arrow_chunks._ROWS_LOG2
    # The stretch that a row lies in is hardly longer than the others; of random cuts it is twice as long.
    assert (lengths**2).sum() / lengths.sum() < 1.3 * lengths.mean()


def test_a_hundred_versions_are_read_from_few_packs_and_few_bytes(store: ArtifactStore) -> None:
    value = BASE
    refs = []
    for version in range(100):
        rows = MORE.iloc[version * 20 : version * 20 + 20]
        value = pd.concat([value[20:], rows], ignore_index=True)
        refs.append(store.save(value, "task"))

    assert max(len(ref.parts) for ref in refs) <= 1 + chunks.MAX_EARLIER_PACKS
    for ref in refs[::9]:
        read = sum(blob(store, digest).stat().st_size for digest in ref.parts)
        assert read <= 1.6 * ref.size_bytes  # a third that is not needed, and the recipe of small pieces
    assert same(store.load(refs[-1]), value)
    assert stored(store) < 0.12 * store.usage().bytes_logical


def test_a_part_of_a_table_is_the_same_part_of_the_whole(store: ArtifactStore) -> None:
    ref = store.save(BASE, "task")

    assert same(ref_load(store, ref, columns=["word", "x"]), BASE[["word", "x"]])
    assert same(ref_load(store, ref, rows=slice(7000, 7100)), BASE[7000:7100])
    assert same(ref_load(store, ref, columns=["flag"], rows=slice(-3, None)), BASE[["flag"]][-3:])
    assert same(ref_load(store, ref, columns=[]), BASE[[]])
    arrow = pa.Table.from_pandas(BASE[["x", "word"]], preserve_index=False)
    ref = store.save(arrow, "arrow")
    for rows in (slice(0, 0), slice(5, 900), slice(99_990, None), slice(-5, -2), slice(130_000, None)):
        assert ref_load(store, ref, columns=["word"], rows=rows).equals(arrow.select(["word"])[rows])
    with pytest.raises(ValueError, match="no column 'nowhere'"):
        store.load(ref, columns=["nowhere"])


INDEXES: dict[str, Any] = {
    "a range": pd.RangeIndex(5, 5 + 3 * N, 3, name="n"),
    "numbers": pd.Index(np.arange(N)[::-1]),
    "moments at a frequency": pd.date_range("2013-01-01", periods=N, freq="min"),
    "text": pd.Index([f"row {number}" for number in range(N)]),
    "several levels": pd.MultiIndex.from_arrays([np.arange(N) // 1000, np.arange(N)], names=["a", "b"]),
    "categories": pd.CategoricalIndex(np.array(["x", "y"])[np.arange(N) % 2]),
}
ROWS = [slice(0, 1), slice(0, 0), slice(7000, 7100), slice(-3, None), slice(N - 1, 2 * N), slice(40, 30)]


@pytest.mark.parametrize("name", INDEXES)
def test_rows_of_a_frame_are_those_of_the_whole(store: ArtifactStore, name: str) -> None:
    value = BASE.set_index(INDEXES[name])
    ref = store.save(value, "task")
    series = store.save(value["word"], "series")

    for rows in ROWS:
        assert same(store.load(ref, rows=rows), value.iloc[rows])
        assert same(store.load(ref, columns=["kind", "x"], rows=rows), value[["kind", "x"]].iloc[rows])
        assert same(store.load(series, rows=rows), value["word"].iloc[rows])


@pytest.mark.parametrize(
    ("name", "share"),
    [("a range", 0.02), ("moments at a frequency", 0.3)],  # all of an index: pandas cuts it as it likes
)
def test_for_some_rows_of_a_frame_their_pieces_and_the_index_are_read(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch, name: str, share: float
) -> None:
    value = BASE.set_index(INDEXES[name])
    ref = store.save(value, "task")
    read: list[int] = []
    read_into = chunks.Pieces.read_into

    def seen(pieces: chunks.Pieces, first: int, count: int, targets: Any) -> None:
        read.append(sum(map(pieces.length, range(first, first + count))))
        read_into(pieces, first, count, targets)

    monkeypatch.setattr(chunks.Pieces, "read_into", seen)

    assert same(store.load(ref, rows=slice(7000, 7100)), value.iloc[7000:7100])

    assert 0 < sum(read) < share * ref.size_bytes


def ref_load(store: ArtifactStore, ref: ArtifactRef, **part: Any) -> Any:
    return store.load(ref, **part)


def test_a_handle_gives_one_arrow_file(store: ArtifactStore) -> None:
    ref = store.save(BASE, "task")
    plain = store.save(BASE, "plain", format="arrow")

    path = store.path(ref)

    assert plain.format == "arrow-v1"
    assert path.suffix == ".arrow"
    assert path.read_bytes() == store.path(plain).read_bytes()
    with store.open(ref) as file:
        assert pa.ipc.open_file(file).read_all().num_rows == N


DAMAGE = {
    "a byte": lambda data: data[:2000] + bytes([data[2000] ^ 1]) + data[2001:],
    "the recipe": lambda data: data[:-100] + bytes([data[-100] ^ 1]) + data[-99:],
    "the end": lambda data: data[:-1],
    "everything": lambda data: b"",
    "more": lambda data: data + b"\0",
}


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_pack_is_never_read_as_data(
    store: ArtifactStore, damage: str, place: int, verify: bool
) -> None:
    store.save(BASE, "task")
    value, _ = CHANGES["rows inserted"]
    ref = store.save(value, "task")
    path = blob(store, ref.parts[place])
    path.chmod(0o600)
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    store.verify_on_read = verify

    if damage == "a byte" and not verify:
        pytest.skip("what verify_on_read = False gives up")
    if damage == "the recipe" and place == 1:
        assert same(store.load(ref), value)  # the recipe of an earlier pack is not needed
        return
    with pytest.raises(ArtifactCorruptError, match="damaged"):
        store.load(ref)


def test_a_missing_pack_is_named(store: ArtifactStore) -> None:
    store.save(BASE, "task")
    ref = store.save(CHANGES["rows inserted"][0], "task")
    blob(store, ref.parts[1]).unlink()

    with pytest.raises(ArtifactNotFoundError, match=keys.blob_key(ref.parts[1])):
        store.load(ref)


@pytest.mark.parametrize("what", ["gone", "cut off"])
def test_a_save_refers_to_no_pack_that_is_not_there(store: ArtifactStore, what: str) -> None:
    first = store.save(BASE, "task")
    path = blob(store, first.parts[0])
    if what == "gone":
        path.unlink()
    else:
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:-5])

    for value in (CHANGES["rows appended"][0], BASE):
        ref = store.save(value, "task")
        assert same(store.load(ref), value)


@pytest.mark.parametrize(
    "edit",
    [
        lambda data: b"",
        lambda data: b"nonsense",
        lambda data: data[:-1],
        lambda data: data.replace(b'"task"', b'"tusk"', 1),
        lambda data: data[:-60] + bytes(60),
        lambda data: b"[" * 100_000 + b"\n",
    ],
    ids=["empty", "nonsense", "cut off", "another name", "other places", "deep"],
)
def test_a_forged_head_is_not_used(store: ArtifactStore, edit: Any, caplog: pytest.LogCaptureFixture) -> None:
    store.save(BASE, "task")
    head = bytes(store.objects.get(chunks.head_key("task")))
    store.objects.put(chunks.head_key("task"), edit(head), create_only=False)
    value, _ = CHANGES["rows appended"]

    with caplog.at_level(logging.WARNING):
        ref = store.save(value, "task")

    assert "is stored whole" in caplog.text
    assert len(ref.parts) == 1
    assert same(store.load(ref), value)
    assert len(store.save(BASE, "task").parts) == 2  # the head was replaced by one that can be used


def test_the_head_of_another_deployment_is_not_used(store: ArtifactStore) -> None:
    other = ArtifactStore(store.objects.root, signing_key=b"another key, also 32 bytes long.")
    other.save(BASE, "task")

    assert len(store.save(CHANGES["rows appended"][0], "task").parts) == 1


def test_a_pack_that_names_another_versions_recipe_is_refused(store: ArtifactStore) -> None:
    one, two = store.save(BASE, "one"), store.save(table(seed=7), "two")
    doc = {
        **json.loads(bytes(store.objects.get(keys.version_key("one", one.version_id)))),
        "parts": list(two.parts),
    }

    with pytest.raises(ArtifactCorruptError, match="in place of"):
        store.decode(store.signer.signed({key: item for key, item in doc.items() if key != "signature"}))


def test_a_recipe_that_promises_too_much_is_refused_before_anything_is_unpacked(store: ArtifactStore) -> None:
    ref = store.save(BASE, "task")
    pack = store.objects.source(keys.blob_key(ref.parts[0]))

    with pytest.raises(ArtifactCorruptError, match="are allowed"):
        chunks.read(ref.parts, ref.digest, [pack], ref.uri, max_bytes=1000)
    pack.close()


def test_collection_keeps_the_packs_of_versions_that_stay(tmp_path: Path) -> None:
    store = ArtifactStore((tmp_path / "root").as_uri(), signing_key=KEY)
    value, refs = BASE, []
    for version in range(6):
        value = pd.concat([value, MORE.iloc[version * 50 : version * 50 + 50]], ignore_index=True)
        refs.append(store.save(value, "task"))
    nested = store.encode([value, {"a": value.iloc[::-1].reset_index(drop=True)}] + [0.1] * 5000, name="tree")
    no_wait = Retention(keep_last=1, grace=timedelta(0))

    outcome = execute(plan(store.objects, store.signer, policy=no_wait))

    assert outcome.removed.versions == 5
    assert same(store.load(store.get("task")), value)
    assert same(store.decode(nested)[1]["a"], value.iloc[::-1].reset_index(drop=True))
    with pytest.raises(ArtifactNotFoundError):
        store.get("task", refs[0].version_id)
    # The next version is compared with a head whose packs may have gone.
    again = store.save(BASE, "task")
    assert same(store.load(again), BASE)


def test_two_writers_that_know_of_the_same_version_do_each_other_no_harm(store: ArtifactStore) -> None:
    store.save(BASE, "task")
    head = bytes(store.objects.get(chunks.head_key("task")))
    one = store.save(CHANGES["rows appended"][0], "task")
    store.objects.put(chunks.head_key("task"), head, create_only=False)  # what the other one saw

    two = store.save(CHANGES["rows inserted"][0], "task")

    assert same(store.load(one), CHANGES["rows appended"][0])
    assert same(store.load(two), CHANGES["rows inserted"][0])


def test_a_head_that_cannot_be_written_costs_the_next_version_only(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from airflow_ml_provider.exceptions import StoreError

    put = ObjectStore.put

    def refusing(self: ObjectStore, key: str, *args: Any, **options: Any) -> bool:
        if key.startswith("heads/"):
            raise StoreError("no")
        return put(self, key, *args, **options)

    monkeypatch.setattr(ObjectStore, "put", refusing)

    ref = store.save(BASE, "task")

    assert same(store.load(ref), BASE)
    assert "shares nothing" in caplog.text


@pytest.mark.parametrize(
    "columns",
    [
        {"id": np.arange(N), "x": BASE["x"]},
        {"word": BASE["y"].astype(str)},
        {"a": BASE["flag"], "x": BASE["x"]},
    ],
    ids=["row numbers", "texts only", "narrow first"],
)
def test_inserted_rows_move_no_cut_but_their_own(store: ArtifactStore, columns: dict[str, Any]) -> None:
    value = pd.DataFrame({name: np.asarray(column) for name, column in columns.items()})
    store.save(value, "task")
    before = stored(store)
    longer = pd.concat([value[:45_000], value[:7], value[45_000:]], ignore_index=True)
    if "id" in longer:
        longer["id"] = np.arange(len(longer))

    store.save(longer, "task")

    # Row numbers change after the place of insertion, and nothing else does.
    assert stored(store) - before < (0.35 if "id" in longer else 0.05) * before


def test_a_loaded_frame_can_be_written_to_and_its_columns_stay_apart(store: ArtifactStore) -> None:
    value = pd.DataFrame(
        {
            "a": BASE["x"],
            "b": BASE["x"],
            "c": BASE["when"],
            "d": BASE["kind"],
            "e": BASE["maybe"],
            "f": BASE["flag"],
            "g": BASE["word"],
            "h": BASE["when"].dt.tz_localize("Europe/Paris", ambiguous=False, nonexistent="shift_forward"),
            "i": BASE["when"].dt.to_period("D"),
            "j": BASE["flag"].astype("boolean"),
            "k": BASE["kind"].where(BASE["flag"]),
            "l": BASE["y"].astype("Int64"),
            "m": BASE["when"].dt.date,
        }
    )
    ref = store.save(value, "task")

    back = store.load(ref)
    for column in back.columns:
        back.iloc[5, back.columns.get_loc(column)] = value[column].iloc[7]
        assert same(back[column][5:6].reset_index(drop=True), value[column][7:8].reset_index(drop=True))
        assert same(back[column][6:], value[column][6:])
    back["a"] *= 2

    assert back["b"].iloc[5] == value["b"].iloc[7]
    assert same(back["b"][6:], value["b"][6:])
    assert same(store.load(ref), value)
    assert same(store.load(ref, columns=["b", "a"], rows=slice(10, 20)), value[["b", "a"]][10:20])


def test_a_frame_of_many_columns_is_gathered_in_blocks(store: ArtifactStore) -> None:
    value = pd.DataFrame(np.random.default_rng(0).normal(size=(500, 150))).rename(columns=str)

    back = store.load(store.save(value, "task"))

    assert same(back, value)
    assert len(back._mgr.blocks) == 1


def test_a_table_without_rows_that_differ_is_cut_and_stored_once(store: ArtifactStore) -> None:
    value = pd.DataFrame({"zero": np.zeros(50_000), "one": np.ones(50_000)})

    ref = store.save(value, "task")

    assert same(store.load(ref), value)
    assert stored(store) < 60_000
