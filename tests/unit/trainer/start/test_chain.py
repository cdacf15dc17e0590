"""Whatever happens, a step is done or to be done, and what changed is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.errors import BadInput
from trainer.start.chain import Folder, Step, locked


class Killed(BaseException):
    """The process ends here."""


class World:
    """Three steps that write a file each; ``work`` does them as ``start`` does."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.ran: list[str] = []
        self.words: dict[str, tuple[str, ...]] = {}
        self.inputs = {"tickets.csv": "1"}

    def steps(self) -> list[Step]:
        def step(name: str, inputs: dict[str, str]) -> Step:
            made = self.out / name
            words: tuple[str | Path, ...] = (name, self.out, *self.words.get(name, ()))
            return Step(words, result=made / "result", made=(made,), inputs=inputs)

        return [step("prepare", self.inputs), step("train", {}), step("report", {})]

    def work(self, kill: str = "") -> list[str]:
        """Do what is to be done, as a new process; return the steps that ran. ``kill`` is a step
        and whether its result is there: "train before"."""
        folder, self.ran = Folder(self.out), []
        for planned in folder.plan(self.steps()):
            if planned.done:
                continue
            name = planned.step.name
            with folder.doing(planned):
                self.ran.append(name)
                (self.out / name).mkdir(exist_ok=True)
                (self.out / name / "partly").touch()
                if kill == f"{name} before":
                    raise Killed
                planned.step.result.write_text("done")
                if kill == f"{name} after":
                    raise Killed
        return self.ran

    def changes(self) -> list[str]:
        folder = Folder(self.out)
        return folder.changes(folder.plan(self.steps()))

    def stale(self) -> list[str]:
        folder = Folder(self.out)
        planned = folder.plan(self.steps())
        return [each.step.name for each in planned if folder.finished_before(each)]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("step", ["prepare", "train", "report"])
def test_a_kill_before_the_result_repeats_that_step_with_what_it_left(
    world: World, step: str
) -> None:
    """But for the remains of a killed write, which may hold messages."""
    with pytest.raises(Killed):
        world.work(kill=f"{step} before")
    kept, remains = world.out / step / "kept", world.out / f".{step}.x7f3"
    kept.touch()
    remains.mkdir()
    (remains / "train.jsonl").touch()
    assert world.work()[0] == step
    assert kept.exists()
    assert not remains.exists()


def test_a_kill_after_the_result_repeats_nothing(world: World) -> None:
    with pytest.raises(Killed):
        world.work(kill="train after")
    assert world.work() == ["report"]


def test_a_changed_file_is_named_and_everything_after_it_is_stale(world: World) -> None:
    world.work()
    world.inputs = {"tickets.csv": "2", "more.csv": "1"}
    assert world.changes() == ["more.csv is new", "tickets.csv has changed"]
    assert world.stale() == ["prepare", "train", "report"]
    (world.out / "train" / "old").touch()
    assert world.work() == ["prepare", "train", "report"]
    assert not (world.out / "train" / "old").exists()
    assert world.changes() == []


def test_a_change_after_a_kill_and_back_does_not_mix_results(world: World) -> None:
    """The remains of an attempt with other options are removed."""
    world.words["train"] = ("--set", "epochs=8")
    with pytest.raises(Killed):
        world.work(kill="train before")
    (world.out / "train" / "checkpoint").touch()
    world.words["train"] = ("--set", "epochs=9")
    world.work()
    assert not (world.out / "train" / "checkpoint").exists()


def test_a_removed_result_is_made_again_with_all_after_it(world: World) -> None:
    world.work()
    (world.out / "train" / "result").unlink()
    assert world.work() == ["train", "report"]


def test_the_folder_can_move_and_be_named_from_anywhere(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world.work()
    moved = tmp_path.with_name(f"{tmp_path.name}-moved")
    tmp_path.rename(moved)
    monkeypatch.chdir(moved.parent)
    world.out = Path(moved.name)
    assert world.work() == []


def test_two_cannot_work_in_one_folder(tmp_path: Path) -> None:
    with (
        locked(tmp_path),
        pytest.raises(BadInput, match="another clerk-trainer start"),
        locked(tmp_path),
    ):
        pass
    with locked(tmp_path):
        pass
