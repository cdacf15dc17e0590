"""The adapter manifest: everything a worker must know about an adapter, shipped with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from worker.contract.cascade import CascadeStage, check_stages
from worker.contract.codec import LEAVE_OUT_EMPTY, encode
from worker.contract.codes import Code
from worker.contract.head import Head, check_head
from worker.contract.kinds import ENCODER_KINDS, TOKENIZER_NAME, Kind
from worker.contract.manifest_digest import manifest_digest
from worker.contract.manifest_parts import (
    BaseModel,
    Calibration,
    FileDigest,
    GoldenPrompt,
    Lora,
    Probe,
    Reference,
)
from worker.contract.prompt import PromptSpec
from worker.contract.review import Thresholds
from worker.contract.taxonomy import Taxonomy

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"

Decoding = Literal["code", "choice"]

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


@dataclass(frozen=True, slots=True)
class Manifest:
    """An adapter's contract. ``digest`` is the adapter's identity everywhere.

    ``kind`` says what answers, and so which of ``decoding``, ``codes``, ``lora``, ``head`` and
    ``stages`` there are (``worker.contract.kinds``). A cascade has the prompt and the golden
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
    # Messages to try it on, read from the file beside it (``probes.attach_probes``): they are
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
