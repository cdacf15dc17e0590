"""``clerk-trainer complete``: an encoder's directory with what was left out made again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.shared import AsJson, OptionalBase, make_console, outcomes, print_text, show


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("complete")(complete)


def complete(
    adapter: Annotated[
        Path, typer.Argument(metavar="ADAPTER", help="An encoder's directory, files left out.")
    ],
    *,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="The whole directory to write.")
    ],
    base: OptionalBase = None,
    as_json: AsJson = False,
) -> None:
    """Make the files again that an encoder is kept without, for a worker to serve it.

    An encoder that was trained by LoRA is a few MB of weights and 110 MB of what follows from them
    and the base: config, tokenizer, and the ONNX files that workers serve. It can be kept (in a
    repository, say) without those. Each file made here has to have the digest that the manifest
    names, else nothing is written: another version of PyTorch, transformers or onnx writes other
    bytes, and is refused by name (exit code 4). --base is its base [default: the embedding model
    that is installed].

    Example: clerk-trainer complete worker/demo/encoder --out /tmp/encoder
    """
    with outcomes():
        from trainer.model.completion import complete_encoder
        from trainer.model.embeddings import find_embedding_model

        manifest = complete_encoder(adapter, out, base or find_embedding_model())
        result = {"schema": "completion/1", "adapter": str(out), "digest": manifest.digest}
        console = make_console(as_json=as_json)
        text = f"{manifest.name} ({manifest.digest[:12]}) is whole in {out}"
        show(result, console, lambda to: print_text(to, text), as_json=as_json)
