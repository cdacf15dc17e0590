"""The command line as a process: help, usage errors, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tiny_onnx import write_tiny_encoder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


def clerk(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m worker``."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CLERK_")}
    return subprocess.run(
        [sys.executable, "-m", "worker", *arguments],
        cwd=ROOT,
        env={**clean, **environment, "NO_COLOR": "1", "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def assert_last_event(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """Every line of standard error is an event, and the last one is the error."""
    assert done.returncode == code, done.stderr
    last = [json.loads(line) for line in done.stderr.splitlines()][-1]
    assert (last["event"], last["level"], last["exit_code"]) == ("worker.failed", "error", code)
    assert last["timestamp"].endswith("Z")
    for word in words:
        assert word in last["error"]


def assert_only_the_adapter_is_missing(done: subprocess.CompletedProcess[str]) -> None:
    """Nothing else is wrong with these settings."""
    assert done.returncode == 2
    (error,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert error.startswith("error: model.adapter is not set")


def test_the_shipped_configuration_is_the_default_one() -> None:
    shipped = clerk("check-config", "-c", "config/worker.toml").stdout
    default = clerk("check-config").stdout
    strip = [line.split("  # ")[0] for line in shipped.splitlines()]
    assert strip == [line.split("  # ")[0] for line in default.splitlines()]


def test_every_commented_default_in_the_shipped_configuration_is_true(tmp_path: Path) -> None:
    """Uncommented, only paths and examples differ from the defaults."""
    text = (ROOT / "config/worker.toml").read_text(encoding="utf-8")
    examples = ("base =", "adapter =", "instance_id", "ssl_ca", "sasl_", "gpu_mem",
                "max_num_seqs", "hf_overrides", "confidence =", "off_label_mass =",
                "encoder_precision =", "encoder_threads =", "out_of_scope =", "disagreement =",
                "shadow =", "shadow_topic =", "retry_topic =", "urgent_topics =",
                "public_keys =")  # fmt: skip
    lines = [
        line[2:] if line.startswith("# ") and " = " in line and not any(
            line[2:].startswith(example) for example in examples
        ) else line
        for line in text.splitlines()
    ]  # fmt: skip
    file = tmp_path / "all.toml"
    file.write_text("\n".join(lines))
    done = clerk("check-config", "-c", str(file))
    assert_only_the_adapter_is_missing(done)
    strip = [line.split("  # ")[0] for line in done.stdout.splitlines()]
    assert strip == [line.split("  # ")[0] for line in clerk("check-config").stdout.splitlines()]


def test_run_without_a_model_says_what_to_set() -> None:
    done = clerk("run", "-s", "kafka.dead_letter_topic=support.labels")
    assert_last_event(done, 2, "support.labels", "dead letters", "model.adapter is not set")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "-s", "kafka.grop_id=x"), "did you mean 'kafka.group_id'"),
        (("topics", "-s", "kafka.output_topic=support.messages"), "read its own results"),
    ],
)
def test_a_pod_that_ends_says_why_in_the_form_of_its_log(
    arguments: tuple[str, ...], words: str
) -> None:
    """Also if the settings, which define the form, cannot be read."""
    assert_last_event(clerk(*arguments), 2, words)


def test_run_without_a_broker_says_where_it_looked(tmp_path: Path) -> None:
    adapter = write_tiny_encoder(tmp_path / "adapter")
    given = (
        f"model.adapter={adapter}",
        "kafka.bootstrap_servers=127.0.0.1:1",
        "kafka.start_timeout_s=1",
        "http.port=0",
    )
    flags = [word for each in given for word in ("-s", each)]
    checked = clerk("check-config", *flags)
    assert (checked.returncode, "error" in checked.stderr) == (0, False)
    assert "note: kafka.delivery is exactly_once: brokers of Apache Kafka 4.3.0" in checked.stderr
    assert "note: no access to Kafka at 127.0.0.1:1 " in checked.stderr
    done = clerk("run", *flags)
    assert_last_event(done, 4, "127.0.0.1:1", "kafka.bootstrap_servers")
