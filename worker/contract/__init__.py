"""The one thing that worker and trainer share: what a prompt, an answer and an adapter are.

Importing it pulls in nothing outside the standard library.
"""

from worker.contract.base import describe_base, verify_base
from worker.contract.cascade import CascadeStage
from worker.contract.codes import Code, choose_codes
from worker.contract.errors import AdapterRefused, ContractError, InvalidScores, TaxonomyError
from worker.contract.head import (
    GoldenLogits,
    Head,
    HeadOutput,
    OnnxModel,
    Pooling,
    disagreement,
)
from worker.contract.kinds import ENCODER_KINDS, Kind
from worker.contract.manifest import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    BaseModel,
    Calibration,
    FileDigest,
    GoldenPrompt,
    Lora,
    Manifest,
    Probe,
    Reference,
)
from worker.contract.manifest_json import read_manifest, write_manifest
from worker.contract.prompt import Prompt, PromptSpec, build_prompt
from worker.contract.redact import REDACTION, redact_personal_data
from worker.contract.review import ReviewReason, Thresholds, review_reasons
from worker.contract.scoring import (
    Decision,
    decide_from_choice,
    decide_from_codes,
    decide_from_logits,
)
from worker.contract.taxonomy import Label, Taxonomy
from worker.contract.tokens import Encoders, added_token_ids, all_added_tokens_special
from worker.contract.verify import (
    load_adapter,
    make_golden,
    tokenizer_directory,
    verify_adapter,
    verify_tokens,
)

__all__ = [
    "ENCODER_KINDS",
    "MANIFEST_NAME",
    "REDACTION",
    "SCHEMA_VERSION",
    "AdapterRefused",
    "BaseModel",
    "Calibration",
    "CascadeStage",
    "Code",
    "ContractError",
    "Decision",
    "Encoders",
    "FileDigest",
    "GoldenLogits",
    "GoldenPrompt",
    "Head",
    "HeadOutput",
    "InvalidScores",
    "Kind",
    "Label",
    "Lora",
    "Manifest",
    "OnnxModel",
    "Pooling",
    "Probe",
    "Prompt",
    "PromptSpec",
    "Reference",
    "ReviewReason",
    "Taxonomy",
    "TaxonomyError",
    "Thresholds",
    "added_token_ids",
    "all_added_tokens_special",
    "build_prompt",
    "choose_codes",
    "decide_from_choice",
    "decide_from_codes",
    "decide_from_logits",
    "describe_base",
    "disagreement",
    "load_adapter",
    "make_golden",
    "read_manifest",
    "redact_personal_data",
    "review_reasons",
    "tokenizer_directory",
    "verify_adapter",
    "verify_base",
    "verify_tokens",
    "write_manifest",
]
