"""Read JSON Lines of chats as a table: fine-tuning files, and the answers of a batch.

A line is one example in the form of OpenAI (``messages``), Bedrock (``messages`` whose content is a
list of texts, ``system`` next to it), Gemini (``contents`` with ``parts``, ``systemInstruction``),
ShareGPT (``conversations`` with ``from`` and ``value``), or a ``prompt`` with its ``completion``,
two texts or two lists of turns. Its cells are ``message``, ``label``, and the line's other
plain fields by their names.

- ``label`` is the last answer that was trained (``weight`` is not 0), without blanks around it, or
  the only field of an answer in JSON. Several fields are the columns ``answer.FIELD``.
- ``message`` is what the user wrote since the answer before that one: earlier turns are mostly
  examples, and a served message has no such turns.
- What begins or ends every message of a file with the same words is part of the instruction:
  prompts such as "Classify this message: ..." are often in the user's turn.

A line of a batch's output has the cells ``id`` (its ``custom_id``), ``label``, ``prompt_tokens``,
and ``answer_tokens``.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from worker.common.tables.table import (
    Found,
    Problem,
    Table,
    Tally,
    flatten,
    to_text,
)

MESSAGE, LABEL, ID = "message", "label", "id"
_ANSWER = "answer."
_USAGE = "response.body.usage."

Objects = Callable[[Tally], Iterator[tuple[int, dict[str, Any]]]]
"""One pass over a file: the lines' numbers and objects."""

# Form -> the fields of a line that are not the user's own.
_FIELDS = {
    "messages": ("messages", "system", "schemaVersion", "tools", "functions", "tool_choice"),
    "contents": ("contents", "systemInstruction", "system_instruction", "tools", "toolConfig"),
    "conversations": ("conversations", "system", "tools"),
    "prompt": ("prompt", "completion", "system"),
}
_WORDS = {
    "batch": "JSON Lines of a batch's answers",
    "messages": "JSON Lines of chats",
    "contents": "JSON Lines of chats in Gemini's form",
    "conversations": "JSON Lines of chats in ShareGPT's form",
    "prompt": "JSON Lines of prompts and completions",
}

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
}
# Form -> the keys of a turn's role and text, if they are not "role" and "content".
_KEYS = {"contents": ("role", "parts"), "conversations": ("from", "value")}
# Keys and types of a turn's parts. OpenAI and Anthropic name the type, Gemini and Bedrock the key.
_TEXTS = frozenset({"text", "input_text", "output_text"})
_TOOLS = frozenset(
    {"functionCall", "functionResponse", "toolUse", "toolResult", "tool_use", "tool_result"}
)
_THOUGHTS = frozenset({"reasoningContent", "thinking", "reasoning", "thought"})

_LABEL_CHARS = 100
"""The longest name that a taxonomy takes."""

_PROSE_WORDS = 5
"""From so many words on, an answer that no other line has is a text and not a label."""

_FOR_TEMPLATE = 10
"""Different messages that show what is the same in all of them. With fewer it may be chance."""

# Up to the last line end, colon or tag: words after it may be the same by chance.
_BEFORE = re.compile(r".*(?:[\n:]|<[^<>\n]+>)[ \t]*[\"'`\[(]*", re.DOTALL)
# From a line end or a tag on (also "<|im_end|>", "[/INST]"), or a mark such as " ->".
_AFTER = re.compile(
    r"(?:\s{0,9}(?:<[^<>\n]*>|\[/[^\[\]\n]*\])|[\"'`\])]{0,9}\n).*|\s{1,9}[^\w\s]{1,9}\s{0,9}\Z",
    re.DOTALL,
)

_INSTRUCTIONS = 100
"""Different instructions that are counted; a file with more writes them for each message."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: its role as in ``_ROLES``' values, its text, whether it was trained, and the kind
    of problem that its content is, if any."""

    role: str
    text: str
    trained: bool = True
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A line. ``problem`` is the kind of problem because of which it cannot be used; ``several``:
    it has more than one answer. ``answer`` has the columns of its answer."""

    message: str = ""
    answer: Mapping[str, str] = field(default_factory=dict)
    instruction: str = ""
    problem: str | None = None
    several: bool = False


def form_of(record: Mapping[str, Any]) -> str | None:
    """Return the form of a line, None if it is not a chat."""
    if "custom_id" in record and ("response" in record or "error" in record):
        return "batch"
    for form, inside in (("messages", "role"), ("contents", "parts"), ("conversations", "from")):
        turns = record.get(form)
        if isinstance(turns, list) and any(isinstance(each, dict) and inside in each
                                           for each in turns):  # fmt: skip
            return form
    pair = [record.get(field) for field in ("prompt", "completion")]
    is_pair = any(all(isinstance(each, kind) for each in pair) for kind in (str, list))
    # A table with a label of its own has a prompt and an answer to judge, not to repeat.
    return "prompt" if is_pair and not {MESSAGE, LABEL} & record.keys() else None


def open_chat(objects: Objects, name: str, form: str, encoding: str) -> Table:
    """Open a file whose first object has a form."""
    seen = _Seen()
    for _, record in objects(Tally()):
        if form_of(record) == form:
            seen.add(read_example(record, form), _own_fields(record, form))
    before, after = (seen.before, seen.after) if form != "batch" else ("", "")
    notes = []
    if before or after:
        notes.append(
            Problem(
                "template",
                f"has the same {len(before):,} characters before and {len(after):,} after each "
                "message: read as part of the instruction",
                1,
            )
        )

    def read(columns: Sequence[str], tally: Tally) -> Iterator[tuple[int, list[str]]]:
        asks_label = any(each == LABEL or each.startswith(_ANSWER) for each in columns)
        for number, record in objects(tally):
            if form_of(record) != form:
                tally.add("chat", number)
                continue
            example = seen.judge(read_example(record, form), asks_label=asks_label)
            if example.problem is not None:
                tally.add(example.problem, number)
                continue
            if example.several and asks_label:
                tally.add("answers", number)
            message = example.message.removeprefix(before).removesuffix(after)
            cells = {**_own_fields(record, form), MESSAGE: message, **example.answer}
            yield number, [to_text(cells.get(column)) for column in columns]

    instruction = "\n".join(filter(None, [seen.instruction, before.strip(), after.strip()]))
    found = Found("jsonl", encoding, form=_WORDS[form])
    return Table(name, seen.columns(form), found, notes, read, instruction=instruction)


_ABOUT_LABELS = frozenset({"weight", "prose", "labels"})
"""Problems of a line whose message can be read all the same."""


class _Seen:
    """What the lines of a file have in common, found in one pass before the first row is read."""

    def __init__(self) -> None:
        self._answer_columns: dict[str, None] = {}
        self._fields: dict[str, None] = {}
        self._instructions: Counter[str] = Counter()
        self._once: set[int] = set()
        self._again: set[int] = set()
        self._different: set[int] = set()
        self._before: str | None = None
        self._after = ""

    def add(self, example: Example, fields: Mapping[str, Any]) -> None:
        self._fields.update(dict.fromkeys(fields))
        if example.instruction in self._instructions or len(self._instructions) < _INSTRUCTIONS:
            self._instructions[example.instruction] += 1
        for column, text in example.answer.items():
            self._answer_columns[column] = None
            (self._again if hash(text) in self._once else self._once).add(hash(text))
        if (message := example.message) and example.problem in {None, *_ABOUT_LABELS}:
            if len(self._different) < _FOR_TEMPLATE:
                self._different.add(hash(message))
            if self._before is None:
                self._before = self._after = message
            self._before = self._before[: _in_common(self._before, message)]
            same = _in_common(self._after[::-1], message[::-1])
            self._after = self._after[len(self._after) - same :]

    def columns(self, form: str) -> tuple[str, ...]:
        first = (ID, LABEL) if form == "batch" else (MESSAGE, *sorted(self._answer_columns))
        return tuple(dict.fromkeys((*first, *self._fields)))

    @property
    def instruction(self) -> str:
        """The most frequent one."""
        (most, _), *_ = self._instructions.most_common(1) or [("", 0)]
        return most

    @property
    def before(self) -> str:
        """What begins every message."""
        if len(self._different) < _FOR_TEMPLATE:
            return ""
        found = _BEFORE.match(self._before or "")
        return found[0] if found else ""

    @property
    def after(self) -> str:
        """What ends every message."""
        if len(self._different) < _FOR_TEMPLATE:
            return ""
        found = _AFTER.search(self._after)
        return found[0] if found else ""

    def judge(self, example: Example, *, asks_label: bool) -> Example:
        """Return an example with the problem that it has if only its message is needed, or its
        label too."""
        if not asks_label and example.problem in _ABOUT_LABELS:
            return replace(example, problem=None)
        if asks_label and example.problem is None and self._is_prose(example):
            return replace(example, problem="prose")
        return example

    def _is_prose(self, example: Example) -> bool:
        """Return whether an answer is a text: too long for a label, or a sentence that no other
        line has. One in a batch stays: it counts as wrong."""
        if not example.message or set(example.answer) != {LABEL}:
            return False
        text = example.answer[LABEL]
        if len(text) > _LABEL_CHARS or not text.isprintable():
            return True
        return len(text.split()) >= _PROSE_WORDS and hash(text) not in self._again


def _in_common(one: str, other: str) -> int:
    """Return how many first characters are the same."""
    # By halves: character by character takes most of the time of reading a file.
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def read_example(record: Mapping[str, Any], form: str) -> Example:
    """Return a line of a form as an example."""
    if form == "batch":
        return _batch(record)
    turns = turns_of(record, form)
    if turns is None:
        return Example(problem="chat")
    instruction = "\n".join(turn.text for turn in turns if turn.role == "system")
    places = [at for at, turn in enumerate(turns) if turn.role == "assistant"]
    trained = [at for at in places if turns[at].trained]
    end = (trained or places or [len(turns)])[-1]
    start = max((at for at in places if at < end), default=-1) + 1
    asked = [turn.text for turn in turns[start:end] if turn.role == "user"]
    message = _only_text("\n\n".join(asked))
    answer = _answer(turns[end].text) if places else {}
    problem = next((turn.problem for turn in turns if turn.problem), None)
    if problem is None and not message.strip():
        problem = "unasked"
    elif problem is None and places and not trained:
        problem = "weight"
    elif problem is None and answer is None:
        problem = "labels"
    if answer is None or problem is not None:
        answer = dict.fromkeys([LABEL] if places else [], "")
    return Example(message, answer, instruction, problem, several=len(places) > 1)


def _batch(record: Mapping[str, Any]) -> Example:
    """Read a line of the output of OpenAI's batches, of chat completions or responses."""
    response = record.get("response")
    body = response.get("body") if isinstance(response, dict) else None
    choices = body.get("choices") if isinstance(body, dict) else None
    output = body.get("output") if isinstance(body, dict) else None
    text: str | None = None
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        message = choices[0].get("message")
        text = _content(message.get("content"))[0] if isinstance(message, dict) else None
    elif isinstance(output, list):
        text = "".join(
            _content(each.get("content"))[0]
            for each in output
            if isinstance(each, dict) and each.get("type") == "message"
        )
    if text is None or record.get("error") or (response or {}).get("status_code", 200) != 200:
        return Example(problem="failed")
    # An answer that is not a label stays: it counts as wrong.
    answer = _answer(text)
    return Example(answer={LABEL: (answer or {}).get(LABEL, text.strip())})


def _tokens(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the server of a batch counted, chat completions or responses."""
    usage = flatten(record).get
    return {
        "prompt_tokens": usage(f"{_USAGE}prompt_tokens", usage(f"{_USAGE}input_tokens")),
        "answer_tokens": usage(f"{_USAGE}completion_tokens", usage(f"{_USAGE}output_tokens")),
    }


def turns_of(record: Mapping[str, Any], form: str) -> list[Turn] | None:
    """Return the turns of a chat, the instruction first; None if one cannot be read."""
    if form == "prompt" and isinstance(record["prompt"], str):
        texts = [("system", record.get("system")), ("user", record["prompt"]),
                 ("assistant", record["completion"])]  # fmt: skip
        return [Turn(role, text) for role, text in texts if isinstance(text, str)]
    turns = []
    for place in ("system", "systemInstruction", "system_instruction"):
        if (given := record.get(place)) is not None:
            parts = given.get("parts") if isinstance(given, dict) else given
            turns.append(Turn("system", _content(parts)[0]))
    who, said = _KEYS.get(form, ("role", "content"))
    for each in record[form] + (record["completion"] if form == "prompt" else []):
        role = _ROLES.get(str(each.get(who, "user"))) if isinstance(each, dict) else None
        if role is None:
            return None
        text, problem = _content(each.get(said))
        if role == "tool" or each.get("tool_calls") or each.get("function_call"):
            problem = "tools"
        turns.append(Turn(role, text, str(each.get("weight")) not in {"0", "0.0"}, problem))
    return turns


def _content(content: Any) -> tuple[str, str | None]:
    """Return the text of a turn, and the kind of problem that its other parts are."""
    if isinstance(content, str) or content is None:
        return content or "", None
    texts = []
    problem = None
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            texts.append(part)
            continue
        given = part if isinstance(part, dict) else {}
        holds = {key for key, value in given.items() if value} | {str(given.get("type", "text"))}
        if holds & _TOOLS:
            problem = "tools"
        elif not holds & _THOUGHTS:
            text = given.get("text") if holds & _TEXTS else None
            texts += [text] if isinstance(text, str) else []
            problem = problem if isinstance(text, str) else problem or "media"
    return "\n".join(filter(None, texts)), problem


def _answer(text: str) -> dict[str, str] | None:
    """Return an answer's columns, none for an empty one; None if it has several labels."""
    text = text.strip()
    value = _json(text)
    if value is None:
        return {LABEL: text} if text else {}
    fields = flatten(value) if isinstance(value, dict) else {LABEL: value}
    if len(fields) == 1:
        only = next(iter(fields.values()))
        if isinstance(only, list) and len(only) < 2:
            only = only[0] if only else None
        return None if isinstance(only, list | dict) else {LABEL: to_text(only).strip()}
    cells = {key: each for key, each in fields.items() if not isinstance(each, list | dict)}
    return {f"{_ANSWER}{key}": to_text(each).strip() for key, each in cells.items()}


def _only_text(text: str) -> str:
    """Return the only field of a message in JSON, or the message."""
    value = _json(text.strip())
    fields = list(flatten(value).values()) if isinstance(value, dict) else []
    return fields[0] if len(fields) == 1 and isinstance(fields[0], str) else text


def _json(text: str) -> Any:
    """Return an object, a list or a quoted text, None for anything else."""
    if text[:1] not in {"{", "[", '"'}:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _own_fields(record: Mapping[str, Any], form: str) -> Mapping[str, Any]:
    """Return the fields of a line that are not the form's, such as an id; without lists, which are
    no cells."""
    if form == "batch":
        fields = {ID: record["custom_id"], **_tokens(record)}
    else:
        fields = {key: value for key, value in record.items() if key not in _FIELDS[form]}
    return {key: value for key, value in flatten(fields).items()
            if not isinstance(value, list | dict)}  # fmt: skip
