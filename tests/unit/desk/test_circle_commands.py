"""The whole circle at the desk by commands alone: load, look, ask, answer, export."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from desk.cli.main import app
from desk.core.queue import Queue
from desk.errors import Refused, SettingsError
from desk.service import reviewing
from tests.support.desk_files import make_advice, make_proposal, make_task, task_file
from tests.support.desk_world import TAXONOMY, DeskWorld
from worker.contract.codec import encode
from worker.contract.exchange import read_answers, read_decision

Command = Callable[..., str]


@pytest.fixture
def command(world: DeskWorld, tmp_path: Path) -> Command:
    """Runs a command on the world's database; gives what it prints, raises what it raises."""
    taxonomy = tmp_path / "taxonomy.toml"
    labels = "".join(
        f'\n[[labels]]\nname = "{label.name}"\ndescription = "{label.description}"\n'
        for label in TAXONOMY.labels
    )
    head = f'name = "{TAXONOMY.name}"\nversion = "{TAXONOMY.version}"\n'
    taxonomy.write_text(f'{head}description = "{TAXONOMY.description}"\n{labels}', "utf-8")
    url = world.database.engine.url.render_as_string(hide_password=False)
    settings = [f"project.taxonomy={taxonomy}", f"database.url={url.replace('+pg8000', '')}"]
    settings += ["review.double_share=0"]

    def run(*words: str) -> str:
        flags = [flag for setting in settings for flag in ("-s", setting)]
        done = CliRunner().invoke(app, [*words, *flags])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.output

    return run


def test_the_circle_by_commands_alone(world: DeskWorld, command: Command, tmp_path: Path) -> None:
    """Each step says what it did and what is next; the files are the trainer's."""
    files = {
        "tasks.jsonl": task_file([make_task("A"), make_task("B")]),
        "advice.json": json.dumps(encode(make_advice("C", None))),
        "proposal.json": json.dumps(encode(make_proposal(headline="Yes:\x1b[31m better."))),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, "utf-8")
    assert "2 tasks loaded, 0 were here already; batch 1" in command(
        "tasks", "load", str(tmp_path / "tasks.jsonl")
    )
    assert "0 tasks loaded, 2 were here already" in command(
        "tasks", "load", str(tmp_path / "tasks.jsonl")
    )
    ann = world.person("ann")
    task = reviewing.next_item(world.desk, ann, Queue(batch_id=1))
    assert task is not None
    reviewing.decide(world.desk, ann, task.item_id, "refund", request_id=world.request())
    assert "1\tcheck\t2\t1\t1\tdddddddddddd\tcheck of monday" in command("tasks", "list")
    status = command("tasks", "status", "1")
    assert "1 of 2 decided, 1 waiting" in status
    assert "1 of 1 labels of the dataset were left as they are" in status
    assert "advice 1 is loaded" in command("advice", "load", str(tmp_path / "advice.json"))
    assert "1.1\t2 messages\tPeople confuse" in command("advice", "list")
    assert "1 tasks made, 0 were here already; batch 2" in command("advice", "ask", "1.1")
    assert "is loaded" in command("proposal", "load", str(tmp_path / "proposal.json"))
    listed = command("proposal", "list")
    assert "publish\twaiting" in listed
    assert "\x1b" not in listed
    assert "decided: yes" in command("proposal", "decide", "1111", "yes", "--note", "clear")
    out = tmp_path / "out"
    exported = command("export", "--out", str(out), "--project", "check of monday")
    assert "1 decisions" in exported
    (answer,) = read_answers(out / "decisions.csv")
    assert (answer.decision, answer.decided_by) == ("accept", ann.pseudonym)
    decision = read_decision(out / "proposals" / f"{'1' * 32}.json")
    assert (decision.publish, decision.reason) == (True, "clear")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("tasks", "load", "nowhere.jsonl"), "nowhere.jsonl"),
        (("tasks", "status", "7"), "no batch 7"),
        (("advice", "ask", "7"), "two numbers with a dot"),
        (("advice", "ask", "7.1"), "no such finding"),
        (("proposal", "decide", "7", "perhaps"), "yes or no"),
        (("proposal", "decide", "7", "yes"), "no proposal's id begins with 7"),
        (("export", "--out", "out", "--project", "unheard"), "no batch of this name"),
    ],
)
def test_what_cannot_be_done_is_said(command: Command, words: tuple[str, ...], says: str) -> None:
    """With what to do instead."""
    with pytest.raises((SettingsError, Refused), match=says):
        command(*words)
