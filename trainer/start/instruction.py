"""The labels that a fine-tune's instruction lists, checked against the answers in its file.

A list is read line by line (``- label: description``, ``1. label - description``, ``label:
description``), or as names with commas. It counts only if at least two of its names, and at least
half, are answers: an instruction has other lists too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from trainer.start.look import label_key

_MARK = re.compile(r"\s*(?:[-*•·+–]|\(?\d{1,3}[.):]|\(?[A-Za-z][.)])\s+|\s*#{1,6}\s+")
_BETWEEN = re.compile(r"\s*[:=\t]\s*|\s+[-–—]+>?\s+|\s+(?=\()")
_AROUND = " \t*_`\"'“”‘’«»<>[]{}|."
_NAME_CHARS, _NAME_WORDS = 60, 6
_SENTENCE = re.compile(r"[\n:;]|[.!?](?=\s|$)")
_LINK = re.compile(r"(\s(?:or|and)\s)")
_LABEL_CHARS = 120
"""More than the longest name of a label, with the marks around it."""


@dataclass
class Listed:
    """What an instruction says of labels: their descriptions by ``label_key``, empty where it has
    none, and the names in its lists that no answer has."""

    descriptions: dict[str, str] = field(default_factory=dict)
    unseen: list[str] = field(default_factory=list)

    def has(self, label: str) -> bool:
        """Return whether the instruction lists a label."""
        return label_key(label) in self.descriptions

    def describe(self, labels: Collection[str]) -> Mapping[str, str]:
        """Return label -> description, for those that the instruction describes."""
        found = {label: self.descriptions.get(label_key(label), "") for label in labels}
        return {label: text for label, text in found.items() if text}


@dataclass
class _Item:
    name: str
    description: str
    key: str | None
    marked: bool


def listed_labels(instruction: str, answers: Collection[str]) -> Listed:
    """Return what an instruction says of the labels that are answers."""
    keys = {label_key(answer) for answer in answers}
    found = Listed()
    for block in [*_blocks(instruction, keys), *_sequences(instruction, keys)]:
        matched = [at for at, item in enumerate(block) if item.key is not None]
        if len(matched) < 2 or 2 * len(matched) < len(block):
            continue
        for item in block:
            if item.key is None:
                found.unseen.append(item.name)
            elif not found.descriptions.get(item.key):
                found.descriptions[item.key] = item.description
    found.unseen = [name for name in dict.fromkeys(found.unseen) if _is_name(name)]
    return found


def _blocks(instruction: str, keys: Collection[str]) -> Iterator[list[_Item]]:
    """Yield the lists of an instruction, a line an item; blank lines do not end one."""
    block: list[_Item] = []
    for line in instruction.splitlines():
        if not line.strip():
            continue
        item = _item(line, keys)
        if item.key is None and not item.marked:
            if block and line[0].isspace():
                block[-1].description = f"{block[-1].description} {line.strip()}".strip()
                continue
            yield block
            block = []
            continue
        block.append(item)
    yield block


def _item(line: str, keys: Collection[str]) -> _Item:
    """Return a line as an item. Its name is the longest beginning that is an answer, since labels
    may hold the marks that end a name."""
    mark = _MARK.match(line)
    rest = line[mark.end() if mark else 0 :].strip()
    # Of the line's beginning only: a line of a thousand names took quadratic time.
    cuts = [
        (len(rest), len(rest)),
        *(found.span() for found in _BETWEEN.finditer(rest[:_LABEL_CHARS])),
    ]
    parts = [(rest[:start].strip(_AROUND), rest[end:].strip()) for start, end in cuts]
    for name, description in (parts[0], *reversed(parts[1:])):
        if key := _key(name, keys):
            return _Item(name, _described(description), key, bool(mark))
    name, description = parts[min(1, len(parts) - 1)]
    return _Item(name, description, None, bool(mark))


def _described(text: str) -> str:
    """Return a description without a bracket or emphasis around all of it."""
    text = text.strip("*_` \t")
    whole = text[:1] == "(" and text.find(")") == len(text.rstrip(".")) - 1
    return text.rstrip(".")[1:-1] if whole else text


def _sequences(instruction: str, keys: Collection[str]) -> Iterator[list[_Item]]:
    """Yield names with commas, from the first that is an answer to the last."""
    for sentence in _SENTENCE.split(instruction):
        parts = (part.strip(_AROUND + "()") for part in re.split(r"[,|/\[\]]", sentence))
        names = [name for part in parts for name in _apart(part, keys)]
        items = [_Item(name, "", _key(name, keys), marked=False) for name in names if name]
        seen = [at for at, item in enumerate(items) if item.key is not None]
        if seen:
            yield items[seen[0] : seen[-1] + 1]


def _apart(text: str, keys: Collection[str]) -> list[str]:
    """Return the names that "or" or "and" joins, unless these are in a name."""
    # Names and links in turn; "stores and business or refund" is two names of three.
    words = _LINK.split(re.sub(r"^(?:or|and)\s+", "", text))
    if words == [text]:
        return words
    names: list[str] = []
    at = 0
    while at < len(words):
        tried = ((size, "".join(words[at : at + size])) for size in (5, 3, 1))
        size, name = next((each for each in tried if _key(each[1], keys)), (1, words[at]))
        names.append(name.strip(_AROUND + "()"))
        at += size + 1
    return names if any(_key(name, keys) for name in names) else [text]


def _key(name: str, keys: Collection[str]) -> str | None:
    """Return a name's key if it is that of an answer."""
    key = label_key(name) if len(name) <= _LABEL_CHARS else None
    return key if key in keys else None


def _is_name(text: str) -> bool:
    return 0 < len(text) <= _NAME_CHARS and len(text.split()) <= _NAME_WORDS
