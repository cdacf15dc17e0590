"""``clerk-trainer prepare`` as a user runs it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from tests.support.trainer_world import parse
from tests.unit.trainer.dataset.conftest import Record, Run, WriteCsv
from trainer.dataset import prepare
from trainer.dataset.folder import Row, number_copies, open_dataset, open_holdout
from trainer.dataset.prepare import dedupe_exact
from trainer.dataset.settings import (
    ColumnNames,
    ConflictPolicy,
    OnBroken,
    OnUnknown,
    PrepareSettings,
    SplitBy,
    settings_of,
)
from worker.contract.digest import sha256_file

SPLITS = ("train", "validation", "holdout")


def part(out: Path, name: str) -> list[dict[str, Any]]:
    text = (out / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def splits(out: Path) -> dict[str, str]:
    return {line["id"]: name for name in SPLITS for line in part(out, name)}


def record(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "dataset.json").read_text(encoding="utf-8"))
    return found


def test_a_clean_export_becomes_three_splits_with_the_asked_shares_of_every_label(
    run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    result = run(write_csv(records), "--holdout-share", 0.2, "--validation-share", 0.2)
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    for name, size in zip(SPLITS, (24, 8, 8), strict=True):
        assert set(Counter(line["response"] for line in part(out, name)).values()) == {size}
    dataset = open_dataset(out)
    held = open_holdout(dataset, purpose="test", subject="none")
    found = [
        (example.id, example.message, example.label)
        for example in (*dataset.train, *dataset.validation, *held)
    ]
    assert sorted(found) == sorted(records)
    assert "train" in result.stdout
    assert dataset.digest[:16] in result.stdout


def test_the_json_result_stands_alone_on_standard_output(
    run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    result = run(write_csv(records), "--json")
    told = json.loads(result.stdout)
    assert told["digest"] == record(tmp_path / "out")["digest"]
    assert told["counts"]["rows_read"] == len(records)


def test_another_seed_is_another_split(
    run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    path = write_csv(records)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(path, "--seed", seed, out=tmp_path / name)
    assert record(tmp_path / "a")["digest"] == record(tmp_path / "b")["digest"]
    assert splits(tmp_path / "a") != splits(tmp_path / "c")


def test_every_row_read_is_accounted_for(
    run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    """The counts of a messy export add up to the rows that were read, and so do the report's."""
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
    own = write_csv(
        [("h" + record[0], record[1] + " again", record[2]) for record in records[:60]], "hold.csv"
    )
    result = run(write_csv(messy), "--holdout", own, "--per-label", 12)
    assert result.exit_code == 0, result.output
    counts = record(tmp_path / "out")["counts"]
    assert counts["empty_dropped"] == counts["too_long_dropped"] == 1
    assert counts["exact_duplicates_removed"] == 1
    assert counts["conflicts"]["rows_left_out"] == 2
    # 60 of its own rows and "near1"; "copy" went as a duplicate before.
    assert counts["holdout_copies_removed"] == {
        "exact": 0,
        "exact_with_another_label": 0,
        "near": 61,
    }
    gone = 1 + 1 + 1 + 2 + 61
    assert (
        gone + sum(counts["surplus"].values()) + sum(counts["splits"].values()) == len(messy) + 60
    )
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    fates = report.split("## What became of them")[1].split("## Cleaning")[0]
    numbers = [
        int(line.split("|")[2].replace(",", ""))
        for line in fates.splitlines()
        if line[-2:] == " |" and line.split("|")[2].strip()[:1].isdigit()
    ]
    assert numbers[0] == sum(numbers[1:]) == len(messy) + 60


def test_rewordings_of_a_message_stay_in_one_split(
    run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    families = [
        (f"{id_}-{place}", form.format(message.removesuffix(".")), label)
        for id_, message, label in records
        for place, form in enumerate(("{}", "{}, please!", "Hi! {}"))
    ]
    path = write_csv(families)
    for seed in range(3):
        run(path, "--seed", seed, out=tmp_path / f"{seed}")
        found: dict[str, set[str]] = {}
        for id_, split in splits(tmp_path / f"{seed}").items():
            found.setdefault(id_.partition("-")[0], set()).add(split)
        assert len(found) == len(records)
        assert all(len(parts) == 1 for parts in found.values())


@pytest.mark.parametrize(("options", "templates"), [((), 4), (("--redact",), 3)])
def test_a_form_is_in_one_split_and_told_of(
    run: Run,
    write_csv: WriteCsv,
    records: list[Record],
    tmp_path: Path,
    options: tuple[str, ...],
    templates: int,
) -> None:
    """Short automatic messages that differ only in a number or code share half of their shingles,
    so they are grouped by their masked text."""
    forms = [
        (f"form{form}-{n}", text.format(7919 * n, f"rf{n}a{n * 31}", f"0170 55{n * 7:05}"), label)
        for form, (text, label) in enumerate(
            (
                ("Ticket {0} opened", "refund"),
                ("Parcel {1} is late", "order_tracking"),
                ("Call me: {2}", "payment"),
                ("Paid {0} for {1}?", "payment"),
            )
        )
        for n in range(1, 7)
    ]
    path = write_csv([*records, *forms])
    for seed in range(3):
        done = run(path, "--seed", seed, *options, out=tmp_path / f"{seed}")
        assert done.exit_code == 0, done.output
        found: dict[str, set[str]] = {}
        for id_, split in splits(tmp_path / f"{seed}").items():
            if id_.startswith("form"):
                found.setdefault(id_.partition("-")[0], set()).add(split)
        assert [len(found[name]) for name in sorted(found)] == [1, 1, 1, 1]
    assert record(tmp_path / "0")["counts"]["templates"] == {
        "templates": templates, "messages": 6 * templates, "largest": 6,
    }  # fmt: skip
    report = (tmp_path / "0" / "report.md").read_text(encoding="utf-8")
    assert f"{6 * templates} of them follow {templates} templates" in report
    assert "form0-1 (refund)" in report


def test_what_the_cap_leaves_out_is_kept_beside(
    run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    run(write_csv(records), out=tmp_path / "all")
    run(write_csv(records), "--per-label", 20)
    out = tmp_path / "out"
    train, surplus = part(out, "train"), part(out, "surplus")
    assert set(Counter(line["response"] for line in train).values()) == {20}
    assert sorted(line["id"] for line in train + surplus) == [
        line["id"] for line in part(tmp_path / "all", "train")
    ]
    assert record(out)["extra_files"]["surplus.jsonl"]["sha256"] == sha256_file(
        out / "surplus.jsonl"
    )
    assert part(out, "holdout") == part(tmp_path / "all", "holdout")


def test_a_hold_out_of_ones_own_is_used_whole_and_its_copies_leave_training(
    run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    held = [(f"h{place}", message, label) for place, (_, message, label) in enumerate(records[:9])]
    near = [
        (id_, message.removesuffix(".") + " ok", label) for id_, message, label in records[9:12]
    ]
    own = [*records[:8], (records[8][0], records[8][1], "refund"), *near, *records[12:]]
    held += [
        (f"n{place}", message, label) for place, (_, message, label) in enumerate(records[9:12])
    ]
    result = run(write_csv(own), "--holdout", write_csv(held, "held.csv"))
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    assert sorted(line["id"] for line in part(out, "holdout")) == sorted(row[0] for row in held)
    assert record(out)["counts"]["holdout_copies_removed"] == {
        "exact": 9,
        "exact_with_another_label": 1,
        "near": 3,
    }
    kept = {line["id"] for name in ("train", "validation") for line in part(out, name)}
    assert kept == {record[0] for record in records[12:]}


def test_personal_data_is_redacted_by_serving_s_rules_and_the_dataset_says_so(
    run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    redacted = [
        (id_, f"{message} Write to a{id_}@example.com", label) for id_, message, label in records
    ]
    run(write_csv(redacted), "--redact")
    out = tmp_path / "out"
    assert not any(b"@example.com" in path.read_bytes() for path in out.iterdir())
    assert record(out)["redaction"] == open_dataset(out).redaction == "pii-2"
    assert record(out)["counts"]["redacted"] == {"mail": len(records)}
    run(write_csv(records), out=tmp_path / "plain")
    assert record(tmp_path / "plain")["redaction"] is None


def test_the_report_says_that_serving_does_not_strip(
    run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    signed = [(id_, f"{message}\n-- \nAnn {id_}", label) for id_, message, label in records]
    run(write_csv(signed), "--strip-signatures")
    out = tmp_path / "out"
    assert {line["instruction"] for line in part(out, "train")} < {row[1] for row in records}
    assert record(out)["counts"]["cleaned"]["signature stripped"] == len(records)
    assert "Serving does not strip signatures" in (out / "report.md").read_text(encoding="utf-8")


def test_the_report_holds_no_message(
    run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    """report.md and dataset.json are passed on; both name rows by id."""
    doubled = [*records, ("con", records[0][1], "payment")]
    run(write_csv(doubled))
    for name in ("report.md", "dataset.json"):
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert not any(message in text for _, message, _ in records)


def test_an_interrupt_leaves_nothing_behind(
    run: Run,
    write_csv: WriteCsv,
    records: list[Record],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write_csv(records)
    before = sorted(tmp_path.iterdir())

    def stop(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "render_report", stop)
    assert run(path).exit_code == 130
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("made", ["empty", "new/deep"])
def test_an_empty_or_a_new_folder_is_filled(
    run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path, made: str
) -> None:
    if made == "empty":
        (tmp_path / made).mkdir()
    assert run(write_csv(records), out=tmp_path / made).exit_code == 0
    assert open_dataset(tmp_path / made).train


def rows(*labels: str, message: str = "Hello") -> list[Row]:
    some = [
        Row(f"{message}{n}", message if n % 2 else message.upper(), label, None, f"f:{n}")
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


def test_two_people_who_disagree_resolve_nothing() -> None:
    done = dedupe_exact(rows("a", "b"), ConflictPolicy.DROP, decided={"Hello0", "Hello1"})
    assert done.rows == ()


def test_what_was_given_can_be_given_again() -> None:
    columns = ColumnNames("body", "queue", "nr", "fine", "at", "thread", "language", "origin")
    changed = PrepareSettings(
        inputs=(Path("a b.csv"), Path("b.xlsx")),
        taxonomy=Path("shop/taxonomy.toml"),
        out=Path("data/1"),
        columns=columns,
        encoding="cp1252",
        sheet="May",
        label_map=Path("map.csv"),
        decisions=(Path("one.csv"), Path("two.csv")),
        holdout=Path("held.jsonl"),
        split=SplitBy.GROUP,
        strip_quotes=True,
        strip_signatures=True,
        redact=True,
        redact_names="en_core_web_sm",
        broken_rows=OnBroken.DROP,
        unknown_label=OnUnknown.REVIEW,
        conflicts=ConflictPolicy.KEEP_MAJORITY,
        validation_share=0.1,
        holdout_share=0.2,
        per_label=400,
        minimum_per_label=12,
        seed=7,
        earlier=(Path("data/0"),),
        label_source="teacher",
    )
    plain = PrepareSettings((Path("a.csv"),), Path("t.toml"), Path("out"))
    for field in fields(PrepareSettings):
        assert field.default is MISSING or getattr(changed, field.name) != field.default, field.name
    for settings in (changed, plain):
        words = [word for option in settings.options() for word in option]
        parsed = parse("prepare", *words, "--out", str(settings.out))
        parsed.pop("as_json")
        assert settings_of(parsed) == settings
    assert plain.options() == [["--input", "a.csv"], ["--taxonomy", "t.toml"]]
