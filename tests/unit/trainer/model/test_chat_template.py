"""A chat template that prints today's date always prints the same date."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path

import pytest
from rich.console import Console

from tests.unit.trainer.conftest import CHAT_TEMPLATE
from trainer.training.recipe import load_recipe
from trainer.training.train import train
from worker.contract import read_manifest

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parents[4] / "config" / "trainer-cpu.toml"
LLAMA_3_2 = (
    "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    '{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}'
    '{%- set date_string = "26 Jul 2024" %}{%- endif %}{%- endif %}'
)
"""As in Llama 3.2's template."""
SMOLLM_3 = '{%- set date_string = strftime_now("%d %B %Y") -%}'
PRINTED = "{{ '<|im_start|>Today Date: ' + date_string + '<|im_end|>\n' }}"


@pytest.fixture(params=[LLAMA_3_2, SMOLLM_3], ids=["llama-3.2", "smollm3"])
def dated_base(request: pytest.FixtureRequest, tiny_base: Path, tmp_path: Path) -> Path:
    """Return the tiny base with a template that prints the day."""
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    (base / "chat_template.jinja").write_text(f"{request.param}{PRINTED}{CHAT_TEMPLATE}", "utf-8")
    return base


def at(monkeypatch: pytest.MonkeyPatch, day: date) -> None:
    """Set the clock that transformers' templates read."""
    from transformers.utils import chat_template_utils

    class Clock:
        @staticmethod
        def now() -> date:
            return day

    monkeypatch.setattr(chat_template_utils, "datetime", Clock)
    chat_template_utils._compile_jinja_template.cache_clear()


def test_a_training_resumed_after_midnight_has_the_prompt_it_began_with(
    dated_base: Path, dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two trainings on two days make the same adapter, whose manifest names the date."""
    manifests = []
    for number, today in enumerate((date(2026, 3, 4), date(2026, 3, 5))):
        at(monkeypatch, today)
        given = {
            "base": dated_base,
            "dataset": dataset_dir,
            "run": tmp_path / f"run-{number}",
            "lora_rank": 2,
            "epochs": 1,
            "prefix_block": 16,
            "threads": 1,
        }
        train(load_recipe(CONFIG, given), Console(quiet=True))
        manifests.append(read_manifest(tmp_path / f"run-{number}" / "adapter"))
    first, second = manifests
    assert first.prompt == second.prompt
    assert first.golden == second.golden
    assert first.files == second.files
    assert first.prompt.prompt_date == "2026-01-01"
    assert "Today Date: 01 Jan" in first.prompt.prefix
