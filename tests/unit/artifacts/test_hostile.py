# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501 - tables of values
"""
Content that somebody with access to the bucket put in the place of ours, where reading compares no hashes.

Each is as long as what was written, for the length is signed. Each is refused before it takes memory worth
mentioning, and before anything is imported for it.
"""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from scipy import sparse
from sklearn.base import BaseEstimator

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.codecs import arrow, parquet, skops
from airflow_ml_provider.artifacts.digest import digest_of
from airflow_ml_provider.artifacts.envelope import to_envelope
from airflow_ml_provider.artifacts.refs import ArtifactRef
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.artifacts.unpacking import UNPACKED
from airflow_ml_provider.exceptions import (
    ArtifactCorruptError,
    ArtifactTooLargeError,
)
from tests.unit.artifacts.conftest import KEY

_HUGE = 1 << 40
_ENOUGH = 32 << 20


class Holder(BaseEstimator):
    """Holds a matrix, as an estimator does after it was fitted."""

    def __init__(self, value: Any = None) -> None:
        self.value = value


def npy_header(shape: str, descr: str = "'<f8'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode("latin1")
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def tar(*members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes], **options: Any) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", **options) as archive:
        for member in members:
            info, data = member if isinstance(member, tuple) else (member, None)
            archive.addfile(info, None if data is None else io.BytesIO(data))
    return file.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = kind
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def announced(size: int, name: str = "a") -> bytes:
    """The header of a file of ``size`` bytes, and nothing behind it."""
    return entry(name, size=size).tobuf(tarfile.GNU_FORMAT) + bytes(1024)


def sparse_tar() -> bytes:
    """A file of 1 TB that consists of holes, as GNU tar stores it."""
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(_HUGE), "GNU.sparse.name": "a"}  # fmt: skip
    return tar(
        (entry("a", size=512, pax_headers=headers), b"0\n".ljust(512, b"\0")), format=tarfile.PAX_FORMAT
    )


def zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=19).compress(content)


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as made:
        for name, data in members.items():
            made.writestr(name, data)
    return file.getvalue()


def estimator(value: Any) -> dict[str, bytes]:
    """The members of a stored estimator."""
    plain = zstandard.ZstdDecompressor().decompress(b"".join(skops.dump(Holder(value)).parts))
    with zipfile.ZipFile(io.BytesIO(plain)) as made:
        return {name: made.read(name) for name in made.namelist()}


def with_member(value: Any, ending: str, content: bytes) -> bytes:
    members = estimator(value)
    (name,) = (name for name in members if name.endswith(ending))
    return zstd(archive({**members, name: content}))


def overlapping() -> bytes:
    """An archive that names one member of 1 MB a thousand times."""
    once = archive({"0.bin": bytes(1 << 20)})
    start = once.index(b"PK\x01\x02")
    one = once[start : once.index(b"PK\x05\x06")]
    many = b"".join(one.replace(b"0.bin", b"%05d" % number) for number in range(1000))
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1000, 1000, len(many), start, 0)
    return zstd(once[:start] + many + end)


def frame_announcing(size: int) -> bytes:
    """A zstd frame that says it holds ``size`` bytes, and holds few."""
    return struct.pack("<IBQ", 0xFD2FB528, 0xE0, size) + bytes.fromhex("010000")


def arrow_file(table: pa.Table) -> bytes:
    return bytes(arrow.file_of(arrow.mark(table).table))


def arrow_announcing(size: int) -> bytes:
    """An Arrow file whose first compressed buffer says that it unpacks to ``size`` bytes."""
    content = bytearray(arrow_file(pa.table({"a": np.zeros(100_000)})))
    at = content.index(struct.pack("<q", 800_000) + b"\x28\xb5\x2f\xfd")
    content[at : at + 8] = struct.pack("<q", size)
    return bytes(content)


def parquet_file(table: pa.Table) -> bytes:
    """A Parquet file with the metadata of one of ours."""
    mine = b"".join(parquet.dump(pa.table({name: table[name][:0] for name in table.column_names})).parts)
    metadata = pq.read_schema(pa.BufferReader(mine)).metadata
    file = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), file, compression="zstd")
    return file.getvalue()


def nulls(rows: int) -> bytes:
    """An Arrow file of a column that has rows and no bytes."""
    marked = arrow.mark(pa.table({"a": pa.nulls(rows)})).table
    return bytes(arrow.file_of(marked))


SMALL = pa.table({"a": np.arange(1000.0)})
HOSTILE: dict[str, tuple[Any, Callable[[], bytes]]] = {
    "npy: a huge shape": (np.arange(3.0), lambda: npy_header(f"({_HUGE},)")),
    "npy: a shape whose product overflows": (np.arange(3.0), lambda: npy_header("(4294967296, 4294967296)")),
    "npy: a shape of no bytes": (np.arange(3.0), lambda: npy_header(f"({_HUGE},)", "'|V0'")),
    "npy: text of no length": (np.arange(3.0), lambda: npy_header(f"({_HUGE},)", "'<U0'")),
    "npy: a negative shape": (np.arange(3.0), lambda: npy_header("(-1, -1)") + bytes(8)),
    "npy: Python objects": (np.arange(3.0), lambda: npy_header("(1,)", "'|O'") + bytes(8)),
    "npy: a nested header": (np.arange(3.0), lambda: npy_header("(" * 30_000 + ")" * 30_000)),
    "npy: code": (np.arange(3.0), lambda: npy_header("(__import__('antigravity'),)")),
    "npy: something else": (np.arange(3.0), lambda: b"PK\x03\x04" + bytes(100)),
    "json: nested too deep": (["x" * 20_000], lambda: b"[" * 200_000),
    "json: not JSON": (["x" * 20_000], lambda: b"\xff\xfe"),
    "skops: a frame that announces too much": (Holder(1), lambda: frame_announcing(_HUGE)),
    "skops: a bomb": (Holder(1), lambda: zstd(bytes(300 << 20))),
    "skops: a compressed member": (
        Holder(1), lambda: zstd(archive({**estimator(1), "9.bin": bytes(50 << 20)}, zipfile.ZIP_DEFLATED)),
    ),
    "skops: one member many times": (Holder(1), overlapping),
    "skops: a huge array": (
        Holder(np.arange(3.0)), lambda: with_member(np.arange(3.0), ".npy", npy_header(f"({_HUGE},)")),
    ),
    "skops: an array of objects": (
        Holder(np.arange(3.0)), lambda: with_member(np.arange(3.0), ".npy", npy_header("(1,)", "'|O'") + bytes(8)),
    ),
    "skops: a bomb inside a matrix": (
        Holder(sparse.csr_matrix(np.eye(3))),
        lambda: with_member(sparse.csr_matrix(np.eye(3)), ".npz", archive({"data.npy": npy_header("(40000000,)") + bytes(320_000_000)}, zipfile.ZIP_DEFLATED)),
    ),
    "skops: a huge array inside a matrix": (
        Holder(sparse.csr_matrix(np.eye(3))),
        lambda: with_member(sparse.csr_matrix(np.eye(3)), ".npz", archive({"data.npy": npy_header(f"({_HUGE},)")})),
    ),
    "skops: nested too deep": (
        Holder(1), lambda: zstd(archive({"schema.json": b'{"a":' * 100_000})),
    ),
    "skops: no archive": (Holder(1), lambda: zstd(b"x" * 100)),
    "arrow: a buffer that announces too much": (SMALL, lambda: arrow_announcing(_HUGE)),
    "arrow: a buffer that announces less than nothing": (SMALL, lambda: arrow_announcing(-7)),
    "arrow: a bomb": (SMALL, lambda: arrow_file(pa.table({"a": np.zeros(50_000_000)}))),
    "arrow: rows without bytes": (SMALL, lambda: nulls(1 << 30)),
    "arrow: a stump": (SMALL, lambda: arrow_file(SMALL)[:200]),
    "arrow: a footer elsewhere": (SMALL, lambda: arrow_file(SMALL)[:-10] + b"\xff\xff\xff\x7fARROW1"),
    "arrow: a frame": (pd.DataFrame({"a": [1.5]}), lambda: arrow_announcing(_HUGE)),
    "parquet: a bomb": (SMALL, lambda: parquet_file(pa.table({"a": np.zeros(50_000_000)}))),
    "parquet: text that compresses well": (SMALL, lambda: parquet_file(pa.table({"a": ["x" * 50_000_000]}))),
    "parquet: a stump": (SMALL, lambda: parquet_file(SMALL)[:200]),
    "directory: a file that announces too much": (Path("folder"), lambda: announced(8 << 30)),
    "directory: a negative size": (Path("folder"), lambda: announced(-512)),
    "directory: a sparse file": (Path("folder"), sparse_tar),
    "directory: a long name that announces too much": (
        Path("folder"), lambda: entry("a", tarfile.GNUTYPE_LONGNAME, size=8 << 30).tobuf(tarfile.GNU_FORMAT) + bytes(1024),
    ),
    "directory: a header that announces too much": (
        Path("folder"), lambda: entry("a", tarfile.XHDTYPE, size=8 << 30).tobuf(tarfile.GNU_FORMAT) + bytes(1024),
    ),
    "directory: a size in the extended header": (
        Path("folder"), lambda: tar((entry("a", size=1, pax_headers={"size": str(_HUGE)}), b"x"), format=tarfile.PAX_FORMAT),
    ),
    "directory: a path that climbs": (Path("folder"), lambda: tar((entry("../x", size=1), b"x"))),
    "directory: an absolute path": (Path("folder"), lambda: tar((entry("/tmp/x", size=1), b"x"))),
    "directory: a link": (Path("folder"), lambda: tar(entry("x", tarfile.SYMTYPE, linkname="/etc/passwd"))),
    "directory: a hard link": (Path("folder"), lambda: tar(entry("x", tarfile.LNKTYPE, linkname="/etc/passwd"))),
    "directory: a device": (Path("folder"), lambda: tar(entry("x", tarfile.CHRTYPE))),
    "directory: a name that stands twice": (Path("folder"), lambda: tar((entry("a", size=1), b"x"), (entry("a", size=1), b"y"))),
    "directory: a file below a file": (Path("folder"), lambda: tar((entry("a", size=1), b"x"), (entry("a/b", size=1), b"y"))),
    "directory: other files": (Path("folder"), lambda: tar((entry("b", size=2), b"xy"))),
    "directory: no archive": (Path("folder"), lambda: b"x" * 2048),
}  # fmt: skip


def careless(root: str) -> ArtifactStore:
    return ArtifactStore(root, signing_key=KEY, verify_on_read=False, allowed_classes=[f"{__name__}.*"])


def swapped(store: ArtifactStore, name: str, tmp_path: Path) -> ArtifactRef:
    """Store a value, and put other content in the place of its own under a signed envelope that fits it."""
    value, make = HOSTILE[name]
    content = make()
    format = name.split(":", maxsplit=1)[0] if name.startswith(("parquet", "json")) else None
    if isinstance(value, Path):
        value = tmp_path / value
        value.mkdir()
        (value / "a").write_bytes(b"x")
    ref = store.save(value, "task", format=format)
    digest = digest_of([memoryview(content)])
    store.objects.put(keys.blob_key(digest), content)
    # An attacker cannot sign this: it stands for content of the same length, for any length.
    return replace(ref, digest=digest, size_bytes=len(content))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_content_is_refused_before_it_takes_memory(tmp_path: Path, name: str) -> None:
    store = careless((tmp_path / "root").as_uri())
    ref = swapped(store, name, tmp_path)
    arrow_before = pa.total_allocated_bytes()

    tracemalloc.start()
    try:
        with pytest.raises(ArtifactCorruptError):
            store.load(ref)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < _ENOUGH, f"{peak:,}"
    assert pa.total_allocated_bytes() - arrow_before < _ENOUGH
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", [name for name in HOSTILE if name.split(":")[0] != "directory"])
def test_what_stood_there_is_read(tmp_path: Path, name: str) -> None:
    """So that the tests above do not pass because nothing at all is read."""
    store = careless((tmp_path / "root").as_uri())
    value = HOSTILE[name][0]

    assert type(store.load(store.save(value, "task"))) is type(value)


def test_nothing_is_imported_or_unpickled_for_content_that_is_refused(tmp_path: Path) -> None:
    store = careless((tmp_path / "root").as_uri())
    cases = []
    for number, name in enumerate(HOSTILE):
        (tmp_path / str(number)).mkdir()
        cases.append(to_envelope(swapped(store, name, tmp_path / str(number)), store.signer))
    members = estimator(1)
    for module, name in (("antigravity", "x"), ("os", "system"), ("builtins", "eval")):
        schema = json.loads(members["schema.json"])
        schema.update(__class__=name, __module__=module)
        evil = zstd(archive({**members, "schema.json": json.dumps(schema).encode()}))
        ref = store.save(Holder(1), "task")
        digest = digest_of([memoryview(evil)])
        store.objects.put(keys.blob_key(digest), evil)
        cases.append(to_envelope(replace(ref, digest=digest, size_bytes=len(evil)), store.signer))
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    code = f"""
import json, resource, sys
# What a read of each format needs anyway is loaded first.
import encodings.cp437, numpy, pandas, pyarrow, scipy.sparse, sklearn.base, tarfile, zipfile
from airflow_ml_provider.artifacts.codecs import arrow, directories, frames, jsontext, npy, parquet, skops
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import ArtifactError
store = ArtifactStore({store.objects.root!r}, signing_key={KEY!r}, verify_on_read=False)
list(store.objects.list("nothing"))
cases = json.load(open({str(tmp_path / "cases.json")!r}))
resource.setrlimit(resource.RLIMIT_AS, (resource.getpagesize() * int(open("/proc/self/statm").read().split()[0]) + (512 << 20),) * 2)
seen, before = [], set(sys.modules)
watching = False
def note(event, args):
    if watching and event in ("pickle.find_class", "exec", "os.system", "subprocess.Popen"):
        seen.append((event, str(args)[:200]))
sys.addaudithook(note)
watching = True
wrong = []
for number, case in enumerate(cases):
    try:
        store.decode(case)
    except ArtifactError:
        continue
    except BaseException as exc:
        wrong.append((number, repr(exc)[:200]))
    else:
        wrong.append((number, "was read"))
watching = False
new = {{name for name in set(sys.modules) - before if name.split(".")[0] not in sys.stdlib_module_names}}
new |= {{"antigravity"}} & set(sys.modules)
raise SystemExit(repr((wrong, seen, new)) if wrong or seen or new else 0)
"""

    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=120
    )

    assert done.returncode == 0, done.stderr[-2000:]


def test_more_than_the_limit_is_refused_when_it_is_written(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path.as_uri(), signing_key=KEY, max_artifact_bytes=100_000)

    for value in (bytes(100_001), np.zeros(20_000), ["x" * 100_000], pd.DataFrame({"a": np.zeros(50_000)})):
        with pytest.raises(ArtifactTooLargeError, match=r"'task'.*max_artifact_bytes allows 100,000; return"):
            store.encode(value, name="task")
    assert store.encode(bytes(100_000), name="task")["size_bytes"] == 100_000
    assert store.usage().bytes_stored == 100_000


def test_more_than_the_limit_is_refused_before_it_is_fetched(tmp_path: Path) -> None:
    root = tmp_path.as_uri()
    tree = ArtifactStore(root, signing_key=KEY).encode(bytes(100_001), name="task")
    store = ArtifactStore(root, signing_key=KEY, max_artifact_bytes=100_000)
    store.objects.delete([keys.blob_key(tree["digest"])])

    with pytest.raises(ArtifactTooLargeError, match=r"ml-artifact://task.*100,001 bytes.*100,000; nothing"):
        store.decode(tree)


def test_what_unpacks_to_more_than_the_limit_is_refused(tmp_path: Path) -> None:
    root = tmp_path.as_uri()
    tree = ArtifactStore(root, signing_key=KEY).encode(pd.DataFrame({"a": np.zeros(50_000)}), name="task")
    assert tree["size_bytes"] < 100_000 < tree["schema"][UNPACKED]

    with pytest.raises(ArtifactCorruptError, match="max_artifact_bytes"):
        ArtifactStore(root, signing_key=KEY, max_artifact_bytes=100_000).decode(tree)


def test_a_longer_object_is_refused_before_it_is_read(tmp_path: Path) -> None:
    store = careless(tmp_path.as_uri())
    (tmp_path / "file").write_bytes(b"abcd")
    for ref in (store.save(b"abc", "raw"), store.save(tmp_path / "file", "file")):
        with (tmp_path / keys.blob_key(ref.digest)).open("r+b") as blob:
            blob.truncate(_HUGE)  # a file of holes

        with pytest.raises(
            ArtifactCorruptError, match=r"holds 1,099,511,627,776 bytes.*nothing of it was read"
        ):
            store.load(ref)
