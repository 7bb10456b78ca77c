# SPDX-License-Identifier: Apache-2.0
"""``airflow ml artifacts``: list, show, get and verify what the store holds."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.limits import any_length_of_int
from airflow_ml_provider.cli.console import (
    FAILED,
    WrongArgumentsError,
    command,
    one_line,
    say,
    show_document,
    show_rows,
    tracked,
)
from airflow_ml_provider.client import MLClient
from airflow_ml_provider.exceptions import (
    ArtifactError,
    ArtifactNotFoundError,
    StoreError,
    UnsupportedTypeError,
)
from airflow_ml_provider.lineage.answers import Reader, Version, VersionDetail
from airflow_ml_provider.lineage.queries import MAX_PAGE, Queries

if TYPE_CHECKING:
    from airflow_ml_provider.artifacts.refs import ArtifactRef
    from airflow_ml_provider.artifacts.store import ArtifactStore

_SUFFIXES = {"arrow": ".arrow", "npy": ".npy", "bytes": ".bin", "json": ".json", "skops": ".skops"}
_TABLE_SUFFIXES = (".csv", ".parquet")


@command
def list_artifacts(args: Namespace) -> int:
    """Print the names of artifacts, or the versions of one."""
    queries = MLClient().queries
    ask = queries.versions if args.name else queries.artifacts
    given = {"checkpoints": args.checkpoints} if not args.name else {}
    found: list[Version] = []
    cursor = None
    while len(found) <= args.limit:
        page = ask(
            args.name or args.search or "", limit=_page(args.limit + 1 - len(found)), cursor=cursor, **given
        )
        found.extend(page.items)
        cursor = page.cursor
        if cursor is None:
            break
    if args.name and not found:
        raise ArtifactNotFoundError(_no_such(_store(), args.name))
    shown = found[: args.limit]
    if args.output in ("table", "plain"):
        show_rows([_row(version) for version in shown], args.output)
    else:
        show_rows([version.to_json() for version in shown], args.output)
    if len(found) > args.limit:
        say(f"there are more than {args.limit}; use --limit")
    return 0


@command
def show_artifact(args: Namespace) -> int:
    """Print the manifest of one version, who made it and who read it."""
    store = _store()
    ref = _select(store, args)
    readers = Queries(store).readers(ref.version_id, limit=_page(args.limit)).items
    if args.output in ("table", "plain"):
        document: dict[str, Any] = {
            **_row(Version.of(ref)),
            "uri": ref.uri,
            "format": ref.format,
            "digest": ref.digest,
            "data_interval": " to ".join(when.isoformat() for when in ref.data_interval or ()),
            "schema": _short_schema(ref.schema),
            "read_by": "\n".join(_reader(reader) for reader in readers) or "nobody yet",
        }
    else:
        document = {**VersionDetail.of(ref).to_json(), "read_by": [reader.to_json() for reader in readers]}
    show_document(document, args.output)
    return 0


@command
def get_artifact(args: Namespace) -> int:
    """Write the content of one version to a file or directory."""
    store = _store()
    ref = _select(store, args)
    target = Path(args.to).expanduser()
    as_table = target.suffix in _TABLE_SUFFIXES and not target.is_dir()
    if as_table and not ref.format.startswith(("file-", "bytes-")):
        written = _write_table(store, ref, target, force=args.force)
    elif ref.format.startswith(("file-", "directory-", "bytes-")):
        written = _write_value(store, ref, target, force=args.force)
    else:
        written = _write_content(store, ref, _place(target, _file_name(ref)), force=args.force)
    print(written)
    return 0


@command
def verify_artifacts(args: Namespace) -> int:
    """Compare stored bytes and manifests with hashes and signatures; 1 if one is not what was written."""
    store = _store()
    rows = []
    for name, version_id in tracked(list(_versions_to_verify(store, args)), "Verifying"):
        verdict, size_bytes = _verify(store, name, version_id)
        rows.append({"name": name, "version_id": version_id, "size_bytes": size_bytes, "verdict": verdict})
    show_rows(rows, args.output)
    bad = sum(row["verdict"] != "ok" for row in rows)
    say(f"{len(rows)} versions verified, {bad} bad")
    return FAILED if bad else 0


def _store() -> ArtifactStore:
    from airflow_ml_provider.hooks.artifact_store import ArtifactStoreHook

    return ArtifactStoreHook().store


def _no_such(store: ArtifactStore, name: str) -> str:
    return f"no artifact {name!r} under {store.objects.root}; names: airflow ml artifacts list"


def _select(store: ArtifactStore, args: Namespace) -> ArtifactRef:
    if args.version and args.as_of:
        raise WrongArgumentsError("--version and --as-of both choose a version; give one of them")
    if args.as_of:
        return store.as_of(args.name, args.as_of, clock=args.clock)
    return store.get(args.name, _checked(args.version))


def _checked(version_id: str | None) -> str | None:
    try:
        return version_id and keys.check_version_id(version_id)
    except ValueError as exc:
        raise WrongArgumentsError(str(exc)) from exc


def _page(limit: int) -> int:
    return min(limit, MAX_PAGE)


def _row(version: Version) -> dict[str, Any]:
    return {
        "name": version.name,
        "version_id": version.version_id,
        "type": version.type if version.problem is None else f"not believed: {version.problem}",
        "size_bytes": version.size_bytes,
        "effective_at": version.effective_at.isoformat(),
        "recorded_at": version.recorded_at.isoformat(timespec="seconds"),
        "producer": version.producer,
    }


def _short_schema(schema: dict[str, Any] | None) -> str:
    parts = []
    for key, value in (schema or {}).items():
        if (
            isinstance(value, list)
            and value
            and all(isinstance(item, dict) and "name" in item for item in value)
        ):
            items = [
                f"{item['name']}: {item['type']}" if "type" in item else str(item["name"]) for item in value
            ]
            parts.append(
                f"{len(items)} {key}: " + ", ".join(items[:12]) + (", ..." if len(items) > 12 else "")
            )
        else:
            parts.append(f"{key}: {value}")
    return "\n".join(parts)


def _reader(reader: Reader) -> str:
    mapped = f"[{reader.map_index}]" if reader.map_index >= 0 else ""
    return (
        f"{reader.dag_id}.{reader.task_id}{mapped} in run {reader.run_id}, "
        f"try {reader.try_number}: {reader.outcome}"
    )


def _versions_to_verify(store: ArtifactStore, args: Namespace) -> Iterator[tuple[str, str]]:
    if args.version:
        if not args.name:
            raise WrongArgumentsError("--version needs the name of its artifact")
        _checked(args.version)
        yield args.name, args.version
    elif args.name:
        listed = list(store.objects.list(keys.versions_prefix(args.name), limit=args.limit))
        if not listed:
            raise ArtifactNotFoundError(_no_such(store, args.name))
        for entry in listed:
            yield args.name, _version_id(entry.key)
    else:
        for name in islice(store.names(), args.limit):
            for entry in store.objects.list(keys.versions_prefix(name), limit=1):
                yield name, _version_id(entry.key)


def _version_id(key: str) -> str:
    return key.rsplit("/", 1)[-1].removesuffix(".json")


def _verify(store: ArtifactStore, name: str, version_id: str) -> tuple[str, int | None]:
    try:
        ref = store.get(name, version_id)
    except StoreError:
        raise  # says nothing about the version
    except ArtifactError as exc:
        return one_line(exc), None
    try:
        _read_back(store, ref)
        return "ok", ref.size_bytes
    except StoreError:
        raise
    except ArtifactError as exc:
        return one_line(exc), ref.size_bytes


def _read_back(store: ArtifactStore, ref: ArtifactRef) -> None:
    """Compare the hash of a version, and of the parts without which it does not load."""
    from airflow_ml_provider.caching.entries import refs_of

    pending, seen = [ref], {ref.digest}
    while pending:
        part = pending.pop()
        with _content(store, part, None) as copy:
            if part.format != "tree-v1":
                continue
            with any_length_of_int():
                tree = json.loads(copy.read_bytes())
        for found in refs_of(tree, store):
            if found.digest not in seen:
                seen.add(found.digest)
                pending.append(found)


@contextmanager
def _content(store: ArtifactStore, ref: ArtifactRef, beside: Path | None) -> Iterator[Path]:
    """Give a private copy of the stored bytes, in the folder ``beside``, after comparing its hash."""
    with tempfile.TemporaryDirectory(prefix=".airflow-ml-", dir=beside) as folder:
        copy = Path(folder) / "content"
        store.fetch(ref, copy, verify=True)
        yield copy


def _file_name(ref: ArtifactRef) -> str:
    return keys.segment(ref.name) + _SUFFIXES.get(ref.format.partition("-")[0], f".{ref.format}")


def _place(target: Path, name: str) -> Path:
    return target / name if target.is_dir() else target


def _check_free(target: Path, *, force: bool) -> None:
    if (target.exists() or target.is_symlink()) and not force:
        raise FileExistsError(f"{target} exists already; use --force to replace it, or another --to")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no directory {target.parent}; make it first")


def _write_content(store: ArtifactStore, ref: ArtifactRef, target: Path, *, force: bool) -> Path:
    _check_free(target, force=force)
    with _content(store, ref, target.parent) as copy:
        os.replace(copy, target)
    return target


def _write_value(store: ArtifactStore, ref: ArtifactRef, target: Path, *, force: bool) -> Path:
    value = store.load(ref)
    if isinstance(value, (bytes, bytearray, memoryview)):
        target = _place(target, _file_name(ref))
        _check_free(target, force=force)
        _replace(target, lambda path: path.write_bytes(value))
        return target
    source = Path(value)
    target = _place(target, source.name)
    _check_free(target, force=force)
    _replace(
        target, lambda path: shutil.copytree(source, path) if source.is_dir() else shutil.copy2(source, path)
    )
    return target


def _write_table(store: ArtifactStore, ref: ArtifactRef, target: Path, *, force: bool) -> Path:
    _check_free(target, force=force)
    value = store.load(ref)
    if hasattr(value, "to_arrow"):  # of polars
        value = value.to_arrow()
    if hasattr(value, "to_pandas"):  # of pyarrow
        import pandas as pd

        # NumPy's types have no missing integers: those would become floats, and large ones others.
        value = value.to_pandas(types_mapper=pd.ArrowDtype)
    if not hasattr(value, "to_parquet"):
        raise UnsupportedTypeError(
            f"{ref.uri} is a {ref.type}, which is no table; --to {target.with_suffix('')} writes its own "
            f"format, {ref.format}"
        )
    index = value.index
    keep_index = type(index).__name__ != "RangeIndex" or (index.start, index.step, index.name) != (0, 1, None)
    if target.suffix == ".csv":
        _replace(target, lambda path: value.to_csv(path, index=keep_index))
    else:
        _replace(target, value.to_parquet)
    return target


def _replace(target: Path, write: Any) -> None:
    """Write beside the target first, so that a failure leaves what was there."""
    with tempfile.TemporaryDirectory(prefix=".airflow-ml-", dir=target.parent) as folder:
        fresh = Path(folder) / target.name
        write(fresh)
        if target.is_dir() and not target.is_symlink():
            os.replace(target, Path(folder) / "replaced")
        os.replace(fresh, target)
