# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_ml_provider.artifacts import keys
from airflow_ml_provider.artifacts.store import ArtifactStore
from tests.integration.faults.values import KEY
from tests.support import fault_proxy, seaweed


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[seaweed.S3Server]:
    with seaweed.running(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture
def proxy(server: seaweed.S3Server) -> Iterator[fault_proxy.FaultProxy]:
    with fault_proxy.in_front_of(server.endpoint_url) as proxy:
        yield proxy


@pytest.fixture
def direct(server: seaweed.S3Server, request: pytest.FixtureRequest) -> ArtifactStore:
    """A store of the test's own, past the proxy."""
    prefix = keys.segment(request.node.name)
    return ArtifactStore(server.root(f"faults/{prefix}"), signing_key=KEY, options=server.options)


@pytest.fixture
def store(server: seaweed.S3Server, proxy: fault_proxy.FaultProxy, direct: ArtifactStore) -> ArtifactStore:
    """The same store through the proxy, by a client that gives up soon."""
    options = {
        **server.options,
        "endpoint_url": proxy.endpoint_url,
        "timeout": 0.8,
        "max_retries": 2,
        "retry_timeout": 10,
    }
    return ArtifactStore(direct.objects.root, signing_key=KEY, options=options)
