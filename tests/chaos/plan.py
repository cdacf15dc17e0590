"""The plan of faults, drawn from a seed: what happens to whom and when. Pure.

The same seed and the same request give the same plan, so that a run can be repeated.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal[
    "kill",
    "terminate",
    "freeze",
    "join",
    "leave",
    "cut_link",
    "half_open_link",
    "slow_link",
    "lost_answer",
    "engine_crash",
    "engine_hang",
    "engine_slow",
    "worker_disk_full",
    "clock_step",
    "adapter_swap",
    "broker_kill",
    "broker_disk_full",
]

KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind's weight in the draw, its duration, and the seconds that its target is expected to
    need until it works again."""

    weight: float
    lasts_s: tuple[float, float]
    busy_s: float


SHAPES: Mapping[Kind, Shape] = {
    "kill": Shape(6, (0, 0), 8),
    "terminate": Shape(3, (0, 0), 5),
    "freeze": Shape(3, (4.5, 6), 12),
    "join": Shape(3, (0, 0), 5),
    "leave": Shape(3, (0, 0), 4),
    "cut_link": Shape(3, (0.2, 6), 9),
    "half_open_link": Shape(2, (3, 8), 14),
    "slow_link": Shape(2, (2, 5), 6),
    "lost_answer": Shape(4, (0, 0), 5),
    "engine_crash": Shape(2, (0, 0), 7),
    "engine_hang": Shape(1, (0, 0), 20),
    "engine_slow": Shape(2, (2, 5), 6),
    "worker_disk_full": Shape(1, (2, 4), 8),
    "clock_step": Shape(3, (2, 4), 6),
    "adapter_swap": Shape(3, (0, 0), 3),
    "broker_kill": Shape(2, (0.5, 5), 30),
    "broker_disk_full": Shape(0.3, (1, 3), 60),
}

# The meaning of a kind's amount: seconds of delay for a chunk on the link or an answer of the
# engine, seconds by which a clock steps.
_AMOUNTS: Mapping[Kind, tuple[float, float]] = {
    "slow_link": (0.1, 0.4),
    "engine_slow": (0.2, 1.0),
    # Few: the client library waits by the wall clock, and stands still for as long as the clock was
    # set back (librdkafka issue 2145, open).
    "clock_step": (3, 10),
}

BROKER = "broker"
STORE = "store"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: at the earliest ``at_s`` after the load began, on ``target`` (a worker's name,
    ``broker`` or ``store``)."""

    number: int
    at_s: float
    kind: Kind
    target: str
    lasts_s: float
    amount: float


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """``faults`` within ``duration_s``; between ``least_workers`` and ``most_workers`` run at a
    time."""

    seed: int
    faults: int
    duration_s: float
    least_workers: int = 2
    most_workers: int = 4
    kinds: tuple[Kind, ...] = KINDS


def worker_name(number: int) -> str:
    return f"worker-{number}"


def draw_plan(request: PlanRequest) -> tuple[Fault, ...]:
    """Draw the plan: every kind once, in random order, then by weight."""
    unknown = set(request.kinds) - set(KINDS)
    if unknown or not request.kinds:
        raise ValueError(f"kinds must be some of {', '.join(KINDS)}")
    return tuple(_draw(request, random.Random(request.seed)))


def _draw(request: PlanRequest, rng: random.Random) -> Iterator[Fault]:
    places = [worker_name(number) for number in range(request.most_workers)]
    state = _State(places[: request.least_workers], places)
    gap_s = request.duration_s / max(1, request.faults)
    owed = list(request.kinds)
    rng.shuffle(owed)
    at_s = 0.0
    for number in range(1, request.faults + 1):
        at_s += gap_s * rng.uniform(0.3, 1.7)
        kind = _choose_kind(owed, request, state, rng, at_s)
        target = state.choose_target(kind, rng, at_s)
        shape = SHAPES[kind]
        yield Fault(
            number,
            round(at_s, 2),
            kind,
            target,
            round(rng.uniform(*shape.lasts_s), 2),
            round(rng.uniform(*_AMOUNTS.get(kind, (0, 0))) * rng.choice((1, -1)), 2)
            if kind == "clock_step"
            else round(rng.uniform(*_AMOUNTS.get(kind, (0, 0))), 2),
        )
        state.take(kind, target, at_s)


def _choose_kind(
    owed: list[Kind], request: PlanRequest, state: _State, rng: random.Random, at_s: float
) -> Kind:
    for kind in owed:
        if state.is_possible(kind, at_s):
            owed.remove(kind)
            return kind
    possible = [kind for kind in request.kinds if state.is_possible(kind, at_s)]
    # The only kind waits for its turn if its target is busy.
    among = possible or [kind for kind in request.kinds if state.is_possible(kind, float("inf"))]
    if not among:
        raise ValueError(f"none of {', '.join(request.kinds)} is possible with these workers")
    return rng.choices(among, [SHAPES[kind].weight for kind in among])[0]


class _State:
    """Which workers run, and until when each target is expected to be busy."""

    def __init__(self, up: list[str], places: list[str]) -> None:
        self._places = places
        self._always = set(up)
        self._up = set(up)
        self._free_at = dict.fromkeys([*places, BROKER, STORE], 0.0)

    def is_possible(self, kind: Kind, at_s: float) -> bool:
        """Whether it has a target, and a single target is not busy."""
        targets = self._targets(kind)
        if kind in ("broker_kill", "broker_disk_full", "adapter_swap"):
            return self._free_at[targets[0]] <= at_s
        return bool(targets)

    def choose_target(self, kind: Kind, rng: random.Random, at_s: float) -> str:
        """A free target, or else the one that is free first."""
        targets = self._targets(kind)
        free = [target for target in targets if self._free_at[target] <= at_s]
        return rng.choice(free) if free else min(targets, key=self._free_at.__getitem__)

    def take(self, kind: Kind, target: str, at_s: float) -> None:
        self._free_at[target] = max(at_s, self._free_at[target]) + SHAPES[kind].busy_s
        if kind == "join":
            self._up.add(target)
        elif kind == "leave":
            self._up.remove(target)

    def _targets(self, kind: Kind) -> list[str]:
        if kind in ("broker_kill", "broker_disk_full"):
            return [BROKER]
        if kind == "adapter_swap":
            return [STORE]
        if kind == "join":
            return [place for place in self._places if place not in self._up]
        if kind == "leave":
            return [place for place in self._places if place in self._up - self._always]
        return [place for place in self._places if place in self._up]
