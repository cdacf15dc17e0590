"""The licence and the languages that a base's own folder names."""

from __future__ import annotations

import json
import re
from pathlib import Path

from worker.common.base_model import made_base_model

_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*$", re.DOTALL | re.MULTILINE)
_LICENSE = re.compile(r"^license:[ \t]*[\"']?([A-Za-z0-9.\-]+)[\"']?[ \t]*$", re.MULTILINE)
_LANGUAGES = re.compile(
    r"^language:[ \t]*(?:\[([^\]]*)\]|([\w\"'-]+)|\n((?:[ \t]*-[ \t]*[\w\"'-]+[ \t]*\n?)+))",
    re.MULTILINE,
)
_TEXTS = (
    (re.compile(r"Apache License\s+Version 2\.0"), "apache-2.0"),
    (re.compile(r"MIT License"), "mit"),
)
_PROMPTS = "config_sentence_transformers.json"
_STARTS_WITH = re.compile(r"text should start with \"(query: )\"")
_HEAD = 1000
"""A licence's name stands at the top of its text."""


def find_license(base: Path) -> str | None:
    """Return the licence's name as model cards write it (``apache-2.0``): of the front matter of
    the folder's README.md, else of a LICENSE file that is well known; None where neither says."""
    card = _FRONT_MATTER.match(_read(base / "README.md"))
    found = _LICENSE.search(card[1]) if card else None
    if found:
        return found[1].lower()
    text = next((text for name in ("LICENSE", "LICENSE.txt") if (text := _read(base / name))), "")
    return next((name for pattern, name in _TEXTS if pattern.search(text[:_HEAD])), None)


def find_languages(base: Path) -> tuple[str, ...]:
    """Return the codes of the languages that a base knows (``en``, or ``multilingual``): of the
    front matter of the folder's README.md. The small instruct model has no README."""
    if base == made_base_model():
        return ("en",)
    card = _FRONT_MATTER.match(_read(base / "README.md"))
    found = _LANGUAGES.search(f"{card[1]}\n") if card else None
    text = next(filter(None, found.groups()), "") if found else ""
    return tuple(re.findall(r"[A-Za-z]+(?:-\w+)*", text))


def find_prefix(base: Path) -> str:
    """Return what an encoder expects before each text, such as ``query: ``, "" for nothing: the
    prompt of Sentence Transformers' own file, else what the folder's README says as the E5 models'
    do (Wang et al. 2022, arXiv 2212.03533)."""
    try:
        prompts = json.loads(_read(base / _PROMPTS))["prompts"]
        found = next((prompts[name] for name in ("classification", "query") if name in prompts), "")
    except (ValueError, LookupError, TypeError):
        found = ""
    said = _STARTS_WITH.search(_read(base / "README.md"))
    return found if isinstance(found, str) and found else said[1] if said else ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
