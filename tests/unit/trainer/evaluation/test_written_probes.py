"""Written messages that the adapter gets right become its probes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.trainer_world import World, call
from trainer.artifacts.evaluation import PROBES_NAME
from trainer.dataset.folder import Example, count_openings
from trainer.errors import BadInput
from trainer.evaluation.engines import ScoresByKey
from trainer.evaluation.evaluate import pick_probes, read_written
from worker.contract.verify import read_probes

pytestmark = pytest.mark.slow

LABELS = ("order_tracking", "payment", "refund")


def write(path: Path, *rows: tuple[str, str]) -> Path:
    lines = (json.dumps({"message": message, "label": label}) for message, label in rows)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_only_the_file_of_probes_has_text_and_is_for_owner_and_group(
    world: World, tmp_path: Path
) -> None:
    messages = [f"my parcel number {at}, written for this" for at in range(12)]
    rows = [(message, label) for message in messages for label in LABELS]
    out = tmp_path / "out"
    for label in LABELS:
        file = write(tmp_path / f"{label}.jsonl", *(row for row in rows if row[1] == label))
        code, _, _ = call(
            *("evaluate", world.adapter, "--dataset", world.dataset.directory),
            *("--base", world.base, "--out", out, "--probes", file, "--json"),
        )
        assert code == 0
        found = read_probes(out / PROBES_NAME, world.manifest)
        assert found is not None
        assert found.source == "written"
        assert {probe.label for probe in found.probes} <= {label}
        for path in out.iterdir():
            if path.name == PROBES_NAME:
                assert path.stat().st_mode & 0o777 == 0o640
            else:
                assert "written for this" not in path.read_text(encoding="utf-8")


def test_only_right_answers_that_need_no_review_become_probes(world: World) -> None:
    written = [Example(name, f"message {name}", "payment") for name in ("sure", "unsure", "wrong")]
    names = world.manifest.taxonomy.names
    at = names.index("payment")
    rows: ScoresByKey = {}
    for name, (place, share) in zip(
        ("sure", "unsure", "wrong"), ((at, 0.98), (at, 0.4), ((at + 1) % 3, 0.98)), strict=True
    ):
        row = np.full(3, (1 - share) / 2)
        row[place] = share
        rows[f"p:{name}"] = (np.log(row), True)
    assert [probe.message for probe in pick_probes(world.manifest, written, rows).probes] == [
        "message sure"
    ]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("one", "refund"), ("secret", "refunds")], "line 2 has the label 'refunds'"),
        ([("secret", "")], "line 1 has no text"),
    ],
)
def test_a_file_of_probes_that_cannot_be_used_is_an_error(
    tmp_path: Path, rows: list[tuple[str, str]], said: str
) -> None:
    """The error has the line, but not the message."""
    with pytest.raises(BadInput, match=said) as error:
        read_written(write(tmp_path / "p.jsonl", *rows), LABELS)
    assert "secret" not in str(error.value)


def test_the_error_comes_before_the_hold_out_is_opened(world: World, tmp_path: Path) -> None:
    before = count_openings(world.dataset)
    code, _, err = call(
        *("evaluate", world.adapter, "--dataset", world.dataset.directory, "--base", world.base),
        *("--out", tmp_path / "out", "--probes", write(tmp_path / "p.jsonl", ("a", "b"))),
    )
    assert code == 2
    assert "line 1 has the label 'b'" in err
    assert count_openings(world.dataset) == before
