"""The adapter manifest: everything a worker must know about an adapter, shipped with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from worker.contract.codec import LEAVE_OUT_NONE, encode
from worker.contract.codes import Code
from worker.contract.manifest_digest import manifest_digest
from worker.contract.prompt import PromptSpec
from worker.contract.review import Thresholds
from worker.contract.taxonomy import Taxonomy

SCHEMA_VERSION = 2
MANIFEST_NAME = "manifest.json"

Decoding = Literal["code", "choice"]


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
    the fit is: negative log-likelihood in nats and expected calibration error, 0 to 1."""

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

    ``probes`` is empty but in manifests of earlier versions: see ``Manifest.probes``.
    ``label_shares`` are the labels' shares in the whole dataset, before any cap on a
    label; they sum to 1. ``confidence`` and ``off_label_mass`` are quantiles over validation, by
    their probability ("0.05"); the latter is empty with choice decoding.
    """

    probes: tuple[Probe, ...]
    label_shares: Mapping[str, float]
    confidence: Mapping[str, float]
    off_label_mass: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Manifest:
    """An adapter's contract. ``digest`` is the adapter's identity everywhere.

    A manifest that was read keeps the digest of the JSON it was read from. Any other, a copy with
    a changed field among them, has the digest of the JSON that ``write_manifest`` would write.

    ``data``, ``metrics`` and ``versions`` are a record for people: what it was trained on, how
    well it did on messages it never saw, and with which software.
    """

    name: str
    created_at: str
    base: BaseModel
    taxonomy: Taxonomy
    prompt: PromptSpec
    decoding: Decoding
    codes: Mapping[str, Code]
    lora: Lora
    calibration: Calibration
    thresholds: Thresholds
    golden: tuple[GoldenPrompt, ...]
    files: Mapping[str, FileDigest]
    reference: Reference | None = field(default=None, metadata=LEAVE_OUT_NONE)
    data: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION
    # Not an argument of the constructor, so that ``dataclasses.replace`` does not carry it over.
    digest_as_read: str | None = field(default=None, init=False, repr=False, compare=False)
    probes_beside: tuple[Probe, ...] | None = field(
        default=None, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if self.decoding == "code" and set(self.codes) != set(self.taxonomy.names):
            raise ValueError("decoding 'code' needs a code for every label of the taxonomy")
        if not self.calibration.temperature > 0:
            raise ValueError(f"temperature is {self.calibration.temperature}; it must be above 0")
        if not self.golden:
            raise ValueError("a manifest needs at least one golden prompt")
        if self.reference is not None:
            labels = {probe.label for probe in self.reference.probes}
            labels.update(self.reference.label_shares)
            if strange := sorted(labels.difference(self.taxonomy.names)):
                raise ValueError(f"the reference names labels that are not there: {strange}")

    @property
    def probes(self) -> tuple[Probe, ...]:
        """The messages to try the adapter on: those beside it (``probes.attach_probes``), or those
        that a manifest of an earlier version holds itself; empty where there are none."""
        if self.probes_beside is not None:
            return self.probes_beside
        return self.reference.probes if self.reference else ()

    @property
    def digest(self) -> str:
        """SHA-256 over the whole manifest, and so over every file it names."""
        return self.digest_as_read or manifest_digest(encode(self))
