"""``clerk-trainer base``: models to train on."""

from __future__ import annotations

from typing import Annotated

import typer

from trainer.cli.shared import AsJson, outcomes, show

base_app = typer.Typer(help="Models to train on.", no_args_is_help=True)


@base_app.command("get")
def get_base(
    model: Annotated[
        str, typer.Argument(metavar="OWNER/NAME[@REVISION]", help="A model's name on the hub.")
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Fetch a base from the Hugging Face hub, or from the mirror at HF_ENDPOINT, into the cache.

    Nothing is fetched without this command. A branch or a tag is pinned to its commit, which
    manifests name with the weights' digests. Afterwards --base OWNER/NAME[@REVISION], and base in a
    recipe, find it without a network.

    Example: clerk-trainer base get intfloat/multilingual-e5-small
    """
    with outcomes():
        from trainer.model.hub import fetch

        found = fetch(model)
        result = {
            "name": found.name,
            "revision": found.revision,
            "folder": str(found.folder),
            "files": found.files,
        }
        megabytes = sum(found.files.values()) / 1e6
        text = (
            f"{found.name}@{found.revision}: {len(found.files)} files, {megabytes:,.0f} MB, in "
            f"{found.folder}\nUse it: --base {found.name}@{found.revision}"
        )
        show(result, text, as_json=as_json)
