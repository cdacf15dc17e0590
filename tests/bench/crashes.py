"""Crash isolation in worlds with a known truth: who is lost, and what a guilty message costs.

    python -m tests.bench.crashes [--runs 100]

Each line is one kind of world, run with so many seeds on the fakes (400 messages on one to four
partitions): how often the engine or the worker died, how many innocent messages became dead
letters, and the most deaths that one guilty message cost before it was rejected. About ten minutes.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.support.deaths import Death, Supervisor, at_random, filled, of_poison

COUNT = 400


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of world. ``guilty`` messages crash the engine; ``dies`` replaces that."""

    name: str
    guilty: int = 0
    death: Death = "engine"
    hosts: int = 1
    killed_every: int = 0
    lost_every: int = 0
    refused_for: int = 0
    dies: Callable[[int], Callable[[Sequence[str]], bool]] | None = None
    broken_for: int = 0


CASES = (
    Case("1 guilty, the engine dies", 1),
    Case("1 guilty, the process is killed", 1, "process"),
    Case("1 guilty, the process is killed, 2 hosts in turn", 1, "process", hosts=2),
    Case("1 guilty, the process is killed, 4 hosts in turn", 1, "process", hosts=4),
    Case("4 guilty, the engine dies", 4),
    Case("4 guilty, the process is killed", 4, "process"),
    Case("none, the engine dies of 1 in 300", dies=lambda seed: at_random(1 / 300, seed)),
    Case("none, the process of 1 in 300", 0, "process", dies=lambda s: at_random(1 / 300, s)),
    Case("none, the engine answers nothing for 40 deaths", broken_for=40),
    Case("none, the process answers nothing for 40 deaths", 0, "process", broken_for=40),
    Case("none, the worker is killed every 7 steps", killed_every=7),
    Case("1 guilty, and the worker is killed every 11 steps", 1, "process", killed_every=11),
    Case("none, partitions are lost every 3 steps", lost_every=3),
    Case("1 guilty, and partitions are lost every 5 steps", 1, lost_every=5),
    Case("none, the output topic refuses for 20 starts", refused_for=20),
)


def run(case: Case, seed: int) -> tuple[int, int, int]:
    """Return the deaths, the innocent messages lost and the guilty ones that were rejected."""
    draw = random.Random(seed)
    partitions = draw.randint(1, 4)
    guilty = draw.sample(range(COUNT), case.guilty)
    world = Supervisor(filled(COUNT, partitions, guilty), of_poison, case.death, hosts=case.hosts)
    world.killed_every, world.lost_every = case.killed_every, case.lost_every
    world.refused_for = case.refused_for
    if case.dies is not None:
        world.dies = case.dies(seed)
    if case.broken_for:
        world.dies = bool
        assert not world.run(case.broken_for)
        world.dies = lambda _: False
    count = COUNT
    for _ in range(5):
        if world.run(max_deaths=500):
            break
        world.stream.add(b"message to come", draw.randrange(partitions))
        count += 1
    world.verify(count)
    names = {f"in-{at % partitions}-{at // partitions}" for at in guilty}
    rejected = set(world.rejected)
    assert names <= rejected, "a guilty message was labelled"
    return world.deaths, len(rejected - names), len(names)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=100)
    runs = parser.parse_args().runs
    print(f"{'world':<55} {'deaths':>7} {'innocent lost':>14} {'most deaths a guilty one':>25}")
    for case in CASES:
        found = [run(case, seed) for seed in range(runs)]
        deaths = sum(each[0] for each in found) / runs
        lost = sum(each[1] for each in found)
        most = max((-(-each[0] // each[2]) for each in found if each[2]), default=0)
        share = f"{lost} of {runs * COUNT}"
        print(f"{case.name:<55} {deaths:>7.1f} {share:>14} {most or '-':>25}", flush=True)


if __name__ == "__main__":
    main()
