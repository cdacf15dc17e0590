"""The whole way from messages without labels to a judged model, through the real commands.

    python -m tests.bench.day_zero [--table FILE.csv --taxonomy FILE.toml] [--out DIR]
    python -m tests.bench.day_zero --teacher URL --model NAME [...]

Takes the labels away from the sample shop's messages, or from those of a table (columns message and
category). Then a teacher labels them within a budget, people decide on a random sample, ``start``
trains and judges a model, the teacher is a contender in the duel, and ``cost`` counts money. The
teacher is simulated: an endpoint on this machine that is right nine times in ten, with faults of
every kind; or a real one (``--teacher``), of which prices are 0. People are always right.

With 1,500 messages ``start`` trains a head on a frozen encoder; from 2,000 labels on (``--messages
2400``) it fine-tunes the encoder. Messages that no command has seen give the true accuracy. Those
that are near to one that the model learned are left out, as prepare does with the hold-out.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.known_messages import Known, as_sent, decide, read_known
from tests.support.simulated_teacher import (
    ALL_FAULTS,
    SimulatedTeacher,
    answer_like_a_model,
    find_hard,
)
from trainer.artifacts.duel import COST, DUEL, DUEL_FOLDER, CandidateFigures, CostRecord
from trainer.artifacts.evaluation import EVALUATION, EVALUATION_FOLDER, EvaluationRecord
from trainer.dataset.folder import Example, open_dataset
from trainer.dataset.near_duplicates import near_pairs, shingles
from trainer.similarity import SIMILARITY
from trainer.teacher.prices import DOLLAR
from worker.common.review_files import save_answers
from worker.contract import Taxonomy
from worker.contract.exchange import read_tasks

ROOT = Path(__file__).parents[2]
PRICE_INPUT, PRICE_OUTPUT = "0.15", "0.60"
_DECISIONS_AN_HOUR = 200


@dataclass
class Way:
    """The folder of the files, whom to ask, and what was found on the way."""

    out: Path
    taxonomy: Path
    teacher: Sequence[str | Path]
    log: Path
    took: dict[str, tuple[float, float]] = field(default_factory=dict)

    def run(
        self, program: str, *words: object, name: str = "", takes: set[int] | None = None
    ) -> str:
        """Run a command as a process, with its output in the log; return its standard output."""
        command = [sys.executable, "-m", program, *map(str, words)]
        began, before = time.monotonic(), _cpu_s()
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"\n$ {' '.join(command[2:])}\n")
            log.flush()
            done = subprocess.run(
                command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=log, check=False
            )
            log.write(done.stdout)
        took = (time.monotonic() - began, _cpu_s() - before)
        self.took[name or str(words[0])] = took
        print(f"{name or words[0]}: {took[0]:.0f} s, {took[1]:.0f} s of CPU", file=sys.stderr)
        if done.returncode not in (takes or {0}):
            raise SystemExit(f"{words[0]} ended with {done.returncode}: see {self.log}")
        return done.stdout

    def ask(self, *words: object, **more: Any) -> dict[str, Any]:
        """Run a command of the trainer; return the result of --json."""
        found: dict[str, Any] = json.loads(self.run("trainer", *words, "--json", **more))
        return found


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def write_messages(path: Path, rows: Sequence[Known]) -> dict[str, str]:
    """Write messages without labels; return the labels by id."""
    lines = [{"id": f"m{at}", "message": message} for at, (message, _) in enumerate(rows)]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return {f"m{at}": label for at, (_, label) in enumerate(rows)}


def walk(way: Way, messages: Path, truth: Mapping[str, str], people: int) -> dict[str, Any]:
    """Label, draw, decide, train, compare, count; return the results of ``label``."""
    out, labelled = way.out, way.out / "labelled.jsonl"
    label = ("label", messages, "--taxonomy", way.taxonomy, *way.teacher, "--out", labelled)
    label = (*label, "--yes", "--budget", "1.00")
    bought = way.ask(*label)
    sample = out / "sample.jsonl"
    way.ask("tasks", messages, "--for", "audit", "--size", people, "--out", sample)
    decided = [decide(task, truth) for task in read_tasks(sample)]
    save_answers(out / "decisions.csv", decided)
    again = way.ask(*label, "--decisions", out / "decisions.csv", name="label --decisions")
    assert again["requests"] == bought["requests"]  # nothing is asked twice

    first = out / "first"
    first.mkdir(exist_ok=True)
    shutil.copy(way.taxonomy, first / "taxonomy.toml")
    way.run("trainer", "start", labelled, "--out", first)
    run = first / "run"
    way.ask(
        *("duel", run / "adapter", "--dataset", first / "data"),
        *("--evaluation", run / EVALUATION_FOLDER, "--yes", "--budget", "1.00"),
        *("--contender" if word == "--teacher" else word for word in way.teacher),
    )
    way.ask(
        *("cost", run, "--inputs", ROOT / "config/cost.toml"),
        *("--prices", ROOT / "config/prices.toml"),
        *("--set", f"labelling_hours={people / _DECISIONS_AN_HOUR}"),
    )
    return again


def true_accuracy(way: Way, rest: Sequence[Known]) -> tuple[float, int]:
    """Serve the model the messages that no command has seen; return the share that is right of
    those that are near to none that it learned, and how many these are."""
    first, path = way.out / "first", way.out / "rest.jsonl"
    dataset = open_dataset(first / "data")
    seen = [shingles(each.key) for each in (*dataset.train, *dataset.validation)]
    keys = [shingles(Example("", message, "").key) for message, _ in rest]
    near = {at for at, _, _ in near_pairs(keys, seen, SIMILARITY, most=1)}
    fresh = [row for at, row in enumerate(rest) if at not in near]
    write_messages(path, fresh)
    adapter = f"model.adapter={first / 'run' / 'adapter'}"
    found = way.run("worker", "classify", "-s", adapter, "-i", path, "--field", "message")
    answers = [json.loads(line)["label"] for line in found.splitlines()]
    right = [answer == label for answer, (_, label) in zip(answers, fresh, strict=True)]
    return sum(right) / len(right), len(right)


# --- the table


def _of(value: float, interval: Sequence[float]) -> str:
    low, high = interval
    return f"{value:.1%} ({low:.1%} to {high:.1%})"


def rows_of_labels(
    bought: Mapping[str, Any], labelled: Path, truth: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """What the teacher gave, and how right it is."""
    rows = [json.loads(line) for line in labelled.read_text(encoding="utf-8").splitlines()]
    taught = {row["id"]: row.get("teacher_label", row["label"]) for row in rows}
    right = [taught[id_] == truth[id_] for id_ in taught if taught[id_]]
    yield "messages without labels", f"{len(truth):,}"
    yield "labels bought", f"{len(right):,}, {sum(right) / len(right):.1%} of them right"
    yield (
        "requests",
        (
            f"{bought['requests']:,}, {bought['without_answer']:,} without an answer, "
            f"{bought['invented']:,} invented; constrained {bought['constrained']}"
        ),
    )
    yield "spent", f"{bought['spent']} of {bought['budget']}"


def rows_of_student(found: EvaluationRecord, truth: float, rest: int) -> Iterator[tuple[str, str]]:
    """The model against people, alone and with the teacher's help, and the truth."""
    yield (
        f"accuracy, {found.examples} messages by people",
        _of(found.accuracy, found.accuracy_interval_95),
    )
    intervals = {"alone": found.accuracy_interval_95}
    if (taught := found.taught) is not None:
        intervals["with the teacher"] = taught.accuracy_interval_95
        narrower = _width(taught.accuracy_interval_95) / _width(found.accuracy_interval_95)
        yield (
            f"accuracy, with {taught.pool:,} of the teacher's labels",
            (f"{_of(taught.accuracy, taught.accuracy_interval_95)}, {narrower:.2f} as wide"),
        )
        yield (
            "the teacher, where it gave a label",
            _of(taught.teacher_accuracy, taught.teacher_accuracy_interval_95),
        )
        phi = "—" if taught.error_correlation is None else f"{taught.error_correlation:.2f}"
        yield "mistakes in common", f"{taught.both_wrong}; correlation {phi}"
        yield "within reach", f"{taught.reachable_95[0]:.1%} to {taught.reachable_95[1]:.1%}"
    inside = ", ".join(
        f"{name}: {'inside' if low <= truth <= high else 'OUTSIDE'}"
        for name, (low, high) in intervals.items()
    )
    yield f"true accuracy, {rest:,} other messages", f"{truth:.1%} ({inside})"
    yield "to review", f"{found.review.share:.1%}"


def _width(interval: Sequence[float]) -> float:
    return interval[1] - interval[0]


def rows_of_duel(run: Path, model: str, found: EvaluationRecord) -> Iterator[tuple[str, str]]:
    """The teacher as a contender on the same messages."""
    duel = DUEL.read(run / DUEL_FOLDER)
    figures: dict[str, CandidateFigures] = {each.name: each for each in duel.candidates}
    prompted = figures[model]
    assert prompted.elsewhere is not None
    took = prompted.elsewhere
    yield "the prompted model, one answer", _of(prompted.accuracy, prompted.accuracy_interval_95)
    yield "invented labels; no label", f"{prompted.outside_labels}; {took.no_label}"
    if took.seconds_p50 is not None and took.seconds_p99 is not None:
        yield "its p50, p99", f"{1000 * took.seconds_p50:.0f}, {1000 * took.seconds_p99:.0f} ms"
    for engine in found.engines:
        if engine.latency_ms is not None:
            p50, p99 = engine.latency_ms.p50, engine.latency_ms.p99
            yield f"the model's p50, p99 ({engine.name})", f"{p50:.0f}, {p99:.0f} ms"
    (verdict,) = duel.replacements
    yield "verdict", f"{verdict.conclusion}: {verdict.reason}"


def rows_of_money(found: CostRecord) -> Iterator[tuple[str, str]]:
    """What serving and labelling cost."""
    low, high = found.hosted_per_thousand_range
    yield (
        "1,000 messages: own, hosted",
        f"${found.per_thousand_messages:.5f}, ${low:.3f} to ${high:.3f}",
    )
    one_off = f"${found.one_off:.2f} once"
    ends = [f"{end:,.0f}" if end is not None else "never" for end in found.pays_from_range]
    yield (
        "costs no more than the hosted model from",
        f"{' to '.join(ends)} messages a month; {one_off}",
    )
    days = [
        "never" if end is None else f"after {end:,.0f} days" for end in found.break_even_days_range
    ]
    volume = found.planned.messages_per_month
    yield f"break-even at {volume:,.0f} messages a month", " to ".join(days)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--table", type=Path, help="messages of your own (CSV)")
    parser.add_argument("--taxonomy", type=Path, default=ROOT / "config/taxonomy.toml")
    parser.add_argument("--teacher", help="a real endpoint [default: a simulated one]")
    parser.add_argument("--model", default="simulated")
    parser.add_argument("--messages", type=int, default=1500)
    parser.add_argument("--people", type=int, default=300)
    parser.add_argument("--rest", type=int, default=4000, help="most messages for the truth")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("day-zero"))
    return parser.parse_args()


def main() -> None:
    given = _arguments()
    given.out.mkdir(parents=True)
    out = given.out.resolve()
    taxonomy = Taxonomy.from_toml(given.taxonomy)
    known = sorted(as_sent(read_known(given.table)).items())
    random.Random(given.seed).shuffle(known)
    asked, rest = known[: given.messages], known[given.messages :][: given.rest]
    truth = write_messages(out / "messages.jsonl", [row for _, row in asked])
    prices = ("0", "0") if given.teacher else (PRICE_INPUT, PRICE_OUTPUT)
    with ExitStack() as stack:
        url, simulated = given.teacher, None
        if url is None:
            sent = {text: label for text, (_, label) in asked}
            answer = answer_like_a_model(sent, taxonomy.names, find_hard(sent, taxonomy.names))
            simulated = SimulatedTeacher(
                answer, 150_000, 600_000, faults=ALL_FAULTS, latency_s=0.05, seed=given.seed
            )
            url = stack.enter_context(simulated.running()).url
            os.environ["OPENAI_API_KEY"] = "simulated"
        terms = ("--price-input", prices[0], "--price-output", prices[1])
        teacher = ("--teacher", url, "--model", given.model, *terms)
        way = Way(out, given.taxonomy.resolve(), teacher, out / "day-zero.log")
        bought = walk(way, out / "messages.jsonl", truth, given.people)
    share, messages = true_accuracy(way, [row for _, row in rest])
    run = out / "first" / "run"
    evaluation = EVALUATION.read(run / EVALUATION_FOLDER)
    table = [
        *rows_of_labels(bought, out / "labelled.jsonl", truth),
        *rows_of_student(evaluation, share, messages),
        *rows_of_duel(run, given.model, evaluation),
        *rows_of_money(COST.read(run)),
        ("took", "; ".join(f"{name} {s:.0f} s ({cpu:.0f})" for name, (s, cpu) in way.took.items())),
    ]
    if simulated is not None:
        table.insert(
            4, ("by the server's own account", f"${simulated.billed / DOLLAR:.4f}, with the duel")
        )
    print("| | |\n|---|---|")
    for name, words in table:
        print(f"| {name} | {words} |")


if __name__ == "__main__":
    main()
