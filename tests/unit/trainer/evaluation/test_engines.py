"""Message files, and the worker process of an evaluation."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trainer.errors import BadInput, ProofFailed
from trainer.evaluation.engines import WorkerAnswers, ask_worker, read_messages


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_messages_come_from_json_lines_and_from_csv(tmp_path: Path) -> None:
    lines = write(tmp_path / "a.jsonl", '{"message": "one"}\n\n{"id": "x", "message": "two"}\n')
    assert read_messages(lines) == {"a.jsonl:1": "one", "x": "two"}
    table = write(tmp_path / "b.csv", 'id,message\n7,"one,\ntwo"\n')
    assert read_messages(table) == {"7": "one,\ntwo"}


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.jsonl", '{"message": ""}\n', "line 1 has no text"),
        ("a.csv", "text\nhello\n", "no column 'message': there are text"),
        ("a.csv", "id,message\n1,\n2,a\n2,b\n", "(?s)line 2 has no text.*line 4 has the id '2'"),
    ],
)
def test_a_bad_file_is_named_with_its_line(
    tmp_path: Path, name: str, text: str, problem: str
) -> None:
    with pytest.raises(BadInput, match=problem):
        read_messages(write(tmp_path / name, text))


# The worker process.


CLASSIFY = """
import json, sys
print("chatter of a library", flush=True)
assert "model.adapter=" in " ".join(sys.argv) and "log.level=error" in sys.argv
for number, line in enumerate(sys.stdin, 1):
    text = json.loads(line)["message"]
    if text == "die":
        sys.exit("the engine died of {}".format(number))
    answer = {"label": None, "error": "rejected"} if text == "refuse" else {"label": text.upper()}
    print(json.dumps({"source": number} | answer), flush=True)
"""


def ask(tmp_path: Path, messages: dict[str, str], alone: int = 2) -> WorkerAnswers:
    program = tmp_path / "classify.py"
    program.write_text(CLASSIFY, encoding="utf-8")
    return ask_worker(
        messages,
        adapter=tmp_path,
        base=tmp_path,
        settings=["log.level=error"],
        alone=alone,
        program=(sys.executable, str(program)),
    )


def test_every_message_has_its_own_answer_and_some_are_timed_alone(tmp_path: Path) -> None:
    messages = {f"id{at}": f"text {at}" for at in range(50)}
    found = ask(tmp_path, messages)
    labels = {name: answer["label"] for name, answer in found.answers.items()}
    assert labels == {name: text.upper() for name, text in messages.items()}
    assert list(found.seconds_alone) == ["id0", "id1"]
    assert all(0 < seconds < 5 for seconds in found.seconds_alone.values())
    assert found.messages_per_s > 0


def test_the_error_of_a_worker_that_exits_early_has_its_last_output(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="exited early with code 1: the engine died of"):
        ask(tmp_path, {"a": "fine", "b": "die"})


def test_a_message_without_a_label_fails_the_proof(tmp_path: Path) -> None:
    with pytest.raises(ProofFailed, match="message b: the worker gave no label: rejected"):
        ask(tmp_path, {"a": "fine", "b": "refuse"}, alone=0)
