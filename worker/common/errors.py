"""End a program: an expected error is one line and an exit code, any other a private traceback.

A traceback must not contain message text. Local variables contain it, and so does the text of many
exceptions (a KeyError is its key, a ValueError quotes what it could not parse). So values of
variables are never shown, and an exception's text only for types that do not quote their input.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import NoReturn

EXIT_UNEXPECTED = 1
EXIT_SETTINGS = 2
EXIT_INTERRUPTED = 130

Log = Callable[[str, BaseException], bool]
"""Logs a description and the error; returns whether it did."""

WITHHELD = "(text withheld: it may quote a message)"

# Types whose text names types, files and devices, never a value.
_SPEAKING = (
    ArithmeticError,
    AttributeError,
    ImportError,
    MemoryError,
    NameError,
    OSError,
    RuntimeError,  # torch's and CUDA's errors are of this type
    SystemError,
)

# Modules whose exceptions have no message text: ours by rule, and the Kafka client's.
_SPEAKING_MODULES = ("worker.", "trainer.", "desk.", "cimpl", "confluent_kafka")


def run_program(
    program: str,
    app: Callable[[], object],
    explain: Callable[[Exception], tuple[str, int] | None],
) -> NoReturn:
    """Run a command line and exit with its code.

    ``explain`` returns the line and the exit code of an expected error, None for any other. If logs
    are JSON, the error is a JSON event too.
    """
    show_private(lambda problem, error: _log_event(f"{program}.unhandled", problem, error))
    try:
        app()
    except KeyboardInterrupt:
        _fail(program, "interrupted", EXIT_INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - Python's own traceback would show the text
        if (explained := explain(error)) is not None:
            _fail(program, *explained)
        problem = describe_private(error)
        if not _log_event(f"{program}.failed", problem, error, exit_code=EXIT_UNEXPECTED):
            print_private(error)
        sys.exit(EXIT_UNEXPECTED)
    sys.exit(0)


def _fail(program: str, message: str, code: int) -> NoReturn:
    if _log_event(f"{program}.failed", message, None, exit_code=code):
        pass
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.markup import escape

        # An error's brackets are options, settings and paths, not markup.
        Console(stderr=True, soft_wrap=True, highlight=False).print(
            "[bold red]error[/bold red]", escape(message)
        )
    else:
        print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def _log_event(event: str, problem: str, error: BaseException | None, **fields: object) -> bool:
    # Not imported unless the program has: a container's health check runs every few seconds.
    if "worker.common.logs" not in sys.modules:
        return False
    from worker.common.logs import log_if_json

    return log_if_json(event, error=problem, exc_info=error, **fields)


def format_private(error: BaseException) -> str:
    """Return the traceback of ``error`` and of its causes, without any value."""
    return "".join(_parts(error, set())).rstrip("\n")


def describe_private(error: BaseException) -> str:
    """Return the type of ``error``, and its text if it quotes nothing, on one line."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else _full_name(kind)
    if not _speaks(kind):
        return f"{name} {WITHHELD}"
    words = " ".join(str(error).split())
    return f"{name}: {words}" if words else name


def show_private(log: Log = lambda _, __: False) -> None:
    """Show uncaught errors of all threads without values.

    ``log`` gets a description and the error; if it returns False they are printed.
    """

    def show(what: str, error: BaseException) -> None:
        if not log(f"{what}: {describe_private(error)}", error):
            print(what, file=sys.stderr)
            print_private(error)

    def show_of_thread(failed: threading.ExceptHookArgs) -> None:
        if failed.exc_value is None or failed.exc_type is SystemExit:
            return
        name = failed.thread.name if failed.thread is not None else "that has ended"
        show(f"thread {name} failed", failed.exc_value)

    def show_unraisable(failed: sys.UnraisableHookArgs) -> None:
        if failed.exc_value is not None:
            show("an error that could not be raised", failed.exc_value)

    sys.excepthook = _show
    threading.excepthook = show_of_thread
    sys.unraisablehook = show_unraisable


def print_private(error: BaseException) -> None:
    """Write the traceback of ``error`` to standard error."""
    print(format_private(error), file=sys.stderr, flush=True)


def _speaks(kind: type[BaseException]) -> bool:
    # Some are of two types: io.UnsupportedOperation is an OSError and a ValueError.
    quotes = issubclass(kind, ValueError | LookupError | TypeError)
    return not quotes and (
        issubclass(kind, _SPEAKING) or _full_name(kind).startswith(_SPEAKING_MODULES)
    )


def _full_name(kind: type[BaseException]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _parts(error: BaseException, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if earlier is not None and id(earlier) not in seen:
        yield from _parts(earlier, seen)
        yield "\nwhich led to:\n\n"
    # format_tb shows the program's own source lines, and no values.
    if error.__traceback__ is not None:
        yield "Traceback (most recent call last):\n"
        yield from traceback.format_tb(error.__traceback__)
    yield describe_private(error) + "\n"
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            if id(inner) not in seen:
                yield "\nof which is:\n\n"
                yield from _parts(inner, seen)


def _show(kind: type[BaseException], error: BaseException, tb: TracebackType | None) -> None:
    del tb
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return
    print_private(error)
