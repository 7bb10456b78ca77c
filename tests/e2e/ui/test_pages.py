# SPDX-License-Identifier: Apache-2.0
"""Every ML page in a real Chromium, on a real Airflow with real runs; the browser must not complain."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.e2e.ui.dags.ui_story import MARKUP

if TYPE_CHECKING:
    from tests.e2e.ui.conftest import Story, Visit

pytestmark = pytest.mark.e2e


def run_page(run_id: str, dag_id: str = "ui_training") -> str:
    return f"/dags/{dag_id}/runs/{quote(run_id, safe='')}/plugin/ml-run"


def task_page(run_id: str, task_id: str, dag_id: str = "ui_training") -> str:
    return f"/dags/{dag_id}/runs/{quote(run_id, safe='')}/tasks/{task_id}/plugin/ml-task"


def test_four_questions_are_answered_by_two_clicks(story: Story, visit: Visit) -> None:
    page = visit.page
    page.goto(story.url)
    page.get_by_role("link", name="ML", exact=True).click()
    visit.settled()
    page.get_by_role("link", name="ui_model", exact=True).first.click()
    visit.settled()

    made = page.get_by_role("region", name="What made the champion")
    made.get_by_text("ui_learn").first.wait_for()
    text = made.inner_text()
    assert story.trainings[2] in text
    assert "400 rows" in text
    assert "ui_training · fit" in text

    refused = page.get_by_role("region", name="Last challenger that was refused").inner_text()
    assert "did not become champion" in refused
    assert "failed" in refused
    assert "accuracy_score" in refused

    changed = page.get_by_role("region", name="What changed from version 1 to 2")
    changed.get_by_role("region", name="Data that changed").get_by_text("ui_learn").wait_for()

    daily = page.get_by_role("region", name="How it did day by day")
    daily.get_by_role("button", name="List the evaluations").click()
    rows = daily.get_by_role("region", name="Evaluations").get_by_role("row")
    assert rows.count() >= 1 + len(story.evaluations)
    assert "champion v2" in daily.inner_text()
    visit.shot("model")


def test_a_task_shows_what_it_read_wrote_and_measured(story: Story, visit: Visit) -> None:
    page = visit.open(task_page(story.trainings[2], "fit"))
    read = page.get_by_role("region", name="Read", exact=True)
    assert "ui_learn" in read.inner_text()
    read.get_by_text("Schema and preview").first.click()
    assert "float64" in read.inner_text()
    params = page.get_by_role("region", name="Parameters").inner_text()
    assert "strength" in params
    page.get_by_role("img", name=re.compile("^loss: 1 line, 20 points")).wait_for()
    page.get_by_role("link", name=re.compile("^MLflow run")).wait_for()
    page.locator(".react-flow__node").first.wait_for()
    visit.shot("task")
    read.get_by_role("link", name=re.compile("^ui_learn")).click()
    visit.settled()
    page.get_by_role("heading", name="ui_learn").wait_for()
    assert "tab=artifacts" in page.url


def test_markup_of_users_is_text(story: Story, visit: Visit) -> None:
    page = visit.open(task_page(story.trainings[2], "fit"))
    page.get_by_text("Schema and preview").first.click()
    assert MARKUP in visit.text()
    visit.open("/plugin/ml?tab=artifacts&artifact=ui_learn")
    assert MARKUP in visit.text()
    assert page.evaluate("window.__xss") is None
    assert page.locator("[data-testid=ml-page] img[src=x]").count() == 0


def test_a_cached_task_says_that_it_was_reused(story: Story, visit: Visit) -> None:
    page = visit.open(task_page(story.trainings[2], "judge"))
    page.get_by_role("heading", name="Reused, not computed").wait_for()
    page = visit.open(task_page(story.trainings[1], "judge"))
    page.get_by_role("heading", name="Computed").wait_for()


def test_a_promotion_shows_its_gates(story: Story, visit: Visit) -> None:
    page = visit.open(task_page(story.trainings[3], "promote"))
    decision = page.get_by_role("region", name="Decision").inner_text()
    assert "rejected" in decision
    assert "failed" in decision


def test_a_task_without_machine_learning_looks_clean(story: Story, visit: Visit) -> None:
    page = visit.open(task_page(story.trainings[1], "plain"))
    page.get_by_text("Nothing of machine learning here").wait_for()
    assert page.get_by_test_id("ml-page").get_by_role("heading").count() == 0
    assert page.get_by_role("alert").count() == 0


def test_a_run_shows_its_graph_and_what_changed(story: Story, visit: Visit) -> None:
    page = visit.open(run_page(story.trainings[2]))
    page.locator(".react-flow__node", has_text="ui_learn").first.wait_for()
    changed = page.get_by_role("region", name="What changed", exact=True)
    assert story.trainings[1] in changed.inner_text()
    assert "ui_learn" in changed.get_by_role("region", name="Changes of tasks").inner_text()
    assert "accuracy_score" in changed.get_by_role("region", name="Changes of metrics").inner_text()
    tasks = page.get_by_role("region", name="Tasks of this run")
    for task_id in ("learn", "judge", "fit", "evaluate", "promote"):
        tasks.get_by_role("link", name=task_id, exact=True).wait_for()
    visit.shot("run")
    tasks.get_by_role("link", name="fit", exact=True).click()
    page.get_by_role("region", name="Wrote", exact=True).wait_for()
    assert page.url.endswith("/tasks/fit/plugin/ml-task?try_number=1")


def test_a_dag_shows_metrics_across_runs_and_over_data_time(story: Story, visit: Visit) -> None:
    page = visit.open("/dags/ui_training/plugin/ml-dag")
    over_time = page.get_by_role("region", name="Evaluations over data time")
    over_time.get_by_role("img", name=re.compile("of ui_model|not registered")).wait_for()
    runs = page.get_by_role("region", name="Runs", exact=True)
    for run_id in story.trainings.values():
        runs.get_by_role("link", name=run_id).wait_for()
    visit.shot("dag")


def test_artifacts_are_found_and_show_their_versions(story: Story, visit: Visit) -> None:
    page = visit.open("/plugin/ml?tab=artifacts")
    page.get_by_role("searchbox").fill("ui_lea")
    page.get_by_role("link", name="ui_judge").wait_for(state="detached")
    assert "search=ui_lea" in page.url
    page.get_by_role("link", name="ui_learn", exact=True).click()
    visit.settled()
    versions = page.get_by_role("region", name="Versions of ui_learn")
    assert versions.get_by_role("row").count() == 1 + len(story.trainings)
    page.get_by_text("Shared between versions").wait_for()
    page.get_by_role("region", name="Tasks that read this version").get_by_text("fit").wait_for()
    visit.shot("artifact")


def test_each_instance_of_a_mapped_task_has_its_page(story: Story, visit: Visit) -> None:
    run_id = quote(story.evaluations[0], safe="")
    for index, rows in enumerate((30, 70)):
        page = visit.open(f"/dags/ui_evaluation/runs/{run_id}/tasks/part/mapped/{index}/plugin/ml-task")
        wrote = page.get_by_role("region", name="Wrote", exact=True)
        wrote.get_by_text("ui_part").first.wait_for()
        assert f"{rows} rows" in wrote.inner_text()


def test_five_hundred_nodes_are_drawn_panned_and_listed(story: Story, visit: Visit) -> None:
    """The answer is made up: no story of a test has so much in it."""
    count = 500
    answer = {
        "root": "n0",
        "nodes": [
            {
                "id": f"n{n}",
                "kind": "version" if n % 2 else "task",
                "label": f"thing {n}",
                "detail": "made up",
            }
            for n in range(count)
        ],
        "edges": [{"source": f"n{(n - 1) // 3}", "target": f"n{n}", "kind": "read"} for n in range(1, count)],
        "hidden": 0,
        "truncated": False,
        "next": None,
    }
    page = visit.page
    page.route("**/ml-provider/api/v1/lineage?*", lambda route: route.fulfill(json=answer))
    visit.open("/plugin/ml?tab=lineage&node=n0")
    page.get_by_text("500 nodes, 499 edges").wait_for()
    page.locator(".react-flow__node", has_text="thing 0").first.wait_for()

    pane = page.locator(".react-flow__viewport")
    before = pane.get_attribute("style")
    box = page.locator(".react-flow").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 300, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 100, box["y"] + 140, steps=10)
    page.mouse.up()
    assert pane.get_attribute("style") != before
    visit.shot("lineage-500")

    page.get_by_role("button", name="Show as list").click()
    nodes = page.get_by_role("region", name="Nodes of the graph")
    assert nodes.get_by_role("row").count() == 1 + count


def test_lineage_is_found_expanded_and_listed(story: Story, visit: Visit) -> None:
    page = visit.open("/plugin/ml?tab=lineage&search=ui_learn")
    page.get_by_role("region", name="Where to start").get_by_role("link").first.click()
    visit.settled()
    page.locator(".react-flow__node", has_text="fit").first.wait_for()
    visit.shot("lineage")
    page.get_by_role("button", name="Show as list").click()
    nodes = page.get_by_role("region", name="Nodes of the graph")
    before = nodes.get_by_role("row").count()
    nodes.get_by_role("button", name="fit", exact=True).first.click()
    aside = page.get_by_role("complementary", name="Chosen node")
    aside.get_by_role("button", name="Expand down").click()
    page.wait_for_function(
        "n => document.querySelectorAll('[aria-label=\"Nodes of the graph\"] tr').length >= n", arg=before
    )
    page.get_by_role("button", name="What came from it?").first.click()
    visit.settled()
    blast = page.get_by_role("region", name="What came from it")
    blast.get_by_role("region", name="Runs that used it").get_by_text("ui_training").first.wait_for()
    assert "airflow " in blast.inner_text()


@pytest.mark.parametrize("view", ["parallel", "scatter"])
def test_runs_are_compared(story: Story, visit: Visit, view: str) -> None:
    page = visit.open("/plugin/ml?tab=runs")
    page.get_by_role("link", name="ui_training", exact=True).click()
    visit.settled()
    page.get_by_label("Show as").select_option(view)
    assert f"view={view}" in page.url
    drawn = page.locator("[data-testid=ml-page] figure [role=img]")
    assert drawn.count() == len(story.trainings)
    drawn.first.focus()
    page.get_by_text("chosen", exact=True).wait_for()
    visit.shot(f"runs-{view}")


def test_the_keyboard_reaches_everything(story: Story, visit: Visit) -> None:
    page = visit.open("/plugin/ml")
    page.get_by_role("searchbox").focus()
    reached = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.textContent"))
    assert "ui_model" in reached
    page.get_by_role("link", name="ui_model", exact=True).focus()
    page.keyboard.press("Enter")
    visit.settled()
    chart = page.get_by_role("region", name="How it did day by day").locator("figure svg[role=img]")
    chart.focus()
    page.keyboard.press("Home")
    first = chart.evaluate("chart => chart.closest('figure').querySelector('[aria-live]').textContent")
    page.keyboard.press("End")
    last = chart.evaluate("chart => chart.closest('figure').querySelector('[aria-live]').textContent")
    assert first.startswith("Data until 2013-")
    assert first != last


def test_every_control_has_a_name(story: Story, visit: Visit) -> None:
    for path in (
        "/plugin/ml?tab=models&model=ui_model",
        "/plugin/ml?tab=artifacts&artifact=ui_learn",
        "/plugin/ml?tab=runs&dag_id=ui_training",
        task_page(story.trainings[2], "fit"),
    ):
        page = visit.open(path)
        nameless = page.get_by_test_id("ml-page").evaluate(
            """page => [...page.querySelectorAll('button, a[href], input, select')].filter(each =>
              !(each.textContent.trim() || each.ariaLabel || each.title || each.labels?.length)
            ).map(each => each.outerHTML.slice(0, 200))"""
        )
        assert nameless == [], path


def test_dark_mode_and_wide_screens(story: Story, chromium: Any) -> None:
    from tests.e2e.ui.conftest import Visit

    inks = {}
    for mode in ("light", "dark"):
        for width in (1280, 1920):
            context = chromium.new_context(viewport={"width": width, "height": 1000}, color_scheme=mode)
            context.set_default_timeout(120_000)
            visit = Visit(story, context.new_page())
            page = visit.open("/plugin/ml?tab=models&model=ui_model")
            page.get_by_role("region", name="What made the champion").get_by_text("ui_learn").first.wait_for()
            heading = page.get_by_role("heading", name="ui_model")
            inks[mode] = heading.evaluate("each => getComputedStyle(each).color")
            wide = page.get_by_test_id("ml-page")
            overflow = wide.evaluate("each => each.scrollWidth - each.clientWidth")
            assert overflow <= 0
            visit.shot(f"model-{mode}-{width}")
            assert visit.complaints == []
            context.close()
    assert inks["light"] != inks["dark"]


def test_times_are_in_the_zone_that_the_ui_has(story: Story, visit: Visit) -> None:
    page = visit.open("/plugin/ml?tab=artifacts&artifact=ui_learn")
    facts = page.get_by_role("region", name="Latest version")
    assert "2013-03-01 01:00" in facts.inner_text()  # the context's own zone, Europe/Berlin
    page.evaluate("localStorage.setItem('timezone', JSON.stringify('America/New_York'))")
    page.reload()
    visit.settled()
    assert "2013-02-28 19:00" in facts.inner_text()


def test_a_page_that_is_not_there_says_so(story: Story, visit: Visit) -> None:
    page = visit.page
    page.goto(f"{story.url}/plugin/ml?tab=models&model=no_such_model")
    page.get_by_role("alert").get_by_text("Nothing to show here").wait_for()
    # What the browser says about a 404 that was asked for is no complaint about the page.
    visit.complaints[:] = [each for each in visit.complaints if "404" not in each]


def test_a_store_that_fails_is_told_and_can_be_asked_again(story: Story, visit: Visit) -> None:
    page = visit.page
    body = '{"detail": "the artifact store does not answer: <b>no route</b>", "code": "store_unavailable"}'
    page.route(
        "**/ml-provider/api/v1/models*",
        lambda route: route.fulfill(status=503, body=body, content_type="application/json"),
    )
    page.goto(f"{story.url}/plugin/ml")
    page.get_by_role("alert").get_by_text("<b>no route</b>").wait_for()
    page.unroute("**/ml-provider/api/v1/models*")
    page.get_by_role("button", name="Try again").click()
    page.get_by_role("link", name="ui_model", exact=True).wait_for()
    visit.complaints[:] = [each for each in visit.complaints if "503" not in each]
