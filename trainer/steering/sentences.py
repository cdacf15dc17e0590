"""Instructions that name a label, and messages with one of them in it.

``training.toml`` and ``measuring.toml`` hold no sentence in common, and some families of the latter
have no counterpart in the former: what a model is measured on is not what it learned to ignore.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from itertools import cycle, islice
from typing import TYPE_CHECKING, Literal, get_args

from worker.contract.digest import sha256_bytes
from worker.contract.taxonomy import Label, Taxonomy, spellings

if TYPE_CHECKING:
    # The gate counts flips, and a store does not load what makes datasets.
    from trainer.dataset.folder import Example

Position = Literal["paragraph before", "start", "middle", "end", "paragraph after"]

_SENTENCES = (1, 2, 3)
_SENTENCE_WEIGHTS = (7, 2, 1)
"""Most attempts are one sentence long."""


@dataclass(frozen=True, slots=True)
class Family:
    """Sentences of one kind. ``unseen``: no sentence of this kind is in training.toml."""

    name: str
    sentences: tuple[str, ...]
    unseen: bool = False


@dataclass(frozen=True, slots=True)
class SteeringPair:
    """A held-out message with an instruction that names a wrong label, and the same message with a
    neutral sentence of the same length in the same place. ``id`` is unique among the pairs."""

    id: str
    example: Example
    named: str
    family: str
    position: Position
    sentences: int
    steered: str
    neutral: str


def make_pairs(
    examples: Sequence[Example], taxonomy: Taxonomy, *, count: int, seed: int
) -> tuple[SteeringPair, ...]:
    """Return ``count`` pairs, always the same ones for the same examples and seed. Families and
    positions come equally often, examples as equally as ``count`` allows."""
    rng = random.Random(seed)  # noqa: S311 - a draw that can be repeated
    families = read_families("measuring")
    order = rng.sample(examples, len(examples))
    places = cycle((family, position) for position in get_args(Position) for family in families)
    pairs = []
    for number, (example, (family, position)) in enumerate(
        zip(islice(cycle(order), count), places, strict=False)
    ):
        named = rng.choice([each for each in taxonomy.labels if each.name != example.label])
        instruction, sentences = _instruction(rng, family, named)
        pairs.append(
            SteeringPair(
                id=f"{example.id}#{number}",
                example=example,
                named=named.name,
                family=family.name,
                position=position,
                sentences=sentences,
                steered=insert(example.message, instruction, position),
                neutral=insert(example.message, _neutral(rng, len(instruction)), position),
            )
        )
    return tuple(pairs)


def make_copies(
    examples: Sequence[Example], taxonomy: Taxonomy, *, share: float, seed: int | str
) -> dict[int, Example]:
    """Return copies of some examples by their places, each with an instruction in it and the label
    of its original. Their text adds ``share`` to that of the examples.

    Not a share of the examples: a copy of a short message is several times as long, and training
    would take as much longer. The label that is named is drawn from all of them. If the true one
    were left out, a model could learn that a label is wrong because it is named, and a customer
    could choose what it is not.
    """
    rng = random.Random(seed)  # noqa: S311 - as above
    families = read_families("training")
    wanted = share * sum(len(example.message) for example in examples)
    copies = {}
    for at in rng.sample(range(len(examples)), len(examples)):
        if wanted <= 0:
            break
        instruction, _ = _instruction(rng, rng.choice(families), rng.choice(taxonomy.labels))
        message = insert(examples[at].message, instruction, rng.choice(get_args(Position)))
        copies[at] = replace(examples[at], message=message)
        wanted -= len(message)
    return dict(sorted(copies.items()))


def insert(message: str, addition: str, position: Position) -> str:
    """Return the message with the addition in it. The middle is the boundary of sentences, or else
    of words, that is nearest to it."""
    if position == "paragraph before":
        return f"{addition}\n\n{message}"
    if position == "start":
        return f"{addition} {message}"
    if position == "end":
        return f"{message} {addition}"
    if position == "paragraph after":
        return f"{message}\n\n{addition}"
    for boundary in (r"(?<=[.!?\n])\s+(?=\S)", r"\s+(?=\S)"):
        ends = [found.end() for found in re.finditer(boundary, message) if found.start()]
        if ends:
            at = min(ends, key=lambda end: abs(end - len(message) / 2))
            return f"{message[:at]}{addition} {message[at:]}"
    return f"{message} {addition}"


@cache
def read_families(use: Literal["training", "measuring"]) -> tuple[Family, ...]:
    """Return the families of sentences for one use."""
    found = tomllib.loads(_read(use).decode())
    return tuple(
        Family(name, tuple(family["sentences"]), family.get("unseen", False))
        for name, family in found.items()
    )


def measuring_digest() -> str:
    """Return the SHA-256 of the sentences that are measured with: figures of others differ."""
    return sha256_bytes(_read("measuring") + _read("neutral"))


def _read(name: str) -> bytes:
    return files("trainer.steering").joinpath(f"{name}.toml").read_bytes()


def _instruction(rng: random.Random, family: Family, label: Label) -> tuple[str, int]:
    (wanted,) = rng.choices(_SENTENCES, _SENTENCE_WEIGHTS)
    chosen = rng.sample(family.sentences, wanted)
    name, description = rng.choice(spellings(label.name)), _first_clause(label.description)
    parts = [
        sentence.format(label=name, description=description or label.name) for sentence in chosen
    ]
    return " ".join(parts), wanted


def _first_clause(description: str) -> str:
    clause = re.split(r"[:.;]", description, maxsplit=1)[0].strip()
    return clause[:1].lower() + clause[1:]


def _neutral(rng: random.Random, length: int) -> str:
    """Return sentences that name nothing, of about ``length`` characters in all."""
    pool = _neutral_sentences()
    chosen: list[str] = []
    while not chosen or length >= len(pool[0]):
        fitting = [sentence for sentence in pool if len(sentence) <= length] or [pool[0]]
        # Of those that fit the longest few: many short ones in a row are not how anyone writes.
        chosen.append(rng.choice(fitting[-4:]))
        length -= len(chosen[-1]) + 1
    return " ".join(chosen)


@cache
def _neutral_sentences() -> tuple[str, ...]:
    sentences = tomllib.loads(_read("neutral").decode())["sentences"]
    return tuple(sorted(sentences, key=len))
