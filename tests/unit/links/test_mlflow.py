# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy

from airflow_ml_provider.links.mlflow import MlflowModelLink, MlflowRunLink


class FakeTaskInstance:
    def __init__(self, fails: bool = False) -> None:
        self.pushed: list[tuple[str, object]] = []
        self.fails = fails

    def xcom_push(self, key: str, value: object) -> None:
        if self.fails:
            raise RuntimeError("API server is away")
        self.pushed.append((key, value))


class FakeOperator:
    pass


URL = "https://mlflow.example/#/experiments/1/runs/abc"


def test_a_link_is_pushed_as_soon_as_it_is_known_and_is_the_same_at_the_end():
    operator, ti, link = FakeOperator(), FakeTaskInstance(), MlflowRunLink()
    link.publish(operator, {"ti": ti}, URL)
    link.publish(operator, {"ti": ti}, URL)
    assert ti.pushed == [("_link_MlflowRunLink", URL)]
    assert MlflowRunLink().get_link(operator, ti_key=None) == URL


def test_two_links_of_one_task_do_not_mix():
    operator, ti = FakeOperator(), FakeTaskInstance()
    MlflowModelLink().publish(operator, {"ti": ti}, URL)
    assert MlflowRunLink().get_link(operator, ti_key=None) == ""


def test_a_link_that_cannot_be_pushed_does_not_fail_the_task(caplog):
    operator = FakeOperator()
    MlflowRunLink().publish(operator, {"ti": FakeTaskInstance(fails=True)}, URL)
    assert "could not show the link" in caplog.text
    assert MlflowRunLink().get_link(operator, ti_key=None) == URL


def test_a_task_that_knows_no_url_shows_no_button():
    operator, ti = FakeOperator(), FakeTaskInstance()
    MlflowRunLink().publish(operator, {"ti": ti}, None)
    assert ti.pushed == []
    assert MlflowRunLink().get_link(operator, ti_key=None) == ""


def test_a_copy_made_before_the_run_does_not_share_links():
    original, ti = FakeOperator(), FakeTaskInstance()
    running = copy.copy(original)
    MlflowRunLink().publish(running, {"ti": ti}, URL)
    assert MlflowRunLink().get_link(original, ti_key=None) == ""
