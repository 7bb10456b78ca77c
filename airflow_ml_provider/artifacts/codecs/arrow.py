# SPDX-License-Identifier: Apache-2.0
"""
``arrow-v1``: an Arrow IPC file, its buffers compressed with zstd.

Tables and record batches are stored as they are. Frames, series and indexes of pandas carry a description of
what Arrow does not say, under ``airflow_ml_provider`` in the schema's metadata. Any Arrow reader opens the
file.
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa  # noqa: TID253 - this module is imported on first use

from airflow_ml_provider.artifacts import preview
from airflow_ml_provider.artifacts.codecs.registry import Encoded, Stored, type_name
from airflow_ml_provider.exceptions import ArtifactCorruptError, UnsupportedTypeError

_KEY = b"airflow_ml_provider"
# A fifth smaller and slower than lz4 on disk; faster as soon as a network carries it.
_COMPRESSION = "zstd"
# Compressed in parallel by column; below this the threads cost more.
_SMALL_BYTES = 64 << 10


def dump(value: Any) -> Encoded:
    kind = type_name(type(value))
    if kind.startswith("pyarrow."):
        return _dump_arrow(value)
    from airflow_ml_provider.artifacts.codecs import frames

    table, described, schema, shown = frames.to_arrow(value)
    table = table.replace_schema_metadata({_KEY: json.dumps(described, sort_keys=True).encode("ascii")})
    return Encoded([_file_of(table)], schema=schema, preview=shown, type=f"pandas.{type(value).__name__}")


def _dump_arrow(value: pa.Table | pa.RecordBatch) -> Encoded:
    metadata = dict(value.schema.metadata or {})
    if _KEY in metadata:
        raise UnsupportedTypeError(
            f"the schema's metadata key {_KEY.decode()!r} is this store's own; remove it"
        )
    is_batch = isinstance(value, pa.RecordBatch)
    described = {"kind": "batch" if is_batch else "table", "metadata": value.schema.metadata is not None}
    table = pa.Table.from_batches([value]) if is_batch else value
    marked = table.replace_schema_metadata({**metadata, _KEY: json.dumps(described, sort_keys=True).encode()})
    try:
        content = _file_of(marked)
    except pa.ArrowException as exc:
        raise UnsupportedTypeError(f"Arrow cannot write this table to a file: {exc}") from exc
    return Encoded(
        [content],
        schema={
            "columns": [
                {"name": preview.short(field.name), "type": preview.short(str(field.type))}
                for field in list(value.schema)[:200]
            ],
            "rows": value.num_rows,
        },
        preview=_preview(value),
        type=f"pyarrow.{type(value).__name__}",
    )


def _preview(value: pa.Table | pa.RecordBatch) -> Any:
    rows = []
    columns = [
        (preview.short(name), index) for index, name in enumerate(value.schema.names[: preview.MAX_COLUMNS])
    ]
    for number in range(min(preview.MAX_ROWS, value.num_rows)):
        try:
            rows.append({name: preview.cell(value.column(index)[number].as_py()) for name, index in columns})
        except Exception:  # noqa: BLE001 - a preview never fails the task whose value it shows
            break
    return preview.fit(rows)


def _file_of(table: pa.Table) -> memoryview:
    large = table.nbytes > _SMALL_BYTES
    options = pa.ipc.IpcWriteOptions(
        compression=_COMPRESSION if table.nbytes > 512 else None, use_threads=large, unify_dictionaries=True
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return memoryview(sink.getvalue())


def load(data: memoryview, info: Stored) -> Any:
    with pa.ipc.open_file(pa.py_buffer(data), options=pa.ipc.IpcReadOptions(use_threads=True)) as reader:
        table = reader.read_all()
    metadata = dict(table.schema.metadata or {})
    try:
        described = json.loads(metadata.pop(_KEY))
    except (KeyError, ValueError) as exc:
        raise ArtifactCorruptError(f"{info.name!r} is an Arrow file that this store did not write") from exc
    if described["kind"] in ("table", "batch"):
        table = table.replace_schema_metadata(metadata if described["metadata"] else None)
        if described["kind"] == "table":
            return table
        batches = table.combine_chunks().to_batches()
        return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
    from airflow_ml_provider.artifacts.codecs import frames

    return frames.from_arrow(table, described)
