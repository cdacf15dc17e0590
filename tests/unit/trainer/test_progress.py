"""What a person or a log sees of long work."""

from __future__ import annotations

import re

import pytest

from trainer.progress import progress, track, watch


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_LINE_EVERY_S", "_DRAWN_EVERY_S", "_LEAST_S"):
        monkeypatch.setattr(f"trainer.progress.{name}", 0.0)


def test_a_log_gets_lines_of_the_outermost_work(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("training", 3_000, done=1_000) as advance:
        advance(500, "loss 0.250", "epoch 2 of 3")
        assert list(track("scoring", [1, 2])) == [1, 2]
    printed = capsys.readouterr()
    assert re.fullmatch(
        r"epoch 2 of 3: 1,500 of 3,000, loss 0\.250, [\d,.]+/s, about 10 s left\n", printed.err
    )
    assert not printed.out


def test_work_that_fails_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        for _ in track("first", [2, 1]):
            list(map((1).__truediv__, [1, 0]))

    with pytest.raises(ZeroDivisionError):
        fail()
    list(track("second", [1]))
    assert capsys.readouterr().err.startswith("second: 1 of 1")


def test_whoever_watches_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    with watch() as working:
        assert working() is None
        with progress("scoring", 10) as advance:
            advance(4)
            work = working()
            assert work is not None
            assert (work.title, work.done, work.total) == ("scoring", 4, 10)
            assert work.left is not None
        assert working() is None
    assert not capsys.readouterr().err


def test_a_terminal_gets_a_bar_that_goes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout.isatty", lambda: False, raising=False)
    with progress("scoring", 10) as advance:
        advance(4)
        print("result")
    printed = capsys.readouterr()
    assert "scoring: 4 of 10" in printed.err
    assert printed.err.endswith("\x1b[2K")  # the line is erased
    assert printed.out == "result\n"
