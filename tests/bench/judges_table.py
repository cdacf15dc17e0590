"""The table of ``tests.bench.judges``: every judge in every world."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from tests.bench.judges_worlds import (
    GATE_MARGIN,
    HOLDOUT,
    PRECISION,
    PROPOSALS,
    VALIDATION,
    Generator,
    Messages,
    draw_pair,
    draw_right,
    make_adapter,
    make_groups,
    promise_of,
    propose_equals,
    says_yes,
    threshold_of,
    true_precision,
)
from trainer.statistics.metrics import (
    ALPHA,
    count_discordant,
    design_effect,
    interval_of,
    lowest_share,
    mcnemar_exact,
)
from trainer.statistics.paired import non_inferiority_p
from trainer.store.gate import judge_kept_promise
from trainer.store.rules import GateRules

_DUEL_MARGIN, _DISCORDANCE = 0.01, 0.05


@dataclass(frozen=True, slots=True)
class Row:
    """A judge in a world: how often ``what`` happened of ``runs``. ``nominal`` is the most that it
    may, None where more is better."""

    judge: str
    world: str
    what: str
    count: int
    runs: int
    nominal: float | None

    @property
    def too_often(self) -> bool:
        """Whether it is above its nominal rate by more than simulation explains (three standard
        errors: there are some fifty rows)."""
        if self.nominal is None:
            return False
        error = math.sqrt(self.nominal * (1 - self.nominal) / self.runs)
        return self.count / self.runs > self.nominal + 3 * error


def print_table(runs: int, seed: int) -> None:
    """Run every world and print a row for each."""
    print("| judge | world | what happened | how often | may happen |\n|---|---|---|---|---|")
    failed = 0
    for judge_ in (_gate, _duel, _intervals, _thresholds, _promises, _labels, _proposals, _better):
        for row in judge_(np.random.default_rng(seed), runs):
            failed += row.too_often
            nominal = "" if row.nominal is None else f"{row.nominal:.0%}"
            mark = " TOO OFTEN" if row.too_often else ""
            print(
                f"| {row.judge} | {row.world} | {row.what} | {told(row.count, row.runs)} | "
                f"{nominal}{mark} |",
                flush=True,
            )
    print(f"\n{failed} rows above their nominal rate by more than simulation explains")


def told(count: int, runs: int) -> str:
    """Return a share with two standard errors."""
    share = count / runs
    return f"{share:.1%} ± {2 * math.sqrt(share * (1 - share) / runs):.1%}"


def _worlds() -> Iterator[tuple[str, bool]]:
    yield "independent", False
    yield "groups of 5 to 10", True


def _gate(rng: Generator, runs: int) -> Iterator[Row]:
    for world, grouped in _worlds():
        for messages in (330, 800, HOLDOUT):
            for worse, what, nominal in (
                (GATE_MARGIN, "2 points worse, passes", ALPHA),
                (0.0, "as good, passes", None),
            ):
                count = 0
                for _ in range(runs):
                    groups = make_groups(rng, messages) if grouped else None
                    found = count_discordant(*draw_pair(rng, worse, 0.03, messages, groups), groups)
                    count += non_inferiority_p(found, GATE_MARGIN) < ALPHA and not (
                        found.difference < 0 and mcnemar_exact(found) < ALPHA
                    )
                yield Row("gate, against the current", f"{world}, {messages}", what, count,
                          runs, nominal)  # fmt: skip


def _duel(rng: Generator, runs: int) -> Iterator[Row]:
    for world, grouped in _worlds():
        for worse, what, nominal in (
            (_DUEL_MARGIN, "baseline 1 point worse, shipped", ALPHA),
            (0.0, "baseline as good, shipped", None),
        ):
            count = 0
            for _ in range(runs):
                groups = make_groups(rng, HOLDOUT) if grouped else None
                found = count_discordant(
                    *draw_pair(rng, worse, _DISCORDANCE, HOLDOUT, groups), groups
                )
                count += non_inferiority_p(found, _DUEL_MARGIN) < ALPHA
            yield Row("duel", f"{world}, {HOLDOUT}", what, count, runs, nominal)


def _intervals(rng: Generator, runs: int) -> Iterator[Row]:
    for world, grouped in _worlds():
        for messages in (330, HOLDOUT):
            for share in (0.9, 0.95):
                count = 0
                for _ in range(runs):
                    groups = make_groups(rng, messages) if grouped else None
                    right = draw_right(rng, share, messages, groups)
                    found = interval_of(right, groups)
                    count += not found[0] <= share <= found[1]
                yield Row("95 % interval", f"{world}, {messages}",
                          f"accuracy {share:.0%} not in it", count, runs, ALPHA)  # fmt: skip


def _thresholds(rng: Generator, runs: int) -> Iterator[Row]:
    for world, grouped in _worlds():
        count = 0
        for _ in range(runs):
            validation = Messages.draw(rng, VALIDATION, grouped=grouped)
            made = make_adapter(rng, validation, validation)
            count += true_precision(made.threshold) < PRECISION
        yield Row("review threshold", f"{world}, {VALIDATION} rows", "promise broken", count,
                  runs, ALPHA)  # fmt: skip


def _promises(rng: Generator, runs: int) -> Iterator[Row]:
    for world, grouped in _worlds():
        for messages in (330, HOLDOUT):
            lower = (0.949, 0.94, 0.92)
            passed, honest, broken = dict.fromkeys(lower, 0), 0, 0
            for _ in range(runs):
                validation = Messages.draw(rng, VALIDATION, grouped=grouped)
                holdout = Messages.draw(rng, messages, grouped=grouped)
                made = make_adapter(rng, validation, holdout)
                for precision in lower:
                    lowered = replace(made, threshold=threshold_of(precision))
                    promise = promise_of(lowered, validation, holdout)
                    passed[precision] += judge_kept_promise(promise).passed
                ok = judge_kept_promise(promise_of(made, validation, holdout)).passed
                kept = true_precision(made.threshold) >= PRECISION
                honest += ok
                broken += ok and not kept
            name, where = "gate, promised precision", f"{world}, {messages}"
            for precision, count in passed.items():
                what = f"threshold lowered to {precision:.1%}, passes"
                yield Row(name, where, what, count, runs, ALPHA)
            yield Row(name, where, "broken promise of a training passes", broken, runs, ALPHA)
            yield Row(name, where, "a training passes", honest, runs, None)


def _labels(rng: Generator, runs: int) -> Iterator[Row]:
    floor = GateRules().label_recall
    for world, grouped in _worlds():
        for messages in (8, 19, 30, 136):
            for recall, nominal in ((0.5, ALPHA), (floor, ALPHA), (0.9, None)):
                count = 0
                for _ in range(runs):
                    groups = make_groups(rng, messages) if grouped else None
                    right = draw_right(rng, recall, messages, groups)
                    hits, effect = int(right.sum()), design_effect(right, groups)
                    count += lowest_share(hits / effect, messages / effect, ALPHA) >= floor
                yield Row("gate, recall of a label", f"{world}, {messages}",
                          f"recall {recall:.0%}, passes", count, runs, nominal)  # fmt: skip


def _proposals(rng: Generator, runs: int) -> Iterator[Row]:
    runs = max(1, runs // 5)
    for world, grouped in _worlds():
        found = [propose_equals(rng, grouped=grouped) for _ in range(runs)]
        where = f"{world}, {PROPOSALS} proposals, all as good"
        yes, broken = sum(each.yes > 0 for each in found), sum(not each.kept for each in found)
        yield Row("propose", where, "any Yes", yes, runs, ALPHA)
        yield Row("propose", where, "promise broken at the end", broken, runs, ALPHA)


def _better(rng: Generator, runs: int) -> Iterator[Row]:
    runs = max(1, runs // 5)
    for world, grouped in _worlds():
        lowered, turns = 0, (1, 6, 24)
        better = dict.fromkeys(turns, 0)
        for _ in range(runs):
            validation = Messages.draw(rng, VALIDATION, grouped=grouped)
            holdout = Messages.draw(rng, HOLDOUT, grouped=grouped)
            current = make_adapter(rng, validation, holdout)
            lower = replace(current, threshold=threshold_of(0.92))
            lowered += says_yes(lower, current, validation, holdout, 1)
            new = make_adapter(rng, validation, holdout, better=0.3)
            for turn in turns:
                better[turn] += says_yes(new, current, validation, holdout, turn)
        what = "same answers, lower threshold: Yes"
        yield Row("propose", world, what, lowered, runs, ALPHA)
        for turn, count in better.items():
            what = f"3 of 10 mistakes fewer, proposal {turn}: Yes"
            yield Row("propose", world, what, count, runs, None)
