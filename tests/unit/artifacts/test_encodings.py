# SPDX-License-Identifier: Apache-2.0
"""Short forms of the parts of a piece: the same bits come back, and what was forged is refused."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from airflow_ml_provider.artifacts import encodings
from airflow_ml_provider.artifacts.encodings import LZ4, ZSTD

N = 5000
RANDOM = np.random.default_rng(7)
I8, U8 = np.iinfo(np.int64), np.iinfo(np.uint64)
CENTS = (RANDOM.gamma(2, 50, N)).round(2)
NAN_WITH_PAYLOAD = np.frombuffer(struct.pack("<Q", 0x7FF8_0000_0000_0001), np.float64)


def with_nan(values: Any, share: float = 0.1) -> Any:
    return np.where(RANDOM.random(len(values)) < share, np.nan, values)


# Each with the largest share of its bytes that it may take, 1 for as it is.
NUMBERS: dict[str, tuple[Any, float]] = {
    "all the same": (np.full(N, -7), 0.02),
    "counts": (RANDOM.poisson(3, N), 0.14),
    "counts without a sign": (RANDOM.poisson(3, N).astype(np.uint32), 0.27),
    "short steps": (np.arange(N, dtype=np.int16) - 2500, 0.02),
    "small and short": (RANDOM.integers(-100, 100, N).astype(np.int16), 0.52),
    "bytes": (RANDOM.integers(-128, 128, N).astype(np.int8), 1),
    "row numbers": (np.arange(10**12, 10**12 + N), 0.02),
    "row numbers backwards": (np.arange(N)[::-1] * 3, 0.02),
    "times that go up": (np.cumsum(RANDOM.integers(0, 60_000_000, N)) + 10**15, 0.52),
    "a jump": (np.r_[np.arange(N // 2), np.arange(N // 2) + 10**9], 0.52),
    "the whole range": (np.r_[I8.min, I8.max, np.zeros(N, np.int64)], 1),
    "the whole range without a sign": (np.r_[U8.min, U8.max, np.zeros(N, np.uint64)].astype(np.uint64), 1),
    "high numbers without a sign": (U8.max - RANDOM.integers(0, 200, N).astype(np.uint64), 0.14),
    "steps that wrap around": (np.tile(np.array([I8.min, I8.max]), N), 1),
    "noise": (RANDOM.integers(I8.min, I8.max, N), 1),
    "one": (np.array([12345]), 1),
    "two": (np.array([1, 2]), 1),
    "none": (np.array([], np.int64), 1),
    "cents": (CENTS, 0.52),
    "cents below zero": (-CENTS, 0.52),
    "cents with gaps": (with_nan(CENTS), 0.52),
    "cents, most of them gone": (with_nan(CENTS, 0.9), 0.52),
    "shares": (RANDOM.integers(0, 1001, N) / 1000, 0.27),
    "short decimals": ((RANDOM.integers(0, 100, N) / 10).astype(np.float32), 0.27),
    "short decimals with gaps": (with_nan(RANDOM.integers(0, 100, N) / 10).astype(np.float32), 0.27),
    "whole floats": (RANDOM.integers(-5, 5, N).astype(np.float64), 0.14),
    "floats all the same": (np.full(N, 0.5), 0.02),
    "floats beyond whole numbers": (RANDOM.integers(0, 9, N) * 2.0**60, 1),
    "a span of 31 bits": (np.r_[0.0, 2.0**31 - 1, np.nan, np.zeros(N)], 0.52),
    "a span of 32 bits": (np.r_[0.0, 2.0**32 - 1, np.zeros(N)], 0.52),
    "a span of 32 bits and a gap": (np.r_[0.0, 2.0**32 - 1, np.nan, np.zeros(N)], 1),
    "a zero below zero": (np.r_[-0.0, CENTS], 1),
    "no number at all": (np.full(N, np.nan), 1),
    "a NaN of another kind": (np.r_[CENTS, NAN_WITH_PAYLOAD], 1),
    "infinite": (np.r_[CENTS, np.inf, -np.inf], 1),
    "one that is no decimal": (np.r_[CENTS, 1 / 3], 1),
    "very large ones": (np.r_[CENTS, 1e300], 1),
    "very small ones": (np.r_[CENTS, 5e-324], 1),
    "float noise": (RANDOM.normal(size=N), 1),
    "short float noise": (RANDOM.normal(size=N).astype(np.float32), 1),
}


def joined(parts: list[memoryview]) -> bytes:
    return b"".join(parts)


def decoded(stored: bytes, *sizes: int) -> list[bytes]:
    targets = [memoryview(bytearray(b"\xaa" * size)) for size in sizes]
    encodings.decode(memoryview(stored), targets)
    return [bytes(target) for target in targets]


@pytest.mark.parametrize("compressor", [LZ4, ZSTD], ids=["lz4", "zstd"])
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_come_back_bit_for_bit_and_take_as_little_as_they_need(
    name: str, compressor: encodings.Compressor
) -> None:
    values, share = NUMBERS[name]
    raw = values.tobytes()

    stored = joined(encodings.encode([memoryview(values)], compressor))

    assert len(stored) <= max(share * len(raw), 64)
    if len(stored) == len(raw):
        assert stored == raw
    else:
        assert decoded(stored, len(raw)) == [raw]


PARTS: dict[str, list[Any]] = {
    "lengths and text": [RANDOM.integers(3, 9, N).astype(np.int32), b"lorem ipsum dolor " * 2000],
    "lengths and nothing": [np.full(N, -1, np.int32), b""],
    "text and noise": [b"lorem ipsum dolor " * 500, RANDOM.bytes(9000)],
    "odd lengths": [np.arange(7, dtype=np.int32), b"abc" * 333, np.arange(1000, dtype=np.int16), b"x"],
    "times and cents": [NUMBERS["times that go up"][0], CENTS],
}


@pytest.mark.parametrize("compressor", [LZ4, ZSTD], ids=["lz4", "zstd"])
@pytest.mark.parametrize("name", PARTS)
def test_the_parts_of_a_piece_come_back_each_to_its_place(
    name: str, compressor: encodings.Compressor
) -> None:
    raw = [part if isinstance(part, bytes) else part.tobytes() for part in PARTS[name]]

    stored = joined(encodings.encode([memoryview(part) for part in PARTS[name]], compressor))

    assert len(stored) < sum(map(len, raw))
    assert decoded(stored, *map(len, raw)) == raw


def test_a_form_depends_on_nothing_but_the_part() -> None:
    first, again = (joined(encodings.encode([memoryview(CENTS.copy())], LZ4)) for _ in range(2))
    encodings.encode([memoryview(np.arange(9 * N))], LZ4)

    assert first == again == joined(encodings.encode([memoryview(CENTS)], LZ4))


@pytest.mark.parametrize("compressor", [LZ4, ZSTD], ids=["lz4", "zstd"])
def test_a_piece_of_the_earlier_form_was_compressed_as_one(compressor: encodings.Compressor) -> None:
    raw = b"lorem ipsum dolor " * 2000

    assert decoded(compressor.compress(raw), 1000, len(raw) - 1000) == [raw[:1000], raw[1000:]]


FORGED_ROWS = {
    "a kind that is none": {"kind": 9},
    "a type that is none": {"code": b"x"},
    "text as numbers": {"code": b"B"},
    "floats as integers": {"code": b"d"},
    "a width that is none": {"width": 3},
    "a width as wide as the number": {"width": 8},
    "fewer numbers": {"width": 2},
    "a length beyond its target": {"length": 1 << 40},
    "a length beyond the piece": {"stored": 1 << 40},
    "a shorter piece": {"stored": 10},
    "compressed bytes that are none": {"compressed": 1},
    "an exponent without end": {"kind": 3, "code": b"d", "exponent": 255},
}


@pytest.mark.parametrize("name", FORGED_ROWS)
def test_a_forged_form_is_refused(name: str) -> None:
    values = RANDOM.integers(0, 200, N)
    stored = joined(encodings.encode([memoryview(values)], LZ4))
    row = encodings._PART.unpack_from(stored, encodings._TOP.size)
    names = ("kind", "code", "width", "exponent", "compressed", "length", "stored", "base", "first")
    forged = encodings._PART.pack(*(dict(zip(names, row, strict=True)) | FORGED_ROWS[name]).values())
    start = encodings._TOP.size

    with pytest.raises(ValueError, match=r"\w"):
        decoded(stored[:start] + forged + stored[start + len(forged) :], values.nbytes)


@pytest.mark.parametrize("sizes", [(), (8 * N - 8,), (8 * N + 8,), (4 * N, 4 * N), (3,)])
def test_targets_of_other_lengths_are_refused(sizes: tuple[int, ...]) -> None:
    stored = joined(encodings.encode([memoryview(RANDOM.integers(0, 200, N))], LZ4))

    with pytest.raises(ValueError, match=r"\w"):
        decoded(stored, *sizes)


def test_a_form_that_is_cut_off_is_refused_wherever_it_ends() -> None:
    stored = joined(encodings.encode([memoryview(CENTS), memoryview(b"lorem ipsum " * 999)], LZ4))

    for end in [*range(100), *range(100, len(stored), 997)]:
        with pytest.raises(ValueError, match=r"\w"):
            decoded(stored[:end], CENTS.nbytes, 12 * 999)


def test_a_piece_that_unpacks_to_more_than_it_says_is_refused() -> None:
    for compressor in (LZ4, ZSTD):
        bomb = memoryview(compressor.compress(bytes(1 << 26)))

        with pytest.raises(ValueError, match="1000 bytes"):
            encodings.expand(bomb, 1000)
