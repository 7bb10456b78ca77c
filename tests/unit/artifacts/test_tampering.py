# SPDX-License-Identifier: Apache-2.0
"""Envelopes and contents that somebody else wrote or changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import (
    ArtifactCorruptError,
    ArtifactNotFoundError,
    SignatureError,
    UnsupportedFormatError,
)
from tests.unit.artifacts.conftest import KEY

EDITS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "another digest": lambda doc: {**doc, "digest": "blake3:" + "0" * 64},
    "a digest that climbs": lambda doc: {**doc, "digest": "blake3:../../../../etc/passwd"},
    "another format": lambda doc: {**doc, "format": "skops-v1"},
    "another name": lambda doc: {**doc, "name": "../../x"},
    "another preview": lambda doc: {**doc, "preview": ["lie"]},
    "another size": lambda doc: {**doc, "size_bytes": 5},
    "no signature": lambda doc: {key: value for key, value in doc.items() if key != "signature"},
    "an empty signature": lambda doc: {**doc, "signature": ""},
    "a signature of another type": lambda doc: {**doc, "signature": {"a": 1}},
    "more fields": lambda doc: {**doc, "extra": 1},
    "fewer fields": lambda doc: {key: value for key, value in doc.items() if key != "producer"},
    "a NaN": lambda doc: {**doc, "size_bytes": float("nan")},
}


def blob_of(store: ArtifactStore, doc: dict[str, Any]) -> Path:
    return Path(store.objects.root.removeprefix("file://")) / keys.blob_key(doc["digest"])


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_envelope_is_refused(store: ArtifactStore, edit: str) -> None:
    doc = store.encode(np.arange(5), name="task")

    with pytest.raises(SignatureError):
        store.decode(EDITS[edit](doc))


@pytest.mark.parametrize("edit", ["a digest that climbs", "another name", "a NaN", "fewer fields"])
def test_even_a_signed_envelope_stays_in_the_root(store: ArtifactStore, edit: str) -> None:
    doc = EDITS[edit](store.encode(np.arange(5), name="task"))
    doc["size_bytes"] = -1 if edit == "a NaN" else doc["size_bytes"]
    if edit == "another name":
        doc["name"] = "/etc"

    with pytest.raises(SignatureError):
        store.decode(store.signer.signed(doc))


def test_another_deployments_envelope_is_refused(store: ArtifactStore) -> None:
    other = ArtifactStore(store.objects.root, signing_key=b"another key, also 32 bytes long.")

    with pytest.raises(SignatureError, match="signing_key"):
        store.decode(other.encode(np.arange(5), name="task"))


def test_a_forged_node_of_any_kind_is_refused(store: ArtifactStore) -> None:
    for node in (
        {"kind": "ml-object/v1", "type": "dataclass", "class": "os:system", "defined": [], "state": {}},
        {"kind": "ml-model/v1", "model_uri": "models:/evil/1"},
        [{"a": {"kind": "ml-object/v1", "type": "tuple", "items": [1], "signature": "hmac-sha256:00"}}],
    ):
        with pytest.raises(SignatureError):
            store.decode(node)


def test_a_kind_of_a_later_release_is_named(store: ArtifactStore) -> None:
    with pytest.raises(UnsupportedFormatError, match="ml-artifact/v2"):
        store.decode({"kind": "ml-artifact/v2"})


def test_nothing_is_read_when_one_of_many_is_forged(store: ArtifactStore) -> None:
    tree = store.encode([np.arange(5), np.arange(6)], name="task")
    tree[1]["preview"] = None
    blob_of(store, tree[0]).unlink()

    with pytest.raises(SignatureError):
        store.decode(tree)


@pytest.mark.parametrize("size", [3, 3_000_000])
def test_changed_content_names_what_was_expected_and_found(store: ArtifactStore, size: int) -> None:
    doc = store.encode(b"a" * size, name="task")
    blob_of(store, doc).write_bytes(b"b" * size)

    with pytest.raises(
        ArtifactCorruptError, match=rf"ml-artifact://task.*expected {doc['digest']}, found blake3:"
    ):
        store.decode(doc)


def test_truncated_content_is_refused_and_repaired_by_the_next_write(store: ArtifactStore) -> None:
    value = np.arange(500_000)
    doc = store.encode(value, name="task")
    blob = blob_of(store, doc)
    os.truncate(blob, 1000)

    with pytest.raises(ArtifactCorruptError, match="1000 are in"):
        store.decode(doc)
    store.encode(value, name="task")
    assert np.array_equal(store.decode(doc), value)


def test_swapped_contents_are_refused(store: ArtifactStore) -> None:
    one, two = store.encode([b"one", b"two"], name="task")
    blob_of(store, one).write_bytes(b"two")

    with pytest.raises(ArtifactCorruptError):
        store.decode(one)
    assert store.decode(two) == b"two"


def test_missing_content_names_the_producer(store: ArtifactStore) -> None:
    from airflow_ml_provider.artifacts.refs import Producer

    doc = store.encode(b"x", name="task", producer=Producer("flights", "run 1", "fit", 2, 3))
    blob_of(store, doc).unlink()

    with pytest.raises(
        ArtifactNotFoundError, match=r"flights\.fit\[2\] in run run 1, try 3 .* re-run that task"
    ):
        store.decode(doc)


def test_a_manifest_copied_to_another_name_is_refused(store: ArtifactStore) -> None:
    ref = store.save(b"x", "bad")
    doc = store.objects.get_json(keys.version_key("bad", ref.version_id))
    store.objects.put_json(keys.version_key("good", ref.version_id), doc)

    with pytest.raises(SignatureError, match="copied"):
        store.get("good")


def test_forged_and_damaged_values_import_nothing(store: ArtifactStore, tmp_path: Path) -> None:
    array = store.encode(np.arange(5), name="task")
    damaged = store.encode({"a": np.arange(50)}, name="task")
    blob_of(store, damaged["a"]).write_bytes(b"x")
    node = {"kind": "ml-object/v1", "type": "dataclass", "class": "antigravity:x", "defined": [], "state": {}}
    cases = [
        {**array, "format": "skops-v1"},
        {**array, "signature": "hmac-sha256:" + "0" * 64},
        store.signer.signed({**array, "format": "evil-v1"}),
        store.signer.signed(node),
    ]
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    code = f"""
import json, sys
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import ArtifactError
store = ArtifactStore({store.objects.root!r}, signing_key={KEY!r})
for case in json.load(open({str(tmp_path / "cases.json")!r})):
    try:
        store.decode(case)
    except ArtifactError:
        continue
    raise SystemExit("was read")
bad = {{"numpy", "pandas", "pyarrow", "sklearn", "skops", "antigravity", "airflow"}} & set(sys.modules)
raise SystemExit(f"imported {{bad}}" if bad else 0)
"""

    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stderr


def test_what_an_earlier_key_signed_stays_readable_and_nothing_is_signed_with_it(
    store: ArtifactStore,
) -> None:
    tree = store.encode([np.arange(5), (1, 2)], name="task")
    rotated = ArtifactStore(store.objects.root, signing_key=b"n" * 32, verify_with=[KEY])

    back = rotated.decode(tree)

    assert back[0].tolist() == [0, 1, 2, 3, 4]
    assert back[1] == (1, 2)
    assert rotated.get("task.0").load().tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(SignatureError, match="list the earlier key"):
        store.decode(rotated.encode((1, 2), name="task"))


def test_a_key_that_was_taken_out_is_refused(store: ArtifactStore) -> None:
    tree = store.encode((1, 2), name="task")

    with pytest.raises(SignatureError, match="another"):
        ArtifactStore(store.objects.root, signing_key=b"n" * 32, verify_with=[b"o" * 32]).decode(tree)


def test_every_signing_key_is_long_and_none_is_shown() -> None:
    from airflow_ml_provider.artifacts.signing import Signer

    with pytest.raises(ValueError, match="at least 16 bytes") as error:
        Signer(KEY, [b"short"])
    assert "short" not in str(error.value)
    assert "key" not in repr(Signer(KEY, [b"o" * 32]))
