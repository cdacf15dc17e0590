"""How much of a package its own unit tests notice: small changes planted in it, one at a time.

    python -m tests.bench.mutants [PACKAGE=TESTS ...] [--tree DIR] [--count 300] [--seed 1]

Each mutant is one small change: another comparison, operator or constant, an inverted condition, a
call or an assignment left out. The tests that call its function run in its own process, the fastest
first, until one fails. A mutant that no test reaches survives. The processes are forks of one that
has loaded the libraries and none of our code, so most take a second or two.

With ``--tree`` another checkout is measured, with its own environment if it has one, to compare the
two: their mutants differ, and each share has its error.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Literal

PACKAGES = (
    "worker/core=tests/unit/core",
    "worker/stream=tests/unit/stream",
    "trainer/statistics=tests/unit/trainer/statistics",
)
LIBRARIES = ("pytest", "hypothesis", "numpy", "scipy.stats", "structlog",
             "confluent_kafka")  # fmt: skip
SPARE_S = 10
"""A mutant that takes this much longer than its tests usually do counts as hanging."""

_SWAPPED: dict[type[ast.AST], type[Any]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip

_NO_TESTS, _BROKEN = 5, 70
"""Exit codes of pytest, and of ours where pytest itself fails."""

Fate = Literal["killed", "hung", "survived", "not reached"]


@dataclass(frozen=True)
class Mutant:
    """A change to one node, by its index in the order of ``ast.walk``."""

    path: str
    node: int
    line: int
    change: str
    function: int | None
    """First line of the enclosing function; None: executed when the module is loaded."""


def mutants_of(path: Path) -> list[Mutant]:
    """All possible changes of a file, except in annotations, decorators, strings, log lines and
    blocks under ``TYPE_CHECKING``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    left_out = set(_left_out(tree))
    functions = {}
    for each in ast.walk(tree):  # an inner function comes after the one around it
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([each.lineno, *(by.lineno for by in each.decorator_list)])
            functions.update(dict.fromkeys(map(id, ast.walk(ast.Module(each.body, []))), first))
    return [
        Mutant(str(path), at, node.lineno, change, functions.get(id(node)))
        for at, node in enumerate(ast.walk(tree))
        if isinstance(node, ast.expr | ast.stmt) and node not in left_out
        if (change := _change_of(node)) is not None
    ]


def _left_out(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        whole: list[ast.AST | None] = []
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                whole = [*node.decorator_list, node.returns]
            case ast.ClassDef():
                whole = [*node.decorator_list, *node.bases]
            case ast.arg() | ast.AnnAssign():
                whole = [node.annotation]
            case ast.JoinedStr() | ast.Assert():
                whole = [node]
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                whole = [node]
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="_log")))):
                whole = [node]
        for part in whole:
            yield from ast.walk(part) if part is not None else ()


def _change_of(node: ast.AST) -> str | None:  # noqa: PLR0911
    """The name of the change that ``_mutate`` makes to a node, or None."""
    match node:
        case (
            ast.Compare(ops=[op, *_]) | ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op)
        ):
            return type(op).__name__ if type(op) in _SWAPPED else None
        case ast.UnaryOp(op=ast.Not()):
            return "Not left out"
        case ast.Constant(value=bool() | int() | float() as value):
            return f"another constant than {value}"
        case ast.If() | ast.While() | ast.IfExp():
            return "condition turned round"
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
            return "None returned"
        case ast.Expr(value=ast.Call()):
            return "call left out"
        case ast.Assign(targets=[ast.Attribute()]):
            return "assignment left out"
    return None


class _Mutate(ast.NodeTransformer):
    def __init__(self, target: ast.AST) -> None:
        self.target = target

    def visit(self, node: ast.AST) -> Any:
        if node is not self.target:
            return self.generic_visit(node)
        return ast.copy_location(_mutate(node), node)


def _mutate(node: ast.AST) -> ast.AST:
    match node:
        case ast.Compare():
            node.ops[0] = _SWAPPED[type(node.ops[0])]()
        case ast.BinOp() | ast.BoolOp() | ast.AugAssign():
            node.op = _SWAPPED[type(node.op)]()
        case ast.UnaryOp():
            return node.operand
        case ast.Constant(value=bool() as value):
            return ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            return ast.Constant(value + 1)
        case ast.If() | ast.While() | ast.IfExp():
            node.test = ast.UnaryOp(ast.Not(), node.test)
        case ast.Return():
            node.value = ast.Constant(None)
        case _:
            return ast.Pass()
    return node


def compiled(mutant: Mutant) -> CodeType:
    tree = ast.parse(Path(mutant.path).read_text(encoding="utf-8"))
    target = next(node for at, node in enumerate(ast.walk(tree)) if at == mutant.node)
    changed = ast.fix_missing_locations(_Mutate(target).visit(tree))
    return compile(changed, str(Path(mutant.path).resolve()), "exec")


# What follows runs within the tree.


class _Finder(importlib.abc.MetaPathFinder):
    """Loads a mutant in place of its module."""

    def __init__(self, mutant: Mutant) -> None:
        name = mutant.path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        self.name, self.mutant = name, mutant

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> Any:
        if fullname != self.name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        assert spec is not None
        assert spec.loader is not None
        spec.loader.get_code = lambda _: compiled(self.mutant)  # type: ignore[attr-defined]
        return spec


@dataclass
class Reached:
    """For each test: its duration, and the functions (file, first line) that it calls."""

    seconds: dict[str, float] = field(default_factory=dict)
    called: dict[str, list[tuple[str, int]]] = field(default_factory=dict)

    def tests_of(self, mutant: Mutant, budget_s: float) -> list[str]:
        """The tests that call a mutant's function, quickest first, within a time limit. For code
        that runs at import: the tests that call anything in the module."""
        chosen: list[str] = []
        spent = 0.0
        for test in sorted(self.called, key=self.seconds.__getitem__):
            if any(mutant.path == path and mutant.function in {None, first}
                   for path, first in self.called[test]):  # fmt: skip
                spent += self.seconds[test]
                if chosen and spent > budget_s:
                    break
                chosen.append(test)
        return chosen


class _Tracer:
    """A pytest plugin that records which functions of a package each test calls."""

    def __init__(self, package: str) -> None:
        self.top = f"{Path(package).resolve()}{os.sep}"
        self.reached = Reached()
        self.now: set[tuple[str, int]] = set()

    def _call(self, frame: Any, _event: str, _: Any) -> None:
        code = frame.f_code
        if code.co_filename.startswith(self.top):
            self.now.add((os.path.relpath(code.co_filename), code.co_firstlineno))

    def pytest_runtest_protocol(self, item: Any) -> None:
        """Reset. A traced test may take long."""
        item.add_marker("long")
        self.now = set()
        self.began = time.perf_counter()
        threading.settrace(self._call)
        sys.settrace(self._call)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        sys.settrace(None)
        threading.settrace(None)
        self.reached.called[nodeid] = sorted(self.now)
        self.reached.seconds[nodeid] = time.perf_counter() - self.began


class _Chosen:
    """A pytest plugin that runs only these tests, in this order."""

    def __init__(self, tests: Sequence[str]) -> None:
        self.rank = {test: at for at, test in enumerate(tests)}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self.rank),
            key=lambda item: self.rank[item.nodeid],
        )


def _pytest(paths: Sequence[str], plugin: object, marked: str) -> int:
    """Run tests and return pytest's exit code. Hypothesis neither reads nor stores examples."""
    import pytest
    from hypothesis.configuration import set_hypothesis_home_dir

    with tempfile.TemporaryDirectory() as home:
        set_hypothesis_home_dir(home)
        options = ["-x", "-q", "-m", marked, "-p", "no:cacheprovider", "--hypothesis-seed=1"]
        # Hypothesis and others are loaded before pytest could rewrite their assertions.
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        return int(pytest.main([*options, *paths], plugins=[plugin]))


def _fork(call: Callable[[], int], output: int) -> int:
    """Run ``call`` in a child that leads a process group; return its result as the exit code."""
    child = os.fork()
    if child:
        return child
    code = _BROKEN
    try:
        os.setsid()
        os.dup2(output, 1)
        os.dup2(output, 2)
        code = call()
    except Exception:  # noqa: BLE001 - whatever it is, a child must not go on as its parent
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _trace(package: str, tests: str, marked: str) -> Reached:
    with tempfile.NamedTemporaryFile() as file:

        def call() -> int:
            tracer = _Tracer(package)
            code = _pytest([tests], tracer, marked)
            Path(file.name).write_text(
                json.dumps([tracer.reached.seconds, tracer.reached.called]), encoding="utf-8"
            )
            return code

        _, status = os.waitpid(_fork(call, sys.stderr.fileno()), 0)
        if os.waitstatus_to_exitcode(status) != 0:
            sys.exit(f"{tests}: not every test passes without a mutant; run them separately")
        seconds, called = json.loads(Path(file.name).read_text(encoding="utf-8"))
    return Reached(seconds, called)


def _fate(code: int, mutant: Mutant) -> Fate:
    # pytest has different exit codes for a failing test, module and conftest.
    if code in {_NO_TESTS, _BROKEN}:
        sys.exit(f"{mutant}: its tests could not be run (exit code {code})")
    return "survived" if code == 0 else "killed"


@dataclass
class _Running:
    mutant: Mutant
    until: float


def _judge(
    chosen: Sequence[Mutant], reached: Reached, budget_s: float, jobs: int, marked: str
) -> dict[Mutant, Fate]:
    fates: dict[Mutant, Fate] = {}
    running: dict[int, _Running] = {}
    waiting = list(reversed(chosen))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            tests = reached.tests_of(mutant, budget_s)
            if not tests:
                fates[mutant] = "not reached"
                continue
            usual_s = sum(reached.seconds[test] for test in tests)

            def call(mutant: Mutant = mutant, tests: list[str] = tests) -> int:
                sys.meta_path.insert(0, _Finder(mutant))
                files = dict.fromkeys(test.partition("::")[0] for test in tests)
                return _pytest(list(files), _Chosen(tests), marked)

            until = time.monotonic() + SPARE_S + 3 * usual_s
            running[_fork(call, nowhere)] = _Running(mutant, until)
        time.sleep(0.02)
        for child, each in list(running.items()):
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                fates[each.mutant] = _fate(os.waitstatus_to_exitcode(status), each.mutant)
            elif time.monotonic() > each.until:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                fates[each.mutant] = "hung"
            if each.mutant in fates:
                del running[child]
                print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return fates


def _inside(given: argparse.Namespace) -> None:
    for library in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(library)
    for pair in given.packages:
        package, tests = pair.split("=")
        files = sorted(Path(package).rglob("*.py"))
        possible = [mutant for file in files for mutant in mutants_of(file)]
        if not possible:
            sys.exit(f"{package}: no module there to change")
        draw = random.Random(given.seed)
        chosen = draw.sample(possible, min(given.count, len(possible)))
        marked = "not long" if given.slow else "not long and not slow"
        reached = _trace(package, tests, marked)
        fates = _judge(chosen, reached, given.seconds, given.jobs, marked)
        _print(package, len(possible), fates, survivors=given.survivors)


def _print(package: str, possible: int, fates: dict[Mutant, Fate], *, survivors: bool) -> None:
    counts = Counter(fates.values())
    share = (counts["killed"] + counts["hung"]) / len(fates)
    error = 2 * math.sqrt(share * (1 - share) / len(fates))
    print(
        f"{package}: {share:.1%} ± {error:.1%} killed; of {len(fates)} of {possible} mutants "
        f"{counts['killed']} killed, {counts['hung']} hung, {counts['survived']} survived, "
        f"{counts['not reached']} not reached by any test",
        flush=True,
    )
    by_place: defaultdict[str, list[str]] = defaultdict(list)
    for mutant, fate in fates.items():
        if fate in {"survived", "not reached"}:
            by_place[f"{mutant.path}:{mutant.line}"].append(f"{mutant.change}, {fate}")
    if survivors:
        for place in sorted(by_place):
            print(f"  {place}: {'; '.join(by_place[place])}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("packages", nargs="*", default=PACKAGES, metavar="PACKAGE=TESTS")
    parser.add_argument("--tree", type=Path, default=Path(__file__).parents[2])
    parser.add_argument("--count", type=int, default=300, help="mutants of each package")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    parser.add_argument("--seconds", type=float, default=10.0, help="of tests for one mutant")
    parser.add_argument("--slow", action="store_true", help="include the tests marked slow")
    parser.add_argument("--survivors", action="store_true", help="list those that were not killed")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        _inside(given)
        return
    own = given.tree / ".venv" / "bin" / "python"
    python = str(own.absolute()) if own.exists() else sys.executable
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(
        [python, "-P", __file__, "--inside", *sys.argv[1:]],
        cwd=given.tree,
        env={**os.environ, **threads, "PYTHONPATH": str(given.tree.absolute())},
        check=False,
    )
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
