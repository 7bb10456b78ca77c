# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from airflow_ml_provider.tracking.identity import TaskIdentity


def test_every_try_of_a_task_instance_has_one_key():
    first = TaskIdentity("d", "r", "t", try_number=1)
    assert first.key == "d/r/t/-1" == TaskIdentity("d", "r", "t", try_number=2).key


def test_mapped_instances_differ_and_share_a_parent():
    one, two = (TaskIdentity("d", "r", "t", map_index=index) for index in (0, 1))
    assert one.mapped
    assert one.key != two.key
    assert one.parent_key == two.parent_key == "d/r/t"
    assert not TaskIdentity("d", "r", "t").mapped


def test_quotes_in_user_text_do_not_break_a_search():
    key = TaskIdentity("d", 'it\'s "a" `run`', "t").key
    assert not set(key) & set("'\"`")


def test_tags_lead_back_to_the_task_instance():
    tags = TaskIdentity("d", "r", "t", map_index=3, try_number=2, slice="2013-06-01").tags()
    assert tags == {
        "airflow.dag_id": "d",
        "airflow.dag_run_id": "r",
        "airflow.task_id": "t",
        "airflow.map_index": "3",
        "airflow.try_number": "2",
        "airflow.key": "d/r/t/3",
        "airflow.slice": "2013-06-01",
    }
    assert "airflow.slice" not in TaskIdentity("d", "r", "t").tags()
