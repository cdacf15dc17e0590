"""Commands that run next to the workers, outside of their consumer group."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from worker.cli.options import (
    AsJson,
    Config,
    InputFormat,
    InputTopic,
    MessageField,
    Offsets,
    Sets,
    Since,
    Until,
    UseDemo,
    check_digest,
    input_range,
)
from worker.common.errors import EXIT_SETTINGS, EXIT_UNEXPECTED
from worker.contract.errors import RejectReason
from worker.contract.records import Replay
from worker.contract.records.identity import REPLAY_ID
from worker.contract.taxonomy import label_name
from worker.contract.timestamps import rfc3339
from worker.errors import SettingsError

if TYPE_CHECKING:
    from worker.offline.replay import ReplayResult
    from worker.offline.replay_plan import Criteria


Messages = Annotated[
    str | None,
    typer.Option(
        "--input",
        "-i",
        metavar="FILE",
        help="Messages: .csv, .tsv, .xlsx, .parquet, .jsonl or .txt; - for standard input.",
    ),
]
First = Annotated[
    str,
    typer.Argument(
        metavar="ADAPTER",
        help="An adapter's directory; a store (its current adapter); 'current' (that of "
        "model.adapter); or the first digits of a digest in model.adapter's store.",
    ),
]
Second = Annotated[
    str, typer.Argument(metavar="OTHER", help="The adapter to compare it with, named the same way.")
]
LabelField = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Column or JSON path of the true label; shows which adapter is right more often.",
    ),
]
Last = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="The newest N records of the topic.")
]
Limit = Annotated[int, typer.Option(min=1, metavar="N", help="Most messages to compare.")]
Texts = Annotated[
    bool, typer.Option("--texts", help="Include the message texts in the output (private data).")
]
Out = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write the disagreements to a CSV file.")
]


OutFolder = Annotated[
    str | None,
    typer.Option(
        metavar="DIR|URL", help="Label in parts, each a file in this folder or bucket (s3://...)."
    ),
]
OutFormat = Annotated[
    Literal["jsonl", "parquet"],
    typer.Option(help="With --out: the parts are JSON Lines, or Parquet with the main columns."),
]
OnRay = Annotated[
    int | None,
    typer.Option(
        "--ray",
        min=1,
        metavar="N",
        help="With --out: N actors of the Ray cluster in RAY_ADDRESS, or of a local one.",
    ),
]
Cpus = Annotated[float, typer.Option(min=0, help="With --ray: cores of an actor.")]
Gpus = Annotated[float, typer.Option(min=0, help="With --ray: GPUs of an actor.")]
Prices = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="With --dry-run: prices of machines (config/prices.toml)."),
]
PartOf = Annotated[
    str | None,
    typer.Option("--part", metavar="I/N", help="With --out: the I-th of N shares of the parts."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Label a few rows, and say how long all would take.")
]
Id = Annotated[
    str | None,
    typer.Option(
        "--id",
        metavar="NAME",
        help="Name of the replay, from letters, digits, '.', '_' and '-'; the same name resumes "
        "an interrupted replay.",
    ),
]
Why = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT", help="Reason, written into the results: 'bug 17'. No private data."
    ),
]
DeadLetters = Annotated[
    bool, typer.Option("--dead-letters", help="Records that are dead letters now.")
]
Reasons = Annotated[
    list[str] | None,
    typer.Option("--reason", help="Dead letters for this reason. Repeatable."),
]
Review = Annotated[bool, typer.Option("--review", help="Records whose label is for review.")]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        parser=label_name,
        metavar="TEXT",
        help="Records that have this label. Repeatable.",
    ),
]
MadeBy = Annotated[
    str | None,
    typer.Option(
        metavar="DIGEST", help="Results by this adapter, by the first digits of its digest."
    ),
]
Adapter = Annotated[
    str,
    typer.Option(
        metavar="ADAPTER",
        help="Adapter to label with: a directory, a store, 'current' (that of model.adapter), or "
        "the first digits of a digest in model.adapter's store.",
    ),
]
Execute = Annotated[
    bool,
    typer.Option("--execute/--dry-run", help="Label and publish, or only count the records."),
]


def classify(
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="One message to classify.")
    ] = None,
    source: Messages = None,
    input_format: InputFormat = None,
    field: MessageField = None,
    as_json: AsJson = False,
    out: OutFolder = None,
    out_format: OutFormat = "jsonl",
    part: PartOf = None,
    on_ray: OnRay = None,
    cpus: Cpus = 1.0,
    gpus: Gpus = 0.0,
    dry_run: DryRun = False,
    prices: Prices = None,
    use_demo: UseDemo = False,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Classify messages without Kafka: one text, a file, or standard input.

    Results go to standard output in input order. Each is the output record: one JSON object a line,
    or for a table (CSV, TSV, XLSX, Parquet) CSV, in which the record's fields follow the table's
    own columns, named input.NAME. Progress goes to standard error.

    Examples:

      clerk-worker classify --demo "where is my parcel?"

      clerk-worker classify --demo -i messages.csv --field body > labelled.csv

      clerk-worker classify -c config/worker.toml -i - -f jsonl < messages.jsonl

    Millions of messages: with --out, a file or a folder is labelled in parts of 10,000 rows. Each
    part is a file that appears whole. Started again, the command goes on. docs/backfill.md.

      clerk-worker classify -s model.adapter=/adapters -i archive/ --field body --out labelled/
    """
    from worker.cli.load import load_offline
    from worker.offline.backfill import run_backfill, try_backfill
    from worker.offline.classify import run_classify
    from worker.offline.message_files import MessageFile
    from worker.offline.ray_parts import Actors

    in_parts = out is not None or dry_run
    level = ["log.level=info"] if in_parts else []
    loaded = load_offline(config, [*level, *(sets or ())], use_demo=use_demo)
    if in_parts and source in {None, "-"}:
        raise SettingsError("--out and --dry-run need --input with a file or a folder")
    if not in_parts and source is not None and Path(source).is_dir():
        raise SettingsError(f"--input {source}: is a folder: give --out for its labels")
    if (part is not None or on_ray is not None) and out is None:
        raise SettingsError("--part and --ray need --out")
    if (text is None) == (source is None):
        print("error: give either TEXT or --input FILE (- for standard input)", file=sys.stderr)
        sys.exit(EXIT_SETTINGS)
    file = MessageFile(source or "-", input_format, field)
    if dry_run:
        try_backfill(loaded.settings, file, prices)
        return
    if out is not None:
        actors = Actors(on_ray, cpus, gpus) if on_ray else None
        run_backfill(
            loaded.settings,
            file,
            out,
            share=_share(part or "1/1"),
            part_format=out_format,
            actors=actors,
        )
        return
    run_classify(loaded.settings, file if text is None else text, as_json=as_json)


def _share(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})", text)
    if found is None or int(found[1]) > int(found[2]):
        raise SettingsError(f"--part {text}: write it as 2/8, the second of eight")
    return int(found[1]), int(found[2])


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

    Messages come from the input topic (--last, --since or --offsets) or from a file. Reading does
    not affect running workers. The adapters are loaded on this machine, one after the other.

    Examples:

      clerk-worker compare current 3f2a9c -s model.adapter=/adapters --last 2000

      clerk-worker compare current runs/one/adapter -i mails.csv --label-field label
    """
    from rich.console import Console

    from worker.cli.load import load_offline
    from worker.offline.compare import run_compare, show, to_json, write_csv
    from worker.offline.message_files import MessageFile

    file = MessageFile(source, input_format, field, label_field) if source is not None else None
    records = input_range(since, until, offsets, last)
    wanted = file or records
    if wanted is None or (file and records):
        raise SettingsError(
            "choose messages with one of --input, --last, --since and --offsets: "
            + ("none is given" if file is None else "not both --input and a range")
        )
    if out is not None and not out.parent.is_dir():
        # Checked first, because the engines take minutes.
        raise SettingsError(f"--out {out}: {out.parent} is not a directory")
    settings = load_offline(config, sets, use_demo=use_demo).settings
    result = run_compare(settings, (first, second), wanted, topic=topic, limit=limit, texts=texts)
    if as_json:
        print(json.dumps(to_json(result), ensure_ascii=False, indent=1))
    else:
        show(result, Console(highlight=False))
    if out is not None:
        count = write_csv(out, result.pairs)
        console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
        console.print(f"{count} disagreements: {out}")


def verify(
    since: Since = None,
    until: Until = None,
    offsets: Offsets = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIGEST",
            help="First digits of the digest of an adapter that served; results of any other are "
            "faults. Repeatable [default: the adapters in model.adapter's store].",
        ),
    ] = None,
    show_first: Annotated[
        int, typer.Option("--show", min=1, metavar="N", help="Most records to show for each fault.")
    ] = 10,
    topic: InputTopic = None,
    as_json: AsJson = False,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Prove that each input record has exactly one result; exit 0 if so, 1 if not.

    Reads the input, output, review and dead-letter topics of the worker's settings. Finds input
    records without a result, duplicate results, results out of order, results for records that do
    not exist, records that no worker wrote, and results of an unknown adapter. It changes nothing
    and may run while workers run. Without a range it checks everything that the group has
    committed; later records count as pending.

    Examples:

      clerk-worker verify -c config/worker.toml

      clerk-worker verify -c config/worker.toml --since 2026-03-02T06:00 --json
    """
    from rich.console import Console

    from worker.cli.load import load_offline
    from worker.offline.verify import run_verify, show, to_json

    for digits in adapter or ():
        check_digest("--adapter", digits)
    records = input_range(since, until, offsets)
    settings = load_offline(config, sets, use_demo=False).settings
    found = run_verify(
        settings, records, adapters=adapter or (), max_offenders=show_first, topic=topic
    )
    if as_json:
        print(json.dumps(to_json(found), indent=1))
    else:
        show(found, Console(highlight=False, soft_wrap=True))
    if not found.verdict.is_proven:
        sys.exit(EXIT_UNEXPECTED)


def explain(
    record_id: Annotated[
        str, typer.Argument(metavar="ID", help="The result's id: TOPIC-PARTITION-OFFSET.")
    ],
    record: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The output record, saved as JSON, if it has expired."),
    ] = None,
    corrections: Annotated[
        str | None,
        typer.Option(
            metavar="TOPIC", help="Where the desk's decisions are [default: OUTPUT.corrections]."
        ),
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="Show the message, too.")] = False,
    as_json: AsJson = False,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Explain one result: its adapter, scores and thresholds, why it was reviewed or not, what
    people decided later, and whether the same label comes out again.

    Reads the result and its message from Kafka, and labels the message again with the adapter that
    the result names, from the store of model.adapter. Changes nothing. Exits 1 if another label or
    other scores come out, or it cannot be computed.

    Example: clerk-worker explain support.messages-0-17 -c config/worker.toml
    """
    from rich.console import Console

    from worker.cli.load import load_offline
    from worker.offline.explain import explain as run
    from worker.offline.explain import show, to_json

    settings = load_offline(config, sets, use_demo=False).settings
    found = run(settings, record_id, saved=record, corrections=corrections, with_text=text)
    if as_json:
        print(json.dumps(to_json(found), indent=1))
    else:
        show(found, Console(highlight=False, soft_wrap=True))
    if not found.holds:
        sys.exit(EXIT_UNEXPECTED)


def replay(
    replay_id: Id = None,
    why: Why = None,
    dead_letters: DeadLetters = False,
    reason: Reasons = None,
    review: Review = False,
    label: Labels = None,
    made_by: MadeBy = None,
    since: Since = None,
    until: Until = None,
    offsets: Offsets = None,
    topic: InputTopic = None,
    adapter: Adapter = "current",
    execute: Execute = False,
    as_json: AsJson = False,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Label chosen records again, such as dead letters or the results of an adapter.

    Without --execute it only counts. Records are chosen by their current result, and each option
    narrows the choice. They are read from the input topic, so expired ones cannot be labelled
    again. The command labels them itself, on this machine; running workers are not affected.
    Results keep their ids and carry the replay's id, time and reason; the latest replay counts.

    After an interruption run the same command with the same --id: it resumes, and every record gets
    exactly one result from the replay.

    Examples:

      clerk-worker replay --reason deadline_exceeded -c config/worker.toml

      clerk-worker replay --id bug-17 --why "bug 17" --reason deadline_exceeded --execute

      clerk-worker replay --id undo-9f2c --why "9f2c was wrong" --made-by 9f2c --execute
    """
    from worker.cli.load import load_offline
    from worker.offline.replay import ReplayRequest, run_replay
    from worker.offline.replay_plan import Criteria

    marked = _replay(replay_id, why, execute=execute)
    criteria = Criteria(dead_letters, review, tuple(reason or ()), tuple(label or ()), made_by)
    _check(criteria)
    request = ReplayRequest(
        marked,
        criteria,
        input_range(since, until, offsets),
        adapter,
        execute,
        topic,
    )
    settings = load_offline(config, sets, use_demo=False).settings
    result = run_replay(settings, request)
    if as_json:
        print(json.dumps({"schema": "replay/1", "id": marked.id, **asdict(result)}, indent=1))
    else:
        _show(result, marked, execute=execute)


def _replay(replay_id: str | None, why: str | None, *, execute: bool) -> Replay:
    now = datetime.now(UTC)
    if execute and (replay_id is None or why is None):
        raise SettingsError(
            "--execute needs --id NAME, to resume after an interruption, and --why TEXT"
        )
    name = replay_id or f"replay-{now:%Y%m%d-%H%M%S}"
    if re.fullmatch(REPLAY_ID, name) is None:
        raise SettingsError(f"--id {name}: use 1 to 100 letters, digits, '.', '_' and '-'")
    return Replay(name, rfc3339(now), why or "")


def _check(criteria: Criteria) -> None:
    known = get_args(RejectReason)
    for reason in criteria.reasons:
        if reason not in known:
            raise SettingsError(f"--reason {reason}: choose one of {', '.join(known)}")
    if criteria.made_by is not None:
        check_digest("--made-by", criteria.made_by)
    if (criteria.dead_letters or criteria.reasons) and (criteria.review or criteria.labels):
        raise SettingsError(
            "--dead-letters and --reason exclude --review and --label: a dead letter has no label"
        )


def _show(result: ReplayResult, marked: Replay, *, execute: bool) -> None:
    total = sum(result.chosen.values())
    by = ", ".join(f"{number}: {count:,}" for number, count in sorted(result.chosen.items()))
    at_most = "at most " if result.at_most else ""
    print(f"{at_most}{total:,} records to label again{f' (by partition {by})' if by else ''}")
    if result.resumed_at:
        print(f"resuming {marked.id}; records that it has labelled before are not counted")
    if result.expired:
        print(f"{result.expired:,} more have expired from the input topic")
    if execute:
        print(f"published: {result.labelled:,} labels, {result.dead:,} dead letters")
    elif total:
        print(
            f"only counted: add --execute --id {marked.id} --why TEXT to label them",
            file=sys.stderr,
        )
