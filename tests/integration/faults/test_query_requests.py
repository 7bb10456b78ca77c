# SPDX-License-Identifier: Apache-2.0
"""What questions ask of a real S3 server, counted on the way, with much history."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_ml_provider import MLClient
from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.envelope import to_envelope
from airflow_ml_provider.artifacts.refs import ArtifactRef, Producer
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.lineage.queries import Queries
from airflow_ml_provider.lineage.records import TaskRecord, VersionUse, write_record
from airflow_ml_provider.settings import Settings
from tests.integration.faults.values import KEY
from tests.support import seaweed
from tests.support.fault_proxy import FaultProxy

pytestmark = pytest.mark.s3

VERSIONS, RUNS = 1200, 30  # more than a page of S3 has
FIRST = datetime(2013, 1, 1, tzinfo=UTC)


def day(number: int) -> datetime:
    return FIRST + timedelta(days=number)


@pytest.fixture(scope="module")
def history(server: seaweed.S3Server) -> ArtifactRef:
    """The newest of many versions, and runs that read it and measured something."""
    store = ArtifactStore(server.root("queries"), signing_key=KEY, options=server.options)
    ref = store.save(
        b"content", "history", producer=Producer("training", "run 0", "load"), effective_at=day(0)
    )

    def remember(number: int) -> None:
        when = ref.recorded_at - timedelta(minutes=number)
        effective = day(VERSIONS - number)
        version_id = keys.new_version_id(when, effective)
        older = replace(ref, version_id=version_id, recorded_at=when, effective_at=effective)
        store.objects.put_json(keys.version_key("history", version_id), to_envelope(older, store.signer))

    def run(number: int) -> None:
        facts: dict[str, Any] = {"run": {"run_after": day(number).isoformat(), "run_type": "scheduled"}}
        for task_id in ("load", "fit"):
            if task_id == "fit":
                facts |= {"metrics": {"auc": number / 100}, "reads": (VersionUse.of(ref),)}
            write_record(
                store.objects, TaskRecord("training", f"run {number}", task_id, -1, 1, "success", **facts)
            )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(remember, range(1, VERSIONS)))
        list(pool.map(run, range(RUNS)))
    return ref


@pytest.fixture
def anew(server: seaweed.S3Server, proxy: FaultProxy, history: ArtifactRef) -> Callable[[], Queries]:
    """Return a function that begins to count and gives queries that remember nothing."""

    def begin() -> Queries:
        options = {**server.options, "endpoint_url": proxy.endpoint_url}
        proxy.forget()
        return Queries(ArtifactStore(server.root("queries"), signing_key=KEY, options=options))

    return begin


def test_a_page_is_one_list_and_one_read_an_item_however_long_the_history(
    anew: Callable[[], Queries], proxy: FaultProxy, history: ArtifactRef
) -> None:
    page = anew().versions("history", limit=20)
    assert page.items[0].version_id == history.version_id
    assert proxy.counts() == {"list versions": 1, "get versions": 20}
    following = anew().versions("history", limit=20, cursor=page.cursor)
    assert following.items[0].recorded_at < page.items[-1].recorded_at
    assert proxy.counts() == {"list versions": 1, "get versions": 20}


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        (lambda q, ref: q.artifacts(), {"list versions": 2, "get versions": 1}),
        (lambda q, ref: q.version("history"), {"list versions": 1, "get versions": 1}),
        (lambda q, ref: q.version("history", ref.version_id), {"get versions": 1}),
        (
            lambda q, ref: q.version("history", as_of=ref.recorded_at, clock="wall"),
            {"list versions": 1, "get versions": 1},
        ),
        (lambda q, ref: q.version("history", as_of=day(600)), {"list versions": 2, "get versions": 1}),
        (lambda q, ref: q.storage("history", limit=10), {"list versions": 1, "get versions": 10}),
        (lambda q, ref: q.readers(ref.version_id, limit=10), {"list other": 1, "get other": 10}),
        (lambda q, ref: q.runs("training", limit=10), {"list other": 1, "get other": 10}),
        (lambda q, ref: q.measured("training", limit=10), {"list other": 1, "get other": 10}),
        (lambda q, ref: q.attempts("training", "run 3", "fit"), {"list records": 1, "get records": 1}),
        (lambda q, ref: q.run_attempts("training", "run 3"), {"list records": 1, "get records": 2}),
    ],
)
def test_questions_cost_what_they_answer(
    anew: Callable[[], Queries],
    proxy: FaultProxy,
    history: ArtifactRef,
    ask: Callable[[Queries, ArtifactRef], Any],
    expected: dict[str, int],
) -> None:
    ask(anew(), history)
    assert proxy.counts() == expected


def test_the_client_reads_a_bucket_with_nothing_but_its_address_key_and_credentials(
    server: seaweed.S3Server, history: ArtifactRef
) -> None:
    client = MLClient(Settings(server.root("queries"), KEY), storage_options=server.options)
    assert client.artifact("history").load() == b"content"
    assert client.artifact("history", as_of=day(600)).effective_at == day(600)
    table = client.runs("training", limit=5)
    assert table["run_id"].tolist() == [f"run {number}" for number in range(RUNS - 1, RUNS - 6, -1)]
    assert table["metrics.fit.auc"].tolist() == [0.29, 0.28, 0.27, 0.26, 0.25]
    assert {run.run_id for run in client.blast_radius(history).runs} == {f"run {n}" for n in range(RUNS)}
