"""Make an adapter ready to serve: verify, load, and warm it up, and try it on its probes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import structlog

from worker.common.errors import describe_private
from worker.contract import AdapterRefused, Encoders, Manifest, Probe
from worker.contract.errors import MessageRejected
from worker.contract.records import SupportMessage
from worker.contract.verify import prompted_by, verify_files, verify_tokens
from worker.core.labeller import Labeller, ServingAdapter
from worker.engine.memory import TooLarge
from worker.engine.model_files import Bases
from worker.engine.port import AdapterLoader, Answer, Engine
from worker.errors import EngineDied
from worker.lifecycle.events import Refusal

MAX_ERROR_RATE = 0.1
"""The largest share of the serving adapter's probes that a new adapter may misclassify. The old one
was sure of these messages, so an equally good adapter misclassifies few. To publish one that is
meant to differ, use --force."""

_log = structlog.get_logger("worker.adapters")
# Few, so that messages in the same engine are hardly delayed.
_AT_A_TIME = 4


@dataclass(frozen=True, slots=True)
class AdapterFactory:
    """Makes adapters ready to serve. ``answer_s``: how long an answer to a probe may take.
    ``check_origin`` raises AdapterRefused for an adapter's directory that must not serve."""

    files: Bases
    loader: AdapterLoader
    serve: Callable[[Encoders, Manifest, Engine], ServingAdapter]
    answer_s: float
    check_origin: Callable[[Path], None] = lambda _: None

    def make(
        self, directory: Path, digest: str, *, compared_with: Manifest | None, background: bool
    ) -> ServingAdapter:
        """Verify, load, and try the adapter in ``directory``. Blocks. Raises Refusal.

        ``compared_with``: the serving adapter's manifest; on its probes the new adapter must be
        about as good. ``background``: its prompts have lower priority than other adapters'.
        """
        manifest, encoders = verify_adapter(directory, digest, self.files)
        try:
            self.check_origin(directory)
        except AdapterRefused as error:
            raise Refusal("signature", str(error)) from error
        try:
            engine = self.loader.load(directory, manifest, background=background)
        except TooLarge as error:
            raise Refusal("memory", error.problem) from error
        except Exception as error:  # engines raise errors of their own, such as CUDA out of memory
            raise Refusal("engine", describe_private(error)) from error
        try:
            adapter = self.serve(encoders, manifest, engine)
            self._try(adapter, compared_with)
        except BaseException:  # whatever ends the trial: the engine would keep its memory
            engine.close()
            raise
        return adapter

    def _try(self, adapter: ServingAdapter, compared_with: Manifest | None) -> None:
        labeller, engine = adapter.labeller, adapter.engine
        try:
            engine.warm_up([golden.ids for golden in adapter.manifest.golden])
        except Exception as error:
            raise Refusal("engine", describe_private(error)) from error
        check_own_probes(labeller, engine, self.answer_s)
        if compared_with is not None:
            compare_on_probes(labeller, engine, compared_with, self.answer_s)


def verify_adapter(directory: Path, digest: str, files: Bases) -> tuple[Manifest, Encoders]:
    """Check an adapter's files, base, and tokens; return its manifest and tokenizer.

    Raises Refusal.
    """
    try:
        manifest = verify_files(directory)
    except AdapterRefused as error:
        raise Refusal("files", str(error)) from error
    if manifest.digest != digest:
        raise Refusal(
            "files",
            f"{directory}: its digest is {manifest.digest[:12]}… instead of {digest[:12]}…: it was "
            "changed after it was published. Publish the adapter again",
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
    """Classify an adapter's own probes; return how many there are. Raises Refusal.

    The trainer chooses probes far from review, so each must get its label. An adapter without
    probes is not tried, which is logged once for each load.
    """
    manifest = labeller.manifest
    probes = manifest.probes
    if not probes:
        _log.warning(
            "adapter.no_probes",
            adapter=manifest.name,
            adapter_digest=manifest.digest[:12],
            effect="serves without a trial on messages with known labels",
        )
    wrong = _misclassified(labeller, engine, probes, timeout_s)
    if wrong:
        raise Refusal(
            "probes",
            f"{manifest.name} misclassifies {len(wrong)} of its own {len(probes)} probes (labels: "
            f"{_counted(wrong)}): its files are not those that were trained, or this engine "
            "computes differently. Publish the adapter again",
        )
    return len(probes)


def compare_on_probes(
    labeller: Labeller, engine: Engine, serving: Manifest, timeout_s: float
) -> None:
    """Classify the serving adapter's probes with a new adapter, unless it has other labels. Raises
    Refusal above ``MAX_ERROR_RATE``."""
    probes = serving.probes
    # Probes of another taxonomy say nothing about an adapter that cannot give their labels.
    names = {*serving.taxonomy.names}
    if not probes or names != {*labeller.manifest.taxonomy.names}:
        return
    wrong = _misclassified(labeller, engine, probes, timeout_s)
    if len(wrong) > MAX_ERROR_RATE * len(probes):
        raise Refusal(
            "worse",
            f"{labeller.manifest.name} misclassifies {len(wrong)} of the {len(probes)} "
            f"probes of {serving.name}, the adapter before it (labels: {_counted(wrong)}); "
            f"{MAX_ERROR_RATE:.0%} are allowed. If that is intended, publish it with --force",
        )


def _misclassified(
    labeller: Labeller, engine: Engine, probes: Sequence[Probe], timeout_s: float
) -> list[str]:
    """Return the correct labels of the misclassified probes. Raises Refusal."""
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
