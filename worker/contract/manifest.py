"""The adapter manifest: everything a worker must know about an adapter, shipped with it."""

from __future__ import annotations

import json
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

__all__ = [
    "MANIFEST_NAME",
    "SCHEMA_VERSION",
    "BaseModel",
    "Calibration",
    "FileDigest",
    "GoldenPrompt",
    "Lora",
    "Manifest",
    "Probe",
    "Reference",
]


Kind = Literal["lora-code", "encoder", "embedding-linear", "cascade"]
"""What answers: a LoRA adapter of an instruct base by one token of code (or by a label's words),
an encoder trained with its head, a linear head on the sentence embeddings of an encoder that was
left as it is, or several of these, one after the other (``worker.contract.manifest``)."""

ENCODER_KINDS: tuple[Kind, ...] = ("encoder", "embedding-linear")
"""Kinds that an encoder answers: an adapter of them carries the encoder's ``tokenizer.json``."""

TOKENIZER_NAME = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class FileDigest:
    """What a file must be: its SHA-256 in hexadecimal and its size in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class BaseModel:
    """The base an adapter was trained on.

    ``config_sha256`` is taken over the config's meaning (see ``base.config_digest``), the
    tokenizer's and the weights' over their bytes.
    """

    name: str
    revision: str
    config_sha256: str
    tokenizer_sha256: str
    weights: Mapping[str, FileDigest]


@dataclass(frozen=True, slots=True)
class Lora:
    """The shape of the adapter's weights; ``scale`` = alpha / rank multiplies B @ A."""

    rank: int
    alpha: float
    target_modules: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"lora.rank is {self.rank}; it must be at least 1")

    @property
    def scale(self) -> float:
        """Factor on the low-rank product (Hu et al. 2021, arXiv 2106.09685)."""
        return self.alpha / self.rank


@dataclass(frozen=True, slots=True)
class Calibration:
    """The softmax temperature, the number of validation examples it was fitted on, and how good
    the fit is: negative log-likelihood in nats and expected calibration error, 0 to 1.

    With a head the outputs' logits are divided by the temperature, before the probabilities of
    finer outputs are summed to those of the labels."""

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
    """A message whose label is known: an adapter must classify it before it serves."""

    message: str
    label: str


@dataclass(frozen=True, slots=True)
class Reference:
    """What an adapter in service is compared with, taken from its dataset.

    ``label_shares`` are the labels' shares in the whole dataset, before any cap on a
    label; they sum to 1. ``confidence``, ``off_label_mass`` and ``out_of_scope`` are quantiles over
    validation, by their probability ("0.05"). Off-label mass is empty with choice decoding and with
    a head; the out-of-scope score is of heads alone.
    """

    label_shares: Mapping[str, float]
    confidence: Mapping[str, float]
    off_label_mass: Mapping[str, float]
    out_of_scope: Mapping[str, float] = field(default_factory=dict, metadata=LEAVE_OUT_EMPTY)

    @property
    def misfit(self) -> Mapping[str, float]:
        """Quantiles of ``Decision.misfit``, whichever of the two the kind has."""
        return self.out_of_scope or self.off_label_mass


# A cascade: stages, each a published adapter, of which a small one answers what it
# is sure of.
#
# Its manifest holds no weights: it names its stages by their digests, and they stand next to it.
#
# STORE/<digest of the cascade>/manifest.json STORE/<digest of a stage>/


MOST_STAGES = 4


@dataclass(frozen=True, slots=True)
class CascadeStage:
    """One stage: which adapter, and when it answers.

    It answers where its confidence is ``sure_from`` or more and nothing else speaks for review by
    ``thresholds``; what it is not sure of goes to the next. The last stage has no ``sure_from``:
    it answers the rest. What a stage answers goes to a person by its ``thresholds``. ``share`` is
    what it answered of validation (0 to 1), ``base`` and ``base_revision`` are its base's, and
    ``out_of_scope`` is the method of its head, where it has one.
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
        """Whether this stage answers a message of which it thinks ``decision``."""
        if self.sure_from is None:
            return True
        return decision.confidence >= self.sure_from and not review_reasons(
            decision, self.thresholds
        )


def stage_directory(cascade: Path, stage: CascadeStage) -> Path:
    """Return where a stage of the cascade in a directory is."""
    return cascade.resolve().parent / stage.digest


def check_stages(stages: Sequence[CascadeStage]) -> None:
    """Raise ValueError where stages are no cascade."""
    if not 2 <= len(stages) <= MOST_STAGES:
        raise ValueError(f"stages has {len(stages)} entries; a cascade has 2 to {MOST_STAGES}")
    digests = [stage.digest for stage in stages]
    if len(set(digests)) != len(digests):
        raise ValueError("stages names an adapter twice")
    for at, stage in enumerate(stages):
        # A digest becomes a path: nothing but a digest may.
        if len(stage.digest) != 64 or not set(stage.digest) <= set("0123456789abcdef"):
            raise ValueError(f"stages[{at}].digest is no digest of 64 hexadecimal digits")
        if stage.kind == "cascade":
            raise ValueError(f"stages[{at}] is a cascade itself: name its stages instead")
        last = at == len(stages) - 1
        if last is not (stage.sure_from is None):
            raise ValueError("every stage but the last needs sure_from, and the last has none")
        if stage.sure_from is not None and not 0 < stage.sure_from <= 1:
            raise ValueError(f"stages[{at}].sure_from is {stage.sure_from}; above 0, at most 1")


# The digest of an adapter: the one place where it is computed, from the
# manifest's JSON.
#
# It is taken over the JSON value that stands in ``manifest.json``, not over the fields of the
# classes that read it, so that a class may rename a field without making every stored adapter
# look altered. The canonical form:
#
# - object keys are sorted by code point, no blanks stand between tokens, the text is UTF-8; - a
# number without a fractional part is written as an integer: ``8``, ``8.0`` and ``8e0`` are one
# number in JSON, and a tool that rewrites the file may exchange them; - any other number is the
# shortest decimal that reads back as the same IEEE 754 double; - every key counts. Nothing is
# filled in or left out: a key that is absent and a key that is null are two manifests. Keys that
# are not known are refused when the manifest is read.
#
# Formatting and the order of keys do not count.


def manifest_digest(data: Mapping[str, Any]) -> str:
    """Return the SHA-256, 64 hexadecimal digits, of a manifest's parsed JSON.

    Raises ValueError where a value has no JSON form (NaN, a lone surrogate).
    """
    return sha256_json(_whole_numbers(data))


def _whole_numbers(value: Any) -> Any:
    """Return ``value`` with every whole number as an integer."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        return {key: _whole_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_whole_numbers(inner) for inner in value]
    return value


SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"

Decoding = Literal["code", "choice"]


@dataclass(frozen=True, slots=True)
class Manifest:
    """An adapter's contract. ``digest`` is the adapter's identity everywhere.

    ``kind`` says what answers, and so which of ``decoding``, ``codes``, ``lora``, ``head`` and
    ``stages`` there are (``worker.contract.manifest``). A cascade has the prompt and the golden
    prompts of its first stage, and the base of its last.

    A manifest that was read keeps the digest of the JSON it was read from. Any other, a copy with
    a changed field among them, has the digest of the JSON that ``write_manifest`` would write.

    ``data``, ``metrics`` and ``versions`` are a record for people: what it was trained on, how
    well it did on messages it never saw, and with which software.
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
    # Not an argument of the constructor, so that ``dataclasses.replace`` does not carry it over.
    digest_as_read: str | None = field(default=None, init=False, repr=False, compare=False)
    # Messages to try it on, read from the file next to it (``probes.attach_probes``): they are
    # private and no part of the manifest.
    probes: tuple[Probe, ...] = field(default=(), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.calibration.temperature > 0:
            raise ValueError(f"temperature is {self.calibration.temperature}; it must be above 0")
        if not self.golden:
            raise ValueError("a manifest needs at least one golden prompt")
        _check_kind(self)
        known = self.reference.label_shares if self.reference is not None else ()
        if strange := sorted(set(known).difference(self.taxonomy.names)):
            raise ValueError(f"the reference names labels that are not there: {strange}")

    @property
    def needs_base(self) -> bool:
        """Whether the base's files have to be there to serve it: not for an encoder that carries
        its whole model as ONNX, and not for a cascade, whose stages have bases of their own."""
        return not self.stages and not (
            self.kind in ENCODER_KINDS and self.head is not None and self.head.onnx
        )

    @property
    def answers_with(self) -> str:
        """How it answers, for people: its decoding, its head, or its stages."""
        return self.decoding or ("stages" if self.stages else "head")

    @property
    def digest(self) -> str:
        """SHA-256 over the whole manifest, and so over every file it names."""
        return self.digest_as_read or manifest_digest(encode(self))


def _check_kind(manifest: Manifest) -> None:
    """Raise ValueError, saying what is too much or missing, where the parts contradict the kind."""
    kind, head = manifest.kind, manifest.head
    if kind == "cascade":
        _check_cascade(manifest)
        return
    _refuse(kind, stages=bool(manifest.stages))
    if kind == "lora-code":
        _refuse(kind, head=head is not None)
        _require(kind, lora=manifest.lora is not None, decoding=manifest.decoding is not None)
        if manifest.decoding == "code" and set(manifest.codes) != set(manifest.taxonomy.names):
            raise ValueError("decoding 'code' needs a code for every label of the taxonomy")
        if manifest.thresholds.review_out_of_scope is not None:
            raise ValueError(f"thresholds.review_out_of_scope is of heads; kind {kind!r} has none")
        return
    _refuse(kind, codes=bool(manifest.codes), decoding=manifest.decoding is not None)
    _require(kind, head=head is not None)
    assert head is not None
    check_head(head, manifest.taxonomy, len(manifest.golden))
    if kind == "embedding-linear":
        _refuse(kind, lora=manifest.lora is not None)
    if manifest.thresholds.review_off_label_mass is not None:
        raise ValueError(
            f"thresholds.review_off_label_mass: kind {kind!r} sees no off-label mass; it has "
            "review_out_of_scope"
        )
    if manifest.reference is not None and manifest.reference.off_label_mass:
        raise ValueError(f"reference.off_label_mass: kind {kind!r} sees no off-label mass")
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
        raise ValueError("reference: each stage of a cascade measures what does not fit by itself")


def _check_files(manifest: Manifest) -> None:
    assert manifest.head is not None
    named = set(manifest.head.files)
    if missing := sorted(named.difference(manifest.files)):
        raise ValueError(f"the head names files whose digests are not in files: {missing}")
    tokenizer = manifest.files.get(TOKENIZER_NAME)
    if tokenizer is None or tokenizer.sha256 != manifest.base.tokenizer_sha256:
        raise ValueError(
            f"kind {manifest.kind!r} carries the {TOKENIZER_NAME} of its base: files must name "
            "it with the digest base.tokenizer_sha256"
        )


def _require(kind: Kind, **parts: bool) -> None:
    if missing := [name for name, there in parts.items() if not there]:
        raise ValueError(f"kind {kind!r} needs {' and '.join(missing)}")


def _refuse(kind: Kind, **parts: bool) -> None:
    if extra := [name for name, there in parts.items() if there]:
        raise ValueError(f"kind {kind!r} has no {' and no '.join(extra)}")


def write_manifest(directory: Path, manifest: Manifest) -> Path:
    """Write ``manifest.json``, atomically; call it last, when every file it names is complete."""
    path = directory / MANIFEST_NAME
    text = json.dumps(encode(manifest), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text.encode("utf-8") + b"\n")
    return path


def read_manifest(directory: Path) -> Manifest:
    """Read a directory's manifest. Raises AdapterRefused with the file and what is wrong in it."""
    path = directory / MANIFEST_NAME
    if not directory.is_dir():
        raise AdapterRefused(directory, "there is no such adapter directory")
    if not path.is_file():
        raise AdapterRefused(
            path, "missing: this is no published adapter (the manifest is written last)"
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterRefused(path, f"not readable as JSON: {error}") from error
    if not isinstance(data, dict):
        raise AdapterRefused(path, "must hold a JSON object")
    version = data.get("schema_version")
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
    """Build a manifest that has the digest of ``data``. Raises ValueError, TaxonomyError."""
    manifest = decode(Manifest, data, "manifest")
    assert isinstance(manifest, Manifest)
    object.__setattr__(manifest, "digest_as_read", manifest_digest(data))  # the class is frozen
    return manifest
