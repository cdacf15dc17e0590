"""``clerk-trainer prepare`` as a user runs it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.support.trainer_world import parse
from tests.unit.trainer.dataset.conftest import Prepare, Record, Run, WriteCsv
from trainer.dataset import prepare as prepare_module
from trainer.dataset.folder import SPLITS, Row, number_copies
from trainer.dataset.prepare import dedupe_exact
from trainer.dataset.report import count_removed
from trainer.dataset.settings import ConflictPolicy, declared_options, settings_of


def test_a_clean_export_becomes_three_splits_with_the_asked_shares_of_every_label(
    prepare: Prepare, records: list[Record]
) -> None:
    made = prepare(records, "--holdout-share", 0.2, "--validation-share", 0.2)
    for name, size in zip(SPLITS, (24, 8, 8), strict=True):
        assert set(Counter(line["response"] for line in made.lines(name)).values()) == {size}
    dataset = made.dataset
    every = (*dataset.train, *dataset.validation, *made.held())
    assert sorted((each.id, each.message, each.label) for each in every) == sorted(records)
    assert dataset.digest[:16] in made.printed


def test_every_row_read_is_accounted_for(
    prepare: Prepare, write_csv: WriteCsv, records: list[Record]
) -> None:
    """The counts of a messy export add up to the rows that were read, and so do the reasons."""
    _, message, label = records[0]
    messy = [
        *records,
        ("empty", " \u200b ", label),
        ("long", "x" * (2 << 20), label),
        ("copy", f"  {message.upper()} ", label),
        ("con1", "Two people disagree about this one here", "refund"),
        ("con2", "two people disagree  about this one here", "payment"),
        ("near1", message.replace(".", " today"), label),
    ]
    own = write_csv([(f"h{id_}", f"{text} again", to) for id_, text, to in records[:60]], "h.csv")
    made = prepare(messy, "--holdout", own, "--per-label", 12)
    counts = made.counts
    assert counts["empty_dropped"] == counts["too_long_dropped"] == 1
    assert counts["exact_duplicates_removed"] == 1
    assert counts["conflicts"]["rows_left_out"] == 2
    # 60 of its own rows and "near1"; "copy" went as a duplicate before.
    assert counts["holdout_copies_removed"]["near"] == 61
    gone = 1 + 1 + 1 + 2 + 61 + sum(counts["surplus"].values())
    assert gone + sum(counts["splits"].values()) == len(messy) + 60
    assert counts["rows_read"] == len(messy) + 60
    assert sum(count_removed(counts).values()) + sum(counts["splits"].values()) == len(messy) + 60


def test_rewordings_of_a_message_stay_in_one_split(prepare: Prepare, records: list[Record]) -> None:
    families = [
        (f"{id_}-{place}", form.format(message.removesuffix(".")), label)
        for id_, message, label in records
        for place, form in enumerate(("{}", "{}, please!", "Hi! {}"))
    ]
    for seed in range(3):
        found: dict[str, set[str]] = {}
        for id_, (split, _) in prepare(families, "--seed", seed).placed().items():
            found.setdefault(id_.partition("-")[0], set()).add(split)
        assert len(found) == len(records)
        assert all(len(parts) == 1 for parts in found.values())


@pytest.mark.parametrize(("options", "templates"), [((), 4), (("--redact",), 3)])
def test_a_form_is_in_one_split_and_told_of(
    prepare: Prepare, records: list[Record], options: tuple[str, ...], templates: int
) -> None:
    """Short automatic messages that differ only in a number or code share half of their shingles,
    so they are grouped by their masked text."""
    texts = ("Ticket {0} opened", "Parcel {1} is late", "Call me: {2}", "Paid {0} for {1}?")
    forms = [
        (f"form{form}-{n}", text.format(7919 * n, f"rf{n}a{n * 31}", f"0170 55{n * 7:05}"), label)
        for form, (text, label) in enumerate(
            zip(texts, ("refund", "order_tracking", "payment", "payment"), strict=True)
        )
        for n in range(1, 7)
    ]
    for seed in range(3):
        made = prepare([*records, *forms], "--seed", seed, *options)
        found = {(id_.partition("-")[0], split) for id_, (split, _) in made.placed().items()
                 if id_.startswith("form")}  # fmt: skip
        assert len(found) == 4
    assert made.counts["templates"] == {
        "templates": templates, "messages": 6 * templates, "largest": 6,
    }  # fmt: skip


def test_what_the_cap_leaves_out_is_kept_beside(prepare: Prepare, records: list[Record]) -> None:
    whole, made = prepare(records), prepare(records, "--per-label", 20)
    train, surplus = made.lines("train"), made.lines("surplus")
    assert set(Counter(line["response"] for line in train).values()) == {20}
    ids = [line["id"] for line in whole.lines("train")]
    assert sorted(line["id"] for line in train + surplus) == ids
    assert made.lines("holdout") == whole.lines("holdout")


def test_a_hold_out_of_ones_own_is_used_whole_and_its_copies_leave_training(
    prepare: Prepare, write_csv: WriteCsv, records: list[Record]
) -> None:
    held = [(f"h{at}", message, label) for at, (_, message, label) in enumerate(records[:12])]
    near = [(id_, f"{text.removesuffix('.')} ok", label) for id_, text, label in records[9:12]]
    own = [*records[:8], (*records[8][:2], "refund"), *near, *records[12:]]
    made = prepare(own, "--holdout", write_csv(held, "held.csv"))
    assert {line["id"] for line in made.lines("holdout")} == {row[0] for row in held}
    assert made.counts["holdout_copies_removed"] == {
        "exact": 9, "exact_with_another_label": 1, "near": 3,
    }  # fmt: skip
    kept = {line["id"] for name in ("train", "validation") for line in made.lines(name)}
    assert kept == {record[0] for record in records[12:]}


def test_personal_data_is_redacted_by_serving_s_rules_and_the_dataset_says_so(
    prepare: Prepare, records: list[Record]
) -> None:
    mails = [(id_, f"{text} Write to a{id_}@example.com", label) for id_, text, label in records]
    made = prepare(mails, "--redact")
    assert not any(b"@example.com" in path.read_bytes() for path in made.out.iterdir())
    assert made.record["redaction"] == made.dataset.redaction == "pii-2"
    assert made.counts["redacted"] == {"mail": len(records)}


def test_it_is_said_that_serving_does_not_strip(prepare: Prepare, records: list[Record]) -> None:
    signed = [(id_, f"{message}\n-- \nAnn {id_}", label) for id_, message, label in records]
    made = prepare(signed, "--strip-signatures")
    assert {line["instruction"] for line in made.lines("train")} < {row[1] for row in records}
    assert made.counts["cleaned"]["signature stripped"] == len(records)
    assert "Serving does not strip signatures" in " ".join(made.printed.split())


def test_the_manifest_holds_no_message(prepare: Prepare, records: list[Record]) -> None:
    """It is passed on, and names rows by id."""
    made = prepare([*records, ("con", records[0][1], "payment")])
    assert not any(message in made.text("dataset.json") for _, message, _ in records)


def test_an_interrupt_leaves_nothing_behind(
    run: Run,
    write_csv: WriteCsv,
    records: list[Record],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write_csv(records)
    before = sorted(tmp_path.iterdir())

    def stop(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare_module, "write_dataset", stop)
    assert run(path).exit_code == 130
    assert sorted(tmp_path.iterdir()) == before


def rows(*labels: str) -> list[Row]:
    some = [
        Row(f"Hello{n}", "Hello" if n % 2 else "HELLO", label, None, f"f:{n}")
        for n, label in enumerate(labels)
    ]
    number_copies(some)
    return some


def test_the_majority_is_kept_on_request_and_a_tie_is_dropped() -> None:
    done = dedupe_exact(rows("b", "a", "b"), ConflictPolicy.KEEP_MAJORITY)
    assert [row.label for row in done.rows] == ["b"]
    assert (done.copies, done.left_out, done.conflicts[0].kept) == (1, 1, "b")
    assert dedupe_exact(rows("b", "a", "c"), ConflictPolicy.KEEP_MAJORITY).rows == ()


@pytest.mark.parametrize("policy", list(ConflictPolicy))
def test_a_person_s_word_resolves_a_conflict_under_every_policy(policy: ConflictPolicy) -> None:
    done = dedupe_exact(rows("a", "b", "b"), policy, decided={"Hello0"})
    assert [row.label for row in done.rows] == ["a"]
    assert done.conflicts[0].why == "decided by a person"
    both = dedupe_exact(rows("a", "b"), policy, decided={"Hello0", "Hello1"})
    assert both.rows == ()  # two people who disagree resolve nothing


def test_what_was_given_can_be_given_again() -> None:
    given = [
        *("--input", "a b.csv", "--input", "b.xlsx", "--taxonomy", "shop/taxonomy.toml"),
        *("--message-column", "body", "--label-column", "queue", "--id-column", "nr"),
        *("--sublabel-column", "fine", "--time-column", "at", "--group-column", "thread"),
        *("--language-column", "language", "--source-column", "origin", "--encoding", "cp1252"),
        *("--sheet", "May", "--label-map", "map.csv", "--label-source", "teacher"),
        *("--decisions", "one.csv", "--decisions", "two.csv", "--strip-quotes"),
        *("--strip-signatures", "--redact", "--redact-names", "en_core_web_sm"),
        *("--broken-rows", "drop", "--unknown-label", "review", "--conflicts", "keep-majority"),
        *("--split", "group", "--holdout", "held.jsonl", "--after", "jan"),
        *("--holdout-share", "0.2"),
        *("--validation-share", "0.1", "--per-label", "400", "--minimum-per-label", "12"),
        *("--seed", "7", "--earlier", "data/0"),
    ]
    assert {each.flag for each in declared_options()} - {"--out"} <= set(given)
    for words in (given, given[:2] + given[4:6]):
        parsed = parse("prepare", *words, "--out", "data/1")
        parsed.pop("as_json")
        options = settings_of(parsed).options()
        assert [word for option in options for word in option] == words


def test_messages_without_a_known_label_go_to_a_reviewer_and_return(
    prepare: Prepare, write_csv: WriteCsv, records: list[Record]
) -> None:
    """No text that the hold-out has, or nearly has, is shown."""
    odd = [
        (f"odd{n}", f"Something else entirely, number {'abcdefg'[n]} of them", "Ordr trackin")
        for n in range(3)
    ]
    copies = [(f"copy{id_}", message, "") for id_, message, _ in records]
    export = [*records, *odd, *copies]
    first = prepare(export, "--unknown-label", "review")
    assert first.counts["unlabelled"] == {"review": len(odd + copies)}
    asked = first.table("unlabelled.csv")
    held = {each.id for each in first.held()}
    shown = {row["id"].removeprefix("copy") for row in asked if "sealed" not in row["message"]}
    assert held
    assert held.isdisjoint(shown)
    assert len(shown) == len(asked) - len(held)
    for row in asked:
        if row["id"].startswith("odd"):
            row.update(decision="relabel", new_label="order_tracking", decided_by="me")
    queue = write_csv([list(row.values()) for row in asked], "queue.csv", list(asked[0]))
    second = prepare(export, "--unknown-label", "drop", "--decisions", queue)
    assert second.counts["unlabelled"] == {"drop": len(copies)}


def test_a_ticket_with_several_messages_keeps_them_all(
    prepare: Prepare, records: list[Record]
) -> None:
    """Whatever the order of lines; a row that is there twice counts once, and it is said once."""
    twice = records[0]
    other = (twice[0], "a second message of the same ticket", twice[2])
    relabelled = (twice[0], twice[1], next(r[2] for r in records if r[2] != twice[2]))
    rows = [*records, twice, other, relabelled]
    made = prepare(rows, "--conflicts", "keep-majority")
    (note,) = [note for note in made.record["notes"] if "of different rows" in note]
    assert f"such as {twice[0]!r}" in note
    assert {twice[0], f"{twice[0]}-2", f"{twice[0]}-3"} & made.placed().keys()
    assert any(other[1] in made.text(f"{name}.jsonl") for name in SPLITS)
    assert prepare(rows[::-1], "--conflicts", "keep-majority").placed() == made.placed()
