"""One command for the first hour on a GPU (docs/gpu.md, docs/sizing.md):

    make gpu-smoke                             # everything
    make gpu-smoke SMOKE="trainer"             # PyTorch, transformers, PEFT and their dependencies
    make gpu-smoke SMOKE="worker"              # vLLM; uses what "trainer" left in --work
    make gpu-smoke SMOKE="--shape small --device cpu"   # the same path, in a minute

It makes a base of random weights (--base takes a real one), writes two adapters with the trainer's
own code, serves one with the real worker, publishes messages through Kafka, compares the scores
with transformers', swaps the adapters while messages come, and prints its measurements as JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from worker.demo.models import read_samples

_WORK = Path(".cache") / "gpu-smoke"
_FEW = 32
"""Messages whose scores are compared."""


def main() -> int:
    """Run one half, or each in its own process, so that the first one's memory is free."""
    given = parse(sys.argv[1:])
    given.work = given.work.resolve()
    given.work.mkdir(parents=True, exist_ok=True)
    if given.part is None:
        rest = sys.argv[1:]
        for part in ("trainer", "worker"):
            done = subprocess.run([sys.executable, "-m", "tests.gpu", part, *rest], check=False)
            if done.returncode != 0:
                return done.returncode
        return 0
    figures = trainer_half(given) if given.part == "trainer" else worker_half(given)
    path = given.work / f"{given.part}.json"
    path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(path.read_text(encoding="utf-8"), end="")
    if given.part == "worker" and given.keep:
        from tests.gpu.page import add_measured

        add_measured(figures)
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter, prog="tests.gpu"
    )
    parser.add_argument("part", nargs="?", choices=("trainer", "worker"), help="one half of it")
    parser.add_argument("--shape", choices=("7b", "small", "tiny"), default="7b")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--base", type=Path, help="a base's folder, instead of random weights")
    parser.add_argument("--work", type=Path, default=_WORK, help=f"what it writes ({_WORK})")
    parser.add_argument("--messages", type=int, default=2000, help="how many are timed")
    parser.add_argument("--compared", type=int, default=_FEW, help="how many are compared")
    parser.add_argument(
        "--no-step", action="store_true", help="no training step (minutes on a CPU)"
    )
    parser.add_argument("--keep", action="store_true", help="keep the figures in docs/sizing.md")
    parser.add_argument("--set", action="append", default=[], help="a setting of the worker")
    return parser.parse_args(arguments)


def trainer_half(given: argparse.Namespace) -> dict[str, Any]:
    """Make the base, the adapters, and the expected scores."""
    import torch

    from tests.gpu.adapters import make_base, run_trainer

    device = given.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    samples = read_samples("train.jsonl")
    base, store = given.work / "base", given.work / "store"
    shutil.rmtree(store, ignore_errors=True)
    store.mkdir()
    made_s = 0.0
    if given.base is not None:
        if base.is_symlink():
            base.unlink()
        elif base.exists():
            shutil.rmtree(base)
        base.symlink_to(given.base.resolve())
    elif not is_made(base, given.shape):
        shutil.rmtree(base, ignore_errors=True)
        began = time.perf_counter()
        make_base(base, given.shape, [one.message for one in samples], device)
        (base / "shape").write_text(given.shape, encoding="utf-8")
        made_s = time.perf_counter() - began
    messages = {one.id: one.message for one in samples[: given.compared]}
    figures = run_trainer(
        given.work, shape=given.shape, device=device, messages=messages, step=not given.no_step
    )
    shape = "given" if given.base is not None else given.shape
    return {"shape": shape, "base_made_s": made_s, **figures}


def is_made(base: Path, shape: str) -> bool:
    """Whether a complete base of that shape exists: its name is written last."""
    written = base / "shape"
    return written.is_file() and written.read_text(encoding="utf-8") == shape


def worker_half(given: argparse.Namespace) -> dict[str, Any]:
    """Serve the trainer half's adapters."""
    from tests.gpu.serve import run_worker

    made = json.loads((given.work / "trainer.json").read_text(encoding="utf-8"))
    figures = run_worker(given.work, count=given.messages, sets=given.set)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "device": made["device"],
        "shape": made["shape"],
        **figures,
    }


if __name__ == "__main__":
    sys.exit(main())
