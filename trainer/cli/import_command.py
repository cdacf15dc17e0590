"""``clerk-trainer import``: a classifier that was trained elsewhere becomes an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from trainer.cli.shared import AsJson, DatasetFolder, folder_of, outcomes, print_text, show
from trainer.cli.train_commands import Sets

if TYPE_CHECKING:
    from trainer.artifacts.training import TrainingRecord

_UNKNOWN = (
    "What the model learnt is unknown. If it learnt these messages, the figures are too good, and "
    "the gate refuses them: give --unseen REASON if it cannot have"
)


def import_(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            help="A folder with config.json, *.safetensors and tokenizer.json; an .onnx file, with "
            "tokenizer.json next to it if it takes token ids; or a LoRA adapter's folder.",
        ),
    ],
    *,
    dataset: DatasetFolder,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="The run folder: adapter and figures.")
    ],
    base: Annotated[
        Path | None,
        typer.Option(
            "--base",
            metavar="DIR|NAME",
            callback=folder_of,
            help="Of a LoRA adapter: the model that it was trained on.",
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Of a LoRA adapter: its training file, or some lines of it (.jsonl: messages, "
            "conversations, or prompt and completion). It shows the prompt and the answers.",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The model's outputs, a label a line, in the order of its scores "
            "[default: id2label of config.json].",
        ),
    ] = None,
    label_map: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The outputs' names, and the taxonomy's: a .toml, .json or .csv file like that of "
            "prepare.",
        ),
    ] = None,
    messages: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Messages as they arrive (a table with 'message'), to measure what cleaning and "
            "redaction change; a dataset's are already clean.",
        ),
    ] = None,
    unseen: Annotated[
        str | None,
        typer.Option(
            metavar="REASON",
            help="Why the model cannot have learnt the dataset's messages, such as 'received after "
            "its training'. The gate requires it.",
        ),
    ] = None,
    sets: Sets = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Delete the contents of the run folder first.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Turn a classifier that was trained elsewhere into an adapter, without training.

    The original and what will be served are asked for the dataset's validation messages: how many
    labels differ, and by how much probabilities do. Then temperature and thresholds are fitted on
    the same messages, as after a training, and the run folder is like one: evaluate, duel, report,
    publish, and workers take it.

    Nothing that comes with the model is executed: models with their own code (auto_map) and pickles
    (.bin, .pt, .pkl, .joblib) are refused. docs/import.md has the lines that turn those of
    scikit-learn and SetFit into an .onnx file.

    A LoRA adapter of PEFT (from Axolotl, LLaMA-Factory, Unsloth, TRL) is served next to its base
    and answers with the words that it learnt, which --prompts shows.

    Choose messages that the model did not learn: otherwise its confidences, and its figures on the
    hold-out, are too good.

    Example: clerk-trainer import models/triage --dataset data/1 --out runs/triage
    --unseen "received after its training in May"

    Next: clerk-trainer evaluate runs/triage/adapter --dataset data/1

    Exit codes: 0 imported; 2 bad input; 4 the exported file is another function than the original.
    """
    with outcomes():
        from trainer.evaluation.engines import read_messages
        from trainer.model.lora_model import CONFIG
        from trainer.training.imported import ImportRequest, import_classifier
        from trainer.training.imported_lora import import_lora
        from trainer.training.recipe import parse_assignments

        request = ImportRequest(
            model,
            dataset,
            out,
            labels=labels,
            label_map=label_map,
            base=base,
            prompts=prompts,
            messages=tuple(read_messages(messages).values()) if messages else (),
            unseen=(unseen or "").strip() or None,
            settings=parse_assignments(sets or []),
            replace=replace,
        )
        is_lora = (model / CONFIG).is_file()
        record = import_lora(request) if is_lora else import_classifier(request)
        show(record.to_json(), lambda to: _print(to, record, out), as_json=as_json)


def _print(console: Console, record: TrainingRecord, out: Path) -> None:
    from trainer import facts
    from trainer.training.console import print_result

    assert record.imported is not None
    for name, value in facts.imported(record.imported):
        print_text(console, f"{name}: {value}")
    print_result(console, out / "adapter", record)
    if record.imported.unseen is None:
        print_text(console, _UNKNOWN)
