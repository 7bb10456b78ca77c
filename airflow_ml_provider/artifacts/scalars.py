# SPDX-License-Identifier: Apache-2.0
"""
Small values that JSON has no word for, as JSON: dates, decimals, numpy and pandas scalars.

Each writer returns the fields of a node and each reader takes them; both are found by name, so a library is
imported by its own values only.
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import sys
import uuid
import zoneinfo
from collections.abc import Callable, Mapping
from typing import Any

from airflow_ml_provider.exceptions import ArtifactCorruptError, UnsupportedTypeError

Fields = dict[str, Any]

# An array inside a node; larger ones become artifacts.
MAX_INLINE_ARRAY_BYTES = 4096


def zone_to_json(zone: dt.tzinfo | None) -> Any:
    """
    Describe a time zone.

    :raises UnsupportedTypeError: for zones that have no name to find them by again.
    """
    if zone is None:
        return None
    kind = type(zone)
    if kind is dt.timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        return {"timezone": [offset // dt.timedelta(microseconds=1), *name]}
    if kind is zoneinfo.ZoneInfo and zone.key is not None:  # type: ignore[attr-defined]
        return {"zoneinfo": zone.key}  # type: ignore[attr-defined]
    home = f"{kind.__module__}.{kind.__qualname__}"
    if home == "pendulum.tz.timezone.Timezone":
        return {"pendulum": zone.name}  # type: ignore[attr-defined]
    if home == "pendulum.tz.timezone.FixedTimezone":
        return {"pendulum": zone.offset}  # type: ignore[attr-defined]
    if home.startswith("pytz.") and getattr(zone, "zone", None):
        return {"pytz": zone.zone}  # type: ignore[attr-defined]
    raise UnsupportedTypeError(
        f"the time zone {zone!r} ({home}) has no name to find it by; use zoneinfo.ZoneInfo"
    )


def zone_from_json(found: Any) -> dt.tzinfo | None:
    if found is None:
        return None
    kind, value = next(iter(found.items()))
    if kind == "timezone":
        offset = dt.timedelta(microseconds=value[0])
        return dt.UTC if value == [0] else dt.timezone(offset, *value[1:])
    if kind == "zoneinfo":
        return zoneinfo.ZoneInfo(value)
    if kind == "pendulum":
        import pendulum

        zone: dt.tzinfo = pendulum.timezone(value)
        return zone
    if kind == "pytz":
        import pytz  # type: ignore[import-untyped,unused-ignore]

        other: dt.tzinfo = pytz.timezone(value)
        return other
    raise ArtifactCorruptError(f"a time zone of the unknown kind {kind!r}")


def _write_datetime(value: dt.datetime) -> Fields:
    if type(value.tzinfo).__module__.startswith("pytz"):
        # A localised pytz zone is another object than the zone of that name.
        return {**_naive(value), "tz": zone_to_json(value.tzinfo), "utc": True} | _naive(
            value.astimezone(dt.UTC)
        )
    return {**_naive(value), "tz": zone_to_json(value.tzinfo)}


def _naive(value: dt.datetime | dt.time) -> Fields:
    fields: Fields = {"value": value.replace(tzinfo=None).isoformat()}
    if value.fold:
        fields["fold"] = value.fold
    return fields


def _read_datetime(fields: Fields) -> dt.datetime:
    value = dt.datetime.fromisoformat(fields["value"]).replace(fold=fields.get("fold", 0))
    zone = zone_from_json(fields["tz"])
    if fields.get("utc") and zone is not None:
        return value.replace(tzinfo=dt.UTC).astimezone(zone)
    return value.replace(tzinfo=zone)


def _read_time(fields: Fields) -> dt.time:
    value = dt.time.fromisoformat(fields["value"])
    return value.replace(fold=fields.get("fold", 0), tzinfo=zone_from_json(fields["tz"]))


def _write_pendulum(value: Any) -> Fields:
    return {
        "parts": [
            value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond
        ],
        "fold": value.fold,
        "tz": zone_to_json(value.tzinfo),
    }  # fmt: skip


def _read_pendulum(fields: Fields) -> Any:
    import pendulum

    made: Any = pendulum.DateTime
    return made(*fields["parts"], tzinfo=zone_from_json(fields["tz"]), fold=fields["fold"])


def _write_npy(value: Any) -> Fields:
    import numpy as np

    from airflow_ml_provider.artifacts.codecs import npy

    array = np.asarray(value)
    if not isinstance(value, np.ndarray):
        back = array[()]
        # Bytes that pad long doubles mean nothing.
        is_long = array.dtype.char in "gG" and repr(back) == repr(value)
        if type(back) is not type(value) or not (is_long or back.tobytes() == value.tobytes()):
            raise UnsupportedTypeError(
                f"{value!r} of type {type(value).__name__} would come back as {back!r}"
            )
    data = b"".join(npy.to_parts(array))
    return {
        "npy": base64.b64encode(data).decode("ascii"),
        "text": str(value)[:40].encode("ascii", "replace").decode(),
    }


def _read_npy(fields: Fields) -> Any:
    from airflow_ml_provider.artifacts.codecs import npy

    return npy.from_buffer(memoryview(bytearray(base64.b64decode(fields["npy"], validate=True))))


def _write_timestamp(value: Any) -> Fields:
    return {
        "value": int(value.asm8.view("i8")),
        "unit": value.unit,
        "tz": zone_to_json(value.tz),
        "fold": value.fold,
    }


def _read_timestamp(fields: Fields) -> Any:
    import numpy as np
    import pandas as pd

    value = pd.Timestamp(np.datetime64(fields["value"], fields["unit"]))
    zone = zone_from_json(fields["tz"])
    if zone is None:
        return value.replace(fold=1) if fields["fold"] else value
    return value.tz_localize("UTC").tz_convert(zone)


def _read_timedelta64(fields: Fields) -> Any:
    import numpy as np
    import pandas as pd

    return pd.Timedelta(np.timedelta64(fields["value"], fields["unit"]))


def _write_end(value: Any) -> Fields:
    """An end of an interval: a number, or a moment or span of pandas."""
    kind = type(value)
    if kind is int:
        return {"int": str(value)}
    if kind is float:
        return {"float": value.hex()}
    fields = write(value)
    if fields is None:
        raise UnsupportedTypeError(
            f"an interval ends at {value!r} of type {kind.__name__}; use numbers or times"
        )
    return {"other": fields}


def _read_end(fields: Fields) -> Any:
    if "int" in fields:
        return int(fields["int"])
    return float.fromhex(fields["float"]) if "float" in fields else read(fields["other"])[1]


def _read_interval(fields: Fields) -> Any:
    import pandas as pd

    return pd.Interval(_read_end(fields["left"]), _read_end(fields["right"]), closed=fields["closed"])


def _read_period(fields: Fields) -> Any:
    import pandas as pd

    return pd.Period(ordinal=fields["ordinal"], freq=fields["freq"])


def _pandas(name: str) -> Callable[[Fields], Any]:
    def read(_fields: Fields) -> Any:
        import pandas as pd

        return getattr(pd, name)

    return read


def _timedelta(value: dt.timedelta) -> Fields:
    return {"value": [value.days, value.seconds, value.microseconds], "text": str(value)}


# type name -> (tag in the node, writer)
_WRITERS: dict[str, tuple[str, Callable[[Any], Fields]]] = {
    "builtins.complex": ("complex", lambda value: {"real": value.real.hex(), "imag": value.imag.hex()}),
    "builtins.range": ("range", lambda value: {"text": [str(value.start), str(value.stop), str(value.step)]}),
    "builtins.ellipsis": ("ellipsis", lambda _value: {}),
    "decimal.Decimal": ("decimal", lambda value: {"value": str(value)}),
    "uuid.UUID": ("uuid", lambda value: {"value": str(value)}),
    "datetime.datetime": ("datetime", _write_datetime),
    "datetime.date": ("date", lambda value: {"value": value.isoformat()}),
    "datetime.time": ("time", lambda value: {**_naive(value), "tz": zone_to_json(value.tzinfo)}),
    "datetime.timedelta": ("timedelta", _timedelta),
    "datetime.timezone": ("tzinfo", lambda value: {"value": zone_to_json(value)}),
    "zoneinfo.ZoneInfo": ("tzinfo", lambda value: {"value": zone_to_json(value)}),
    "pendulum.datetime.DateTime": ("pendulum.DateTime", _write_pendulum),
    "pandas.Timestamp": ("pandas.Timestamp", _write_timestamp),
    "pandas.Timedelta": (
        "pandas.Timedelta",
        lambda value: {"value": int(value.asm8.view("i8")), "unit": value.unit},
    ),
    "pandas.Period": (
        "pandas.Period",
        lambda value: {"ordinal": value.ordinal, "freq": value.freqstr, "text": str(value)},
    ),
    "pandas.Interval": (
        "pandas.Interval",
        lambda value: {
            "left": _write_end(value.left), "right": _write_end(value.right), "closed": value.closed
        },
    ),
    "pandas.NaT": ("pandas.NaT", lambda _value: {}),
    "pandas.NA": ("pandas.NA", lambda _value: {}),
}  # fmt: skip
_ALIASES = {
    "pandas._libs.tslibs.timestamps.Timestamp": "pandas.Timestamp",
    "pandas._libs.tslibs.timedeltas.Timedelta": "pandas.Timedelta",
    "pandas._libs.tslibs.period.Period": "pandas.Period",
    "pandas._libs.interval.Interval": "pandas.Interval",
    "pandas._libs.tslibs.nattype.NaTType": "pandas.NaT",
    "pandas.NaTType": "pandas.NaT",
    "pandas.api.typing.NaTType": "pandas.NaT",
    "pandas._libs.missing.NAType": "pandas.NA",
    "pandas.api.typing.NAType": "pandas.NA",
    "pandas.NAType": "pandas.NA",
}
_READERS: dict[str, Callable[[Fields], Any]] = {
    "complex": lambda fields: complex(float.fromhex(fields["real"]), float.fromhex(fields["imag"])),
    "range": lambda fields: range(*(int(part) for part in fields["text"])),
    "ellipsis": lambda _fields: ...,
    "decimal": lambda fields: decimal.Decimal(fields["value"]),
    "uuid": lambda fields: uuid.UUID(fields["value"]),
    "datetime": _read_datetime,
    "date": lambda fields: dt.date.fromisoformat(fields["value"]),
    "time": _read_time,
    "timedelta": lambda fields: dt.timedelta(*fields["value"]),
    "tzinfo": lambda fields: zone_from_json(fields["value"]),
    "pendulum.DateTime": _read_pendulum,
    "pandas.Timestamp": _read_timestamp,
    "pandas.Timedelta": _read_timedelta64,
    "pandas.Period": _read_period,
    "pandas.Interval": _read_interval,
    "pandas.NaT": _pandas("NaT"),
    "pandas.NA": _pandas("NA"),
    "numpy.scalar": lambda fields: _read_npy(fields)[()],
    "numpy.ndarray": _read_npy,
    "str": lambda fields: base64.b64decode(fields["utf8"]).decode("utf-8", "surrogatepass"),
    "bytes": lambda fields: base64.b64decode(fields["base64"], validate=True),
}


def is_numpy_scalar(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.generic)


def write(value: Any, *, inside: bool = False) -> Fields | None:  # noqa: PLR0911 - one for each type
    """
    Describe ``value`` as ``{"type": ..., ...}``, or return None if it is none of these.

    :param inside: It stands in a cell or label, where there can be no artifact: small bytes and arrays too.
    """
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if found := _WRITERS.get(_ALIASES.get(name, name)):
        return {"type": found[0], **found[1](value)}
    if kind is str:  # called for text that JSON cannot carry only
        return {
            "type": "str",
            "utf8": base64.b64encode(value.encode("utf-8", "surrogatepass")).decode("ascii"),
        }
    if is_numpy_scalar(value):
        if value.nbytes > MAX_INLINE_ARRAY_BYTES and not inside:
            return None
        return {"type": "numpy.scalar", **_write_npy(value)}
    if inside and kind is bytes:
        return {"type": "bytes", "base64": base64.b64encode(value).decode("ascii")}
    if inside and name == "numpy.ndarray":
        return {"type": "numpy.ndarray", **_write_npy(value)}
    return None


def read(fields: Mapping[str, Any]) -> tuple[bool, Any]:
    """Rebuild what :func:`write` described; (False, None) if its type is none of these."""
    reader = _READERS.get(fields["type"])
    if reader is None:
        return False, None
    return True, reader(dict(fields))
