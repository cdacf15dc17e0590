"""A prompted model as a candidate: the sealed hold-out is asked about over HTTP, within a budget.

The client, the prompt, the prices, and the ledger are those of ``clerk-trainer label``. Each
message is asked about once, with the labels in the taxonomy's order, and its first answer counts,
as it would in service.

What it costs is said before the hold-out is opened, so the forecast is made from the messages of
training. The ledger lies next to the duel's folder, because the folder is written at the end, and a
duel that was killed must find what was paid for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from trainer.artifacts.files import PRIVATE
from trainer.dataset.folder import Dataset, Example, open_holdout
from trainer.duel.candidates import NO_ANSWER, RecordedAnswers
from trainer.errors import BadInput, NotGoodEnough
from trainer.numbers import counted
from trainer.teacher.client import is_local
from trainer.teacher.label import (
    SECONDS_AN_ANSWER,
    Endpoint,
    Forecast,
    ask_all,
    describe_masking,
    describe_terms,
    expected_cost,
    find_budget,
)
from trainer.teacher.ledger import Answered, Decision, so_far
from trainer.teacher.prices import DOLLAR, find_price
from trainer.teacher.prompt import (
    INVENTED,
    LABELLED,
    MESSAGE_CHARS,
    NO_LABEL_FITS,
    Question,
    make_prompt,
    make_question,
    most_answer_tokens,
    prompt_digest,
    sample_prompts,
)
from trainer.teacher.run import Job
from worker.contract.digest import write_atomically
from worker.contract.taxonomy import NO_LABEL, Taxonomy

INVENTED_ANSWER = "(invented)"
"""Stands for an answer that is not a label: its words may be a customer's. No label has
parentheses around it by accident."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What is known before the hold-out is opened. ``asked`` is what the ledger is about;
    ``messages`` are held out; ``budget`` and the forecast's amounts are picodollars."""

    contender: Endpoint
    asked: dict[str, str]
    taxonomy: Taxonomy
    job: Job
    messages: int
    answer_tokens: int
    budget: int | None
    forecast: Forecast


def make_terms(contender: Endpoint, dataset: Dataset) -> Terms:
    """Find the price and forecast the cost, without opening the hold-out. Raises BadInput."""
    taxonomy = dataset.taxonomy
    longest = make_prompt(taxonomy, Question("", "x" * MESSAGE_CHARS), 0)
    price = find_price(
        contender.model, contender.url, contender.price_input, contender.price_output,
        prompt_tokens=longest.most_tokens,
    )  # fmt: skip
    budget = find_budget(contender.budget, price)
    tokens = contender.answer_tokens or most_answer_tokens(taxonomy)
    ask = partial(make_prompt, taxonomy)
    job = Job(ask, (), votes=1, concurrency=contender.concurrency, price=price, tries=1)
    messages = dataset.record["files"]["holdout.jsonl"]["examples"]
    asked = contender.asked(
        tokens,
        taxonomy=taxonomy.digest,
        prompt=prompt_digest(taxonomy, 1),
        votes="1, the first answer",
    )
    decided, spent = so_far(contender.ledger, asked, budget)
    left = max(0, messages - len(decided))
    prompts = sample_prompts(taxonomy, dataset.train, redacts=contender.redacts)
    costs = [expected_cost(prompt, price) for prompt in prompts]
    expected = left * sum(costs) // len(costs) if costs else 0
    most = None if budget is None else max(0, budget - spent)
    seconds = left * SECONDS_AN_ANSWER / contender.concurrency
    forecast = Forecast(left, spent, expected, most, seconds)
    return Terms(contender, asked, taxonomy, job, messages, tokens, budget, forecast)


def announce(terms: Terms) -> list[str]:
    """Return what leaves, to where, for how much and how long, a sentence a line."""
    contender, ahead = terms.contender, terms.forecast
    before = terms.messages - ahead.open
    first = f"{counted(terms.messages, 'held-out message')}, each asked about once" + (
        f" ({before:,} were before)." if before else "."
    )
    if not ahead.open:
        return [first, "Nothing leaves: all have an answer."]
    what = (
        f"What leaves: the SEALED HOLD-OUT: the text of {counted(ahead.open, 'message')}, each up "
        f"to {MESSAGE_CHARS:,} characters, with the names and descriptions of "
        f"{counted(len(terms.taxonomy.labels), 'label')}. No label of a message leaves. "
        f"{describe_masking(contender.redacts)}"
    )
    lines = [
        first,
        what,
        *describe_terms(
            contender.url, contender.model, terms.job, contender.key_env, terms.budget, ahead
        ),
        "The cost is forecast from the messages of training, because the hold-out is still sealed.",
    ]
    if ahead.most is not None and ahead.expected > ahead.most:
        lines.append("The budget will probably end before the messages do: then nothing is judged.")
    if not is_local(contender.url):
        lines.append(
            f"{contender.host} then has these messages. Figures on this hold-out are worth nothing "
            "for a model that learns from them. The dataset records that they left."
        )
    return lines


def purpose_of(contender: Endpoint | None) -> str:
    """Return what an opening of the hold-out is recorded for."""
    return "duel" if contender is None else f"duel, sent to {contender.model} at {contender.host}"


def ask_contender(
    terms: Terms, holdout: Sequence[Example], on_decided: Callable[[int], object]
) -> RecordedAnswers:
    """Ask about every held-out message that the ledger has no answer to.

    Raises NotGoodEnough if some have none in the end (the ledger keeps the others), BadInput, and
    KeyboardInterrupt after the requests in flight.
    """
    contender = terms.contender
    questions = {
        example.id: make_question(example.message, redacts=contender.redacts) for example in holdout
    }
    unique = list({each.id: each for each in questions.values() if each}.values())
    job = replace(terms.job, questions=unique)
    found = ask_all(
        contender, job, terms.asked, budget=terms.budget, answer_tokens=terms.answer_tokens,
        on_decided=on_decided,
    )  # fmt: skip
    ran = found.ran
    left = sum(each.id not in found.decisions for each in unique)
    if left:
        raise NotGoodEnough(
            f"{contender.model} has no answer to {left:,} of {len(unique):,} held-out messages: "
            f"{ran.why}; nothing was judged. Run the same command again to go on, with a larger "
            "--budget if it is spent"
        )
    answers = {id_: _word(question, found.decisions) for id_, question in questions.items()}
    numbers = {
        id_: _numbers(found.took[question.id])
        for id_, question in questions.items()
        if question and question.id in found.took
    }
    return RecordedAnswers(contender.model, contender.ledger, answers, numbers, ran.form.words)


def _word(question: Question | None, decisions: dict[str, Decision]) -> str:
    """Return the label, or the word that stands for another answer."""
    if question is None:
        return NO_ANSWER
    decision = decisions[question.id]
    if decision.outcome == LABELLED:
        assert decision.label is not None
        return decision.label
    words = {NO_LABEL_FITS: NO_LABEL, INVENTED: INVENTED_ANSWER}
    return words.get(decision.outcome, NO_ANSWER)


def _numbers(took: Answered) -> dict[str, float]:
    values = {
        "seconds": took.seconds,
        "cost": None if took.cost is None else took.cost / DOLLAR,
        "prompt_tokens": took.prompt_tokens,
        "answer_tokens": took.answer_tokens,
    }
    return {name: value for name, value in values.items() if value is not None}


def write_questions(dataset: Dataset, path: Path, *, redacts: bool) -> int:
    """Open the hold-out and write its messages, to be answered elsewhere: JSON Lines with ``id``,
    ``message`` and an empty ``label``. Returns how many. Raises BadInput."""
    if path.suffix.casefold() not in {".jsonl", ".ndjson"}:
        raise BadInput(f"--questions {path}: JSON Lines: give a name that ends with .jsonl")
    if path.exists():
        raise BadInput(f"--questions {path}: exists: give another name")
    holdout = open_holdout(dataset, purpose="questions for another model", subject=path.name)
    lines = []
    for example in holdout:
        question = make_question(example.message, redacts=redacts)
        row = {"id": example.id, "message": question.text if question else "", "label": ""}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_atomically(path, "".join(lines).encode("utf-8", "replace"), mode=PRIVATE)
    return len(lines)
