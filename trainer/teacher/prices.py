"""Money as whole numbers, and what a teacher charges for a token.

Amounts are in picodollars (10^-12 dollars): a price in dollars per million tokens with up to six
decimals is then a whole number of picodollars per token, so sums are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, InvalidOperation
from importlib.metadata import version

from trainer.errors import BadInput, require

DOLLAR = 10**12
"""Picodollars in a dollar."""

_PER_TOKEN = DOLLAR // 10**6
_MOST = 10_000  # dollars; SQLite's integers end at 9 million


@dataclass(frozen=True, slots=True)
class Price:
    """Picodollars per token of the prompt and of the answer. ``source`` says where they come
    from, with version and date."""

    input: int
    output: int
    source: str

    def cost(self, prompt_tokens: int, answer_tokens: int) -> int:
        """Return what these tokens cost, in picodollars."""
        return self.input * prompt_tokens + self.output * answer_tokens

    @property
    def dollars_per_million(self) -> tuple[float, float]:
        """Both prices in dollars per million tokens."""
        return self.input / _PER_TOKEN, self.output / _PER_TOKEN

    @property
    def words(self) -> str:
        """Both prices in dollars per million tokens, with their source."""
        return (
            f"${_plain(self.input)} per million tokens in, ${_plain(self.output)} out "
            f"({self.source})"
        )


def dollars(amount: int) -> str:
    """Write an amount in dollars, rounded up: what was spent never looks smaller."""
    return f"${(Decimal(amount) / DOLLAR).quantize(Decimal('0.0001'), ROUND_CEILING):,f}"


def parse_budget(text: str) -> int:
    """Return a budget in picodollars, rounded down. Raises BadInput."""
    value = _number(text, "--budget")
    if value <= 0:
        raise BadInput(f"--budget {text}: must be more than 0")
    return int((value * DOLLAR).to_integral_value(ROUND_FLOOR))


def find_price(
    model: str, url: str, given_input: str | None, given_output: str | None, *, prompt_tokens: int
) -> Price:
    """Return the given prices, else those of genai-prices for ``model`` at the host of ``url``.

    ``prompt_tokens`` is the longest prompt: some models have a higher price for long ones. Raises
    BadInput for a model without a known price.
    """
    if (given_input is None) != (given_output is None):
        raise BadInput("--price-input and --price-output belong together: give both, or neither")
    if given_input is not None and given_output is not None:
        return Price(
            _per_token(_number(given_input, "--price-input")),
            _per_token(_number(given_output, "--price-output")),
            "--price-input, --price-output",
        )
    return _listed_price(model, url, prompt_tokens)


def list_price(model: str, url: str) -> Price:
    """Return the list prices of genai-prices for ``model`` at the host of ``url``, without the
    surcharges that a budget must allow for. Raises BadInput for a model without a known price."""
    return _listed_price(model, url, 0, at_most=False)


def _listed_price(model: str, url: str, prompt_tokens: int, *, at_most: bool = True) -> Price:
    require("genai_prices", "teacher", "a price")
    from genai_prices.data_snapshot import get_snapshot

    remedy = (
        "give --price-input and --price-output, in dollars per million tokens (0 for a server of "
        "your own)"
        if at_most
        else "give hosted_price_per_million_input_tokens and ..._output_tokens"
    )
    now = datetime.now(UTC)
    try:
        # By the address alone: a local model may have a hosted one's name.
        _, found = get_snapshot().find_provider_model(model, None, None, url)
    except LookupError:
        raise BadInput(f"no price is known for {model!r} at {url}: {remedy}") from None
    # What a request costs at most: writing a cache costs more than reading a prompt.
    prices = {
        name: most
        for name, value in vars(found.get_prices(now)).items()
        if (most := _most(value, prompt_tokens)) is not None
    }
    if prices.get("requests_kcount"):
        raise BadInput(f"{model!r} has a price per request, which is not counted here: {remedy}")
    if "input_mtok" not in prices or "output_mtok" not in prices:
        raise BadInput(f"no price per token is known for {model!r}: {remedy}")
    of_input, of_output = ["input_mtok"], ["output_mtok"]
    if at_most:
        of_input, of_output = [*of_input, "cache_write_mtok"], [*of_output, "output_reasoning_mtok"]
    inputs = [prices[name] for name in of_input if name in prices]
    outputs = [prices[name] for name in of_output if name in prices]
    source = f"genai-prices {version('genai-prices')}, price of {found.id} on {now:%Y-%m-%d}"
    return Price(_per_token(max(inputs)), _per_token(max(outputs)), source)


def _most(value: object, prompt_tokens: int) -> Decimal | None:
    """Return a price, of tiers the highest that a prompt can reach."""
    from genai_prices.types import TieredPrices

    if isinstance(value, TieredPrices):
        reached = [each.price for each in value.tiers if each.start <= prompt_tokens]
        return max([value.base, *reached])
    return value if isinstance(value, Decimal) else None


def _per_token(dollars_per_million: Decimal) -> int:
    return int((dollars_per_million * _PER_TOKEN).to_integral_value(ROUND_CEILING))


def _number(text: str, option: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite() or not 0 <= value <= _MOST:
        raise BadInput(f"{option} {text}: expected dollars from 0 to {_MOST:,}, such as 5.00")
    return value


def _plain(per_token: int) -> str:
    return f"{(Decimal(per_token) / _PER_TOKEN).normalize():f}"
