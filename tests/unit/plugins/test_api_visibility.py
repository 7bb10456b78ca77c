# SPDX-License-Identifier: Apache-2.0
"""A user who may not see a DAG finds no trace of it, wherever it is."""

from __future__ import annotations

import base64
import contextlib
import zlib
from typing import Any
from urllib.parse import quote

import pytest

from tests.unit.plugins.world import MODEL, OPEN, SECRET, run_id

RUN = f"dags/{OPEN}/runs/{quote(run_id(0))}"
BLAST = f"lineage/blast?node={quote(f'{OPEN}/{run_id(0)}/make_features', safe='')}"
FEATURES = "artifacts/version?name=features"
EVERYTHING = [
    "status",
    "dags",
    f"runs?dag_id={OPEN}",
    RUN,
    f"{RUN}/graph",
    f"dags/{OPEN}/runs/{quote(run_id(2))}/comparison",
    f"dags/{OPEN}/runs/{quote(run_id(1))}/comparison?with={quote(run_id(0))}",
    f"{RUN}/tasks/make_features",
    f"{RUN}/tasks/make_features/graph?depth=9",
    f"{RUN}/tasks/fit",
    f"{RUN}/tasks/evaluate",
    f"{RUN}/tasks/promote",
    f"{RUN}/tasks/no_such_task",
    f"dags/{OPEN}/metrics",
    f"dags/{OPEN}/evaluations",
    "models",
    f"models/{MODEL}",
    f"models/{MODEL}/versions",
    f"models/{MODEL}/timeline",
    f"models/{MODEL}/timeline?clock=wall",
    f"models/{MODEL}/evaluations",
    f"models/{MODEL}/diff?from=1&to=3",
    "artifacts",
    "artifacts?search=e",
    "artifacts/versions?name=features",
    FEATURES,
    "artifacts/growth?name=features",
    f"lineage?node=models:/{MODEL}@champion&depth=9",
    f"lineage?node=models:/{MODEL}/1&depth=9",
    "lineage/search?q=e",
    "lineage/search?q=a",
    BLAST,
]
HIDDEN = [
    "models/secret_model",
    "models/secret_model/versions",
    "models/secret_model/timeline",
    "models/secret_model/evaluations",
    "models/secret_model/diff?from=1&to=1",
    "artifacts/versions?name=secret_data",
    "artifacts/version?name=secret_data",
    "artifacts/growth?name=secret_data",
    "lineage?node=secret_data",
    "lineage?node=models:/secret_model@champion",
    "lineage?node=models:/secret_model/1",
    "lineage?node=model:m-secret_model-1",
    f"lineage?node=task:{SECRET}/{quote(run_id(0), safe='')}/secret_task/-1/1",
    "lineage/blast?node=secret_data",
]
FORBIDDEN = [
    f"dags/{SECRET}/metrics",
    f"dags/{SECRET}/evaluations",
    f"runs?dag_id={SECRET}",
    f"dags/{SECRET}/runs/{quote(run_id(0))}",
    f"dags/{SECRET}/runs/{quote(run_id(0))}/graph",
    f"dags/{SECRET}/runs/{quote(run_id(1))}/comparison",
    f"dags/{SECRET}/runs/{quote(run_id(0))}/tasks/secret_task",
    f"dags/{SECRET}/runs/{quote(run_id(0))}/tasks/secret_task/graph",
    f"dags/{SECRET}/runs/{quote(run_id(0))}/tasks/secret_task/metrics",
]


@pytest.mark.parametrize("path", EVERYTHING)
def test_no_answer_to_a_narrow_user_has_a_trace_of_the_other_dag(api: Any, world: Any, path: str) -> None:
    answer = api("narrow").get(path)

    assert answer.status_code == 200, answer.text
    assert "secret" not in answer.text


def test_where_a_graph_goes_on_tells_nothing_of_the_other_dag(api: Any, world: Any) -> None:
    def told(cursor: str) -> bytes:
        text = base64.urlsafe_b64decode(cursor)
        with contextlib.suppress(zlib.error):
            text += zlib.decompress(text)
        return text

    address = f"lineage?node=version:features@{world.versions['features', 0].version_id}&depth=5"
    for limit in range(1, 6):
        cursor, seen = "", 0
        while seen < 50:
            answer = api("narrow").get(f"{address}&limit={limit}{cursor}")
            assert "secret" not in answer.text
            seen += 1
            if (following := answer.json()["next"]) is None:
                break
            assert b"secret" not in told(following)
            cursor = f"&cursor={quote(following)}"
        assert 1 < seen < 50


def test_whoever_may_see_it_finds_it_everywhere(api: Any, world: Any) -> None:
    seen = [path for path in EVERYTHING if "secret" in api("viewer").get(path).text]

    assert {
        "dags",
        f"{RUN}/graph",
        f"{RUN}/tasks/make_features",
        f"models/{MODEL}/timeline",
        "models",
        "artifacts",
        "lineage/search?q=e",
        BLAST,
    } <= set(seen)


@pytest.mark.parametrize("path", HIDDEN)
def test_what_is_hidden_answers_as_if_it_were_absent(api: Any, world: Any, path: str) -> None:
    hidden = api("narrow").get(path)
    absent = api("narrow").get(path.replace("secret", "absent"))

    assert (hidden.status_code, hidden.json()) == (absent.status_code, absent.json())
    assert hidden.status_code == 404
    assert api("viewer").get(path).status_code == 200


@pytest.mark.parametrize("path", FORBIDDEN)
def test_addresses_of_the_other_dag_are_forbidden(api: Any, world: Any, path: str) -> None:
    answer = api("narrow").get(path)

    assert answer.status_code == 403
    assert answer.json()["code"] == "forbidden"
    assert "secret" not in answer.text
    assert api("viewer").get(path).status_code == 200
    assert api(None).get(path).status_code == 401


@pytest.mark.parametrize("path", EVERYTHING)
def test_nobody_gets_any_answer_without_login(api: Any, world: Any, path: str) -> None:
    assert api(None).get(path).status_code == 401
    assert api("guest", None).get(path).status_code == 403


def test_a_model_is_there_for_each_dag_that_registered_a_version(api: Any, world: Any) -> None:
    world.model(OPEN, 0, "shared", 1)
    world.model(SECRET, 1, "shared", 2)

    assert api("narrow").get("models/shared").status_code == 200
    answer = api("narrow").get("models/shared/versions").json()
    assert [each["version"] for each in answer["items"]] == ["1"]
    assert answer["hidden"] == 1
    world.model(SECRET, 1, "secret_alone", 1)
    assert api("narrow").get("models/secret_alone").status_code == 404
    assert api("narrow").get("lineage/search?q=secret_alone").json()["items"] == []
    assert len(api("viewer").get("lineage/search?q=secret_alone").json()["items"]) == 1


def test_what_touches_a_hidden_dag_is_counted(api: Any, world: Any) -> None:
    narrow = api("narrow")

    assert narrow.get(f"{RUN}/tasks/make_features").json()["record"]["hidden"] == 1
    assert narrow.get(f"models/{MODEL}").json()["hidden"] >= 1
    node = "version:features@" + world.versions["features", 0].version_id
    assert narrow.get(f"lineage?node={node}").json()["hidden"] >= 1


def test_every_route_is_asked_here() -> None:
    from airflow_ml_provider.plugins.api.app import make_api

    def kind(path: str) -> str:
        parts = path.partition("?")[0].split("/")
        return "/".join(
            "{}" if before in ("dags", "runs", "tasks", "models") else part
            for before, part in zip(["", *parts], parts, strict=False)
        )

    asked = {kind(path) for path in (*EVERYTHING, *FORBIDDEN)}
    routes = {
        "/".join("{}" if part.startswith("{") else part for part in route.path.strip("/").split("/"))
        for route in make_api().routes
    }
    assert routes == asked
