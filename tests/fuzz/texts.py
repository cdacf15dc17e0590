"""Every function that handles a customer's text, as one that takes any text.

They get what customers send, unchanged: none may take more than its time for a kilobyte
(``tests.fuzz.slow``). A new function that reads messages gets a line in ``ENTRIES``.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

from markupsafe import escape

import desk.core.texts
import desk.store.browse
import desk.web.shown_text
import trainer.check.findings
import trainer.dataset.clean
import trainer.dataset.names
import trainer.dataset.near_duplicates
import trainer.report.page
import trainer.start.instruction
import worker.common.tables.chat
import worker.contract.html_text
import worker.contract.records.decode
import worker.contract.redact
import worker.contract.text
from tests.support.toy_adapter import encode_plain, toy_manifest, toy_spec
from trainer.check.suspects import _TOKEN
from trainer.dataset.folder import Row
from trainer.errors import BadInput
from trainer.start.instruction import listed_labels
from worker.common.encodings import make_repairer
from worker.common.tables import TableError, read_table
from worker.contract import REDACTION, Thresholds, build_prompt
from worker.contract.errors import MessageRejected, RecordRefused
from worker.contract.prompt import Encode
from worker.contract.records import (
    InputFormat,
    decode_value,
    read_dead_letter,
    read_output,
    read_retry,
    without_worker_headers,
)
from worker.contract.text import normalize
from worker.core.labeller import Labeller
from worker.engine.model_files import load_encoders
from worker.offline.message_files import MessageFile, read_rows
from worker.records.types import Record, TopicPartition

_LAYOUT = InputFormat("json", ("subject", "message", "parts.0.text"))
_REFUSALS = (MessageRejected, RecordRefused, BadInput)


@dataclass(frozen=True, slots=True)
class Entry:
    """``run`` takes any text. ``modules`` hold the words that its patterns look for, ``most`` is
    how often as long as the calibration it may take for a kilobyte (``tests.fuzz.slow``)."""

    run: Callable[[str], object]
    modules: tuple[ModuleType, ...] = ()
    most: float = 100.0


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _refusing(function: Callable[[str], object], text: str) -> None:
    with contextlib.suppress(*_REFUSALS):
        function(text)


def _record(text: str) -> Record:
    value = json.dumps({"message": text, "id": text}).encode()
    headers = ((text, _bytes(text)), ("trace", _bytes(text)))
    return Record(TopicPartition("in", 0), 7, b"k", value, headers, 1_700_000_000_123)


@cache
def _labeller() -> Labeller:
    spec = replace(toy_spec(512), redaction=REDACTION)
    return Labeller(toy_manifest(prompt=spec), encode_plain, Thresholds(0.5), InputFormat())


# the worker ---
def _headers(text: str) -> None:
    names = [text[:4000], *text.split()]
    without_worker_headers(tuple((name, None) for name in names))


def _retry_headers(text: str) -> None:
    value = _bytes(text)
    for read in (read_retry, read_dead_letter):
        for prefix in ("clerk.retry.", "clerk.source.", "clerk.", "clerk.worker."):
            names = ("topic", "partition", "offset", "timestamp", "attempt", "reason", "version")
            with contextlib.suppress(RecordRefused):
                read([(prefix + name, value) for name in names])


def _message_file(text: str) -> None:
    with tempfile.TemporaryDirectory(prefix="filing-clerk-fuzz-") as folder:
        for name in ("m.txt", "m.jsonl"):
            path = Path(folder) / name
            path.write_bytes(text.encode("utf-8", "replace"))
            for _ in read_rows(MessageFile(str(path)), _LAYOUT):
                pass


_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CORPUS = [
    "where is my parcel, order 48-1123? I was charged twice!! aaaa aaaaaaaa --------- ====== ....",
    "wo ist mein Päckchen? Ich möchte mein Geld zurück. 0170 1234567 http://example.com/a?b=c",
] * 50


@cache
def tokenizer(kind: str) -> Encode:
    """Return how a message is encoded by a tokenizer of a kind: ``bpe`` (with the pattern by which
    Qwen and others split), ``wordpiece`` (BERT's) or ``unigram`` (XLM-RoBERTa's)."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    trainer: Any
    if kind == "bpe":
        made = Tokenizer(models.BPE())
        made.normalizer = normalizers.NFC()
        split = pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        made.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet)
    elif kind == "wordpiece":
        made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.normalizer, made.pre_tokenizer = (
            normalizers.BertNormalizer(),
            pre_tokenizers.BertPreTokenizer(),
        )
        trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[UNK]"])
    else:
        made = Tokenizer(models.Unigram())
        made.normalizer = normalizers.NFKC()
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=200, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
        )
    trainer.show_progress = False
    made.train_from_iterator(_CORPUS, trainer)
    with tempfile.TemporaryDirectory(prefix="filing-clerk-fuzz-") as folder:
        made.save(str(Path(folder) / "tokenizer.json"))
        return load_encoders(Path(folder)).plain


def _encode(kind: str, text: str) -> None:
    tokenizer(kind)(text.encode("utf-8", "replace").decode())


def _prompt(kind: str, text: str) -> None:
    spec = replace(toy_spec(512), redaction=REDACTION)
    build_prompt(spec, text, tokenizer(kind))


# the trainer ---
def _names(text: str) -> None:
    """Every word a name: as many spans as can be."""
    spans = [found.span() for found in re.finditer(r"\w+", text)]
    trainer.dataset.names.replace_spans(text, spans)


def _csv(text: str) -> None:
    """UTF-8, since the detector reads a sample of 64 KiB at most, whatever the file's size."""
    for name in ("x.csv", "x.jsonl"):
        with contextlib.suppress(TableError):
            table = read_table(text.encode("utf-8", "replace"), name)
            for _ in table.rows():
                pass
    written = io.StringIO()
    csv.writer(written).writerow([text])


def _chats(text: str) -> None:
    """A message, an answer, and what is the same around all messages."""
    for asked, answer in ((f"{text}{{}}{text}", "a"), (f"{text}\n{{}}\n{text}", text)):
        lines = [{"prompt": asked.replace("{}", str(at)), "completion": answer}
                 for at in range(10)]  # fmt: skip
        table = read_table("\n".join(map(json.dumps, lines)).encode(), "x.jsonl")
        for _ in table.rows():
            pass


def _instruction(text: str) -> None:
    listed_labels(f"{text}\n- a: b\n- c: {text}\na, {text}, c", ["a", "c", "b"])


def _repaired(text: str) -> None:
    make_repairer()(text)


def _jaccard(text: str) -> None:
    ours = trainer.dataset.near_duplicates.shingles(text)
    trainer.dataset.near_duplicates.jaccard(ours, ours)


def _near_clusters(text: str) -> None:
    """As many messages as lines."""
    keys = list(dict.fromkeys([text, text[1:], *text.split("\n")]))
    trainer.dataset.near_duplicates.near_clusters(keys, similarity=0.9)


def _learner(text: str) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    for made in (
        TfidfVectorizer(ngram_range=(1, 2), tokenizer=_TOKEN.findall, token_pattern=None),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5)),
    ):
        with contextlib.suppress(ValueError):  # no word in it
            made.fit_transform([normalize(text)])


def _reported(text: str) -> None:
    trainer.report.page.show_text({"a": text}, "a")
    trainer.report.page.readable(text)


# the desk ---
def _shown(text: str) -> None:
    """As a page shows it, cut and whole: each piece escaped, and each mark with its name."""
    for piece in desk.web.shown_text.shown_text(text).pieces:
        escape(piece.names if piece.hidden else piece.text)
    for chunk in desk.web.shown_text.chunks(text):
        escape(chunk)


def _searched(text: str) -> None:
    desk.store.browse.words_of(text)
    desk.store.browse.has_words(text, text[:200])


_HTML = (worker.contract.html_text,)
_REDACT = (worker.contract.redact,)
_MAILS = (trainer.dataset.clean,)

ENTRIES: Mapping[str, Entry] = {
    "decode a message in JSON": Entry(
        lambda text: (
            decode_value(json.dumps({"message": text, "id": text}).encode(), _LAYOUT)
            if text.strip()
            else None
        ),
        most=150,
    ),
    "decode any JSON": Entry(
        partial(_refusing, lambda text: decode_value(_bytes(text), _LAYOUT)),
        (worker.contract.records.decode,),
    ),
    "decode text": Entry(
        partial(_refusing, lambda text: decode_value(_bytes(text), InputFormat("text")))
    ),
    "read an output record": Entry(partial(_refusing, lambda text: read_output(_bytes(text)))),
    "read the headers of a retry or a dead letter": Entry(_retry_headers),
    "headers that go along": Entry(_headers),
    "normalize": Entry(normalize, (worker.contract.text,)),
    "is it HTML": Entry(worker.contract.html_text.is_html, _HTML),
    "text of HTML": Entry(
        lambda text: worker.contract.html_text.html_to_text(f"<div>{text}</div>"), _HTML
    ),
    "attributes of HTML": Entry(
        lambda text: worker.contract.html_text.html_to_text(
            f"<p><i style='opacity:{text}'>a</i><i hidden {text}>b</i></p>"
        ),
        _HTML,
    ),
    "digest of a message": Entry(worker.contract.text.message_sha256),
    "redact": Entry(worker.contract.redact.redact_personal_data, _REDACT, 200),
    "prepare a record": Entry(
        partial(_refusing, lambda text: _labeller().prepare(_record(text))), _REDACT, 200
    ),
    "tokenize by BPE": Entry(partial(_encode, "bpe"), most=400),
    "tokenize by WordPiece": Entry(partial(_encode, "wordpiece"), most=400),
    "tokenize by Unigram": Entry(partial(_encode, "unigram"), most=400),
    "prompt by BPE": Entry(partial(_prompt, "bpe"), _REDACT, 300),
    "prompt by WordPiece": Entry(partial(_prompt, "wordpiece"), _REDACT, 300),
    "prompt by Unigram": Entry(partial(_prompt, "unigram"), _REDACT, 300),
    "read a file of messages": Entry(_message_file, most=250),
    "strip quotes": Entry(trainer.dataset.clean.strip_quotes, _MAILS, 250),
    "strip a signature": Entry(trainer.dataset.clean.strip_signature, _MAILS),
    "replace names": Entry(_names, (trainer.dataset.names,)),
    "read CSV": Entry(partial(_refusing, _csv)),
    "read chats": Entry(_chats, (worker.common.tables.chat,), 300),
    "labels of an instruction": Entry(_instruction, (trainer.start.instruction,), 300),
    "repair characters": Entry(_repaired),
    "key of a row": Entry(lambda text: Row("a", text, "b", None, "x").folded),
    "shingles": Entry(_jaccard),
    "near-duplicates": Entry(_near_clusters, most=400),
    "features of a message": Entry(_learner, most=400),
    "text in a report": Entry(_reported, (trainer.report.page,)),
    "text on a desk's page": Entry(_shown, (desk.web.shown_text,), 200),
    "keys of a desk's item": Entry(desk.core.texts.band_keys, most=400),
    "similarity of two items": Entry(lambda text: desk.core.texts.similarity(text, text[1:])),
    "words to search": Entry(_searched),
    "text that a database keeps": Entry(desk.core.texts.message_text),
}
