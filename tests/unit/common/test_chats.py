"""Fine-tuning files and the answers of a batch, read as tables of messages and labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest

from worker.common.tables import Table, TableError, read_table

SYSTEM, ASKED, LABEL = "Sort these messages.", "My card is lost.\nWhat now?", "lost_card"


def opened(*lines: Any) -> Table:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    return read_table("\n".join(texts).encode(), "chats.jsonl")


def rows(table: Table, *columns: str) -> list[list[str]]:
    return [cells for _, cells in table.rows(columns or ("message", "label"))]


def said(table: Table, *columns: str) -> list[str]:
    rows(table, *columns)
    return [problem.sentence(table.unit) for problem in table.problems]


def chat(*turns: tuple[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for role, text in turns], **more}


def answered(answer: str, asked: str = ASKED) -> dict[str, Any]:
    return chat(("system", SYSTEM), ("user", asked), ("assistant", answer))


def gemini(*turns: tuple[str, Any], **more: Any) -> dict[str, Any]:
    return {"contents": [{"role": role, "parts": parts} for role, parts in turns], **more}


def text(words: str) -> list[dict[str, Any]]:
    return [{"text": words}]


SHAPES: dict[str, dict[str, Any]] = {
    "OpenAI": answered(LABEL),
    "OpenAI, a developer's instruction and typed parts": chat(
        ("developer", [{"type": "text", "text": SYSTEM}]),
        ("user", [{"type": "text", "text": ASKED}]),
        ("assistant", LABEL),
        tools=[],
        parallel_tool_calls=False,
    ),
    "Gemini": gemini(
        ("user", text(ASKED)),
        ("model", text(LABEL)),
        systemInstruction={"role": "system", "parts": text(SYSTEM)},
    ),
    "Gemini's thoughts": gemini(
        ("user", text(ASKED)),
        ("model", [{"text": "Let me see.", "thought": True}, {"text": LABEL}]),
        system_instruction={"parts": text(SYSTEM)},
    ),
    "Vertex's older form": chat(("system", SYSTEM), ("user", ASKED), ("model", LABEL)),
    "Bedrock's conversation": chat(
        ("user", text(ASKED)),
        ("assistant", [{"reasoningContent": {"reasoningText": {"text": "Hm."}}}, *text(LABEL)]),
        system=text(SYSTEM),
        schemaVersion="bedrock-conversation-2024",
    ),
    "Anthropic on Bedrock": chat(("user", ASKED), ("assistant", LABEL), system=SYSTEM),
    "prompt and completion": {"prompt": ASKED, "completion": f" {LABEL}\n", "system": SYSTEM},
    "JSON with one field": answered('{"category": "lost_card"}'),
    "JSON with one field, nested, in a list": answered('{"result": {"labels": ["lost_card"]}}'),
    "a message in JSON": answered(LABEL, json.dumps({"message": ASKED})),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_each_shape_gives_the_message_the_label_and_the_instruction(shape: str) -> None:
    table = opened(SHAPES[shape])
    assert rows(table) == [[ASKED, LABEL]]
    assert table.columns == ("message", "label") or shape.endswith("typed parts")
    assert table.instruction == SYSTEM
    assert table.problems == []


def weighted(*turns: tuple[str, str, int | None]) -> dict[str, Any]:
    return {
        "messages": [
            {"role": role, "content": words} | ({} if weight is None else {"weight": weight})
            for role, words, weight in turns
        ]
    }


IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/card.png"}}
CALL = {"id": "1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
PROSE = "Your card is lost, so I have blocked it"

UNUSABLE: dict[str, tuple[dict[str, Any], str]] = {
    "weight 0": (
        weighted(("user", ASKED, None), ("assistant", LABEL, 0)),
        "whose answers all have weight 0",
    ),
    "a tool call": (
        {
            "messages": [
                {"role": "user", "content": ASKED},
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "1", "content": "blocked"},
                {"role": "assistant", "content": LABEL},
            ]
        },
        "with a call of a tool",
    ),
    "an image": (
        chat(("user", [{"type": "text", "text": ASKED}, IMAGE]), ("assistant", LABEL)),
        "with an image, audio or a file",
    ),
    "no question": (chat(("system", SYSTEM), ("assistant", LABEL)), "without a text of the user"),
    "a sentence": (answered(PROSE), "whose answer is a text and not a label"),
    "a long answer": (answered("lost" * 30), "whose answer is a text and not a label"),
    "several labels": (
        answered('{"labels": ["lost_card", "refund"]}'),
        "with several labels in one answer",
    ),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_line_that_cannot_be_used_is_listed_without_its_text(case: str) -> None:
    line, why = UNUSABLE[case]
    usable = SHAPES["Gemini" if "contents" in line else "OpenAI"]
    table = opened(usable, line, usable)
    assert rows(table) == [[ASKED, LABEL]] * 2
    assert said(table) == [f"1 row {why} (line 2): left out"]
    assert [problem.left_out for problem in table.problems] == [True]


def test_everything_is_listed_at_once_with_counts_and_first_lines() -> None:
    lines = [UNUSABLE["weight 0"][0]] * 7 + [UNUSABLE["an image"][0], answered(LABEL), "{", {}]
    assert said(opened(*lines)) == [
        "1 row not a JSON object (line 10): write one object a line",
        "1 row not a chat like the first line (line 11): write one example a line",
        "7 rows whose answers all have weight 0 (lines 1, 2, 3, 4, 5, ...): left out",
        "1 row with an image, audio or a file (line 8): left out",
    ]


@pytest.mark.parametrize(
    ("turns", "label"),
    [
        # Examples in front, with weights or without them.
        ([("user", "old", None), ("assistant", "refund", 0)], LABEL),
        ([("user", "old", None), ("assistant", "refund", None)], LABEL),
        ([("user", "old", None), ("assistant", "How can I help?", 0)], LABEL),
    ],
)
def test_of_several_turns_the_last_trained_answer_counts_and_what_was_asked_before_it(
    turns: Sequence[tuple[str, str, int | None]], label: str
) -> None:
    last = (("user", "My card", None), ("user", "is lost.", None), ("assistant", label, None))
    table = opened(weighted(*turns, *last))
    assert rows(table) == [["My card\n\nis lost.", label]]
    assert said(table) == ["1 row with several answers: the last is the label (line 1)"]


def test_several_fields_of_an_answer_are_columns() -> None:
    table = opened(answered('{"category": "lost_card", "priority": 2}'))
    assert table.columns == ("message", "answer.category", "answer.priority")
    assert rows(table, *table.columns) == [[ASKED, "lost_card", "2"]]


@pytest.mark.parametrize("answer", ["", " ", '{"label": null}', '{"label": ""}', "{}", "[]"])
def test_an_empty_answer_is_no_label(answer: str) -> None:
    table = opened(answered(LABEL), answered(answer))
    assert rows(table) == [[ASKED, LABEL], [ASKED, ""]]
    assert said(table) == []


def test_other_fields_of_a_line_are_columns() -> None:
    table = opened(answered(LABEL) | {"id": "T-1", "metadata": {"day": "2026-05-06", "tags": []}})
    assert table.columns == ("message", "label", "id", "metadata.day")
    assert rows(table, "id", "metadata.day") == [["T-1", "2026-05-06"]]


def test_only_the_message_is_needed_where_no_label_is_read() -> None:
    table = opened(answered(PROSE), UNUSABLE["weight 0"][0], UNUSABLE["an image"][0])
    assert rows(table, "message") == [[ASKED]] * 2
    assert said(table, "message") == ["1 row with an image, audio or a file (line 3): left out"]


WORDS = ["I lost it", "Where is my money?", "Help", "It is gone", "Refund it", *"abcde"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Classify this message as lost_card or refund.\n\nMessage: ", ""),
        ("Text: ", "\nLabel:"),
        ('Message: "', '"\n\n###\n\n'),
        ("<message>", "</message>"),
        ("", " ->"),
        ("Sort.\n<mail>\n", "\n</mail>\nAnswer with the label."),
    ],
)
def test_what_is_the_same_around_every_message_is_part_of_the_instruction(
    before: str, after: str
) -> None:
    table = opened(*(answered(LABEL, f"{before}{words}{after}") for words in WORDS))
    assert [message for message, _ in rows(table)] == WORDS
    around = "\n".join(part for part in (before.strip(), after.strip()) if part)
    assert table.instruction == f"{SYSTEM}\n{around}"
    counts = f"{len(before)} characters before and {len(after)} after each message"
    assert said(table) == [f"has the same {counts}: read as part of the instruction"]


@pytest.mark.parametrize(
    "messages",
    [
        [f"My card {number} is lost, please help" for number in range(20)],  # words alone
        [f"Message: {words}" for words in WORDS[:9]],  # too few to know
        [f"Message: {words}" for words in WORDS] + ["Something else"],
        ["Message: the same"] * 20,
    ],
)
def test_what_is_the_same_by_chance_stays(messages: list[str]) -> None:
    table = opened(*(answered(LABEL, message) for message in messages))
    assert [message for message, _ in rows(table)] == messages
    assert said(table) == []


def batch(id_: str, content: Any, **usage: int) -> dict[str, Any]:
    body = {"choices": [{"message": {"role": "assistant", "content": content}}], "usage": usage}
    return {
        "id": f"batch_req_{id_}",
        "custom_id": id_,
        "response": {"status_code": 200, "request_id": "r", "body": body},
        "error": None,
    }


def test_the_answers_of_a_batch_are_ids_labels_and_tokens() -> None:
    responses = batch("v4", "")
    responses["response"]["body"] = {
        "output": [
            {"type": "reasoning", "summary": []},
            {"type": "message", "content": [{"type": "output_text", "text": "refund"}]},
        ],
        "usage": {"input_tokens": 50, "output_tokens": 2},
    }
    failed = batch("v5", "") | {"response": None, "error": {"code": "batch_expired"}}
    refused = batch("v6", LABEL)
    refused["response"]["status_code"] = 429
    table = opened(
        batch("v1", ' {"label": "lost_card"} ', prompt_tokens=80, completion_tokens=5),
        batch("v2", PROSE),
        batch("v3", None),
        responses,
        failed,
        refused,
    )
    assert table.columns == ("id", "label", "prompt_tokens", "answer_tokens")
    assert rows(table, *table.columns) == [
        ["v1", "lost_card", "80", "5"],
        ["v2", PROSE, "", ""],  # a wrong answer, and an answer
        ["v3", "", "", ""],
        ["v4", "refund", "50", "2"],
    ]
    assert said(table) == ["2 rows whose request failed (lines 5, 6): left out"]


ODD: list[Any] = [
    {"messages": [{"role": "user", "content": ASKED}, 1]},
    {"messages": [{"role": ["user"], "content": ASKED}]},
    {"messages": [{"role": "user", "content": {"x": 1}}, {"role": "assistant", "content": "a"}]},
    {"messages": [{"role": "user", "content": [None, 3, {"type": []}, {"text": {}}]}]},
    {"messages": [{"role": "user", "content": ASKED, "weight": []}, {"role": "assistant"}]},
    {"messages": [{"role": "assistant", "content": "{" * 9000}]},
    {"contents": [{"parts": None}, {"role": "model", "parts": [[]]}], "systemInstruction": 3},
    {"custom_id": None, "response": [], "error": []},
    {"custom_id": {}, "response": {"body": {"choices": [{"message": []}], "usage": []}}},
    {"custom_id": "a", "response": {"body": {"output": [{"type": "message", "content": 5}]}}},
    {"prompt": "", "completion": "", "system": {}},
]


@pytest.mark.parametrize("line", ODD, ids=range(len(ODD)))
def test_an_odd_line_is_left_out_or_refused_and_ends_nothing(line: Any) -> None:
    with suppress(TableError):
        table = opened(line, SHAPES["OpenAI"])
        rows(table, *table.columns)
    assert rows(opened(SHAPES["OpenAI"], line), "message")[0] == [ASKED]
