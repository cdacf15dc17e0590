"""The inputs of ``clerk-trainer cost``: from flags, files of inputs and prices, and a run's
measurements. None is built in.

An input may be a range, ``[low, high]``: figures are then computed for its middle and for both
ends, the one that favours the adapter and the other.

The hosted model is asked with the instruction and the labels' names and descriptions in every
request, and its tokens are other ones than the adapter's. They are those that its server counted in
a duel, or an estimate from the prompt that ``clerk-trainer label`` and ``duel`` send.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainer.artifacts.duel import DUEL, DUEL_FOLDER, CostInput, CostRecord, PriceUsed
from trainer.artifacts.evaluation import EVALUATION, EVALUATION_FOLDER
from trainer.artifacts.files import read_toml
from trainer.artifacts.training import TRAINING, TrainingRecord
from trainer.cost import (
    HOURS_PER_MONTH,
    CostInputs,
    Serving,
    at_volume,
    by_kind,
    compute_cost,
)
from trainer.errors import BadInput
from trainer.prices import STALE_DAYS, MachinePrice, read_prices
from worker.common.settings import split_assignment, toml_value
from worker.contract.timestamps import rfc3339_now

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
_SINGLE = ("utilisation", "replicas", "messages_per_month")
"""Inputs that are chosen, not known badly: no range."""
_HOSTED_PRICES = (
    "hosted_price_per_million_input_tokens",
    "hosted_price_per_million_output_tokens",
)
_TOKENS = ("input_tokens_per_message", "output_tokens_per_message")
# A dear hosted model that needs long prompts favours the adapter.
_HIGH_IS_GOOD = ("messages_per_s", *_HOSTED_PRICES, *_TOKENS)
_MACHINES = {
    "serving_machine": "serving_price_per_hour",
    "training_machine": "training_price_per_hour",
}
_OTHERS = (
    "currency",
    "engine",
    "volumes",
    "utilisations",
    "hosted_model",
    "hosted_url",
    "hosted_discount",
    "serving",
    *_MACHINES,
)
_MEASURED = {
    "training_hours": TRAINING.name,
    **dict.fromkeys(_TOKENS, f"{DUEL_FOLDER}/{DUEL.name}"),
    "messages_per_s": f"{EVALUATION_FOLDER}/{EVALUATION.name}",
}
_FLAG = "flag --set"
_SERVING_FIELDS = ("model", "machine", "price_per_hour", "messages_per_s")

BYTES_A_TOKEN = (5.0, 4.0, 3.0)
"""The most, the expected, and the fewest bytes of English that a token covers, for the estimate of
a hosted prompt (docs/choosing.md)."""

Given = dict[str, tuple[Any, str]]
"""Input -> its value and its source."""


@dataclass(frozen=True, slots=True)
class Span:
    """A number that is known as a range; all three are equal for an exact one."""

    low: float
    value: float
    high: float

    @property
    def written(self) -> float | list[float]:
        """The number, or the range's ends."""
        return self.value if self.low == self.high else [self.low, self.high]


@dataclass(frozen=True, slots=True)
class CollectedInputs:
    """The inputs as numbers, and as records with their sources. ``best`` and ``worst`` have those
    ends of the ranges that favour the adapter, and the others."""

    numbers: CostInputs
    currency: str
    volumes: tuple[float, ...]
    inputs: tuple[CostInput, ...]
    best: CostInputs
    worst: CostInputs
    utilisations: tuple[float, ...]
    servings: tuple[Serving, ...]
    prices: tuple[PriceUsed, ...]


def make_record(collected: CollectedInputs) -> CostRecord:
    """Return ``cost.json``. Raises BadInput, with its source, for an input that is out of range."""
    best, worst = collected.best, collected.worst
    try:
        found, cheap, dear = (compute_cost(each) for each in (collected.numbers, best, worst))
        kinds = tuple(by_kind(best, worst, collected.servings, collected.utilisations))
    except ValueError as error:
        name = str(error).partition(" ")[0]
        sources = {given.name: given.source for given in collected.inputs}
        raise BadInput(f"{sources.get(name, 'cost')}: {error}") from error
    return CostRecord(
        **dict(found),
        created_at=rfc3339_now(),
        currency=collected.currency,
        inputs=collected.inputs,
        by_volume=tuple(at_volume(collected.numbers, messages) for messages in collected.volumes),
        break_even_days_range=(cheap.break_even_days, dear.break_even_days),
        pays_from_range=(cheap.pays_from_messages_per_month, dear.pays_from_messages_per_month),
        hosted_per_thousand_range=(dear.hosted_per_thousand, cheap.hosted_per_thousand),
        by_kind=kinds,
        prices=collected.prices,
    )


def collect_inputs(
    run: Path | None,
    file: Path | None,
    engine: str | None = None,
    sets: Sequence[str] = (),
    prices: Path | None = None,
) -> CollectedInputs:
    """Collect every input: flags win over the file, and the file over the run's measurements.

    ``engine`` is the one that serves, if the evaluation measured several; ``sets`` are
    ``key=value``; ``prices`` is a file of machines' prices. Raises BadInput naming an input that is
    missing, unknown or malformed.
    """
    given = _read_given(file, sets)
    if engine is not None:
        given["engine"] = (engine, "flag --engine")
    currency = _text(given, "currency")
    engine = _text(given, "engine") if "engine" in given else None
    machines = Machines(prices, currency)
    for name, key in _MACHINES.items():
        if _is_chosen(given, name, (key,)):
            given[key] = machines.price(*given[name], name)
    if _is_chosen(given, "hosted_model", _HOSTED_PRICES):
        given |= _hosted_prices(given, currency)
    for key, (value, source) in _measurements(run, engine, "messages_per_s" in given):
        given.setdefault(key, (value, source))
    spans = {key: _span(given, key, run) for key in UNITS}
    if not spans["replicas"].value.is_integer():
        raise BadInput(f"{given['replicas'][1]}: replicas must be a whole number")
    volumes = _positive_numbers(given, "volumes", "a list of messages per month, each above 0")
    utilisations: tuple[float, ...] = (spans["utilisation"].value,)
    if "utilisations" in given:
        utilisations = _positive_numbers(given, "utilisations", "a list of shares, 0 to 1")
    servings = tuple(_servings(given, machines, spans))
    return CollectedInputs(
        _corner(spans),
        currency,
        volumes,
        tuple(_describe(given, spans, currency, volumes)),
        best=_corner(spans, good=True),
        worst=_corner(spans, good=False),
        utilisations=utilisations,
        servings=servings,
        prices=tuple(machines.used.values()),
    )


def _read_given(file: Path | None, sets: Sequence[str]) -> Given:
    """Return what the user gave. Raises BadInput for an input that does not exist."""
    given: Given = {}
    if file is not None:
        found = read_toml(file, "copy config/cost.toml and edit it")
        given |= {key: (value, f"file {file}") for key, value in found.items()}
    for flag in sets:
        key, text = split_assignment(flag, "--set", error=BadInput)
        given[key] = toml_value(text), _FLAG
    for key, (_, source) in given.items():
        if key not in UNITS and key not in _OTHERS:
            known = ", ".join((*UNITS, *_OTHERS))
            raise BadInput(f"{source}: there is no input {key!r}: use one of {known}")
    return given


def _corner(spans: Mapping[str, Span], *, good: bool | None = None) -> CostInputs:
    """Return the middle of every range, or the end that is ``good`` for the adapter or not."""
    numbers: dict[str, Any] = {}
    for key, span in spans.items():
        high = (key in _HIGH_IS_GOOD) == good
        numbers[key] = span.value if good is None else span.high if high else span.low
    numbers["replicas"] = int(numbers["replicas"])
    return CostInputs(**numbers)


def _is_chosen(given: Given, name: str, keys: Sequence[str]) -> bool:
    """Whether the input ``name`` gives the prices ``keys``, which may also be given themselves: a
    flag wins over the file."""
    direct = next((key for key in keys if key in given), None)
    if name not in given or direct is None:
        return name in given
    if given[name][1] == given[direct][1]:
        raise BadInput(f"{given[name][1]}: has both {name} and {direct}: give one of them")
    if given[name][1] != _FLAG:
        return False
    for key in keys:
        given.pop(key, None)
    return True


class Machines:
    """Prices by a machine's name, and which of them were used."""

    def __init__(self, path: Path | None, currency: str) -> None:
        self._path, self._currency = path, currency
        self._today = datetime.now(UTC).date()
        self._prices = read_prices(path, self._today) if path else None
        self.used: dict[str, PriceUsed] = {}

    def price(self, names: object, source: str, key: str) -> tuple[Any, str]:
        """Return the price of a machine, or the range of several, and where it is from. Raises
        BadInput."""
        listed = names if isinstance(names, list) else [names]
        found = [self._find(name, source, key) for name in listed]
        if not found:
            raise BadInput(f"{source}: {key} names no machine")
        amounts = [each.per_hour for each in found]
        words = "; ".join(f"{each.name}, {each.date}" for each in found)
        value = amounts[0] if len(amounts) == 1 else [min(amounts), max(amounts)]
        return value, f"prices {self._path}: {words}"

    def _find(self, name: object, source: str, key: str) -> MachinePrice:
        if self._prices is None:
            raise BadInput(f"{source}: {key} needs a file of prices: give one with --prices")
        found = self._prices.get(name) if isinstance(name, str) else None
        if found is None:
            known = ", ".join(self._prices)
            raise BadInput(f"{source}: {key}: {self._path} has no machine {name!r}: it has {known}")
        if found.currency != self._currency:
            raise BadInput(
                f"{source}: {key}: the price of {name} is in {found.currency}, and currency is "
                f"{self._currency}: use one currency"
            )
        age = found.age_days(self._today)
        self.used[found.name] = PriceUsed(
            name=found.name,
            per_hour=found.per_hour,
            currency=found.currency,
            source=found.source,
            date=found.date.isoformat(),
            age_days=age,
            stale=age > STALE_DAYS,
        )
        return found


def _hosted_prices(given: Given, currency: str) -> Given:
    """Return the hosted model's prices: those of genai-prices, less the discount at one end."""
    from trainer.teacher.prices import list_price

    model, url = _text(given, "hosted_model"), _text(given, "hosted_url")
    source = given["hosted_model"][1]
    if currency != "USD":
        raise BadInput(
            f"{source}: hosted_model: its price is in USD, and currency is {currency}: use USD, or "
            "give hosted_price_per_million_input_tokens and ..._output_tokens"
        )
    # One end only: a batch's discount is for answers within a day, and not every message can wait
    # so long. The other end stays the list price.
    discount = _span(given, "hosted_discount").value if "hosted_discount" in given else 0.0
    if not 0 <= discount < 1:
        raise BadInput(f"{given['hosted_discount'][1]}: hosted_discount is a share, from 0 to 1")
    price = list_price(model, url)
    found: Given = {}
    for key, amount in zip(_HOSTED_PRICES, price.dollars_per_million, strict=True):
        low = amount * (1 - discount)
        found[key] = ([low, amount] if discount else amount, price.source)
    return found


def _servings(given: Given, machines: Machines, spans: Mapping[str, Span]) -> Iterator[Serving]:
    """Yield the ways to serve: the run's own, and the tables [[serving]]."""
    price, speed = spans["serving_price_per_hour"], spans["messages_per_s"]
    yield Serving("this adapter", (price.low, price.high), (speed.low, speed.high))
    rows, source = given.get("serving", ([], ""))
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadInput(f"{source}: serving is a table: write [[serving]]")
    for number, row in enumerate(rows, 1):
        where = f"{source}: serving {row.get('model') or number}"
        if unknown := [name for name in row if name not in _SERVING_FIELDS]:
            known = ", ".join(_SERVING_FIELDS)
            raise BadInput(f"{where}: there is no field {unknown[0]!r}: use {known}")
        one: Given = {name: (value, where) for name, value in row.items()}
        if _is_chosen(one, "machine", ("price_per_hour",)):
            one["price_per_hour"] = machines.price(*one["machine"], "machine")
        model = _text(one, "model")
        price, speed = _span(one, "price_per_hour"), _span(one, "messages_per_s")
        yield Serving(model, (price.low, price.high), (speed.low, speed.high))


def _describe(
    given: Given, spans: Mapping[str, Span], currency: str, volumes: Sequence[float]
) -> Iterator[CostInput]:
    """Yield every input with its unit and source."""
    rows = [
        ("currency", currency, "", given["currency"][1]),
        *(
            (key, spans[key].written, unit.format(currency=currency), given[key][1])
            for key, unit in UNITS.items()
        ),
        ("volumes", list(volumes), "messages per month", given["volumes"][1]),
        ("hours_per_month", HOURS_PER_MONTH, "hours", "calendar: a twelfth of 365.25 days"),
    ]
    for name, value, unit, source in rows:
        yield CostInput(name=name, value=value, unit=unit, source=source)


def _measurements(
    run: Path | None, engine: str | None, speed_is_given: bool
) -> Iterator[tuple[str, tuple[Any, str]]]:
    """Yield the inputs that the run's records contain, with their sources."""
    if run is None:
        return
    if not run.is_dir():
        raise BadInput(f"{run}: this run folder does not exist: clerk-trainer train makes one")
    path = run / TRAINING.name
    training = TRAINING.read_if_present(run)
    if training:
        seconds = max(training.seconds, training.training_seconds)
        yield "training_hours", (seconds / 3600, f"measured: {path}, {seconds:g} s")
    # The first value of an input is kept: what a server counted wins over the estimate.
    yield from _counted_tokens(run / DUEL_FOLDER)
    if training:
        yield from _estimated_tokens(training)
    # Not asked if it is given: several engines would have to be told apart for nothing.
    if not speed_is_given:
        yield from _speed(run / EVALUATION_FOLDER, engine)


def _counted_tokens(folder: Path) -> Iterator[tuple[str, tuple[Any, str]]]:
    """Yield the tokens that a hosted model's server counted in the duel, the first model's."""
    record = DUEL.read_if_present(folder)
    for each in record.candidates if record else ():
        took = each.elsewhere
        if took and took.prompt_tokens is not None and took.answer_tokens is not None:
            text = f"measured: {folder / DUEL.name}, {each.name}, as its server counted"
            yield "input_tokens_per_message", (took.prompt_tokens, text)
            yield "output_tokens_per_message", (took.answer_tokens, text)
            return


def _estimated_tokens(training: TrainingRecord) -> Iterator[tuple[str, tuple[Any, str]]]:
    """Yield the tokens of the prompt that ``label`` and ``duel`` send, by its bytes; nothing if the
    dataset is gone."""
    from trainer.dataset.folder import open_dataset
    from trainer.teacher.prompt import sample_prompts

    directory = Path(training.dataset.directory)
    try:
        dataset = open_dataset(directory)
    except BadInput:
        return
    if dataset.digest != training.dataset.digest:
        return
    prompts = sample_prompts(dataset.taxonomy, dataset.train, redacts=True)
    sizes = [each.bytes for each in prompts]
    answers = [len(json.dumps({"label": name}).encode()) for name in dataset.taxonomy.names]
    for key, what, found in (
        ("input_tokens_per_message", "the prompt with all labels", sizes),
        ("output_tokens_per_message", "the label as JSON", answers),
    ):
        if found:
            mean = sum(found) / len(found)
            text = f"estimate: {what}, {mean:,.0f} bytes in {directory}, 3 to 5 a token"
            yield key, (Span(*(mean / each for each in BYTES_A_TOKEN)), text)


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


def _need(given: Given, key: str, run: Path | None = None) -> tuple[Any, str]:
    """Return an input's value and its source."""
    if key not in given:
        raise BadInput(_missing(key, run))
    return given[key]


def _text(given: Given, key: str) -> str:
    value, source = _need(given, key)
    if not isinstance(value, str) or not value:
        raise BadInput(f"{source}: {key} must be text")
    return value


def _span(given: Given, key: str, run: Path | None = None) -> Span:
    value, source = _need(given, key, run)
    if isinstance(value, Span):
        return value
    if isinstance(value, list) and key not in _SINGLE:
        if len(value) != 2 or not all(map(_is_number, value)) or value[0] > value[1]:
            raise BadInput(f"{source}: {key} is {value!r}; a range is [lowest, highest]")
        low, high = map(float, value)
        return Span(low, (low + high) / 2, high)
    if not _is_number(value):
        raise BadInput(f"{source}: {key} is {value!r}; it must be a number")
    return Span(*[float(value)] * 3)


def _positive_numbers(given: Given, key: str, what: str) -> tuple[float, ...]:
    value, source = _need(given, key)
    is_list = isinstance(value, list) and all(_is_number(each) and each > 0 for each in value)
    if not value or not is_list:
        raise BadInput(f"{source}: {key} must be {what}")
    return tuple(map(float, value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _missing(key: str, run: Path | None) -> str:
    text = f"the cost needs {key}: give it in the --inputs file or with --set {key}=VALUE"
    if key in _MEASURED and run is None:
        return f"{text}, or give a run that measured it ({_MEASURED[key]})"
    return f"{text}; {run / _MEASURED[key]} has no value" if key in _MEASURED and run else text
