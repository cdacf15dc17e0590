"""What a support lead reads at the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.trainer_world import evaluation_json
from trainer.artifacts.evaluation import EVALUATION
from trainer.numbers import of_100
from trainer.start.verdict import accuracy_line, review_line


def evaluation(tmp_path: Path, **changes: Any) -> Any:
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation_json(**changes)))
    return EVALUATION.read(tmp_path)


def test_the_first_line_counts_messages(tmp_path: Path) -> None:
    found = evaluation(tmp_path, accuracy=0.75, accuracy_interval_95=[0.3, 0.954])
    line = accuracy_line(found)
    assert "75 of 100 messages (3 of the 4" in line
    assert "30 to 95" in line


@pytest.mark.parametrize(
    ("share", "words"), [(1.0, "nothing yet"), (0.25, "files 75 of 100 and sends 25 to review")]
)
def test_the_second_line_is_what_it_files_by_itself(
    tmp_path: Path, share: float, words: str
) -> None:
    review = evaluation_json()["review"] | {"share": share}
    assert words in review_line(evaluation(tmp_path, review=review))


def test_nearly_all_is_not_called_all() -> None:
    assert [of_100(share) for share in (0.996, 0.9999, 0.004)] == ["99.6", "99.9", "0.4"]
