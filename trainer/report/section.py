"""What a section of the page is: present with its content, or missing with the way to get it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trainer.report.read import Source


@dataclass(frozen=True, slots=True)
class Section:
    """One section: ``key`` names its anchor and its template, ``content`` is what that shows.

    ``missing`` says in a sentence why there is nothing to show, and is empty otherwise.
    """

    key: str
    title: str
    content: Mapping[str, Any] = field(default_factory=dict)
    missing: str = ""

    @property
    def present(self) -> bool:
        """Whether the section has something to show."""
        return not self.missing


def lacking(key: str, title: str, source: Source, folder: str = "the run folder") -> Section:
    """Return the section of a record that is not there yet."""
    return Section(
        key,
        title,
        missing=f"There is no {source.path} in {folder} yet; {source.command} makes it.",
    )
