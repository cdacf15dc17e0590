"""What our modules import, read from their source."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
_DYNAMIC = frozenset({"import_module", "__import__"})


@cache
def _read(path: Path) -> tuple[frozenset[str], tuple[ast.Import | ast.ImportFrom, ...]]:
    """All imports of a file, and the statements that import while it is loaded; parsed once."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.update(_names(node, path))
        elif isinstance(node, ast.Call) and node.args and _is_dynamic(node.func):
            first = node.args[0]
            if isinstance(first, ast.Constant):
                found.add(str(first.value))
    return frozenset(found), tuple(_statements(tree.body))


def all_imports(path: Path) -> frozenset[str]:
    """Every module that a file imports anywhere, with ``module.name`` for each name."""
    return _read(path)[0]


def importers(top: str, package: str) -> set[str]:
    """Files of our ``top`` directory that import ``package`` or anything in it."""
    return {
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / top).rglob("*.py"))
        if any(is_within(name, package) for name in all_imports(path))
    }


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


@cache
def loaded_imports(path: Path) -> frozenset[str]:
    """Every module, with ``module.name`` for each name, that a file imports while it is loaded:
    not inside functions, nor for type checkers."""
    return frozenset(name for statement in _read(path)[1] for name in _names(statement, path))


@cache
def module_graph(*tops: str) -> Mapping[str, frozenset[str]]:
    """For each of our modules: the modules of ours that are loaded with it, without imports
    inside functions and for type checkers."""
    paths = {_module(path): path for top in tops for path in (ROOT / top).rglob("*.py")}
    return {
        module: frozenset(
            name
            for statement in _read(path)[1]
            for name in _loaded(statement, path, paths)
            if name in paths and name != module
        )
        for module, path in paths.items()
    }


def reachable(graph: Mapping[str, frozenset[str]], start: str) -> set[str]:
    """Every module that is loaded with ``start``, directly or indirectly."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for module in graph[waiting.pop()] - found:
            found.add(module)
            waiting.append(module)
    return found


def _is_dynamic(called: ast.expr) -> bool:
    """Whether this imports by a computed name, ``importlib.import_module`` included."""
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", None)
    return name in _DYNAMIC


def _module(path: Path) -> str:
    dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return dotted.removesuffix(".__init__")


def _names(node: ast.Import | ast.ImportFrom, path: Path) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    assert node.level == 0, f"{path}: a relative import"
    assert node.module is not None
    yield node.module
    yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _loaded(
    node: ast.Import | ast.ImportFrom, path: Path, modules: Collection[str]
) -> Iterator[str]:
    """Like ``_names``, but ``from package import module`` yields the module, not the package."""
    names = list(_names(node, path))
    if isinstance(node, ast.ImportFrom) and all(name in modules for name in names[1:]):
        names = names[1:]
    yield from names


def _statements(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports that run while a module is loaded."""
    for statement in body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            yield statement
        elif isinstance(statement, ast.If):
            if "TYPE_CHECKING" not in ast.unparse(statement.test):
                yield from _statements(statement.body)
            yield from _statements(statement.orelse)
        elif isinstance(statement, ast.Try):
            yield from _statements(statement.body)
            for handler in statement.handlers:
                yield from _statements(handler.body)
            yield from _statements(statement.orelse + statement.finalbody)
        elif isinstance(statement, ast.With | ast.ClassDef):
            yield from _statements(statement.body)
