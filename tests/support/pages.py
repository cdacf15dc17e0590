"""The project's Markdown pages for tests: links, anchors, and the names they use."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = ("worker", "trainer", "desk", "helm", "tests")
PAGES = tuple(
    sorted(
        path.relative_to(ROOT).as_posix()
        for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("helm/*/*.md"))
    )
)
"""Every page, by its path from the root."""


@functools.cache
def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def links(page: str) -> Iterator[tuple[Path, str]]:
    """Yield the file and the anchor of each link into this repository. ``""`` means no anchor."""
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            here = ROOT / page
            yield (here.parent / path).resolve() if path else here, anchor


@functools.cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors that GitHub makes from a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return frozenset(re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings)


def spoken(page: str) -> str:
    """A page's text without fenced blocks and inline code."""
    text = re.sub(r"^```.*?^```", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^    .*$", "", text, flags=re.MULTILINE)


def code_words(page: str) -> list[str]:
    """Words in backticks in a page's prose and tables."""
    return re.findall(r"`([^`\n]+)`", spoken(page))


@functools.cache
def names_in(path: Path) -> frozenset[str]:
    """Every name that a Python file defines: classes, functions, variables, parameters."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
    return frozenset(found)


@functools.cache
def all_names() -> frozenset[str]:
    files = (path for top in CODE for path in (ROOT / top).rglob("*.py"))
    return frozenset().union(*(names_in(path) for path in files))
