"""The documents: links lead somewhere, and what they name is there.

A page that names a setting, a metric, a command, a file or a class that does not exist sends its
reader the wrong way, and no other test would notice.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest

from desk.accuracy.metrics import NAMES as OF_THE_DESK
from desk.settings import Settings as DeskSettings
from tests.support.pages import (
    PAGES,
    ROOT,
    all_names,
    anchors,
    code_words,
    links,
    spoken,
    text_of,
)
from worker.observe import metrics as named
from worker.records.schemas import SCHEMAS, schema_text
from worker.settings import Settings

TOPS = (".ci", ".github", "config", "desk", "docs", "helm", "locks", "tests", "trainer", "worker")
# They are about the code itself: every name in them has to be there.
ABOUT_CODE = ("CONTRIBUTING.md", "docs/architecture.md", "docs/glossary.md")
GLOSSARY = "docs/glossary.md"
# What was is named there too, and stays named.
HISTORY = "CHANGELOG.md"

each_page = pytest.mark.parametrize("page", [page for page in PAGES if page != HISTORY])


def test_the_pages_are_found() -> None:
    """A renamed folder does not make every check hold."""
    assert {"README.md", "SECURITY.md", HISTORY, *ABOUT_CODE, "docs/operations.md"} <= set(PAGES)
    assert len(PAGES) > 20


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    """Files are there, and headings in them."""
    for path, anchor in links(page):
        assert path.exists(), path
        assert not anchor or anchor in anchors(path), f"{path}#{anchor}"


def test_every_page_is_reached_from_the_readme() -> None:
    """Anyone who begins there finds each of them by links alone."""
    seen, waiting = set(), ["README.md"]
    while waiting:
        page = waiting.pop()
        seen.add(page)
        targets = {str(path.relative_to(ROOT)) for path, _ in links(page) if path.suffix == ".md"}
        waiting += sorted(targets - seen)
    assert seen >= set(PAGES)


@pytest.mark.parametrize("page", [page for page in PAGES if re.fullmatch(r"docs/[^/]+\.md", page)])
def test_each_page_says_for_whom_it_is(page: str) -> None:
    """In the first words under its title, so that anybody else can leave again."""
    title, _, rest = text_of(page).partition("\n\n")
    assert title.startswith("# ")
    assert rest.startswith("For "), rest[:80]


@each_page
def test_every_path_that_is_named_exists(page: str) -> None:
    """Files and folders in backticks, from the root of the repository."""
    for word in code_words(page):
        if re.fullmatch(rf"({'|'.join(map(re.escape, TOPS))})/[\w./*-]*", word):
            assert list(ROOT.glob(word.rstrip("/"))), word


@pytest.mark.parametrize("page", ABOUT_CODE)
def test_every_name_of_the_code_exists(page: str) -> None:
    """Classes, functions and modules in backticks, in the pages that are about the code."""
    for word in code_words(page):
        name = word.removesuffix("()")
        if re.fullmatch(r"[A-Z][a-z]+[A-Z]\w+|[a-z]+_\w+", name):
            known = name in all_names() or (ROOT / "tests/unit" / f"{name}.py").exists()
            assert known or name in SETTINGS_AND_METRICS, word
        elif re.fullmatch(r"(worker|trainer|desk|tests|helm)(\.\w+)+", name):
            path = ROOT / name.replace(".", "/")
            assert path.is_dir() or path.with_suffix(".py").exists(), word


def test_the_glossary_has_each_term_once() -> None:
    """A word with two meanings would defeat its purpose."""
    cells = re.findall(r"^\| ([^|]+) \| [^|]+ \|$", text_of(GLOSSARY), re.MULTILINE)
    terms = [term.strip() for cell in cells if cell != "term" for term in cell.split(",")]
    assert len(terms) > 40
    assert len(terms) == len(set(terms))


SCHEMA = "".join(map(schema_text, SCHEMAS))
SECTIONS: dict[str, set[str]] = {}
for _settings in (Settings, DeskSettings):
    for _name, _field in _settings.model_fields.items():
        _section: Any = _field.annotation
        SECTIONS.setdefault(_name, set()).update(_section.model_fields)
METRICS = {metric.name for metric in named.METRICS} | set(OF_THE_DESK)
for _path in sorted((ROOT / "desk").rglob("*.py")):
    METRICS |= set(re.findall(r'"(clerk_desk_[a-z_]+)"', _path.read_text(encoding="utf-8")))
SETTINGS_AND_METRICS = METRICS | {key for section in SECTIONS.values() for key in section}


@functools.cache
def source() -> str:
    """The code of worker and desk, for the names of log events."""
    files = [path for top in ("worker", "desk") for path in sorted((ROOT / top).rglob("*.py"))]
    return "".join(path.read_text(encoding="utf-8") for path in files)


@functools.cache
def options() -> dict[str, set[str]]:
    """Every sub-command of the programs with the options that it takes."""
    import typer.main

    from desk.cli.main import app as desk
    from trainer.cli.main import app as trainer
    from worker.cli.main import app as worker

    groups: dict[str, Any] = {
        "clerk-worker": typer.main.get_command(worker),
        "clerk-trainer": typer.main.get_command(trainer),
        "clerk-desk": typer.main.get_command(desk),
    }
    return {
        f"{program} {name}": {
            option
            for each in (command, *getattr(command, "commands", {}).values())
            for parameter in each.params
            for option in (*parameter.opts, *parameter.secondary_opts, "--help")
        }
        for program, group in groups.items()
        for name, command in group.commands.items()
    }


@each_page
def test_every_setting_that_is_named_is_one(page: str) -> None:
    """``section.key`` in backticks. A log event or a field of the output record may look so too."""
    for word in code_words(page):
        found = re.match(rf"({'|'.join(SECTIONS)})\.([a-z]\w*)", word)
        if found and found[2] not in SECTIONS[found[1]]:
            assert f'"{found.group()}"' in source() or f'"{found[2]}"' in SCHEMA, word


@each_page
def test_every_metric_that_is_named_is_one(page: str) -> None:
    """With what Prometheus adds to a histogram's name; ``clerk_drift_*`` stands for several.

    Series that rules record (``job:clerk_...``) are no metrics.
    """
    for name in re.findall(r"(?<![\w:])clerk_[a-z_]+\*?", text_of(page)):
        if name.endswith(("*", "_")):
            assert any(metric.startswith(name.rstrip("*")) for metric in METRICS), name
        else:
            assert re.sub(r"_(bucket|sum|count)$", "", name) in METRICS or name in METRICS, name


@each_page
def test_every_make_target_that_is_named_is_one(page: str) -> None:
    """In backticks or as a line to type."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    assert {"demo", "test", "check"} <= targets
    named = re.findall(r"(?:^    |`)make ([a-z][a-z-]*)", text_of(page), re.MULTILINE)
    assert set(named) <= targets


@each_page
def test_every_module_that_is_to_be_run_can_be(page: str) -> None:
    """``python -m`` followed by a module of ours."""
    for name in re.findall(r"python -m ((?:worker|trainer|desk|tests|helm)[\w.]*)", text_of(page)):
        path = ROOT / name.rstrip(".").replace(".", "/")
        assert (path / "__main__.py").exists() or path.with_suffix(".py").exists(), name


@each_page
def test_every_sub_command_that_is_named_is_one(page: str) -> None:
    """Of each program, wherever a page has one typed."""
    line = r"(?:^    |`|\| )(clerk-(?:worker|trainer|desk) [a-z]+(?:-[a-z]+)*)([^`\n|]*)"
    for command, rest in re.findall(line, text_of(page), re.MULTILINE):
        assert command in options(), command
        given = set(re.findall(r"(?<=\s)--[a-z-]+", rest.split("#")[0]))
        assert given <= options()[command], f"{command}: {given - options()[command]}"


def test_contributing_shows_the_tree() -> None:
    """Each package of each program has its line, and no line is left of one that is gone."""
    text = spoken("CONTRIBUTING.md") + text_of("CONTRIBUTING.md")
    for program in ("worker", "trainer", "desk"):
        block = re.search(rf"^    {program}/ .*?(?=^    \S)", text, re.MULTILINE | re.DOTALL)
        assert block is not None
        shown = set(re.findall(r"^      (\w+)/ ", block.group(), re.MULTILINE))
        there = {path.parent.name for path in (ROOT / program).glob("*/__init__.py")}
        assert shown == there
