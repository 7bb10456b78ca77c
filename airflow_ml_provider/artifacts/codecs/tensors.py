# SPDX-License-Identifier: Apache-2.0
"""
``safetensors-v1``: tensors of PyTorch in the format of safetensors, which any of its readers opens: one
tensor, or a state dict, that is a dict of names and nothing but tensors.

The values of a tensor are stored in C order, whatever its strides, and those on an accelerator come back on
the CPU. What safetensors has no word for is in its metadata, under ``airflow_ml_provider``: the order of
names, which names share memory, ``requires_grad``, and dtypes that stand as others (complex as pairs of
reals).
"""

from __future__ import annotations

import collections
import json
import math
from typing import Any

import torch  # noqa: TID253 - this module is imported on first use

from airflow_ml_provider.artifacts import preview
from airflow_ml_provider.artifacts.codecs.packed import StateReader, StateWriter
from airflow_ml_provider.artifacts.codecs.registry import Encoded, Stored, type_name
from airflow_ml_provider.exceptions import ArtifactCorruptError, UnsupportedTypeError

_KEY = "airflow_ml_provider"
_NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}
# Stored as another dtype, with one more dimension.
_AS_REAL = {"complex128": "float64", "complex64": "float32"}
_AS_BYTES = ("complex32", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")
_KINDS: dict[str, Any] = {"dict": dict, "OrderedDict": collections.OrderedDict}


def dump(value: Any) -> Encoded:
    if isinstance(value, torch.nn.Module):
        raise UnsupportedTypeError(
            f"a {type_name(type(value))} is code and weights, and only the weights are data; return "
            "module.state_dict() and load it into a new module by load_state_dict(), or log the model with "
            "@task.train"
        )
    if type(value) in (torch.Tensor, torch.nn.Parameter):
        return _dump_tensor(value)
    return _dump_dict(value)


def _dump_tensor(value: Any) -> Encoded:
    content, entry = _file_of({"tensor": value}, {"kind": type(value).__name__})
    shown: Any = None
    if value.numel() and value.device.type != "meta":
        shown = preview.fit([preview.cell(item) for item in _first(value)])
    return Encoded(
        content,
        schema=entry["tensor"],
        preview=shown,
        type="torch.nn.Parameter" if type(value) is torch.nn.Parameter else "torch.Tensor",
    )


def _first(value: Any) -> list[Any]:
    found = value.detach()
    for _ in range(found.dim()):
        found = found[:8] if found.dim() == 1 else found[0]
    wide = found.to("cpu", torch.complex128 if found.dtype.is_complex else torch.float64)
    exact = found.dtype.is_floating_point or found.dtype.is_complex
    listed = (wide if exact else found.cpu()).tolist()
    return listed if isinstance(listed, list) else [listed]


def _dump_dict(value: dict[str, Any]) -> Encoded:
    for name, tensor in value.items():
        if type(name) is not str or type(tensor) not in (torch.Tensor, torch.nn.Parameter):
            raise UnsupportedTypeError(
                f"a state dict holds names and tensors only, and this one has {type_name(type(tensor))} "
                f"under {name!r}; leave the format out, and it is stored by its parts"
            )
    writer = StateWriter()
    # state_dict() says in an attribute which release of each layer wrote it.
    attributes = {} if type(value) is dict else vars(value)
    held = {name: writer.write(item, f"the attribute {name!r}") for name, item in attributes.items()}
    if writer.parts:
        raise UnsupportedTypeError("this OrderedDict has an array in an attribute; put it among its items")
    content, entries = _file_of(value, {"kind": type(value).__name__, "attributes": held})
    shown = {preview.short(name): entry for name, entry in list(entries.items())[:50]}
    return Encoded(
        content,
        schema={
            "tensors": preview.fit(shown) or {},
            "count": len(value),
            "parameters": sum(tensor.numel() for tensor in value.values()),
        },
        type="dict" if type(value) is dict else "collections.OrderedDict",
    )


def _check(name: str, tensor: Any) -> None:
    whose = "this tensor" if name == "tensor" else f"the tensor {name!r}"
    if tensor.layout is not torch.strided or tensor.is_nested:
        raise UnsupportedTypeError(f"{whose} is {tensor.layout}; return tensor.to_dense(), or its parts")
    if tensor.is_quantized or _short(tensor.dtype) not in (*_NAMES, *_AS_REAL, *_AS_BYTES):
        raise UnsupportedTypeError(
            f"{whose} has the dtype {tensor.dtype}; convert it to one of plain numbers"
        )
    if any(axis is not None for axis in getattr(tensor, "names", ())):  # gone from later releases
        raise UnsupportedTypeError(f"{whose} has named axes, which are not stored; rename them to None")
    if tensor.device.type == "meta":
        raise UnsupportedTypeError(f"{whose} is on the device 'meta', where tensors have no values")
    if not tensor.is_leaf:
        raise UnsupportedTypeError(
            f"{whose} is part of a computation ({tensor.grad_fn.name()}), which is not stored; return "
            "tensor.detach()"
        )
    if tensor.grad is not None:
        raise UnsupportedTypeError(
            f"{whose} has a gradient, which is not stored; return tensor.detach(), or module.state_dict() "
            "for the weights of a module"
        )
    if own := sorted(vars(tensor)):
        raise UnsupportedTypeError(f"{whose} has the attribute {own[0]!r}, which is not stored")


def _short(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _file_of(tensors: dict[str, Any], about: dict[str, Any]) -> tuple[list[memoryview], dict[str, Any]]:
    about = {**about, "same": {}, "shared": {}, "grad": [], "dtypes": {}}
    entries: dict[str, Any] = {}
    plain: dict[str, tuple[str, list[int], memoryview]] = {}
    objects: dict[int, str] = {}
    memory: dict[Any, str] = {}
    for name, tensor in tensors.items():
        if name == "__metadata__" or name.encode("utf-8", "replace").decode() != name:
            raise UnsupportedTypeError(f"safetensors cannot name a tensor {name!r}; call it something else")
        _check(name, tensor)
        entry = {"shape": list(tensor.shape), "dtype": _short(tensor.dtype)}
        entries[name] = entry if tensor.device.type == "cpu" else {**entry, "device": str(tensor.device)}
        if (first := objects.setdefault(id(tensor), name)) != name:
            about["same"][name] = first
            continue
        if tensor.requires_grad:
            about["grad"].append(name)
        if type(tensor) is torch.nn.Parameter:
            about.setdefault("parameters", []).append(name)
        place = (tensor.device, tensor.data_ptr(), tensor.is_conj(), tensor.is_neg())
        seen = (*place, tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and (first := memory.setdefault(seen, name)) != name:
            about["shared"][name] = first
            continue
        plain[name] = _plain(name, tensor, about["dtypes"])
    about["order"] = list(tensors)
    # As safetensors itself: wide items first, so that each begins at a multiple of its size.
    order = sorted(plain, key=lambda name: (-_width(plain[name][0]), name))
    head: dict[str, Any] = {"__metadata__": {_KEY: json.dumps(about, separators=(",", ":"))}}
    start = 0
    for name in order:
        dtype, shape, content = plain[name]
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, start + content.nbytes]}
        start += content.nbytes
    text = json.dumps(head, separators=(",", ":")).encode("ascii")
    text += b" " * (-(len(text) + 8) % 64)  # data begins at a multiple of 64 bytes
    return [memoryview(len(text).to_bytes(8, "little") + text), *(plain[name][2] for name in order)], entries


def _plain(name: str, tensor: Any, dtypes: dict[str, str]) -> tuple[str, list[int], memoryview]:
    """A tensor as the name of a dtype, a shape and bytes."""
    own = _short(tensor.dtype)
    found = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    if own in _AS_REAL:
        dtypes[name] = own
        found = torch.view_as_real(found)
    elif own in _AS_BYTES:
        dtypes[name] = own
        found = found.unsqueeze(-1).view(torch.uint8)
    content = found.reshape(-1).view(torch.uint8).numpy() if found.numel() else b""
    return _NAMES[_short(found.dtype)], list(found.shape), memoryview(content)


def _width(dtype: str) -> int:
    return {"BOOL": 8}.get(dtype) or int("".join(c for c in dtype.partition("_")[0] if c.isdigit()))


def load(data: memoryview, info: Stored) -> Any:
    try:
        length = int.from_bytes(data[:8], "little")
        head = json.loads(bytes(data[8 : 8 + length]))
        about = json.loads(head.pop("__metadata__")[_KEY])
    except (ValueError, KeyError, TypeError) as exc:
        raise ArtifactCorruptError(f"{info.name!r} is no safetensors file of this store") from exc
    body = data[8 + length :]
    if body.readonly:
        body = memoryview(bytearray(body))
    made: dict[str, Any] = {}
    for name in about["order"]:
        if name in about["same"]:
            made[name] = made[about["same"][name]]
            continue
        first = about["shared"].get(name)
        tensor = made[first].detach() if first else _read(name, head, body, about["dtypes"], info)
        if name in about.get("parameters", ()):
            tensor = torch.nn.Parameter(tensor, requires_grad=name in about["grad"])
        else:
            tensor.requires_grad_(name in about["grad"])
        made[name] = tensor
    if about["kind"] not in _KINDS:
        return made["tensor"]
    value = _KINDS[about["kind"]](made)
    if about["attributes"]:
        reader = StateReader([])
        vars(value).update({name: reader.read(tree) for name, tree in about["attributes"].items()})
    return value


_DTYPES = {code: getattr(torch, name) for name, code in _NAMES.items() if hasattr(torch, name)}


def _read(name: str, head: dict[str, Any], body: memoryview, dtypes: dict[str, str], info: Stored) -> Any:
    try:
        entry = head[name]
        dtype, shape, (start, stop) = _DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    except (KeyError, ValueError, TypeError) as exc:
        raise ArtifactCorruptError(f"{info.name!r} has no tensor {name!r} that can be read") from exc
    if not 0 <= start <= stop <= len(body) or stop - start != math.prod(shape) * dtype.itemsize:
        raise ArtifactCorruptError(f"the tensor {name!r} of {info.name!r} is not as long as its shape says")
    if start == stop:
        tensor = torch.empty(shape, dtype=dtype)
    else:
        flat = torch.frombuffer(body[start:stop], dtype=torch.uint8)
        tensor = flat.view(dtype).reshape(shape)
    if name not in dtypes:
        return tensor
    own = getattr(torch, dtypes[name])
    if dtypes[name] in _AS_REAL:
        return torch.view_as_complex(tensor)
    return tensor.view(own).squeeze(-1)
