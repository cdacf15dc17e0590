"""An encoder in ONNX Runtime: refusals at the start, and the choice of its file."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import structlog
from onnxruntime.quantization import QuantType, quantize_dynamic

from tests.support.published import digests
from tests.support.tiny_onnx import TinyModel, write_tiny_encoder
from worker.contract import (
    AdapterRefused,
    Manifest,
    OnnxModel,
    read_manifest,
    write_manifest,
)
from worker.contract.errors import MessageRejected
from worker.engine.onnx_engine import OnnxEngine, OnnxLoader
from worker.engine.port import HeadLogits
from worker.errors import EngineDied

TIMEOUT_S = 30


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_tiny_encoder(tmp_path / "encoder")


@pytest.fixture
def load() -> Iterator[Callable[..., OnnxEngine]]:
    """Load an adapter by its directory; what was loaded is closed at the end."""
    engines: list[OnnxEngine] = []

    def load(adapter: Path, **choices: Any) -> OnnxEngine:
        engine = OnnxLoader(**choices).load(adapter, read_manifest(adapter))
        engines.append(engine)
        return engine

    yield load
    for engine in engines:
        engine.close()


def rewrite(adapter: Path, change: Callable[[Manifest], Manifest]) -> None:
    """Name the files as they are now, and change the manifest."""
    manifest = read_manifest(adapter)
    (adapter / "manifest.json").unlink()
    write_manifest(adapter, change(replace(manifest, files=digests(adapter))))


def with_onnx(*models: OnnxModel) -> Callable[[Manifest], Manifest]:
    def change(manifest: Manifest) -> Manifest:
        assert manifest.head is not None
        return replace(manifest, head=replace(manifest.head, onnx=models))

    return change


def test_it_answers_with_the_logits_of_the_model(
    adapter: Path, load: Callable[..., OnnxEngine]
) -> None:
    manifest, engine = read_manifest(adapter), load(adapter)
    assert manifest.head is not None
    engine.warm_up([golden.ids for golden in manifest.golden])
    futures = [engine.submit(golden.ids) for golden in manifest.golden]
    for future, wanted in zip(futures, manifest.head.golden_logits, strict=True):
        answer = future.result(TIMEOUT_S)
        assert isinstance(answer, HeadLogits)
        assert answer.logits == pytest.approx(wanted.logits, abs=1e-5)


def test_another_model_under_the_same_manifest_is_refused(adapter: Path) -> None:
    manifest = read_manifest(adapter)
    assert manifest.head is not None
    TinyModel(1, manifest.head.vocabulary).write(adapter / "model.onnx", len(manifest.head.outputs))
    with pytest.raises(AdapterRefused, match="differ from the trainer's model: a logit of gold"):
        OnnxLoader().load(adapter, manifest)


@pytest.mark.parametrize(
    ("outputs", "names", "problem"),
    [
        (3, {}, "returns 3 logits; the head has 4 outputs"),
        (4, {"ids": "tokens"}, r"takes \['attention_mask', 'tokens'\]"),
        (4, {"logits": "scores"}, r"returns \['scores'\]"),
    ],
)
def test_a_graph_of_another_form_is_refused(
    adapter: Path, outputs: int, names: dict[str, str], problem: str
) -> None:
    manifest = read_manifest(adapter)
    assert manifest.head is not None
    model = TinyModel(0, manifest.head.vocabulary)
    model.write(adapter / "model.onnx", outputs, **names)
    with pytest.raises(AdapterRefused, match=problem):
        OnnxLoader().load(adapter, manifest)


def test_a_file_that_is_no_model_is_refused(adapter: Path) -> None:
    (adapter / "model.onnx").write_bytes(b"no protobuf of ours")
    with pytest.raises(AdapterRefused, match="ONNX Runtime cannot load it"):
        OnnxLoader().load(adapter, read_manifest(adapter))


def quantized(adapter: Path, tolerance: float) -> None:
    """Put 8-bit integers first in the manifest."""
    quantize_dynamic(
        adapter / "model.onnx", adapter / "model.int8.onnx", weight_type=QuantType.QInt8
    )
    fp32 = OnnxModel("model.onnx", "fp32", 1e-4)
    rewrite(adapter, with_onnx(OnnxModel("model.int8.onnx", "int8", tolerance), fp32))


def off_by(engine: OnnxEngine, manifest: Manifest) -> float:
    """The largest distance of a golden logit from the recorded one."""
    assert manifest.head is not None
    return max(
        abs(one - other)
        for wanted in manifest.head.golden_logits
        for one, other in zip(
            logits(engine, manifest.golden[wanted.prompt].ids), wanted.logits, strict=True
        )
    )


def logits(engine: OnnxEngine, prompt: tuple[int, ...]) -> tuple[float, ...]:
    answer = engine.submit(prompt).result(TIMEOUT_S)
    assert isinstance(answer, HeadLogits)
    return answer.logits


def test_the_first_file_is_served_unless_the_operator_says_otherwise(
    adapter: Path, load: Callable[..., OnnxEngine]
) -> None:
    quantized(adapter, 0.5)
    manifest = read_manifest(adapter)
    assert off_by(load(adapter), manifest) > 1e-4
    assert off_by(load(adapter, precision="int8"), manifest) > 1e-4
    assert off_by(load(adapter, precision="fp32"), manifest) < 1e-5
    with pytest.raises(AdapterRefused, match="has int8, fp32, but model"):
        load(adapter, precision="bf16")


def test_a_file_that_was_not_judged_is_served_only_if_it_is_asked_for(
    adapter: Path, load: Callable[..., OnnxEngine]
) -> None:
    """8-bit products overflow on some processors; another file gives other labels."""
    quantized(adapter, 1e-6)
    with pytest.raises(
        AdapterRefused,
        match=r'1e-06 is allowed\. The adapter was judged in int8; .*encoder_precision = "fp32"',
    ):
        load(adapter)
    with pytest.raises(AdapterRefused, match=r"1e-06 is allowed$"):
        load(adapter, precision="int8")
    with structlog.testing.capture_logs() as logs:
        engine = load(adapter, precision="fp32")
    assert engine.precisions == ("fp32",)
    [event] = logs
    assert event["event"] == "engine.precision_not_judged"
    assert (event["serves"], event["judged"]) == ("fp32", "int8")


def test_an_invalid_prompt_is_rejected_without_its_ids(
    adapter: Path, load: Callable[..., OnnxEngine]
) -> None:
    engine, manifest = load(adapter), read_manifest(adapter)
    assert manifest.head is not None
    for bad in ((), (manifest.head.vocabulary,), (-1,), (5,) * 10_000):
        with pytest.raises(MessageRejected) as caught:
            engine.submit(bad).result(TIMEOUT_S)
        assert caught.value.reason == "engine_rejected"
        assert str(manifest.head.vocabulary) not in str(caught.value)
    assert logits(engine, manifest.golden[0].ids)


def test_a_prompt_on_which_the_runtime_fails_is_rejected_alone(
    adapter: Path, load: Callable[..., OnnxEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, golden = load(adapter, threads=1), read_manifest(adapter).golden
    works = engine._session.run
    monkeypatch.setattr(
        engine._session, "run", lambda ids: works(ids) if ids == golden[0].ids else 1 / 0
    )
    with pytest.raises(MessageRejected, match="ZeroDivisionError"):
        engine.submit(golden[1].ids).result(TIMEOUT_S)
    assert logits(engine, golden[0].ids)
    engine.check_health()


def test_an_engine_that_fails_on_everything_has_died_and_no_message_is_to_blame(
    adapter: Path, load: Callable[..., OnnxEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For instance out of memory: dead letters would be wrong. On a busy machine the engine is dead
    before all five are submitted."""
    engine, golden = load(adapter, threads=1), read_manifest(adapter).golden
    monkeypatch.setattr(engine._session, "run", lambda _: 1 / 0)
    for _ in range(5):
        with pytest.raises(EngineDied):
            engine.submit(golden[1].ids).result(TIMEOUT_S)
    with pytest.raises(EngineDied, match="fails on every prompt: ZeroDivisionError"):
        engine.check_health()
    with pytest.raises(EngineDied):
        engine.submit(golden[0].ids)


def test_closing_while_others_submit_leaves_nobody_waiting(
    adapter: Path, load: Callable[..., OnnxEngine]
) -> None:
    engine, ids = load(adapter, threads=2), read_manifest(adapter).golden[-1].ids
    futures: list[Any] = []

    def submit() -> None:
        with suppress(EngineDied):
            while True:
                futures.append(engine.submit(ids))

    threads = [threading.Thread(target=submit) for _ in range(3)]
    for thread in threads:
        thread.start()
    while len(futures) < 200:
        time.sleep(0.001)
    engine.close()
    for thread in threads:
        thread.join(TIMEOUT_S)
    engine.close()
    assert {type(future.exception(TIMEOUT_S)) for future in futures} <= {EngineDied, type(None)}
    with pytest.raises(EngineDied):
        engine.check_health()
    with pytest.raises(EngineDied):
        engine.submit(ids)


def test_emptying_the_queue_never_blocks(adapter: Path, load: Callable[..., OnnxEngine]) -> None:
    """Another thread may take the last request first; a worker would then never exit."""

    class Raced(SimpleQueue[Any]):
        def empty(self) -> bool:
            return False

    engine = load(adapter)
    engine._waiting, line = Raced(), engine._waiting
    emptying = threading.Thread(target=engine._empty, daemon=True)
    emptying.start()
    emptying.join(TIMEOUT_S)
    engine._waiting = line
    assert not emptying.is_alive()


def test_a_background_engine_has_a_lower_priority(
    adapter: Path, load: Callable[..., OnnxEngine]
) -> None:

    def niceness(engine: OnnxEngine) -> set[int]:
        """Each thread answers first, so it has set its own."""
        engine.warm_up([read_manifest(adapter).golden[0].ids] * 20)
        return {
            os.getpriority(os.PRIO_PROCESS, thread.native_id or 0) for thread in engine._threads
        }

    (labels,) = niceness(load(adapter, threads=1))
    background = OnnxLoader(threads=1).load(adapter, read_manifest(adapter), background=True)
    try:
        assert min(niceness(background)) > labels or labels >= 10
    finally:
        background.close()
