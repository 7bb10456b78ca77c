# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airflow_ml_provider.artifacts import keys, trash
from airflow_ml_provider.artifacts.collection import Retention, execute, plan
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import ArtifactNotFoundError

WHEN = datetime(2013, 5, 14, 12, 30, 1, tzinfo=UTC)
DIGEST = f"blake3:{'0a' * 32}"


def test_a_key_says_what_was_taken_away_and_when() -> None:
    assert trash.parse(trash.key_of(DIGEST, WHEN)) == (DIGEST, WHEN)
    assert trash.parse(f"trash/20130514T123001Z-{'0a' * 32}") == (DIGEST, WHEN)  # of the first release
    assert trash.parse("trash/something") is None


def test_content_is_found_among_other_content(store: ArtifactStore) -> None:
    for digit in "123":
        store.objects.put(trash.key_of(f"blake3:{digit * 64}", WHEN), b"x")
    assert trash.find(store.objects, f"blake3:{'2' * 64}") == trash.key_of(f"blake3:{'2' * 64}", WHEN)
    assert trash.find(store.objects, f"blake3:{'0' * 64}") is None
    assert trash.find(store.objects, f"blake3:{'4' * 64}") is None


def test_content_that_is_nowhere_is_missed_by_the_name_of_its_place(store: ArtifactStore) -> None:
    with pytest.raises(ArtifactNotFoundError, match=keys.blob_key(DIGEST)):
        trash.read_content(store.objects, DIGEST, store.objects.get)


def test_what_the_first_release_took_away_goes_back_or_goes(store: ArtifactStore) -> None:
    missed, over = store.save(b"missed", "flights"), store.save(b"over", "other")
    for ref in (missed, over):
        name = keys.digest_hex(ref.digest)
        assert store.objects.move(keys.blob_key(ref.digest), f"trash/{WHEN:%Y%m%dT%H%M%S}Z-{name}")
    store.objects.delete([keys.version_key(over.name, over.version_id)])
    then = datetime.now(UTC) + timedelta(days=2)
    for _ in range(2):
        execute(plan(store.objects, store.signer, policy=Retention(), now=then), now=then)
    assert missed.load() == b"missed"
    assert not list(store.objects.list("trash"))
