"""Examples of a small shop: three labels of two sublabels, easy to distinguish."""

from __future__ import annotations

import random

from trainer.dataset.folder import Example

THINGS = {
    "order_tracking": ("parcel", "courier", "tracking", "arrive", "shipped", "delivery"),
    "refund": ("refund", "money", "back", "reimburse", "credited", "returned"),
    "payment": ("card", "declined", "invoice", "charged", "checkout", "bank"),
}
FILLERS = [
    *("please", "my", "the", "hello", "today", "thanks", "it", "is"),
    *("still", "now", "could", "you", "tell", "me", "why", "since"),
]


def make_examples(count: int, seed: int, start: int = 0) -> list[Example]:
    """Return ``count`` examples a label, each with two sublabels."""
    rng = random.Random(seed)
    found: list[Example] = []
    for label, words in THINGS.items():
        for _ in range(count):
            half = rng.randrange(2)
            chosen = rng.sample(words[half * 3 : half * 3 + 3], 2) + rng.sample(FILLERS, 7)
            rng.shuffle(chosen)
            text = f"{' '.join(chosen)} {rng.randrange(10**6)}"
            found.append(Example(f"m{start + len(found)}", text, label, f"{label} {'ab'[half]}"))
    return found
