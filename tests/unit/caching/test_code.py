# SPDX-License-Identifier: Apache-2.0
"""Which changes of code give another key, and which do not."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_ml_provider.caching.code import Code, code_of, is_project
from airflow_ml_provider.caching.key import KeyMaker

DAG_FILE = '''
from functools import lru_cache, partial
import logging
import math

from shop import prices, settings
from shop.prices import discount
from shop.shapes import Basket

log = logging.getLogger(__name__)
LIMIT = 10
UNUSED = 1

def make(threshold):
    def task(rows, scale=2):
        """Do it."""
        log.info("doing it")  # loudly
        from shop.late import tidy
        basket = Basket(rows)
        kept = [discount(row) for row in rows if row < threshold]
        return tidy(kept), basket.total(), LIMIT * scale, prices.TAX, math.pi, settings.load()["mode"]
    return task

task = make(5)
'''
PACKAGE = {
    "shop/__init__.py": "",
    "shop/prices.py": """
TAX = 0.19
OTHER = 3

def discount(row):
    return _rounded(row * 0.9)

def _rounded(value):
    return round(value, 2)

def unrelated():
    return 1
""",
    "shop/shapes.py": """
class Base:
    def total(self):
        return sum(self.rows) + self.extra()

    def extra(self):
        return 0

class Basket(Base):
    def __init__(self, rows):
        self.rows = rows
""",
    "shop/late.py": """
import re
WORDS = re.compile("a+")

def tidy(rows):
    return sorted(rows, key=lambda row: -row) if WORDS else []
""",
    "shop/settings.py": """
CHOSEN = {"mode": "fast"}

def load():
    return CHOSEN
""",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Code]:
    """Return a function that fingerprints the task of a project with some texts replaced."""
    count = 0

    def fingerprint(*replacements: tuple[str, str], folder: str | None = None) -> Code:
        nonlocal count
        count += 1
        root = tmp_path / (folder or f"project{count}")
        files = {**PACKAGE, "flow.py": DAG_FILE}
        for old, new in replacements:
            assert sum(old in text for text in files.values()) == 1, old
            files = {path: text.replace(old, new) for path, text in files.items()}
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        for name in [name for name in sys.modules if name.partition(".")[0] in ("shop", "flow")]:
            monkeypatch.delitem(sys.modules, name)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(root)
            importlib.invalidate_caches()
            task = importlib.import_module("flow").task
            found = code_of(task)
        for name in [name for name in sys.modules if name.partition(".")[0] in ("shop", "flow")]:
            del sys.modules[name]
        return found

    return fingerprint


def test_everything_that_the_task_uses_is_a_part_of_its_own(project):
    found = project()
    assert sorted(found.parts) == [
        "class shop.shapes.Base",
        "class shop.shapes.Basket",
        "constant flow.LIMIT",
        "constant flow.log",
        "constant flow.make.<locals>.task default 1",
        "constant flow.make.<locals>.task variable threshold",
        "constant shop.late.WORDS",
        "constant shop.prices.TAX",
        "constant shop.settings.CHOSEN",
        "function flow.make.<locals>.task",
        "function shop.late.tidy",
        "function shop.prices._rounded",
        "function shop.prices.discount",
        "function shop.settings.load",
    ]
    assert found.unknown == []


def test_the_place_of_the_project_does_not_count(project):
    assert project(folder="here").parts == project(folder="there").parts


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("# loudly", "# as loudly as we can", id="comment"),
        pytest.param('"""Do it."""', '"""Do it well."""', id="docstring"),
        pytest.param("rows, scale=2", "rows,   scale  =  2", id="blanks"),
        pytest.param("basket = Basket(rows)", "\n\n        basket = (\n  Basket(rows))", id="lines"),
        pytest.param("UNUSED = 1", "UNUSED = 2", id="unused global"),
        pytest.param("OTHER = 3", "OTHER = 4", id="unused constant of a used module"),
        pytest.param("return 1", "return 2", id="unused function of a used module"),
        pytest.param("LIMIT = 10", "LIMIT = 5 + 5", id="constant of the same value"),
    ],
)
def test_what_does_not_change_the_result_does_not_change_the_key(project, old, new):
    assert project((old, new)).parts == project().parts


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        pytest.param("LIMIT * scale", "LIMIT + scale", "function flow.make.<locals>.task", id="own code"),
        pytest.param(
            "make(5)", "make(6)", "constant flow.make.<locals>.task variable threshold", id="closure"
        ),
        pytest.param("scale=2", "scale=3", "constant flow.make.<locals>.task default 1", id="default"),
        pytest.param("LIMIT = 10", "LIMIT = 11", "constant flow.LIMIT", id="global"),
        pytest.param("row * 0.9", "row * 0.8", "function shop.prices.discount", id="function"),
        pytest.param("value, 2", "value, 3", "function shop.prices._rounded", id="function of a function"),
        pytest.param("TAX = 0.19", "TAX = 0.07", "constant shop.prices.TAX", id="constant of a module"),
        pytest.param("self.rows = rows", "self.rows = rows[:]", "class shop.shapes.Basket", id="class"),
        pytest.param("return 0", "return 1", "class shop.shapes.Base", id="method of a base class"),
        pytest.param("-row", "row", "function shop.late.tidy", id="function imported while it runs"),
        pytest.param('"a+"', '"b+"', "constant shop.late.WORDS", id="compiled pattern"),
        pytest.param('"fast"', '"slow"', "constant shop.settings.CHOSEN", id="constant of a function"),
        pytest.param(
            "getLogger(__name__)", "getLogger('other')", "constant flow.log", id="object by its code"
        ),
    ],
)
def test_what_may_change_the_result_changes_its_part_alone(project, old, new, part):
    before, after = project().parts, project((old, new)).parts
    changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    # A default is written in the function too.
    assert changed - {"function flow.make.<locals>.task"} == {part} - {"function flow.make.<locals>.task"}
    assert part in changed


def test_lambdas_of_one_line_are_told_apart():
    def used_by(transform):
        def task(rows):
            return transform(rows)

        return task

    one, two = [used_by(lambda row: row + 1), used_by(lambda row: row + 2)]
    same = used_by(lambda row: row + 1)
    assert code_of(one).parts != code_of(two).parts
    assert code_of(one).parts == code_of(same).parts


def test_wrappers_and_what_they_wrap_both_count():
    import functools

    def times(n):
        def wrap(function):
            @functools.wraps(function)
            def wrapper(*args):
                return [function(*args)] * n

            return wrapper

        return wrap

    def made(n, value):
        @times(n)
        def task():
            return value

        return task

    assert code_of(made(1, 1)).parts == code_of(made(1, 1)).parts
    assert code_of(made(1, 1)).parts != code_of(made(2, 1)).parts
    assert code_of(made(1, 1)).parts != code_of(made(1, 2)).parts


def test_functions_that_call_each_other_come_to_an_end():
    def even(n):
        return n == 0 or odd(n - 1)

    def odd(n):
        return n != 0 and even(n - 1)

    assert len([name for name in code_of(even).parts if name.startswith("function")]) == 2


def test_what_cannot_be_seen_is_named():
    handle = object()

    def task():
        from airflow.sdk import get_current_context

        return handle, get_current_context()["run_id"]

    first, second = code_of(task).unknown
    assert "variable handle" in first
    assert "get_current_context" in second


def test_a_function_without_source_is_told_by_its_bytecode():
    def made(text):
        scope = {}
        exec(text, scope)  # noqa: S102
        return scope["task"]

    assert code_of(made("def task(): return 1")).parts == code_of(made("def task():  return 1")).parts
    assert code_of(made("def task(): return 1")).parts != code_of(made("def task(): return 2")).parts
    assert (
        code_of(made("N = 1\ndef task(): return N")).parts
        != code_of(made("N = 2\ndef task(): return N")).parts
    )


@pytest.mark.parametrize(
    ("module", "ours"),
    [("json", False), ("pytest", False), ("airflow_ml_provider.settings", False), (__name__, True)],
)
def test_which_modules_are_the_projects_own(module, ours):
    assert is_project(module) is ours


def test_an_installed_package_is_followed_if_it_is_named():
    def task(text):
        return importlib.import_module(text)

    def used():
        return pytest.approx(1)

    assert not any("approx" in name for name in code_of(used).parts)
    assert any("approx" in name for name in code_of(used, packages=["_pytest", "pytest"]).parts)


def test_a_key_is_the_same_in_every_process(project, tmp_path):
    project(folder="same")
    ask = (
        "from airflow_ml_provider.caching.code import code_of; import flow; "
        "print(sorted(code_of(flow.task).parts.items()))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", ask],
            cwd=tmp_path / "same",
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[3])},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Code]:
    """Return a function that fingerprints ``task`` of a DAG file, which lies beside other modules."""
    count = 0

    def fingerprint(text: str, **modules: str) -> Code:
        nonlocal count
        count += 1
        root = tmp_path / f"bundle{count}"
        for name, source in {"flow": text, **modules}.items():
            path = root / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(root)
            importlib.invalidate_caches()
            found = code_of(importlib.import_module("flow").task)
        for name in [name for name in sys.modules if name.partition(".")[0] in ("flow", "aside", "folder")]:
            del sys.modules[name]
        return found

    return fingerprint


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        pytest.param("N = (1, 2)\nC = list(N)", "1, 2", "1, 3", id="a list made of a constant"),
        pytest.param(
            "class S:\n    def __init__(self, by): self.by = by\nBY = 2\nC = S(BY)",
            "BY = 2",
            "BY = 3",
            id="what an object was made with",
        ),
        pytest.param(
            "import numpy as np\n@np.vectorize\ndef C(x): return x * 2",
            "x * 2",
            "x * 3",
            id="what a library's object wraps",
        ),
        pytest.param("import numpy as np\nC = np.poly1d([1, 2])", "1, 2", "1, 3", id="a polynomial"),
        pytest.param("import operator\nC = operator.itemgetter('a')", "'a'", "'b'", id="a getter"),
        pytest.param("import re\nC = re.compile('a').match", "'a'", "'b'", id="a method of a pattern"),
        pytest.param("C = {'a': 1}.get", "1}", "2}", id="a method of a dict"),
        pytest.param(
            "class S:\n    def __init__(self, k): self.k = k\n    def f(self): return self.k\nC = S(1).f",
            "S(1)",
            "S(2)",
            id="a method of an object",
        ),
        pytest.param("from statistics import mean as C", "mean", "median", id="another library function"),
        pytest.param("import statistics\nC = statistics.mean", "mean", "median", id="an alias of a function"),
        pytest.param("C = max", "max", "min", id="an alias of a built-in"),
        pytest.param("import json as C", "json", "pickle", id="another module of a library"),
        pytest.param(
            "def f(): return 1\ndef g(): return 2\nC, D = f, g\nU = C, D",
            "C, D = f, g",
            "D, C = f, g",
            id="two functions in each other's place",
        ),
        pytest.param(
            "if not __name__:\n    class C: x = 1\nelse:\n    class C: x = 2",
            "x = 2",
            "x = 3",
            id="a class that is defined twice",
        ),
        pytest.param(
            "def h(): return 1\nclass C:\n    class D:\n        def f(self): return h()",
            "return 1",
            "return 2",
            id="what a nested class calls",
        ),
        pytest.param(
            "from collections import namedtuple\nC = namedtuple('C', 'x y')", "x y", "y x", id="a namedtuple"
        ),
        pytest.param(
            "from functools import singledispatch\n@singledispatch\ndef C(x): return 0\n"
            "@C.register\ndef _(x: int): return 1",
            "return 1",
            "return 2",
            id="a function by type",
        ),
    ],
)
def test_what_a_name_stands_for_counts(lines, text, old, new):
    task = "\n\ndef task():\n    return C\n"
    assert text.count(old) == 1
    before, after = lines(text + task), lines(text.replace(old, new) + task)
    assert before.unknown == []
    assert before.parts != after.parts
    assert before.parts == lines(text + task).parts


@pytest.mark.parametrize(
    ("text", "modules", "old", "new"),
    [
        pytest.param(
            "import folder.aside\ndef task():\n    return folder.aside.f()",
            {"folder__aside": "def f(): return 1"},
            "return 1",
            "return 2",
            id="a folder without __init__",
        ),
        pytest.param(
            "def task():\n    import aside\n    return aside.TWICE",
            {"aside": "from folder.other import ONE\nTWICE = ONE * 2", "folder__other": "ONE = 1"},
            "ONE = 1",
            "ONE = 3",
            id="a constant of a module that the task imports",
        ),
        pytest.param(
            "import aside\ndef g(module): return module.K\ndef task():\n    return g(aside)",
            {"aside": "from folder.other import K", "folder__other": "K = 1"},
            "K = 1",
            "K = 3",
            id="a constant of a module that is handed on",
        ),
        pytest.param(
            "from aside import GET\ndef task():\n    return GET",
            {"aside": "import operator\nGET = operator.itemgetter('a')"},
            "'a'",
            "'b'",
            id="an object of another module",
        ),
    ],
)
def test_what_other_modules_hold_counts(lines, text, modules, old, new):
    changed = {name: source.replace(old, new) for name, source in modules.items()}
    assert changed != modules
    assert lines(text, **modules).parts != lines(text, **changed).parts


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("def task():\n    return open(__file__)", id="in the function"),
        pytest.param(
            "from pathlib import Path\nHERE = Path(__file__).parent\nDATA = HERE / 'data'\n"
            "def task():\n    return DATA",
            id="as constants",
        ),
    ],
)
def test_paths_from_the_place_of_the_file_do_not_count(lines, text):
    assert lines(text).parts == lines(text).parts


def test_a_memo_of_another_module_does_not_count(lines):
    task = "from aside import MEMO\ndef task():\n    return MEMO"
    filled = "\ndef fill():\n    MEMO[1] = 2\nfill()"
    assert lines(task, aside="MEMO = {}").parts == lines(task, aside="MEMO = {}" + filled).parts


@pytest.mark.parametrize(
    ("registry", "fill", "use"),
    [
        pytest.param("STEPS = {}", "STEPS.update(one=one)", "STEPS['one'](1)", id="dict"),
        pytest.param("STEPS = []", "STEPS.append((one, 3))", "[step() for step, _ in STEPS]", id="pairs"),
        pytest.param("class A:\n    steps = {}", "A.steps[1] = one", "A.steps[1]()", id="of a class"),
    ],
)
def test_functions_count_that_register_themselves_in_what_starts_empty(lines, registry, fill, use):
    text = f"{registry}\ndef one():\n    return %d\n{fill}\ndef task():\n    return {use}"
    assert lines(text % 1).parts != lines(text % 2).parts
    assert lines(text % 1).parts == lines(text % 1).parts


def test_the_order_counts_in_which_functions_register_themselves(lines):
    text = "STEPS = []\ndef one(): ...\ndef two(): ...\nfor step in ({}):\n    STEPS.append(step)\n"
    text += "def task():\n    return STEPS"
    assert lines(text.format("one, two")).parts != lines(text.format("two, one")).parts


def test_defaults_made_by_factories_are_no_unknowns(lines):
    text = "from dataclasses import dataclass, field\n@dataclass\nclass A:\n    x: list = "
    assert lines(text + "field(default_factory=list)\ndef task():\n    return A()").unknown == []


def test_functions_of_one_name_among_the_arguments_are_told_apart():
    def made(number):
        return lambda: number

    def key(one, other):
        maker = KeyMaker()
        maker.add_argument("one", made(one))
        maker.add_argument("other", made(other))
        return maker.key().text

    assert len({key(2, 3), key(3, 3), key(3, 2), key(2, 2)}) == 4
    assert key(2, 3) == key(2, 3)
