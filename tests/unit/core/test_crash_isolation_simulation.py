"""Simulations in which the message that crashes the engine is known: is it rejected, and when?"""

from __future__ import annotations

import pytest

from tests.bench.crashes import Death, Supervisor, at_random, filled, of_poison

pytestmark = pytest.mark.slow

COUNT = 400
EACH_DEATH = pytest.mark.parametrize("death", ["engine", "process"])


def finish(world: Supervisor, max_deaths: int, expected: int) -> None:
    """Run to the end. The last message may need one more, which shows that the engine works."""
    if not world.run(max_deaths):
        world.stream.add(b"message to come")
        expected += 1
        assert world.run(max_deaths)
    world.verify(expected)


@EACH_DEATH
@pytest.mark.parametrize("partitions", [1, 2, 4])
@pytest.mark.parametrize("at", [0, 37, 201, 399])
def test_a_message_that_crashes_the_engine_is_rejected_after_at_most_four_deaths(
    death: Death, partitions: int, at: int
) -> None:
    world = Supervisor(filled(COUNT, partitions, [at]), of_poison, death)
    finish(world, max_deaths=10, expected=COUNT)
    assert world.rejected == [f"in-{at % partitions}-{at // partitions}"]
    assert world.deaths <= 4


@EACH_DEATH
@pytest.mark.parametrize("poison", [(10, 11), (10, 200), (0, 399), (5, 6, 7, 8)])
def test_several_such_messages_are_rejected_one_by_one(
    death: Death, poison: tuple[int, ...]
) -> None:
    world = Supervisor(filled(COUNT, 4, poison), of_poison, death)
    finish(world, max_deaths=40, expected=COUNT)
    assert set(world.rejected) == {f"in-{at % 4}-{at // 4}" for at in poison}
    assert world.deaths <= 4 * len(poison)


@EACH_DEATH
@pytest.mark.long  # ten thousand messages, many deaths
def test_an_engine_that_dies_now_and_then_costs_no_message(death: Death) -> None:
    """Of 10,000 messages, with a death every few hundred of them, none is rejected."""
    world = Supervisor(filled(10_000, 4), at_random(1 / 300, seed=5), death)
    assert world.run(max_deaths=500)
    world.verify(10_000)
    assert world.deaths >= 20
    assert world.rejected == []


@EACH_DEATH
def test_an_engine_that_answers_nothing_gets_no_message_rejected(death: Death) -> None:
    world = Supervisor(filled(COUNT, 4), bool, death)
    assert not world.run(max_deaths=60)
    assert world.outputs == []
    world.dies = lambda _: False
    world.deaths = 0
    assert world.run(max_deaths=0)
    world.verify(COUNT)
    assert world.rejected == []


@EACH_DEATH
def test_a_trickle_of_messages_to_a_broken_engine_loses_none(death: Death) -> None:
    world = Supervisor(filled(1, 1, [0]), of_poison, death)
    for number in range(1, 6):
        world.run(max_deaths=world.deaths + 4, idle_steps=100)
        world.stream.add(f"poison {number}".encode())
    world.dies = lambda _: False
    assert world.run(max_deaths=world.deaths)
    world.verify(6)
    assert world.rejected == []


@EACH_DEATH
def test_the_last_message_waits_for_another_that_shows_the_engine_is_well(death: Death) -> None:
    world = Supervisor(filled(1, 1, [0]), of_poison, death)
    assert not world.run(max_deaths=10)
    assert (world.outputs, world.deaths) == ([], 3)
    world.stream.add(b"message 1")
    assert world.run(max_deaths=10)
    assert (world.rejected, world.deaths) == (["in-0-0"], 4)


@pytest.mark.parametrize("poison", [(), (17,)])
def test_killing_workers_with_a_healthy_engine_gets_no_message_rejected(
    poison: tuple[int, ...],
) -> None:
    """Killed every 7 steps, for memory or by an operator: an open note is not a proof, and a trial
    is too short to be hit three times."""
    world = Supervisor(filled(COUNT, 2, poison), of_poison, "process")
    world.killed_every = 7
    finish(world, max_deaths=60, expected=COUNT)
    assert world.killed >= 3
    assert world.rejected == [f"in-{at % 2}-{at // 2}" for at in poison]


@EACH_DEATH
def test_two_workers_that_take_a_partition_in_turn_need_one_death_more(death: Death) -> None:
    """The file that proves a process's death is on the host where it died: that host's next worker
    uses it once it has the partition again."""
    world = Supervisor(filled(COUNT, 1, [37]), of_poison, death, hosts=2)
    finish(world, max_deaths=10, expected=COUNT)
    assert world.rejected == ["in-0-37"]
    assert world.deaths <= (4 if death == "engine" else 5)
