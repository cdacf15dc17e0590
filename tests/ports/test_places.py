"""More adapters in one vLLM engine than it has places for, and an adapter whose files are gone.

Needs vLLM, the demo's base model and its adapter, which both stages copy.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from tests.support.processes import need_vllm
from tests.support.toy_adapter import cascade_of
from worker.contract import build_prompt, read_manifest, write_manifest
from worker.engine.open import open_engine
from worker.engine.port import MessagePrompt, StageDecisions

pytestmark = [pytest.mark.timeout(600), pytest.mark.long]  # an engine

MESSAGE = "Where is my parcel? It should have been here on Monday."


def test_stages_take_turns_out_of_memory(
    base_model_dir: Path, demo_adapter_dir: Path, tmp_path: Path
) -> None:
    """Two stages share one place: each answers whenever asked, even when its files are gone. (vLLM
    would read them from the disk again, and would end at the first turn.)"""
    need_vllm()
    stages = [replace(read_manifest(demo_adapter_dir), name=name) for name in ("one", "two")]
    for stage in stages:
        shutil.copytree(demo_adapter_dir, tmp_path / stage.digest)
        write_manifest(tmp_path / stage.digest, stage)
    cascade = cascade_of(*stages, sure_from=1.0)
    adapter = tmp_path / cascade.digest
    adapter.mkdir()
    write_manifest(adapter, cascade)
    with structlog.testing.capture_logs() as logs:
        opened = open_engine(
            base=base_model_dir,
            adapter=adapter,
            cache_dir=tmp_path / "cache",
            serving="runtime",
            engine_args={"max_loras": 1},
        )
    try:
        (event,) = [line for line in logs if line["event"] == "engine.adapters_by_turns"]
        assert (event["adapters"], event["places"]) == (2, 1)
        prompt = build_prompt(cascade.prompt, MESSAGE, opened.encoders.plain)
        assert prompt is not None
        asked = MessagePrompt(prompt.ids, MESSAGE, prompt.truncated)
        before = opened.engine.submit(asked).result(120)
        for stage in stages:
            (tmp_path / stage.digest).rename(tmp_path / f"away-{stage.name}")
        for _ in range(2):
            answer = opened.engine.submit(asked).result(120)
            assert isinstance(answer, StageDecisions)
            assert isinstance(before, StageDecisions)
            labels = [decision.label for decision in answer.decisions]
            assert labels == [decision.label for decision in before.decisions]
            assert len(labels) == 2
        opened.engine.check_health()
    finally:
        opened.engine.close()
