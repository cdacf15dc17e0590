"""Redact people's names in messages with Presidio and the user's model or rules.

Mail addresses and numbers are redacted by fixed rules (``worker.contract.redact``), in training and
in serving. Names need a language model, which no worker has, so they are redacted in datasets only;
the manifest records by what. Nothing is downloaded. The only file that imports Presidio and spaCy.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import BadInput
from worker.contract.digest import sha256_bytes
from worker.contract.redact import PLACEHOLDERS

if TYPE_CHECKING:
    from presidio_analyzer import AnalyzerEngine

NAME = "[name]"
"""The replacement for a name, in the form of ``PLACEHOLDERS``."""

_PERSON = "PERSON"
_MARKS = re.compile("|".join(re.escape(mark) for mark in (*PLACEHOLDERS.values(), NAME)))
# Engines that use installed models; the others download theirs.
_LOCAL_ENGINES = ("spacy", "slim", "no_op", "transformers")


@dataclass(frozen=True, slots=True)
class NameRedaction:
    """``redact`` returns a text without names and their number; ``facts`` (JSON) describe the model
    for the manifest."""

    redact: Callable[[str], tuple[str, int]]
    facts: dict[str, Any]


def load_names(model: str) -> NameRedaction:
    """Load a spaCy model (an installed package or a folder), or the model and rules of a Presidio
    analyzer configuration (.yaml).

    A message is searched in each language of the configuration. Raises BadInput if something has to
    be installed, or nothing would ever be found.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when huggingface_hub is imported
    try:
        import presidio_analyzer  # noqa: F401
    except ImportError as error:
        raise BadInput(
            "--redact-names needs Presidio: in the checkout, pip install -e '.[presidio]', and a "
            "model for your language"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about versions and defaults; real problems raise below
        if Path(model).suffix in {".yaml", ".yml"}:
            engine, facts = _from_configuration(Path(model))
        else:
            engine, facts = _from_model(model)
    languages = [
        language
        for language in engine.supported_languages
        if _PERSON in engine.get_supported_entities(language)
    ]
    if not languages:
        raise BadInput(
            f"--redact-names {model}: does not support {_PERSON}, so it would find no names: use "
            "another model or configuration"
        )

    def redact(text: str) -> tuple[str, int]:
        found = (
            (result.start, result.end)
            for language in languages
            for result in engine.analyze(text=text, language=language, entities=[_PERSON])
        )
        return replace_spans(text, found)

    by = f"presidio-analyzer {version('presidio-analyzer')}"
    return NameRedaction(redact, {"by": by, **facts, "languages": sorted(languages), "mark": NAME})


def replace_spans(text: str, spans: Iterable[tuple[int, int]]) -> tuple[str, int]:
    """Return the text with ``NAME`` in place of each span, and the number of replacements.

    Overlapping spans are one. Spans without a letter stay, and so do the marks of an earlier
    redaction, so that preparing a prepared dataset changes nothing.
    """
    inside = bytearray(len(text))
    for start, end in spans:
        inside[start:end] = b"1" * (end - start)
    for mark in _MARKS.finditer(text):
        inside[mark.start() : mark.end()] = bytes(len(mark[0]))
    parts, done = [], 0
    for piece in re.finditer(b"1+", inside):
        words = text[piece.start() : piece.end()]
        if any(map(str.isalpha, words)):
            parts += [text[done : piece.end() - len(words.lstrip())], NAME]
            done = piece.start() + len(words.rstrip())
    return "".join([*parts, text[done:]]), len(parts) // 2


def _from_model(model: str) -> tuple[AnalyzerEngine, dict[str, Any]]:
    import spacy
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    _refuse_absent(model, model)
    try:
        nlp = spacy.load(model)
    except (OSError, ValueError, ImportError) as error:
        raise BadInput(f"--redact-names {model}: not a spaCy model: {_line(error)}") from error
    if not any("doc.ents" in nlp.get_pipe_meta(name).assigns for name in nlp.pipe_names):
        raise BadInput(
            f"--redact-names {model}: has no component that finds entities (ner): use another model"
        )
    engine = SpacyNlpEngine([{"lang_code": nlp.lang, "model_name": model}])
    engine.nlp = {nlp.lang: nlp}
    registry = RecognizerRegistry(supported_languages=[nlp.lang])
    registry.add_nlp_recognizer(nlp_engine=engine)
    analyzer = AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=[nlp.lang])
    return analyzer, {"models": [_describe(nlp)]}


def _from_configuration(path: Path) -> tuple[AnalyzerEngine, dict[str, Any]]:
    import yaml
    from presidio_analyzer import AnalyzerEngineProvider

    where = f"--redact-names {path}"
    try:
        data = path.read_bytes()
        settings = yaml.safe_load(data)
        nlp = settings["nlp_configuration"]
        engine, models = nlp["nlp_engine_name"], [one["model_name"] for one in nlp["models"]]
    except OSError as error:
        raise BadInput(f"{where}: {error.strerror}") from error
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise BadInput(
            f"{where}: not a Presidio analyzer configuration ({_line(error)}): add "
            "nlp_configuration with nlp_engine_name and models, or Presidio would use its own"
        ) from error
    if engine not in _LOCAL_ENGINES:
        raise BadInput(
            f"{where}: the engine {engine!r} downloads its models: use one of "
            f"{', '.join(_LOCAL_ENGINES)}"
        )
    if engine != "no_op":
        for model in models:
            for name in model.values() if isinstance(model, dict) else [model]:
                _refuse_absent(str(name), str(path))
    try:
        analyzer = AnalyzerEngineProvider(analyzer_engine_conf_file=path).create_engine()
    except (ValueError, KeyError, TypeError, OSError, ImportError) as error:
        raise BadInput(f"{where}: Presidio rejects it: {_line(error)}") from error
    loaded = getattr(analyzer.nlp_engine, "nlp", None) or {}
    described = [_describe(nlp) for nlp in loaded.values() if nlp is not None]
    facts = {"models": described, "config": {"name": path.name, "sha256": sha256_bytes(data)}}
    return analyzer, facts


def _refuse_absent(model: str, given: str) -> None:
    """Raise BadInput if Presidio or spaCy would try to download a model."""
    import spacy

    if not (spacy.util.is_package(model) or Path(model).is_dir()):
        raise BadInput(
            f"--redact-names {given}: {model!r} is neither an installed spaCy model nor a folder: "
            "install the model's package, or name a model's folder or a Presidio analyzer "
            "configuration (.yaml)"
        )


def _describe(nlp: Any) -> str:
    meta = nlp.meta
    return f"{meta['lang']}_{meta['name']} {meta['version']}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
