# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import collections
import datetime as dt
from typing import Any

import numpy as np
import pytest

from airflow_ml_provider.artifacts.codecs.packed import StateReader, StateWriter, pack, unpack
from airflow_ml_provider.exceptions import ArtifactCorruptError, UnsupportedTypeError
from tests.unit.artifacts.sameness import same


def joined(about: Any, parts: list[list[bytes]]) -> bytes:
    return b"".join(pack(about, [[memoryview(buffer) for buffer in part] for part in parts]))


def test_parts_come_back_and_begin_at_multiples_of_64_bytes() -> None:
    parts = [[b"a" * 65], [], [b"b", b"c" * 63], [b"d"]]
    packed = memoryview(joined({"k": 2**70}, parts))

    about, found = unpack(packed, "it")

    assert about == {"k": 2**70}
    assert [bytes(part) for part in found] == [b"".join(part) for part in parts]
    start = np.frombuffer(packed, np.uint8).ctypes.data
    assert [(np.frombuffer(part, np.uint8).ctypes.data - start) % 64 for part in found if part] == [0, 0, 0]


GOOD = joined({}, [[b"abc"]])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"AMLP",
        b"XXXX" + GOOD[4:],
        GOOD[:-1],
        GOOD + b"\0",
        GOOD[:40],
        GOOD.replace(b'"about"', b'"abort"'),
        GOOD.replace(b"[3]", b"[9]").replace(b"\0" * 61, b""),
        GOOD.replace(b"[3]} ", b"[-1]}"),
        GOOD.replace(b"[3]}   ", b"[true]}"),
        GOOD.replace(b"[3]}  ", b"[1e9]}"),
        GOOD.replace(b"[3]", b"123"),
        GOOD[:4] + b"\xff\xff\xff\x7f" + GOOD[8:],
    ],
    ids=range(13),
)
def test_what_was_not_packed_here_is_refused(content: bytes) -> None:
    assert content != GOOD
    with pytest.raises(ArtifactCorruptError, match="it "):
        unpack(memoryview(content), "it")


SHARED = np.arange(3)
STATES = [
    {"a": [1, (2.5, None)], 3: {"kind": "artifact"}},
    collections.OrderedDict([("b", float("nan")), ("a", -0.0)]),
    collections.defaultdict(collections.OrderedDict, {"x": collections.OrderedDict(y=np.float64(1.5))}),
    collections.defaultdict(None, {}),
    {np.str_("a"): np.int64(1)},
    [
        np.array([[1, 2], [3, 4]], order="F"),
        np.array(5.0),
        np.array([], "U3"),
        b"\0\xff",
        dt.date(2020, 1, 1),
    ],
    np.array(True),
    2**100,
]


@pytest.mark.parametrize("state", STATES, ids=range(len(STATES)))
def test_a_state_comes_back(state: Any) -> None:
    writer = StateWriter()
    tree = writer.write(state, "it")

    about, parts = unpack(memoryview(b"".join(pack(tree, writer.parts))), "it")
    back = StateReader(parts).read(about)

    assert same(back, state)
    if isinstance(state, collections.defaultdict):
        assert back.default_factory is state.default_factory


def test_an_array_of_objects_comes_back_by_its_items() -> None:
    state = np.array([["no", 1], [None, (2, "é")]], dtype=object)
    writer = StateWriter()
    tree = writer.write([state, SHARED, SHARED], "it")

    back = StateReader([memoryview(b"".join(part)) for part in writer.parts]).read(tree)

    assert (back[0].dtype, back[0].shape, back[0].tolist()) == (state.dtype, (2, 2), state.tolist())
    assert back[1] is back[2]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": [1, len]}, r"it\['a'\]\[1\] is 'len'"),
        ({"a": {1: object()}}, r"it\['a'\]\[1\] is an object of the type builtins\.object"),
        (np.array([object()]), r"it\[0\]"),
        (collections.defaultdict(lambda: 1), "default factory"),
    ],
)
def test_what_is_no_data_is_refused_by_its_place(state: Any, message: str) -> None:
    with pytest.raises(UnsupportedTypeError, match=message):
        StateWriter().write(state, "it")
