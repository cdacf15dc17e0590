"""How often held-out messages came is kept beside the dataset, without a text."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.unit.trainer.dataset.conftest import Record, Run, WriteCsv
from trainer.dataset.extra_files import COPIES, read_copies
from trainer.dataset.folder import open_dataset, open_holdout
from trainer.errors import BadInput


def test_every_row_of_the_export_that_is_held_out_is_counted(
    run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    """Copies by the message that stands for them; rows of a text under several labels, which is in
    no part, by their number."""
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
    """Nothing came twice: that is known too, and is another thing than not knowing."""
    assert run(write_csv(records)).exit_code == 0
    assert not (tmp_path / "out" / COPIES).exists()
    assert read_copies(open_dataset(tmp_path / "out")) == {}
