"""What the programs agree on: prompts, label codes, adapters, records, and files between programs.

Imports nothing outside the standard library.
"""

from worker.contract.errors import AdapterRefused, ContractError, InvalidScores, TaxonomyError
from worker.contract.head import (
    GoldenLogits,
    Head,
    HeadOutput,
    OnnxModel,
    Pooling,
    disagreement,
)
from worker.contract.manifest import (
    ENCODER_KINDS,
    MANIFEST_NAME,
    SCHEMA_VERSION,
    BaseModel,
    Calibration,
    CascadeStage,
    FileDigest,
    GoldenPrompt,
    Kind,
    Lora,
    Manifest,
    Probe,
    Reference,
    read_manifest,
    write_manifest,
)
from worker.contract.prompt import (
    Encoders,
    Prompt,
    PromptSpec,
    added_token_ids,
    all_added_tokens_special,
    build_prompt,
    plain_encode,
)
from worker.contract.redact import REDACTION, redact_personal_data
from worker.contract.scoring import (
    Branch,
    Code,
    CodeWalk,
    Decision,
    ReviewReason,
    Thresholds,
    choose_codes,
    decide_from_codes,
    decide_from_logits,
    find_branches,
    review_reasons,
    word_codes,
)
from worker.contract.taxonomy import Label, Taxonomy
from worker.contract.verify import (
    describe_base,
    load_adapter,
    make_golden,
    tokenizer_directory,
    verify_adapter,
    verify_base,
    verify_tokens,
)
