"""The adapter manifest: everything that a worker must know about an adapter, shipped with it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from worker.contract.codec import LEAVE_OUT_EMPTY, decode, encode
from worker.contract.digest import sha256_json, write_atomically
from worker.contract.errors import AdapterRefused, TaxonomyError
from worker.contract.head import Head, OutOfScopeMethod, check_head
from worker.contract.prompt import PromptSpec
from worker.contract.scoring import Code, Decision, Thresholds, review_reasons
from worker.contract.taxonomy import Taxonomy

Kind = Literal["lora-code", "encoder", "embedding-linear", "cascade"]
"""The kind of model: a LoRA adapter of an instruct base that answers with a one-token code (or with
words of several), an encoder trained together with its head, a linear head on the embeddings of an
unchanged encoder, or a sequence of these."""

ENCODER_KINDS: tuple[Kind, ...] = ("encoder", "embedding-linear")
"""Kinds whose adapters carry the encoder's ``tokenizer.json``."""

TOKENIZER_NAME = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class FileDigest:
    """The SHA-256 and size in bytes that a file must have."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class BaseModel:
    """The base an adapter was trained on.

    ``config_sha256`` covers the config's values (``verify.config_digest``), the digests of
    tokenizer and weights their bytes.
    """

    name: str
    revision: str
    config_sha256: str
    tokenizer_sha256: str
    weights: Mapping[str, FileDigest]


@dataclass(frozen=True, slots=True)
class Lora:
    """The shape of a LoRA adapter's weights."""

    rank: int
    alpha: float
    target_modules: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"lora.rank is {self.rank}; it must be at least 1")

    @property
    def scale(self) -> float:
        """Factor on the low-rank product B @ A (Hu et al. 2021, arXiv 2106.09685)."""
        return self.alpha / self.rank


@dataclass(frozen=True, slots=True)
class Calibration:
    """The softmax temperature, the number of validation examples it was fitted on, and the quality
    of the fit: negative log-likelihood in nats and expected calibration error (0 to 1).

    A head's logits are divided by the temperature before the probabilities of outputs with the
    same label are summed."""

    temperature: float
    examples: int
    nll: float | None = None
    ece: float | None = None


@dataclass(frozen=True, slots=True)
class GoldenPrompt:
    """A message and the exact token ids its prompt had at training time."""

    message: str
    ids: tuple[int, ...]
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Probe:
    """A message with a known label, on which a worker tries an adapter before it serves."""

    message: str
    label: str


@dataclass(frozen=True, slots=True)
class Reference:
    """Distributions in the training data, with which drift detection compares live traffic.

    ``label_shares`` are the labels' shares in the whole dataset, before any cap on a label; they
    sum to 1. ``confidence``, ``off_label_mass`` and ``out_of_scope`` are quantiles over the
    validation set by probability ("0.05"). ``off_label_mass`` is empty with a head; only heads
    have ``out_of_scope``.
    """

    label_shares: Mapping[str, float]
    confidence: Mapping[str, float]
    off_label_mass: Mapping[str, float]
    out_of_scope: Mapping[str, float] = field(default_factory=dict, metadata=LEAVE_OUT_EMPTY)

    @property
    def misfit(self) -> Mapping[str, float]:
        """Quantiles of ``Decision.misfit``."""
        return self.out_of_scope or self.off_label_mass


# --- Cascades ---
#
# A cascade's manifest has no weights. It names published adapters, its stages, by digest; their
# directories are next to its own:
#
#     STORE/<digest of the cascade>/manifest.json
#     STORE/<digest of a stage>/


MOST_STAGES = 4


@dataclass(frozen=True, slots=True)
class CascadeStage:
    """One stage of a cascade: an adapter, and when it answers.

    A stage answers if its confidence is at least ``sure_from`` and its ``thresholds`` give no
    reason for review; other messages go to the next stage. The last stage has no ``sure_from`` and
    answers the rest; its ``thresholds`` send answers to review. ``share`` is the part of the
    validation set that the stage answered (0 to 1), ``out_of_scope`` its head's method, if any.
    """

    digest: str
    name: str
    kind: Kind
    base: str
    base_revision: str
    thresholds: Thresholds
    share: float
    sure_from: float | None = field(default=None, metadata=LEAVE_OUT_EMPTY)
    out_of_scope: OutOfScopeMethod | None = field(default=None, metadata=LEAVE_OUT_EMPTY)

    def is_sure(self, decision: Decision) -> bool:
        """Whether this stage answers, rather than the next."""
        if self.sure_from is None:
            return True
        return decision.confidence >= self.sure_from and not review_reasons(
            decision, self.thresholds
        )


def stage_directory(cascade: Path, stage: CascadeStage) -> Path:
    """Return the directory of a stage of the cascade in directory ``cascade``."""
    return cascade.resolve().parent / stage.digest


def check_stages(stages: Sequence[CascadeStage]) -> None:
    """Raise ValueError if the stages do not form a cascade."""
    if not 2 <= len(stages) <= MOST_STAGES:
        raise ValueError(f"stages has {len(stages)} entries; a cascade has 2 to {MOST_STAGES}")
    digests = [stage.digest for stage in stages]
    if len(set(digests)) != len(digests):
        raise ValueError("stages names an adapter twice")
    for at, stage in enumerate(stages):
        # The digest becomes a path: anything else could lead out of the store.
        if not is_digest(stage.digest):
            raise ValueError(f"stages[{at}].digest is not a digest of 64 hexadecimal digits")
        if stage.kind == "cascade":
            raise ValueError(f"stages[{at}] is a cascade itself: list its stages instead")
        last = at == len(stages) - 1
        if last is not (stage.sure_from is None):
            raise ValueError("every stage but the last needs sure_from; the last must have none")
        if stage.sure_from is not None and not 0 < stage.sure_from <= 1:
            raise ValueError(
                f"stages[{at}].sure_from is {stage.sure_from}; it must be above 0 and at most 1"
            )


# --- The adapter's digest ---


_DIGEST = re.compile(r"[0-9a-f]{64}")


def is_digest(text: str) -> bool:
    """Whether ``text`` is an adapter's whole digest, in lower case."""
    return _DIGEST.fullmatch(text) is not None


def manifest_digest(data: Mapping[str, Any]) -> str:
    """Return the adapter's digest: the SHA-256 of its manifest's canonical JSON.

    It covers the JSON in ``manifest.json`` rather than the fields of these classes, so that a
    renamed field does not make every stored adapter look altered. Canonical means: keys sorted by
    code point, no blanks, UTF-8, and a number without a fraction written as an integer (``8``,
    ``8.0`` and ``8e0`` are the same JSON number, and tools that rewrite the file exchange them).
    Every key counts: an absent key and a key with null give different digests.

    Raises ValueError for a value without a JSON form (NaN, a lone surrogate).
    """
    return sha256_json(_whole_numbers(data))


def _whole_numbers(value: Any) -> Any:
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        return {key: _whole_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_whole_numbers(inner) for inner in value]
    return value


SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"

Decoding = Literal["code"]


@dataclass(frozen=True, slots=True)
class Manifest:
    """An adapter's contract. ``digest`` identifies the adapter everywhere.

    ``kind`` decides which of ``decoding``, ``codes``, ``lora``, ``head`` and ``stages`` are set. A
    cascade has the prompt and golden prompts of its first stage and the base of its last.

    A manifest that was read has the digest of the JSON it was read from. Any other, such as a copy
    with a changed field, has the digest of the JSON that ``write_manifest`` would write.

    ``data``, ``metrics`` and ``versions`` are for readers, not for the worker: the training data,
    the figures on the hold-out, and the versions of the software.
    """

    name: str
    created_at: str
    kind: Kind
    base: BaseModel
    taxonomy: Taxonomy
    prompt: PromptSpec
    calibration: Calibration
    thresholds: Thresholds
    golden: tuple[GoldenPrompt, ...]
    files: Mapping[str, FileDigest]
    decoding: Decoding | None = field(default=None, metadata=LEAVE_OUT_EMPTY)
    codes: Mapping[str, Code] = field(default_factory=dict, metadata=LEAVE_OUT_EMPTY)
    lora: Lora | None = field(default=None, metadata=LEAVE_OUT_EMPTY)
    head: Head | None = field(default=None, metadata=LEAVE_OUT_EMPTY)
    stages: tuple[CascadeStage, ...] = field(default=(), metadata=LEAVE_OUT_EMPTY)
    reference: Reference | None = field(default=None, metadata=LEAVE_OUT_EMPTY)
    data: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION
    # init=False, so that ``dataclasses.replace`` does not copy it to a changed manifest.
    digest_as_read: str | None = field(default=None, init=False, repr=False, compare=False)
    # Read from the file next to the adapter (``verify.attach_probes``): probes are private
    # messages, and not part of the manifest.
    probes: tuple[Probe, ...] = field(default=(), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.calibration.temperature > 0:
            raise ValueError(f"temperature is {self.calibration.temperature}; it must be above 0")
        if not self.golden:
            raise ValueError("a manifest needs at least one golden prompt")
        _check_kind(self)
        known = self.reference.label_shares if self.reference is not None else ()
        if strange := sorted(set(known).difference(self.taxonomy.names)):
            raise ValueError(f"the reference names unknown labels: {strange}")

    @property
    def needs_base(self) -> bool:
        """Whether serving needs the base's files: not for an encoder that carries its whole model
        as ONNX, nor for a cascade, whose stages have their own bases."""
        return not self.stages and not (
            self.kind in ENCODER_KINDS and self.head is not None and self.head.onnx
        )

    @property
    def answers_with(self) -> str:
        """How it answers, for display: "code", "head", or "stages"."""
        return self.decoding or ("stages" if self.stages else "head")

    @property
    def digest(self) -> str:
        """SHA-256 over the whole manifest, and so over the digest of every file it names."""
        return self.digest_as_read or manifest_digest(encode(self))


def _check_kind(manifest: Manifest) -> None:
    """Raise ValueError if a part is missing or does not belong to the kind."""
    kind, head = manifest.kind, manifest.head
    if kind == "cascade":
        _check_cascade(manifest)
        return
    _refuse(kind, stages=bool(manifest.stages))
    if kind == "lora-code":
        _refuse(kind, head=head is not None)
        _require(kind, lora=manifest.lora is not None, decoding=manifest.decoding is not None)
        if set(manifest.codes) != set(manifest.taxonomy.names):
            raise ValueError("decoding 'code' needs a code for every label of the taxonomy")
        if manifest.thresholds.review_out_of_scope is not None:
            raise ValueError(f"thresholds.review_out_of_scope needs a head; kind {kind!r} has none")
        return
    _refuse(kind, codes=bool(manifest.codes), decoding=manifest.decoding is not None)
    _require(kind, head=head is not None)
    assert head is not None
    check_head(head, manifest.taxonomy, len(manifest.golden))
    if kind == "embedding-linear":
        _refuse(kind, lora=manifest.lora is not None)
    if manifest.thresholds.review_off_label_mass is not None:
        raise ValueError(
            f"thresholds.review_off_label_mass: kind {kind!r} has no off-label mass; use "
            "review_out_of_scope"
        )
    if manifest.reference is not None and manifest.reference.off_label_mass:
        raise ValueError(f"reference.off_label_mass: kind {kind!r} has no off-label mass")
    _check_files(manifest)


def _check_cascade(manifest: Manifest) -> None:
    _refuse(
        manifest.kind,
        codes=bool(manifest.codes),
        decoding=manifest.decoding is not None,
        lora=manifest.lora is not None,
        head=manifest.head is not None,
        files=bool(manifest.files),
    )
    check_stages(manifest.stages)
    if manifest.reference is not None and manifest.reference.misfit:
        # The stages' scores have different scales: quantiles over all of them mean nothing.
        raise ValueError("reference: a cascade has no quantiles of off-label mass or scope")


def _check_files(manifest: Manifest) -> None:
    assert manifest.head is not None
    named = set(manifest.head.files)
    if missing := sorted(named.difference(manifest.files)):
        raise ValueError(f"files lacks the digests of files that the head names: {missing}")
    tokenizer = manifest.files.get(TOKENIZER_NAME)
    if tokenizer is None or tokenizer.sha256 != manifest.base.tokenizer_sha256:
        raise ValueError(
            f"kind {manifest.kind!r} carries the {TOKENIZER_NAME} of its base: files must list "
            "it with the digest base.tokenizer_sha256"
        )


def _require(kind: Kind, **parts: bool) -> None:
    if missing := [name for name, there in parts.items() if not there]:
        raise ValueError(f"kind {kind!r} needs {' and '.join(missing)}")


def _refuse(kind: Kind, **parts: bool) -> None:
    if extra := [name for name, there in parts.items() if there]:
        raise ValueError(f"kind {kind!r} has no {' and no '.join(extra)}")


def write_manifest(directory: Path, manifest: Manifest) -> Path:
    """Write ``manifest.json`` atomically. Call it last, when every file that it names is complete:
    a directory with a manifest is a published adapter. Raises OSError, ValueError."""
    path = directory / MANIFEST_NAME
    text = json.dumps(encode(manifest), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text.encode("utf-8") + b"\n")
    return path


def read_manifest(directory: Path) -> Manifest:
    """Read a directory's manifest. Raises AdapterRefused."""
    path = directory / MANIFEST_NAME
    if not directory.is_dir():
        raise AdapterRefused(directory, "there is no such adapter directory")
    if not path.is_file():
        raise AdapterRefused(
            path, "missing: not a published adapter (the manifest is written last)"
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterRefused(path, f"not readable as JSON: {error}") from error
    if not isinstance(data, dict):
        raise AdapterRefused(path, "must hold a JSON object")
    version = data.get("schema_version")
    # Before anything else: the keys of another version would be reported as unknown or missing.
    if version != SCHEMA_VERSION or type(version) is not int:  # True and 1.0 equal 1
        raise AdapterRefused(
            path,
            f"schema_version is {version!r} and this version reads {SCHEMA_VERSION}: publish the "
            "adapter again with a trainer of this version, or run the version that made it",
        )
    try:
        return _from_json(data)
    except (ValueError, TaxonomyError) as error:
        raise AdapterRefused(path, str(error)) from error


def _from_json(data: dict[str, Any]) -> Manifest:
    """Build a manifest with the digest of ``data``. Raises ValueError, TaxonomyError."""
    manifest = decode(Manifest, data, "manifest")
    assert isinstance(manifest, Manifest)
    # Computed from the file's JSON, not from the fields: a default filled in while reading would
    # change it. (The class is frozen.)
    object.__setattr__(manifest, "digest_as_read", manifest_digest(data))
    return manifest
