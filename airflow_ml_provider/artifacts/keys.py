# SPDX-License-Identifier: Apache-2.0
"""Where things are in the store, and ids that sort newest first."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import string
from datetime import UTC, datetime, timedelta

# Linux allows 255 bytes a file name and S3 1,024 bytes a key: three long segments and a prefix still fit.
MAX_SEGMENT_BYTES = 200

_PLAIN = frozenset((string.ascii_letters + string.digits + "_-.").encode())
_ESCAPED = re.compile(rb"=([0-9A-F]{2})")
_EPOCH = datetime(1, 1, 1, tzinfo=UTC)
_LAST = 0xFFF_FFFF_FFFF_FFFF  # 60 bits hold the microseconds from the year 1 to beyond the year 9999
_ID = re.compile(r"[0-9a-f]{15}-[0-9a-f]{15}-[0-9a-f]{12}")
_DIGEST = re.compile(r"blake3:([0-9a-f]{64})")
_sequence = itertools.count()


def segment(text: str) -> str:
    """
    Escape user text to one segment of a key: letters, digits and ``_-.=`` only, never empty, ``.`` or ``..``.

    Other bytes become ``=2F``. Beyond 200 bytes the end is replaced by a hash, marked with ``=h``.
    """
    data = text.encode("utf-8", "surrogatepass")
    escaped = "".join(chr(byte) if byte in _PLAIN else f"={byte:02X}" for byte in data)
    if escaped.startswith("."):
        escaped = f"=2E{escaped[1:]}"
    if not escaped:
        return "=e"
    if len(escaped) <= MAX_SEGMENT_BYTES:
        return escaped
    return f"{escaped[:100]}=h{hashlib.blake2b(data, digest_size=24).hexdigest()}"


def text_of(escaped: str) -> str | None:
    """Give back what :func:`segment` escaped; None if it was hashed."""
    if escaped == "=e":
        return ""
    if "=h" in escaped:
        return None
    data = _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), escaped.encode("ascii"))
    return data.decode("utf-8", "surrogatepass")


def _micros(when: datetime) -> int:
    if when.tzinfo is None:
        raise ValueError(f"a time needs a zone, got {when!r}")
    return (when - _EPOCH) // timedelta(microseconds=1)


def new_version_id(when: datetime, effective_at: datetime | None = None) -> str:
    """
    Make an id that sorts newest ``when`` first, and ids of one process newest call first.

    It carries both clocks, so that a list of ids alone answers what held at a data time.

    :param when: Wall clock, with a zone.
    :param effective_at: Data time, with a zone; ``when`` if absent.
    """
    tie = 0xFFFF - next(_sequence) % 0x10000
    effective = _micros(when if effective_at is None else effective_at)
    return f"{_LAST - _micros(when):015x}-{effective:015x}-{tie:04x}{os.urandom(4).hex()}"


def check_version_id(version_id: str) -> str:
    """Return ``version_id``, or raise ``ValueError`` if :func:`new_version_id` never makes such an id."""
    if not isinstance(version_id, str) or not _ID.fullmatch(version_id):
        raise ValueError(f"not an artifact version id: {version_id!r}")
    return version_id


def version_time(version_id: str) -> datetime:
    """Wall clock of an id, UTC."""
    check_version_id(version_id)
    return _EPOCH + timedelta(microseconds=_LAST - int(version_id[:15], 16))


def version_effective(version_id: str) -> datetime:
    """Data time of an id, UTC."""
    check_version_id(version_id)
    return _EPOCH + timedelta(microseconds=int(version_id[16:31], 16))


def before_versions_at(when: datetime) -> str:
    """Sort before every id recorded at ``when`` or earlier, and after every later one."""
    return f"{_LAST - _micros(when):015x}"


def digest_hex(digest: str) -> str:
    """Hexadecimal part of a digest, or ``ValueError`` if it is not ``blake3:<64 hex>``."""
    match = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    if match is None:
        raise ValueError(f"not a blake3 digest: {digest!r}")
    return match[1]


def blob_key(digest: str) -> str:
    found = digest_hex(digest)
    return f"blobs/{found[:2]}/{found}"


def versions_prefix(name: str) -> str:
    return f"versions/{segment(name)}/"


def version_key(name: str, version_id: str) -> str:
    return f"{versions_prefix(name)}{check_version_id(version_id)}.json"


def collected_key(name: str, version_id: str) -> str:
    """Where garbage collection says that it removed a version, and why."""
    return f"collected/{segment(name)}/{check_version_id(version_id)}.json"


def run_records_prefix(dag_id: str, run_id: str) -> str:
    """Where the records of a DAG run are."""
    return f"records/{segment(dag_id)}/{segment(run_id)}/"


def run_of_record(key: str) -> str:
    """Return the :func:`run_records_prefix` that a record's key begins with."""
    return "/".join([*key.split("/")[:3], ""])


def record_key(dag_id: str, run_id: str, task_id: str, map_index: int, try_number: int) -> str:
    place = f"{run_records_prefix(dag_id, run_id)}{segment(task_id)}"
    return f"{place}/{int(map_index)}/{int(try_number)}.json"


def consumers_prefix(version_id: str) -> str:
    return f"consumers/{check_version_id(version_id)}/"


def model_edges_prefix(model_key: str, direction: str) -> str:
    """Where the attempts are that made (``written``) or used (``read``) a model."""
    return f"models/{segment(model_key)}/{direction}/"


def registered_prefix(registered_model_name: str) -> str:
    return f"registered/{segment(registered_model_name)}/"


def registered_key(registered_model_name: str, version: str) -> str:
    """Name a registered version so that the highest one sorts first."""
    number = int(version) if version.isdecimal() else 0
    return f"{registered_prefix(registered_model_name)}{10**12 - number:013d}-{segment(version)}.json"


def evaluation_edges_prefix(mlflow_run_id: str, direction: str) -> str:
    """Where the attempts are that made (``written``) or used (``read``) an evaluation."""
    return f"evaluations/{segment(mlflow_run_id)}/{direction}/"


def event_prefix(uri: str, event_id: str) -> str:
    """Where the DAG runs are that an asset event started."""
    return f"events/{segment(uri)}/{segment(event_id)}/"


def cache_key(key: str) -> str:
    return f"cache/{segment(key)}.json"


def last_cache_key(dag_id: str, task_id: str, map_index: int) -> str:
    return f"cache/last/{segment(dag_id)}/{segment(task_id)}/{int(map_index)}.json"


def ledger_prefix(registered_model_name: str, alias: str) -> str:
    return f"ledger/{segment(registered_model_name)}/{segment(alias)}/"


def ledger_key(registered_model_name: str, alias: str, entry_id: str) -> str:
    return f"{ledger_prefix(registered_model_name, alias)}{segment(entry_id)}.json"


def turns_prefix(registered_model_name: str, alias: str) -> str:
    return f"turns/{segment(registered_model_name)}/{segment(alias)}/"


def turn_key(registered_model_name: str, alias: str, number: int) -> str:
    """Name the turn of an alias; the latest turn sorts first."""
    return f"{turns_prefix(registered_model_name, alias)}{10**12 - number:013d}.json"
