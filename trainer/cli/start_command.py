"""``clerk-trainer start``: from files of labelled messages to a judged model, in one folder."""

from __future__ import annotations

import inspect
import os
import shlex
import sys
import time
import webbrowser
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable
from typer.main import get_command

from trainer.artifacts.files import PRIVATE
from trainer.cli.prepare_command import option_parameter
from trainer.cli.shared import (
    EXIT_INTERRUPTED,
    EXIT_NOT_GOOD_ENOUGH,
    folder_of,
    make_console,
    outcomes,
)
from trainer.dataset.findings import listed as places_of
from trainer.dataset.findings import rows_of
from trainer.dataset.settings import (
    OnUnknown,
    PrepareSettings,
    SplitBy,
    declared_options,
    settings_of,
)
from trainer.errors import BadInput
from trainer.numbers import counted
from worker.contract import ContractError, Taxonomy
from worker.contract.digest import sha256_file, write_atomically

if TYPE_CHECKING:
    from trainer.start.chain import Planned, Step
    from trainer.start.instruction import Listed
    from trainer.start.look import Columns, Contents
    from trainer.start.plan import Places
    from trainer.start.progress import Estimate
    from worker.common.tables import Table

_ROW_CHARS = 60


def start(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE",
            help="Labelled messages: .csv, .tsv, .jsonl, .parquet or .xlsx; or chats that a model "
            "was fine-tuned on (.jsonl).",
        ),
    ],
    *,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="The folder for everything that is made.")
    ],
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe",
            metavar="FILE",
            help="A recipe [default: a small encoder, for the number of messages].",
        ),
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option(
            "--base",
            metavar="DIR|NAME",
            callback=folder_of,
            help="The base model, as for train [default: the installed one].",
        ),
    ] = None,
    taxonomy: Annotated[
        Path | None,
        typer.Option(
            "--taxonomy",
            metavar="FILE",
            help="Your labels [default: taxonomy.toml next to the file, else made of its labels].",
        ),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A setting, over the recipe's. Repeatable."
        ),
    ] = None,
    again: Annotated[
        bool,
        typer.Option(
            "--again", help="If inputs or options changed, replace the results made with others."
        ),
    ] = False,
    **given: Any,
) -> None:
    """Make a model from files of labelled messages, and say whether it is good enough.

    Finds format, encoding, delimiter and columns, and shows what it found. On a terminal it asks
    what only you can decide; elsewhere that is an error which names the option. Writes
    taxonomy.toml from the labels, for you to edit. Then runs prepare, check, train, evaluate, duel
    and report, and prints each as the command that does the same by hand.

    Interrupted or killed, run it again: it continues. If you change an input, taxonomy.toml,
    recipe.toml, or fill in data-review.csv, run it again too: it names what changed and repeats
    what depends on it.

    --after LAST is the next month: the file again, with new rows, next to LAST, the folder of an
    earlier start. The hold-out stays and grows, the model in LAST's store is measured on it too,
    and the new one is published there if it passes the gate.

    Examples:

      clerk-trainer start tickets.csv --out first

      clerk-trainer start tickets.csv --out second --after first

    Exit codes: 0 done, whether or not the model passes the gate; 2 bad input or something to
    decide; 130 interrupted; otherwise that of the step that failed.
    """
    with outcomes():
        from trainer.start.chain import locked
        from trainer.start.plan import Places

        after = given["after"]
        with locked(out):
            session = _Session(Places(out, after), again=again, taxonomy=taxonomy)
            settings = session.look(files, given)
            steps = session.plan(settings, recipe=recipe, base=base, sets=sets or ())
            session.run(steps)
            session.finish()


def _signature() -> inspect.Signature:
    """Return the command's own options, then those of ``prepare`` that it does not choose."""
    own = inspect.signature(start, eval_str=True).parameters.values()
    chosen = {"inputs", "taxonomy", "out"}
    passed = [
        option_parameter(each, panel="Options of prepare")
        for each in declared_options()
        if each.name not in chosen
    ]
    return inspect.Signature([*(each for each in own if each.name != "given"), *passed])


class _Session:
    """One call of the command: what it shows, asks and runs."""

    def __init__(self, places: Places, *, again: bool, taxonomy: Path | None = None) -> None:
        from trainer.start.chain import Folder
        from trainer.store.promise import PRECISION

        self._places = places
        self._again = again
        self._taxonomy = taxonomy
        self._folder = Folder(places.out)
        if places.after:
            self._folder.store = str(places.store.resolve())
            # People may have written descriptions into it.
            if not places.taxonomy.exists() and (last := places.after / "taxonomy.toml").is_file():
                places.taxonomy.write_bytes(last.read_bytes())
        # Bound to the present output, since that of the steps is redirected to the log.
        self._console = make_console(as_json=False)
        self._console.file = sys.stdout
        self._asks = can_ask(self._console)
        self._messages, self._epochs, self._promised = 0, 1, PRECISION
        self._languages: dict[str, int] = {}
        self._by_folds = False

    def _print(self, text: str = "") -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    # --- what there is

    def look(self, files: Sequence[Path], given: dict[str, Any]) -> PrepareSettings:
        """Look into the files, show and settle what was found, write the taxonomy; return the
        options of ``prepare``. Raises BadInput with everything that has to be decided."""
        from trainer.dataset.labels import read_label_map
        from trainer.languages import count_languages, language_shares
        from trainer.start.instruction import listed_labels
        from trainer.start.look import count, find_columns, open_tables, rare_labels
        from trainer.start.plan import validation_share

        places = self._places
        made = {"inputs": list(files), "taxonomy": places.taxonomy, "out": places.data}
        settings = settings_of({**given, **made})
        tables = open_tables(
            files, encoding=settings.encoding, delimiter=None, sheet=settings.sheet
        )
        columns = find_columns(tables, settings.columns, self._choose)
        mapped = read_label_map(settings.label_map, None) if settings.label_map else None
        found = count(tables, columns.names, settings.minimum_per_label, mapped)
        self._messages = found.usable
        self._show_files(tables, columns)
        self._show_rows(found)
        self._languages = count_languages([text for text, _ in found.rows])
        if self._languages:
            self._print(f"  languages {language_shares(self._languages)}")
        answers = any(table.found.form for table in tables)
        rare = rare_labels(found, settings.minimum_per_label, answers=answers)
        texts = dict.fromkeys(table.instruction for table in tables)
        listed = listed_labels("\n".join(texts), found.labels) if answers else None
        self._show_labels(found, rare, settings.minimum_per_label, listed)
        self._write_taxonomy(files, found, rare, listed)
        # Without --split time a column of times is only shown: random parts have all labels.
        time = columns.names.time if settings.split == SplitBy.TIME else None
        return replace(
            settings,
            columns=replace(columns.names, time=time),
            decisions=(*settings.decisions, *self._decided()),
            unknown_label=self._unknown_label(settings, found, rare),
            validation_share=validation_share(found.usable, settings.validation_share),
        )

    def _choose(self, question: str, columns: Sequence[str], flag: str) -> str:
        from trainer.start.look import Ambiguous

        if not self._asks:
            listed = ", ".join(map(repr, columns))
            raise Ambiguous(f"{question} Give {flag}, one of {listed}")
        self._print(f"\n{question}")
        for number, column in enumerate(columns, start=1):
            self._print(f"  {number}  {column}")
        while True:
            answer = int(typer.prompt("Number", type=int))
            if 1 <= answer <= len(columns):
                return columns[answer - 1]

    def _show_files(self, tables: Sequence[Table], columns: Columns) -> None:
        for table in tables:
            self._print(f"{table.name}: {table.found.words()}")
            for problem in table.problems:
                self._print(f"  {problem.sentence(table.unit)}")
        for what in ("message", "label", "sublabel", "id", "time"):
            if name := getattr(columns.names, what):
                why = f" ({columns.why[what]})" if what in columns.why else ""
                self._print(f"  {what:<9}{name!r}{why}")

    def _show_rows(self, found: Contents) -> None:
        if not self._console.is_terminal:
            return  # other output may be kept as a log
        for text, label in found.first:
            line = " ".join(text.split())
            self._print(f"    {label}: {line[:_ROW_CHARS]}{'…' if len(line) > _ROW_CHARS else ''}")

    def _show_labels(
        self, found: Contents, rare: Sequence[str], minimum: int, listed: Listed | None
    ) -> None:
        """``listed``: what the instruction says if the labels are a model's answers. A rare answer
        that it does not list may be any text, so it is counted and not shown."""
        from trainer.start.look import find_plurals

        shown = RichTable(box=None, pad_edge=False)
        for name in ("label", "rows", ""):
            shown.add_column(name, justify="right" if name == "rows" else "left")
        plurals = find_plurals(found.labels)
        hidden = [label for label in rare if listed and not listed.has(label)]
        for label, rows in found.labels.items():
            if label in hidden:
                continue
            notes = []
            if label in found.spellings:
                notes.append(f"also written {', '.join(map(repr, found.spellings[label]))}")
            if label in plurals:
                notes.append(f"the same as {plurals[label]!r}? --label-map joins them")
            if label in rare:
                notes.append(
                    f"left out: {found.different[label]} different messages, and a label needs "
                    f"{minimum} (--minimum-per-label)"
                )
            shown.add_row(escape(label), f"{rows:,}", escape("; ".join(notes)))
        self._console.print(shown)
        if hidden:
            count = sum(found.labels[label] for label in hidden)
            places = [where for label in hidden for where in found.places[label]]
            self._print(
                f"{rows_of(count)} left out: {counted(len(hidden), 'answer')} of fewer than "
                f"{minimum} different messages, not listed in the instruction ({places_of(places)})"
            )
        if listed and listed.unseen:
            names = ", ".join(map(repr, listed.unseen))
            self._print(f"in the instruction without a message, left out: {names}")
        dropped = {
            "without a message": found.empty,
            "without a label": found.unlabelled,
            "exact copies": found.copies,
        }
        counts = [f"{number:,} {what}" for what, number in dropped.items() if number]
        left_out = f"; left out: {', '.join(counts)}" if counts else ""
        self._print(f"{found.rows_read:,} rows{left_out}")

    def _write_taxonomy(
        self,
        files: Sequence[Path],
        found: Contents,
        rare: Sequence[str],
        listed: Listed | None,
    ) -> None:
        from trainer.start.terms import name_of, taxonomy_text, typical_terms

        if self._copy_taxonomy(files[0].with_name("taxonomy.toml"), found, rare):
            return
        terms = typical_terms(found.rows)
        # By name: with more messages the order by number would change, and with it the digest.
        names = sorted((label for label in found.labels if label not in rare), key=str.casefold)
        labels = {label: terms.get(label, ()) for label in names}
        known = listed.describe(labels) if listed else {}
        text = taxonomy_text(name_of(files[0].stem), [file.name for file in files], labels, known)
        what = "the labels, with words that are typical of each"
        if known:
            what = f"the labels; the instruction describes {len(known)} of {len(labels)}"
        self._write(self._places.taxonomy, text, what)

    def _copy_taxonomy(self, beside: Path, found: Contents, rare: Sequence[str]) -> bool:
        """Copy the taxonomy that was given, or the one ``beside`` the file if it has all labels:
        another project's would not. Labels with too few messages are left out, unless these are
        nearly all: it may be of other messages. Return whether there was one. Raises BadInput."""
        from trainer.start.look import label_key
        from trainer.start.terms import without_labels

        mine, given = self._places.taxonomy, self._taxonomy or beside
        if not self._taxonomy and (mine.exists() or not given.is_file()):
            return False
        try:
            names = Taxonomy.from_toml(given).names
        except ContractError:
            if self._taxonomy:
                raise
            return False
        enough = {label_key(label) for label in found.labels if label not in rare}
        if not self._taxonomy and not enough.issubset(map(label_key, names)):
            return False
        few = [name for name in names if label_key(name) not in enough]
        few = few if len(names) - len(few) > 1 else []
        text = without_labels(_read(given).decode("utf-8"), few).encode("utf-8")
        if mine.exists():
            if text != _read(mine):
                raise BadInput(f"--taxonomy: {mine} is there already: edit that one, or remove it")
            return False
        write_atomically(mine, text)
        left_out = f", without {', '.join(map(repr, few))} (too few messages)"
        self._print(f"{mine}: copied from {given}{left_out if few else ''}")
        return True

    def _write(self, path: Path, text: str, what: str) -> None:
        written = self._folder.write(path, text)
        self._print(f"{path}: {what}" if written else f"{path}: yours, kept as it is")

    def _unknown_label(
        self, settings: PrepareSettings, found: Contents, rare: Sequence[str]
    ) -> OnUnknown:
        """Return what to do with labels that are not in the taxonomy: missing and rare ones are
        left out, as was shown; what to do with others, a person must say."""
        from trainer.start.look import label_key

        taxonomy = Taxonomy.from_toml(settings.taxonomy)
        known = set(map(label_key, taxonomy.names))
        unknown = [label for label in found.labels if label_key(label) not in known]
        if settings.unknown_label != OnUnknown.ERROR:
            return settings.unknown_label
        others = [label for label in unknown if label not in rare]
        if not others:
            return OnUnknown.DROP if unknown or found.unlabelled else OnUnknown.ERROR
        rows = sum(found.labels[label] for label in others)
        listed = ", ".join(map(repr, others[:5])) + (", ..." if len(others) > 5 else "")
        problem = f"{settings.taxonomy}: has no {listed} ({rows:,} rows)"
        if not self._asks:
            raise BadInput(
                f"{problem}: add them, translate them by --label-map, or leave the rows out by "
                "--unknown-label drop"
            )
        if not typer.confirm(f"{problem}. Leave these rows out?"):
            raise BadInput(f"{problem}: add them, then run it again")
        return OnUnknown.DROP

    def _decided(self) -> list[Path]:
        """Return the files in which reviewers decided: the review queue, and those in the dataset's
        folder, which are moved out of it, because that folder is made again."""
        from trainer.check.run import refuse_overwriting
        from trainer.dataset.prepare import CONFLICTS, UNLABELLED

        places = self._places
        for path in (places.data / CONFLICTS, places.data / UNLABELLED):
            if path.is_file() and refuse_overwriting(path, update=True):
                path.rename(places.out / f"decided-{sha256_file(path)[:8]}.csv")
        queue = places.queue
        filled = queue.is_file() and refuse_overwriting(queue, update=True)
        return [*([queue] if filled else []), *sorted(places.out.glob("decided-*.csv"))]

    # --- what is to be done

    def plan(
        self,
        settings: PrepareSettings,
        *,
        recipe: Path | None,
        base: Path | None,
        sets: Sequence[str],
    ) -> list[Planned]:
        """Write the recipe; return the steps. Results of other inputs are not replaced unasked.
        Raises BadInput."""
        from trainer.start.plan import make_steps, recipe_setting, recipe_text
        from trainer.store.promise import PRECISION

        if recipe is None:
            recipe = self._places.recipe
            self._write(
                recipe,
                recipe_text(self._messages, sublabels=settings.columns.sublabel is not None),
                "how the model is trained",
            )
        self._warn_of_languages(recipe, base, sets)
        epochs = recipe_setting(recipe, sets, "epochs") or ""
        self._epochs = int(epochs) if epochs.isdecimal() else 1
        self._by_folds = recipe_setting(recipe, sets, "kind") == "embedding-linear"
        self._promised = float(recipe_setting(recipe, sets, "review_precision") or PRECISION)
        optional = (settings.label_map, settings.given_holdout)
        steps = make_steps(
            self._places,
            [word for option in settings.options() for word in option],
            [
                *(*settings.inputs, settings.taxonomy, *settings.decisions),
                *(path for path in optional if path is not None),
            ],
            recipe=recipe,
            base=base,
            sets=sets,
        )
        planned = self._folder.plan(steps)
        stale = [each.step.name for each in planned if self._folder.finished_before(each)]
        if stale:
            self._agree(stale, self._folder.changes(planned))
        return planned

    def _warn_of_languages(self, recipe: Path, base: Path | None, sets: Sequence[str]) -> None:
        from trainer.languages import TAKE_ANOTHER, foreign_languages, language_names
        from trainer.model.base_card import find_languages
        from trainer.model.bases import AUTO, Wanted, base_to_train, describe_source
        from trainer.start.plan import recipe_setting

        kind, name = (recipe_setting(recipe, sets, key) for key in ("kind", "base_name"))
        given = base or Path(recipe_setting(recipe, sets, "base") or AUTO)
        try:
            wanted = Wanted(self._messages, self._languages)
            directory = base_to_train(given, kind or "lora-code", name or "", wanted)
        except BadInput:
            return  # the training says what is wrong with it
        known = find_languages(directory)
        if strange := foreign_languages(self._languages, known):
            self._print(
                f"\nnote: {strange} of the messages, but {describe_source(directory)[0]} knows "
                f"{language_names(known)}. Its figures below hold for messages like these; others "
                f"will be mislabelled. Better {TAKE_ANOTHER}."
            )

    def _agree(self, stale: Sequence[str], changes: Sequence[str]) -> None:
        out, changed = self._places.out, f"{', '.join(changes)} since the last run"
        if not self._again and not self._asks:
            raise BadInput(
                f"{out}: {changed}: add --again to replace the results of {', '.join(stale)}, or "
                "choose another --out"
            )
        self._print(f"\n{changed}. To do again: {', '.join(stale)}.")
        if not self._again and not typer.confirm("Replace their results?", default=True):
            raise BadInput(f"{out}: nothing was changed: choose another --out")

    # --- doing it

    def run(self, planned: Sequence[Planned]) -> None:
        """Run the steps that are not done. Raises typer.Exit with the code of one that fails."""
        from trainer.start.progress import Estimate
        from trainer.start.verdict import describe_step

        estimate = Estimate(self._messages, self._epochs)
        names = [each.step.name for each in planned]
        for each in planned:
            if each.done and each.seconds is not None:
                estimate.took(each.step.name, each.seconds)
        for at, each in enumerate(planned, start=1):
            self._print(f"\n[{at}/{len(names)}] {each.step.command}")
            if each.done:
                how = "done before"
            else:
                with self._folder.doing(each):
                    how = self._do(each.step, estimate, names[at:])
            found = describe_step(
                each.step.name, self._places, self._promised, by_folds=self._by_folds
            )
            self._print(f"    {how}: {found}")

    def _do(self, step: Step, estimate: Estimate, rest: Sequence[str]) -> str:
        """Run a step; return how long it took. Raises typer.Exit if it fails."""
        from trainer.start.progress import clock, step_progress

        log = self._places.log
        began = time.monotonic()
        with step_progress(self._console, estimate, step.name, rest):
            code, errors = run_command(step.arguments, log)
        if code == EXIT_INTERRUPTED:
            print(f"clerk-trainer: interrupted in {step.name}: run the same command again to "
                  "continue", file=sys.stderr)  # fmt: skip
        elif code and not (step.may_fail and code == EXIT_NOT_GOOD_ENOUGH):
            print(errors.strip() or f"clerk-trainer: {step.name} failed", file=sys.stderr)
            print(f"The whole output is in {log}. Run the same command again to continue with "
                  f"{step.name}.", file=sys.stderr)  # fmt: skip
        else:
            return clock(time.monotonic() - began)
        raise typer.Exit(code)

    # --- the end

    def finish(self) -> None:
        """Print the verdict, the page and the next commands."""
        from trainer.start.verdict import next_commands, verdict

        page = self._places.page
        self._print()
        end = verdict(self._places)
        for line in end.lines:
            self._print(line)
        self._print(f"\nThe page: {page}\n\nNext, with your own words for those in capitals:")
        for what, command in next_commands(self._places, end, sys.argv[1:]):
            self._print(f"  # {what}\n  {command}")
        has_desktop = sys.platform == "darwin" or bool(
            {"DISPLAY", "WAYLAND_DISPLAY"} & {*os.environ}
        )
        if self._asks and has_desktop and typer.confirm("\nOpen the page?"):
            webbrowser.open(page.resolve().as_uri())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error


def can_ask(console: Console) -> bool:
    """Whether a person sees the questions and can answer them."""
    return sys.stdin.isatty() and console.is_terminal


def run_command(arguments: Sequence[str], log: Path) -> tuple[int, str]:
    """Run a command of this program as from a shell, with its output appended to ``log``; return
    its exit code and what it wrote to standard error."""
    from trainer.cli.main import app

    with log.open("a", encoding="utf-8") as file:
        log.chmod(PRIVATE)
        file.write(f"\n$ clerk-trainer {shlex.join(arguments)}\n")
        errors = _Errors(file)
        with redirect_stdout(file), redirect_stderr(errors):
            try:
                get_command(app).main(list(arguments), prog_name="clerk-trainer")
            except SystemExit as exit_:
                code = exit_.code if isinstance(exit_.code, int) else 1
        return code, errors.getvalue()


class _Errors(StringIO):
    """Standard error of a command: kept, and copied to the log."""

    def __init__(self, log: TextIO) -> None:
        super().__init__()
        self._log = log

    def write(self, text: str) -> int:
        self._log.write(text)
        return super().write(text)


start.__signature__ = _signature()  # type: ignore[attr-defined]
