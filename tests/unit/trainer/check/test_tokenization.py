"""The dataset under a base's own tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainer.check.finding import CODES, LENGTHS, Finding
from trainer.check.labels import check_base
from trainer.dataset.folder import Example
from trainer.errors import BadInput
from worker.contract import Label, Taxonomy
from worker.contract.redact import REDACTION

pytestmark = pytest.mark.slow

SHORT = [Example(f"s{n}", "where is my parcel", "a") for n in range(99)]
LONG = Example("long", "where is my parcel " * 40, "a")


def verdicts(
    examples: list[Example], taxonomy: Taxonomy, base: Path, **more: Any
) -> dict[str, Finding]:
    settings: dict[str, Any] = {"max_message_tokens": 32, "redaction": None, **more}
    return {finding.name: finding for finding in check_base(examples, taxonomy, base, **settings)}


def test_messages_over_the_budget_are_counted_by_the_real_tokenizer(
    tiny_base: Path, taxonomy: Taxonomy
) -> None:
    """One in a hundred is fine, two warn, half fail; the ids are told."""
    assert verdicts([*SHORT, LONG], taxonomy, tiny_base)[LENGTHS].verdict == "ok"
    found = verdicts([*SHORT, LONG, LONG], taxonomy, tiny_base)[LENGTHS]
    assert (found.verdict, found.figures["shortened"]) == ("warn", 2)
    assert found.figures["shortened_ids"] == ["long", "long"]
    assert found.figures["max"] == 32
    assert verdicts([SHORT[0], LONG], taxonomy, tiny_base)[LENGTHS].verdict == "fail"


def test_lengths_are_those_after_redaction(tiny_base: Path, taxonomy: Taxonomy) -> None:
    """What is trained and served is what is measured."""
    mail = Example("m", f"write to {'x' * 60}@example.com", "a")
    assert verdicts([mail], taxonomy, tiny_base)[LENGTHS].figures["shortened"] == 1
    found = verdicts([mail], taxonomy, tiny_base, redaction=REDACTION)[LENGTHS]
    assert found.figures["shortened"] == 0


def test_an_empty_message_fails(tiny_base: Path, taxonomy: Taxonomy) -> None:
    """It makes no prompt and would stop a training."""
    found = verdicts([*SHORT, Example("e", " \u200b", "a")], taxonomy, tiny_base)[LENGTHS]
    assert found.verdict == "fail"
    assert found.figures["empty_ids"] == ["e"]


def test_every_label_has_a_code_of_one_token_or_it_fails(
    tiny_base: Path, taxonomy: Taxonomy
) -> None:
    """Letters, digits and other tokens are all that there is."""
    found = verdicts(SHORT, taxonomy, tiny_base)[CODES]
    assert found.verdict == "ok"
    assert set(found.figures["codes"]) == set(taxonomy.names)
    for count, verdict in ((77, "ok"), (500, "fail")):
        many = Taxonomy("many", "1", "", tuple(Label(f"label {n}", "x") for n in range(count)))
        found = verdicts(SHORT, many, tiny_base)[CODES]
        assert found.verdict == verdict
        assert f"{count} labels" in found.found


def test_without_a_base_nothing_is_claimed(taxonomy: Taxonomy, tmp_path: Path) -> None:
    """Skipped says so; a directory that is no base is bad input."""
    found = check_base(SHORT, taxonomy, None, max_message_tokens=32, redaction=None)
    assert [finding.verdict for finding in found] == ["skipped", "skipped"]
    with pytest.raises(BadInput, match="cannot read the base's tokenizer"):
        verdicts(SHORT, taxonomy, tmp_path)
