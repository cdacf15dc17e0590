"""The worker's engine alone, for a machine on which no broker can be had."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from worker.contract import Encoders, Manifest, build_prompt, read_manifest
from worker.contract.scoring import decide_from_codes
from worker.engine.open import open_engine
from worker.engine.port import CodeScores, Engine


class DirectEngine:
    """Prompts in, scores out: the worker's contract and engine, without its loop."""

    def __init__(self, base: Path, adapter: Path) -> None:
        opened = open_engine(
            base=base,
            adapter=adapter,
            cache_dir=base.parent / "cache",
            serving="runtime",
            max_adapters=2,
        )
        assert opened.loader is not None
        self._loader = opened.loader
        self._encoders: Encoders = opened.encoders
        self._manifest: Manifest = opened.manifest
        self._engine: Engine = opened.engine
        self._engine.warm_up([golden.ids for golden in opened.manifest.golden])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._engine.close()

    def scores(self, messages: Mapping[str, str]) -> dict[str, dict[str, float]]:
        """Return each message's probabilities by label; all are under way at once."""
        waiting = {}
        for message_id, text in messages.items():
            prompt = build_prompt(self._manifest.prompt, text, self._encoders.plain)
            assert prompt is not None
            waiting[message_id] = self._engine.submit(prompt.ids)
        found = {}
        for message_id, future in waiting.items():
            answer = future.result()
            assert isinstance(answer, CodeScores)
            decision = decide_from_codes(
                answer.logprobs, self._manifest.codes, self._manifest.calibration.temperature
            )
            found[message_id] = dict(decision.scores)
        return found

    def swap(self, adapter: Path) -> None:
        """Load another adapter and let the one before go."""
        manifest = read_manifest(adapter)
        engine = self._loader.load(adapter, manifest)
        self._engine.close()
        self._engine, self._manifest = engine, manifest
