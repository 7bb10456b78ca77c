# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from airflow_ml_provider.tracking.waiting import Wanted, find_version


@pytest.fixture
def model(client, name):
    """Three versions; the second has a tag, the first and second have runs with metrics."""
    client.create_registered_model(name)
    experiment = client.create_experiment(name)
    for number, auc in ((1, 0.6), (2, 0.8), (3, None)):
        run = client.create_run(experiment)
        if auc is not None:
            client.log_metric(run.info.run_id, "roc_auc", auc)
        client.create_model_version(
            name,
            f"runs:/{run.info.run_id}/model",
            run_id=run.info.run_id,
            tags={"approved": "yes"} if number == 2 else None,
        )
    client.set_registered_model_alias(name, "champion", "1")
    return name


@pytest.mark.parametrize(
    ("wanted", "version"),
    [
        pytest.param({}, "3", id="any: the newest"),
        pytest.param({"alias": "champion"}, "1", id="alias"),
        pytest.param({"alias": "shadow"}, None, id="alias that is not set"),
        pytest.param({"alias": "champion", "min_version": 2}, None, id="alias at an older version"),
        pytest.param({"min_version": 3}, "3", id="number reached"),
        pytest.param({"min_version": 4}, None, id="number not reached"),
        pytest.param({"tags": {"approved": "yes"}}, "2", id="tag"),
        pytest.param({"tags": {"approved": None}}, "2", id="tag of any value"),
        pytest.param({"tags": {"approved": "no"}}, None, id="tag of another value"),
        pytest.param({"metrics": {"roc_auc": 0.7}}, "2", id="metric"),
        pytest.param({"metrics": {"roc_auc": 0.8}}, "2", id="metric at the limit"),
        pytest.param({"metrics": {"roc_auc": 0.81}}, None, id="metric below"),
        pytest.param({"alias": "champion", "metrics": {"roc_auc": 0.7}}, None, id="not of that version"),
        pytest.param({"tags": {"approved": "yes"}, "min_version": 3}, None, id="all must hold"),
    ],
)
def test_the_newest_version_that_is_all_that_is_wanted(client, model, wanted, version):
    found = find_version(client, Wanted(model, **wanted))
    assert (found and found.version) == version


def test_a_model_that_is_not_registered_yet_is_not_there_yet(client, name):
    assert find_version(client, Wanted(name)) is None
    assert find_version(client, Wanted(name, alias="champion")) is None


def test_the_metrics_of_the_run_come_with_it(client, model):
    assert find_version(client, Wanted(model, metrics={"roc_auc": 0.7})).metrics == {"roc_auc": 0.8}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"min_version": 0}, "version's number from 1"),
        ({"min_version": True}, "version's number from 1"),
        ({"min_version": "3"}, "version's number from 1"),
        ({"tags": ["approved"]}, "tags must be a dict"),
        ({"metrics": {"roc_auc": "high"}}, "must be a number"),
        ({"metrics": {"roc_auc": float("nan")}}, "must be a number"),
    ],
)
def test_wishes_that_nothing_fulfils_are_refused(arguments, error):
    with pytest.raises((TypeError, ValueError), match=error):
        Wanted("m", **arguments)


def test_what_is_waited_for_reads_as_a_sentence_and_survives_being_stored():
    wanted = Wanted("m", "champion", 3, {"approved": "yes", "seen": None}, {"roc_auc": 0.7})
    assert str(wanted) == (
        "a version of 'm' with alias 'champion', version at least 3, tag 'approved' = 'yes', tag 'seen', "
        "roc_auc at least 0.7"
    )
    assert Wanted(**wanted.to_json()) == wanted
