"""What an adapter has to show before it labels a customer's message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

from worker.contract import AdapterRefused, BaseModel, Canary, Encoders, Manifest, load_adapter
from worker.contract.verify import verify_tokens
from worker.core.labeller import Labeller
from worker.engine.port import Answer, Engine
from worker.errors import EngineDied, MessageRejected
from worker.lifecycle.refusal import Refusal
from worker.records.types import SupportMessage

_AT_A_TIME = 4
"""Few, so that the messages in the same engine hardly notice."""


def verify(directory: Path, digest: str, like: Manifest, encoders: Encoders) -> Manifest:
    """Check every file, the base and the tokens of an adapter; return its manifest.

    ``like`` is the contract of an adapter that serves: its base was verified when the worker
    started and is the one that is loaded, so a new adapter has to name the same digests. Raises
    Refusal.
    """
    try:
        manifest = load_adapter(directory)
    except AdapterRefused as error:
        raise Refusal("files", str(error)) from error
    if manifest.digest != digest:
        raise Refusal(
            "files",
            f"{directory}: has the digest {manifest.digest[:12]}… and is named by another: it was "
            "altered; publish the adapter again",
        )
    if not _same_base(manifest.base, like.base):
        raise Refusal(
            "base",
            f"{directory}: was trained on {manifest.base.name} ({manifest.base.revision}), and "
            f"{like.base.name} ({like.base.revision}) is loaded: their files differ; start workers "
            "with that base for it",
        )
    try:
        verify_tokens(manifest, encoders, directory)
    except AdapterRefused as error:
        raise Refusal("tokenizer", str(error)) from error
    return manifest


def try_own_canaries(labeller: Labeller, engine: Engine, timeout_s: float) -> int:
    """Have an adapter file the canaries of its own manifest; return how many there are.

    They were chosen far from review, so each must get its label. Raises Refusal.
    """
    manifest = labeller.manifest
    canaries = manifest.reference.canary if manifest.reference else ()
    wrong = _filed_wrongly(labeller, engine, canaries, timeout_s)
    if wrong:
        raise Refusal(
            "canary",
            f"{manifest.name} files {len(wrong)} of its own {len(canaries)} canaries otherwise "
            f"than recorded (of {_counted(wrong)}): not what was trained, or not on this engine",
        )
    return len(canaries)


def compare_on_canaries(
    labeller: Labeller, engine: Engine, serving: Manifest, max_share: float, timeout_s: float
) -> float | None:
    """Have a new adapter file the canaries of the one that serves; return the share it misses.

    None where there is nothing to compare: no canaries, or another set of labels. Raises Refusal
    above ``max_share``.
    """
    canaries = serving.reference.canary if serving.reference else ()
    names = {*serving.taxonomy.names}
    if not canaries or names != {*labeller.manifest.taxonomy.names}:
        return None
    wrong = _filed_wrongly(labeller, engine, canaries, timeout_s)
    share = len(wrong) / len(canaries)
    if share > max_share:
        raise Refusal(
            "worse",
            f"{labeller.manifest.name} misfiles {len(wrong)} of the {len(canaries)} canaries of "
            f"{serving.name}, which serves (of {_counted(wrong)}); adapters.canary_errors allows "
            f"{max_share:g} of them. If that is meant, publish it with --force",
        )
    return share


def _filed_wrongly(
    labeller: Labeller, engine: Engine, canaries: Sequence[Canary], timeout_s: float
) -> list[str]:
    """Return the right label of each canary that got none or another. Raises Refusal."""
    wrong = []
    for start in range(0, len(canaries), _AT_A_TIME):
        batch = canaries[start : start + _AT_A_TIME]
        try:
            asked = [(one, _ask(labeller, engine, one)) for one in batch]
            wrong += [
                one.label
                for one, future in asked
                if _label(labeller, future, timeout_s) != one.label
            ]
        except (EngineDied, TimeoutError) as error:
            raise Refusal("engine", f"the canaries were not answered: {error}") from error
    return wrong


def _ask(labeller: Labeller, engine: Engine, canary: Canary) -> Future[Answer] | None:
    try:
        prepared = labeller.prepare_message(SupportMessage(canary.message, None))
    except MessageRejected:
        return None
    return engine.submit(prepared.prompt_ids)


def _label(labeller: Labeller, future: Future[Answer] | None, timeout_s: float) -> str | None:
    if future is None:
        return None
    try:
        return labeller.decide(future.result(timeout_s)).label
    except MessageRejected:
        return None
    except TimeoutError:
        future.cancel()
        raise TimeoutError(f"no answer within {timeout_s:g} s") from None


def _counted(labels: Sequence[str]) -> str:
    counts = Counter(labels).most_common(5)
    return ", ".join(f"{label} {count}" for label, count in counts)


def _same_base(one: BaseModel, other: BaseModel) -> bool:
    """Whether the files are the same; what they are called is for people."""
    return (one.config_sha256, one.tokenizer_sha256, dict(one.weights)) == (
        other.config_sha256,
        other.tokenizer_sha256,
        dict(other.weights),
    )
