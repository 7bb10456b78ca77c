# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import functools
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from airflow.sdk.definitions.xcom_arg import _ConcatResult, _MapResult, _ZipResult

from airflow_ml_provider.artifacts.refs import ArtifactRef
from airflow_ml_provider.artifacts.refs import ArtifactRef as Ref
from airflow_ml_provider.operators.arguments import prepare_call
from airflow_ml_provider.xcom.annotations import parameters_that_take_refs

if TYPE_CHECKING:
    import nowhere

WHEN = datetime(2013, 5, 14, tzinfo=UTC)


class FakeStore:
    """Loads a text that names the version, and counts."""

    def __init__(self) -> None:
        self.loaded: list[str] = []

    def load(self, ref: ArtifactRef, *, columns: object = None, rows: object = None) -> str:
        assert (columns, rows) == (None, None)
        self.loaded.append(ref.version_id)
        return f"value of {ref.version_id}"


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def make_ref(store):
    def make(version_id: str = "v1") -> ArtifactRef:
        return ArtifactRef(
            "features", version_id, "blake3:" + "0" * 64, "arrow-v1", "pandas.DataFrame", 1, None, WHEN, WHEN,
            _store=store,
        )  # fmt: skip

    return make


def plain(data, max_depth=6): ...


def wants_ref(data: ArtifactRef, other: nowhere.DataFrame): ...


def wants_alias(data: Ref, other: nowhere.DataFrame): ...


def wants_annotated(data: Annotated[ArtifactRef, "training data"]): ...


def wants_optional(data: ArtifactRef | None = None): ...


def wants_list(data: list[ArtifactRef]): ...


def wants_unknown_module(data: nowhere.ArtifactRef): ...


def wants_broken(data: "ArtifactRef | ((("): ...  # noqa: F722


def does_not(data: dict[str, Any], artifact_ref: str, x: Annotated[int, "ArtifactRef"]) -> ArtifactRef: ...


class Trainer:
    def __call__(self, data: ArtifactRef): ...


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (plain, set()),
        (wants_ref, {"data"}),
        (wants_alias, {"data"}),
        (wants_annotated, {"data"}),
        (wants_optional, {"data"}),
        (wants_list, {"data"}),
        (wants_unknown_module, {"data"}),
        (wants_broken, {"data"}),
        (does_not, set()),
        (functools.partial(wants_ref, other=1), {"data"}),
        (Trainer(), {"data"}),
        (print, set()),
    ],
)
def test_parameters_annotated_as_references_are_found(function, expected):
    assert parameters_that_take_refs(function) == expected


def test_artifacts_are_loaded_wherever_they_stand(store, make_ref):
    def fit(data, *more, parts, **rest): ...

    call = prepare_call(
        fit,
        [make_ref("a"), make_ref("b")],
        {"parts": [make_ref("c"), {"x": make_ref("d")}], "extra": make_ref("e")},
    )
    assert call.args == ("value of a", "value of b")
    assert call.kwargs == {"parts": ["value of c", {"x": "value of d"}], "extra": "value of e"}
    assert [ref.version_id for ref in call.refs] == ["a", "b", "c", "d", "e"]
    assert call.scalars == {}


def test_a_parameter_annotated_as_reference_loads_nothing(store, make_ref):
    call = prepare_call(wants_ref, [make_ref()], {"other": make_ref("v2")})
    assert isinstance(call.args[0], ArtifactRef)
    assert store.loaded == ["v2"]
    assert [ref.version_id for ref in call.refs] == ["v1", "v2"]


def test_scalars_include_defaults_and_leave_out_context_and_data(make_ref):
    def fit(data, max_depth=6, *, rate: float = 0.1, name=None, options=None, ds=None, **context): ...

    call = prepare_call(
        fit,
        [make_ref()],
        {"options": {"seed": 1, "deep": {"a": 1}}, "ds": "2013-05-14", "ti": object(), "extra": True},
        context_keys={"ds", "ti"},
    )
    assert call.scalars == {"max_depth": 6, "rate": 0.1, "name": None, "options.seed": 1, "extra": True}


def test_wrong_arguments_are_refused():
    with pytest.raises(TypeError, match="unexpected keyword argument 'depth'"):
        prepare_call(plain, [], {"data": 1, "depth": 2})


@pytest.mark.parametrize(
    ("given", "loaded"),
    [
        (lambda a, b: _ConcatResult([[a], [b]]), ["value of a", "value of b"]),
        (lambda a, b: _ConcatResult([[a], _ConcatResult([[b], [1]])]), ["value of a", "value of b", 1]),
        (lambda a, b: _ZipResult([[a], [b, 1]]), [("value of a", "value of b")]),
        (lambda a, b: _ZipResult([[a], [b, 1]], fillvalue=0), [("value of a", "value of b"), (0, 1)]),
        (lambda a, b: _MapResult([1, 2], [lambda n: n * 2]), [2, 4]),
        (lambda a, b: {"all": [_ConcatResult([[a], [b]])]}, {"all": [["value of a", "value of b"]]}),
    ],
)
def test_sequences_that_airflow_makes_of_several_upstream_tasks_are_loaded(make_ref, given, loaded):
    a, b = make_ref("a"), make_ref("b")
    call = prepare_call(plain, [given(a, b)], {})
    assert call.args[0] == loaded
    assert set(call.refs) <= {a, b}
    assert call.loaded["data"] == loaded
