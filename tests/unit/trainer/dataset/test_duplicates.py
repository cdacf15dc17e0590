"""One row a message, and what is done when copies disagree."""

from __future__ import annotations

import pytest

from trainer.dataset.folder import Row, number_copies
from trainer.dataset.prepare import dedupe_exact
from trainer.dataset.settings import ConflictPolicy


def rows(*labels: str, message: str = "Hello") -> list[Row]:
    some = [
        Row(f"{message}{n}", message if n % 2 else message.upper(), label, None, f"f:{n}")
        for n, label in enumerate(labels)
    ]
    number_copies(some)
    return some


def test_the_first_of_exact_copies_is_kept() -> None:
    """Case does not tell copies apart; the others are counted."""
    some = [*rows("a", "a", "a"), *rows("b", message="Bye")]
    number_copies(some)
    done = dedupe_exact(some, ConflictPolicy.DROP)
    assert [row.id for row in done.rows] == ["Hello0", "Bye0"]
    assert (done.copies, done.left_out, done.conflicts) == (2, 0, ())


def test_all_sides_of_a_conflict_are_dropped() -> None:
    """Nobody can learn both; which is right is not guessed."""
    done = dedupe_exact(rows("a", "a", "b"), ConflictPolicy.DROP)
    assert done.rows == ()
    assert (done.copies, done.left_out) == (0, 3)
    assert done.conflicts[0].rows == tuple(rows("a", "a", "b"))
    assert done.conflicts[0].kept is None


def test_the_majority_is_kept_on_request_and_a_tie_is_dropped() -> None:
    """--conflicts keep-majority."""
    done = dedupe_exact(rows("b", "a", "b"), ConflictPolicy.KEEP_MAJORITY)
    assert [row.label for row in done.rows] == ["b"]
    assert (done.copies, done.left_out, done.conflicts[0].kept) == (1, 1, "b")
    assert dedupe_exact(rows("b", "a", "c"), ConflictPolicy.KEEP_MAJORITY).rows == ()


@pytest.mark.parametrize("policy", list(ConflictPolicy))
def test_a_person_s_word_resolves_a_conflict_under_every_policy(policy: ConflictPolicy) -> None:
    """Where the decided rows agree."""
    done = dedupe_exact(rows("a", "b", "b"), policy, decided={"Hello0"})
    assert [row.label for row in done.rows] == ["a"]
    assert done.conflicts[0].why == "decided by a person"


def test_two_people_who_disagree_resolve_nothing() -> None:
    """The conflict stands."""
    done = dedupe_exact(rows("a", "b"), ConflictPolicy.DROP, decided={"Hello0", "Hello1"})
    assert done.rows == ()
