# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airflow_ml_provider.artifacts import keys

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "a/b", "a=2Fb", "=h", "é", "\ud800", "\0", "scheduled__2013-02-01T00:00:00+00:00", "..a"],
)
def test_a_segment_keeps_any_text(text: str) -> None:
    escaped = keys.segment(text)

    assert keys.text_of(escaped) == text
    assert escaped not in ("", ".", "..")
    assert set(escaped) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.=")


def test_long_segments_are_hashed_apart() -> None:
    one, two = keys.segment("x" * 5000 + "1"), keys.segment("x" * 5000 + "2")

    assert one != two
    assert max(len(one), len(two)) <= 200
    assert keys.text_of(one) is None


def test_the_longest_record_key_fits_s3() -> None:
    assert len(keys.record_key("é" * 250, "é" * 250, "é" * 250, 10**6, 10**6)) < 900


def test_ids_sort_newest_first_and_tell_both_clocks() -> None:
    effective = datetime(2013, 5, 1, tzinfo=UTC)
    made = [keys.new_version_id(NOW + timedelta(microseconds=n), effective) for n in (0, 1, 2000)]
    made += [keys.new_version_id(NOW + timedelta(days=1)) for _ in range(3)]

    assert made == sorted(made, reverse=True)
    assert keys.version_time(made[0]) == NOW
    assert keys.version_effective(made[0]) == effective
    assert keys.version_effective(made[-1]) == NOW + timedelta(days=1)


@pytest.mark.parametrize("when", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
def test_ids_hold_all_times(when: datetime) -> None:
    assert keys.version_time(keys.new_version_id(when)) == when


@pytest.mark.parametrize(
    "digest", ["", "blake3:", "blake3:../x", "sha256:" + "0" * 64, "blake3:" + "A" * 64, None]
)
def test_only_digests_become_keys_of_contents(digest: str) -> None:
    with pytest.raises(ValueError, match="digest"):
        keys.blob_key(digest)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        keys.new_version_id(datetime(2020, 1, 1))
