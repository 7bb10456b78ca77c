# SPDX-License-Identifier: Apache-2.0
"""Values in object storage: saved once, listed by name, read back exactly or not at all."""

from __future__ import annotations

import fnmatch
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

from airflow_ml_provider.artifacts import chunks, keys, limits, scratch, trash
from airflow_ml_provider.artifacts.codecs import registry
from airflow_ml_provider.artifacts.digest import Following, digest_of, digest_of_file
from airflow_ml_provider.artifacts.envelope import from_envelope, has_nodes, to_envelope
from airflow_ml_provider.artifacts.objects import ObjectStore, Source, as_bytes, at_once
from airflow_ml_provider.artifacts.preview import SECRET_NAMES, masked
from airflow_ml_provider.artifacts.refs import ArtifactRef, Producer, check_name, part_name
from airflow_ml_provider.artifacts.signing import Signer
from airflow_ml_provider.artifacts.statistics import with_statistics
from airflow_ml_provider.artifacts.unpacking import UNPACKED, unpacked_limit
from airflow_ml_provider.artifacts.values import Reader, Writer, json_size
from airflow_ml_provider.exceptions import (
    ArtifactCorruptError,
    ArtifactNotFoundError,
    ArtifactTooLargeError,
    SignatureError,
    StoreError,
    UnsupportedFormatError,
    UnsupportedTypeError,
    UntrustedTypeError,
)

# A tree of many envelopes stays in the XCom table up to here.
MAX_TREE_BYTES = 256 << 10
# Larger content is looked for before it is sent.
_ASK_FIRST_FROM_BYTES = 1 << 20

logger = logging.getLogger(__name__)

# What these give back is a path.
_PATH_FORMATS = ("file-v1", "directory-v1")


@dataclass(frozen=True)
class Usage:
    """
    What a store holds.

    :param bytes_logical: Sum over versions: what it would take without sharing.
    :param bytes_stored: Sum over contents: what it takes.
    """

    names: int
    versions: int
    bytes_logical: int
    bytes_stored: int


@dataclass(frozen=True)
class _Facts:
    """What all artifacts of one value have in common."""

    producer: Producer | None
    recorded_at: datetime
    effective_at: datetime
    data_interval: tuple[datetime, datetime] | None
    preview: bool
    mask: tuple[str, ...] = ()


class ArtifactStore:
    """
    Typed, versioned, verified values under one root.

    :param root: ``file:///folder`` or ``s3://bucket/prefix``.
    :param signing_key: Shared by all workers of a deployment, at least 16 bytes.
    :param options: Of the object storage, see :class:`ObjectStore`.
    :param inline_max_bytes: JSON up to this length stays in the XCom table as it is.
    :param allow_pickle: Write what no codec knows by pickle, and read such versions. Reading them runs
        whatever code their writer chose.
    :param verify_on_read: Compare the hash of content with the one it was stored under.
    :param previews: Keep the first rows in envelopes, for people to look at.
    :param allowed_classes: Dotted paths, as glob patterns, that stored values may import.
    :param mask: Columns and keys that previews show as ``***``, as glob patterns.
    :param max_artifact_bytes: A version takes no more than this, neither stored nor unpacked; None: no limit.
    :param verify_with: Earlier signing keys, whose versions stay readable.
    """

    def __init__(
        self,
        root: str,
        *,
        signing_key: bytes,
        options: Mapping[str, Any] | None = None,
        inline_max_bytes: int = 16384,
        allow_pickle: bool = False,
        verify_on_read: bool = True,
        previews: bool = True,
        allowed_classes: Sequence[str] = (),
        mask: Sequence[str] = SECRET_NAMES,
        max_artifact_bytes: int | None = None,
        verify_with: Sequence[bytes] = (),
    ) -> None:
        self.objects = ObjectStore(root, options)
        self.signer = Signer(signing_key, verify_with)
        self.inline_max_bytes = inline_max_bytes
        self.allow_pickle = allow_pickle
        self.verify_on_read = verify_on_read
        self.previews = previews
        self.allowed_classes = tuple(allowed_classes)
        self.mask = tuple(mask)
        self.max_artifact_bytes = max_artifact_bytes
        #: Called with what is loaded by a reference that the store found, and with what :meth:`save` stored.
        self.on_read: Callable[[ArtifactRef, Any], None] | None = None
        self.on_write: Callable[[ArtifactRef], None] | None = None

    def __repr__(self) -> str:
        return f"ArtifactStore({self.objects.root!r})"

    # -- writing

    def save(
        self,
        value: Any,
        name: str,
        *,
        producer: Producer | None = None,
        effective_at: datetime | None = None,
        data_interval: tuple[datetime, datetime] | None = None,
        format: str | None = None,
        preview: bool = True,
        mask: Sequence[str] = (),
    ) -> ArtifactRef:
        """
        Store a value as a new version of ``name``. At most three requests for a value of one part.

        :param effective_at: The data time it speaks for; the end of ``data_interval`` or the wall clock if
            absent.
        :param format: Store it in this format.
        :param preview: False keeps its content out of the version's description.
        :param mask: Columns and keys whose cells the preview shows as ``***``, besides those of the store.
        :raises UnsupportedTypeError: if no codec writes it.
        :raises StoreError: if the storage refuses or cannot be reached.
        """
        session = _Session(
            self, check_name(name), _facts(producer, effective_at, data_interval, preview, mask), None
        )
        if isinstance(value, ArtifactRef):
            value = self.load(value)
        ref = session.whole(value, format)
        session.publish(self.on_write)
        return ref

    def encode(
        self,
        value: Any,
        *,
        name: str,
        producer: Producer | None = None,
        effective_at: datetime | None = None,
        data_interval: tuple[datetime, datetime] | None = None,
        format: str | None = None,
        preview: bool = True,
        mask: Sequence[str] = (),
        on_write: Callable[[ArtifactRef], None] | None = None,
        fallback: Callable[[Any], Any] | None = None,
        earlier: Iterable[ArtifactRef] = (),
    ) -> Any:
        """
        Return the JSON that stands for ``value`` in the XCom table, storing what JSON does not carry.

        A reference stands for its value: it becomes the envelope that it came from, and nothing is copied.

        :param on_write: Called with each artifact, after all of the value is stored.
        :param fallback: Turns a leaf that no codec knows into JSON.
        :param earlier: Versions that the same attempt wrote before. The same content under the same name is
            that version again, and no new one.
        :raises UnsupportedTypeError: if a part of it has no codec.
        :raises StoreError: if the storage refuses or cannot be reached.
        """
        facts = _facts(producer, effective_at, data_interval, preview, mask)
        session = _Session(self, check_name(name), facts, fallback, earlier)
        if format is not None and not isinstance(value, ArtifactRef):
            tree: Any = to_envelope(session.whole(value, format), self.signer)
        else:
            tree = session.tree(value)
        session.publish(on_write)
        return tree

    # -- reading

    def decode(
        self,
        tree: Any,
        *,
        as_refs: bool = False,
        on_read: Callable[[ArtifactRef, Any], None] | None = None,
        on_value: Callable[[Any], None] | None = None,
        fallback: Callable[[Any], Any] | None = None,
    ) -> Any:
        """
        Return the value that :meth:`encode` was given.

        :param as_refs: Give a bound :class:`ArtifactRef` in place of each artifact that stands in lists,
            tuples and dicts; parts of other objects are loaded.
        :param on_read: Called with each artifact that is loaded and its value, later by ``ref.load()``,
            ``ref.open()`` and ``ref.path()`` too.
        :param on_value: Called with each reference to a model, wherever it stands.
        :param fallback: Reads what the ``fallback`` of :meth:`encode` wrote.
        :raises SignatureError: if an envelope was forged or edited; nothing was fetched by then.
        :raises ArtifactNotFoundError: if content is gone.
        :raises ArtifactCorruptError: if content is not what was written.
        """
        if not has_nodes(tree):
            return tree

        def load(ref: ArtifactRef, keep: bool) -> Any:
            bound = replace(ref, _store=self, _on_read=on_read)
            if ref.format == "tree-v1":
                value = reader.read(self._content(ref), as_refs=keep)
            elif keep:
                return bound
            else:
                value = self._content(ref)
            if on_read is not None:
                on_read(bound, value)
            return value

        reader = Reader(
            self.signer,
            load=load,
            allowed_classes=self.allowed_classes,
            fallback=fallback,
            on_value=on_value,
        )
        return reader.read(tree, as_refs=as_refs)

    def load(
        self,
        ref: ArtifactRef,
        *,
        columns: Sequence[Any] | None = None,
        rows: slice | int | None = None,
    ) -> Any:
        """
        Fetch a value, exactly as it was written, or a part of it. One request for a value of one part.

        :param columns: Labels of a table's columns, in the order in which to return them.
        :param rows: So many from the beginning, or a slice of positions without a step.
        :raises ValueError: if there is no such column, or ``rows`` has a step or is below 0.
        :raises TypeError: if the value has no columns or rows to choose from.
        :raises ArtifactNotFoundError: if the content is gone.
        :raises ArtifactCorruptError: if the content is not what was written.
        """
        if columns is None and rows is None:
            value = self._content(ref)
            return self.decode(value) if ref.format == "tree-v1" else value
        if isinstance(columns, (str, bytes)):
            raise TypeError(f"columns is a list of labels, got {columns!r}; write [{columns!r}]")
        part = registry.Part(None if columns is None else list(columns), _row_slice(rows))
        module = registry.codec_of(ref.format).load_module()
        if not (hasattr(module, "load_part") or hasattr(module, "join")):
            raise TypeError(
                f"{ref.uri} is a {ref.type} stored as {ref.format!r}, which has no columns or rows to choose "
                "from; call load() without them"
            )
        return self._content(ref, part)

    def open(self, ref: ArtifactRef) -> BinaryIO:
        """
        Open the stored bytes of a version; they are verified, and in a local file that closing removes.

        :raises ArtifactNotFoundError: if the content is gone.
        :raises ArtifactCorruptError: if the content is not what was written.
        """
        path = scratch.folder() / "content"
        self.fetch(ref, path)
        file = path.open("rb")
        path.unlink()
        path.parent.rmdir()
        return file

    def path(self, ref: ArtifactRef, to: str | Path | None = None) -> Path:
        """
        Copy the stored bytes of a version to a local file: a stored file or folder as it was, of others the
        bytes in the layout of their format.

        :param to: The file or folder to make; a private one if absent.
        :raises FileExistsError: if a folder is to be made and ``to`` is there and not empty.
        :raises IsADirectoryError: if a file is to be made and ``to`` is a folder.
        :raises ArtifactNotFoundError: if the content is gone.
        :raises ArtifactCorruptError: if the content is not what was written.
        """
        if to is None:
            return self._local(ref, scratch.folder())
        target = Path(to).absolute()
        is_folder = ref.format == "directory-v1"
        if target.is_dir() and not is_folder:
            raise IsADirectoryError(
                f"{str(target)!r} is a folder; name the file in it that {ref.uri} becomes"
            )
        if is_folder and (target.is_file() or (target.is_dir() and any(target.iterdir()))):
            raise FileExistsError(
                f"{str(target)!r} is there; remove it, or name a folder that {ref.uri} becomes"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        # Beside the target, so that it appears there at once and whole.
        holding = Path(tempfile.mkdtemp(prefix=".airflow-ml-", dir=target.parent))
        try:
            os.replace(self._local(ref, holding), target)
        finally:
            shutil.rmtree(holding, ignore_errors=True)
        return target

    def _local(self, ref: ArtifactRef, folder: Path) -> Path:
        """Copy the stored bytes to a new file in an empty folder; of a stored path what it named."""
        entry = registry.codec_of(ref.format)
        path = folder / "content"
        self.fetch(ref, path)
        if ref.format in _PATH_FORMATS:
            made: Path = entry.load_module().load(path, self._stored(ref))
            return made
        return path.rename(folder / f"{keys.segment(ref.name.rpartition('/')[2])}{entry.suffix}")

    def _stored(self, ref: ArtifactRef) -> registry.Stored:
        return registry.Stored(
            ref.name, ref.type, ref.schema, self.allowed_classes, unpacked_limit(ref, self.max_artifact_bytes)
        )

    def _refuse_unsafe(self, ref: ArtifactRef, entry: registry.CodecEntry) -> None:
        """Raise before anything of a version is fetched or imported that this deployment does not read."""
        if entry.runs_code and not self.allow_pickle:
            raise UntrustedTypeError(
                f"{ref.uri} ({ref.type}, written by {ref.producer or 'a direct call'}) is stored as "
                f"{ref.format!r}, and reading that can run any code; [ml_provider] allow_pickle is off here, "
                "so nothing of it was fetched. Have its task return a type that has a codec, or register "
                "one; or turn allow_pickle on here, if everybody who can write to "
                f"{self.objects.root} may run code in your tasks"
            )
        limit = self.max_artifact_bytes
        if limit is not None and ref.size_bytes > limit:
            raise ArtifactTooLargeError(
                f"{ref.uri} takes {ref.size_bytes:,} bytes, and [ml_provider] max_artifact_bytes lets this "
                f"process read {limit:,}; nothing of it was fetched. Copy it to a disk by ref.open() or "
                "ref.path(), or raise the limit"
            )

    def fetch(self, ref: ArtifactRef, path: Path, *, verify: bool | None = None) -> None:
        """
        Copy the stored bytes to a new local file; nothing is left there if they are wrong.

        :param verify: Compare the hash; as the store is set if absent.
        :raises ArtifactNotFoundError: if the content is gone.
        :raises ArtifactCorruptError: if the content is not what was written.
        """
        verify = self.verify_on_read if verify is None else verify
        try:
            if ref.parts:
                module = registry.codec_of(ref.format).load_module()
                with self._pieces(ref, verify=verify) as pieces:
                    content = module.whole(pieces, self._stored(ref))
                with scratch.explained(f"copy {ref.uri}", path.parent), path.open("xb") as file:
                    file.write(content)
                return
            size = trash.read_content(
                self.objects,
                ref.digest,
                lambda key: self.objects.fetch(key, path, at_most=ref.size_bytes),
            )
            self._check_size(ref, size)
            if verify:
                self._check_digest(ref, digest_of_file(path))
        except BaseException as exc:
            scratch.discard(path)
            if isinstance(exc, ArtifactNotFoundError):
                raise self._gone(ref) from exc
            raise

    def _gone(self, ref: ArtifactRef) -> ArtifactNotFoundError:
        gone = [
            keys.blob_key(digest) for digest in ref.blobs if not self.objects.exists(keys.blob_key(digest))
        ]
        return ArtifactNotFoundError(
            f"{ref.uri} was written by {ref.producer or 'a direct call'} but its content is gone from "
            f"{self.objects.root} ({', '.join(gone) or 'a moment ago'}); re-run that task"
        )

    @contextmanager
    def _pieces(self, ref: ArtifactRef, *, verify: bool, partly: bool = False) -> Iterator[chunks.Pieces]:
        """
        Open the packs of a value, all at once.

        :param partly: Not all of it is needed.
        """
        at_most = chunks.most_read(ref.size_bytes)

        def opened(digest: str) -> Source:
            end = (chunks.END_BYTES if digest == ref.blobs[0] else 0) if partly else None
            source = trash.read_content(
                self.objects, digest, lambda key: self.objects.source(key, at_most=at_most, end=end)
            )
            stack.callback(source.close)
            return source

        with ExitStack() as stack:
            try:
                packs = at_once(opened, ref.blobs)
            except ArtifactNotFoundError as exc:
                raise self._gone(ref) from exc
            most = self._stored(ref).max_bytes
            yield chunks.read(ref.blobs, ref.digest, packs, ref.uri, most, verify=verify)

    def _content(self, ref: ArtifactRef, part: registry.Part | None = None) -> Any:
        entry = registry.codec_of(ref.format)
        self._refuse_unsafe(ref, entry)
        module = entry.load_module()
        if hasattr(module, "join"):
            with self._pieces(ref, verify=self.verify_on_read, partly=part is not None) as pieces:
                return module.join(pieces, self._stored(ref), part)
        if getattr(module, "READS_FILES", False):
            path = scratch.folder() / "content"
            self.fetch(ref, path)
            data: Any = path
        else:
            compared = self.verify_on_read or entry.runs_code
            try:
                data, digest = trash.read_content(
                    self.objects, ref.digest, lambda key: self._read(key, ref.size_bytes, hashed=compared)
                )
            except ArtifactNotFoundError as exc:
                raise self._gone(ref) from exc
            self._check_size(ref, data.nbytes)
            if compared:
                self._check_digest(ref, digest)
        if part is None:
            return module.load(data, self._stored(ref))
        return module.load_part(data, self._stored(ref), part)

    def _read(self, key: str, at_most: int, *, hashed: bool) -> tuple[memoryview, str]:
        if not hashed:
            return memoryview(self.objects.get(key, at_most=at_most)), ""
        with Following() as hasher:
            data = memoryview(self.objects.get(key, at_most=at_most, on_read=hasher.add))
            return data, hasher.digest()

    def _check_size(self, ref: ArtifactRef, found: int) -> None:
        if found != ref.size_bytes:
            raise ArtifactCorruptError(
                f"{ref.uri} is damaged: {ref.size_bytes} bytes were written ({ref.digest}), {found} are in "
                f"{self.objects.root}; re-run {ref.producer or 'what wrote it'}, which writes it again"
            )

    def _check_digest(self, ref: ArtifactRef, found: str) -> None:
        if found != ref.digest:
            raise ArtifactCorruptError(
                f"{ref.uri} is damaged: expected {ref.digest}, found {found} in {self.objects.root}; delete "
                f"{keys.blob_key(ref.digest)} and re-run {ref.producer or 'what wrote it'}"
            )

    # -- finding

    def names(self) -> Iterator[str]:
        """Yield the names that have versions."""
        for folder in self.objects.children("versions"):
            name = keys.text_of(folder)
            if name is None:  # hashed because it is long: the manifests know it
                first = next(self.objects.list(f"versions/{folder}", limit=1), None)
                if first is None:
                    continue
                name = self._manifest(first.key).name
            yield name

    def versions(self, name: str, *, limit: int = 100) -> list[ArtifactRef]:
        """Return versions of ``name`` by wall clock, newest first."""
        found = [
            entry.key for entry in self.objects.list(keys.versions_prefix(check_name(name)), limit=limit)
        ]
        return at_once(self._manifest, found)

    def get(self, name: str, version_id: str | None = None) -> ArtifactRef:
        """
        Return one version of ``name``, by default the one recorded last.

        :raises ArtifactNotFoundError: if there is none.
        """
        check_name(name)
        if version_id is not None:
            key = keys.version_key(name, version_id)
        else:
            first = next(self.objects.list(keys.versions_prefix(name), limit=1), None)
            if first is None:
                raise ArtifactNotFoundError(f"no version of the artifact {name!r} is in {self.objects.root}")
            key = first.key
        try:
            return self._manifest(key)
        except ArtifactNotFoundError as exc:
            raise ArtifactNotFoundError(
                f"the artifact {name!r} has no version {version_id!r} in {self.objects.root}"
            ) from exc

    def as_of(self, name: str, when: datetime, *, clock: Literal["data", "wall"] = "data") -> ArtifactRef:
        """
        Return the version of ``name`` that held at a time.

        :param when: With a zone.
        :param clock: ``data``: the newest ``effective_at`` up to then, of equal ones that recorded last.
            ``wall``: the one recorded last up to then.
        :raises ArtifactNotFoundError: if there is none.
        """
        if clock not in ("data", "wall"):
            raise ValueError(f"clock is 'data' or 'wall', got {clock!r}")
        if when.tzinfo is None:
            raise ValueError(f"a time needs a zone, got {when!r}")
        prefix = keys.versions_prefix(check_name(name))
        best: tuple[datetime, str] | None = None
        if clock == "wall":
            after = f"{prefix}{keys.before_versions_at(when)}"
            for entry in self.objects.list(prefix, after=after, limit=1):
                best = (when, entry.key)
        else:
            # Ids carry the data time, so that no manifest is read but the one that is returned.
            for entry in self.objects.list(prefix):
                try:
                    effective = keys.version_effective(entry.key.removeprefix(prefix).removesuffix(".json"))
                except ValueError:
                    continue
                if effective <= when and (best is None or effective > best[0]):
                    best = (effective, entry.key)
        if best is None:
            raise ArtifactNotFoundError(
                f"the artifact {name!r} had no version at {when.isoformat()} ({clock} clock) in "
                f"{self.objects.root}"
            )
        return self._manifest(best[1])

    def usage(self) -> Usage:
        """Count names, versions and bytes: a list of all contents, and a read of all manifests."""
        found = [entry.key for entry in self.objects.list("versions")]
        sizes = sum(ref.size_bytes for ref in at_once(self._manifest, found))
        return Usage(
            names=len({key.split("/")[1] for key in found}),
            versions=len(found),
            bytes_logical=sizes,
            bytes_stored=sum(entry.size_bytes for entry in self.objects.list("blobs")),
        )

    def _manifest(self, key: str) -> ArtifactRef:
        doc = self.objects.get_json(key)
        if not isinstance(doc, dict):
            raise ArtifactCorruptError(f"{self.objects.root}/{key} is no manifest; delete it")
        ref = from_envelope(doc, self.signer)
        if keys.version_key(ref.name, ref.version_id) != key:
            raise SignatureError(
                f"the manifest of {ref.uri} stands at {key}; somebody copied it there, delete it"
            )
        return replace(ref, _store=self, _on_read=self.on_read)


class _Session:
    """One value on its way in: contents at once, manifests when all contents are there."""

    def __init__(
        self,
        store: ArtifactStore,
        name: str,
        facts: _Facts,
        fallback: Callable[[Any], Any] | None,
        earlier: Iterable[ArtifactRef] = (),
    ) -> None:
        self._earlier = {(ref.name, ref.digest, ref.format): ref for ref in earlier}
        self._store = store
        self._name = name
        self._facts = facts
        self._written: set[str] = set()
        self._pending: list[ArtifactRef] = []
        self._heads: dict[str, bytes] = {}
        self._writer = Writer(
            store.signer,
            inline_max_bytes=store.inline_max_bytes,
            save=self._save,
            fallback=fallback,
            pickles=store.allow_pickle,
        )

    def tree(self, value: Any) -> Any:
        """Return the tree of a value, moved to an artifact where it is too much for the XCom table."""
        before = self._writer.envelope_bytes
        tree = self._writer.write(value, self._name)
        if tree is value:
            return tree
        size = json_size(tree)
        plain = size - (self._writer.envelope_bytes - before)
        if (
            plain > self._store.inline_max_bytes
            or size > MAX_TREE_BYTES
            or self._writer.depth > limits.MAX_DEPTH
        ):
            ref = self._save(tree, self._name, registry.codec_of("tree-v1"), type(value))
            return to_envelope(ref, self._store.signer)
        return tree

    def whole(self, value: Any, format: str | None) -> ArtifactRef:
        """Store a value as one artifact of the session's name."""
        if format is not None:
            entry = registry.codec_named(format)
            if not registry.writes(entry, value):
                raise UnsupportedTypeError(
                    f"{entry.format!r} does not store a {registry.public_type_name(type(value))}; leave the "
                    "format out, or return what it stores"
                )
            if entry.format == "json-v1" and limits.grade(value) == limits.NOWHERE:
                raise UnsupportedTypeError(
                    f"{registry.type_name(type(value))} is not what JSON carries exactly"
                )
            if entry.format != "tree-v1":
                return self._save(value, self._name, entry, forced=True)
        elif (own := registry.codec_for(value, look_further=False)) is not None:
            return self._save(value, self._name, own)
        elif limits.grade(value) != limits.NOWHERE:
            return self._save(value, self._name, registry.codec_of("json-v1"))
        tree = self._writer.write(value, self._name)
        if len(self._pending) == 1 and tree == to_envelope(self._pending[0], self._store.signer):
            return self._pending[0]
        return self._save(tree, self._name, registry.codec_of("tree-v1"), type(value))

    def _save(
        self,
        value: Any,
        name: str,
        entry: registry.CodecEntry,
        value_type: type | None = None,
        *,
        forced: bool = False,
    ) -> ArtifactRef:
        if entry.format == "file-v1" and isinstance(value, Path) and value.is_dir():
            entry = registry.codec_of("directory-v1")
        entry, encoded = self._dump(value, entry, forced)
        self._check_limit(name, encoded)
        facts = self._facts
        shown = facts.preview and self._store.previews
        masks = (*self._store.mask, *facts.mask)
        schema = encoded.schema

        def described() -> Any:
            return with_statistics(schema, value, masks) if shown else schema

        parts: tuple[str, ...] = ()
        if isinstance(encoded, chunks.Cut):
            written, schema = self._write(part_name(name), encoded, described)
            digest, size_bytes, parts = written.digest, written.size_bytes, written.parts
            schema = {**(schema or {}), UNPACKED: written.unpacked_bytes}
            if written.head is not None:
                self._heads[chunks.head_key(part_name(name))] = written.head
        else:
            try:
                digest, size_bytes = self._put(encoded.parts)
            finally:
                if encoded.temporary and isinstance(encoded.parts, Path):
                    scratch.discard(encoded.parts)
            schema = described()
        if again := self._earlier.get((part_name(name), digest, entry.format)):
            return again
        named = registry.public_type_name(type(value) if value_type is None else value_type)
        ref = ArtifactRef(
            name=part_name(name),
            version_id=keys.new_version_id(facts.recorded_at, facts.effective_at),
            digest=digest,
            format=entry.format,
            type=named if value_type is not None or not encoded.type else encoded.type,
            size_bytes=size_bytes,
            producer=facts.producer,
            recorded_at=facts.recorded_at,
            effective_at=facts.effective_at,
            data_interval=facts.data_interval,
            schema=schema,
            # A tree shows envelopes and nodes, which mean nothing to people.
            preview=masked(encoded.preview, masks, names=[*self._last_names(name), *_own_names(value)])
            if shown and entry.format != "tree-v1"
            else None,
            parts=parts,
            _store=self._store,
        )
        self._pending.append(ref)
        return ref

    def _write(self, name: str, cut: chunks.Cut, described: Callable[[], Any]) -> tuple[chunks.Written, Any]:
        """Store a value in pieces, and describe it while the disk or the network takes them."""
        objects, signer = self._store.objects, self._store.signer
        found: Future[Any] | None = None
        with ThreadPoolExecutor(1) as aside:

            def put(parts: list[memoryview], maybe_there: bool) -> tuple[str, int]:
                nonlocal found
                found = aside.submit(described)
                return self._put(parts, maybe_there)

            written = chunks.write(objects, signer, name, cut, put)
            return written, described() if found is None else found.result()

    def _dump(
        self, value: Any, entry: registry.CodecEntry, forced: bool
    ) -> tuple[registry.CodecEntry, registry.Encoded | chunks.Cut]:
        """Encode a value: by pickle, where that is allowed and the codec of its type refuses it."""
        allowed = self._store.allow_pickle
        if entry.runs_code and not allowed:
            raise UnsupportedTypeError(
                f"{self._name!r} asks for the format {entry.format!r}, and reading that can run any code; "
                "[ml_provider] allow_pickle is off, so leave the format out, or turn the option on"
            )
        may_pickle = allowed and entry.or_pickle and not forced
        cut: chunks.Cut | None
        try:
            if entry.in_pieces and not forced:
                larger = registry.codec_of(entry.in_pieces)
                cut = larger.load_module().split(value)
                if cut is not None:
                    return larger, cut
            module = entry.load_module()
            if hasattr(module, "split"):  # asked for by name
                cut = module.split(value, small=True)
                if cut is None:
                    raise UnsupportedTypeError(
                        f"{self._name!r} has no rows, or columns that cannot be cut; leave the format "
                        f"{entry.format!r} out, and it is stored in one object"
                    )
                return entry, cut
            encoded = module.dump(value)
            if not isinstance(encoded, registry.Encoded):
                encoded = registry.Encoded([memoryview(encoded)])
            refused = may_pickle and any(
                not any(fnmatch.fnmatchcase(need, pattern) for pattern in self._store.allowed_classes)
                for need in encoded.needs
            )
        except (UnsupportedTypeError, UnsupportedFormatError):
            if not may_pickle:
                raise
            refused = True
        if refused:
            entry = registry.codec_of("pickle-v1")
            encoded = entry.load_module().dump(value)
        return entry, encoded

    def _check_limit(self, name: str, encoded: registry.Encoded | chunks.Cut) -> None:
        limit = self._store.max_artifact_bytes
        if limit is None:
            return
        if isinstance(encoded, chunks.Cut):
            size = encoded.size_bytes
        else:
            parts = encoded.parts
            stored = parts.stat().st_size if isinstance(parts, Path) else sum(part.nbytes for part in parts)
            size = max(stored, (encoded.schema or {}).get(UNPACKED, 0))
        if size > limit:
            if isinstance(encoded, registry.Encoded) and encoded.temporary and isinstance(parts, Path):
                scratch.discard(parts)
            raise ArtifactTooLargeError(
                f"storing {name!r} would take {size:,} bytes, and [ml_provider] max_artifact_bytes allows "
                f"{limit:,}; return less, or several artifacts, or raise the limit"
            )

    def _last_names(self, name: str) -> list[str]:
        """What a part is called below the value that it is part of, and the last word of the name."""
        return [*name.removeprefix(self._name).split("."), name.rpartition(".")[2]]

    def _put(self, parts: Sequence[memoryview] | Path, maybe_there: bool = True) -> tuple[str, int]:
        objects = self._store.objects
        if isinstance(parts, Path):
            before = parts.stat()
            size, digest = before.st_size, digest_of_file(parts)
        else:
            parts = [as_bytes(part) for part in parts]
            size, digest = sum(part.nbytes for part in parts), digest_of(parts)
        if digest in self._written:
            return digest, size
        key = keys.blob_key(digest)
        there = objects.size(key) if maybe_there and size >= _ASK_FIRST_FROM_BYTES else None
        created = False
        if there is None:
            created = objects.put(key, parts)
            if not created:
                there = objects.size(key)
        if not created and there != size:
            # Something cut the content off since; what is written here is what the key promises.
            objects.put(key, parts, create_only=False)
        if isinstance(parts, Path):
            after = parts.stat()
            if (after.st_mtime_ns, after.st_size, after.st_ino) != (before.st_mtime_ns, size, before.st_ino):
                objects.delete([key])
                raise StoreError(f"{str(parts)!r} was written to while it was stored; close it first")
        self._written.add(digest)
        return digest, size

    def publish(self, on_write: Callable[[ArtifactRef], None] | None) -> None:
        """Write the manifests of all parts, and what their next versions compare with, then tell of them."""
        objects = self._store.objects

        def write(ref: ArtifactRef) -> None:
            objects.put_json(keys.version_key(ref.name, ref.version_id), to_envelope(ref, self._store.signer))

        def leave(key: str) -> None:
            try:
                objects.put(key, self._heads[key], create_only=False)
            except StoreError as exc:
                logger.warning("the next version shares nothing with this one: %s", exc)

        jobs = [
            *(partial(write, ref) for ref in self._pending),
            *(partial(leave, key) for key in self._heads),
        ]
        at_once(lambda job: job(), jobs)
        if on_write is not None:
            for ref in self._pending:
                on_write(ref)


def _facts(
    producer: Producer | None,
    effective_at: datetime | None,
    data_interval: tuple[datetime, datetime] | None,
    preview: bool,
    mask: Sequence[str] = (),
) -> _Facts:
    now = datetime.now(UTC)
    if data_interval is not None:
        data_interval = (_utc(data_interval[0]), _utc(data_interval[1]))
    if effective_at is None:
        effective_at = data_interval[1] if data_interval else now
    return _Facts(producer, now, _utc(effective_at), data_interval, preview, tuple(mask))


def _own_names(value: Any) -> list[str]:
    """What a series or an index of pandas or polars is called."""
    # The type is asked: a frame gives its columns as attributes, and a series its elements.
    kind = type(value)
    if not (hasattr(kind, "name") and hasattr(kind, "dtype")):
        return []
    names = value.names if hasattr(kind, "names") else [value.name]
    return [str(name) for name in names if name is not None]


def _row_slice(rows: slice | int | None) -> slice | None:
    if rows is None:
        return None
    if isinstance(rows, int) and not isinstance(rows, bool):
        if rows < 0:
            raise ValueError(
                f"rows is so many from the beginning, got {rows!r}; the last ones: slice(-n, None)"
            )
        return slice(0, rows)
    if not isinstance(rows, slice):
        raise TypeError(f"rows is a number or a slice of positions, got {rows!r}")
    if rows.step not in (None, 1):
        raise ValueError(f"rows are neighbours: a slice without a step, got {rows!r}")
    return slice(rows.start, rows.stop)


def _utc(when: datetime) -> datetime:
    if when.tzinfo is None:
        raise ValueError(f"a time needs a zone, got {when!r}")
    # Also takes subclasses, such as pendulum's, down to the standard library's class.
    moved = when.astimezone(UTC)
    return datetime(
        moved.year, moved.month, moved.day, moved.hour, moved.minute, moved.second, moved.microsecond, UTC
    )
