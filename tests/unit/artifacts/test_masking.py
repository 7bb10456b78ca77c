# SPDX-License-Identifier: Apache-2.0
"""What previews do not show."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from airflow_ml_provider import Artifact
from airflow_ml_provider.artifacts.preview import SECRET_NAMES, masked
from airflow_ml_provider.artifacts.store import ArtifactStore

PEOPLE = pd.DataFrame({"name": ["Ada"], "ssn": ["123-45"], "Email_work": ["ada@x.org"], "age": [36]})


@pytest.mark.parametrize(
    ("shown", "patterns", "expected"),
    [
        ([{"ssn": 1, "a": 2}], ["ssn"], [{"ssn": "***", "a": 2}]),
        ([{"SSN": 1}], ["ssn"], [{"SSN": "***"}]),
        ([{"ssn": 1}], ["SS*"], [{"ssn": "***"}]),
        ({"a": {"b": {"ssn": [1, 2]}}}, ["ssn"], {"a": {"b": {"ssn": "***"}}}),
        ({"ssn": {"a": 1}}, ["ssn"], {"ssn": "***"}),
        ([{"ssn2": 1}], ["ssn"], [{"ssn2": 1}]),
        ([{"a\nssn": 1}], ["*ssn"], [{"a\nssn": "***"}]),
        ([1, "ssn"], ["ssn"], [1, "ssn"]),
        (None, ["*"], None),
        ({"a": 1}, [], {"a": 1}),
    ],
)
def test_what_stands_under_a_masked_name_is_hidden(shown: Any, patterns: list[str], expected: Any) -> None:
    assert masked(shown, patterns) == expected


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("password", True),
        ("DB_PASSWORD", True),
        ("clientSecret", True),
        ("api_key", True),
        ("apiKey", True),
        ("aws_secret_access_key", True),
        ("token", True),
        ("access_token", True),
        ("Authorization", True),
        ("n_tokens", False),
        ("token_id", False),
        ("key", False),
        ("passenger", False),
    ],
)
def test_obviously_secret_names_are_masked_and_common_ones_are_not(name: str, hidden: bool) -> None:
    assert (masked([{name: 1}], SECRET_NAMES) == [{name: "***"}]) is hidden


@pytest.mark.parametrize("make", [lambda frame: frame, pa.Table.from_pandas])
def test_an_artifacts_own_columns_are_masked_and_its_data_is_not(store: ArtifactStore, make: Any) -> None:
    value = make(PEOPLE)

    tree = store.encode(value, name="people", mask=("ssn", "email_*"))

    assert tree["preview"] == [{"name": "Ada", "ssn": "***", "Email_work": "***", "age": 36}]
    assert store.decode(tree).equals(value)
    assert store.get("people").preview == tree["preview"]
    assert "123-45" not in json.dumps(tree)


def test_a_deployment_masks_in_every_preview(tmp_path: Any) -> None:
    store = ArtifactStore(tmp_path.as_uri(), signing_key=b"k" * 32, mask=["ssn"])

    tree = store.encode(
        {"frame": PEOPLE, "ssn": "123-45" * 5000, "long": {"ssn": "123-45", "text": "x" * 20_000}},
        name="task",
    )

    assert tree["frame"]["preview"][0]["ssn"] == "***"
    assert tree["long"]["preview"]["ssn"] == "***"
    assert "123-45" not in json.dumps(tree)


def test_parts_are_masked_by_the_key_they_stand_under(store: ArtifactStore) -> None:
    tree = store.encode({"password": b"hunter2hunter2", "photo": b"abc"}, name="task")

    assert tree["password"]["preview"] == "***"
    assert tree["photo"]["preview"] == "616263"


def test_dicts_in_cells_are_not_spelled_out(store: ArtifactStore) -> None:
    table = pa.table({"login": [{"user": "ada", "password": "hunter2"}]})

    assert "hunter2" not in json.dumps(store.encode(table, name="task"))


@pytest.mark.parametrize(
    "value",
    [
        pd.Series(["123-45-6789"], name="ssn"),
        pd.Index(["123-45-6789"], name="ssn"),
        pd.MultiIndex.from_tuples([("123-45-6789", 1)], names=["ssn", None]),
        pl.Series("ssn", ["123-45-6789"]),
        {"part": pd.Series(["123-45-6789"], name="SSN")},
    ],
    ids=["series", "index", "levels", "polars", "inside"],
)
def test_a_series_or_index_with_a_masked_name_is_hidden(store: ArtifactStore, value: Any) -> None:
    assert "123-45-6789" in json.dumps(store.encode(value, name="shown"))
    assert "123-45-6789" not in json.dumps(store.encode(value, name="hidden", mask=("ssn",)))


def test_the_same_content_under_another_mask_is_stored_once(store: ArtifactStore) -> None:
    assert store.save(PEOPLE, "a").digest == store.save(PEOPLE, "b", mask=["age"]).digest


@pytest.mark.parametrize("mask", ["ssn", (1,), None])
def test_a_mask_is_a_tuple_of_names(mask: Any) -> None:
    with pytest.raises(TypeError, match="mask is a tuple"):
        Artifact("people", mask=mask)
