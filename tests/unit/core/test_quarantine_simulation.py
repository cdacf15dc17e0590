"""Engines that die, on the fakes: how many restarts it takes, and who is put aside."""

from __future__ import annotations

import pytest

from tests.support.deaths import Death, Supervisor, at_random, filled, of_poison

COUNT = 400


@pytest.mark.parametrize("death", ["engine", "process"])
@pytest.mark.parametrize("partitions", [1, 2, 4])
@pytest.mark.parametrize("at", [0, 37, 201, 399])
def test_a_message_that_kills_the_engine_is_put_aside_after_four_deaths(
    death: Death, partitions: int, at: int
) -> None:
    """Wherever it lies among 400; everything else is labelled once."""
    world = Supervisor(filled(COUNT, partitions, [at]), of_poison, death)
    assert world.run(max_deaths=10)
    world.verify(COUNT)
    assert world.put_aside == [f"in-{at % partitions}-{at // partitions}"]
    assert world.deaths <= 4


@pytest.mark.parametrize("death", ["engine", "process"])
@pytest.mark.parametrize("poison", [(10, 11), (10, 200), (0, 399), (5, 6, 7, 8)])
def test_several_such_messages_are_put_aside_one_by_one(
    death: Death, poison: tuple[int, ...]
) -> None:
    """Near to each other or far apart; at most four deaths each."""
    world = Supervisor(filled(COUNT, 4, poison), of_poison, death)
    assert world.run(max_deaths=40)
    world.verify(COUNT)
    assert set(world.put_aside) == {f"in-{at % 4}-{at // 4}" for at in poison}
    assert world.deaths <= 4 * len(poison)


@pytest.mark.parametrize("death", ["engine", "process"])
def test_an_engine_that_dies_now_and_then_costs_no_message(death: Death) -> None:
    """Of 10,000 messages, with a death every few hundred of them, none is put aside."""
    world = Supervisor(filled(10_000, 4), at_random(1 / 300, seed=5), death)
    assert world.run(max_deaths=500)
    world.verify(10_000)
    assert world.deaths >= 20
    assert world.put_aside == []


@pytest.mark.parametrize("death", ["engine", "process"])
def test_an_engine_that_answers_nothing_puts_nobody_aside(death: Death) -> None:
    """It is broken, and no message is to blame: they wait for an engine that is well."""
    world = Supervisor(filled(COUNT, 4), bool, death)
    assert not world.run(max_deaths=60)
    assert world.outputs == []
    world.dies = lambda _: False
    world.deaths = 0
    assert world.run(max_deaths=0)
    world.verify(COUNT)
    assert {each.reason for each in world.outputs} <= {None, "killed_engine"}


@pytest.mark.parametrize("death", ["engine", "process"])
def test_the_only_message_there_is_can_be_put_aside(death: Death) -> None:
    """No other comes by which the engine could show that it is well."""
    world = Supervisor(filled(1, 1, [0]), of_poison, death)
    assert world.run(max_deaths=10)
    assert world.put_aside == ["in-0-0"]
    assert world.deaths <= 4


def test_of_a_trickle_a_broken_engine_gets_one_message_at_most() -> None:
    """The second has to wait for an answer to any other."""
    stream = filled(1, 1, [0])
    world = Supervisor(stream, of_poison)
    assert world.run(max_deaths=5)
    for number in range(1, 6):
        stream.add(f"poison {number}".encode())
        world.run(max_deaths=world.deaths + 4, idle_steps=100)
    assert world.put_aside == ["in-0-0"]
    assert any(event[0] == "released" for event in world.events)
