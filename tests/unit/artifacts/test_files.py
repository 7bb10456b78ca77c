# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_ml_provider.artifacts.codecs import directories
from airflow_ml_provider.artifacts.codecs.registry import Stored
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import ArtifactCorruptError, SignatureError, UnsupportedTypeError


def test_a_file_comes_back_with_its_name_and_executable_bit(store: ArtifactStore, tmp_path: Path) -> None:
    script = tmp_path / "run me é.sh"
    script.write_bytes(b"#!/bin/sh\nexit 0\n" + bytes(3_000_000))
    script.chmod(0o755)

    tree = store.encode({"script": script}, name="task")
    script.unlink()
    back = store.decode(tree)["script"]

    assert back.name == script.name
    assert back != script
    assert back.read_bytes() == b"#!/bin/sh\nexit 0\n" + bytes(3_000_000)
    assert os.access(back, os.X_OK)


def folder(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def test_a_folder_comes_back_whole(store: ArtifactStore, tmp_path: Path) -> None:
    root = folder(tmp_path / "model", "MLmodel", "data/weights.bin", "data/.hidden", "é/" + "long" * 40)
    (root / "empty").mkdir()
    (root / "data/weights.bin").chmod(0o755)

    back = store.save(root, "task").load()

    assert back.name == "model"
    found = {str(path.relative_to(back)) for path in back.rglob("*")}
    assert found == {str(path.relative_to(root)) for path in root.rglob("*")}
    assert (back / "data/weights.bin").read_text() == "data/weights.bin"
    assert os.access(back / "data/weights.bin", os.X_OK)
    assert not os.access(back / "MLmodel", os.X_OK)


def test_equal_folders_are_stored_once(store: ArtifactStore, tmp_path: Path) -> None:
    one = folder(tmp_path / "one", "b", "a", "c/d")
    two = folder(tmp_path / "two", "c/d", "a", "b")
    os.utime(two / "a", (1, 1))

    assert store.save(one, "task").digest == store.save(two, "task").digest


def test_links_in_a_folder_are_refused(store: ArtifactStore, tmp_path: Path) -> None:
    root = folder(tmp_path / "model", "a")
    (root / "escape").symlink_to("/etc/passwd")

    with pytest.raises(UnsupportedTypeError, match="escape"):
        store.save(root, "task")


@pytest.mark.parametrize("name", ["../escape", "/escape", "a/../../escape"])
def test_an_archive_that_leaves_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    import io
    import tarfile

    (tmp_path / "in").mkdir()
    archive = tmp_path / "in/content"
    with tarfile.open(archive, "w") as tar:
        member = tarfile.TarInfo(name)
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))

    with pytest.raises(ArtifactCorruptError, match="escape"):
        directories.load(archive, Stored("task", "pathlib.Path", {"directory_name": "d"}))
    assert not list(tmp_path.rglob("escape"))


def test_a_file_name_in_an_envelope_cannot_leave_the_local_folder(
    store: ArtifactStore, tmp_path: Path
) -> None:
    (tmp_path / "a").write_text("x")
    tree = store.encode(tmp_path / "a", name="task")

    with pytest.raises(SignatureError):
        store.decode({**tree, "schema": {"file_name": "../../escape", "executable": False}})
    resigned = store.signer.signed({**tree, "schema": {"file_name": "../../escape", "executable": False}})
    with pytest.raises(ArtifactCorruptError, match="escape"):
        store.decode(resigned)


def test_local_copies_are_gone_when_the_process_ends(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    store.save(tmp_path / "a", "task")
    code = (
        "from airflow_ml_provider.artifacts.store import ArtifactStore\n"
        f"print(ArtifactStore({store.objects.root!r}, signing_key={store.signer._key!r}).get('task').load())"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )

    path = Path(done.stdout.strip())
    assert path.name == "a"
    assert not path.parent.parent.exists()
