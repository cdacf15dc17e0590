"""What a worker with an encoder costs: through Kafka next to its engine, alone, and when it starts.

    python -m tests.bench.encoder [--adapter DIR] [--rounds 3] [--python PYTHON] [--demo]

The same engine is fed directly and through Kafka, in turn. Then a worker is started as a process,
by ``--python`` for an environment without PyTorch: the time until it is ready, its memory, and the
latency of messages that come one at a time. With ``--demo`` the demo's LoRA adapter in vLLM labels
some messages first. Without ``--adapter`` one is made of all-MiniLM-L6-v2 and a random head: its
labels mean nothing, but take as long.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import torch
from confluent_kafka import Producer

from tests.bench.__main__ import direct, settings_for, through_kafka, topic_flags
from tests.chaos.harness import Arena
from tests.support.published import digests
from tests.support.toy_adapter import SHA, toy_taxonomy
from trainer.model.bases import find_embedding_model
from trainer.model.encoder import EncoderShape, load_encoder
from trainer.model.onnx_files import FILES, export_onnx
from trainer.model.prompt import make_encoder_prompt
from trainer.model.scoring import HeadScorer
from worker.common.logs import configure_logging
from worker.contract import (
    BaseModel,
    Calibration,
    GoldenLogits,
    Head,
    HeadOutput,
    Manifest,
    OnnxModel,
    Thresholds,
    make_golden,
    write_manifest,
)
from worker.contract.digest import sha256_file
from worker.demo.broker import LocalBroker
from worker.demo.models import read_samples
from worker.engine.model_files import load_encoders
from worker.serving import open_model
from worker.settings import load_settings

MESSAGES = 3000
DEMO_MESSAGES = 150
SLOW_MESSAGES = 200
SLOW_RATE = 10.0
OUTPUTS = 77
MESSAGE = "the lamp that I ordered last week has not come yet"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--demo", action="store_true")
    given = parser.parse_args()
    configure_logging("console", "warning")
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    with LocalBroker() as broker, ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        adapter = given.adapter or make_adapter(folder / "encoder")
        if given.demo:
            demo(broker.bootstrap_servers, stack, given.rounds)
        for precision in ("int8", "fp32"):
            model = model_flags(adapter, precision)
            throughput(broker.bootstrap_servers, stack, precision, model, given.rounds)
            print(
                f"{precision}: {start(broker.bootstrap_servers, model, given.python)}", flush=True
            )
    return 0


def demo(servers: str, stack: ExitStack, rounds: int) -> None:
    """The demo's adapter through Kafka, for comparison."""
    arena = Arena(servers, stack)
    settings = settings_for(arena)
    opened = open_model(settings)
    samples = [sample.message for sample in read_samples("holdout.jsonl")]
    direct(opened, samples[:40])
    for number in range(rounds):
        texts = [f"{number}-{n}: {samples[n % len(samples)]}" for n in range(DEMO_MESSAGES)]
        seconds = through_kafka(settings, arena, opened, texts)
        print(
            f"the demo's adapter, through Kafka: {DEMO_MESSAGES / seconds:.0f} messages/s",
            flush=True,
        )
    opened.engine.close()


def throughput(
    servers: str, stack: ExitStack, name: str, model: Sequence[str], rounds: int
) -> None:
    """The same engine fed directly and through Kafka, in turn."""
    arena = Arena(servers, stack)
    settings = load_settings(flags=[*topic_flags(arena), *model]).settings
    opened = open_model(settings)
    samples = [sample.message for sample in read_samples("holdout.jsonl")]
    direct(opened, samples[:200])
    ratios = []
    for number in range(rounds):
        # All different: an engine with a prefix cache would have a repeated one complete.
        alone, worker = (
            [f"{mark}{number}-{n}: {samples[n % len(samples)]}" for n in range(MESSAGES)]
            for mark in "ab"
        )
        alone_s, worker_s = direct(opened, alone), through_kafka(settings, arena, opened, worker)
        ratios.append(alone_s / worker_s)
        print(
            f"{name}, round {number + 1}: engine alone {MESSAGES / alone_s:.0f} messages/s, "
            f"through Kafka {MESSAGES / worker_s:.0f}, ratio {alone_s / worker_s:.3f}",
            flush=True,
        )
    print(f"{name}: ratio median {statistics.median(ratios):.3f} ({rounds} rounds)")
    opened.engine.close()


def start(servers: str, model: Sequence[str], python: str) -> str:
    """Start a worker with these settings, and send it one message at a time. Return a line: the
    seconds until it is ready, its processes' memory, and from published to read."""
    with ExitStack() as stack:
        arena = Arena(servers, stack)
        command = [python, "-m", "worker", "run"]
        for flag in [*topic_flags(arena), "log.format='json'", "http.port=0", *model]:
            command += ["--set", flag]
        began = time.monotonic()
        worker = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        stack.callback(worker.wait)
        stack.callback(worker.terminate)
        assert worker.stdout is not None
        for line in worker.stdout:
            if '"worker.ready"' in line:
                break
        ready_s = time.monotonic() - began
        sender = Producer({"bootstrap.servers": servers, "linger.ms": 0, "log_level": 0})
        for number in range(20):
            latency(arena, sender, number + 1)
        took_ms = [latency(arena, sender, number + 21) for number in range(SLOW_MESSAGES)]
        root = psutil.Process(worker.pid)
        processes = [root, *root.children(recursive=True)]
        resident = sum(process.memory_info().rss for process in processes) / 2**20
    return (
        f"ready {ready_s:.2f} s after the process began, {resident:.0f} MiB resident; one message "
        f"at a time, published to read: p50 {statistics.median(took_ms):.1f} ms, "
        f"p99 {statistics.quantiles(took_ms, n=100)[98]:.1f} ms"
    )


def latency(arena: Arena, sender: Any, count: int) -> float:
    """Publish one message and read its label; return the milliseconds."""
    time.sleep(1 / SLOW_RATE)
    began = time.perf_counter()
    sender.produce(arena.topics["in"], json.dumps({"message": f"{MESSAGE} ({count})"}).encode())
    sender.poll(0)
    while len(arena.results) < count:
        arena.read_once(0.001)
    return (time.perf_counter() - began) * 1e3


def model_flags(adapter: Path, precision: str) -> list[str]:
    return [f"model.adapter='{adapter}'", f"model.encoder_precision='{precision}'"]


def make_adapter(directory: Path) -> Path:
    """Write an adapter of all-MiniLM-L6-v2 with a random head; return its directory."""
    base = find_embedding_model()
    assert base is not None, "the extra embeddings is not installed"
    directory.mkdir()
    shutil.copy(base / "tokenizer.json", directory)
    encoders = load_encoders(directory)
    model = load_encoder(base, EncoderShape(OUTPUTS, "mean", unit=False, lora=None), device="cpu")
    torch.manual_seed(0)
    model.classifier.head.reset_parameters()
    export_onnx(model, directory, ("fp32", "int8"))
    (directory / "model.safetensors").write_bytes(b"not read by ONNX Runtime")
    spec = make_encoder_prompt(base, encoders, max_message_tokens=254, redaction=None)
    golden = make_golden(spec, encoders)
    logits = HeadScorer(model).logits([prompt.ids for prompt in golden])
    labels = [f"label-{number}" for number in range(11)]
    head = Head(
        outputs=tuple(HeadOutput(f"output-{at}", labels[at % 11]) for at in range(OUTPUTS)),
        pooling="mean",
        normalize=False,
        out_of_scope="energy",
        vocabulary=model.classifier.backbone.config.vocab_size,
        pad_id=model.pad_id,
        weights=("model.safetensors",),
        golden_logits=tuple(
            GoldenLogits(at, tuple(map(float, row))) for at, row in enumerate(logits)
        ),
        onnx=(OnnxModel(FILES["int8"], "int8", 1.0), OnnxModel(FILES["fp32"], "fp32", 1e-3)),
    )
    tokenizer = sha256_file(directory / "tokenizer.json")
    manifest = Manifest(
        name="bench-encoder",
        created_at="2026-01-01T00:00:00Z",
        kind="encoder",
        base=BaseModel("all-MiniLM-L6-v2", "1", SHA, tokenizer, {}),
        taxonomy=toy_taxonomy(labels),
        prompt=spec,
        calibration=Calibration(1.0, 1),
        thresholds=Thresholds(None),
        golden=golden,
        files=digests(directory),
        head=head,
    )
    write_manifest(directory, manifest)
    return directory


if __name__ == "__main__":
    sys.exit(main())
