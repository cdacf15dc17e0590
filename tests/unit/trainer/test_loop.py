"""The schedule, early stopping and which epoch is kept."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from trainer.training.loop import Schedule, fit, rate_at
from trainer.training.progress import PlainProgress, make_progress
from trainer.model.rows import MASKED, Row

ROWS = [Row("x", (0, 1, 2), (MASKED, MASKED, 2))] * 4


class Still:
    """A student with one weight, which counts the epochs by itself."""

    def __init__(self) -> None:
        self.weight = torch.nn.Parameter(torch.zeros(3))
        self.device = torch.device("cpu")
        self.peft = torch.nn.Module()

    def parameters(self) -> list[torch.Tensor]:
        return [self.weight]

    def state(self) -> dict[str, torch.Tensor]:
        return {"w": self.weight.detach().clone()}


@pytest.fixture
def short_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.training import loop

    def step(student: Still, *_: object) -> float:
        loss = student.weight[2] * -1.0
        loss.backward()
        return float(loss.detach())

    monkeypatch.setattr(loop, "_step", step)


def schedule(**changes: object) -> Schedule:
    settings = {
        "epochs": 8,
        "patience": 2,
        "batch_size": 2,
        "learning_rate": 0.1,
        "weight_decay": 0.0,
        "warmup_share": 0.1,
        "max_grad_norm": 1.0,
        "seed": 1,
        "autocast": False,
        "share_prefix": True,
    }
    return Schedule(**(settings | changes))


class Silent:
    """Progress that keeps its last lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def start(self, *_: object) -> None: ...

    def advance(self, *_: object) -> None: ...

    def finish(self, line: str) -> None:
        self.lines.append(line)


def run(losses: list[float], **changes: object):
    student, states = Still(), []
    left = iter(losses)

    def validate() -> tuple[float, float]:
        states.append(student.state()["w"])
        return next(left), 0.5

    progress = Silent()
    epochs, best, state = fit(
        student, ROWS, torch.tensor([0]), schedule(**changes), validate, progress
    )
    return epochs, best, state, states, progress


@pytest.mark.usefixtures("short_pass")
def test_the_epoch_with_the_lowest_validation_loss_is_kept_and_patience_stops() -> None:
    epochs, best, state, states, progress = run([0.9, 0.5, 0.7, 0.6, 0.1])
    assert (len(epochs), best) == (4, 2)
    assert torch.equal(state["w"], states[1])
    assert not torch.equal(states[1], states[3])
    assert len(progress.lines) == 4


@pytest.mark.usefixtures("short_pass")
def test_all_epochs_run_while_they_get_better() -> None:
    epochs, best, _, _, _ = run([0.9, 0.8, 0.7], epochs=3)
    assert (len(epochs), best) == (3, 3)


@pytest.mark.usefixtures("short_pass")
def test_a_loss_that_is_no_number_stops_with_advice() -> None:
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        run([math.nan])


def test_the_rate_climbs_then_falls_to_zero() -> None:
    rates = [rate_at(step, 100, 0.1) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.0)
    assert all(one >= other for one, other in pairwise(rates[10:]))


def test_progress_is_plain_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from rich.console import Console

    progress = make_progress(Console(force_terminal=False))
    assert isinstance(progress, PlainProgress)
    progress.start(1, 3, 4)
    progress.advance(2, 0.5, 1.0)
    progress.finish("done [here]")
    assert capsys.readouterr().out == "epoch 1/3  done [here]\n"


def test_progress_is_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    progress = make_progress(Console(force_terminal=True, width=100))
    progress.start(1, 3, 4)
    progress.advance(2, 0.5, 1.0)
    progress.finish("done")
    assert "epoch 1/3  done" in capsys.readouterr().out
