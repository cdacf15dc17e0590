"""A dataset keeps the origins of labels, and how often each hold-out message occurred."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.support.trainer_world import call
from tests.unit.trainer.dataset.conftest import Record, Run, WriteCsv, unlike_messages
from trainer.dataset.extra_files import COPIES, read_copies, read_label_sources
from trainer.dataset.folder import LabelOrigin, open_dataset, open_holdout
from trainer.errors import BadInput
from worker.common.review_files import save_answers
from worker.contract.exchange import Answer
from worker.contract.text import message_sha256


def test_every_row_of_the_export_that_is_held_out_is_counted(
    run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    labels = sorted({label for _, _, label in records})
    rows = list(records)
    for at, (id_, text, label) in enumerate(records):
        rows += [(f"{id_}-{copy}", text, label) for copy in range(at % 3)]
        if at % 10 == 9:
            rows.append((f"{id_}-x", text, labels[labels.index(label) - 1]))
    assert run(write_csv(rows)).exit_code == 0
    dataset = open_dataset(tmp_path / "out")
    held = open_holdout(dataset, purpose="test", subject="")
    wanted = Counter(text for _, text, _ in rows)
    found = read_copies(dataset)
    assert found is not None
    assert max(found.values()) == 3
    for example in held:
        assert found.get(example.id, 1) == wanted[example.message]
    counted = dataset.record["counts"]["holdout_traffic"]
    assert counted["rows"] == sum(wanted[example.message] for example in held)
    assert counted["ambiguous"] > 0
    text = (tmp_path / "out" / COPIES).read_text(encoding="utf-8")
    assert not any(example.message in text for example in held)
    (tmp_path / "out" / COPIES).write_text(text[1:], encoding="utf-8")
    with pytest.raises(BadInput, match=r"copies\.jsonl: altered"):
        read_copies(dataset)


def test_without_copies_there_is_no_file(
    run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    assert run(write_csv(records)).exit_code == 0
    assert not (tmp_path / "out" / COPIES).exists()
    assert read_copies(open_dataset(tmp_path / "out")) == {}


@pytest.fixture
def export(tmp_path: Path) -> Path:
    words = {"refund": "money back", "delivery": "parcel late"}
    rows = [
        {"id": f"{label}-{at}", "message": f"{text} {unlike}", "label": label}
        for seed, (label, text) in enumerate(words.items())
        for at, unlike in enumerate(unlike_messages(30, seed))
    ]
    path = tmp_path / "export.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    labels = "".join(f'[[labels]]\nname = "{name}"\ndescription = "d"\n' for name in words)
    (tmp_path / "taxonomy.toml").write_text(f'name = "t"\nversion = "1"\n{labels}')
    return path


def prepare(export: Path, out: str, *more: object) -> Path:
    folder = export.parent / out
    code, _, error = call(
        *("prepare", "--input", export, "--taxonomy", export.parent / "taxonomy.toml"),
        *("--out", folder, *more),
    )
    assert code == 0, error
    return folder


def test_decisions_are_persons_labels_by_their_guideline(export: Path) -> None:
    rows = [json.loads(line) for line in export.read_text().splitlines()]
    decided = [(rows[0], "4", "outcome"), (rows[1], None, "outcome"), (rows[2], "4", "opinion")]
    save_answers(
        export.parent / "d.csv",
        [
            Answer(
                row["id"], message_sha256(row["message"]), "relabel", "delivery",
                guideline=guideline, role=role,  # type: ignore[arg-type]
            )
            for row, guideline, role in decided
        ],
    )  # fmt: skip
    plain = prepare(export, "plain")
    folder = prepare(export, "decided", "--decisions", export.parent / "d.csv")
    assert read_label_sources(open_dataset(folder)) == {
        rows[0]["id"]: LabelOrigin("person", "4"),
        rows[1]["id"]: LabelOrigin("person"),
    }
    counted = open_dataset(folder).record["label_sources"]
    total = {
        words: sum(part.get(words, 0) for part in counted.values())
        for words in ("export", "person", "person, guideline 4")
    }
    assert total == {"export": 58, "person": 1, "person, guideline 4": 1}
    assert "## Where labels come from" in (folder / "report.md").read_text()
    assert "label_sources" not in open_dataset(plain).record
    labels = {
        e.id: e.label for e in (*open_dataset(folder).train, *open_dataset(folder).validation)
    }
    assert labels.get(rows[2]["id"], "refund") == "refund"


def test_a_teachers_export_says_so(export: Path) -> None:
    """``--label-source`` is for the rows that do not say it themselves."""
    rows = [json.loads(line) for line in export.read_text().splitlines()]
    for row in rows[::3]:
        row["label_source"] = "person"
    export.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = prepare(export, "taught", "--label-source", "teacher")
    found = read_label_sources(open_dataset(folder))
    assert Counter(origin.source for origin in found.values())["teacher"] > 25
    code, _, error = call("report", folder, "--out", folder.parent / "page.html")
    assert code == 0, error
    page = (folder.parent / "page.html").read_text()
    assert "Where labels come from" in page
    assert "teacher" in page


def test_each_row_of_an_export_may_say_it(export: Path) -> None:
    rows = [json.loads(line) for line in export.read_text().splitlines()]
    for at, row in enumerate(rows):
        row["label_source"] = ("teacher", "person", "export", "")[at % 4]
    export.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = prepare(export, "said", "--source-column", "label_source")
    counted = open_dataset(folder).record["label_sources"]
    total = {
        words: sum(part.get(words, 0) for part in counted.values())
        for words in ("export", "person", "teacher")
    }
    assert total == {"export": 30, "person": 15, "teacher": 15}
    rows[4]["label_source"] = "hearsay"
    export.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, error = call(
        *("prepare", "--input", export, "--taxonomy", export.parent / "taxonomy.toml"),
        *("--out", export.parent / "no", "--source-column", "label_source"),
    )
    assert code == 2
    assert "1 row whose 'label_source' is not one of export, person, teacher" in error
