"""Every kind of model on the same messages and the same hold-out, in one table.

    python -m tests.bench.kinds --work DIR [--kinds encoder,embedding-linear,lora-code]
        [--tickets tickets.csv --out-of-scope messages.jsonl] [--set lora-code:per_label=60]
        [--few 300]

Prepares the data (the shop's messages that come with the demo, or with ``--tickets`` the bank's),
trains each kind by its shipped recipe, measures it on the sealed hold-out, then serves it: start,
throughput through Kafka, latency of messages that come one at a time, memory. What is in ``--work``
already is not made again, so that a run that was stopped goes on. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.bench.encoder import start, throughput
from trainer.artifacts.evaluation import EVALUATION, EVALUATION_FOLDER, EvaluationRecord
from trainer.artifacts.training import TRAINING, TrainingRecord
from trainer.model.embeddings import find_embedding_model
from worker.contract import Manifest, read_manifest
from worker.demo.base_model import ensure_base_model
from worker.demo.broker import LocalBroker
from worker.logs import configure_logging

ROOT = Path(__file__).parents[2]
SHOP = ROOT / "worker" / "demo" / "data"
KINDS = ("encoder", "embedding-linear", "lora-code")
RECIPES = {
    "encoder": ROOT / "config" / "trainer-encoder.toml",
    "lora-code": ROOT / "config" / "trainer-cpu.toml",
}
COLUMNS = (
    "kind",
    "accuracy (95 % interval)",
    "ECE",
    "for review at 95 % precision",
    "out-of-scope AUROC",
    "training",
    "on disk",
    "ready after",
    "messages/s through Kafka",
    "p50, p99 at low load",
    "memory",
)


@dataclass(frozen=True, slots=True)
class Trained:
    """A kind's adapter and what is known of it before it is served."""

    name: str
    manifest: Manifest
    adapter: Path
    training: TrainingRecord
    evaluation: EvaluationRecord


@dataclass(frozen=True, slots=True)
class Served:
    """What serving it took: seconds, messages/s, milliseconds, MiB."""

    ready_s: float
    messages_per_s: float
    p50_ms: float
    p99_ms: float
    resident_mib: float


def main() -> int:
    """Make what is missing, measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--tickets", type=Path, help="a CSV file like the bank's")
    parser.add_argument("--out-of-scope", type=Path, default=SHOP / "out_of_scope.jsonl")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--few", type=int, default=300, help="messages a round of a language model (300)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KIND:KEY=VALUE", help="of a recipe"
    )
    given = parser.parse_args()
    configure_logging("console", "warning")
    given.work.mkdir(parents=True, exist_ok=True)
    data = prepare(given.work, given.tickets)
    rows = []
    for kind in given.kinds.split(","):
        chosen = [
            each.removeprefix(f"{kind}:") for each in given.set if each.startswith(f"{kind}:")
        ]
        trained = train(given.work, data, kind, given.out_of_scope, chosen)
        ways = ("runtime", "merged") if trained.manifest.needs_base else ("",)
        rows += [row(trained, way, serve(trained, way, given.rounds, given.few)) for way in ways]
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    for cells in (COLUMNS, ("---",) * len(COLUMNS), *rows):
        print(f"| {' | '.join(cells)} |")
    return 0


def clerk_trainer(*arguments: object) -> None:
    """Run a command of the trainer; ends the bench where it fails."""
    command = [sys.executable, "-m", "trainer", *map(str, arguments)]
    print("$", " ".join(command[2:]), flush=True)
    subprocess.run(command, check=True)


def prepare(work: Path, tickets: Path | None) -> Path:
    """Return the dataset's folder: the bank's with its finer labels, or the shop's."""
    data = work / "data"
    if (data / "dataset.json").exists():
        return data
    if tickets is not None:
        clerk_trainer(
            *("prepare", "--input", tickets, "--out", data, "--id-column", "ticket_id"),
            *("--label-column", "category", "--sublabel-column", "subcategory"),
            *("--taxonomy", ROOT / "config" / "bank_taxonomy.toml", "--per-label", 364),
        )
        return data
    holdout = work / "holdout.jsonl"
    parts = (SHOP / name for name in ("holdout.jsonl", "holdout_more.jsonl"))
    holdout.write_text("".join(part.read_text(encoding="utf-8") for part in parts), "utf-8")
    clerk_trainer(
        *("prepare", "--input", SHOP / "train.jsonl", "--holdout", holdout, "--out", data),
        *("--taxonomy", ROOT / "config" / "taxonomy.toml", "--validation-share", 0.15),
    )
    return data


def train(work: Path, data: Path, kind: str, out_of_scope: Path, settings: list[str]) -> Trained:
    """Train a kind of model, and measure it on the hold-out."""
    run = work / kind
    base = find_embedding_model() if kind in {"encoder", "embedding-linear"} else None
    base = base or ensure_base_model()
    if TRAINING.read_if_present(run) is None:
        clerk_trainer(
            *("train", "--recipe", recipe(work, kind), "--dataset", data, "--base", base),
            *("--out", run, "--resume"),
            *(word for each in settings for word in ("--set", each)),
        )
    out = run / EVALUATION_FOLDER
    if EVALUATION.read_if_present(out) is None:
        clerk_trainer(
            *("evaluate", run / "adapter", "--dataset", data, "--base", base),
            *("--out-of-scope", out_of_scope),
        )
    adapter = run / "adapter"
    return Trained(kind, read_manifest(adapter), adapter, TRAINING.read(run), EVALUATION.read(out))


def recipe(work: Path, kind: str) -> Path:
    """Return the shipped recipe of a kind; that of frozen embeddings has no settings to speak of,
    and is written here."""
    if kind in RECIPES:
        return RECIPES[kind]
    path = work / f"{kind}.toml"
    path.write_text(
        f'kind = "{kind}"\nname = "{kind}"\nbase_name = "all-MiniLM-L6-v2"\n'
        'base_revision = "1"\nmax_message_tokens = 192\nsublabel_weight = 1.0\n',
        encoding="utf-8",
    )
    return path


def serve(trained: Trained, serving: str, rounds: int, few: int) -> Served:
    """Serve an adapter: first as a process, with a message at a time, then under load."""
    model = [f"model.adapter='{trained.adapter}'"]
    if serving:
        model += [f"model.base='{ensure_base_model()}'", f"model.serving='{serving}'"]
    name = f"{trained.name} {serving}".strip()
    with LocalBroker() as broker, ExitStack() as stack:
        servers = broker.bootstrap_servers
        started = start(servers, model)
        messages = {"messages": few} if serving else {}
        rate = throughput(servers, stack, name, model, rounds, **messages)
    return Served(
        started.ready_s,
        rate,
        statistics.median(started.latencies_ms),
        statistics.quantiles(started.latencies_ms, n=100)[98],
        started.resident_mib,
    )


def row(trained: Trained, serving: str, served: Served) -> tuple[str, ...]:
    """Return a line of the table."""
    found, training = trained.evaluation, trained.training
    low, high = found.accuracy_interval_95
    outside = found.out_of_scope
    auroc = "-"
    if outside is not None:
        scores = (outside.auroc_out_of_scope, outside.auroc_off_label_mass)
        auroc = f"{next(score for score in scores if score is not None):.3f}"
    size = sum(path.stat().st_size for path in trained.adapter.iterdir())
    return (
        f"{trained.name} {serving}".strip(),
        f"{found.accuracy:.1%} ({low:.1%} to {high:.1%})",
        f"{found.calibration.ece:.3f}",
        f"{1 - found.review.coverage_at_wanted:.1%}",
        auroc,
        f"{training.training_seconds:.0f} s",
        f"{size / 1e6:.1f} MB" + (" and its base" if trained.manifest.needs_base else ""),
        f"{served.ready_s:.1f} s",
        f"{served.messages_per_s:.0f}",
        f"{served.p50_ms:.1f}, {served.p99_ms:.1f} ms",
        f"{served.resident_mib:.0f} MiB",
    )


if __name__ == "__main__":
    sys.exit(main())
