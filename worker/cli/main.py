"""Commands and their help. What they do is in the modules they call, imported when called."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer
from rich.console import Console

from worker import __version__
from worker.contract.errors import AdapterRefused
from worker.errors import (
    EXIT_ADAPTER,
    EXIT_INTERRUPTED,
    EXIT_SETTINGS,
    WorkerStopped,
)

if TYPE_CHECKING:
    from worker.settings_load import LoadedSettings

_EPILOG = """
Settings come from defaults, then a TOML file, then CLERK_* environment variables, then flags;
the later wins. `clerk-worker config` shows each with its origin.

Exit codes: 0 done or drained · 1 unexpected · 2 wrong settings or usage · 3 adapter refused ·
4 Kafka refuses to go on · 5 engine died · 130 interrupted before it could drain.
"""

app = typer.Typer(
    name="clerk-worker",
    help="Label support messages with exactly one of a fixed set of categories.\n\n"
    "New here? [bold]clerk-worker demo[/bold] shows the whole thing on this machine: real Kafka, "
    "a real small model, sample messages.",
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="TOML file with settings; CLERK_CONFIG names one too. See config/worker.toml.",
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="One setting, by its path: kafka.group_id=clerks, model.adapter=/adapters/current, "
        "kafka.consumer.fetch.min.bytes=1. May be given many times.",
    ),
]

InputFormat = Annotated[
    Literal["csv", "jsonl", "text"] | None,
    typer.Option("--format", "-f", help="Format of the input; else by the file's ending."),
]
Field = Annotated[
    str | None,
    typer.Option(help="CSV column or JSON path that holds the message.", show_default=False),
]


def main() -> NoReturn:
    """Run the command line and exit with its code; expected errors are one line, no traceback."""
    try:
        app(standalone_mode=True)
    except WorkerStopped as error:
        _fail(str(error), error.exit_code)
    except AdapterRefused as error:
        _fail(f"adapter refused: {error}", EXIT_ADAPTER)
    except KeyboardInterrupt:
        _fail("interrupted", EXIT_INTERRUPTED)
    sys.exit(0)


def _fail(message: str, code: int) -> NoReturn:
    Console(stderr=True, soft_wrap=True, highlight=False).print(
        "[bold red]error[/bold red]", message, markup=True
    ) if sys.stderr.isatty() else print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def _load(config: Path | None, sets: list[str] | None) -> LoadedSettings:
    from worker.logs import configure_logging
    from worker.settings_load import load_settings

    loaded = load_settings(config, sets or [])
    configure_logging(loaded.settings.log.format, loaded.settings.log.level)
    return loaded


def _load_to_label(config: Path | None, sets: list[str], *, use_demo: bool) -> LoadedSettings:
    """For commands that print labels: only warnings are logged; on the demo's model if asked."""
    if use_demo:
        from worker.demo.run import demo_model_settings

        sets = [*demo_model_settings(), *sets]
    return _load(config, ["log.level=warning", *sets])


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"clerk-worker {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    del version


@app.command()
def run(config: Config = None, sets: Sets = None) -> None:
    """Work until told to stop: messages in from Kafka, labels out.

    Checks the settings, the topics and the adapter, warms the model up, joins the consumer group
    and labels. SIGTERM or Ctrl-C: stops fetching, finishes and commits what is in flight, exits 0.

    Example: clerk-worker run -c config/worker.toml -s model.base=/models/base
    -s model.adapter=/adapters/current
    """
    from worker.app import run_worker

    run_worker(_load(config, sets).settings)


@app.command()
def demo(
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Leave broker and worker up afterwards, until Ctrl-C."),
    ] = False,
    messages: Annotated[
        int, typer.Option("--messages", "-n", min=1, help="How many sample messages to stream.")
    ] = 330,
    bootstrap_servers: Annotated[
        str | None,
        typer.Option(help="Use this cluster instead of the embedded Kafka (topics are created)."),
    ] = None,
) -> None:
    """Show the real thing on this machine: no Docker, no GPU, nothing to prepare.

    Starts Apache Kafka on loopback, a worker with a small model and the adapter that ships with
    the project, publishes sample messages of a shop's support desk, and shows each label as it
    lands. Leaves nothing running.
    """
    from worker.demo.run import run_demo

    sys.exit(run_demo(count=messages, keep=keep, bootstrap_servers=bootstrap_servers))


@app.command()
def classify(
    text: Annotated[str | None, typer.Argument(help="One message to label.")] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--input",
            "-i",
            metavar="FILE",
            help="CSV, JSONL or text file with many messages; - for standard input.",
        ),
    ] = None,
    input_format: InputFormat = None,
    field: Field = None,
    use_demo: Annotated[
        bool, typer.Option("--demo", help="Use the demo's small model and adapter.")
    ] = False,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Label messages without Kafka: one text, a file, or standard input.

    Results go to standard output, one JSON line a message in the order of the input (CSV in, CSV
    out with the label's columns added); progress goes to standard error.

    Examples: clerk-worker classify --demo "where is my parcel?"
    · clerk-worker classify --demo -i messages.csv --field body > labelled.csv
    · cat messages.jsonl | clerk-worker classify -c config/worker.toml -i - -f jsonl
    """
    from worker.offline.classify import Request, run_classify

    loaded = _load_to_label(config, sets or [], use_demo=use_demo)
    if (text is None) == (source is None):
        print("error: give one TEXT, or --input FILE (- for standard input)", file=sys.stderr)
        sys.exit(EXIT_SETTINGS)
    run_classify(loaded.settings, Request(text, source, input_format, field))


@app.command()
def compare(
    first: Annotated[
        str,
        typer.Argument(
            help="An adapter's directory, a store (its current one), 'current' (of model.adapter), "
            "or the first digits of a digest in the store that model.adapter names."
        ),
    ],
    second: Annotated[str, typer.Argument(help="Another one.")],
    source: Annotated[
        str | None,
        typer.Option("--input", "-i", metavar="FILE", help="Messages from a file, as in classify."),
    ] = None,
    input_format: InputFormat = None,
    field: Field = None,
    label_field: Annotated[
        str | None,
        typer.Option(help="... that holds the true label: tells which one is right more often."),
    ] = None,
    last: Annotated[
        int | None, typer.Option(min=1, help="The newest so many records of the topic.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Records from this time on: 2026-03-02T06:00 (UTC)."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="... and before this one.")
    ] = None,
    offsets: Annotated[
        list[str] | None,
        typer.Option(metavar="P:FIRST-LAST", help="Records by offset; many times."),
    ] = None,
    topic: Annotated[str | None, typer.Option(help="Which topic; else kafka.input_topic.")] = None,
    most: Annotated[int, typer.Option("--limit", min=1, help="At most so many messages.")] = 5000,
    texts: Annotated[
        bool, typer.Option("--texts", help="Show and write the messages too: customers' words.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the disagreements as CSV.")
    ] = None,
    use_demo: Annotated[
        bool, typer.Option("--demo", help="On the demo's base model; 'current' is its adapter.")
    ] = False,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Label the same messages with two adapters and show where they differ.

    Messages come from a stretch of the input topic or from a file. The topic is read outside of
    the consumer group, so running workers are not touched. The adapters are loaded one after the
    other, on this machine.

    Examples: clerk-worker compare current 3f2a9c -s model.adapter=/adapters --last 2000
    · clerk-worker compare --demo current runs/new/adapter -i labelled.csv --label-field category
    """
    from worker.cli.compare import compare_adapters, make_source
    from worker.offline.compare.run import CompareRequest
    from worker.offline.message_file import MessageFile

    file = MessageFile(source, input_format, field, label_field) if source is not None else None
    stretch = make_source(file, last=last, since=since, until=until, offsets=offsets or [])
    loaded = _load_to_label(config, sets or [], use_demo=use_demo)
    ask = CompareRequest(first, second, file, stretch, topic, most, texts)
    compare_adapters(loaded.settings, ask, as_json=as_json, out=out)


@app.command("config")
def show_config(config: Config = None, sets: Sets = None) -> None:
    """Show the effective settings and where each comes from; secrets are masked."""
    from worker.cli.show_config import print_settings
    from worker.settings_load import load_settings

    print_settings(load_settings(config, sets or []))


@app.command()
def health(
    url: Annotated[str, typer.Option(help="Which probe to ask.")] = "http://127.0.0.1:8080/readyz",
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0.1, help="Seconds to wait for the answer.")
    ] = 5.0,
) -> None:
    """Ask a worker on this machine whether it is ready, and exit 0 or 1.

    For a container's health check. /livez and /startupz can be asked as well.
    """
    from worker.cli.health import ask

    sys.exit(ask(url, timeout_s))


@app.command()
def topics(config: Config = None, sets: Sets = None) -> None:
    """Make the topics that are missing, and leave those that are there as they are.

    With kafka.topic_partitions partitions and kafka.topic_replication_factor replicas each. For a
    deployment's first step; a worker makes no topics unless kafka.create_topics says so.

    Example: clerk-worker topics -c config/worker.toml -s kafka.topic_partitions=12
    """
    from worker.cli.topics import make_topics

    make_topics(_load(config, sets).settings)


@app.command()
def adapters(
    store: Annotated[
        Path | None, typer.Option("--store", help="An adapter store.", show_default=False)
    ] = None,
    worker: Annotated[
        list[str] | None,
        typer.Option("--worker", metavar="URL", help="A running worker; may be given many times."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show which adapters a store holds, and what running workers really serve and since when.

    Exits 1 when a worker does not answer or its main adapter is not the store's current one.

    Example: clerk-worker adapters --store /adapters --worker http://127.0.0.1:8080
    """
    from worker.cli.adapters import show_adapters

    if store is None and not worker:
        print("error: give --store DIR, or --worker URL, or both", file=sys.stderr)
        sys.exit(EXIT_SETTINGS)
    sys.exit(show_adapters(store, worker or [], as_json=as_json))
