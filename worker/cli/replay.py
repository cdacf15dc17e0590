"""``clerk-worker replay``: its options parsed, its counts printed."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from worker.cli.options import AsJson, Config, Sets, check_digest
from worker.cli.ranges import InputTopic, Offsets, Since, Until, input_range
from worker.contract.errors import RejectReason
from worker.contract.records import Replay
from worker.contract.records.identity import REPLAY_ID
from worker.contract.timestamps import rfc3339
from worker.errors import SettingsError

if TYPE_CHECKING:
    from worker.offline.replay.run import ReplayResult
    from worker.offline.replay.select import Criteria

Id = Annotated[
    str | None,
    typer.Option(
        "--id",
        help="Name of the replay: the same name goes on where a run was broken off. "
        "Letters, digits, '.', '_' and '-'.",
    ),
]
Why = Annotated[
    str | None, typer.Option(help="Why, for whoever reads the results: 'bug 17'. No private data.")
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
    list[str] | None, typer.Option("--label", help="Records that have this label. Repeatable.")
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
        help="Adapter to label with: a directory, a store, 'current' (that of model.adapter), or "
        "the first digits of a digest in the store that model.adapter names."
    ),
]
ToOutput = Annotated[
    str | None, typer.Option(help="Topic for labels; default: kafka.output_topic.")
]
ToReview = Annotated[
    str | None, typer.Option(help="Topic for labels to review; default: kafka.review_topic.")
]
ToDead = Annotated[
    str | None, typer.Option(help="Topic for dead letters; default: kafka.dead_letter_topic.")
]
Execute = Annotated[
    bool,
    typer.Option(
        "--execute/--dry-run", help="Label and publish; without it records are only counted."
    ),
]


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
    to_output: ToOutput = None,
    to_review: ToReview = None,
    to_dead: ToDead = None,
    execute: Execute = False,
    as_json: AsJson = False,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Label chosen records again: dead letters, reviews, a label, an adapter's results, a range.

    Counts first: nothing is labelled or written without --execute. Records are chosen by the result
    that is in force; each option narrows the choice. They are read from the input topic: what has
    expired there cannot be labelled again. The command labels them itself, with the adapter that
    you choose, on a machine with room for the model; running workers are not affected. Results keep
    their ids, and are marked with the replay's id, time and reason: the latest replay holds.

    Killed half-way, the same command with the same --id goes on: no record gets two results of one
    replay, and none is left out.

    Examples: clerk-worker replay --reason deadline_exceeded -c worker.toml
    · clerk-worker replay --id bug-17 --why "bug 17" --reason deadline_exceeded --execute
    · clerk-worker replay --id undo-9f2c --why "9f2c was wrong" --made-by 9f2c --execute
    """
    from worker.cli.load import load_offline
    from worker.offline.replay.run import ReplayRequest, run_replay
    from worker.offline.replay.select import Criteria

    marked = _replay(replay_id, why, execute=execute)
    criteria = Criteria(dead_letters, review, tuple(reason or ()), tuple(label or ()), made_by)
    _check(criteria)
    topics = {"output_topic": to_output, "review_topic": to_review, "dead_letter_topic": to_dead}
    request = ReplayRequest(
        marked,
        criteria,
        input_range(since, until, offsets),
        adapter,
        {name: given for name, given in topics.items() if given is not None},
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
            "--execute needs --id NAME, by which it can be gone on with, and --why TEXT"
        )
    name = replay_id or f"replay-{now:%Y%m%d-%H%M%S}"
    if re.fullmatch(REPLAY_ID, name) is None:
        raise SettingsError(f"--id {name}: at most 100 letters, digits, '.', '_' and '-'")
    return Replay(name, rfc3339(now), why or "")


def _check(criteria: Criteria) -> None:
    known = get_args(RejectReason)
    for reason in criteria.reasons:
        if reason not in known:
            raise SettingsError(f"--reason {reason}: it is one of {', '.join(known)}")
    if criteria.made_by is not None:
        check_digest("--made-by", criteria.made_by)
    if (criteria.dead_letters or criteria.reasons) and (criteria.review or criteria.labels):
        raise SettingsError("a dead letter has no label: choose it, or --review and --label")


def _show(result: ReplayResult, marked: Replay, *, execute: bool) -> None:
    total = sum(result.chosen.values())
    by = ", ".join(f"{number}: {count:,}" for number, count in sorted(result.chosen.items()))
    at_most = "at most " if result.at_most else ""
    print(f"{at_most}{total:,} records to label again{f' (by partition {by})' if by else ''}")
    if result.resumed_at:
        print(f"going on with {marked.id}; what it did before is not counted")
    if result.expired:
        print(f"{result.expired:,} more have expired from the input topic, and cannot be")
    if execute:
        print(f"published: {result.labelled:,} labels, {result.dead:,} dead letters")
    elif total:
        print(
            f"nothing was done: add --execute --id {marked.id} --why TEXT to do it", file=sys.stderr
        )
