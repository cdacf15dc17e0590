"""``clerk-trainer label``: from unlabelled messages to labelled rows, and tasks for reviewers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trainer.artifacts.files import PRIVATE
from trainer.dataset.folder import Row, complete_ids, unique_ids
from trainer.dataset.guess import ambiguity, guess_columns
from trainer.dataset.readers import DRAWN, SOURCE, TAUGHT
from trainer.errors import BadInput
from trainer.numbers import counted, duration
from trainer.teacher.client import Teacher, check_url
from trainer.teacher.ledger import Answered, Decision, Ledger, Spent, so_far
from trainer.teacher.prices import Price, dollars, find_price, parse_budget
from trainer.teacher.prompt import (
    LABELLED,
    MESSAGE_CHARS,
    TRIES,
    Prompt,
    Question,
    make_prompt,
    make_question,
    most_answer_tokens,
    prompt_digest,
)
from trainer.teacher.run import Job, Ran, run
from worker.common.review_files import read_answers
from worker.common.tables import Table, TableError, read_table
from worker.contract import Taxonomy
from worker.contract.digest import write_atomically
from worker.contract.exchange import Answer, Task, task_id, write_tasks
from worker.contract.redact import REDACTION
from worker.contract.text import message_sha256, normalize

BYTES_A_TOKEN = 4
"""Of English, for what is expected; bounds count one."""
ANSWER_TOKENS = 12
"""Of ``{"label": "..."}``."""
SECONDS_AN_ANSWER = 1.0
"""What a time is forecast by."""

NOT_UNANIMOUS = "teacher_votes_differ"
"""Code of a task whose label has a majority of the votes, but not all."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Whom to ask, and on which terms. ``key_env`` is the variable that the key is in, None if no
    key is needed; ``ledger`` is where requests are written down; amounts are dollars as text, as
    the user gives them."""

    url: str
    model: str
    key: str
    key_env: str | None
    ledger: Path
    budget: str | None = None
    concurrency: int = 8
    redacts: bool = True
    price_input: str | None = None
    price_output: str | None = None
    answer_tokens: int | None = None

    @property
    def host(self) -> str:
        """The endpoint's host and port."""
        return check_url(self.url)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is left to do. Amounts in picodollars; ``most`` is None if nothing bounds it."""

    open: int
    expected: int
    most: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Asking:
    """What is asked, of whom, and within which budget. ``about`` is what the ledger is about, which
    has ``decided`` these questions and ``spent`` so much. Amounts in picodollars."""

    endpoint: Endpoint
    job: Job
    about: Mapping[str, str]
    answer_tokens: int
    budget: int | None
    decided: Collection[str]
    spent: int

    def forecast(self, open_: int, expected: int) -> Forecast:
        """Return what is left: so many questions, which will probably cost ``expected`` in all.
        Assumes that the first votes agree, and a second for an answer."""
        most = None if self.budget is None else max(0, self.budget - self.spent)
        answers = open_ * (self.job.votes // 2 + 1)
        seconds = answers * SECONDS_AN_ANSWER / self.job.concurrency
        return Forecast(open_, expected, most, seconds)


def make_asking(
    endpoint: Endpoint,
    ask: Callable[[Question, int], Prompt],
    questions: Sequence[Question],
    *,
    longest: Prompt,
    answer_tokens: int,
    about: Mapping[str, str],
    votes: int = 1,
    tries: int = 1,
) -> Asking:
    """Find the price and what the ledger has. ``longest`` is the longest prompt, ``answer_tokens``
    the usual limit of an answer, ``about`` the question's own values: answers to another question
    do not belong in the ledger. Raises BadInput."""
    price = find_price(
        endpoint.model, endpoint.url, endpoint.price_input, endpoint.price_output,
        prompt_tokens=longest.most_tokens,
    )  # fmt: skip
    budget = find_budget(endpoint.budget, price)
    tokens = endpoint.answer_tokens or answer_tokens
    asked = {
        "teacher": endpoint.url,
        "model": endpoint.model,
        **about,
        "redaction": REDACTION if endpoint.redacts else "none",
        "answer-tokens": str(tokens),
    }
    job = Job(ask, questions, votes, endpoint.concurrency, price, tries)
    decided, spent = so_far(endpoint.ledger, asked, budget)
    return Asking(endpoint, job, asked, tokens, budget, decided, spent)


@dataclass(frozen=True, slots=True)
class Finished:
    """What a ledger holds after a run: decisions and what the last answers took by question, the
    sums over all runs, and the names by which models answered."""

    ran: Ran
    decisions: dict[str, Decision]
    took: dict[str, Answered]
    spent: Spent
    models: Sequence[str]


def ask(asking: Asking, on_decided: Callable[[int], object]) -> Finished:
    """Ask every question that the ledger has no answer to. Raises BadInput."""
    endpoint = asking.endpoint
    ledger = Ledger(endpoint.ledger, asking.about, asking.budget)
    try:
        teacher = Teacher(
            endpoint.url, endpoint.model, endpoint.key, answer_tokens=asking.answer_tokens
        )
        ran = run(asking.job, teacher, ledger, on_decided)
        return Finished(ran, ledger.decisions(), ledger.answered(), ledger.spent(), ledger.models())
    finally:
        ledger.close()


def ask_all(asking: Asking, on_decided: Callable[[int], object]) -> Finished:
    """As ``ask``, but incomplete answers are an error: raises KeyboardInterrupt, once the requests
    in flight have ended, if it is interrupted."""
    found = ask(asking, on_decided)
    if found.ran.interrupted:
        raise KeyboardInterrupt
    return found


@dataclass(frozen=True, slots=True)
class Wanted:
    """The options of the command."""

    messages: Path
    taxonomy: Path
    out: Path
    endpoint: Endpoint
    votes: int
    message_column: str | None
    id_column: str | None
    decisions: Sequence[Path]

    @property
    def tasks(self) -> Path:
        """The file of tasks for reviewers."""
        return self.out.with_name(f"{self.out.stem}.tasks.jsonl")


@dataclass(frozen=True, slots=True)
class Message:
    """A row of the input, and what of it is asked about; None for a blank message."""

    id: str
    text: str
    question: Question | None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is known before anything leaves."""

    wanted: Wanted
    taxonomy: Taxonomy
    messages: Sequence[Message]
    asking: Asking
    forecast: Forecast


def make_plan(wanted: Wanted) -> Plan:
    """Read the messages and count what asking about them takes. Raises BadInput."""
    if wanted.out.suffix.casefold() not in {".jsonl", ".ndjson"}:
        raise BadInput(f"{wanted.out}: the rows are JSON Lines: give a name that ends with .jsonl")
    taxonomy, endpoint = Taxonomy.from_toml(wanted.taxonomy), wanted.endpoint
    rows = read_unlabelled(wanted.messages, wanted.message_column, wanted.id_column)
    messages = [
        Message(row.id, row.message, make_question(row.message, redacts=endpoint.redacts))
        for row in rows
    ]
    questions = list(
        {each.question.id: each.question for each in messages if each.question}.values()
    )
    if not questions:
        raise BadInput(f"{wanted.messages}: has no message with a text")
    # By bytes, as its bound is: the longest prompt decides which tier of prices can be reached.
    longest = max(questions, key=lambda each: len(each.text.encode()))
    asking = make_asking(
        endpoint,
        partial(make_prompt, taxonomy),
        questions,
        longest=make_prompt(taxonomy, longest, 0),
        answer_tokens=most_answer_tokens(taxonomy),
        about={
            "taxonomy": taxonomy.digest,
            "prompt": prompt_digest(taxonomy, wanted.votes),
            "votes": str(wanted.votes),
        },
        votes=wanted.votes,
        tries=TRIES,
    )
    left = [each for each in questions if each.id not in asking.decided]
    expected = sum(
        expected_cost(make_prompt(taxonomy, question, vote), asking.job.price)
        for question in left
        for vote in range(wanted.votes // 2 + 1)
    )
    return Plan(wanted, taxonomy, messages, asking, asking.forecast(len(left), expected))


def find_budget(given: str | None, price: Price) -> int | None:
    """Return the budget in picodollars; None if nothing costs anything. Raises BadInput."""
    if given is not None:
        return parse_budget(given)
    if price.input or price.output:
        raise BadInput("--budget is needed: the most to spend, in dollars, such as --budget 5.00")
    return None


def read_unlabelled(path: Path, message_column: str | None, id_column: str | None) -> list[Row]:
    """Read messages from any table, with ids that are made unique; labels that are there are
    ignored.

    Raises BadInput with a line for each problem, which quotes no message.
    """
    try:
        table = read_table(path, path.name)
        columns = unlabelled_columns(table, message_column, id_column)
        rows = [
            Row(cells[1].strip() if len(cells) > 1 else "", cells[0], "", None, table.where(number))
            for number, cells in table.rows(columns)
        ]
    except TableError as error:
        raise BadInput(str(error)) from error
    wrong = [f"{table.name}: {each.sentence(table.unit)}" for each in table.problems if each.broken]
    if wrong:
        raise BadInput(*wrong)
    return complete_ids(unique_ids(rows)[0])


def unlabelled_columns(
    table: Table, message: str | None = None, id_: str | None = None
) -> list[str]:
    """Return the columns of the message and, if there is one, of the id. Raises BadInput."""
    there = ", ".join(table.columns)
    for option, name in (("message", message), ("id", id_)):
        if name is not None and name not in table.columns:
            raise BadInput(
                f"{table.name}: no column {name!r}. There are: {there}. Name one by "
                f"--{option}-column"
            )
    guess = guess_columns(table, [name for name in (message, id_) if name is not None])
    if message is None:
        if guess.message is None:
            several = guess.candidates.get("message")
            problem = (
                ambiguity("message", several)
                if several
                else f"no column looks like the message. There are: {there}. Rename one to "
                "'message', or name it by --message-column"
            )
            raise BadInput(f"{table.name}: {problem}")
        message = guess.message.column
    if id_ is None and guess.id is not None:
        id_ = guess.id.column
    return [message] if id_ is None else [message, id_]


# --- before: what leaves, what it costs, how long it takes ---


def expected_cost(prompt: Prompt, price: Price, answer_tokens: int = ANSWER_TOKENS) -> int:
    """Return what a request with this prompt will probably cost, in picodollars."""
    return price.cost(prompt.bytes // BYTES_A_TOKEN, answer_tokens)


def describe_masking(redacts: bool) -> str:
    """Return what of a message is masked before it leaves, as a sentence."""
    if redacts:
        return "Mail addresses, phone numbers, cards, and IBANs are masked first; names are not."
    return "NOTHING IS MASKED: personal data in the messages leaves as it is (--no-redact)."


def describe_terms(asking: Asking, ahead: Forecast) -> list[str]:
    """Return to whom messages go, at which price, for how much and how long, a sentence a line."""
    endpoint, job = asking.endpoint, asking.job
    safe = "" if urlsplit(endpoint.url).scheme == "https" else ", without encryption (http)"
    key = f"with the key in {endpoint.key_env}" if endpoint.key_env else "without a key"
    lines = [
        f"To: {endpoint.host}, model {endpoint.model}{safe}, {key}.",
        f"Price: {job.price.words}.",
    ]
    if asking.budget is None or not (job.price.input or job.price.output):
        lines.append("Cost: nothing, by the prices given.")
    else:
        lines.append(
            f"Cost: at most {dollars(asking.budget)} in all, of which {dollars(asking.spent)} are "
            f"spent; what is left will take about {dollars(ahead.expected)}."
        )
    lines.append(
        f"Time: about {duration(ahead.seconds)} with {job.concurrency} requests at a time, if an "
        "answer takes a second."
    )
    return lines


def announce(plan: Plan) -> list[str]:
    """Return what leaves, to where, for how much and how long, a sentence a line."""
    wanted, job, ahead = plan.wanted, plan.asking.job, plan.forecast
    blank = sum(each.question is None for each in plan.messages)
    before = len(job.questions) - ahead.open
    many = [f"{counted(len(job.questions), 'different text')}"]
    many += [f"{counted(blank, 'blank one')} left out"] if blank else []
    many += [f"{before:,} decided before"] if before else []
    first = (
        f"{counted(len(plan.messages), 'message')} in {wanted.messages.name} ({'; '.join(many)})."
    )
    if not ahead.open:
        return [first, "Nothing leaves: all are decided."]
    what = (
        f"What leaves: the text of {counted(ahead.open, 'message')}, each up to "
        f"{MESSAGE_CHARS:,} characters, with the names and descriptions of "
        f"{counted(len(plan.taxonomy.labels), 'label')}. "
        f"{describe_masking(wanted.endpoint.redacts)}"
    )
    lines = [first, what, *describe_terms(plan.asking, ahead)]
    if ahead.most is not None and ahead.expected > ahead.most:
        lines.insert(
            -1,
            "The budget will probably end before the messages do. What is labelled by then is "
            "kept.",
        )
    return lines


# --- the work ---


@dataclass(frozen=True, slots=True)
class Labelled:
    """The outcome of a run, what was written, and how many texts are not decided."""

    found: Finished
    rows: int
    by_person: int
    tasks: int
    left: int


def label(plan: Plan, on_decided: Callable[[int], object]) -> Labelled:
    """Ask, then write the rows and the tasks, also if the run ended early. Raises BadInput."""
    out, ledger = plan.wanted.out, plan.wanted.endpoint.ledger
    decided_by_people = read_people(plan)
    if out.exists() and not ledger.exists():
        raise BadInput(f"{out}: exists, and {ledger.name} does not: give another --out")
    found = ask(plan.asking, on_decided)
    rows, by_person = write_rows(plan, found.decisions, decided_by_people)
    tasks = write_questions(plan, found.decisions, decided_by_people)
    left = sum(each.id not in found.decisions for each in plan.asking.job.questions)
    return Labelled(found, rows, by_person, tasks, left)


def read_people(plan: Plan) -> dict[str, Answer]:
    """Return a message's digest -> a person's decision, of the files that ``--decisions`` names.
    It holds for all copies of a text. Raises BadInput for one about another text or with another
    label."""
    found: dict[str, Answer] = {}
    drawn: set[str] = set()
    known = {message_sha256(each.text) for each in plan.messages} if plan.wanted.decisions else ()
    for path in plan.wanted.decisions:
        for answer in read_answers(path):
            if answer.role != "outcome":  # one of several opinions, which did not decide
                continue
            if answer.message_sha256 not in known:
                raise BadInput(
                    f"{path.name}: decides on {answer.id!r}, which {plan.wanted.messages.name} "
                    "does not have with that text: are these decisions about another file?"
                )
            if answer.new_label and answer.new_label not in plan.taxonomy.names:
                raise BadInput(f"{path.name}: the label of {answer.id!r} is not in the taxonomy")
            # A message of the random sample may be a doubtful one too: it stays one of the sample.
            if answer.purpose == "audit" or answer.message_sha256 not in drawn:
                found[answer.message_sha256] = answer
            if answer.purpose == "audit":
                drawn.add(answer.message_sha256)
    return found


def write_rows(
    plan: Plan, decisions: Mapping[str, Decision], people: Mapping[str, Answer]
) -> tuple[int, int]:
    """Write the labelled rows for ``prepare``. Returns how many, and how many of them a person
    decided on: these say whether the message was drawn at random, and the teacher's label."""
    lines: list[str] = []
    by_person = 0
    for each in plan.messages:
        decision = decisions.get(each.question.id) if each.question else None
        taught = decision.label if decision and decision.outcome == LABELLED else None
        person = people.get(message_sha256(each.text)) if people else None
        row: dict[str, Any] = {"id": each.id, "message": each.text}
        if person is not None:
            name = person.new_label or (taught if person.decision == "accept" else None)
            if name is None:
                continue  # dropped: no label fits
            by_person += 1
            row |= {"label": name, SOURCE: "person"}
            row |= {DRAWN: "random" if person.purpose == "audit" else "chosen"}
            row |= {TAUGHT: taught or ""} if decision else {}
        elif taught is not None:
            assert decision is not None
            row |= {"label": taught, SOURCE: "teacher"}
            row |= {"votes": decision.votes, "asked": decision.asked}
        else:
            continue
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    # Surrogates that a JSON file may hold cannot be encoded; normalize drops them anyway.
    write_atomically(plan.wanted.out, "".join(lines).encode("utf-8", "replace"), mode=PRIVATE)
    return len(lines), by_person


def write_questions(
    plan: Plan, decisions: Mapping[str, Decision], people: Mapping[str, Answer]
) -> int:
    """Write a task for each message that the teacher is unsure of and no person has decided on,
    those with the fewest votes first. Returns how many."""
    made: dict[str, tuple[float, Task]] = {}
    for each in plan.messages:
        decision = decisions.get(each.question.id) if each.question else None
        if decision is None or (people and message_sha256(each.text) in people):
            continue
        if decision.outcome == LABELLED and decision.votes == decision.asked:
            continue
        task = _task(plan, each, decision)
        made.setdefault(task.id, (decision.votes / max(1, decision.asked), task))
    ordered = [task for _, task in sorted(made.values(), key=lambda each: (each[0], each[1].id))]
    write_tasks(plan.wanted.tasks, ordered)
    return len(ordered)


def _task(plan: Plan, message: Message, decision: Decision) -> Task:
    sha256 = message_sha256(message.text)
    labelled = decision.outcome == LABELLED
    purpose = "check" if labelled else "learn"
    share = decision.votes / decision.asked if decision.asked else 0.0
    return Task(
        schema="tasks/1",
        id=task_id(None, purpose, sha256),  # type: ignore[arg-type]
        message_id=message.id,
        message_sha256=sha256,
        text=normalize(message.text),
        purpose=purpose,  # type: ignore[arg-type]
        dataset=None,
        batch=plan.wanted.out.stem,
        label=decision.label if labelled else None,
        label_source="teacher" if labelled else None,
        suggested=decision.label,
        # Shares of votes, which order the tasks; no probabilities were measured.
        confidence=round(1 - share if labelled else share, 4),
        reasons=(NOT_UNANIMOUS if labelled else decision.outcome,),
    )


def summary(plan: Plan, done: Labelled) -> dict[str, Any]:
    """Return the result of the command as JSON. Amounts are in dollars, as text."""
    asking, ran, spent = plan.asking, done.found.ran, done.found.spent
    decisions = done.found.decisions
    asked = {each.id for each in asking.job.questions}
    outcomes = Counter(each.outcome for id_, each in decisions.items() if id_ in asked)
    unanimous = sum(
        each.outcome == LABELLED and each.votes == each.asked
        for id_, each in decisions.items()
        if id_ in asked
    )
    return {
        "out": str(plan.wanted.out),
        "tasks": str(plan.wanted.tasks),
        "ledger": str(asking.endpoint.ledger),
        "rows": done.rows,
        "rows_by_people": done.by_person,
        "task_count": done.tasks,
        "not_asked": done.left,
        "why": ran.why,
        "texts": len(asked),
        "unanimous": unanimous,
        "outcomes": dict(sorted(outcomes.items())),
        "models": list(done.found.models),
        "constrained": ran.form.words,
        "requests": spent.requests,
        "without_answer": spent.unanswered,
        "invented": spent.invented,
        "overruns": spent.overruns,
        "prompt_tokens": spent.prompt_tokens,
        "answer_tokens": spent.answer_tokens,
        "price": asking.job.price.words,
        "budget": None if asking.budget is None else dollars(asking.budget),
        "spent": dollars(spent.total),
        "spent_known": dollars(spent.known),
        "seconds": round(ran.seconds, 1),
    }
