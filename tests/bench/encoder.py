"""What a worker with an encoder costs: through Kafka beside its engine, alone, and when it starts.

    python -m tests.bench.encoder [--adapter DIR] [--rounds 3] [--python PYTHON] [--demo]
        [--set KEY=VALUE]

With ``--demo`` the demo's LoRA adapter in vLLM labels some messages before. The same engine is fed
directly and through Kafka, in turn; then a worker is started as a process, by ``--python`` where
that is an environment without PyTorch, for the time until it is ready, its memory, and the latency
of messages that come one at a time. Without ``--adapter`` one is made of all-MiniLM-L6-v2 with a
head drawn from a seed: its labels mean nothing, and take as long.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import Producer

from tests.bench.__main__ import direct, settings_for, through_kafka
from tests.chaos.harness import Arena
from tests.support.published import digests
from tests.support.toy_adapter import SHA, toy_taxonomy
from trainer.model.embeddings import PACKAGE
from worker.contract import (
    BaseModel,
    Calibration,
    GoldenLogits,
    Head,
    HeadOutput,
    Manifest,
    OnnxModel,
    PromptSpec,
    Thresholds,
    make_golden,
    write_manifest,
)
from worker.contract.digest import sha256_file
from worker.contract.text import NORMALIZATION
from worker.demo.broker import LocalBroker
from worker.demo.samples import read_samples
from worker.engine.tokenizer import load_encoders
from worker.logs import configure_logging
from worker.serving import open_model
from worker.settings_load import load_settings

MESSAGES = 3000
DEMO_MESSAGES = 150
SLOW_MESSAGES = 200
SLOW_RATE = 10.0
OUTPUTS = 77
MESSAGE = b'{"message": "the lamp that I ordered last week has not come yet"}'


@dataclass(frozen=True, slots=True)
class Started:
    """A worker's process: seconds until it was ready, its memory in MiB, and the latencies of
    messages one at a time, from published to read, in milliseconds."""

    ready_s: float
    resident_mib: float
    latencies_ms: Sequence[float]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--precisions", default="int8,fp32")
    parser.add_argument("--demo", action="store_true")
    parser.add_argument("--set", action="append", default=[], help="a setting of the worker's")
    given = parser.parse_args()
    configure_logging("console", "warning")
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    with LocalBroker() as broker, ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        adapter = given.adapter or make_adapter(folder / "encoder")
        if given.demo:
            demo(broker.bootstrap_servers, stack, given.rounds)
        for precision in given.precisions.split(","):
            throughput(broker.bootstrap_servers, stack, adapter, precision, given.rounds)
            started = start(broker.bootstrap_servers, adapter, precision, given.python, given.set)
            print(
                f"{precision}: ready {started.ready_s:.2f} s after the process began, "
                f"{started.resident_mib:.0f} MiB resident; one message at a time, published to "
                f"read: p50 {statistics.median(started.latencies_ms):.1f} ms, "
                f"p99 {statistics.quantiles(started.latencies_ms, n=100)[98]:.1f} ms",
                flush=True,
            )
    return 0


def demo(servers: str, stack: ExitStack, rounds: int) -> None:
    """The demo's adapter through Kafka, to compare with."""
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


def throughput(servers: str, stack: ExitStack, adapter: Path, precision: str, rounds: int) -> None:
    """The same engine fed directly and through Kafka, in turn."""
    arena = Arena(servers, stack)
    settings = load_settings(flags=flags(arena, adapter, precision)).settings
    opened = open_model(settings)
    samples = [sample.message for sample in read_samples("holdout.jsonl")]
    texts = [samples[n % len(samples)] for n in range(MESSAGES)]
    direct(opened, texts[:200])
    ratios = []
    for number in range(rounds):
        alone = direct(opened, texts)
        worker = through_kafka(settings, arena, opened, texts)
        ratios.append(alone / worker)
        print(
            f"{precision}, round {number + 1}: engine alone {MESSAGES / alone:.0f} messages/s, "
            f"through Kafka {MESSAGES / worker:.0f}, ratio {alone / worker:.3f}",
            flush=True,
        )
    print(f"{precision}: ratio median {statistics.median(ratios):.3f} ({rounds} rounds)")
    opened.engine.close()


def start(servers: str, adapter: Path, precision: str, python: str, more: Sequence[str]) -> Started:
    """Start a worker, and give it a message at a time."""
    with ExitStack() as stack:
        arena = Arena(servers, stack)
        command = [python, "-m", "worker", "run"]
        for flag in [*flags(arena, adapter, precision), "log.format='json'", "http.port=0", *more]:
            command += ["--set", flag]
        began = time.monotonic()
        worker = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        stack.callback(worker.wait)
        stack.callback(worker.terminate)
        assert worker.stdout is not None
        for line in worker.stdout:
            if "worker.ready" in line:
                break
        ready_s = time.monotonic() - began
        sender = Producer({"bootstrap.servers": servers, "linger.ms": 0, "log_level": 0})
        for number in range(20):
            latency(arena, sender, number + 1)
        latencies = [latency(arena, sender, number + 21) for number in range(SLOW_MESSAGES)]
        resident = psutil.Process(worker.pid).memory_info().rss / 2**20
    return Started(ready_s, resident, latencies)


def latency(arena: Arena, sender: Any, count: int) -> float:
    """Publish one message and read its label; return the milliseconds between."""
    time.sleep(1 / SLOW_RATE)
    began = time.perf_counter()
    sender.produce(arena.topics["in"], MESSAGE)
    sender.poll(0)
    while len(arena.results) < count:
        arena.read_once(0.001)
    return (time.perf_counter() - began) * 1e3


def flags(arena: Arena, adapter: Path, precision: str) -> list[str]:
    """The worker's settings on an arena's topics."""
    names = arena.topics
    return [
        f"kafka.bootstrap_servers='{arena.servers}'",
        f"kafka.group_id='{arena.run}'",
        f"kafka.input_topics='{names['in']}'",
        f"kafka.output_topic='{names['out']}'",
        f"kafka.review_topic='{names['review']}'",
        f"kafka.dead_letter_topic='{names['dead']}'",
        f"model.adapter='{adapter}'",
        f"model.encoder_precision='{precision}'",
    ]


def make_adapter(directory: Path) -> Path:
    """Write an adapter of all-MiniLM-L6-v2 with a head drawn from a seed; return its directory."""
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from transformers import AutoModel

    directory.mkdir()
    spec_of_wheel = find_spec(PACKAGE)
    assert spec_of_wheel is not None, "the extra embeddings is not installed"
    package = Path(str(spec_of_wheel.origin)).parent
    base = next(path.parent for path in package.rglob("tokenizer.json"))
    shutil.copy(base / "tokenizer.json", directory)
    encoders = load_encoders(directory)
    torch.manual_seed(0)

    class Classifier(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = AutoModel.from_pretrained(base, attn_implementation="eager")
            self.head = torch.nn.Linear(self.encoder.config.hidden_size, OUTPUTS)

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
            weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
            return self.head((hidden * weights).sum(1) / weights.sum(1))

    model = Classifier().eval()
    rows = torch.randint(1000, 20000, (2, 16))
    axes = {0: "messages", 1: "tokens"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (rows, torch.ones_like(rows)),
            str(directory / "model.onnx"),
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_axes={"input_ids": axes, "attention_mask": axes, "logits": {0: "messages"}},
            dynamo=False,
            opset_version=17,
        )
    quantize_dynamic(
        directory / "model.onnx", directory / "model.int8.onnx", weight_type=QuantType.QInt8
    )
    (directory / "model.safetensors").write_bytes(b"not read by ONNX Runtime")
    fixed = tuple(encoders.control("[CLS]")), tuple(encoders.control("[SEP]"))
    marker = tuple(encoders.plain(" ... "))
    spec = PromptSpec("[CLS]", "[SEP]", " ... ", *fixed, marker, 254, NORMALIZATION)
    golden = make_golden(spec, encoders)
    logits = []
    with torch.inference_mode():
        for at, one in enumerate(golden):
            ids = torch.tensor([one.ids])
            logits.append(GoldenLogits(at, tuple(model(ids, torch.ones_like(ids))[0].tolist())))
    labels = [f"label-{number}" for number in range(11)]
    outputs = tuple(HeadOutput(f"output-{at}", labels[at % 11]) for at in range(OUTPUTS))
    onnx = (OnnxModel("model.int8.onnx", "int8", 1.0), OnnxModel("model.onnx", "fp32", 1e-3))
    head = Head(
        outputs,
        "mean",
        False,
        "energy",
        model.encoder.config.vocab_size,
        0,
        ("model.safetensors",),
        tuple(logits),
        onnx,
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
