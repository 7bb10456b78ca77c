# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import UnsupportedTypeError

torch = pytest.importorskip(
    "torch", reason="make install takes the CPU build of PyTorch only, and pip found none here"
)
safetensors = pytest.importorskip("safetensors.torch")

DTYPES = [
    "float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz",
    "float8_e5m2fnuz", "float8_e8m0fnu", "complex128", "complex64", "complex32", "int64", "int32", "int16",
    "int8", "uint64", "uint32", "uint16", "uint8", "bool",
]  # fmt: skip


def content(tensor: Any) -> bytes:
    if not tensor.numel():
        return b""
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return plain.view(torch.uint8).numpy().tobytes()


def assert_same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for name in expected:
            assert_same(found[name], expected[name])
        return
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.requires_grad is expected.requires_grad
    assert found.is_leaf
    assert content(found) == content(expected)


def number(value: float, dtype: str = "float32") -> Any:
    return torch.tensor(value, dtype=getattr(torch, dtype))


AWKWARD = {
    "0-d": lambda: number(2.5),
    "empty": lambda: torch.empty(0, 3),
    "empty complex": lambda: torch.empty(0, dtype=torch.complex64),
    "empty float8": lambda: torch.empty(2, 0, dtype=torch.float8_e8m0fnu),
    "0-d complex": lambda: torch.tensor(1 + 2j),
    "0-d float8": lambda: number(1, "float8_e8m0fnu"),
    "transposed": lambda: torch.arange(6.0).reshape(2, 3).T,
    "strided": lambda: torch.arange(20.0)[3::4],
    "backwards": lambda: torch.arange(5).flip(0),
    "broadcast": lambda: torch.ones(1).expand(3, 2),
    "channels last": lambda: torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "NaN and negative zero": lambda: torch.tensor([float("nan"), -0.0, float("inf"), -float("inf")]),
    "conjugate": lambda: torch.tensor([1 + 2j, 3j]).conj(),
    "negated": lambda: torch.tensor([1 + 2j, 3j]).conj().imag,
    "wants a gradient": lambda: torch.ones(2, requires_grad=True),
    "parameter": lambda: torch.nn.Parameter(torch.rand(2, 2)),
    "frozen parameter": lambda: torch.nn.Parameter(torch.rand(2, 2), requires_grad=False),
}


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tensor_of_every_dtype_comes_back(store: ArtifactStore, dtype: str) -> None:
    value = torch.tensor([[1, 0, 2], [0, 1, 3]]).to(getattr(torch, dtype))
    ref = store.save(value, "task")

    assert_same(store.load(ref), value)
    assert (ref.type, ref.format, ref.schema) == (
        "torch.Tensor",
        "safetensors-v1",
        {"shape": [2, 3], "dtype": dtype},
    )
    assert store.save(value.clone(), "task").digest == ref.digest


@pytest.mark.parametrize("make", AWKWARD.values(), ids=AWKWARD.keys())
def test_a_tensor_comes_back_whatever_its_memory_looks_like(store: ArtifactStore, make: Any) -> None:
    value = make()
    ref = store.save(value, "task")

    back = store.load(ref)

    assert_same(back, value)
    assert back.is_contiguous()
    assert store.save(back, "task").digest == store.save(value, "task").digest == ref.digest
    with torch.no_grad():
        back.zero_()
    assert_same(store.load(ref), value)


def net() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))


def test_a_state_dict_is_one_artifact_and_loads_into_a_module(store: ArtifactStore) -> None:
    module, other = net().eval(), net().eval()
    with torch.no_grad():
        other[0].weight.zero_()
    tree = store.encode(module.state_dict(), name="task")

    back = store.decode(tree)

    assert_same(back, module.state_dict())
    assert type(back) is collections.OrderedDict
    assert back._metadata == module.state_dict()._metadata
    assert tree["format"] == "safetensors-v1"
    assert tree["schema"]["count"] == 9
    assert tree["schema"]["parameters"] == sum(tensor.numel() for tensor in back.values())
    assert tree["schema"]["tensors"]["0.weight"] == {"shape": [4, 3], "dtype": "float32"}
    other.load_state_dict(back)
    data = torch.rand(5, 3)
    assert torch.equal(other(data), module(data))
    assert store.save(net().state_dict(), "task").digest == tree["digest"]


def test_what_is_stored_is_a_file_of_safetensors(store: ArtifactStore, tmp_path: Path) -> None:
    value = {
        "z": torch.rand(3, dtype=torch.float64),
        "a": torch.tensor([True]),
        "half": torch.rand(3, 3).half(),
    }
    path = store.path(store.save(value, "task"), tmp_path / "weights.safetensors")

    found = safetensors.load_file(path)

    assert set(found) == set(value)
    for name, tensor in value.items():
        assert_same(found[name], tensor)


def test_a_checkpoint_of_nested_state_dicts_comes_back(store: ArtifactStore) -> None:
    module = net()
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.rand(4, 3)).sum().backward()
    optimizer.step()
    value = {"epoch": 3, "model": module.state_dict(), "optimizer": optimizer.state_dict(), "loss": 0.5}

    back = store.load(store.save(value, "task"))

    assert_same(back["model"], value["model"])
    assert (back["epoch"], back["loss"]) == (3, 0.5)
    assert back["optimizer"]["param_groups"] == value["optimizer"]["param_groups"]
    assert list(back["optimizer"]["state"]) == list(value["optimizer"]["state"])
    for number, state in value["optimizer"]["state"].items():
        assert_same(back["optimizer"]["state"][number], state)
    torch.optim.Adam(net().parameters()).load_state_dict(back["optimizer"])


def test_weights_that_are_tied_are_stored_once_and_stay_tied(store: ArtifactStore) -> None:
    weight = torch.rand(100, 100)
    value = {"embedding": weight, "head": weight.detach(), "again": weight, "free": torch.rand(1)}
    ref = store.save(value, "task")

    back = store.load(ref)

    assert ref.size_bytes < 1.2 * 40_000
    assert back["again"] is back["embedding"]
    assert back["head"] is not back["embedding"]
    back["embedding"][0, 0] = 7
    assert back["head"][0, 0] == 7
    assert_same(store.load(ref), value)
    assert store.save(store.load(ref), "task").digest == ref.digest


def test_a_tensor_that_stands_twice_in_a_value_is_one_object_again(store: ArtifactStore) -> None:
    tensor = torch.rand(3)

    back = store.decode(store.encode([tensor, {"a": 1, "b": tensor}], name="task"))

    assert back[0] is back[1]["b"]


def test_parameters_in_a_dict_stay_parameters(store: ArtifactStore) -> None:
    value = dict(net().named_parameters())
    value["0.bias"].requires_grad_(False)

    assert_same(store.load(store.save(value, "task")), value)


@pytest.mark.parametrize("value", [{}, {1: 2}, {"a": 1}], ids=str)
def test_other_dicts_stay_what_they_were(store: ArtifactStore, value: Any) -> None:
    assert store.decode(store.encode(value, name="task")) == value


def test_a_dict_of_tensors_and_others_is_stored_by_its_parts(store: ArtifactStore) -> None:
    value = {"tensor": torch.rand(2), "array": np.arange(3)}
    tree = store.encode(value, name="task")

    assert (tree["tensor"]["format"], tree["array"]["format"]) == ("safetensors-v1", "npy-v1")
    with pytest.raises(UnsupportedTypeError, match=r"numpy\.ndarray under 'array'.*leave the format out"):
        store.save(value, "task", format="safetensors")
    assert store.save({"a": torch.rand(1)}, "task", format="safetensors").format == "safetensors-v1"


def graded() -> Any:
    value = torch.ones(2, requires_grad=True)
    value.sum().backward()
    return value


def marked() -> Any:
    value = torch.ones(2)
    value.source = "here"
    return value


class OwnTensor(torch.Tensor):
    pass


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (net, r"only the weights are data.*state_dict\(\)"),
        (lambda: torch.ones(2, requires_grad=True) * 2, r"MulBackward0.*detach\(\)"),
        (graded, r"gradient.*detach\(\)"),
        (marked, r"attribute 'source'"),
        (lambda: torch.eye(2).to_sparse(), r"sparse_coo.*to_dense\(\)"),
        (lambda: torch.empty(2, device="meta"), "meta"),
        (lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "qint8"),
        (lambda: torch.ones(2).as_subclass(OwnTensor), "OwnTensor"),
        (lambda: {"a": torch.eye(2).to_sparse()}, r"the tensor 'a' is torch.sparse_coo"),
        (lambda: {"__metadata__": torch.ones(1)}, "__metadata__"),
        (lambda: {"\ud800": torch.ones(1)}, "cannot name"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_what_cannot_be_kept_is_refused_by_name(store: ArtifactStore, make: Any, message: str) -> None:
    with pytest.raises(UnsupportedTypeError, match=message):
        store.save(make(), "task")


def test_a_tensor_with_named_axes_is_refused(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    # This release of torch may have none, and earlier ones do.
    monkeypatch.setattr(torch.Tensor, "names", ("rows", None), raising=False)

    with pytest.raises(UnsupportedTypeError, match="named axes"):
        store.save(torch.ones(2, 2), "task")


def test_a_state_dict_that_is_large_takes_as_many_requests_as_one_tensor(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    put = type(store.objects).put
    monkeypatch.setattr(
        type(store.objects), "put", lambda self, key, *a, **k: written.append(key) or put(self, key, *a, **k)
    )

    store.encode({f"layer.{i}": torch.rand(2) for i in range(300)}, name="task")

    assert len([key for key in written if key.startswith("blobs/")]) == 1
