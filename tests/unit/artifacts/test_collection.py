# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_ml_provider.artifacts import collection, keys
from airflow_ml_provider.artifacts.collection import Outcome, Plan, Retention, execute, plan
from airflow_ml_provider.artifacts.envelope import to_envelope
from airflow_ml_provider.artifacts.refs import ArtifactRef, Producer
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.caching.entries import Cache
from airflow_ml_provider.caching.key import KeyMaker
from airflow_ml_provider.exceptions import ArtifactNotFoundError, StoreError
from airflow_ml_provider.lineage.records import TaskRecord, VersionUse, write_record
from tests.unit.artifacts.conftest import KEY

DAY = timedelta(days=1)
LAST = Retention(keep_last=1)


def in_days(days: float) -> datetime:
    """Now, seen from the future: everything written by the test is so much older."""
    return datetime.now(UTC) + days * DAY


def planned(store: ArtifactStore, policy: Retention = LAST, *, days: float = 10, **options: Any) -> Plan:
    return plan(store.objects, store.signer, policy=policy, now=in_days(days), **options)


def collect(store: ArtifactStore, policy: Retention = LAST, *, days: float = 10, **options: Any) -> Outcome:
    return execute(planned(store, policy, days=days, **options), now=in_days(days))


def saved(store: ArtifactStore, name: str, count: int, **options: Any) -> list[ArtifactRef]:
    """Versions with content of their own, newest first."""
    return [store.save(f"{name} {number}".encode(), name, **options) for number in range(count)][::-1]


def left(store: ArtifactStore) -> list[str]:
    return [entry.key for entry in store.objects.list("versions")]


def key_of(ref: ArtifactRef) -> str:
    return keys.version_key(ref.name, ref.version_id)


def reason(found: Plan, ref: ArtifactRef) -> tuple[bool, str]:
    (item,) = [item for item in found.decisions if item.key == key_of(ref)]
    return item.goes, item.reason


def everything(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def folder(store: ArtifactStore) -> Path:
    return Path(store.objects.root.removeprefix("file://"))


def aged(store: ArtifactStore, name: str, days: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Save one version for each age, the oldest first."""
    from airflow_ml_provider.artifacts import store as module

    class Clock(datetime):
        shift = timedelta(0)

        @classmethod
        def now(cls, tz: Any = None) -> Clock:
            then = datetime.now(tz) - cls.shift
            return cls(*then.timetuple()[:6], then.microsecond, tz)

    with monkeypatch.context() as patched:
        patched.setattr(module, "datetime", Clock)
        for age in sorted(days, reverse=True):
            Clock.shift = age * DAY
            ref = store.save(f"{age} days".encode(), name)
            stamp = time.time() - age * 86400
            for key in (key_of(ref), keys.blob_key(ref.digest)):
                os.utime(folder(store) / key, (stamp, stamp))


PASSING = Retention(passing=("checkpoints/*",), passing_for=20 * DAY)


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        pytest.param(PASSING, [1, 5], id="the newest too, when it is over"),
        pytest.param(replace(PASSING, passing_for=None), [1, 5, 30, 40], id="never, if nobody says when"),
        pytest.param(replace(PASSING, passing_for=timedelta(0)), [], id="at once"),
        pytest.param(replace(PASSING, passing=("other/*",)), [1, 5, 30, 40], id="other names"),
        pytest.param(replace(PASSING, exclude=("checkpoints/dag/*",)), [1, 5, 30, 40], id="excluded"),
        pytest.param(replace(PASSING, include=("sales*",)), [1, 5, 30, 40], id="not included"),
        pytest.param(replace(PASSING, grace=35 * DAY), [1, 5, 30], id="grace"),
        pytest.param(replace(PASSING, keep_last=1), [1], id="another rule lets more go before"),
    ],
)
def test_what_was_made_for_a_while_goes(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch, policy: Retention, kept: list[float]
) -> None:
    aged(store, "checkpoints/dag/task", [1, 5, 30, 40], monkeypatch)
    aged(store, "sales", [100], monkeypatch)
    collect(store, policy if policy.grace > DAY else replace(policy, grace=timedelta(0)), days=0.01)
    found = [ref.load().decode() for ref in store.versions("checkpoints/dag/task")]
    assert found == [f"{age} days" for age in kept]
    assert len(store.versions("sales")) == 1


def test_checkpoints_of_open_runs_stay_however_old(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    aged(store, "checkpoints/dag/task", [30], monkeypatch)
    (ref,) = store.versions("checkpoints/dag/task")
    found = planned(store, PASSING, days=0.01, protected=lambda ref: "its run is open")
    assert reason(found, ref) == (False, "its run is open")
    assert reason(planned(store, PASSING, days=0.01), ref) == (
        True,
        "30.01 days old, and checkpoints are kept for 20 days",
    )


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        pytest.param(Retention(), [1, 2, 5, 20, 40], id="no rule keeps all"),
        pytest.param(Retention(keep_last=2), [1, 2], id="count"),
        pytest.param(Retention(keep_last=99), [1, 2, 5, 20, 40], id="count beyond what there is"),
        pytest.param(Retention(keep_for=10 * DAY), [1, 2, 5], id="age"),
        pytest.param(Retention(keep_for=timedelta(0)), [1], id="the newest stays at any age"),
        pytest.param(Retention(keep_last=1, keep_for=30 * DAY), [1, 2, 5, 20], id="either rule keeps"),
        pytest.param(Retention(keep_last=4, keep_for=3 * DAY), [1, 2, 5, 20], id="count beats age"),
        pytest.param(Retention(keep_last=1, include=("sales.*",)), [1], id="name included"),
        pytest.param(Retention(keep_last=1, include=("other",)), [1, 2, 5, 20, 40], id="name not included"),
        pytest.param(
            Retention(keep_last=1, include=("sales*",), exclude=("*.day",)),
            [1, 2, 5, 20, 40],
            id="name excluded",
        ),
        pytest.param(Retention(keep_last=1, grace=4 * DAY), [1, 2], id="grace"),
    ],
)
def test_what_retention_keeps(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch, policy: Retention, kept: list[int]
) -> None:
    aged(store, "sales.day", [1, 2, 5, 20, 40], monkeypatch)
    found = planned(store, policy, days=0.001)
    assert all(item.reason for item in found.decisions)
    execute(found)

    assert [ref.load() for ref in store.versions("sales.day")] == [f"{age} days".encode() for age in kept]
    assert len(list(store.objects.list("blobs"))) == len(kept)


@pytest.mark.parametrize(
    "wrong", [{"keep_last": 0}, {"keep_for": timedelta(-1)}, {"grace": timedelta(seconds=-1)}]
)
def test_a_policy_out_of_range_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Retention(**wrong)


def test_planning_changes_nothing(store: ArtifactStore) -> None:
    saved(store, "flights", 3)
    store.objects.put(keys.blob_key(f"blake3:{'a' * 64}"), b"nobody refers to it")
    before = everything(folder(store))
    found = planned(store)
    assert (found.totals().versions, found.totals().blobs) == (2, 3)
    assert everything(folder(store)) == before


def test_content_that_nobody_refers_to_goes_without_any_rule(store: ArtifactStore) -> None:
    """A killed writer leaves it."""
    kept = saved(store, "flights", 3)
    lost = keys.blob_key(f"blake3:{'a' * 64}")
    store.objects.put(lost, b"nobody refers to it")

    assert not planned(store, Retention(), days=0.5).going
    outcome = collect(store, Retention())

    assert (outcome.removed.versions, outcome.removed.blobs, outcome.removed.bytes) == (0, 1, 19)
    assert not store.objects.exists(lost)
    assert [ref.load() for ref in kept] == [b"flights 2", b"flights 1", b"flights 0"]


def test_removed_content_waits_in_the_trash_for_the_grace_period(store: ArtifactStore) -> None:
    saved(store, "flights", 2)
    assert collect(store).freed_bytes == 0
    assert len(list(store.objects.list("trash"))) == 1
    assert collect(store, days=10.5).freed_bytes == 0
    assert collect(store, days=11.1).freed_bytes == len(b"flights 0")
    assert not list(store.objects.list("trash"))


def test_without_a_grace_period_the_space_is_free_at_once(store: ArtifactStore) -> None:
    saved(store, "flights", 3)
    assert collect(store, Retention(keep_last=1, grace=timedelta(0))).freed_bytes == 18
    assert len(list(store.objects.list("blobs"))) == 1
    assert not list(store.objects.list("trash"))


def test_shared_content_stays_while_one_version_needs_it(store: ArtifactStore) -> None:
    first = store.save(b"the same", "flights")
    store.save(b"another", "flights")
    other = store.save(b"the same", "copy")

    assert collect(store).removed == collection.Totals(1, 0, 0)
    assert not store.objects.exists(key_of(first))
    assert other.load() == b"the same"

    store.save(b"third", "copy")
    assert collect(store).removed.blobs == 1
    assert first.load() == b"the same"  # from the trash
    collect(store, days=12)
    with pytest.raises(ArtifactNotFoundError, match="gone"):
        other.load()


def test_the_parts_of_a_tree_stay_as_long_as_the_tree(store: ArtifactStore) -> None:
    part = store.save(b"a part", "part")
    inner = store.save({"deep": part, "own": b"in the tree"}, "inner")
    tree = store.save([inner, {1, 2}], "tree")
    assert (inner.format, tree.format) == ("tree-v1", "tree-v1")
    for name in ("part", "inner", "inner.own"):
        store.save(b"a newer one", name)

    found = planned(store)
    assert reason(found, part)[0] is False
    assert "holds it" in reason(found, part)[1]
    execute(found, now=in_days(10))
    assert store.load(tree) == [{"deep": b"a part", "own": b"in the tree"}, {1, 2}]

    store.save(b"no tree", "tree")
    collect(store)
    assert not store.objects.exists(key_of(part))
    assert not store.objects.exists(keys.blob_key(part.digest))


def test_what_goes_leaves_a_mark_that_says_what_it_was_and_why(store: ArtifactStore) -> None:
    producer = Producer("training", "r", "features")
    old = store.save(b"old", "features/daily", producer=producer)
    store.save(b"new", "features/daily")
    collect(store)
    mark = store.objects.get_json(keys.collected_key("features/daily", old.version_id))
    assert mark["reason"] == "number 2 of its name, and the last 1 are kept"
    assert in_days(10) - datetime.fromisoformat(mark["collected_at"]) < timedelta(minutes=5)
    assert (mark["digest"], mark["size_bytes"], mark["producer"]["task_id"]) == (old.digest, 3, "features")
    assert len(list(store.objects.list("collected"))) == 1


def test_a_backfill_does_not_push_out_the_latest_data(store: ArtifactStore) -> None:
    """It is recorded later and speaks for an earlier time."""
    months = [
        store.save(f"month {month}".encode(), "sales", effective_at=datetime(2013, month, 1, tzinfo=UTC))
        for month in (5, 6, 3, 4)
    ]
    found = planned(store)
    assert reason(found, months[1]) == (False, "it is the newest of its name by data time")
    execute(found, now=in_days(10))
    assert store.as_of("sales", datetime(2013, 7, 1, tzinfo=UTC)).load() == b"month 6"
    assert [ref.load() for ref in store.versions("sales")] == [b"month 4", b"month 6"]


def test_a_damaged_tree_still_holds_what_it_names(store: ArtifactStore) -> None:
    part = store.save(b"a part", "part")
    tree = store.save([part, {1}], "tree")
    store.save(b"newer", "part")
    blob = folder(store) / keys.blob_key(tree.digest)
    text = blob.read_bytes()
    blob.unlink()
    blob.write_bytes(text[:-1])
    collect(store)
    assert part.load() == b"a part"


def test_a_cache_entry_keeps_the_versions_it_names(store: ArtifactStore) -> None:
    _, old, older = saved(store, "features", 3)
    store.objects.put_json(keys.cache_key("k"), {"versions": [{"version_id": old.version_id}]})
    found = planned(store)
    assert reason(found, old) == (False, "a cache entry names it")
    assert reason(found, older)[0] is True


def test_a_cache_entry_keeps_its_result_and_not_what_that_was_made_of(store: ArtifactStore) -> None:
    _, raw = saved(store, "raw", 2)
    _, features = saved(store, "features", 2)
    made = KeyMaker()
    made.add_argument("data", raw)
    task = Producer("training", "run", "features")
    Cache(store).remember(made.key(), task, to_envelope(features, store.signer))
    found = planned(store)
    assert reason(found, features) == (False, "a cache entry names it")
    assert reason(found, raw)[0] is True


def test_cache_entries_are_read_again_only_if_they_changed(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collection, "BATCH", 3)
    saved(store, "flights", 11)
    for number in range(5):
        store.objects.put_json(keys.cache_key(str(number)), {"kind": "an entry"})
    reads: list[str] = []
    original = store.objects.get
    monkeypatch.setattr(store.objects, "get", lambda key: reads.append(key) or original(key))

    def change() -> None:
        store.objects.put_json(keys.cache_key("0"), {"kind": "another entry"}, create_only=False)

    between(store, monkeypatch, "_take_away", change)
    collect(store)
    assert sorted(key for key in reads if key.startswith("cache/")) == sorted(
        keys.cache_key(name) for name in "001234"
    )


def test_what_a_run_of_late_used_or_made_stays(store: ArtifactStore) -> None:
    _, read = saved(store, "read", 2)
    _, made = saved(store, "made", 2, producer=Producer("training", "run/1", "features"))
    _, other = saved(store, "other", 2, producer=Producer("training", "run/2", "features"))
    for run, uses in (("run/1", (read,)), ("run/2", (other,))):
        record = TaskRecord(
            "training", run, "fit", -1, 1, "success", reads=tuple(VersionUse.of(ref) for ref in uses)
        )
        write_record(store.objects, record)
    nine_days_on = time.time() + 9.5 * 86400
    os.utime(folder(store) / keys.record_key("training", "run/1", "fit", -1, 1), (nine_days_on,) * 2)

    found = planned(store)
    assert reason(found, read) == (False, "a run that was active in the last 24 hours used it")
    assert reason(found, made) == (False, "its run was active in the last 24 hours")
    assert reason(found, other)[0] is True


@pytest.mark.parametrize("as_function", [False, True])
def test_what_the_caller_protects_stays(store: ArtifactStore, as_function: bool) -> None:
    _, old = saved(store, "features", 2)
    protected: Any = {old.version_id}
    if as_function:
        protected = lambda ref: "champion" if ref.version_id == old.version_id else None  # noqa: E731
    assert reason(planned(store, protected=protected), old) == (
        False,
        "champion" if as_function else "the caller protects it",
    )


FORGERIES: list[Any] = [
    pytest.param(lambda doc: {**doc, "type": "edited"}, id="edited"),
    pytest.param(lambda doc: {**doc, "signature": "hmac-sha256:00"}, id="another key"),
    pytest.param(lambda doc: [doc], id="no manifest"),
    pytest.param(lambda doc: doc | {"version_id": "0" * 15}, id="elsewhere"),
]


@pytest.mark.parametrize("forge", FORGERIES)
def test_an_unreadable_manifest_stays_with_what_it_names_and_blocks_nothing(
    store: ArtifactStore, forge: Callable[[Any], Any]
) -> None:
    _, forged, old = saved(store, "flights", 3)
    document = store.objects.get_json(key_of(forged))
    store.objects.put_json(key_of(forged), forge(document), create_only=False)

    found = planned(store)
    (problem,) = found.problems
    assert problem.key == key_of(forged)
    assert problem.reason.startswith("unreadable: ")
    execute(found, now=in_days(10))

    assert store.objects.exists(key_of(forged))
    assert bytes(store.objects.get(keys.blob_key(forged.digest))) == b"flights 1"
    assert not store.objects.exists(key_of(old))
    assert not store.objects.exists(keys.blob_key(old.digest))


def test_a_cut_off_manifest_is_kept_and_named(store: ArtifactStore) -> None:
    _, cut = saved(store, "flights", 2)
    (folder(store) / key_of(cut)).write_bytes(b'{"kind": "ml-artif')
    assert [item.key for item in planned(store).problems] == [key_of(cut)]
    collect(store)
    assert store.objects.exists(key_of(cut))


def test_another_signing_key_deletes_nothing(store: ArtifactStore) -> None:
    """A key that was rotated makes every manifest unreadable."""
    saved(store, "flights", 3)
    store.save([b"part", {1}], "tree")
    rotated = ArtifactStore(store.objects.root, signing_key=b"another key, of 32 bytes as well")
    before = everything(folder(store))
    assert collect(rotated) == Outcome(collection.Totals(), 0, ())
    assert everything(folder(store)) == before


def test_strange_keys_are_kept_and_named(store: ArtifactStore) -> None:
    for key in ("blobs/aa/notes.txt", "trash/notes.txt", "versions/flights/notes.txt"):
        store.objects.put(key, b"mine")
    before = everything(folder(store))
    assert len(planned(store).problems) == 3
    collect(store)
    assert everything(folder(store)) == before


def test_files_of_writers_that_died_go(store: ArtifactStore) -> None:
    saved(store, "flights", 1)
    (folder(store) / ".tmp" / "tmpabc").write_bytes(b"half")
    assert not planned(store, Retention(grace=timedelta(0)), days=0.01).going
    assert collect(store, Retention()).freed_bytes == 4


def test_what_became_needed_since_the_plan_stays(store: ArtifactStore) -> None:
    old = store.save(b"again", "flights")
    cached = store.save(b"cached", "flights")
    store.save(b"new", "flights")
    found = planned(store)
    assert reason(found, old)[0]
    assert reason(found, cached)[0]
    again = store.save(b"again", "elsewhere")
    store.objects.put_json(keys.cache_key("k"), {"version_id": cached.version_id})

    execute(found, now=in_days(10))
    assert again.load() == b"again"
    assert cached.load() == b"cached"


def between(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[], None]
) -> None:
    """Run ``act`` once, right before the collection calls a function."""
    original = getattr(collection, name)
    pending = [act]

    def wrapped(*args: Any, **options: Any) -> Any:
        if pending:
            pending.pop()()
        return original(*args, **options)

    monkeypatch.setattr(collection, name, wrapped)


def test_a_manifest_written_right_before_the_move_brings_its_content_back(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(b"again", "flights")
    store.save(b"new", "flights")
    refs: list[ArtifactRef] = []
    between(store, monkeypatch, "_move", lambda: refs.append(store.save(b"again", "elsewhere")))

    outcome = collect(store)
    assert outcome.restored == (keys.blob_key(refs[0].digest),)
    assert refs[0].load() == b"again"


def test_a_manifest_written_after_the_collection_loads_and_gets_its_content_back_from_the_next(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race that no order of requests closes: the save found the content there, then it was taken away."""
    store.save(b"again", "flights")
    store.save(b"new", "flights")
    publishing, collected = threading.Event(), threading.Event()
    put_json = store.objects.put_json

    def slow(key: str, doc: Any, create_only: bool = True) -> bool:
        if "elsewhere" in key:
            publishing.set()
            assert collected.wait(30)
        return put_json(key, doc, create_only)

    monkeypatch.setattr(store.objects, "put_json", slow)
    refs: list[ArtifactRef] = []
    writer = threading.Thread(target=lambda: refs.append(store.save(b"again", "elsewhere")))
    writer.start()
    assert publishing.wait(30)
    collect(store)
    collected.set()
    writer.join()
    assert not store.objects.exists(keys.blob_key(refs[0].digest))
    assert refs[0].load() == b"again"

    found = planned(store, days=20)
    assert any(item.kind == "trash" and "goes back" in item.reason for item in found.kept)
    execute(found, now=in_days(20))
    assert refs[0].load() == b"again"


SAVER = """
import sys, time
from airflow_ml_provider.artifacts.store import ArtifactStore
store = ArtifactStore(sys.argv[1], signing_key=bytes.fromhex(sys.argv[2]))
print("ready", flush=True)
end = time.monotonic() + 4
while time.monotonic() < end:
    for number in range(20):
        ref = store.save({"n": b"%d" % number, "set": {1, number}}, sys.argv[3])
        print(ref.version_id, flush=True)
"""


def test_saves_by_other_processes_while_collections_run_lose_nothing(store: ArtifactStore) -> None:
    """The same contents over and over, so that nearly every save finds what a collection is after."""
    for number in range(20):
        store.save({"n": b"%d" % number, "set": {1, number}}, "seed")
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", SAVER, store.objects.root, KEY.hex(), f"writer{number}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for writer in writers:
        assert writer.stdout
        assert writer.stdout.readline() == "ready\n"
    # Ten minutes on, contents are old to it, and what it takes away stays in the trash.
    policy = Retention(keep_last=1, include=("seed*",), grace=timedelta(minutes=5))
    rounds = 0
    while any(writer.poll() is None for writer in writers):
        then = datetime.now(UTC) + timedelta(minutes=10)
        execute(plan(store.objects, store.signer, policy=policy, now=then), now=then)
        rounds += 1
    printed = [writer.communicate()[0].split() for writer in writers]
    assert all(writer.returncode == 0 for writer in writers)
    then = datetime.now(UTC) + timedelta(minutes=10)
    execute(plan(store.objects, store.signer, policy=policy, now=then), now=then)

    assert rounds >= 2
    for number, ids in enumerate(printed):
        assert len(ids) >= 20
        for version_id in ids[-40:]:
            assert store.get(f"writer{number}", version_id).load()["n"].isdigit()


COLLECTOR = """
import sys, time
from datetime import UTC, datetime, timedelta
from airflow_ml_provider.artifacts import collection, objects
from airflow_ml_provider.artifacts.store import ArtifactStore
collection.BATCH, collection._CONCURRENT_REQUESTS = 5, 1
for name in ("delete", "move"):
    def slow(self, *args, _original=getattr(objects._Folder, name)):
        time.sleep(0.02 * (len(args[0]) if isinstance(args[0], list) else 1))
        return _original(self, *args)
    setattr(objects._Folder, name, slow)
store = ArtifactStore(sys.argv[1], signing_key=bytes.fromhex(sys.argv[2]))
now = datetime.now(UTC) + timedelta(days=10)
found = collection.plan(store.objects, store.signer, policy=collection.Retention(keep_last=1), now=now)
print("go", flush=True)
collection.execute(found, now=now)
"""


def test_a_killed_collection_is_finished_by_the_next(store: ArtifactStore) -> None:
    newest = [saved(store, f"name{number}", 20)[0] for number in range(3)]
    tree = store.save([store.save(b"kept part", "part"), {1}], "tree")
    before = len(left(store))
    for pause in (0.05, 0.4, 0.5, 0.3):
        collector = subprocess.Popen(
            [sys.executable, "-c", COLLECTOR, store.objects.root, KEY.hex()], stdout=subprocess.PIPE
        )
        assert collector.stdout
        assert collector.stdout.readline() == b"go\n"
        time.sleep(pause)
        collector.send_signal(signal.SIGKILL)
        assert collector.wait() == -signal.SIGKILL
        collector.stdout.close()
        for ref in (*newest, tree):
            ref.load()
    assert len(left(store)) < before

    collect(store)
    collect(store, days=12)
    assert [ref.load() for ref in newest] == [f"name{number} 19".encode() for number in range(3)]
    assert store.load(tree) == [b"kept part", {1}]
    assert len(left(store)) == 5
    assert len(list(store.objects.list("blobs"))) == 5
    assert not list(store.objects.list("trash"))
    assert not planned(store, days=12).going


def test_an_error_names_the_object_and_the_rest_can_go_later(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, *old = saved(store, "flights", 4)
    refused = key_of(old[1])
    backend: Any = store.objects._backend
    original = backend.delete

    def delete(found: list[str]) -> None:
        if refused in found:
            raise StoreError("cannot delete: access denied")
        original(found)

    with monkeypatch.context() as patched:
        patched.setattr(backend, "delete", delete)
        with pytest.raises(StoreError, match=f"stopped at {refused}.*access denied.*run it again"):
            collect(store)
    assert store.objects.exists(refused)
    assert old[1].load() == b"flights 1"
    collect(store)
    assert len(left(store)) == 1


def test_manifests_are_read_once_however_often_they_are_listed(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(store, "flights", 5)
    reads: list[str] = []
    original = store.objects.get

    def get(key: str) -> Any:
        reads.append(key)
        return original(key)

    monkeypatch.setattr(store.objects, "get", get)
    collect(store)
    assert len(reads) == 5


def test_large_plans_are_carried_out_in_batches(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collection, "BATCH", 3)
    saved(store, "flights", 11)
    assert collect(store).removed.versions == 10
    assert len(list(store.objects.list("trash"))) == 10


def test_what_goes_costs_no_list_of_all_manifests_for_each_batch(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collection, "BATCH", 3)
    saved(store, "flights", 25)
    lists: list[str] = []
    original = store.objects.list
    monkeypatch.setattr(store.objects, "list", lambda prefix: lists.append(prefix) or original(prefix))
    assert collect(store).removed.blobs == 24
    assert lists.count("versions") == 5  # to plan, to execute, before and after the moves, for the trash


def test_a_large_store_is_read_some_hundred_objects_at_a_time(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collection, "BATCH", 3)
    saved(store, "flights", 11)
    sizes: list[int] = []
    original = collection.at_once

    def at_once(function: Callable[[Any], Any], items: Any) -> list[Any]:
        sizes.append(len(items))
        return original(function, items)

    monkeypatch.setattr(collection, "at_once", at_once)
    collect(store)
    assert max(sizes) == 3


def test_an_empty_store_has_nothing_to_collect(store: ArtifactStore) -> None:
    assert planned(store).decisions == ()
    assert collect(store) == Outcome(collection.Totals(), 0, ())


def test_a_time_without_a_zone_is_refused(store: ArtifactStore) -> None:
    with pytest.raises(ValueError, match="zone"):
        plan(store.objects, store.signer, policy=LAST, now=datetime(2013, 5, 1))


def test_decisions_say_what_they_are_about(store: ArtifactStore) -> None:
    _, old = saved(store, "flights", 2)
    words = {item.key: (item.kind, item.goes, item.reason) for item in planned(store).decisions}
    assert words[key_of(old)] == ("version", True, "number 2 of its name, and the last 1 are kept")
    assert words[keys.blob_key(old.digest)] == ("blob", True, "no version that stays refers to it")
    json.dumps(words)
