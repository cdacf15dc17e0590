"""The trainer against TRL's SFTTrainer with its completion-only loss, on the same rows.

    python -m tests.bench.sft --dataset DIR [--rounds 3] [--examples 384]

Both train the same LoRA adapter on the same base with equal batch size, precision and attention
code, taking turns, each in its own process for its own peak memory. Examples a second leave out the
first steps, in which kernels are chosen.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "config" / "trainer-cpu.toml"
BATCH = 16
WARM_UP = 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--examples", type=int, default=384)
    parser.add_argument("--only", choices=["clerk", "trl"])
    options = parser.parse_args()
    if options.only:
        measure = run_clerk if options.only == "clerk" else run_trl
        print(json.dumps(measure(options.dataset, options.examples)))
        return 0
    found: dict[str, list[dict[str, Any]]] = {"clerk": [], "trl": []}
    for number in range(options.rounds):
        for name in ("clerk", "trl"):
            figures = _in_process(name, options)
            found[name].append(figures)
            print(
                f"round {number + 1}  {name:5}  {figures['examples_per_s']:6.2f} examples/s  "
                f"peak {figures['peak_bytes'] / 1e9:.2f} GB",
                flush=True,
            )
    ratios = [
        clerk["examples_per_s"] / trl["examples_per_s"]
        for clerk, trl in zip(found["clerk"], found["trl"], strict=True)
    ]
    ours, theirs = (
        statistics.median(figures["peak_bytes"] for figures in found[name])
        for name in ("clerk", "trl")
    )
    memory = ours / theirs
    print(
        f"speed ratio by round: {', '.join(f'{ratio:.2f}' for ratio in ratios)}; "
        f"median {statistics.median(ratios):.2f}; peak memory ratio {memory:.2f}"
    )
    return 0


def _in_process(name: str, options: argparse.Namespace) -> dict[str, Any]:
    command = [
        *(sys.executable, "-m", "tests.bench.sft", "--only", name),
        *("--dataset", str(options.dataset), "--examples", str(options.examples)),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return record


def run_clerk(dataset: Path, examples: int) -> dict[str, Any]:
    """Train one epoch with the trainer's own ``train``."""
    from rich.console import Console

    from trainer.training.recipe import load_recipe
    from trainer.training.train import train

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        recipe = load_recipe(RECIPE, _settings(dataset, examples) | {"run": run})
        train(recipe, Console(quiet=True))
        lines = (run / "steps.jsonl").read_text(encoding="utf-8").splitlines()
    rates = [json.loads(line)["examples_per_s"] for line in lines[WARM_UP:]]
    seconds = sum(BATCH / rate for rate in rates)
    return {"examples_per_s": BATCH * len(rates) / seconds, "peak_bytes": _peak()}


def run_trl(dataset: Path, examples: int) -> dict[str, Any]:
    """Train one epoch with SFTTrainer, on the same prompts and answers as text."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTTrainer

    from trainer.model.lora_model import linear_layers
    from trainer.training.inputs import read_code_inputs
    from trainer.training.recipe import load_recipe

    settings = _settings(dataset, examples)
    recipe = load_recipe(RECIPE, settings | {"run": dataset / "unused"})
    inputs = read_code_inputs(recipe)
    decode = inputs.tokenizer.decode
    rows = [
        {"prompt": decode(row.prompt), "completion": decode([row.answer])} for row in inputs.train
    ]
    model = AutoModelForCausalLM.from_pretrained(
        recipe.base, dtype=torch.float32, attn_implementation=recipe.attn_implementation
    )
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.lora_rank,
        lora_alpha=int(recipe.lora_alpha),
        target_modules=list(linear_layers(model)),
    )
    ends: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=model,
            processing_class=AutoTokenizer.from_pretrained(recipe.base),
            train_dataset=Dataset.from_list(rows),
            peft_config=lora,
            args=_sft_config(folder, recipe.learning_rate, recipe.seed),
            callbacks=[Clock()],
        )
        trainer.train()
    steps = len(ends) - WARM_UP
    return {
        "examples_per_s": BATCH * steps / (ends[-1] - ends[WARM_UP - 1]),
        "peak_bytes": _peak(),
    }


def _sft_config(folder: str, learning_rate: float, seed: int) -> Any:
    from trl import SFTConfig

    return SFTConfig(
        output_dir=folder,
        per_device_train_batch_size=BATCH,
        num_train_epochs=1,
        learning_rate=learning_rate,
        completion_only_loss=True,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        max_length=512,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_steps=10_000,
        seed=seed,
    )


def _settings(dataset: Path, examples: int) -> dict[str, Any]:
    from trainer.dataset.folder import open_dataset
    from worker.common.base_model import ensure_base_model

    labels = len(open_dataset(dataset).taxonomy.names)
    return {
        "base": ensure_base_model(),
        "dataset": dataset,
        "per_label": examples // labels,
        "epochs": 1,
        "batch_size": BATCH,
        "mixed_precision": "no",
        "attn_implementation": "sdpa",
        "checkpoint_every_s": 1e9,
    }


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    sys.exit(main())
