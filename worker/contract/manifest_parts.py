"""What a manifest is made of, beside the parts that have modules of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from worker.contract.codec import LEAVE_OUT_EMPTY


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
