"""What a person sees of a training, on a terminal and in a log."""

from __future__ import annotations

import pytest
from rich.console import Console

from trainer.training.console import PlainProgress, make_progress


def test_progress_is_plain_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = make_progress(Console(force_terminal=False))
    assert isinstance(progress, PlainProgress)
    progress.start(1, 3, 4)
    progress.advance(2, 0.5, 1.0)
    progress.finish("done [here]")
    assert capsys.readouterr().out == "epoch 1/3  done [here]\n"


def test_progress_is_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    progress = make_progress(Console(force_terminal=True, width=100))
    progress.start(1, 3, 4)
    progress.advance(2, 0.5, 1.0)
    progress.finish("done")
    assert "epoch 1/3  done" in capsys.readouterr().out
