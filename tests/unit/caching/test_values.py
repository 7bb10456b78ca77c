# SPDX-License-Identifier: Apache-2.0
"""Which values are the same in a key."""

from __future__ import annotations

import collections
import datetime as dt
import enum
import functools
import uuid
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pendulum
import pytest

from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.caching.values import describe, digest, name_of
from airflow_ml_provider.exceptions import UncacheableError

NEW_YORK = ZoneInfo("America/New_York")


@dataclass
class Options:
    depth: int = 1


@dataclass
class OtherOptions:
    depth: int = 1


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


VALUES = [
    None,
    True,
    False,
    0,
    1,
    1.0,
    -0.0,
    0.0,
    float("nan"),
    float("inf"),
    "1",
    "",
    b"1",
    2**80,
    Decimal("1.0"),
    Decimal("1.00"),
    1j,
    [],
    (),
    {},
    set(),
    frozenset(),
    [1],
    [[1]],
    (1,),
    {1: 2},
    {"1": 2},
    {1},
    "int",
    {"int": "1"},
    dt.date(2026, 1, 1),
    dt.datetime(2026, 1, 1),
    dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    dt.datetime(2026, 1, 1, tzinfo=NEW_YORK),
    # The same moment, whose date is another one.
    dt.datetime(2026, 1, 1, 5, tzinfo=dt.UTC),
    dt.datetime(2025, 12, 31, 22, tzinfo=dt.timezone(dt.timedelta(hours=-7))),
    pendulum.datetime(2026, 1, 1, 6, tz="Europe/Berlin"),
    pendulum.datetime(2026, 1, 1, 6, tz="Europe/Paris"),
    dt.timedelta(1),
    dt.time(1),
    uuid.UUID(int=1),
    Path("a"),
    range(3),
    slice(3),
    Options(1),
    Options(2),
    OtherOptions(1),
    Colour.RED,
    Colour.BLUE,
    Colour,
    functools.partial(name_of, 1),
    functools.partial(name_of, 2),
    name_of,
    np.array([1]),
    np.array([1.0]),
    np.int64(1),
    pd.DataFrame({"a": [1]}),
    pd.DataFrame({"b": [1]}),
]


def test_different_values_have_different_texts():
    found = [digest(describe(value)) for value in VALUES]
    same = [(VALUES[a], VALUES[b]) for a in range(len(found)) for b in range(a) if found[a] == found[b]]
    assert same == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param({"a": 1, "b": 2}, {"b": 2, "a": 1}, id="order of a dict"),
        pytest.param({"x", "y", "z"}, {"z", "y", "x"}, id="order of a set"),
        pytest.param(
            dt.datetime(2026, 1, 1, tzinfo=dt.UTC), pendulum.datetime(2026, 1, 1), id="UTC of another library"
        ),
        pytest.param(
            dt.datetime(2026, 1, 1, tzinfo=ZoneInfo("Etc/UTC")),
            pd.Timestamp("2026-01-01T00:00Z"),
            id="UTC of another name",
        ),
        pytest.param(float("nan"), -float("nan"), id="nan"),
        pytest.param(pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [1]}), id="frames"),
    ],
)
def test_equal_values_have_one_text(one, other):
    assert describe(one) == describe(other)


def test_of_an_artifact_the_content_counts_and_it_is_not_loaded(tmp_path):
    store = ArtifactStore(f"file://{tmp_path}", signing_key=bytes(32))
    ref, again, other = (
        store.save(text.encode(), name) for text, name in (("a", "x"), ("a", "y"), ("b", "x"))
    )
    for blob in tmp_path.glob("blobs/*/*"):
        blob.unlink()
    assert describe([ref]) == describe([again])
    assert describe([ref]) != describe([other])
    assert describe(replace(ref, format="other-v1")) != describe(ref)


@pytest.mark.parametrize("value", [object(), (item for item in ())], ids=["object", "generator"])
def test_what_has_no_canonical_form_is_refused_by_name(value):
    with pytest.raises(UncacheableError, match=type(value).__name__):
        describe([{"a": value}])


def test_what_contains_itself_is_refused():
    ring: list = []
    ring.append(ring)
    with pytest.raises(UncacheableError, match="contain themselves"):
        describe(ring)


def test_the_module_of_a_dag_file_has_one_name_wherever_it_lies():
    def task(): ...

    names = set()
    for path_hash in ("0" * 40, "f" * 40):
        task.__module__ = f"unusual_prefix_{path_hash}_my_dag"
        names.add(name_of(task))
    assert len(names) == 1
    assert names.pop().startswith("my_dag.")


def test_models_that_differ_in_what_a_dump_leaves_out_are_told_apart():
    import pydantic

    class Base(pydantic.BaseModel):
        a: int = 1

    class Sub(Base):
        b: int = 2

    class Holder(pydantic.BaseModel):
        inner: Base
        hidden: int = pydantic.Field(default=0, exclude=True)

    held = [Holder(inner=Sub(b=2)), Holder(inner=Sub(b=3)), Holder(inner=Sub(b=2), hidden=1)]
    assert len({digest(describe(item)) for item in held}) == 3


def test_times_are_told_apart_to_what_their_type_holds():
    values = [
        pd.Timestamp(1, unit="ns"),
        pd.Timestamp(2, unit="ns"),
        pd.Timedelta(1),
        pd.Timedelta(2),
        pd.NaT,
        dt.datetime.min,
        dt.time(1),
        dt.time(1, tzinfo=NEW_YORK),
    ]
    assert len({digest(describe(value)) for value in values}) == len(values)


def test_the_order_of_an_ordered_dict_counts():
    one = collections.OrderedDict(a=1, b=2)
    assert describe(one) != describe(collections.OrderedDict(b=2, a=1))


def test_a_dict_with_two_nans_as_keys_has_a_text():
    assert describe({float("nan"): 1, float("nan") * 2: 2}) == describe({float("nan"): 1, float("nan"): 2})
