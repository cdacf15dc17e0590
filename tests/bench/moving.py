"""``python -m tests.bench.moving make|answer DIR``: the files of someone who moves a fine-tune.

``make`` writes train.jsonl and validation.jsonl, chats as OpenAI's fine-tuning takes them: the
sample shop's messages, or a table's of your own (``--table``, columns message and category) with
the labels of ``--taxonomy``. Among them are what such files hold too: answers with weight 0,
refusals, an image, examples in front.

``answer`` plays the old model: it answers batch_input.jsonl in batch_output.jsonl, as OpenAI's
batches do, right in the share ``--right`` of the messages that validation.jsonl holds.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.known_messages import Known, read_known
from worker.contract import Taxonomy

INSTRUCTION = """\
You sort the messages of our customers. Answer with a JSON object: {"label": "..."}

The labels:
"""

Line = dict[str, Any]


def make_chat(system: str, message: str, label: str) -> Line:
    turns = [("system", system), ("user", message), ("assistant", json.dumps({"label": label}))]
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


def spoil(chat: Line, at: int, example: Line) -> Line:
    """Return a chat as one in a hundred of such a file is: not usable, or with an example."""
    system, asked, answer = chat["messages"]
    if at % 100 == 10:
        answer = answer | {"weight": 0}
    elif at % 100 == 30:
        answer = answer | {"content": f"I am sorry, I cannot say where number {at} belongs."}
    elif at % 300 == 50:
        image = {"type": "image_url", "image_url": {"url": "https://example.com/photo.png"}}
        asked = asked | {"content": [{"type": "text", "text": asked["content"]}, image]}
    elif at % 100 == 70:
        _, before, known = example["messages"]
        return {"messages": [system, before, known | {"weight": 0}, asked, answer]}
    return {"messages": [system, asked, answer]}


def make(folder: Path, rows: Sequence[Known], taxonomy: Taxonomy, train: int) -> None:
    listed = [f"- {label.name}: {label.description}" for label in taxonomy.labels]
    system = INSTRUCTION + "\n".join(listed)
    chats = [make_chat(system, *row) for row in rows]
    spoilt = [spoil(chat, at, chats[at - 1]) for at, chat in enumerate(chats[:train])]
    for name, some in (("train.jsonl", spoilt), ("validation.jsonl", chats[train:])):
        write(folder / name, some)


def write(path: Path, lines: Sequence[Line]) -> None:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    print(f"{path}: {len(lines)} lines")


def answer(folder: Path, right: float, seed: int) -> None:
    chance = random.Random(seed)
    truth = dict(_asked_and_answered(folder / "validation.jsonl"))
    names = sorted(set(truth.values()))

    def answered(line: Line) -> Line:
        known = truth[json.dumps(line["body"]["messages"])]
        others = [name for name in names if name != known]
        text = known if chance.random() < right else chance.choice(others)
        choice = {"index": 0, "message": {"role": "assistant", "content": text}}
        usage = {"prompt_tokens": len(json.dumps(line)) // 4, "completion_tokens": 8}
        body = {"object": "chat.completion", "choices": [choice], "usage": usage}
        response = {"status_code": 200, "body": body}
        return {"custom_id": line["custom_id"], "response": response, "error": None}

    asked = (folder / "batch_input.jsonl").read_text("utf-8").splitlines()
    write(folder / "batch_output.jsonl", [answered(json.loads(line)) for line in asked])


def _asked_and_answered(path: Path) -> Iterator[tuple[str, str]]:
    for line in path.read_text("utf-8").splitlines():
        *asked, last = json.loads(line)["messages"]
        yield json.dumps(asked), last["content"]


def _arguments() -> Mapping[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("what", choices=["make", "answer"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--table", type=Path, help="messages of your own (CSV)")
    parser.add_argument("--taxonomy", type=Path, default=Path("config/taxonomy.toml"))
    parser.add_argument("--train", type=int, default=800)
    parser.add_argument("--validation", type=int, default=400)
    parser.add_argument("--right", type=float, default=0.92)
    parser.add_argument("--seed", type=int, default=1)
    return vars(parser.parse_args())


def main() -> None:
    given = _arguments()
    folder: Path = given["folder"]
    if given["what"] == "answer":
        answer(folder, given["right"], given["seed"])
        return
    folder.mkdir(parents=True, exist_ok=True)
    rows = sorted(read_known(given["table"]))
    random.Random(given["seed"]).shuffle(rows)
    rows = rows[: given["train"] + given["validation"]]
    make(folder, rows, Taxonomy.from_toml(given["taxonomy"]), given["train"])


if __name__ == "__main__":
    main()
