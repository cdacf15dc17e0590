"""The cost of training and serving an adapter, and when it pays for itself.

Amounts are in the currency of the inputs. A month is a twelfth of 365.25 days. Replicas are paid
around the clock, so serving has a price per month; a price per message exists only at a given
volume. Each input comes from a flag, the file, or a measurement of the run; none is built in.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.artifacts.duel import CostInput, CostRecord, Volume
from trainer.artifacts.evaluation import EVALUATION, EVALUATION_FOLDER
from trainer.artifacts.training import TRAINING
from trainer.errors import BadInput
from worker.common.settings import split_assignment, toml_value
from worker.contract.timestamps import rfc3339_now

HOURS_PER_MONTH = 365.25 * 24 / 12
DAYS_PER_MONTH = 365.25 / 12


@dataclass(frozen=True, slots=True)
class CostInputs:
    """The inputs of the computation.

    Hours are machine hours; prices are per hour of one machine or per million tokens.
    ``messages_per_s`` is one replica's measured throughput, and ``utilisation`` (0 to 1) the
    planned share of it, because traffic has peaks and nights.
    """

    training_hours: float
    training_price_per_hour: float
    labelling_hours: float
    labelling_rate_per_hour: float
    serving_price_per_hour: float
    messages_per_s: float
    utilisation: float
    replicas: int
    hosted_price_per_million_input_tokens: float
    hosted_price_per_million_output_tokens: float
    input_tokens_per_message: float
    output_tokens_per_message: float
    messages_per_month: float


@dataclass(frozen=True, slots=True)
class Cost:
    """The result. If a figure is None, the field with ``_reason`` says why.

    ``per_thousand_messages`` is at the planned utilisation, ``planned`` at the planned volume;
    after the break-even messages and days the savings have paid for training and labelling.
    ``pays_from_messages_per_month`` is the volume from which serving on the given replicas costs no
    more than the hosted model; each further replica raises the bill by a step.
    """

    training: float
    labelling: float
    per_thousand_messages: float
    hosted_per_thousand: float
    planned: Volume
    break_even_messages: float | None
    break_even_reason: str | None
    pays_from_messages_per_month: float | None
    pays_from_reason: str | None

    @property
    def one_off(self) -> float:
        """The cost of training and labelling."""
        return self.training + self.labelling


def compute_cost(given: CostInputs) -> Cost:
    """Compute the cost. Raises ValueError naming an input that is out of range."""
    _check(given)
    planned = at_volume(given, given.messages_per_month)
    messages = reason = None
    if planned.break_even_days is None:
        reason = (
            f"at {given.messages_per_month:,.0f} messages a month serving costs "
            f"{planned.serving:,.2f} and the hosted model {planned.hosted:,.2f}: nothing is saved"
        )
    else:
        messages = planned.break_even_days / DAYS_PER_MONTH * given.messages_per_month
    pays_from, pays_reason = _pays_from(given)
    return Cost(
        training=given.training_hours * given.training_price_per_hour,
        labelling=given.labelling_hours * given.labelling_rate_per_hour,
        per_thousand_messages=1000 * _replica_month(given) / _capacity(given),
        hosted_per_thousand=1000 * _hosted(given),
        planned=planned,
        break_even_messages=messages,
        break_even_reason=reason,
        pays_from_messages_per_month=pays_from,
        pays_from_reason=pays_reason,
    )


def make_record(collected: CollectedInputs) -> CostRecord:
    """Return ``cost.json``. Raises BadInput, with its source, for an input that is out of range."""
    try:
        found = compute_cost(collected.numbers)
    except ValueError as error:
        name = str(error).partition(" ")[0]
        sources = {given.name: given.source for given in collected.inputs}
        raise BadInput(f"{sources.get(name, 'cost')}: {error}") from error
    figures: dict[str, Any] = {name: getattr(found, name) for name in Cost.__dataclass_fields__}
    return CostRecord(
        created_at=rfc3339_now(),
        currency=collected.currency,
        inputs=collected.inputs,
        one_off=found.one_off,
        break_even_days=found.planned.break_even_days,
        by_volume=tuple(by_volume(collected.numbers, collected.volumes)),
        **figures,
    )


def by_volume(given: CostInputs, volumes: Sequence[float]) -> list[Volume]:
    """Return the bill at each of these volumes (messages a month)."""
    return [at_volume(given, messages) for messages in volumes]


def at_volume(given: CostInputs, messages: float) -> Volume:
    """Return the month's bill at a volume; replicas are added if the given ones are too few."""
    replicas = max(given.replicas, math.ceil(messages / _capacity(given)))
    serving = replicas * _replica_month(given)
    hosted = messages * _hosted(given)
    one_off = (
        given.training_hours * given.training_price_per_hour
        + given.labelling_hours * given.labelling_rate_per_hour
    )
    saving = hosted - serving
    return Volume(
        messages_per_month=messages,
        replicas=replicas,
        serving=serving,
        serving_per_thousand=1000 * serving / messages,
        hosted=hosted,
        saving=saving,
        break_even_days=one_off / saving * DAYS_PER_MONTH if saving > 0 else None,
    )


def describe_margin(cost: CostRecord, margin: float) -> str:
    """Describe the cost, at the planned volume, of shipping a baseline that is worse than the
    adapter by ``margin`` (a share): the additional wrong labels, and at which price of one the
    baseline stops paying."""
    planned = cost.planned
    wrong = margin * planned.messages_per_month
    return (
        f"A margin of {100 * margin:.3g} points means up to {wrong:,.0f} more wrong labels a "
        f"month, of {planned.messages_per_month:,.0f} messages. Serving the adapter costs "
        f"{planned.serving:,.2f} {cost.currency} a month, so a baseline pays if a wrong label "
        f"costs less than {planned.serving / wrong:,.4f} {cost.currency} (minus the cost of the "
        "baseline's own machine)."
    )


def _pays_from(given: CostInputs) -> tuple[float | None, str | None]:
    """Return the smallest volume whose hosted bill reaches the serving bill, or why there is none.

    The bills for n replicas meet at n * (a replica's month / the hosted price). The capacity grows
    with n as well, so if that volume exceeds one replica's capacity it exceeds that of n.
    """
    hosted = _hosted(given)
    if hosted == 0:
        return None, "the hosted model costs nothing"
    meets = _replica_month(given) / hosted
    if meets > _capacity(given):
        return None, (
            "a replica at its planned utilisation costs more per message than the hosted model; it "
            "needs more throughput, a cheaper machine or a higher utilisation"
        )
    return given.replicas * meets, None


def _replica_month(given: CostInputs) -> float:
    return given.serving_price_per_hour * HOURS_PER_MONTH


def _capacity(given: CostInputs) -> float:
    """Return the messages that a replica labels in a month at the planned utilisation."""
    return given.messages_per_s * given.utilisation * 3600 * HOURS_PER_MONTH


def _hosted(given: CostInputs) -> float:
    """Return the hosted model's price per message."""
    return (
        given.input_tokens_per_message * given.hosted_price_per_million_input_tokens
        + given.output_tokens_per_message * given.hosted_price_per_million_output_tokens
    ) / 1e6


def _check(given: CostInputs) -> None:
    for name in CostInputs.__dataclass_fields__:
        value = getattr(given, name)
        if not math.isfinite(value) or value < 0:
            raise ValueError(f"{name} is {value}; it must be a number of at least 0")
    for name in ("messages_per_s", "utilisation", "replicas", "messages_per_month"):
        if getattr(given, name) <= 0:
            raise ValueError(f"{name} is {getattr(given, name)}; it must be above 0")
    if given.utilisation > 1:
        raise ValueError(f"utilisation is {given.utilisation}; it is a share, from 0 to 1")


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
    """The inputs as numbers, and as records with their sources."""

    numbers: CostInputs
    currency: str
    volumes: tuple[float, ...]
    inputs: tuple[CostInput, ...]


def collect_inputs(
    run: Path | None, file: Path | None, engine: str | None = None, sets: Sequence[str] = ()
) -> CollectedInputs:
    """Collect every input: flags win over the file, and the file over the run's measurements.

    ``engine`` is the one that serves, if the evaluation measured several; ``sets`` are
    ``key=value``. Raises BadInput naming an input that is missing, unknown or malformed.
    """
    given: dict[str, tuple[Any, str]] = {}
    if file is not None:
        given |= {key: (value, f"file {file}") for key, value in _from_file(file).items()}
    given |= {key: (value, "flag --set") for key, value in _from_sets(sets)}
    if engine is not None:
        given["engine"] = (engine, "flag --engine")
    for key, (_, source) in given.items():
        if key not in UNITS and key not in _OTHERS:
            known = ", ".join((*UNITS, *_OTHERS))
            raise BadInput(f"{source}: there is no input {key!r}: use one of {known}")
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
    """Yield every input with its unit and source."""
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
    """Yield the inputs that the run's records contain, with their sources."""
    if run is None:
        return
    if not run.is_dir():
        raise BadInput(f"{run}: this run folder does not exist: clerk-trainer train makes one")
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
        raise BadInput(f"{path}: measured {names}: choose the one that serves with --engine")
    chosen = engine or next(iter(speeds))
    if chosen not in speeds:
        raise BadInput(f"{path}: has no engine {chosen!r}: choose one of {', '.join(speeds)}")
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
        return f"{text}, or give a run that measured it ({_MEASURED[key]})"
    return f"{text}; {run / _MEASURED[key]} has no value" if key in _MEASURED and run else text
