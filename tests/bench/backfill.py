"""``classify --out`` against one ``classify``: messages/s, and the CPU time of all processes.

    python -m tests.bench.backfill                              # an engine of 1,000 messages/s
    python -m tests.bench.backfill --adapter DIR --rows 20000 --ways one parts processes ray

In turn: one file as it is (``one``), in parts, in parts by two processes, and by two actors of a
local Ray cluster, whose engines have their own pace.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.support.tiny_onnx import write_tiny_encoder

_PLAIN = "from worker.cli import main; main()"
# Answers are the model's own, each no earlier than the pace allows.
_PACED = """
import time
from worker.engine.onnx_engine import Session
plain, due = Session.run, [0.0]
def run(self, prompt_ids):
    answer, now = plain(self, prompt_ids), time.monotonic()
    due[0] = max(due[0] + 1 / {rate}, now - 0.1)
    time.sleep(max(0.0, due[0] - now))
    return answer
Session.run = run
"""


def measure(commands: Sequence[Sequence[str]], environment: dict[str, str]) -> tuple[float, float]:
    """Run the commands at once; return the seconds until all have ended, and the CPU seconds of
    their processes, sampled four times a second."""
    began, spent = time.perf_counter(), dict[int, float]()
    running = [
        psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        for command in commands
    ]
    while any(program.poll() is None for program in running):
        for program in running:
            try:
                for process in (program, *program.children(recursive=True)):
                    times = process.cpu_times()
                    spent[process.pid] = times.user + times.system
            except psutil.Error:
                continue  # it has just ended
        time.sleep(0.25)
    if any(program.returncode for program in running):
        raise SystemExit(f"failed; run it alone to see why: {shlex.join(commands[0])}")
    return time.perf_counter() - began, sum(spent.values())


def main() -> None:
    """Print one line for each way and round."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--adapter", type=Path, help="default: a tiny encoder at --rate")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rate", type=float, default=1000, help="messages a second of an engine")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--ways", nargs="+", default=["one", "parts"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/tmp") as work:  # Ray's sockets need a short path
        folder = Path(work)
        adapter = arguments.adapter or write_tiny_encoder(folder / "adapter")
        archive = folder / "archive.jsonl"
        with archive.open("w") as file:
            for at in range(arguments.rows):
                message = f"where is my order {at}, it should be here by now"
                file.write(json.dumps({"id": f"m{at}", "message": message}) + "\n")
        code = _PLAIN if arguments.adapter else _PACED.format(rate=arguments.rate) + _PLAIN
        classify = [sys.executable, "-c", code, "classify", "-s", f"model.adapter={adapter}"]
        classify += ["-i", str(archive)]
        environment = {**os.environ, "RAY_TMPDIR": work}
        for number in range(arguments.rounds):
            ways = {
                "one": [classify],
                "parts": [[*classify, "--out", f"{work}/parts{number}"]],
                "processes": [
                    [*classify, "--out", f"{work}/processes{number}", "--part", f"{part}/2"]
                    for part in (1, 2)
                ],
                "ray": [[*classify, "--out", f"{work}/ray{number}", "--ray", "2"]],
            }
            for way in arguments.ways:
                seconds, cpu = measure(ways[way], environment)
                print(
                    f"{way:10} {seconds:7.1f} s  {arguments.rows / seconds:7.0f} messages/s  "
                    f"{cpu:7.1f} s of CPU",
                    flush=True,
                )


if __name__ == "__main__":
    main()
