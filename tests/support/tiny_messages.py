"""Made-up messages with three labels, which a tiny model can learn, and their taxonomy."""

from __future__ import annotations

import random
from pathlib import Path

WORDS = {
    "order_tracking": ["where", "parcel", "tracking", "arrive"],
    "refund": ["money", "back", "refund", "paid"],
    "payment": ["card", "declined", "invoice", "charged"],
}
FILLERS = ["please", "my", "the", "hello", "today", "thanks", "it", "is", "still", "now"]

# Messages that differ only in a number have one form, and are near-duplicates.
_LETTERS = str.maketrans("0123456789", "bcdfghjklm")


def write_tiny_taxonomy(folder: Path) -> Path:
    """Write the taxonomy of the three labels; return its file."""
    path = folder / "taxonomy.toml"
    labels = "".join(f'[[labels]]\nname = "{name}"\ndescription = "d"\n' for name in WORDS)
    path.write_text(f'name = "tiny"\nversion = "1"\n{labels}', encoding="utf-8")
    return path


def make_messages(count: int, seed: int) -> list[tuple[str, str]]:
    """(message, label) pairs, ``count`` of each label, all different."""
    rng = random.Random(seed)
    pairs = []
    for label, words in WORDS.items():
        for number in range(count):
            chosen = rng.sample(words, 2) + rng.sample(FILLERS, rng.randint(1, 5))
            rng.shuffle(chosen)
            own = f"{seed}{number}".translate(_LETTERS)
            pairs.append((f"{' '.join(chosen)} {own}", label))
    return pairs
