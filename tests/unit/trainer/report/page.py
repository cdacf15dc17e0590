"""A page as a browser would see it."""

from __future__ import annotations

import shlex
from functools import cache
from html.parser import HTMLParser
from typing import Any

from typer.main import get_command

from desk.cli.main import app as desk_app
from trainer.cli.main import app as trainer_app


class Page(HTMLParser):
    """What a browser would see: tags with attributes, ids, and the text outside scripts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.spaced = ""
        self.blocks: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "pre":
            self.blocks.append("")
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass
        self.spaced += " " * (tag in {"span", "p", "dt", "dd", "td", "th", "li", "h2"})

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open[-1:]):
            self.text += data
            self.spaced += data
        if "pre" in self.open:
            self.blocks[-1] += data

    @property
    def words(self) -> str:
        return " ".join(self.spaced.split())

    @property
    def commands(self) -> list[list[str]]:
        """The command lines that the page gives, as a shell would split them."""
        return [shlex.split(line) for line in self.blocks]


def refuse_unknown_options(words: list[str]) -> None:
    """Fail on a command line that is not one of ``clerk-trainer`` or ``clerk-desk``, or has an
    unknown option."""
    known = _commands(words[0])[words[1]]
    options = {
        name for parameter in known.params for name in (*parameter.opts, *parameter.secondary_opts)
    }
    for word in words[2:]:
        assert not word.startswith("--") or word in options, f"{words[1]} has no {word}"


@cache
def _commands(program: str) -> Any:
    app = {"clerk-trainer": trainer_app, "clerk-desk": desk_app}[program]
    return get_command(app).commands  # type: ignore[attr-defined]
