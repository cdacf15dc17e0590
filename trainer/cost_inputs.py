"""Where each input of the cost comes from: a flag, the file, or a measurement of the run."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.artifacts.duel import CostInput
from trainer.artifacts.evaluation import EVALUATION, EVALUATION_FOLDER
from trainer.artifacts.training import TRAINING
from trainer.cost import HOURS_PER_MONTH, CostInputs
from trainer.errors import BadInput
from worker.common.settings import split_assignment, toml_value

UNITS: Mapping[str, str] = {
    "training_hours": "machine hours",
    "training_price_per_hour": "{currency} per machine hour",
    "labelling_hours": "hours",
    "labelling_rate_per_hour": "{currency} per hour",
    "serving_price_per_hour": "{currency} per replica hour",
    "messages_per_s": "messages per second and replica",
    "utilisation": "share, 0 to 1",
    "replicas": "replicas, at least",
    "hosted_price_per_million_input_tokens": "{currency} per million tokens",
    "hosted_price_per_million_output_tokens": "{currency} per million tokens",
    "input_tokens_per_message": "tokens",
    "output_tokens_per_message": "tokens",
    "messages_per_month": "messages",
}
_OTHERS = ("currency", "engine", "volumes")
_MEASURED = {
    "training_hours": TRAINING.name,
    "input_tokens_per_message": TRAINING.name,
    "messages_per_s": f"{EVALUATION_FOLDER}/{EVALUATION.name}",
}


@dataclass(frozen=True, slots=True)
class CollectedInputs:
    """The inputs as the arithmetic takes them, and as people are told of them."""

    numbers: CostInputs
    currency: str
    volumes: tuple[float, ...]
    inputs: tuple[CostInput, ...]


def collect_inputs(
    run: Path | None, file: Path | None, flags: Mapping[str, Any], sets: Sequence[str] = ()
) -> CollectedInputs:
    """Collect every input: flags win over the file, and that over what the run measured.

    ``flags`` holds those that have an option of their own (None: not given), ``sets`` are
    ``key=value``. Raises BadInput naming an input that is missing, unknown or malformed.
    """
    given: dict[str, tuple[Any, str]] = {}
    if file is not None:
        given |= {key: (value, f"file {file}") for key, value in _from_file(file).items()}
    given |= {key: (value, "flag --set") for key, value in _from_sets(sets)}
    for key, value in flags.items():
        if value is not None:
            given[key] = (value, f"flag --{key.replace('_', '-')}")
    for key, (_, source) in given.items():
        if key not in UNITS and key not in _OTHERS:
            known = ", ".join((*UNITS, *_OTHERS))
            raise BadInput(f"{source}: the cost has no input {key!r}; it has {known}")
    currency = _text(given, "currency")
    engine = _text(given, "engine") if "engine" in given else None
    for key, (value, source) in _measurements(run, engine, "messages_per_s" in given):
        given.setdefault(key, (value, source))
    numbers: dict[str, Any] = {key: _number(given, key, run) for key in UNITS}
    if not numbers["replicas"].is_integer():
        raise BadInput(f"{given['replicas'][1]}: replicas must be a whole number")
    numbers["replicas"] = int(numbers["replicas"])
    volumes = _volumes(given)
    inputs = tuple(_describe(given, numbers, currency, volumes))
    return CollectedInputs(CostInputs(**numbers), currency, volumes, inputs)


def _describe(
    given: Mapping[str, tuple[Any, str]],
    numbers: Mapping[str, Any],
    currency: str,
    volumes: Sequence[float],
) -> Iterator[CostInput]:
    """Yield every input with its unit and where it is from."""
    rows = [
        ("currency", currency, "", given["currency"][1]),
        *(
            (key, numbers[key], unit.format(currency=currency), given[key][1])
            for key, unit in UNITS.items()
        ),
        ("volumes", list(volumes), "messages per month", given["volumes"][1]),
        ("hours_per_month", HOURS_PER_MONTH, "hours", "calendar: a twelfth of 365.25 days"),
    ]
    for name, value, unit, source in rows:
        yield CostInput(name=name, value=value, unit=unit, source=source)


def _from_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror}: copy config/cost.toml and edit it") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{file}: is not TOML: {error}") from error


def _from_sets(sets: Sequence[str]) -> Iterator[tuple[str, Any]]:
    for flag in sets:
        key, text = split_assignment(flag, "--set", error=BadInput)
        yield key, toml_value(text)


def _measurements(
    run: Path | None, engine: str | None, speed_is_given: bool
) -> Iterator[tuple[str, tuple[float, str]]]:
    """Go through what the run's records say."""
    if run is None:
        return
    if not run.is_dir():
        raise BadInput(f"{run}: there is no such run folder: clerk-trainer train makes one")
    path = run / TRAINING.name
    if training := TRAINING.read_if_present(run):
        seconds = max(training.seconds, training.training_seconds)
        processes = training.machine.processes
        shared = f" on {processes} processes" if processes > 1 else ""
        text = f"measured: {path}, {seconds:g} s{shared}"
        yield "training_hours", (seconds * processes / 3600, text)
        text = f"measured: {path}, the adapter's own prompt by its own tokenizer"
        yield "input_tokens_per_message", (training.tokens_per_message, text)
    if not speed_is_given:
        yield from _speed(run / EVALUATION_FOLDER, engine)


def _speed(folder: Path, engine: str | None) -> Iterator[tuple[str, tuple[float, str]]]:
    record = EVALUATION.read_if_present(folder)
    if record is None:
        return
    path = folder / EVALUATION.name
    speeds = {figures.name: figures.messages_per_s for figures in record.engines}
    if engine is None and len(speeds) > 1:
        names = ", ".join(f"{name} ({speed:g} messages/s)" for name, speed in speeds.items())
        raise BadInput(f"{path}: measured {names}: say with --engine which one serves")
    chosen = engine or next(iter(speeds))
    if chosen not in speeds:
        raise BadInput(f"{path}: measured no engine {chosen!r}; it has {', '.join(speeds)}")
    yield "messages_per_s", (speeds[chosen], f"measured: {path}, engine {chosen}")


def _text(given: Mapping[str, tuple[Any, str]], key: str) -> str:
    if key not in given:
        raise BadInput(_missing(key, None))
    value, source = given[key]
    if not isinstance(value, str) or not value:
        raise BadInput(f"{source}: {key} must be text")
    return value


def _number(given: Mapping[str, tuple[Any, str]], key: str, run: Path | None) -> float:
    if key not in given:
        raise BadInput(_missing(key, run))
    value, source = given[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadInput(f"{source}: {key} is {value!r}; it must be a number")
    return float(value)


def _volumes(given: Mapping[str, tuple[Any, str]]) -> tuple[float, ...]:
    if "volumes" not in given:
        raise BadInput(_missing("volumes", None))
    value, source = given["volumes"]
    if not isinstance(value, list) or not value or not all(map(_is_positive, value)):
        raise BadInput(f"{source}: volumes must be a list of messages per month, each above 0")
    return tuple(float(volume) for volume in value)


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _missing(key: str, run: Path | None) -> str:
    text = f"the cost needs {key}: give it in the --inputs file or with --set {key}=VALUE"
    if key in _MEASURED and run is None:
        return f"{text}, or name a run that measured it ({_MEASURED[key]})"
    return f"{text}; {run / _MEASURED[key]} does not hold it" if key in _MEASURED and run else text
