"""Which messages are learned from, which choices are made on, and which are held out.

What is guaranteed. The sides depend on the seed, the messages and the labels as they came in,
never on the order of lines, and a cluster of near-duplicates stays on one side whole. A person's
decisions come after the split and are no input to it: with the same seed and rows they move no
row from one side to another; a row they relabel takes its new label along to the side where it
is. Rows added to the export move only the few clusters at the edge of a label's quota.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from trainer.dataset.per_label import first_of_each
from trainer.dataset.row import Row
from trainer.errors import BadInput
from worker.contract.digest import sha256_bytes

TRAIN, VALIDATION, HOLDOUT = "train", "validation", "holdout"


def check_shares(validation_share: float, holdout_share: float) -> None:
    """Raise BadInput when the shares cannot be, or leave nothing to train on."""
    if not 0 < validation_share < 1 or not 0 <= holdout_share < 1:
        raise BadInput("--validation-share and --holdout-share lie between 0 and 1")
    if validation_share + holdout_share >= 1:
        raise BadInput("--validation-share and --holdout-share leave nothing to train on")


def assign_sides(
    clusters: Sequence[Sequence[str]],
    labels: Mapping[str, str],
    *,
    validation_share: float,
    holdout_share: float,
    seed: int,
) -> dict[str, str]:
    """Return key -> side. ``clusters`` are of keys; ``labels`` gives each key's label.

    Within a label its clusters are put in the order of a digest of seed and smallest key, and
    fill the hold-out's quota, then validation's, then training; a cluster that no longer fits
    goes to the next. Every label with two messages or more has one held out, when a hold-out is
    asked for, as far as its clusters allow.
    """
    strata: dict[str, list[Sequence[str]]] = defaultdict(list)
    for cluster in clusters:
        strata[commonest(labels[key] for key in cluster)].append(cluster)
    sides: dict[str, str] = {}
    for members in strata.values():
        total = sum(len(cluster) for cluster in members)
        room = {
            HOLDOUT: max(1, round(total * holdout_share)) if holdout_share else 0,
            VALIDATION: max(1, round(total * validation_share)),
        }
        for cluster in sorted(members, key=lambda one: rank(seed, min(one))):
            side = next((one for one, left in room.items() if len(cluster) <= left), TRAIN)
            if side in room:
                room[side] -= len(cluster)
            sides.update(dict.fromkeys(cluster, side))
    return sides


def cap_per_label(
    rows: Sequence[Row], per_label: int | None, *, seed: int
) -> tuple[list[Row], list[Row]]:
    """Return (kept, surplus): at most ``per_label`` rows of each label, chosen by digest, both in
    the order of ``rows``."""
    if per_label is None:
        return list(rows), []
    places = [rank(seed, row.key) for row in rows]
    kept = set(first_of_each([row.label for row in rows], places, per_label))
    return (
        [row for at, row in enumerate(rows) if at in kept],
        [row for at, row in enumerate(rows) if at not in kept],
    )


def commonest(labels: Iterable[str]) -> str:
    """Return the most frequent label, the first by name of several."""
    return min(Counter(labels).items(), key=lambda one: (-one[1], one[0]))[0]


def rank(seed: int, key: str) -> str:
    """Return the place of a key in an order that looks random and depends on the two alone."""
    return sha256_bytes(f"{seed}\n{key}".encode("utf-8", "surrogatepass"))
