# SPDX-License-Identifier: Apache-2.0
"""What a save and a load ask of the server, counted on the way, whatever the history of the name."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.envelope import to_envelope
from airflow_ml_provider.artifacts.refs import ArtifactRef
from airflow_ml_provider.artifacts.store import ArtifactStore
from tests.integration.faults.values import KEY, made
from tests.support import seaweed
from tests.support.fault_proxy import FaultProxy

pytestmark = pytest.mark.s3

X = np.arange(20.0).reshape(10, 2)
VALUES: dict[str, Any] = {
    "frame": pd.DataFrame(X, columns=["a", "b"]),
    "array": X,
    "large array": np.arange(500_000.0),
    "estimator": LinearRegression().fit(X, X[:, 0]),
    "bytes": b"bytes",
    "text": "text" * 10_000,
    "file": Path(__file__),
}


@pytest.fixture
def store(server: seaweed.S3Server, proxy: FaultProxy, direct: ArtifactStore) -> ArtifactStore:
    options = {**server.options, "endpoint_url": proxy.endpoint_url}
    return ArtifactStore(direct.objects.root, signing_key=KEY, options=options)


def remember(store: ArtifactStore, ref: ArtifactRef, count: int) -> None:
    """Write so many earlier versions of a name."""

    def write(number: int) -> None:
        then = datetime.now(UTC) - timedelta(days=number + 1)
        version_id = keys.new_version_id(then)
        doc = {**to_envelope(ref, store.signer), "version_id": version_id}
        store.objects.put_json(keys.version_key(ref.name, version_id), doc)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(count)))


@pytest.mark.parametrize("earlier", [0, 10, 500])
def test_requests_are_few_and_do_not_grow_with_the_history(
    store: ArtifactStore, direct: ArtifactStore, proxy: FaultProxy, earlier: int
) -> None:
    remember(direct, direct.save(b"other content", "history"), earlier)
    for name, value in VALUES.items():
        proxy.forget()
        ref = store.save(value, "history")
        saving = proxy.counts()
        proxy.forget()
        again = store.save(value, "history")
        saving_again = proxy.counts()
        proxy.forget()
        back = ref.load()
        loading = proxy.counts()
        proxy.forget()
        assert store.get("history") == again
        finding = proxy.counts()

        assert type(back) is type(value) or name == "file"
        assert saving.total() <= 3, (name, saving)
        assert saving["put versions"] == 1
        assert saving_again.total() <= 3, (name, saving_again)
        assert loading.total() <= 2, (name, loading)
        assert finding == {"list versions": 1, "get versions": 1}


@pytest.mark.parametrize("earlier", [0, 200])
def test_a_table_in_pieces_asks_for_a_few_more_whatever_the_history(
    store: ArtifactStore, direct: ArtifactStore, proxy: FaultProxy, earlier: int
) -> None:
    remember(direct, direct.save(b"other content", "tables"), earlier)
    proxy.forget()
    first = store.save(made("table", 0, Path()), "tables")
    counts = proxy.counts()
    assert first.format == "arrow-chunks-v1"
    assert counts == {"get heads": 1, "head blobs": 1, "put blobs": 1, "put versions": 1, "put heads": 1}

    for number in range(1, 5):
        proxy.forget()
        ref = store.save(made("table", number, Path()), "tables")
        counts = proxy.counts()
        assert 2 <= len(ref.parts) <= 6
        assert counts == {
            "get heads": 1,
            "head blobs": len(ref.parts) - 1,  # that the earlier packs are there
            "put blobs": 1,
            "put versions": 1,
            "put heads": 1,
        }
        proxy.forget()
        pd.testing.assert_frame_equal(store.load(ref), made("table", number, Path()))
        assert proxy.counts() == {"get blobs": len(ref.parts)}

    proxy.forget()
    store.save(made("table", 4, Path()), "tables")
    assert proxy.counts() == {"get heads": 1, "head blobs": len(ref.parts), "put versions": 1}


def test_a_part_of_a_table_asks_for_that_part(
    store: ArtifactStore, direct: ArtifactStore, proxy: FaultProxy
) -> None:
    rng = np.random.default_rng(7)
    table = pd.DataFrame({f"c{number}": rng.normal(size=200_000) for number in range(12)})
    table["word"] = pd.Categorical.from_codes(rng.integers(0, 3, len(table)), ["a", "b", "c"])
    ref = store.save(table, "parts of tables")
    longer = pd.concat([table, table[:2000]], ignore_index=True)
    second = store.save(longer, "parts of tables")
    assert (len(ref.parts), len(second.parts)) == (1, 2)

    for wanted, version, value in (
        (["c3"], ref, table),
        (["c11", "word"], ref, table),
        (["word", "c0"], second, longer),
    ):
        proxy.forget()
        pd.testing.assert_frame_equal(store.load(version, columns=wanted), value[wanted])

        ranges = [request.headers["range"] for request in proxy.seen if "range" in request.headers]
        taken = sum(int(stop) - int(start) + 1 for start, stop in (r[6:].split("-") for r in ranges))
        counts = proxy.counts()
        small = len(version.parts) - 1  # packs that are fetched whole
        assert counts == {"head blobs": len(version.parts), "get blobs": len(ranges) + small}
        assert len(ranges) <= 4
        assert taken < version.size_bytes / 4, (wanted, ranges)

    proxy.forget()
    pd.testing.assert_frame_equal(store.load(ref, rows=slice(5, 9)), table[5:9])
    assert proxy.counts()["head blobs"] == 1
    assert proxy.counts()["get blobs"] <= 1 + len(table.columns)  # the recipe, and a stretch of each column
    ranges = [request.headers["range"] for request in proxy.seen if "range" in request.headers]
    taken = sum(int(stop) - int(start) + 1 for start, stop in (r[6:].split("-") for r in ranges))
    assert taken < ref.size_bytes / 8
