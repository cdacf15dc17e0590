"""A training's output on a terminal and in a log."""

from __future__ import annotations

import pytest
from rich.console import Console

from tests.support.trainer_world import training_json
from trainer.artifacts.training import TrainingRecord
from trainer.training.console import Progress, describe_review


def test_the_review_share_is_printed_with_and_without_the_guarantee() -> None:
    """Only once if both thresholds are the same."""
    record = training_json()
    same = describe_review(TrainingRecord.model_validate(record, strict=False))
    assert same == "review: 5.0% of validation goes to review, 96.0% of the rest are right"
    record["validation"] |= {"point_accepted_share": 0.98}
    both = describe_review(TrainingRecord.model_validate(record, strict=False))
    assert both.startswith(f"{same} (2.0% with")


def test_progress_is_plain_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = Progress(Console(force_terminal=False))
    progress.start(1, 3, 4)
    progress.advance(2, 0.5, 1.0)
    progress.finish("done [here]")
    assert capsys.readouterr().out == "epoch 1/3  done [here]\n"


def test_progress_is_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(Console(force_terminal=True, width=100))
    progress.start(1, 3, 4)
    progress.advance(2, 0.5, 1.0)
    progress.finish("done")
    assert "epoch 1/3  done" in capsys.readouterr().out
