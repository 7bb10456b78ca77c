# SPDX-License-Identifier: Apache-2.0
"""The guides quote the example DAGs exactly, name every public thing, and link only to what exists."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path

import pytest

from airflow_ml_provider import operators

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("quote", ROOT / "docs" / "quote.py")
assert _spec
assert _spec.loader
quote = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(quote)

GUIDES = [pytest.param(path, id=str(path.relative_to(ROOT))) for path in quote.guides()]


def headings() -> str:
    lines = (line for path in quote.guides() for line in path.read_text().splitlines())
    return "\n".join(line for line in lines if line.startswith("#"))


@pytest.mark.parametrize("guide", GUIDES)
def test_quoted_code_is_what_the_dags_hold(guide):
    text = guide.read_text()
    assert quote.refreshed(text) == text, "run: python docs/quote.py"


@pytest.mark.parametrize("guide", GUIDES)
def test_links_between_pages_lead_somewhere(guide):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", guide.read_text()):
        if "://" not in target and not target.startswith("mailto:"):
            assert (guide.parent / target).exists(), f"{guide.name} links to {target}"


@pytest.mark.parametrize("guide", GUIDES)
def test_links_lead_to_headings_that_are_there(guide):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", guide.read_text()):
        if "://" not in target:
            page = (guide.parent / target) if target else guide
            assert anchor in anchors(page), f"{guide.name} links to {target}#{anchor}"


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", sorted(operators.__all__))
def test_the_reference_tells_every_argument_of_an_operator_and_which_are_templated(name):
    page = (ROOT / "docs" / "reference" / "operators.md").read_text()
    if name == "DetectDriftOperator":  # the reference leads to the guide
        page = (ROOT / "docs" / "guides" / "events.md").read_text()
    (section,) = [text for text in re.split(r"^## ", page, flags=re.MULTILINE) if f"`{name}`" in text[:80]]
    operator = getattr(operators, name)
    documented = {
        argument: "templated" in row
        for row in section.splitlines()
        if row.startswith("| `")
        for argument in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    given = set(inspect.signature(operator.__init__).parameters) - {"self", "kwargs", "mlflow_conn_id"}
    assert documented == {argument: argument in operator.template_fields for argument in given}


def test_every_config_option_has_a_heading():
    from airflow_ml_provider.provider_info import get_provider_info

    documented = headings()
    options = get_provider_info()["config"]["ml_provider"]["options"]
    assert [name for name in options if f"`{name}`" not in documented] == []


def test_every_operator_and_decorator_has_a_heading():
    documented = headings()
    names = [
        name
        for path in (ROOT / "airflow_ml_provider" / "operators").glob("*.py")
        for name in re.findall(r"^class (\w+Operator)\(", path.read_text(), re.MULTILINE)
    ]
    assert "PromoteModelOperator" in names
    assert [name for name in [*names, "@task.train", "@task.evaluate"] if name not in documented] == []


def test_every_stored_format_has_a_heading():
    from airflow_ml_provider.artifacts.codecs.registry import _BUILT_IN

    documented = headings()
    assert [entry.format for entry in _BUILT_IN if f"`{entry.format}`" not in documented] == []
