"""The rules: samples, states, near-duplicates, taxonomies, exports."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import get_args

import pytest

from desk.core.export import ExportOpinion, ExportRow, messages_jsonl
from desk.core.items import (
    REASON_BITS,
    Opinion,
    is_drawn,
    state_of,
    values_with,
)
from desk.core.texts import MIN_SIMILARITY, band_keys, similarity
from desk.service.guidelines import section_for
from tests.support.desk_world import START_MS
from worker.contract.scoring import ReviewReason
from worker.demo.models import read_samples

REFUND, OTHER, NONE = Opinion("refund"), Opinion("other"), Opinion(None)
FINAL = Opinion("payment", final=True)


@pytest.mark.parametrize("share", [0.01, 0.02, 0.05])
def test_a_sample_has_its_share(share: float) -> None:
    """Of 100,000 ids within four standard errors. Draws for two purposes are independent."""
    ids = [f"in-0-{n}" for n in range(100_000)]
    drawn = {id_ for id_ in ids if is_drawn("audit", "seed", id_, share)}
    error = (share * (1 - share) / len(ids)) ** 0.5
    assert abs(len(drawn) / len(ids) - share) < 4 * error
    twice = [id_ for id_ in drawn if is_drawn("double", "seed", id_, 0.5)]
    assert 0.4 < len(twice) / len(drawn) < 0.6


@pytest.mark.parametrize(
    ("wanted", "said", "flagged", "expected"),
    [
        (1, [], False, ("open", None)),
        (1, [REFUND], False, ("decided", 0)),
        (1, [NONE], False, ("decided", 0)),
        (2, [REFUND], False, ("second", None)),
        (2, [REFUND, REFUND], False, ("decided", 1)),
        (2, [REFUND, NONE], False, ("dispute", None)),
        (1, [], True, ("dispute", None)),
        (2, [REFUND, REFUND], True, ("dispute", None)),
        (2, [REFUND, OTHER, FINAL], False, ("decided", 2)),
        (1, [FINAL], True, ("decided", 0)),
    ],
)
def test_the_state_of_an_item(
    wanted: int, said: list[Opinion], flagged: bool, expected: tuple[str, int | None]
) -> None:
    """No opinion, one, two that agree or differ, a flag, an adjudicator."""
    assert state_of(wanted, said, flagged=flagged) == expected


def test_a_reason_is_found_in_every_combination() -> None:
    assert values_with("low_confidence") == (1, 3, 5, 7, 9, 11, 13, 15)
    assert values_with("off_label_mass") == (2, 3, 6, 7, 10, 11, 14, 15)
    assert set(REASON_BITS) == set(get_args(ReviewReason))
    assert sorted(REASON_BITS.values()) == [1 << n for n in range(len(REASON_BITS))]


def test_near_duplicates_share_a_key_and_others_do_not() -> None:
    """A template with another name and number does; another matter in the same tone does not."""
    text = "Hello, I ordered a blue kettle last week and it still has not arrived. Order {}. Thanks"
    first, second = (set(band_keys(text.format(n))) for n in (48213, 99120))
    other = set(
        band_keys("Hello, I was charged twice for one order last week. Please help, thanks")
    )
    assert first == second
    assert not first & other
    assert band_keys("") == band_keys("1234 !")
    assert len(band_keys("x" * 5_000_000)) == 4


def test_likeness_is_of_letters_alone() -> None:
    """Equal words give 1; two matters in the same tone stay below ``MIN_SIMILARITY``."""
    text = "Hello, I ordered a blue kettle last week and it still has not arrived. Thanks"
    assert similarity(text, text.upper().replace(".", " 48213!")) == 1
    assert similarity(text, "the blue kettle that I ordered has not arrived") >= MIN_SIMILARITY
    assert similarity(text, "Hello, my card was charged twice for one order") < MIN_SIMILARITY
    assert similarity(text, "") == similarity("", "") == similarity("12 !", "34 ?") == 0
    assert similarity(text, "Ich wurde doppelt belastet") == similarity(
        "Ich wurde doppelt belastet", text
    )


def test_unlike_messages_of_the_shop_are_not_alike() -> None:
    """Few of 1,000 pairs with different labels reach ``MIN_SIMILARITY``."""
    samples = [each for each in read_samples("holdout.jsonl") if each.label is not None][:120]
    pairs = [(a, b) for a, b in itertools.combinations(samples, 2) if a.label != b.label]
    alike = sum(similarity(a.message, b.message) >= MIN_SIMILARITY for a, b in pairs)
    assert alike <= 0.002 * len(pairs)


def test_an_export_of_a_message_that_had_no_label_has_one() -> None:
    """The reviewers' label; if none fits, any label, which the decision drops. A message whose text
    was purged is left out."""
    said = ExportOpinion("other", "", "annotator-1", START_MS, None, holds=True)
    none = replace(said, label=None)
    row = ExportRow("T-1", "ab" * 32, "", None, "a", "c" * 32, "learn", "b", (said,), is_last=True)
    lines = messages_jsonl([row, replace(row, opinions=(none,))], "refund").splitlines()
    assert [json.loads(line)["label"] for line in lines] == ["other", "refund"]
    assert [json.loads(line)["label_source"] for line in lines] == ["person", "person"]
    of_dataset = [replace(row, given="refund", given_source=each) for each in (None, "person")]
    of_model = [replace(row, had="refund"), replace(row, text=None)]
    lines = messages_jsonl([*of_dataset, *of_model], "other").splitlines()
    assert [json.loads(line)["label_source"] for line in lines] == ["export", "person", "teacher"]


def test_a_guideline_is_shown_by_label() -> None:
    body = "# How\nAlways.\n\n## Return Exchange\nGoods back.\n\nOr swapped.\n## Refund ##\nMoney."
    body += "\n## C#\nCode."
    assert section_for(body, "return_exchange") == "Goods back.\n\nOr swapped."
    assert section_for(body, "refund") == "Money."
    assert section_for(body, "c#") == "Code."
    assert section_for(body, "payment") == ""
