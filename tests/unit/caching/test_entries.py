# SPDX-License-Identifier: Apache-2.0
"""Cache entries in a store: hits, reasons, races, and how many requests they take."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_ml_provider.artifacts.refs import Producer
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.caching.entries import Cache
from airflow_ml_provider.caching.key import CacheKey, KeyMaker

ME = Producer("dag", "run 1", "task")
KEY = CacheKey({"function f": "a", "argument x": "b"})


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(f"file://{tmp_path}", signing_key=bytes(32))


@pytest.fixture
def cache(store: ArtifactStore) -> Cache:
    return Cache(store)


def tree(store: ArtifactStore, value: Any = b"x") -> Any:
    return [store.encode(value, name="result"), {"plain": 1}]


def test_what_was_remembered_is_found(cache, store):
    stored = tree(store)
    assert cache.remember(KEY, ME, stored, kind="list", length=2, seconds=1.5)
    found = cache.decide(KEY, Producer("other", "run 9", "task")).entry
    assert (found.tree, found.type, found.length, found.seconds) == (stored, "list", 2, 1.5)
    assert found.producer == ME
    assert len(found.blobs) == 1


def test_a_hit_takes_two_requests_and_a_miss_two(cache, store, monkeypatch):
    cache.remember(KEY, ME, tree(store))
    asked = []
    for name in ("get", "info", "put", "list"):
        real = getattr(store.objects, name)

        def counting(*args, _real=real, _name=name, **kwargs):
            asked.append(_name)
            return _real(*args, **kwargs)

        monkeypatch.setattr(store.objects, name, counting)
    monkeypatch.setattr(store.objects, "exists", lambda key: store.objects.info(key) is not None)
    assert cache.decide(KEY, ME).entry is not None
    assert asked == ["get", "info"]
    asked.clear()
    assert cache.decide(CacheKey({"function f": "other"}), ME).entry is None
    assert asked == ["get", "get"]
    asked.clear()
    cache.remember(CacheKey({"function f": "other"}), ME, 1)
    assert asked == ["put", "put"]


def test_the_first_of_two_computations_stays_unless_it_is_to_be_replaced(cache, store):
    assert cache.remember(KEY, ME, 1)
    assert not cache.remember(KEY, ME, 2)
    assert cache.decide(KEY, ME).entry.tree == 1
    assert cache.remember(KEY, ME, 3, replace=True)
    assert cache.decide(KEY, ME).entry.tree == 3


def test_a_miss_names_what_changed_most_telling_first(cache):
    before = CacheKey(
        {"function f": "a", "argument x": "b", "environment python": "c"}, {"environment python": "3.11"}
    )
    now = CacheKey(
        {"function g": "a", "argument x": "d", "environment python": "e"}, {"environment python": "3.12"}
    )
    cache.remember(before, ME, 1)
    assert cache.decide(now, ME).why == (
        "since run run 1: argument x changed; function f is gone; function g is new; "
        "environment python changed from 3.11 to 3.12"
    )


def test_results_older_than_ttl_are_of_no_use(cache):
    cache.remember(KEY, ME, 1)
    later = datetime.now(UTC) + timedelta(hours=2)
    assert cache.decide(KEY, ME, ttl=timedelta(hours=3), now=later).entry is not None
    old = cache.decide(KEY, ME, ttl=timedelta(hours=1), now=later)
    assert (old.entry, old.replaces) == (None, True)
    assert "2:00:00 old, and ttl is 1:00:00" in old.why


def test_an_entry_under_the_key_of_another_is_not_used(cache, store):
    cache.remember(KEY, ME, 1)
    other = CacheKey({"function f": "z"})
    store.objects.put_json(f"cache/{other.text}.json", store.objects.get_json(f"cache/{KEY.text}.json"))
    decision = cache.decide(other, ME)
    assert (decision.entry, decision.replaces) == (None, True)


def test_garbage_collection_keeps_what_an_entry_names(cache, store):
    from airflow_ml_provider.artifacts.collection import _named_in

    ref = store.save(b"x", "result")
    cache.remember(KEY, ME, store.encode(ref, name="result"))
    ids, digests = _named_in(store.objects, [info.key for info in store.objects.list("cache")])
    assert (ids, digests) == ({ref.version_id}, {ref.digest})


def test_entries_can_be_listed_and_forgotten(cache, store):
    cache.remember(KEY, ME, 1)
    [entry] = cache.entries()
    assert entry.producer == ME
    cache.forget([entry])
    assert list(cache.entries()) == []
    assert (
        cache.decide(KEY, ME).why
        == "nothing changed since run run 1, but its result is no longer in the cache"
    )


def test_the_same_parts_in_another_order_are_one_key():
    assert CacheKey({"a": "1", "b": "2"}).text == CacheKey({"b": "2", "a": "1"}).text
    assert CacheKey({"a": "1"}).text != CacheKey({"a": "2"}).text


def test_files_and_folders_count_by_their_content(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("a")

    def parts() -> Any:
        maker = KeyMaker()
        maker.add_files(["folder"], tmp_path)
        return maker.key().parts

    before = parts()
    assert parts() == before
    (tmp_path / "folder" / "b.txt").write_text("b")
    assert parts() != before
    with pytest.raises(FileNotFoundError, match=r"depends_on=\['gone'\]"):
        KeyMaker().add_files(["gone"], tmp_path)


def test_versions_of_packages_are_shown():
    maker = KeyMaker()
    maker.add_environment(["python", "pandas", "no-such-package"])
    shown = maker.key().shown
    assert shown["environment no-such-package"] == "not installed"
    (unknown,) = maker.key().unknown
    assert "'no-such-package'" in unknown
    assert shown["environment pandas"][0].isdigit()
