"""The cost of training and serving an adapter, and when it pays for itself.

Amounts are in the currency of the inputs. A month is a twelfth of 365.25 days. Replicas are paid
around the clock, so serving has a price per month; a price per message exists only at a given
volume. ``trainer.cost_inputs`` finds the inputs; none is built in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from trainer.artifacts.duel import CostFigures, CostRecord, KindCost, Volume

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


def compute_cost(given: CostInputs) -> CostFigures:
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
    training, labelling = _one_off(given)
    return CostFigures(
        training=training,
        labelling=labelling,
        one_off=training + labelling,
        per_thousand_messages=1000 * _replica_month(given) / _capacity(given),
        hosted_per_thousand=1000 * _hosted(given),
        planned=planned,
        break_even_messages=messages,
        break_even_days=planned.break_even_days,
        break_even_reason=reason,
        pays_from_messages_per_month=pays_from,
        pays_from_reason=pays_reason,
    )


@dataclass(frozen=True, slots=True)
class Serving:
    """A way to serve: a model on a machine. Prices are per hour, speeds messages per second of one
    replica at full load; each is the lowest and the highest."""

    model: str
    price_per_hour: tuple[float, float]
    messages_per_s: tuple[float, float]


def by_kind(
    best: CostInputs, worst: CostInputs, servings: Sequence[Serving], utilisations: Sequence[float]
) -> Iterator[KindCost]:
    """Yield the price of a million messages, and the volume from which one replica costs no more
    than the hosted model, for each way to serve and each utilisation.

    Each figure is a range: the first end has the cheapest machine, the highest speed, and the
    dearest hosted model (``best``), the second the opposite (``worst``).
    """
    for serving in servings:
        for utilisation in utilisations:
            ends = [
                replace(
                    given,
                    serving_price_per_hour=price,
                    messages_per_s=speed,
                    utilisation=utilisation,
                    replicas=1,
                )
                for given, price, speed in (
                    (best, serving.price_per_hour[0], serving.messages_per_s[1]),
                    (worst, serving.price_per_hour[1], serving.messages_per_s[0]),
                )
            ]
            for given in ends:
                _check(given)
            low, high = (1e6 * _replica_month(given) / _capacity(given) for given in ends)
            cheap, dear = (_pays_from(given)[0] for given in ends)
            yield KindCost(
                model=serving.model,
                utilisation=utilisation,
                price_per_hour=serving.price_per_hour,
                messages_per_s=serving.messages_per_s,
                per_million=(low, high),
                pays_from=(cheap, dear),
            )


def at_volume(given: CostInputs, messages: float) -> Volume:
    """Return the month's bill at a volume; replicas are added if the given ones are too few."""
    # Whole machines are paid, around the clock, however few messages come.
    replicas = max(given.replicas, math.ceil(messages / _capacity(given)))
    serving = replicas * _replica_month(given)
    hosted = messages * _hosted(given)
    one_off = sum(_one_off(given))
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


def _one_off(given: CostInputs) -> tuple[float, float]:
    """Return the cost of training and of labelling."""
    return (
        given.training_hours * given.training_price_per_hour,
        given.labelling_hours * given.labelling_rate_per_hour,
    )


def _replica_month(given: CostInputs) -> float:
    return given.serving_price_per_hour * HOURS_PER_MONTH


def _capacity(given: CostInputs) -> float:
    """Return the messages that a replica labels in a month at the planned utilisation."""
    return given.messages_per_s * given.utilisation * 3600 * HOURS_PER_MONTH


def _hosted(given: CostInputs) -> float:
    """Return the hosted model's price per message."""
    # The hosted model's own tokens: with those of the adapter's prompt, which lists no labels and
    # no instruction, the hosted bill came out at a tenth.
    return (
        given.input_tokens_per_message * given.hosted_price_per_million_input_tokens
        + given.output_tokens_per_message * given.hosted_price_per_million_output_tokens
    ) / 1e6


def _check(given: CostInputs) -> None:
    for name in CostInputs.__dataclass_fields__:
        value = getattr(given, name)
        if not math.isfinite(value) or value < 0:
            # The input's name comes first: make_record finds its source by it.
            raise ValueError(f"{name} is {value}; it must be a number of at least 0")
    for name in ("messages_per_s", "utilisation", "replicas", "messages_per_month"):
        if getattr(given, name) <= 0:
            raise ValueError(f"{name} is {getattr(given, name)}; it must be above 0")
    if given.utilisation > 1:
        raise ValueError(f"utilisation is {given.utilisation}; it is a share, from 0 to 1")
