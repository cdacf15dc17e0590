"""The size of the code, and how many files one thing crosses on its way through it.

    python -m tests.house [--tree DIR] [--files]
    python -m tests.house --check      # the budgets in pyproject.toml; part of make check

Code lines are lines without blanks, comments, docstrings and imports. A module has one importer if
exactly one other module of the three programs imports it. The crossings are traced on fakes, in a
separate process with the tree's own environment if it has one: each file of the programs in which a
function is called counts once.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import tokenize
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

PROGRAMS = ("worker", "trainer", "desk")
PRODUCTION = (*PROGRAMS, "helm")
_NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


@dataclass(frozen=True)
class Counts:
    """The counts of one module, or of several together."""

    modules: int = 0
    lines: int = 0
    code: int = 0
    comments: int = 0
    """Lines with only a comment."""
    dataclasses: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.modules + other.modules,
            self.lines + other.lines,
            self.code + other.code,
            self.comments + other.comments,
            self.dataclasses + other.dataclasses,
        )


def count(source: str) -> Counts:
    """Count one module."""
    with_code: set[int] = set()
    with_comment: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            with_comment.add(token.start[0])
        elif token.type not in _NO_CODE:
            with_code.update(range(token.start[0], token.end[0] + 1))
    tree = ast.parse(source)
    left_out: set[int] = set()
    dataclasses = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) or _is_docstring(node):
            left_out.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        elif isinstance(node, ast.ClassDef):
            dataclasses += any("dataclass" in ast.unparse(by) for by in node.decorator_list)
    return Counts(
        1,
        len(source.splitlines()),
        len(with_code - left_out),
        len(with_comment - with_code),
        dataclasses,
    )


def _is_docstring(node: ast.AST) -> TypeGuard[ast.Expr]:
    """Whether this is a docstring: of a module, class, function or field."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def modules(tree: Path, top: str) -> dict[str, Path]:
    """Return the files of a package by their dotted names."""
    return {
        ".".join(path.relative_to(tree).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted((tree / top).rglob("*.py"))
    }


def one_importer(tree: Path) -> list[str]:
    """Return the modules that exactly one other module imports."""
    ours = {name: path for top in PROGRAMS for name, path in modules(tree, top).items()}
    importers: Counter[str] = Counter()
    for name, path in ours.items():
        imported: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    imported.add(whole if whole in ours else node.module)
        importers.update(imported & ours.keys() - {name})
    return sorted(name for name, times in importers.items() if times == 1)


# From here to _ask: runs inside the measured tree, so these imports are that tree's.


@contextlib.contextmanager
def _traced(files: set[str]) -> Iterator[None]:
    """Collect our files in which a function is called, here and in threads that begin meanwhile.
    Code that runs when a module is loaded does not count."""
    tops = tuple(f"{Path.cwd() / top}{os.sep}" for top in PROGRAMS)

    def called(frame: Any, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_name != "<module>" and code.co_filename.startswith(tops):
            files.add(os.path.relpath(code.co_filename))

    threading.setprofile(called)
    sys.setprofile(called)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def _record(files: set[str], _: Path) -> None:
    from tests.support.rig import started

    loop = started("hello")
    loop.answer("hello")  # the first one opens what later ones use
    with _traced(files):
        loop.add("good morning")
        loop.iterate()
        loop.answer("good morning")
    assert len(loop.outputs) == 2


def _row(files: set[str], folder: Path) -> None:
    from tests.support.trainer_world import run_cli

    labels = ("refund", "payment")
    words = random.Random(1)
    rows = [
        ",".join((f"{label}{at}", " ".join(_word(words) for _ in range(7)), label))
        for at in range(40)
        for label in labels
    ]
    export, taxonomy = folder / "export.csv", folder / "taxonomy.toml"
    export.write_text("\n".join(("id,message,label", *rows, "")))
    named = "".join(f'[[labels]]\nname = "{label}"\n' for label in labels)
    taxonomy.write_text(f'name = "shop"\nversion = "1"\n{named}')
    with _traced(files):
        done = run_cli(
            "prepare", "--input", export, "--taxonomy", taxonomy, "--out", folder / "out"
        )
    assert done.exit_code == 0, done.output


def _word(draw: random.Random) -> str:
    return "".join(draw.choices("abdegiklmnoprstu", k=6))


def _adapter(files: set[str], folder: Path) -> None:
    from tests.support.follower import AdapterStore, Follower
    from tests.support.toy_adapter import ONE, TWO
    from tests.support.trainer_world import run_cli
    from tests.unit.trainer.store.conftest import write_adapter, write_evaluation

    manifest = write_adapter(folder / "run" / "adapter", "one")
    write_evaluation(folder / "run" / "evaluation", manifest)
    with _traced(files):
        done = run_cli("publish", folder / "run", "--store", folder / "store")
    assert done.exit_code == 0, done.output
    store = AdapterStore(folder)
    worker = Follower(store, ONE)
    store.publish(TWO)
    with _traced(files):
        worker.follow()
    assert worker.main.manifest.digest == TWO.digest


def _decision(files: set[str], folder: Path) -> None:
    from desk.core.items import Queue
    from desk.service import reviewing
    from desk.store.database import Database
    from tests.support.desk_databases import databases
    from tests.support.desk_world import DeskWorld

    with databases(folder) as new:
        database = Database(new())
        world = DeskWorld(database)
        person, item = world.person("ann"), world.add()
        with _traced(files):
            task = reviewing.next_item(world.desk, person, Queue())
            reviewing.decide(
                world.desk, person, item.id, reviewing.Said(world.request(), "label", "refund")
            )
        assert task is not None
        assert task.item_id == item.id
        database.close()


TRACED: dict[str, Callable[[set[str], Path], None]] = {
    "a record, fetched to published": _record,
    "labelled rows, prepare": _row,
    "an adapter, published and served": _adapter,
    "a desk's decision": _decision,
}


def _inside() -> dict[str, Any]:
    """Return what only running programs can tell."""
    crossed = {}
    for name, call in TRACED.items():
        files: set[str] = set()
        with tempfile.TemporaryDirectory() as folder:
            call(files, Path(folder))
        crossed[name] = sorted(files)
    from typer.main import get_command

    from desk.cli.main import app as desk
    from trainer.cli.main import app as trainer
    from worker.cli.main import app as worker
    from worker.settings import Settings

    options = [_options(get_command(app)) for app in (worker, trainer, desk)]
    return {
        "crossed": crossed,
        "settings": _leaves(Settings),
        "options": dict(zip(PROGRAMS, options, strict=True)),
    }


def _leaves(model: Any) -> int:
    """Count the settings in a section and its subsections."""
    return sum(
        _leaves(field.annotation) if hasattr(field.annotation, "model_fields") else 1
        for field in model.model_fields.values()
    )


def _options(command: Any) -> int:
    """Count the options of a command and its subcommands."""
    below = getattr(command, "commands", {}).values()
    own = [param for param in command.params if param.param_type_name == "option"]
    return len(own) + sum(_options(each) for each in below)


def _ask(tree: Path) -> dict[str, Any]:
    """Run ``_inside`` on a tree."""
    own = tree / ".venv" / "bin" / "python"
    python = str(own) if own.exists() else sys.executable
    done = subprocess.run(
        [python, "-P", __file__, "--inside"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"{tree}: what runs on fakes could not be traced; the reason is above")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def packages(tree: Path, top: str) -> dict[str, Counts]:
    """Return the counts by package of a program; modules of its own are under its own name."""
    found: dict[str, Counts] = {}
    for name, path in modules(tree, top).items():
        parts = name.split(".")
        is_package = path.name == "__init__.py" or len(parts) > 2
        package = ".".join(parts[:2]) if is_package and len(parts) > 1 else top
        counted = count(path.read_text(encoding="utf-8"))
        found[package] = found.get(package, Counts()) + counted
    return found


def over_budget(tree: Path) -> list[str]:
    """Return a line for each package with more code lines than its budget, and for each without a
    budget."""
    project = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))
    budgets: dict[str, int] = project["tool"]["filing-clerk"]["code-lines"]
    found = {name: each for top in PRODUCTION for name, each in packages(tree, top).items()}
    return [
        f"{name}: {each.code} code lines, budget {budgets.get(name, 'none')}"
        for name, each in found.items()
        if each.code > budgets.get(name, 0)
    ]


def _show(tree: Path, *, files: bool) -> None:
    single = Counter(name.partition(".")[0] for name in one_importer(tree))
    print(f"{'':22}{'modules':>9}{'lines':>9}{'code':>9}{'dataclasses':>13}", end="")
    print(f"{'one importer':>14}{'comments':>10}")
    programs = total = Counts()
    for top in PRODUCTION:
        parts = packages(tree, top)
        sum_ = sum(parts.values(), Counts())
        total += sum_
        if top in PROGRAMS:
            programs += sum_
        _line(top, sum_, single[top] if top in PROGRAMS else None)
        for package, counted in sorted(parts.items()):
            _line(f"  {package}" if package != top else "  itself", counted, None)
    _line("programs", programs, sum(single.values()))
    _line("programs and helm", total, None)
    _line("tests", _all(tree, "tests"), None)
    found = _ask(tree)
    print(f"\n{'settings of the worker':40}{found['settings']:>6}")
    for top, number in found["options"].items():
        print(f"{f'options of clerk-{top}':40}{number:>6}")
    print("\nfiles crossed by")
    for name, crossed in found["crossed"].items():
        print(f"  {name:38}{len(crossed):>6}")
        if files:
            print("".join(f"      {file}\n" for file in crossed), end="")


def _all(tree: Path, top: str) -> Counts:
    each = (count(path.read_text(encoding="utf-8")) for path in modules(tree, top).values())
    return sum(each, Counts())


def _line(name: str, counts: Counts, single: int | None) -> None:
    share = f"{counts.comments / max(1, counts.lines):.1%}"
    print(
        f"{name:22}{counts.modules:>9}{counts.lines:>9,}{counts.code:>9,}{counts.dataclasses:>13}"
        f"{'' if single is None else single:>14}{share:>10}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.house", description=__doc__)
    parser.add_argument("--tree", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--files", action="store_true", help="name the files that are crossed")
    parser.add_argument("--check", action="store_true", help="only compare with the budgets")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        print(json.dumps(_inside()))
    elif given.check:
        if over := over_budget(given.tree.resolve()):
            lines = "\n".join(over)
            sys.exit(
                f"{lines}\nmake room first: remove something in the same package, or move the "
                "budget of another one (tool.filing-clerk.code-lines in pyproject.toml)"
            )
    else:
        _show(given.tree.resolve(), files=given.files)


if __name__ == "__main__":
    main()
