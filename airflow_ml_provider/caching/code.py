# SPDX-License-Identifier: Apache-2.0
"""
What a function does, as far as the project's own code decides it.

Starting from a function, everything of the project that it names is followed: functions, classes, constants,
what its closure and defaults hold, and modules that it imports while it runs. Each piece is hashed by its
syntax tree, so comments, docstrings and formatting do not count. Libraries are not followed; their versions
are parts of the environment.
"""

from __future__ import annotations

import ast
import builtins
import collections
import copy
import dis
import functools
import hashlib
import importlib
import importlib.util
import linecache
import site
import sys
import sysconfig
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from airflow_ml_provider.caching.values import describe, digest, name_of
from airflow_ml_provider.exceptions import UncacheableError

_OWN = __name__.partition(".")[0]
_MISSING = object()
_CONTAINERS = (list, dict, set, collections.deque)
_BUILT_IN = types.BuiltinFunctionType
_METHODS = (types.MethodType, _BUILT_IN)
_EMPTY = (*_CONTAINERS, tuple)


@dataclass
class Code:
    """
    The code behind a function.

    :param parts: Digests by name: ``function flights.features.build_features``, ``constant ...``.
    :param unknown: What the function depends on and no digest covers, each with the reason.
    """

    parts: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


def code_of(code: Any, *, packages: Iterable[str] = (), task: bool = True) -> Code:
    """
    Follow a function or class through the project's code.

    :param packages: Installed packages that count as the project's own.
    :param task: It is a task's function, which counts wherever it comes from, without its decorators.
    """
    walk = _Walk(tuple(packages))
    walk.add(code, root=task)
    return walk.finish()


def is_project(module: str, packages: tuple[str, ...] = ()) -> bool:
    """Tell whether a module is the project's own: not Python's, not installed, unless it is named."""
    top = module.partition(".")[0]
    if top == "__main__":
        return True
    if any(module == name or module.startswith(f"{name}.") for name in packages):
        return True
    if top in (_OWN, "airflow") or top in sys.stdlib_module_names:
        return False
    path = _path_of(module)
    if path is None:
        return False
    return not any(path.is_relative_to(place) for place in _library_places())


def _path_of(module: str) -> Path | None:
    loaded = sys.modules.get(module)
    found = getattr(loaded, "__file__", None)
    if loaded is None:
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError, AttributeError):
            return None
        found = spec.origin if spec is not None and spec.has_location else None
    if found is None and loaded is not None:
        # A folder without __init__.py has a path and no file.
        found = next(iter(getattr(loaded, "__path__", ())), None)
    return Path(found).resolve() if found else None


@functools.cache
def _library_places() -> tuple[Path, ...]:
    places = {Path(path) for path in sysconfig.get_paths().values()}
    places.update(Path(path) for path in (*site.getsitepackages(), site.getusersitepackages()))
    # ``data`` and ``scripts`` are the whole environment, in which a project may lie.
    outside = {Path(sysconfig.get_path(name)) for name in ("data", "scripts")}
    return tuple(path.resolve() for path in places - outside)


def add_part(parts: dict[str, str], name: str, value: str) -> None:
    """Add a part; another one of the same name stays beside it."""
    label, number = name, 1
    while parts.get(label, value) != value:
        number += 1
        label = f"{name} #{number}"
    parts[label] = value


class _Walk:
    def __init__(self, packages: tuple[str, ...]) -> None:
        self._packages = packages
        self._seen: dict[int, str] = {}
        self._keep: list[Any] = []
        self._code = Code()
        self._pending: list[Callable[[], None]] = []
        self._assigned: set[tuple[str, str]] = set()

    def finish(self) -> Code:
        while self._pending:
            self._pending.pop()()
        self._code.unknown = sorted(set(self._code.unknown))
        return self._code

    # -- functions and classes

    def add(self, thing: Any, root: bool = False) -> str:
        """Note a function, class or module once; return the name of the part."""
        thing = _bare(thing)
        if id(thing) in self._seen:
            return self._seen[id(thing)]
        name = name_of(thing)
        self._seen[id(thing)] = name
        self._keep.append(thing)  # an id names it only as long as it lives
        if not (root or self._is_ours(getattr(thing, "__module__", None))):
            return name
        if isinstance(thing, types.FunctionType):
            self._pending.append(lambda: self._function(thing, name, root))
        elif isinstance(thing, type):
            self._pending.append(lambda: self._class(thing, name))
        elif isinstance(thing, functools.partial) or (root and not isinstance(thing, _BUILT_IN)):
            self._pending.append(lambda: self._value(name, thing))
        else:
            self._code.unknown.append(f"{name}, which has no Python source")
        return name

    def _is_ours(self, module: str | None) -> bool:
        # What was made without a module is nobody else's.
        return not module or module not in sys.modules or is_project(module, self._packages)

    def _part(self, kind: str, name: str, value: str) -> None:
        add_part(self._code.parts, f"{kind} {name}", value)

    def _function(self, function: types.FunctionType, name: str, root: bool) -> None:
        wrapped = getattr(function, "__wrapped__", None)
        if wrapped is not None:
            self.add(wrapped, root)
        scope = function.__globals__
        names = _cells(function)
        closure = set(names)
        if not self._is_ours(scope.get("__name__")):
            # A wrapper of a library takes the name of what it wraps.
            registry = getattr(function, "registry", None)
            if isinstance(registry, Mapping):  # functools.singledispatch
                self._value(f"{name} registry", registry)
            self._follow(name, names, closure, None, scope)
            return
        tree = _tree(function.__code__)
        if tree is not None and root:
            # The task's decorators are the task's options, and wrappers are followed as objects.
            tree.decorator_list = []
        self._part("function", name, _bytecode(function.__code__) if tree is None else _dumped(tree))
        for place, value in enumerate(function.__defaults__ or ()):
            self._value(f"{name} default {place + 1}", value)
        for key, value in (function.__kwdefaults__ or {}).items():
            self._value(f"{name} default {key}", value)
        used = _globals_of(function.__code__) | (
            _names_in(tree.decorator_list) if tree is not None else set()
        )
        names.update({key: scope[key] for key in used - closure if key in scope and not _is_dunder(key)})
        self._follow(name, names, closure, tree, scope)

    def _class(self, cls: type, name: str) -> None:
        tree = _class_tree(cls)
        if tree is None:
            self._code.unknown.append(f"class {name}, whose source cannot be found")
        else:
            self._part("class", name, _dumped(tree))
        module = sys.modules.get(cls.__module__)
        scope = vars(module) if module is not None else {}
        for base in cls.__mro__[1:]:
            if is_project(base.__module__, self._packages):
                self.add(base)
        for key, item in vars(cls).items():
            if isinstance(item, _CONTAINERS) and not _is_dunder(key):
                self._follow_registry(f"{name}.{key}", item)
            if isinstance(item, type) and item.__qualname__ == f"{cls.__qualname__}.{item.__name__}":
                self.add(item)
                continue
            for function in _functions_in(item):
                if function.__code__.co_filename == "<string>":
                    continue  # dataclasses made it of what stands in the class
                if function.__module__ != cls.__module__ or not function.__qualname__.startswith(
                    cls.__qualname__
                ):
                    self.add(function)
                    continue
                cells = _cells(function)
                names = {key: scope[key] for key in _globals_of(function.__code__) if key in scope}
                self._follow(name, {**names, **cells}, set(cells), _tree(function.__code__), scope)
        if tree is not None:
            names = {key: scope[key] for key in _names_in([tree], deep=False) if key in scope}
            self._follow(name, names, set(), tree, scope)

    # -- what they name

    def _follow(
        self,
        name: str,
        names: dict[str, Any],
        closure: set[str],
        tree: ast.AST | None,
        scope: dict[str, Any],
    ) -> None:
        chains = _chains(tree) if tree is not None else {}
        for key, value in sorted(names.items()):
            label = f"{name} variable {key}" if key in closure else f"{_module_name(scope)}.{key}"
            if isinstance(value, types.ModuleType):
                if key != value.__name__ and not is_project(value.__name__, self._packages):
                    self._part("constant", label, digest({"module": value.__name__}))
                self._module(value, chains.get(key, [()]))
            else:
                self._value(label, value, scope if key not in closure else None, key)
        if tree is not None:
            for module, attribute, bound in _imports(tree, scope):
                self._import(module, attribute, chains.get(bound, [()]))
            if any(part == "get_current_context" for part in _names_in([tree], deep=True)):
                self._code.unknown.append(f"what {name} asks of get_current_context()")

    def _value(  # noqa: PLR0912 - one for each kind of value
        self, label: str, value: Any, scope: dict[str, Any] | None = None, key: str | None = None
    ) -> None:
        bare = _bare(value)
        assigned: list[ast.AST] = []
        if scope is not None and key is not None:
            scope, home_key = _home(scope, key)
            assigned = _assignments(scope, home_key)
        if isinstance(value, types.ModuleType):
            self._module(value, [()])
            return
        owner = getattr(value, "__self__", None)
        if not isinstance(value, _METHODS) or isinstance(owner, (type, types.ModuleType)):
            owner = None
        made = False
        if isinstance(bare, (types.FunctionType, type, _BUILT_IN)):
            ours = self._is_ours(getattr(bare, "__module__", None)) and not isinstance(bare, _BUILT_IN)
            # Such as namedtuple("P", "x y"): the statement is its source.
            made = ours and bool(assigned) and isinstance(bare, type) and _class_tree(bare) is None
            if not made:
                if not isinstance(bare, _BUILT_IN):
                    self.add(bare)
                if owner is None or (not ours and not assigned):
                    if not ours or bare.__name__ != key:
                        # Which function a name stands for shows in no function's code.
                        self._part("constant", label, digest({"code": name_of(bare)}))
                    return
        elif callable(value) and not isinstance(value, functools.partial):
            if is_project(type(value).__module__, self._packages):
                self.add(type(value))
            else:
                # An object of a library: its version is a part of the environment, and what it wraps is ours.
                for inner in (getattr(value, "__wrapped__", None), *getattr(value, "__dict__", {}).values()):
                    if isinstance(_bare(inner), (types.FunctionType, type)):
                        self.add(inner)
                if not assigned:
                    return
        reason = ""
        memo = _is_memo(value, assigned, scope)
        if memo:
            self._follow_registry(label, value)
        if not (made or memo or _is_own_place(value, assigned, scope)):
            try:
                self._part("constant", label, digest(describe(value, self.add)))
                return
            except UncacheableError as exc:
                reason = str(exc)
        holder = value if owner is None else owner
        if is_project(type(holder).__module__, self._packages):
            self.add(type(holder))
        if not assigned or scope is None:
            self._code.unknown.append(f"{label}: {reason}")
            return
        self._part("constant", label, digest([_dumped(node) for node in assigned]))
        place = (scope.get("__name__", ""), home_key)
        if place in self._assigned:
            return
        self._assigned.add(place)
        names = _names_in(assigned, deep=False) - {home_key}
        used = {name: scope[name] for name in names if name in scope and not _is_dunder(name)}
        self._follow(label, used, set(), ast.Module(assigned, []), scope)  # type: ignore[arg-type]

    def _follow_registry(self, label: str, container: Any) -> None:
        """Follow the functions and classes that a container was filled with, as by a decorator."""

        def follow() -> None:
            found = [self.add(each) for each in _code_in(container)]
            if found:
                names = sorted(found) if isinstance(container, set) else found
                self._part("constant", f"{label} registry", digest(names))

        # Last, as what is followed before may import what registers itself.
        self._pending.insert(0, follow)

    # -- modules

    def _module(self, module: types.ModuleType, chains: Iterable[tuple[str, ...]]) -> None:
        if not is_project(module.__name__, self._packages):
            return
        if _is_compiled(module):
            self._file(module)
            return
        for chain in chains:
            if not chain:
                self._whole(module)
                continue
            found = getattr(module, chain[0], _MISSING)
            if found is _MISSING:
                self._whole(module)
            elif isinstance(found, types.ModuleType):
                self._module(found, [chain[1:]])
            else:
                self._value(f"{_module_name(vars(module))}.{chain[0]}", found, vars(module), chain[0])

    def _import(self, module: str, attribute: str | None, chains: Iterable[tuple[str, ...]] = ((),)) -> None:
        if not is_project(module, self._packages):
            return
        try:
            loaded = importlib.import_module(module)
        except Exception as exc:  # noqa: BLE001 - the module's own code may raise anything
            self._code.unknown.append(f"module {module}, which cannot be imported here: {exc}")
            return
        if attribute is None or attribute == "*":
            self._module(loaded, chains if attribute is None else [()])
            return
        if not hasattr(loaded, attribute):
            try:
                self._module(importlib.import_module(f"{module}.{attribute}"), chains)
            except ImportError as exc:
                self._code.unknown.append(f"{module}.{attribute}, which cannot be imported here: {exc}")
            return
        found = getattr(loaded, attribute)
        if isinstance(found, types.ModuleType):
            self._module(found, chains)
        else:
            self._module(loaded, [(attribute,)])

    def _whole(self, module: types.ModuleType) -> None:
        """Take all of a module where it does not show which part of it is used."""
        name = _module_name(vars(module))
        if id(module) in self._seen:
            return
        self._seen[id(module)] = name
        tree = _module_tree(module.__file__)
        if tree is None:
            self._code.unknown.append(f"module {name}, whose source cannot be found")
            return
        self._part("module", name, _dumped(tree))
        for value in list(vars(module).values()):
            bare = _bare(value)
            if isinstance(bare, (types.FunctionType, type)) and is_project(bare.__module__, self._packages):
                self.add(bare)
        # What it takes from other modules may be a constant there.
        chains = _chains(tree)
        for other, attribute, bound in _imports(tree, vars(module)):
            self._import(other, attribute, chains.get(bound, [()]))

    def _file(self, module: types.ModuleType) -> None:
        path = Path(str(module.__file__))
        self._part("file", _module_name(vars(module)), hashlib.sha256(path.read_bytes()).hexdigest())


def _bare(thing: Any) -> Any:
    """Take off what Airflow and Python put around a function; wrappers of the user stay."""
    for _ in range(20):
        if isinstance(thing, (types.MethodType, staticmethod, classmethod)):
            thing = thing.__func__
        elif getattr(type(thing), "_airflow_is_task_decorator", False):
            thing = thing.function
        elif type(thing) is functools._lru_cache_wrapper or isinstance(thing, functools.cached_property):
            thing = getattr(thing, "__wrapped__", None) or thing.func  # type: ignore[union-attr]
        else:
            break
    return thing


def _cells(function: types.FunctionType) -> dict[str, Any]:
    """Return what a function's closure holds by now."""
    found: dict[str, Any] = {}
    for key, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            found[key] = cell.cell_contents
        except ValueError:  # not filled yet
            continue
    found.pop("__class__", None)
    return found


def _functions_in(item: Any) -> Iterator[types.FunctionType]:
    found: Iterable[Any] = (item,)
    if isinstance(item, property):
        found = (item.fget, item.fset, item.fdel)
    elif isinstance(item, functools.singledispatchmethod):
        found = (item.func, *item.dispatcher.registry.values())
    for each in found:
        bare = _bare(each)
        if isinstance(bare, types.FunctionType):
            yield bare


def _module_name(scope: dict[str, Any]) -> str:
    holder = types.SimpleNamespace(__module__=scope.get("__name__", ""), __qualname__="")
    return name_of(holder).rstrip(".")


def _is_compiled(module: types.ModuleType) -> bool:
    return not str(getattr(module, "__file__", None) or ".py").endswith((".py", ".pyc"))


# -- syntax trees


def _tree(code: types.CodeType) -> Any:
    """Return the syntax tree of a ``def``; None for a lambda or where there is no source."""
    if code.co_name == "<lambda>":
        return None  # a line may hold several
    for node in ast.walk(_module_tree(code.co_filename) or ast.Module([], [])):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == code.co_name:
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            if first == code.co_firstlineno:
                return copy.copy(node)
    return None


def _class_tree(cls: type) -> Any:
    module = sys.modules.get(cls.__module__)
    whole = _module_tree(getattr(module, "__file__", None))
    if whole is None:
        return None
    names = [part for part in cls.__qualname__.split(".") if part != "<locals>"]
    level: list[Any] = [whole]
    for name in names:
        level = [
            node
            for above in level
            for node in ast.walk(above)
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
            and node.name == name
            and node is not above
        ]
    found: list[Any] = [node for node in dict.fromkeys(level) if isinstance(node, ast.ClassDef)]
    # Which of several it is, such as one in each branch of an "if", does not show: all of them count.
    return found[0] if len(found) == 1 else ast.Module(found, []) if found else None


def _module_tree(path: str | None) -> ast.Module | None:
    if not path:
        return None
    linecache.checkcache(path)
    return _parsed("".join(linecache.getlines(path)))


@functools.lru_cache(maxsize=64)
def _parsed(text: str) -> ast.Module | None:
    try:
        return ast.parse(text) if text else None
    except (SyntaxError, ValueError):
        return None


def _dumped(tree: ast.AST) -> str:
    """Hash a syntax tree without its docstrings."""
    tree = copy.deepcopy(tree)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module))
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
            and isinstance(body[0].value.value, str)
        ):
            node.body = body[1:]
    return hashlib.sha256(ast.dump(tree).encode("utf-8", "surrogatepass")).hexdigest()


def _bytecode(code: types.CodeType) -> str:
    """Hash what the interpreter runs: for lambdas, and functions without source."""
    constants = [
        _bytecode(item) if isinstance(item, types.CodeType) else "..." if item is ... else describe(item)
        for item in code.co_consts
    ]
    names = [list(code.co_names), list(code.co_varnames), list(code.co_freevars), code.co_flags]
    return digest([code.co_code.hex(), constants, names])


def _globals_of(code: types.CodeType) -> set[str]:
    found = {
        str(item.argval)
        for item in dis.get_instructions(code)
        if item.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
    }
    for item in code.co_consts:
        if isinstance(item, types.CodeType):
            found |= _globals_of(item)
    return found


def _names_in(nodes: Iterable[ast.AST], deep: bool = True) -> set[str]:
    """Return the names that are read; not deep leaves out what functions read when they are called."""
    found: set[str] = set()
    pending = list(nodes)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr) if deep else None
        if not deep and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            pending.extend(node.decorator_list)
            pending.extend(item for item in [*node.args.defaults, *node.args.kw_defaults] if item is not None)
            continue
        pending.extend(ast.iter_child_nodes(node))
    return found


def _chains(tree: ast.AST) -> dict[str, list[tuple[str, ...]]]:
    """Map names to the attributes that are read of them: ``a.b.c`` gives ``a``: ``("b", "c")``."""
    found: dict[str, list[tuple[str, ...]]] = {}

    def visit(node: ast.AST) -> None:
        attributes: list[str] = []
        inner: ast.AST = node
        while isinstance(inner, ast.Attribute):
            attributes.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            chain = tuple(reversed(attributes))
            if chain not in found.setdefault(inner.id, []):
                found[inner.id].append(chain)
            return
        for child in ast.iter_child_nodes(inner if attributes else node):
            visit(child)

    visit(tree)
    return found


def _imports(tree: ast.AST, scope: dict[str, Any]) -> Iterator[tuple[str, str | None, str]]:
    """Yield what code imports while it runs: a module, the name taken from it, and what it is called."""
    package = scope.get("__package__") or str(scope.get("__name__", "")).rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                # "import a.b" gives a name to "a"; what is used of "a.b" is not told apart from it.
                yield alias.name, None, alias.asname or alias.name
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                base = package.split(".")[: len(package.split(".")) - node.level + 1]
                module = ".".join([*base, *([module] if module else [])])
            for alias in node.names:
                yield module, alias.name, alias.asname or alias.name


def _is_dunder(name: str) -> bool:
    """Tell what a module says of itself: its name, and the place it lies in."""
    return name.startswith("__") and name.endswith("__")


def _is_memo(value: Any, assigned: list[ast.AST], scope: dict[str, Any] | None) -> bool:
    """Tell whether a container starts empty: what is in it depends on what ran before."""
    return (
        isinstance(value, _CONTAINERS)
        and bool(assigned)
        and all(_is_empty(node, scope or {}) for node in assigned)
    )


def _code_in(container: Any) -> Iterator[Any]:
    """Yield the functions and classes of modules in a container and in those inside of it."""
    seen: set[int] = set()
    pending: list[Any] = [container]
    while pending:
        item = pending.pop()
        if isinstance(item, _EMPTY):
            if id(item) not in seen:
                seen.add(id(item))
                pending.extend(reversed(list(item.values() if isinstance(item, dict) else item)))
            continue
        bare = _bare(item)
        # What was made inside of a function may be a result.
        if isinstance(bare, (types.FunctionType, type)) and "<locals>" not in bare.__qualname__:
            yield bare


def _is_empty(statement: Any, scope: dict[str, Any]) -> bool:
    """Tell whether a statement assigns a container with nothing in it."""
    value = statement.value
    if isinstance(value, ast.Call):
        made = _named(value.func, scope)
        if value.keywords or not (isinstance(made, type) and issubclass(made, _EMPTY)):
            return False
        # defaultdict(list) names a type, and holds nothing
        return not value.args or (issubclass(made, collections.defaultdict) and len(value.args) == 1)
    return isinstance(value, (ast.List, ast.Dict, ast.Tuple)) and not (
        value.keys if isinstance(value, ast.Dict) else value.elts
    )


def _named(node: ast.AST, scope: dict[str, Any]) -> Any:
    if isinstance(node, ast.Attribute):
        return getattr(_named(node.value, scope), node.attr, None)
    return scope.get(node.id, getattr(builtins, node.id, None)) if isinstance(node, ast.Name) else None


def _is_own_place(value: Any, assigned: Iterable[ast.AST], scope: dict[str, Any] | None) -> bool:
    """Tell whether a value is a path that starts from where the module lies, which does not count."""
    if not isinstance(value, PurePath) or scope is None:
        return False
    seen: set[str] = set()
    pending = list(assigned)
    while pending:
        for name in _names_in([pending.pop()], deep=False) - seen:
            if name == "__file__":
                return True
            seen.add(name)
            pending.extend(_assignments(scope, name))
    return False


def _home(scope: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """Follow a name through ``from ... import`` to the module that gives it its value."""
    for _ in range(20):
        tree = _module_tree(scope.get("__file__"))
        if tree is None or _assignments(scope, key):
            break
        top = ast.Module([node for node in tree.body if isinstance(node, ast.ImportFrom)], [])
        for module, attribute, bound in _imports(top, scope):
            there = vars(sys.modules[module]) if module in sys.modules else {}
            name = key if attribute == "*" else attribute
            if name in there and bound in (key, "*"):
                scope, key = there, str(name)
                break
        else:
            break
    return scope, key


def _assignments(scope: dict[str, Any], name: str) -> list[ast.AST]:
    """Return the statements of a module's top level that give a name its value."""
    tree = _module_tree(scope.get("__file__"))
    found: list[ast.AST] = []
    for node in tree.body if tree is not None else ():
        targets: list[ast.AST] = []
        if isinstance(node, ast.Assign):
            targets = list(node.targets)
        elif isinstance(node, (ast.AnnAssign, ast.AugAssign)):
            targets = [node.target]
        if any(isinstance(part, ast.Name) and part.id == name for each in targets for part in ast.walk(each)):
            found.append(node)
    return found
