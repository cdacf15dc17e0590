"""The kinds of model that an adapter may be."""

from __future__ import annotations

from typing import Literal

Kind = Literal["lora-code", "encoder", "embedding-linear", "cascade"]
"""What answers: a LoRA adapter of an instruct base by one token of code (or by a label's words),
an encoder trained with its head, a linear head on the sentence embeddings of an encoder that was
left as it is, or several of these, one after the other (``worker.contract.cascade``)."""

ENCODER_KINDS: tuple[Kind, ...] = ("encoder", "embedding-linear")
"""Kinds that an encoder answers: an adapter of them carries the encoder's ``tokenizer.json``."""

TOKENIZER_NAME = "tokenizer.json"
