"""A hold-out message is known again however it was signed, quoted below, redacted or numbered."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.trainer.dataset.conftest import Record, Run, WriteCsv
from tests.unit.trainer.dataset.mails import QUOTED, SIGNED
from trainer.dataset.clean import Cleaner, canonical
from trainer.dataset.folder import Dataset, Example, open_dataset, open_holdout, write_dataset
from trainer.dataset.near_duplicates import verify_disjoint
from trainer.errors import BadInput
from worker.contract.redact import REDACTION, redact_personal_data


def tail(draw: random.Random) -> str:
    """Return a quotation and a signature that are like no other."""
    words = ["".join(draw.choices("bcdfghklmnprstvw", k=7)) for _ in range(40)]
    lines = [" ".join(words[at : at + 8]) for at in range(0, 32, 8)]
    quoted = "".join(f"\n> {line}" for line in lines)
    return f"\nOn 3 Jun 2024 at 10:12, {words[32]} wrote:{quoted}\n\nBest regards,\n{words[33]}"


def signed(records: list[Record], seed: int) -> list[Record]:
    draw = random.Random(seed)
    return [(id_, f"{message}{tail(draw)}", label) for id_, message, label in records]


def pair(
    tmp_path: Path, sealed: Dataset, held: list[Example], redaction: str | None = None
) -> tuple[Dataset, Dataset]:
    """Return the sealed dataset and another one that holds ``held`` out."""
    other = write_dataset(
        tmp_path / "other", name="o", taxonomy=sealed.taxonomy, redaction=redaction,
        splits={"train": sealed.train, "validation": sealed.validation, "holdout": held},
    )  # fmt: skip
    return sealed, other


@pytest.mark.parametrize(("mail", "own"), [*QUOTED, *SIGNED])
def test_the_canonical_form_does_not_depend_on_what_was_done(mail: str, own: str) -> None:
    """Stripped, redacted, both or neither, and canonical already: it is the same, and the
    customer's own words are in it."""
    cleaners = [
        Cleaner(quotes=quotes, signatures=signatures, redaction=redaction)
        for quotes in (True, False)
        for signatures in (True, False)
        for redaction in (REDACTION, None)
    ]
    forms = {canonical(cleaner.clean(mail).text) for cleaner in cleaners}
    assert forms == {canonical(own)} == {canonical(canonical(own))}


def test_a_message_that_is_all_signature_has_a_canonical_form() -> None:
    """Two of them that differ stay different: nothing is stripped to nothing."""
    assert canonical("> Hello") != canonical("> Goodbye")
    assert canonical("Cheers") == "cheers"


def test_datasets_that_were_cleaned_otherwise_are_not_compared(
    run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    """One export, stripped and then plainly with another seed: most of the second hold-out was
    trained on. It is refused, and the line says which options differ."""
    path = write_csv(signed(records, 1))
    own, other = tmp_path / "own", tmp_path / "other"
    assert run(path, "--strip-quotes", "--strip-signatures", out=own).exit_code == 0
    assert run(path, "--seed", 3, out=other).exit_code == 0
    first, second = open_dataset(own), open_dataset(other)
    held = open_holdout(second, purpose="test", subject="test")
    assert {each.id for each in held} & {each.id for each in first.train}
    with pytest.raises(BadInput, match="strip quotes, strip signatures") as refused:
        verify_disjoint(first, second, held)
    assert "prepare both with the same" in str(refused.value)


def test_cleaned_alike_the_same_export_is_found_out(
    run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    """Two exports of the same messages, quoted and signed otherwise: each is found as a copy."""
    first, second = (
        write_csv(signed(records, seed), name=f"{seed}.csv", header=("id", "message", "label"))
        for seed in (1, 2)
    )
    assert run(first, out=tmp_path / "own").exit_code == 0
    renamed = [(f"x{id_}", message, label) for id_, message, label in signed(records, 2)]
    assert run(write_csv(renamed, name="2.csv"), "--seed", 3, out=tmp_path / "o").exit_code == 0
    own, other = open_dataset(tmp_path / "own"), open_dataset(tmp_path / "o")
    held = open_holdout(other, purpose="test", subject="test")
    known = {each.id for each in (*own.train, *own.validation)}
    proof = verify_disjoint(own, other, held)
    assert proof.copies == sum(each.id.removeprefix("x") in known for each in held) > 10
    assert second.exists()


def test_an_id_that_was_trained_on_is_found_out(tmp_path: Path, sealed: Dataset) -> None:
    """The same message, reworded beyond recognition, has its id still; a copy counts once."""
    reworded = replace(sealed.train[0], message="zq wholly other words kx")
    copy, new = sealed.train[1], Example("new", "vv nobody said such ww", sealed.train[0].label)
    own, other = pair(tmp_path, sealed, [reworded, copy, new])
    proof = verify_disjoint(own, other, [reworded, copy, new])
    assert (proof.copies, proof.near_copies, proof.same_ids) == (1, 0, 1)
    assert proof.shared == 2


def test_prepare_keeps_what_is_canonically_one_in_one_part(
    run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    """Each message came twice, signed and quoted in two ways that are not near each other: both
    are in one part, so that the proof holds of a dataset's own parts."""
    twice = [
        (f"{id_}-{seed}", message, label)
        for seed in (1, 2)
        for id_, message, label in signed(records, seed)
    ]
    assert run(write_csv(twice)).exit_code == 0
    dataset = open_dataset(tmp_path / "out")
    held = open_holdout(dataset, purpose="test", subject="test")
    known = {each.id.split("-")[0] for each in (*dataset.train, *dataset.validation)}
    assert len(held) > 10
    assert known.isdisjoint(each.id.split("-")[0] for each in held)
    proof = verify_disjoint(dataset, dataset, held)
    assert proof.shared == 0


def test_redacted_in_one_of_two_it_is_the_same_message(tmp_path: Path, sealed: Dataset) -> None:
    """Also where the address is what tells a quotation from the customer's own words."""
    mail = "Where is it?\n\nOn Monday Ann <ann@shop.example> wrote:\nHello there\nand more\nof it"
    seen = Example("a", mail, sealed.train[0].label)
    held = [Example("b", redact_personal_data(mail)[0], seen.label)]
    _, other = pair(tmp_path, sealed, held, REDACTION)
    own = write_dataset(
        tmp_path / "own", name="n", taxonomy=sealed.taxonomy,
        splits={"train": (*sealed.train, seen), "validation": sealed.validation, "holdout": []},
    )  # fmt: skip
    assert verify_disjoint(own, other, held).copies == 1
