"""The commands and their help. Each command imports its module when it is called: --help and a
container's health check then start fast."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from worker import __version__
from worker.cli.offline import Messages, classify, compare, explain, replay, verify
from worker.cli.options import AsJson, Config, InputFormat, MessageField, Sets
from worker.common.errors import EXIT_SETTINGS, run_program
from worker.contract.errors import AdapterRefused
from worker.errors import EXIT_ADAPTER, WorkerStopped

_EPILOG = """
Settings come from defaults, a TOML file, `CLERK_*` environment variables and flags; later ones
override earlier ones. clerk-worker check-config checks them and shows where each comes from.

Exit codes: 0 done or drained · 1 unexpected error · 2 wrong settings or usage ·
3 adapter refused · 4 Kafka cannot be used · 5 engine died ·
7 start it again (adapters.when_too_large) · 130 interrupted before it could drain.
"""

app = typer.Typer(
    name="clerk-worker",
    help="Label support messages with exactly one of a fixed set of categories.\n\n"
    "New here? **clerk-worker demo** shows everything on this machine: real Kafka, a real small "
    "model, sample messages.",
    epilog=_EPILOG,
    no_args_is_help=True,
    # Not "rich": it keeps a docstring's line breaks, so that 80 columns show ragged lines.
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> NoReturn:
    """Run the command line and exit with its code; expected errors are one line, no traceback."""
    run_program("worker", app, _explain)


def _explain(error: Exception) -> tuple[str, int] | None:
    if isinstance(error, WorkerStopped):
        return str(error), error.exit_code
    if isinstance(error, AdapterRefused):
        return f"adapter refused: {error}", EXIT_ADAPTER
    return None


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


@app.command(rich_help_panel="Run it")
def run(config: Config = None, sets: Sets = None) -> None:
    """Run the worker: read messages from Kafka, write labels, until SIGTERM or Ctrl-C.

    Checks settings, topics and adapter, warms up the model, and joins the consumer group. When
    stopped it fetches no more, finishes and commits the work in flight, and exits 0.

    Example: clerk-worker run -c config/worker.toml -s model.adapter=/adapters
    """
    from worker.app import run_worker
    from worker.cli.load import load

    run_worker(load(config, sets).settings)


@app.command(rich_help_panel="Try it")
def demo(
    *,
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Keep broker and worker running afterwards, until Ctrl-C."),
    ] = False,
    messages: Annotated[
        int, typer.Option("--messages", "-n", min=1, help="Most messages to stream.")
    ] = 330,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="adapter|encoder|cascade|DIR",
            help="The model: an adapter on a small language model; an encoder; a cascade, in which "
            "the encoder answers what it is sure of and the adapter the rest; or yours, the "
            "directory of an adapter or a store [default: adapter; encoder without vLLM].",
        ),
    ] = None,
    source: Messages = None,
    input_format: InputFormat = None,
    field: MessageField = None,
    label_field: Annotated[
        str | None,
        typer.Option(
            "--label-field",
            metavar="NAME",
            help="Column or JSON path of the true label; adds how many are right.",
        ),
    ] = None,
    topic: Annotated[
        str | None,
        typer.Option("--topic", help="Topic of the messages [default: support.messages]."),
    ] = None,
    desk: Annotated[
        bool,
        typer.Option(
            "--desk", help="Start the desk too, and decide doubtful labels in the browser."
        ),
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder",
            metavar="DIR",
            help="Keep Kafka's and the desk's files here, and reuse existing ones.",
        ),
    ] = None,
    sets: Sets = None,
) -> None:
    """Show the whole system on this machine: no Docker, no GPU, nothing to prepare.

    Starts Apache Kafka on loopback and a worker with a small model, publishes sample messages of a
    shop's support desk, and shows each label as it arrives. Leaves nothing running. With
    -s kafka.bootstrap_servers=HOST:PORT it uses that cluster, and creates topics there.

    Your own model, on your own messages:

    clerk-worker demo --model adapters -i tickets.csv --field body --label-field category
    """
    from worker.demo.models import default_model
    from worker.demo.plan import Wish
    from worker.demo.run import run_demo
    from worker.offline.message_files import MessageFile

    file = None if source is None else MessageFile(source, input_format, field, label_field)
    given = (*([f"kafka.input_topics={topic}"] if topic else ()), *(sets or ()))
    wish = Wish(messages, model or default_model(), keep, desk, folder, given, file)
    sys.exit(run_demo(wish))


app.command(rich_help_panel="Try it")(classify)
app.command(rich_help_panel="Adapters")(compare)
app.command(rich_help_panel="Records")(verify)
app.command(rich_help_panel="Records")(explain)
app.command(rich_help_panel="Records")(replay)


@app.command("check-config", rich_help_panel="Run it")
def check_config(config: Config = None, sets: Sets = None) -> None:
    """Show every setting with its origin, and check them without loading a model.

    Checks settings, topics, files, the adapter with its base, and installed packages. Prints every
    problem and then exits 2; `run` refuses to start for the same reasons. Brokers that do not
    answer within 3 seconds are only a note. Call it where the worker
    will run: in its image, with its mounts. Secrets are redacted.

    Example: clerk-worker check-config -c config/worker.toml
    """
    from worker.cli.load import check
    from worker.settings import load_settings

    sys.exit(check(load_settings(config, sets or [])))


@app.command(rich_help_panel="Run it")
def health(
    url: Annotated[
        str, typer.Option(metavar="URL", help="URL of the check.")
    ] = "http://127.0.0.1:8080/readyz",
) -> None:
    """Check whether a worker on this machine is ready: exit 0 if it is, else 1.

    For a container's health check. With --url it checks /livez or /startupz instead.

    Example: clerk-worker health --url http://127.0.0.1:8080/livez
    """
    from worker.cli.adapters import ask

    sys.exit(ask(url))


@app.command(rich_help_panel="Run it")
def topics(config: Config = None, sets: Sets = None) -> None:
    """Create missing topics, and register the labels' schemas; existing topics stay unchanged.

    Each gets kafka.topic_partitions partitions and the broker's default number of replicas. Run it
    before the first deployment; a worker creates topics only if kafka.create_topics is true. With
    kafka.output_format other than json it registers schemas, after each was found compatible.

    Example: clerk-worker topics -c config/worker.toml -s kafka.topic_partitions=12
    """
    from worker.cli.load import load
    from worker.policies import kafka_config, shadow_topic
    from worker.stream.kafka_reach import check_clients
    from worker.stream.kafka_topics import prepare_topics
    from worker.stream.output_schemas import register_schemas

    settings = load(config, sets).settings
    kafka = settings.kafka.model_copy(update={"create_topics": True})
    wanted = kafka_config(kafka, shadow_topic(settings))
    check_clients(wanted)
    ids = register_schemas(wanted)  # first: if one is refused, nothing is created
    found = prepare_topics(wanted)
    names = dict.fromkeys((*found.topics.named_inputs, *found.topics.sinks))
    print(f"{found.bootstrap_servers} has {', '.join(names)}")
    for subject, id_ in ids.items():
        print(f"the registry has the schema of {subject}: {id_}")


@app.command(rich_help_panel="Adapters")
def adapters(
    store: Annotated[
        Path | None,
        typer.Option("--store", help="Directory of an adapter store.", show_default=False),
    ] = None,
    worker: Annotated[
        list[str] | None,
        typer.Option("--worker", metavar="URL", help="A running worker. Repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the adapters in a store, and those that running workers serve.

    Exits 1 if a worker does not answer or its main adapter is not the store's current one.

    Example: clerk-worker adapters --store /adapters --worker http://127.0.0.1:8080
    """
    from worker.cli.adapters import show_adapters

    if store is None and not worker:
        print("error: nothing to show: give --store DIR, --worker URL or both", file=sys.stderr)
        sys.exit(EXIT_SETTINGS)
    sys.exit(show_adapters(store, worker or [], as_json=as_json))
