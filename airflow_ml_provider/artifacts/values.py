# SPDX-License-Identifier: Apache-2.0
"""
Values as trees of JSON and back.

Lists and dicts with text keys keep their shape, so that Airflow can map over them and index them. What JSON
carries exactly stays as it is. The rest becomes a signed node: an artifact's envelope, or a small object
written out. Inside a signed node further ones need no signature of their own; envelopes always have one.
"""

from __future__ import annotations

import collections
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from airflow_ml_provider.artifacts import classes, limits, scalars
from airflow_ml_provider.artifacts.codecs import registry
from airflow_ml_provider.artifacts.envelope import (
    ARTIFACT,
    OBJECT,
    VALUE_KINDS,
    from_envelope,
    is_node,
    to_envelope,
)
from airflow_ml_provider.artifacts.refs import ArtifactRef
from airflow_ml_provider.artifacts.signing import FIELD, Signer
from airflow_ml_provider.exceptions import (
    ArtifactCorruptError,
    SignatureError,
    UnsupportedFormatError,
    UnsupportedTypeError,
)

_MAX_TEXT = 1024
_FACTORIES: dict[str, Callable[[], Any]] = {
    "list": list,
    "dict": dict,
    "set": set,
    "int": int,
    "float": float,
    "str": str,
    "tuple": tuple,
}


def json_size(value: Any) -> int:
    """Length of ``value`` as compact JSON."""
    return len(json.dumps(value, separators=(",", ":")))


class Writer:
    """
    Turn one value into a tree.

    :param save: Stores a value under a name with a codec, and returns the reference; without it nothing
        becomes an artifact, and a value that needs one is refused.
    :param fallback: Turns a value that nobody here knows into JSON.
    :param pickles: What nobody writes, not even ``fallback``, is pickled instead of refused.
    :param sorts: The tree is written with sorted keys, so dicts whose keys are not become pairs.
    """

    def __init__(
        self,
        signer: Signer | None,
        *,
        inline_max_bytes: int = 16384,
        save: Callable[[Any, str, registry.CodecEntry], ArtifactRef] | None = None,
        fallback: Callable[[Any], Any] | None = None,
        pickles: bool = False,
        sorts: bool = False,
    ) -> None:
        self._sorts = sorts
        self._pickles = pickles and save is not None
        self._signer = signer
        self._inline_max_bytes = inline_max_bytes
        self._save = save
        self._fallback = fallback
        self._seen: dict[int, tuple[Any, dict[str, Any]]] = {}
        self.depth = 0
        self.envelope_bytes = 0

    def write(self, value: Any, name: str) -> Any:
        """
        Return the tree of ``value``.

        :raises UnsupportedTypeError: if a part of it has no codec, or it contains itself.
        """
        if type(value) is float and value.is_integer():
            # SQLite's JSON column keeps a bare 2.0 as the integer 2; inside a list or dict it stays a float.
            return self._node({"type": "json", "text": json.dumps(value)}, inside=False)
        try:
            return self._place(value, name, 0, inside=False)
        except RecursionError:
            raise UnsupportedTypeError(
                f"{name!r} contains itself, or is nested too deep to be written"
            ) from None

    def _place(self, value: Any, name: str, depth: int, *, inside: bool) -> Any:  # noqa: PLR0911
        self.depth = max(self.depth, depth)
        grade = limits.grade(value)
        if grade == limits.EVERYWHERE and not (self._sorts and type(value) in (list, dict)):
            if type(value) in (list, dict, str) and self._too_long(value):
                return self._artifact(value, name, "json-v1")
            return value
        if grade == limits.PYTHON:
            if inside or self._save is None:
                with limits.any_length_of_int():
                    text = json.dumps(value)
                if len(text) <= _MAX_TEXT or self._save is None:
                    return self._node({"type": "json", "text": text}, inside=inside)
            return self._artifact(value, name, "json-v1")
        if type(value) is list:
            return [
                self._place(item, f"{name}.{i}", depth + 1, inside=inside) for i, item in enumerate(value)
            ]
        if isinstance(value, dict) and (whole := registry.codec_of_dict(value)) is not None:
            return self._store(value, name, whole)
        if type(value) is dict and _keeps_shape(value) and not (self._sorts and list(value) != sorted(value)):
            return {
                key: self._place(item, f"{name}.{key}", depth + 1, inside=inside)
                for key, item in value.items()
            }
        return self._describe(value, name, depth, inside=inside)

    def _too_long(self, value: Any) -> bool:
        if self._save is None:
            return False
        if type(value) is str and len(value) * 6 < self._inline_max_bytes:
            return False
        return json_size(value) > self._inline_max_bytes

    def _node(self, fields: dict[str, Any], *, inside: bool, kind: str = OBJECT) -> dict[str, Any]:
        node = {"kind": kind, **fields}
        return node if inside or self._signer is None else self._signer.signed(node)

    def _artifact(self, value: Any, name: str, format: str) -> dict[str, Any]:
        return self._store(value, name, registry.codec_of(format))

    def _store(self, value: Any, name: str, entry: registry.CodecEntry) -> dict[str, Any]:
        if self._save is None:
            raise registry.refuse(value, f"inside {name!r}, where only small values can stand")
        if found := self._seen.get(id(value)):
            return found[1]
        doc = self.envelope(self._save(value, name, entry))
        self._seen[id(value)] = (value, doc)  # keeping the value keeps its id from being used again
        return doc

    def envelope(self, ref: ArtifactRef) -> dict[str, Any]:
        assert self._signer is not None  # noqa: S101 - whoever saves signs
        doc = to_envelope(ref, self._signer)
        self.envelope_bytes += json_size(doc)
        return doc

    def _describe(  # noqa: PLR0911, PLR0912 - one for each kind of value
        self, value: Any, name: str, depth: int, *, inside: bool
    ) -> dict[str, Any]:
        def items(values: Any) -> list[Any]:
            return [self._place(item, f"{name}.{i}", depth + 1, inside=True) for i, item in enumerate(values)]

        def pairs(mapping: Any) -> list[Any]:
            return [
                [
                    self._place(key, f"{name}.key", depth + 1, inside=True),
                    self._place(item, f"{name}.{_short(key)}", depth + 1, inside=True),
                ]
                for key, item in mapping.items()
            ]

        if isinstance(value, ArtifactRef):
            return self.envelope(value)
        fields: dict[str, Any] | None
        cls = type(value)
        if cls is tuple:
            fields = {"type": "tuple", "items": items(value)}
        elif cls in (set, frozenset):
            # Their order depends on the process; the text's does not.
            fields = {
                "type": cls.__name__,
                "items": sorted(items(value), key=lambda item: json.dumps(item, sort_keys=True)),
            }
        elif cls in (dict, collections.OrderedDict, collections.Counter):
            fields = {"type": cls.__name__, "items": pairs(value)}
        elif cls is collections.deque:
            fields = {"type": "deque", "items": items(value), "maxlen": value.maxlen}
        elif cls is collections.defaultdict and (
            value.default_factory is None
            or _FACTORIES.get(getattr(value.default_factory, "__name__", "")) is value.default_factory
        ):
            factory = value.default_factory
            fields = {"type": "defaultdict", "items": pairs(value), "factory": factory and factory.__name__}
        else:
            try:
                fields = scalars.write(value, inside=self._save is None)
            except UnsupportedTypeError as exc:
                return self._last_resort(value, name, exc)
        if fields is not None:
            return self._node(fields, inside=inside)
        for kind, (module, class_name) in VALUE_KINDS.items():
            loaded = sys.modules.get(module)
            if loaded is not None and cls is getattr(loaded, class_name, None):
                body = {
                    key: self._place(item, f"{name}.{key}", depth + 1, inside=True)
                    for key, item in value.to_json().items()
                }
                return self._node(body, inside=inside, kind=kind)
        entry = registry.codec_for(value, look_further=False)
        if entry is not None:
            return self._store(value, name, entry)
        if scalars.is_numpy_scalar(value):  # too long to stand in a node
            return self._last_resort(value, name)
        kind_of = classes.kind_of(value)
        if kind_of is not None and self._save is not None:
            try:
                class_name, whole = classes.name_of(cls), classes.state_of(value, kind_of)
            except UnsupportedTypeError as exc:
                return self._last_resort(value, name, exc)
            state = {
                part: [
                    [key, self._place(item, f"{name}.{key}", depth + 1, inside=True)]
                    for key, item in found.items()
                ]
                for part, found in whole.items()
            }
            fields = {"type": kind_of, "class": class_name, "state": state}
            if kind_of != "enum":
                fields["defined"] = classes.field_names(cls, kind_of)
            return self._node(fields, inside=inside)
        entry = registry.codec_for(value)
        if entry is not None:
            return self._store(value, name, entry)
        if self._fallback is None:
            return self._last_resort(value, name)
        try:
            other = self._fallback(value)
        except (TypeError, AttributeError, ValueError) as exc:
            return self._last_resort(value, name, registry.refuse(value, name), exc)
        if limits.grade(other) == limits.NOWHERE:
            return self._last_resort(value, name)
        return self._node(
            {"type": "other", "value": self._place(other, name, depth + 1, inside=True)}, inside=inside
        )

    def _last_resort(
        self,
        value: Any,
        name: str,
        refusal: UnsupportedTypeError | None = None,
        cause: Exception | None = None,
    ) -> dict[str, Any]:
        """Pickle what nobody writes where the deployment allows that; refuse it elsewhere."""
        if self._pickles:
            return self._artifact(value, name, "pickle-v1")
        if refusal is None:
            raise registry.refuse(value, name)
        raise refusal from cause


def _keeps_shape(value: dict[Any, Any]) -> bool:
    return not is_node(value) and all(
        type(key) is str and limits.grade_of_str(key) == limits.EVERYWHERE for key in value
    )


def _short(key: Any) -> str:
    return str(key)[:60] if isinstance(key, (str, int, float, bool)) else type(key).__name__


class Reader:
    """
    Turn one tree into its value.

    :param load: Fetches the value of a reference; gets the reference and returns what stands for it.
    :param allowed_classes: Dotted paths, as glob patterns, that may be imported.
    :param on_value: Called with each value of :data:`VALUE_KINDS` that is read.
    """

    def __init__(
        self,
        signer: Signer | None,
        *,
        load: Callable[[ArtifactRef, bool], Any] | None = None,
        allowed_classes: Sequence[str] = (),
        fallback: Callable[[Any], Any] | None = None,
        on_value: Callable[[Any], None] | None = None,
    ) -> None:
        self._signer = signer
        self._load = load
        self._on_value = on_value
        self._allowed = allowed_classes
        self._fallback = fallback
        self._refs: dict[int, ArtifactRef] = {}
        self._values: dict[tuple[str, bool], Any] = {}

    def read(self, tree: Any, *, as_refs: bool = False) -> Any:
        """
        Return the value of ``tree``.

        :raises SignatureError: if any node in it is forged or edited; nothing was fetched or imported by
            then.
        """
        try:
            if self._signer is not None:
                self._verify(tree, self._signer)
            return self._resolve(tree, as_refs)
        except RecursionError:
            raise SignatureError("a stored value is nested deeper than any that this store writes") from None

    def _verify(self, tree: Any, signer: Signer) -> None:
        pending = [(tree, False)]
        while pending:
            item, trusted = pending.pop()
            if type(item) is list:
                pending.extend((part, trusted) for part in item)
            elif type(item) is dict:
                if is_node(item):
                    if item["kind"] == ARTIFACT:
                        self._refs[id(item)] = from_envelope(item, signer)
                        continue
                    if item["kind"] != OBJECT and item["kind"] not in VALUE_KINDS:
                        raise UnsupportedFormatError(
                            f"a stored value of the kind {item['kind']!r} was written by another release; "
                            f"known kinds: {', '.join([ARTIFACT, OBJECT, *VALUE_KINDS])}"
                        )
                    if not trusted:
                        signer.verify(item)
                    trusted = True
                pending.extend((part, trusted) for part in item.values())

    def _resolve(self, tree: Any, as_refs: bool) -> Any:
        if type(tree) is list:
            made = [self._resolve(item, as_refs) for item in tree]
            return made if any(new is not old for new, old in zip(made, tree, strict=True)) else tree
        if type(tree) is not dict:
            return tree
        if not is_node(tree):
            shaped = {key: self._resolve(item, as_refs) for key, item in tree.items()}
            return shaped if any(shaped[key] is not tree[key] for key in tree) else tree
        kind = tree["kind"]
        if kind == ARTIFACT:
            return self._artifact(tree, as_refs)
        if kind in VALUE_KINDS:
            module, class_name = VALUE_KINDS[kind]
            body = {
                key: self._resolve(item, False) for key, item in tree.items() if key not in ("kind", FIELD)
            }
            value = getattr(importlib.import_module(module), class_name).from_json(body)
            if self._on_value is not None:
                self._on_value(value)
            return value
        return self._object(tree, as_refs)

    def _artifact(self, tree: dict[str, Any], as_refs: bool) -> Any:
        ref = self._refs.get(id(tree))
        if ref is None or self._load is None:
            raise ArtifactCorruptError("an envelope stands where only small values can")
        # One version named twice in a value was one object when it was written.
        slot = (ref.version_id, as_refs)
        if slot not in self._values:
            self._values[slot] = self._load(ref, as_refs)
        return self._values[slot]

    def _object(self, tree: dict[str, Any], as_refs: bool) -> Any:  # noqa: PLR0911 - one for each type
        tag = tree["type"]
        if tag == "json":
            with limits.any_length_of_int():
                # Each NaN an object of its own, for a set or the keys of a dict to hold several.
                return json.loads(tree["text"], parse_constant=float)
        if tag == "tuple":
            return tuple(self._resolve(item, as_refs) for item in tree["items"])
        if tag in ("dict", "OrderedDict", "Counter", "defaultdict"):
            keep = as_refs and tag == "dict"
            found = [(self._resolve(key, False), self._resolve(item, keep)) for key, item in tree["items"]]
            if tag == "defaultdict":
                factory = tree["factory"]
                return collections.defaultdict(_FACTORIES[factory] if factory else None, found)
            makers: dict[str, Any] = {
                "dict": dict,
                "OrderedDict": collections.OrderedDict,
                "Counter": lambda pairs: collections.Counter(dict(pairs)),
            }
            return makers[tag](found)
        if tag in ("set", "frozenset", "deque"):
            items = [self._resolve(item, False) for item in tree["items"]]
            if tag == "deque":
                return collections.deque(items, tree["maxlen"])
            return set(items) if tag == "set" else frozenset(items)
        if tag in ("dataclass", "pydantic", "namedtuple", "enum"):
            # The class is found before anything is fetched for it.
            classes.find(tree["class"], self._allowed)
            state = {
                part: {key: self._resolve(item, False) for key, item in found}
                for part, found in tree["state"].items()
            }
            return classes.rebuild(tree["class"], tag, tree.get("defined", []), state, self._allowed)
        if tag == "other":
            if self._fallback is None:
                raise UnsupportedFormatError(
                    "a value written by Airflow's serde can be read inside Airflow only"
                )
            return self._fallback(self._resolve(tree["value"], False))
        known, value = scalars.read(tree)
        if not known:
            raise UnsupportedFormatError(
                f"a stored object of the type {tag!r} was written by another release"
            )
        return value


def to_plain(value: Any, where: str, *, sorts: bool = False) -> Any:
    """
    Write a small value, such as a cell or a label, as JSON alone.

    :param sorts: It will stand in JSON with sorted keys.
    :raises UnsupportedTypeError: if it would need an artifact or a class of the user.
    """
    return Writer(None, sorts=sorts).write(value, where)


def from_plain(tree: Any) -> Any:
    """Read what :func:`to_plain` wrote; the caller knows that nobody changed it."""
    return Reader(None).read(tree)
