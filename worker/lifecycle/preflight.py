"""What an adapter has to show before it labels a customer's message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import structlog

from worker.contract import AdapterRefused, Encoders, Manifest, Probe
from worker.contract.records import SupportMessage
from worker.contract.verify import prompted_by, verify_files, verify_tokens
from worker.core.labeller import Labeller
from worker.engine.model_files import ModelFiles
from worker.engine.port import Answer, Engine
from worker.errors import EngineDied, MessageRejected
from worker.lifecycle.refusal import Refusal

MAX_ERROR_RATE = 0.1
"""Largest share of the serving adapter's probes that a new one may misclassify. The old one was
sure of these messages, so an equally good adapter misses few. One that is meant to differ is
published with --force."""

_log = structlog.get_logger("worker.adapters")

_AT_A_TIME = 4
"""Few, so that the messages in the same engine hardly notice."""


def verify_beside(directory: Path, digest: str, files: ModelFiles) -> tuple[Manifest, Encoders]:
    """Check every file, the base and the tokens of an adapter; return its manifest and tokenizer.

    Raises Refusal.
    """
    try:
        manifest = verify_files(directory)
    except AdapterRefused as error:
        raise Refusal("files", str(error)) from error
    if manifest.digest != digest:
        raise Refusal(
            "files",
            f"{directory}: has the digest {manifest.digest[:12]}… and is named by another: it was "
            "altered; publish the adapter again",
        )
    try:
        encoders = files.encoders(*prompted_by(directory, manifest))
    except AdapterRefused as error:
        raise Refusal("base", str(error)) from error
    try:
        verify_tokens(manifest, encoders, directory)
    except AdapterRefused as error:
        raise Refusal("tokenizer", str(error)) from error
    return manifest, encoders


def check_own_probes(labeller: Labeller, engine: Engine, timeout_s: float) -> int:
    """Have an adapter classify its own probes; return how many there are.

    They were chosen far from review, so each must get its label. An adapter without any is not
    tried, which is logged, once for each time that it is brought up. Raises Refusal.
    """
    manifest = labeller.manifest
    probes = manifest.probes
    if not probes:
        _log.warning(
            "adapter.no_probes",
            adapter=manifest.name,
            adapter_digest=manifest.digest[:12],
            effect="serves without having been tried on messages whose labels are known",
        )
    wrong = _misclassified(labeller, engine, probes, timeout_s)
    if wrong:
        raise Refusal(
            "probes",
            f"{manifest.name} misclassifies {len(wrong)} of its own {len(probes)} "
            f"probes (of {_counted(wrong)}): it is not what was trained, or not on this engine",
        )
    return len(probes)


def compare_on_probes(
    labeller: Labeller, engine: Engine, serving: Manifest, timeout_s: float
) -> float | None:
    """Have a new adapter classify the probes of the one that serves; return its error rate.

    None where there is nothing to compare: no probes, or another set of labels. Raises Refusal
    above ``MAX_ERROR_RATE``.
    """
    probes = serving.probes
    names = {*serving.taxonomy.names}
    if not probes or names != {*labeller.manifest.taxonomy.names}:
        return None
    wrong = _misclassified(labeller, engine, probes, timeout_s)
    error_rate = len(wrong) / len(probes)
    if error_rate > MAX_ERROR_RATE:
        raise Refusal(
            "worse",
            f"{labeller.manifest.name} misclassifies {len(wrong)} of the {len(probes)} "
            f"probes of {serving.name}, the adapter before it (of {_counted(wrong)}); "
            f"at most {MAX_ERROR_RATE:.0%} may be. If that is meant, publish it with --force",
        )
    return error_rate


def _misclassified(
    labeller: Labeller, engine: Engine, probes: Sequence[Probe], timeout_s: float
) -> list[str]:
    """Return the right label of each probe that got none or another. Raises Refusal."""
    wrong = []
    for start in range(0, len(probes), _AT_A_TIME):
        batch = probes[start : start + _AT_A_TIME]
        try:
            asked = [(probe, _ask(labeller, engine, probe)) for probe in batch]
            wrong += [
                probe.label
                for probe, future in asked
                if _label(labeller, future, timeout_s) != probe.label
            ]
        except (EngineDied, TimeoutError) as error:
            raise Refusal("engine", f"the probes were not answered: {error}") from error
    return wrong


def _ask(labeller: Labeller, engine: Engine, probe: Probe) -> Future[Answer] | None:
    try:
        prepared = labeller.prepare_message(SupportMessage(probe.message, None))
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
