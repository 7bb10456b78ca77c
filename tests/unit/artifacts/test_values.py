# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501 - tables of values
"""Out and back through what a PostgreSQL JSONB column does to JSON."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import enum
import json
import uuid
import zoneinfo
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pendulum
import pytest
from pydantic import BaseModel, Field, PrivateAttr, field_validator

from airflow_ml_provider.artifacts.envelope import has_nodes
from airflow_ml_provider.artifacts.refs import ArtifactRef, Producer
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import ClassChangedError, UnsupportedTypeError, UntrustedTypeError
from airflow_ml_provider.tracking.models import ModelRef
from tests.unit.artifacts.sameness import same


def through_jsonb(tree: Any) -> Any:
    """Do to JSON what PostgreSQL's JSONB does, and refuse what it refuses."""

    def check(value: Any) -> Any:
        if isinstance(value, dict):
            # Keys come back by length, then by bytes.
            ordered = sorted(value.items(), key=lambda item: (len(item[0].encode()), item[0].encode()))
            return {check(key): check(item) for key, item in ordered}
        if isinstance(value, list):
            return [check(item) for item in value]
        if isinstance(value, str):
            assert "\0" not in value
            value.encode()
        if type(value) is int:
            assert -(2**63) <= value < 2**63
        if isinstance(value, float):
            number = Decimal(repr(value))
            assert number.is_finite()
            text = f"{number:f}"
            return float(text) if "." in text else int(text)
        return value

    return check(json.loads(json.dumps(tree, allow_nan=False)))


class Colour(enum.Enum):
    RED = (1, 2)


class Level(enum.StrEnum):
    LOW = "low"


class Point(NamedTuple):
    x: int
    y: Any


@dataclass(frozen=True)
class Report:
    rows: int
    frame: Any = None

    def __post_init__(self) -> None:
        if self.rows < 0:
            raise AssertionError("__init__ ran on reading")


@dataclass(slots=True)
class Slotted:
    a: int
    b: Any


class Params(BaseModel):
    depth: int = 3
    rates: dict[str, float] = Field(default_factory=dict)
    table: Any = None
    _secret: int = PrivateAttr(default=1)

    @field_validator("depth")
    @classmethod
    def _small(cls, depth: int) -> int:
        if depth > 10:
            raise ValueError("too deep")
        return depth


class Open(BaseModel, extra="allow"):
    a: int


BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
deep: Any = []
for _ in range(150):
    deep = [deep]

VALUES: list[Any] = [
    None, True, 0, 2**63 - 1, 2**63, -(2**63), -(2**70), 10**5000,
    0.0, -0.0, 0.1, 1e15, 1e16, 1e300, 5e-324, float("nan"), float("inf"), -float("inf"),
    "", "text", "é 漢字 🙂", "a\0b", "\ud800", "\ud83d\ude00", "x" * 100_000,
    [], {}, [1, [2, {"a": None}]], {"a": 1, "": 2}, {"a\0": 1}, {"kind": "ml-artifact/v1"},
    {"kind": "ml-model/v1", "table": {1, 2}}, {"kind": "mine", "x": 1}, list(range(50_000)), deep,
    (), (1, (2.5, "a")), {1, 2, 3}, frozenset({"a", (1, 2)}), {1: "a", None: "b", (1, 2): {"c": 3}}, {True: 1, "a": 2},
    collections.OrderedDict(b=1, a=2), collections.Counter("abca"), collections.deque([1, (2,)], maxlen=5),
    collections.defaultdict(list, a=[1]), range(0, 10**30, 7), ...,
    dt.datetime(2020, 1, 1, 12, 30, 1, 5), dt.datetime(2020, 10, 25, 2, 30, tzinfo=BERLIN, fold=1),
    dt.datetime(1, 1, 1, tzinfo=dt.UTC), dt.datetime(9999, 12, 31, tzinfo=dt.timezone(dt.timedelta(hours=5.5), "IST")),
    dt.date(2020, 2, 29), dt.time(1, 2, 3, tzinfo=dt.UTC), dt.timedelta(days=-1, microseconds=1), dt.timedelta.max,
    BERLIN, dt.timezone(dt.timedelta(minutes=-7)), pendulum.datetime(2020, 5, 1, tz="Europe/Paris"),
    decimal.Decimal("1.10"), decimal.Decimal("-0"), decimal.Decimal("Infinity"), uuid.UUID(int=5),
    1 + 2j, complex(float("nan"), -0.0),
    np.float32(0.1), np.int8(-3), np.bool_(True), np.float64("nan"), np.datetime64("2020-01-01T00:00", "m"),
    np.datetime64("NaT"), np.timedelta64(5, "D"), np.complex64(1j), np.str_("é"), np.bytes_(b"a"),
    pd.Timestamp("2020-01-01 00:00:00.000000001"), pd.Timestamp("2020-10-25 01:30", tz="UTC").tz_convert("Europe/Berlin"),
    pd.Timestamp("2020-01-01").as_unit("s"), pd.Timestamp(2020, 1, 1, fold=1), pd.Timedelta("1 day"), pd.NaT, pd.NA,
    b"", b"bytes\0", bytearray(b"array"), bytes(range(256)) * 5000,
    np.arange(12).reshape(3, 4), np.asfortranarray(np.ones((3, 4))), np.arange(20)[::3], np.array(5.0),
    np.zeros((0, 3)), np.zeros((0, 3), order="F"), np.array(["a", "bcd"]), np.array([b"a\0", b""]),
    np.array(["2020-01-01", "NaT"], dtype="M8[D]"), np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    np.ones((2, 3, 4)).transpose(1, 2, 0), np.arange(4, dtype=">i4"), np.array([1, 2], dtype="f2"),
    np.arange(300_000.0),
    Colour.RED, Level.LOW, Point(1, (2, 3)), Report(3, np.arange(3)), Slotted(1, {"a": (1,)}),
    {"frame": pd.DataFrame({"a": [1.5]}), "score": float("nan"), "rows": list(range(10_000))},
    [dt.date(2020, 1, 1)] * 3000, {(1, 2): pd.Series([1])}, [(np.arange(2), {"x": {1}})],
]  # fmt: skip


def label(value: Any) -> str:
    if isinstance(value, (set, frozenset)):
        # Their order differs from process to process, and the workers of a parallel run compare the names.
        return f"{type(value).__name__} {sorted(map(repr, value))}"[:40]
    return f"{type(value).__name__} {repr(value)[:25] if not isinstance(value, int) else value.bit_length()}"


@pytest.mark.parametrize("value", VALUES, ids=label)
def test_a_value_comes_back_as_it_was(store: ArtifactStore, value: Any) -> None:
    tree = through_jsonb(store.encode(value, name="task"))

    back = store.decode(tree)

    if type(value) is dict and tree.keys() == value.keys():  # JSONB orders keys anew
        back = {key: back[key] for key in value}
    assert same(value, back)


@pytest.mark.parametrize("value", VALUES, ids=label)
def test_a_saved_version_loads_as_it_was(store: ArtifactStore, value: Any) -> None:
    ref = store.save(value, "task")

    assert same(value, store.get("task", ref.version_id).load())


@pytest.mark.parametrize("value", [1, "a", [1, {"b": [None, 2.5]}], {"kind": "mine"}], ids=repr)
def test_plain_json_stays_as_it_is(store: ArtifactStore, value: Any) -> None:
    assert store.encode(value, name="task") is value
    assert list(store.objects.list("")) == []


def test_lists_and_dicts_keep_their_shape(store: ArtifactStore) -> None:
    tree = store.encode({"parts": [np.arange(2), 5], "n": 1}, name="task")

    assert tree["n"] == 1
    assert tree["parts"][1] == 5
    assert tree["parts"][0]["kind"] == "ml-artifact/v1"
    assert tree["parts"][0]["name"] == "task.parts.0"


def test_a_tree_too_large_for_the_database_becomes_one_artifact(store: ArtifactStore) -> None:
    value = [{"day": dt.date(2020, 1, 1), "n": n} for n in range(2000)]

    tree = store.encode(value, name="task")

    assert tree["format"] == "tree-v1"
    assert tree["type"] == "list"
    assert store.decode(tree) == value
    assert store.decode(tree, as_refs=True) == value


def test_an_object_met_twice_is_stored_once_and_comes_back_as_one(store: ArtifactStore) -> None:
    array = np.arange(1000)

    tree = store.encode([array, array], name="task")
    left, right = store.decode(tree)

    assert left is right
    assert store.usage().versions == 1


def test_pydantic_models_come_back_without_validation(store: ArtifactStore) -> None:
    made = Params.model_construct(depth=99, rates={"a": float("inf")}, table=np.arange(3))
    made._secret = 7

    back = store.decode(through_jsonb(store.encode(made, name="task")))

    assert type(back) is Params
    assert back.depth == 99
    assert back.rates == {"a": float("inf")}
    assert back._secret == 7
    assert back.model_fields_set == made.model_fields_set
    assert np.array_equal(back.table, made.table)


def test_pydantic_extras_keep_their_order(store: ArtifactStore) -> None:
    made = Open.model_validate({"a": 1, "zebra": 1, "b": 2})

    back = store.decode(through_jsonb(store.encode(made, name="task")))

    assert back == made
    assert list(back.model_dump()) == ["a", "zebra", "b"]


def test_a_changed_class_names_both_sides(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = store.encode(Report(1), name="task")

    @dataclass
    class Changed:
        rows: int
        columns: int

    Changed.__qualname__ = "Report"
    monkeypatch.setitem(globals(), "Report", Changed)

    with pytest.raises(ClassChangedError, match=r"had the fields frame, rows .* now it has columns, rows"):
        store.decode(tree)


def test_a_class_that_nobody_imported_is_refused_by_name(store: ArtifactStore) -> None:
    tree = store.encode(Report(1), name="task")
    node = {**tree, "class": "os.not_imported_here:Thing"}
    node = store.signer.signed({key: value for key, value in node.items() if key != "signature"})

    with pytest.raises(UntrustedTypeError, match=r"os\.not_imported_here\.Thing .* allowed_classes"):
        store.decode(node)


def test_classes_of_a_dag_file_are_found_under_another_hash(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys
    import types

    source = "from dataclasses import dataclass\n@dataclass\nclass Row:\n    a: int\n"

    def parse(name: str) -> types.ModuleType:
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(source, module.__dict__)  # noqa: S102
        return module

    here = parse("unusual_prefix_aaaa1111_my_dag")
    tree = store.encode(here.Row(5), name="task")
    monkeypatch.delitem(sys.modules, "unusual_prefix_aaaa1111_my_dag")
    there = parse("unusual_prefix_bbbb2222_my_dag")

    back = store.decode(tree)

    assert type(back) is there.Row
    assert back.a == 5
    parse("unusual_prefix_cccc3333_my_dag")
    with pytest.raises(UntrustedTypeError, match="2 DAG files"):
        store.decode(tree)


def test_a_class_inside_a_function_is_refused_when_written(store: ArtifactStore) -> None:
    @dataclass
    class Local:
        a: int

    with pytest.raises(UnsupportedTypeError, match="top of a module"):
        store.encode(Local(1), name="task")


def test_an_unknown_type_is_refused_by_name(store: ArtifactStore) -> None:
    with pytest.raises(
        UnsupportedTypeError,
        match=r"builtins\.function \(task\.f\).*return another type.*register.*allow_pickle",
    ):
        store.encode({"f": label}, name="task")


class Pair(collections.namedtuple("_Pair", "a b")):
    """Has a ``__dict__``, as it names no ``__slots__``."""


def test_a_named_tuple_with_attributes_of_its_own_is_refused(store: ArtifactStore) -> None:
    pair = Pair(1, 2)
    assert same(pair, store.decode(store.encode(pair, name="task")))
    pair.c = 3

    with pytest.raises(UnsupportedTypeError, match=r"Pair has the attribute 'c' beside its fields"):
        store.encode(pair, name="task")


def test_several_nan_stay_several(store: ArtifactStore) -> None:
    keys = [float("nan"), float("nan")]

    assert len(store.decode(store.encode(set(keys), name="task"))) == 2
    assert list(store.decode(store.encode(dict.fromkeys(keys, 1), name="task")).values()) == [1, 1]


def test_records_are_refused_for_they_would_lose_their_attributes(store: ArtifactStore) -> None:
    records = np.rec.array([(1, 2.0)], dtype=[("x", "i4"), ("y", "f8")])

    for value in (records.view(np.ndarray), records[0], {"a": records}):
        with pytest.raises(UnsupportedTypeError, match=r"rec"):
            store.encode(value, name="task")


def test_a_long_double_comes_back_whatever_pads_it(store: ArtifactStore) -> None:
    padded = np.frombuffer(np.longdouble("0.1").tobytes()[:10] + b"\1" * 6, np.longdouble)[0]

    assert repr(store.decode(store.encode(padded, name="task"))) == repr(np.longdouble("0.1"))


def test_nothing_of_a_refused_value_is_listed(store: ArtifactStore) -> None:
    with pytest.raises(UnsupportedTypeError):
        store.encode([np.arange(3), object()], name="task")

    assert list(store.names()) == []


def test_a_value_that_contains_itself_is_refused(store: ArtifactStore) -> None:
    value: list[Any] = []
    value.append(value)

    with pytest.raises(UnsupportedTypeError, match="contains itself"):
        store.encode(value, name="task")


@pytest.mark.parametrize(
    "value", [np.array([1, "a"], dtype=object), np.array([(1, None)], dtype=[("a", "i4"), ("b", "O")])]
)
def test_arrays_of_objects_are_refused_with_advice(store: ArtifactStore, value: Any) -> None:
    with pytest.raises(UnsupportedTypeError, match="astype"):
        store.encode(value, name="task")


def test_the_fallback_takes_leaves_that_no_codec_knows(store: ArtifactStore) -> None:
    class Odd:
        pass

    tree = store.encode({"a": Odd()}, name="task", fallback=lambda value: {"odd": float("inf")})
    back = store.decode(through_jsonb(tree), fallback=lambda found: ("odd", found))

    assert back == {"a": ("odd", {"odd": float("inf")})}


def test_a_model_reference_crosses_readably(store: ArtifactStore) -> None:
    ref = ModelRef(model_uri="models:/m-1", metrics={"auc": 1e16, "loss": 0.5}, flavor="sklearn")

    tree = through_jsonb(store.encode({"model": ref}, name="task"))

    assert tree["model"]["kind"] == "ml-model/v1"
    assert tree["model"]["model_uri"] == "models:/m-1"
    assert store.decode(tree) == {"model": ref}


def test_references_stand_for_their_values(store: ArtifactStore) -> None:
    tree = store.encode({"a": np.arange(3)}, name="task")
    refs = store.decode(tree, as_refs=True)

    assert isinstance(refs["a"], ArtifactRef)
    again = store.encode(refs, name="other")
    assert again == tree
    assert store.usage().versions == 1


def test_lazy_reads_are_told_when_they_happen(store: ArtifactStore) -> None:
    written: list[ArtifactRef] = []
    read: list[str] = []
    tree = store.encode({"a": np.arange(3)}, name="task", on_write=written.append)
    refs = store.decode(tree, as_refs=True, on_read=lambda ref, value: read.append(ref.version_id))

    assert read == []
    assert np.array_equal(refs["a"].load(), np.arange(3))
    assert read == [written[0].version_id]


def test_an_envelope_says_who_and_when_and_stays_small(store: ArtifactStore) -> None:
    frame = pd.DataFrame({f"column {n}": ["x" * 1000] * 100 for n in range(500)})
    when = dt.datetime(2013, 5, 1, tzinfo=dt.UTC)
    producer = Producer("dag", "run", "task", map_index=3, try_number=2)

    tree = store.encode(frame, name="features", producer=producer, effective_at=when)

    assert tree["producer"]["map_index"] == 3
    assert tree["effective_at"] == "2013-05-01T00:00:00.000000+00:00"
    assert tree["schema"]["rows"] == 100
    assert len(json.dumps(tree["preview"])) <= 2048
    assert tree["preview"][0]["column 0"] == "x" * 80 + "..."
    assert store.encode(frame, name="features", preview=False)["preview"] is None


def test_paths_to_missing_files_and_links_are_refused(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/hostname")

    with pytest.raises(UnsupportedTypeError, match="return str"):
        store.encode(tmp_path / "absent", name="task")
    with pytest.raises(UnsupportedTypeError, match="symbolic link"):
        store.encode(tmp_path / "link", name="task")


def test_has_nodes_finds_what_needs_decoding() -> None:
    assert has_nodes([{"a": [{"kind": "ml-object/v1"}]}])
    assert not has_nodes({"kind": "other", "a": [1, {"kind": 5}]})


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(memoryview(b"abc"), id="of bytes"),
        pytest.param(memoryview(bytearray(b"abc")), id="writable"),
        pytest.param(memoryview(b""), id="empty"),
        pytest.param(memoryview(b"abcdefgh")[::2], id="strided"),
        pytest.param(memoryview(b"abcdefgh")[::-1], id="backwards"),
        pytest.param(memoryview(bytes(16)).cast("i"), id="of integers"),
        pytest.param(memoryview(bytes(16)).cast("d")[:0], id="of no numbers"),
        pytest.param(memoryview(np.arange(6.0)), id="of an array"),
        pytest.param(memoryview(np.arange(6.0).reshape(2, 3)), id="of two dimensions"),
        pytest.param(memoryview(np.arange(6.0).reshape(2, 3).T), id="in Fortran's order"),
        pytest.param(memoryview(np.array([True, False])), id="of booleans"),
        pytest.param(memoryview(np.array(5)), id="of no dimension"),
    ],
)
def test_a_memoryview_keeps_its_format_and_shape(store: ArtifactStore, view: memoryview) -> None:
    back = store.decode(store.encode(view, name="task"))

    assert type(back) is memoryview
    assert (back.format, back.shape, back.readonly) == (view.format, view.shape, view.readonly)
    assert back.tolist() == view.tolist()
    assert back.c_contiguous


@pytest.mark.parametrize(
    "array",
    [
        np.array([1j]),
        np.array([1], dtype=">i4"),
        np.zeros(1, [("a", "i4")]),
        np.empty((0, 2)),
        np.array([None]),
    ],
)
def test_a_memoryview_that_bytes_cannot_give_back_is_refused(store: ArtifactStore, array: np.ndarray) -> None:
    with pytest.raises(UnsupportedTypeError, match=r"memoryview of format.*bytes\(view\)"):
        store.encode(memoryview(array), name="task")
