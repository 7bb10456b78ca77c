# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
import types
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from airflow_ml_provider.artifacts.codecs import registry
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import UnsupportedFormatError, UnsupportedTypeError


class Sound:
    def __init__(self, data: bytes) -> None:
        self.data = data


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    for table in ("_by_format", "_by_type", "_by_base"):
        monkeypatch.setattr(registry, table, dict(getattr(registry, table)))
    monkeypatch.setattr(registry, "_plugins_read", False)
    module = types.ModuleType("sound_codec")
    module.dump = lambda value: value.data  # type: ignore[attr-defined]
    module.load = lambda data, info: Sound(bytes(data))  # type: ignore[attr-defined]
    module.ENTRY = ENTRY  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sound_codec", module)


ENTRY = registry.CodecEntry("sound-v1", (f"{Sound.__module__}.Sound",), "sound_codec")


def test_a_registered_codec_stores_its_type(store: ArtifactStore) -> None:
    registry.register_codec(ENTRY)

    tree = store.encode([Sound(b"la")], name="task")

    assert tree[0]["format"] == "sound-v1"
    assert store.decode(tree)[0].data == b"la"


def test_a_codec_of_another_package_is_found_when_its_type_is_met(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = EntryPoint("sound", "sound_codec:ENTRY", registry.ENTRY_POINT_GROUP)
    asked: list[str] = []

    def entry_points(*, group: str) -> EntryPoints:
        asked.append(group)
        return EntryPoints([point])

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    store.encode([b"known"], name="task")
    assert asked == []

    assert store.decode(store.encode(Sound(b"la"), name="task")).data == b"la"
    assert asked == [registry.ENTRY_POINT_GROUP]


@pytest.mark.parametrize(
    "entry",
    [
        registry.CodecEntry("npy-v1", (), "other"),
        registry.CodecEntry("mine-v1", ("numpy.ndarray",), "other"),
    ],
)
def test_a_taken_format_or_type_is_an_error(entry: registry.CodecEntry) -> None:
    with pytest.raises(ValueError, match=r"taken|already"):
        registry.register_codec(entry)


def test_a_format_without_a_version_is_refused() -> None:
    with pytest.raises(ValueError, match="arrow-v1"):
        registry.CodecEntry("parquet", (), "x")


def test_a_missing_library_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> None:
            if name == "needs_codec":
                raise ModuleNotFoundError("no", name="nowhere_to_be_found")

    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])

    with pytest.raises(UnsupportedFormatError, match="pip install nowhere_to_be_found"):
        registry.CodecEntry("x-v1", (), "needs_codec").load_module()


def test_a_short_name_means_the_newest_version() -> None:
    for version in (2, 10, 9):
        registry.register_codec(registry.CodecEntry(f"sound-v{version}", (), "sound_codec"))

    assert registry.codec_named("sound").format == "sound-v10"
    assert registry.codec_named("sound-v2").format == "sound-v2"
    with pytest.raises(UnsupportedFormatError, match=r"'soun'.*sound-v10"):
        registry.codec_named("soun")


@pytest.mark.parametrize(
    ("value", "format"), [(1, "npy"), ({"a": 1}, "arrow-v1"), (b"a", "skops"), ("a", "file")]
)
def test_a_format_that_does_not_store_the_type_is_refused(
    store: ArtifactStore, value: object, format: str
) -> None:
    with pytest.raises(
        UnsupportedTypeError, match=rf"'{format.removesuffix('-v1')}-v1' does not store a \w+"
    ):
        store.save(value, "task", format=format)
