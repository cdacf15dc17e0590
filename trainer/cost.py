"""What an adapter costs to make and to run, and when it has paid for itself. Pure arithmetic.

Money is in the one currency of the inputs. A month is a twelfth of 365.25 days. Replicas are paid
around the clock, whether messages come or not: serving has a price a month, not a message, and a
share a message only at a volume.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.artifacts.duel import CostRecord, Volume

HOURS_PER_MONTH = 365.25 * 24 / 12
DAYS_PER_MONTH = 365.25 / 12


@dataclass(frozen=True, slots=True)
class CostInputs:
    """Everything the arithmetic takes; nothing in it is assumed.

    Hours are machine hours, prices are per hour of one machine or per million tokens,
    ``messages_per_s`` is one replica's measured throughput and ``utilisation`` (0 to 1) the share
    of it that is planned for: peaks and nights take the rest.
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
    """The whole answer. Where a figure is None, the field of its name with ``_reason`` says why.

    ``per_thousand_messages`` is at the planned utilisation, ``planned`` at the planned volume:
    there break-even is the number of messages, and of days, after which training and labelling
    are paid by what is saved. ``pays_from_messages_per_month`` is the volume at which the month's
    serving costs no more than the hosted model, on the given replicas: where a further one is
    added, the bill takes a step.
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
        """What has to be earned back."""
        return self.training + self.labelling


def compute_cost(given: CostInputs) -> Cost:
    """Return what it all comes to. Raises ValueError naming an input that is out of range."""
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


def by_volume(given: CostInputs, volumes: Sequence[float]) -> list[Volume]:
    """Return the bill at each of these volumes (messages a month)."""
    return [at_volume(given, messages) for messages in volumes]


def at_volume(given: CostInputs, messages: float) -> Volume:
    """Return the month's bill at a volume; replicas are added where the given ones are too few."""
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
    """Return what it comes to, at the planned volume, to ship a baseline that is worse than the
    adapter by ``margin`` (a share): what is saved a month, and up to which price of a message
    filed wrongly it pays."""
    planned = cost.planned
    wrong = margin * planned.messages_per_month
    return (
        f"A margin of {100 * margin:.3g} points is up to {wrong:,.0f} more messages filed wrongly "
        f"a month, of {planned.messages_per_month:,.0f}. Serving the adapter costs "
        f"{planned.serving:,.2f} {cost.currency} a month: without it, a baseline pays while one "
        f"such message costs less than {planned.serving / wrong:,.4f} {cost.currency}, less its "
        f"share of the baseline's own machine."
    )


def _pays_from(given: CostInputs) -> tuple[float | None, str | None]:
    """The smallest volume whose hosted bill reaches the serving bill.

    The bills of n replicas meet at n * (a replica's month / the hosted price). Their capacity
    grows with n as well: what does not fit into one replica's fits into none.
    """
    hosted = _hosted(given)
    if hosted == 0:
        return None, "the hosted model costs nothing"
    meets = _replica_month(given) / hosted
    if meets > _capacity(given):
        return None, (
            "a replica at its planned utilisation costs more a message than the hosted model: more "
            "throughput, a cheaper machine or a higher utilisation is needed"
        )
    return given.replicas * meets, None


def _replica_month(given: CostInputs) -> float:
    return given.serving_price_per_hour * HOURS_PER_MONTH


def _capacity(given: CostInputs) -> float:
    """Messages that a replica takes in a month at the planned utilisation."""
    return given.messages_per_s * given.utilisation * 3600 * HOURS_PER_MONTH


def _hosted(given: CostInputs) -> float:
    """The hosted model's price of a message."""
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
