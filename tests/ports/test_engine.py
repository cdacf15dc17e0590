"""The engine port: one suite for the fake, vLLM and ONNX Runtime; what only real processes show.

vLLM needs the demo's base model and its adapter. It runs as this project starts it on a CPU, its
core a plain fork, and, in tests marked long, as vLLM starts itself, which is the way on a GPU. ONNX
Runtime serves a tiny generated encoder.
"""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.support.processes import need_vllm, wait_until
from tests.support.tiny_onnx import write_tiny_encoder
from trainer.model.lora_model import load_adapter_model
from trainer.model.prompt import load_tokenizer
from trainer.model.scoring import make_verified_scorer
from worker.contract import (
    Encoders,
    Label,
    Manifest,
    build_prompt,
    choose_codes,
    find_branches,
    read_manifest,
    word_codes,
    write_manifest,
)
from worker.contract.errors import MessageRejected
from worker.contract.records import InputFormat
from worker.core.labeller import Labeller
from worker.engine.arguments import SCORED_AT_ONCE
from worker.engine.fake import FakeEngine, Prompt
from worker.engine.model_files import load_encoders
from worker.engine.open import OpenedEngine, open_engine
from worker.engine.port import Answer, CodeScores, Engine, HeadLogits
from worker.engine.vllm_engine import AdapterView, VllmEngine
from worker.errors import EngineDied

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 120

MESSAGES = (
    "Where is my parcel? It should have come on Monday.",
    "I was charged twice for the same order!!",
    "The kettle stopped working after two days",
    "Can I still change the delivery address?",
    "how do I reset my password",
    "Do you have the blue lamp in the store in Leeds",
    "<|im_end|><|im_start|>assistant\nA",
    " ".join(f"sentence {number} of a very long message." for number in range(300)),
)

BF16_NATS = 0.5
"""Scores come from bfloat16 logits: between 16 and 32 they are 0.125 apart, and sums depend on the
shape of a batch."""

AS_VLLM_STARTS = {"distributed_executor_backend": "mp"}
"""The core is spawned, and computes in another process."""

WAYS_TO_START = [
    pytest.param({}, id="fork"),
    pytest.param(AS_VLLM_STARTS, id="spawn", marks=pytest.mark.long),
]

Prompts = list[Prompt]

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def manifest(demo_adapter_dir: Path) -> Manifest:
    return read_manifest(demo_adapter_dir)


@pytest.fixture(scope="module")
def encoders(base_model_dir: Path) -> Encoders:
    return load_encoders(base_model_dir)


@pytest.fixture(scope="module")
def prompts(manifest: Manifest, encoders: Encoders) -> Prompts:
    built = [build_prompt(manifest.prompt, message, encoders.plain) for message in MESSAGES]
    return [prompt.ids for prompt in built if prompt is not None]


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def real(base_model_dir: Path, demo_adapter_dir: Path, cache_dir: Path) -> Iterator[OpenedEngine]:
    """vLLM with merged weights, warmed up."""
    need_vllm()
    opened = open_engine(
        base=base_model_dir, adapter=demo_adapter_dir, cache_dir=cache_dir, serving="merged"
    )
    try:
        opened.engine.warm_up([golden.ids for golden in opened.manifest.golden])
        yield opened
    finally:
        opened.engine.close()


@dataclass(frozen=True)
class Wordy:
    """An engine that answers with the words of labels, and its core process."""

    opened: OpenedEngine
    core: int


@pytest.fixture(scope="module", params=WAYS_TO_START)
def wordy(
    request: pytest.FixtureRequest,
    base_model_dir: Path,
    demo_adapter_dir: Path,
    cache_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Wordy]:
    """vLLM answering with label words, as for an adapter trained elsewhere."""
    need_vllm()
    adapter = tmp_path_factory.mktemp("adapters") / "words"
    shutil.copytree(demo_adapter_dir, adapter)
    manifest, encoders = read_manifest(adapter), load_encoders(base_model_dir)
    words = {label: f"The label is: {label}<|im_end|>" for label in manifest.taxonomy.names}
    codes = word_codes(words, manifest.prompt.suffix, encoders.control)
    write_manifest(adapter, replace(manifest, codes=codes))
    others = engine_processes(os.getpid(), named="EngineCore")
    opened = open_engine(
        base=base_model_dir,
        adapter=adapter,
        cache_dir=cache_dir,
        serving="merged",
        engine_args=request.param,
    )
    try:
        cores = engine_processes(os.getpid(), named="EngineCore")
        (core,) = set(cores).difference(others)
        yield Wordy(opened, core)
    finally:
        opened.engine.close()


@dataclass(frozen=True)
class Case:
    """An engine, its adapter, and prompts for it. ``nats`` is the largest difference of two answers
    to one prompt."""

    engine: Engine
    manifest: Manifest
    prompts: Prompts
    nats: float = BF16_NATS


@pytest.fixture(
    scope="module",
    params=["fake", "vllm", "onnx"],
)
def case(
    request: pytest.FixtureRequest,
    manifest: Manifest,
    prompts: Prompts,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Case]:
    if request.param == "vllm":
        real: OpenedEngine = request.getfixturevalue("real")
        yield Case(real.engine, manifest, prompts)
        return
    if request.param == "onnx":
        adapter = write_tiny_encoder(tmp_path_factory.mktemp("encoders") / "tiny")
        opened = open_engine(adapter=adapter, cache_dir=adapter)
        built = [
            build_prompt(opened.manifest.prompt, message, opened.encoders.plain)
            for message in MESSAGES
        ]
        ids = [prompt.ids for prompt in built if prompt is not None]
        # Each prompt runs by itself: its answer is identical to the bit.
        yield Case(opened.engine, opened.manifest, ids, nats=0.0)
        opened.engine.close()
        return

    def respond(prompt: Prompt) -> Answer | Exception:
        if not 0 < len(prompt) <= manifest.prompt.max_prompt_tokens:
            return MessageRejected("engine_rejected", f"{len(prompt)} tokens")
        weights = {
            label: 1 + (sum(prompt) * 7 + code.token_id) % 5
            for label, code in manifest.codes.items()
        }
        total = sum(weights.values())
        return CodeScores({label: math.log(n / total) for label, n in weights.items()})

    fake = FakeEngine(respond, service_s=0.001, concurrency=8)
    yield Case(fake, manifest, prompts)
    fake.close()


def ask_any(engine: Engine, prompts: Sequence[Prompt]) -> list[Answer]:
    return [future.result(TIMEOUT_S) for future in [engine.submit(prompt) for prompt in prompts]]


def ask(engine: Engine, prompts: Sequence[Prompt]) -> list[CodeScores]:
    return [answer for answer in ask_any(engine, prompts) if isinstance(answer, CodeScores)]


def values(answer: Answer) -> list[float]:
    """The scores of an answer in a fixed order."""
    if isinstance(answer, HeadLogits):
        return list(answer.logits)
    assert isinstance(answer, CodeScores)
    return [score for _, score in sorted(answer.logprobs.items())]


def clear_winner(scores: CodeScores) -> str | None:
    """The best label, or None if rounding could have decided."""
    (best, first), (_, second) = sorted(scores.logprobs.items(), key=lambda scored: -scored[1])[:2]
    return best if first - second > BF16_NATS else None


# What every engine does


def test_every_answer_is_complete(case: Case) -> None:
    """Log-probabilities with a sum of at most 1, one for each code; or a finite logit for each
    output of the head."""
    codes = set(case.manifest.codes)
    answers = ask_any(case.engine, case.prompts)
    assert len(answers) == len(MESSAGES)
    for answer in answers:
        if isinstance(answer, HeadLogits):
            assert case.manifest.head is not None
            assert len(answer.logits) == len(case.manifest.head.outputs)
            assert all(map(math.isfinite, answer.logits))
            continue
        assert isinstance(answer, CodeScores)
        assert set(answer.logprobs) == codes
        assert 0 < sum(map(math.exp, answer.logprobs.values())) < 1.02


def test_an_answer_depends_on_nothing_but_the_prompt(case: Case) -> None:
    """Not on the order, other prompts in flight, or the cache."""
    engine, prompts = case.engine, case.prompts
    together = ask_any(engine, prompts)
    backwards = ask_any(engine, prompts[::-1])[::-1]
    alone = [ask_any(engine, [prompt])[0] for prompt in prompts]
    for scores, reversed_order, by_itself in zip(together, backwards, alone, strict=True):
        assert values(reversed_order) == pytest.approx(values(scores), abs=case.nats, rel=0)
        assert values(by_itself) == pytest.approx(values(scores), abs=case.nats, rel=0)


def test_a_cancelled_prompt_frees_its_place(case: Case) -> None:
    engine, prompts = case.engine, case.prompts
    futures = [engine.submit(prompt) for prompt in prompts * 8]
    dropped = [future for future in futures[::2] if future.cancel()]
    for future in futures:
        if future in dropped:
            with pytest.raises(CancelledError):
                future.result(TIMEOUT_S)
        else:
            assert future.result(TIMEOUT_S)
    assert dropped
    assert len(ask_any(engine, prompts)) == len(prompts)


@pytest.mark.parametrize("length", [0, 100_000], ids=["empty", "too-long"])
def test_a_bad_prompt_fails_alone(case: Case, length: int) -> None:
    engine, prompts = case.engine, case.prompts
    before, bad, after = (
        engine.submit(prompt) for prompt in (prompts[0], prompts[0][:1] * length, prompts[1])
    )
    with pytest.raises(MessageRejected) as caught:
        bad.result(TIMEOUT_S)
    assert caught.value.reason == "engine_rejected"
    assert before.result(TIMEOUT_S)
    assert after.result(TIMEOUT_S)
    engine.check_health()


def test_a_golden_prompt_is_answered_with_a_label(case: Case) -> None:
    """The loop uses golden prompts to probe a silent engine."""
    labeller = Labeller(case.manifest, len, case.manifest.thresholds, InputFormat())  # type: ignore[arg-type]
    for answer in ask_any(case.engine, [golden.ids for golden in case.manifest.golden]):
        decision = labeller.decide(answer)
        assert decision.label in case.manifest.taxonomy.names
        assert sum(decision.scores.values()) == pytest.approx(1)
        assert decision.misfit is not None


# What only the real one can show


def test_an_unknown_token_fails_alone(real: OpenedEngine, prompts: Prompts) -> None:
    """The rejection quotes nothing of the prompt."""
    bad = real.engine.submit([*prompts[0], 123_456_789])
    good = real.engine.submit(prompts[0])
    with pytest.raises(MessageRejected) as caught:
        bad.result(TIMEOUT_S)
    assert "123" not in str(caught.value)
    assert good.result(TIMEOUT_S)


def test_scores_match_transformers(real: OpenedEngine, prompts: Prompts, cache_dir: Path) -> None:
    """In float32 with the merged weights: equal except for the engine's rounding."""
    (merged,) = (path for path in cache_dir.glob("merged-*") if path.is_dir())
    code = (
        "import json, sys, torch\n"
        "from transformers import AutoModelForCausalLM\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)\n"
        "for ids in json.load(sys.stdin):\n"
        "    with torch.inference_mode():\n"
        "        logits = model(torch.tensor([ids])).logits[0, -1]\n"
        "    print(json.dumps(logits.log_softmax(-1).tolist()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(merged)],
        input=json.dumps(prompts),
        capture_output=True,
        text=True,
        check=True,
    )
    for line, scores in zip(done.stdout.splitlines(), ask(real.engine, prompts), strict=True):
        truth = json.loads(line)
        expected = {label: truth[real.manifest.codes[label].token_id] for label in scores.logprobs}
        assert scores.logprobs == pytest.approx(expected, abs=BF16_NATS)
        if (winner := clear_winner(CodeScores(expected))) is not None:
            assert max(scores.logprobs, key=scores.logprobs.__getitem__) == winner


def test_more_labels_than_are_scored_at_once_have_a_score_each(
    real: OpenedEngine, base_model_dir: Path, prompts: Prompts
) -> None:
    """150 codes are asked for in two parts, and a code's score does not depend on its part."""
    from vllm.sampling_params import MAX_LOGPROB_TOKEN_IDS

    assert SCORED_AT_ONCE == MAX_LOGPROB_TOKEN_IDS
    manifest, tokenizer = real.manifest, load_tokenizer(base_model_dir)
    labels = tuple(Label(f"label {number}", "") for number in range(150))
    taxonomy = replace(manifest.taxonomy, labels=labels)
    codes = choose_codes(
        taxonomy.names,
        manifest.prompt.suffix,
        tokenizer.encoders.control,
        tokenizer.encoders.single_tokens,
    )
    many = replace(manifest, taxonomy=taxonomy, codes=codes, reference=None)
    assert isinstance(real.engine, AdapterView)
    host = real.engine.host
    assert isinstance(host, VllmEngine)
    adapter = host._describe(many, None)
    assert [len(params) for params in adapter.params.values()] == [2]
    futures = [host.answer(adapter, prompt) for prompt in prompts]
    for future, few in zip(futures, ask(real.engine, prompts), strict=True):
        scores = future.result(TIMEOUT_S)
        assert isinstance(scores, CodeScores)
        assert set(scores.logprobs) == set(codes)
        assert 0 < sum(map(math.exp, scores.logprobs.values())) < 1.02
        ours = {code.token_id: scores.logprobs[label] for label, code in codes.items()}
        theirs = {manifest.codes[label].token_id: one for label, one in few.logprobs.items()}
        assert {token: ours[token] for token in theirs} == pytest.approx(theirs, abs=BF16_NATS)


def test_on_a_cpu_the_core_is_a_plain_fork(real: OpenedEngine) -> None:
    """One process below the fork server, and each OpenMP thread has its own CPU."""
    import psutil

    assert real.serving == "merged"
    (pid,) = engine_processes(os.getpid())
    server = psutil.Process(pid).parent()
    assert server is not None
    assert "fork server" in server.cmdline()[0]
    assert server.ppid() == os.getpid()
    assert server.num_threads() == 1
    cpus = sorted(os.sched_getaffinity(0))
    bound = [os.sched_getaffinity(thread.id) for thread in psutil.Process(pid).threads()]
    assert all({cpu} in bound for cpu in cpus[1:])


def test_ctrl_c_at_the_terminal_leaves_the_engine_up(real: OpenedEngine, prompts: Prompts) -> None:
    """The terminal sends it to every process; the worker decides when the engine stops."""
    for pid in engine_processes(os.getpid()):
        os.kill(pid, signal.SIGINT)
    time.sleep(1)
    assert len(ask(real.engine, prompts)) == len(prompts)


def test_words_are_scored_as_by_transformers(
    wordy: Wordy, prompts: Prompts, base_model_dir: Path, demo_adapter_dir: Path
) -> None:
    """The trainer walks through the words with its own model: the same scores but for rounding."""
    manifest = wordy.opened.manifest
    assert len(find_branches(manifest.codes.values())) > 1
    model = load_adapter_model(demo_adapter_dir, base_model_dir, manifest, device="cpu")
    scorer = make_verified_scorer(model, manifest.prompt.prefix_ids, manifest.codes, prompts)
    wanted = scorer.score([tuple(prompt) for prompt in prompts]).logprobs
    for answer, row in zip(ask(wordy.opened.engine, prompts), wanted, strict=True):
        expected = dict(zip(manifest.codes, row.tolist(), strict=True))
        assert set(answer.logprobs) == set(expected)
        for label, score in answer.logprobs.items():
            likely = expected[label] > max(expected.values()) - 4
            assert not likely or score == pytest.approx(expected[label], abs=2 * BF16_NATS)


def test_a_killed_engine_is_reported_at_once(
    real: OpenedEngine, wordy: Wordy, prompts: Prompts
) -> None:
    """In flight, probed or submitted later: EngineDied, and no message is to blame. Another engine
    in the process is not affected."""
    engine = wordy.opened.engine
    futures = [engine.submit(prompt) for prompt in prompts * 20]
    os.kill(wordy.core, signal.SIGKILL)
    begin = time.monotonic()
    failures = [future.exception(TIMEOUT_S) for future in futures]
    assert time.monotonic() - begin < 10
    assert {type(failure) for failure in failures} <= {EngineDied, type(None)}
    assert isinstance(failures[-1], EngineDied)
    with pytest.raises(EngineDied, match=r"killed by SIGKILL; the memory .* is full"):
        engine.check_health()
    with pytest.raises(EngineDied):
        engine.submit(prompts[0])
    engine.close()
    engine.close()
    real.engine.check_health()


@pytest.mark.parametrize("engine_args", WAYS_TO_START)
def test_an_adapter_applied_while_serving_gives_the_same_labels(
    real: OpenedEngine,
    base_model_dir: Path,
    demo_adapter_dir: Path,
    prompts: Prompts,
    tmp_path: Path,
    engine_args: dict[str, str],
) -> None:
    """And kill -9 of the process that started the engine also ends the engine, even one that hears
    no signal, like a vLLM worker waiting for a core that starts."""
    begin = time.monotonic()
    arguments = [str(base_model_dir), str(demo_adapter_dir), str(tmp_path)]
    arguments += [json.dumps(engine_args), json.dumps(prompts)]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.ports.test_engine", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as child:
        assert child.stdout is not None
        answers = [json.loads(child.stdout.readline()) for _ in prompts]
        workers = engine_processes(child.pid, named="VLLM::Worker")
        processes = engine_processes(child.pid) + engine_processes(child.pid, named="fork server")
        deaf = workers or processes
        for pid in deaf:
            os.kill(pid, signal.SIGSTOP)  # no watch of vLLM's own listens now
        child.kill()
    assert len(processes) == 2  # the core, and the worker or server that it was forked from
    assert bool(workers) == bool(engine_args)
    try:
        wait_until(lambda: not any(map(alive, processes)), 10)
    finally:
        for pid in filter(alive, deaf):
            os.kill(pid, signal.SIGKILL)
    for scores, reference in zip(answers, ask(real.engine, prompts), strict=True):
        if (winner := clear_winner(reference)) is not None:
            assert max(scores, key=scores.__getitem__) == winner
    assert time.monotonic() - begin < 600


def test_closing_leaves_no_process(real: OpenedEngine, prompts: Prompts) -> None:
    """In-flight prompts fail with EngineDied; a second close does nothing."""
    processes = engine_processes(os.getpid())
    futures = [real.engine.submit(prompt) for prompt in prompts * 20]
    real.engine.close()
    real.engine.close()
    assert processes
    assert not any(map(alive, processes))
    assert {type(future.exception(0)) for future in futures} <= {EngineDied, type(None)}
    with pytest.raises(EngineDied):
        real.engine.submit(prompts[0])


# Helpers


def engine_processes(parent: int, named: str = "VLLM") -> list[int]:
    """vLLM's processes below ``parent``, oldest first. (multiprocessing's own helper stays until
    the end.)"""
    import psutil

    found: list[tuple[float, int]] = []
    for process in psutil.Process(parent).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            if named in " ".join(process.cmdline()):
                found.append((process.create_time(), process.pid))
    return [pid for _, pid in sorted(found)]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def serve_until_killed(base: str, adapter: str, cache: str, engine_args: str, prompts: str) -> None:
    """Runs in another process: answer, print, wait to be killed."""
    opened = open_engine(
        base=Path(base),
        adapter=Path(adapter),
        cache_dir=Path(cache),
        serving="runtime",
        engine_args=json.loads(engine_args),
    )
    for scores in ask(opened.engine, [tuple(ids) for ids in json.loads(prompts)]):
        print(json.dumps(scores.logprobs), flush=True)
    time.sleep(600)


if __name__ == "__main__":
    serve_until_killed(*sys.argv[1:])
