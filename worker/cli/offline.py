"""The commands that work without Kafka's consumer group: classify and compare."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from worker.cli.options import AsJson, Config, InputFormat, MessageField, Sets, UseDemo
from worker.cli.ranges import InputTopic, Offsets, Since, Until, input_range
from worker.errors import EXIT_SETTINGS, SettingsError

Messages = Annotated[
    str | None,
    typer.Option(
        "--input",
        "-i",
        metavar="FILE",
        help="CSV, JSONL or text file of messages; - for standard input.",
    ),
]
First = Annotated[
    str,
    typer.Argument(
        help="An adapter's directory; a store (its current adapter); 'current' (that of "
        "model.adapter); or the first digits of a digest in the store that model.adapter names."
    ),
]
Second = Annotated[str, typer.Argument(help="The adapter to compare it with, given likewise.")]
LabelField = Annotated[
    str | None,
    typer.Option(
        help="CSV column or JSON path of the true label; shows which adapter is correct more often."
    ),
]
Last = Annotated[int | None, typer.Option(min=1, help="The newest N records of the topic.")]
Limit = Annotated[int, typer.Option(min=1, help="Largest number of messages.")]
Texts = Annotated[
    bool, typer.Option("--texts", help="Include the message texts in the output (private data).")
]
Out = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write the disagreements to a CSV file.")
]


def classify(
    text: Annotated[str | None, typer.Argument(help="One message to classify.")] = None,
    source: Messages = None,
    input_format: InputFormat = None,
    field: MessageField = None,
    use_demo: UseDemo = False,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Classify messages without Kafka: one text, a file, or standard input.

    Results go to standard output in the order of the input, one JSON object per line; for CSV
    input, the CSV with columns of results added. Progress goes to standard error.

    Examples: clerk-worker classify --demo "where is my parcel?"
    · clerk-worker classify --demo -i messages.csv --field body > labelled.csv
    · cat messages.jsonl | clerk-worker classify -c config/worker.toml -i - -f jsonl
    """
    from worker.cli.load import load_offline
    from worker.offline.classify import ClassifyRequest, run_classify

    loaded = load_offline(config, sets, use_demo=use_demo)
    if (text is None) == (source is None):
        print("error: give one TEXT, or --input FILE (- for standard input)", file=sys.stderr)
        sys.exit(EXIT_SETTINGS)
    run_classify(loaded.settings, ClassifyRequest(text, source, input_format, field))


def compare(
    first: First,
    second: Second,
    source: Messages = None,
    input_format: InputFormat = None,
    field: MessageField = None,
    label_field: LabelField = None,
    last: Last = None,
    since: Since = None,
    until: Until = None,
    offsets: Offsets = None,
    topic: InputTopic = None,
    limit: Limit = 5000,
    texts: Texts = False,
    as_json: AsJson = False,
    out: Out = None,
    use_demo: UseDemo = False,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Classify the same messages with two adapters and show where they differ.

    Messages come from the input topic (--last, --since or --offsets) or from a file. The topic is
    read outside of the consumer group, so running workers are not affected. The adapters are loaded
    one after the other, on this machine.

    Examples: clerk-worker compare current 3f2a9c -s model.adapter=/adapters --last 2000
    · clerk-worker compare --demo current runs/new/adapter -i labelled.csv --label-field category
    """
    from worker.cli.compare import compare_adapters
    from worker.cli.load import load_offline
    from worker.offline.compare.run import CompareRequest
    from worker.offline.message_file import MessageFile

    file = MessageFile(source, input_format, field, label_field) if source is not None else None
    records = input_range(since, until, offsets, last)
    if (file is None) == (records is None):
        raise SettingsError(
            "choose messages with one of --input, --last, --since and --offsets: "
            + ("none is given" if file is None else "--input and another are given")
        )
    loaded = load_offline(config, sets, use_demo=use_demo)
    request = CompareRequest(first, second, file, records, topic, limit, texts)
    compare_adapters(loaded.settings, request, as_json=as_json, out=out)
