"""The cost of an adapter: computed by hand for comparison, and its inputs."""

from __future__ import annotations

import datetime as dt
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.support.trainer_world import engine_json, evaluation_json, training_json
from tests.unit.trainer.report.conftest import candidate, duel_record
from trainer.artifacts.duel import DUEL
from trainer.cli.main import app
from trainer.cost import (
    DAYS_PER_MONTH,
    HOURS_PER_MONTH,
    CostInputs,
    Serving,
    at_volume,
    by_kind,
    compute_cost,
)
from trainer.cost_inputs import UNITS
from trainer.dataset.folder import Dataset
from trainer.errors import BadInput
from trainer.prices import read_prices
from trainer.teacher.prices import find_price, list_price
from trainer.teacher.prompt import make_prompt, make_question

CONFIG = Path(__file__).parents[3] / "config"
TEMPLATE, PRICES = CONFIG / "cost.toml", CONFIG / "prices.toml"
TOKENS: dict[str, Any] = {"input_tokens_per_message": 87.5, "output_tokens_per_message": 9}
NEEDED = TOKENS | {"training_hours": 2, "messages_per_s": 50}
"""What a run would have measured."""

# 730.5 hours a month at 1.00 are 730.50 a replica; 10 messages/s at half load are 13,149,000 a
# month; a hosted message of 500 tokens in and 10 out at 2 and 10 a million costs 0.0011.
WORKED = CostInputs(
    training_hours=2.0,
    training_price_per_hour=1.5,
    labelling_hours=40.0,
    labelling_rate_per_hour=30.0,
    serving_price_per_hour=1.0,
    messages_per_s=10.0,
    utilisation=0.5,
    replicas=1,
    hosted_price_per_million_input_tokens=2.0,
    hosted_price_per_million_output_tokens=10.0,
    input_tokens_per_message=500.0,
    output_tokens_per_message=10.0,
    messages_per_month=1_000_000.0,
)


def test_a_worked_example() -> None:
    found = compute_cost(WORKED)
    assert (found.training, found.labelling, found.one_off) == (3.0, 1200.0, 1203.0)
    assert found.per_thousand_messages == pytest.approx(1000 * 730.5 / 13_149_000)
    assert found.hosted_per_thousand == pytest.approx(1.10)
    assert found.planned.serving == pytest.approx(730.5)
    assert found.planned.hosted == pytest.approx(1100.0)
    assert found.planned.saving == pytest.approx(369.5)
    assert found.planned.break_even_days == pytest.approx(1203 / 369.5 * 30.4375)
    assert found.break_even_messages == pytest.approx(1203 / 369.5 * 1_000_000)
    assert found.pays_from_messages_per_month == pytest.approx(730.5 / 0.0011)
    assert found.break_even_reason is None
    assert found.pays_from_reason is None


def test_without_savings_there_is_no_break_even_but_a_reason() -> None:
    """At a low volume, with a cheaper hosted model, and with a free one."""
    quiet = compute_cost(replace(WORKED, messages_per_month=1000.0))
    assert quiet.break_even_messages is None
    assert quiet.planned.break_even_days is None
    assert "serving costs 730.50 and the hosted model 1.10" in str(quiet.break_even_reason)
    assert quiet.pays_from_messages_per_month is not None
    dear = compute_cost(replace(WORKED, messages_per_s=0.1))
    assert dear.pays_from_messages_per_month is None
    assert "more per message than the hosted model" in str(dear.pays_from_reason)
    nothing = replace(
        WORKED,
        hosted_price_per_million_input_tokens=0.0,
        hosted_price_per_million_output_tokens=0.0,
    )
    assert "costs nothing" in str(compute_cost(nothing).pays_from_reason)


def test_replicas_are_added_if_the_volume_needs_them() -> None:
    rows = [at_volume(WORKED, messages) for messages in [1.0, 13_149_000.0, 13_149_001.0, 30e6]]
    assert [row.replicas for row in rows] == [1, 1, 2, 3]
    assert rows[-1].serving == pytest.approx(3 * 730.5)
    assert at_volume(replace(WORKED, replicas=4), 1.0).serving == pytest.approx(4 * 730.5)


amounts = st.floats(0.01, 1e4)


@given(
    st.builds(
        CostInputs,
        **{name: amounts for name in UNITS if name not in ("utilisation", "replicas")},
        utilisation=st.floats(0.01, 1.0),
        replicas=st.integers(1, 20),
    )
)
def test_the_figures_agree_with_each_other(inputs: CostInputs) -> None:
    """At break-even savings equal spending; at the volume from which serving pays both bills are
    equal; at full planned load the price per message is the stated one."""
    found = compute_cost(inputs)
    days = found.planned.break_even_days
    assert (days is None) == (found.planned.saving <= 0) == (found.break_even_messages is None)
    if days is not None:
        assert found.planned.saving * days / DAYS_PER_MONTH == pytest.approx(found.one_off)
    meets = found.pays_from_messages_per_month
    if meets is not None:
        row = at_volume(inputs, meets)
        assert row.hosted == pytest.approx(
            inputs.replicas * inputs.serving_price_per_hour * HOURS_PER_MONTH
        )
    full = inputs.messages_per_s * inputs.utilisation * 3600 * HOURS_PER_MONTH * inputs.replicas
    share = inputs.replicas * inputs.serving_price_per_hour * HOURS_PER_MONTH / full
    assert found.per_thousand_messages == pytest.approx(1000 * share)


@pytest.mark.parametrize(
    ("name", "value"), [("utilisation", 1.1), ("replicas", 0), ("labelling_hours", float("nan"))]
)
def test_an_input_out_of_range_is_named(name: str, value: float) -> None:
    change: Any = {name: value}
    with pytest.raises(ValueError, match=f"^{name} is"):
        compute_cost(replace(WORKED, **change))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a run whose training took three hours, and whose engine did 20 messages/s
    in its evaluation."""
    run = tmp_path / "run"
    (run / "evaluation").mkdir(parents=True)
    training = training_json(seconds=10800.0, training_seconds=10600.0, tokens_per_message=87.5)
    (run / "training.json").write_text(json.dumps(training))
    measure(run, transformers=20.0)
    return run


def measure(run: Path, **engines: float) -> None:
    evaluation = evaluation_json(engines=[engine_json(*each) for each in engines.items()])
    (run / "evaluation" / "evaluation.json").write_text(json.dumps(evaluation))


def cost(*arguments: object, prices: Path | None = PRICES, **sets: Any) -> tuple[int, str, str]:
    words = [*arguments, *(() if prices is None else ("--prices", prices))]
    words += [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]
    done = CliRunner().invoke(app, ["cost", *map(str, words)], env={"COLUMNS": "200"})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def found(*arguments: object, **sets: Any) -> dict[str, Any]:
    code, out, err = cost(*arguments, "--json", **sets)
    assert code == 0, err
    record: dict[str, Any] = json.loads(out)
    return record


def sources(record: dict[str, Any]) -> dict[str, tuple[Any, str]]:
    return {given["name"]: (given["value"], given["source"]) for given in record["inputs"]}


def test_every_input_has_its_source(run: Path, tmp_path: Path) -> None:
    """Flags win over the file, and the file over the run's measurements."""
    record = found(run, "--inputs", TEMPLATE, **TOKENS, replicas=3)
    assert record == json.loads((run / "cost.json").read_text())
    given = sources(record)
    assert set(given) == {*UNITS, "currency", "volumes", "hours_per_month"}
    hours, source = given["training_hours"]
    assert hours == pytest.approx(3.0)
    assert source.endswith("training.json, 10800 s")
    assert given["input_tokens_per_message"] == (87.5, "flag --set")
    assert given["messages_per_s"][0] == 20.0
    assert "evaluation.json, engine transformers" in given["messages_per_s"][1]
    assert given["utilisation"][1] == f"file {TEMPLATE}"
    price, source = given["serving_price_per_hour"]
    assert source == f"prices {PRICES}: aws m7g.large, 2026-06-17"
    assert (record["prices"][0]["name"], record["prices"][0]["per_hour"]) == (
        "aws m7g.large",
        price,
    )
    assert given["hosted_price_per_million_input_tokens"][0] == [0.075, 0.15]
    assert [row["messages_per_month"] for row in record["by_volume"]] == [1e5, 1e6, 1e7]

    file = tmp_path / "own.toml"
    file.write_text("messages_per_s = 7.0\n" + TEMPLATE.read_text())
    record = found(run, "--inputs", file, **TOKENS)
    assert sources(record)["messages_per_s"] == (7.0, f"file {file}")
    record = found(run, "--inputs", file, **TOKENS, messages_per_s=9)
    assert sources(record)["messages_per_s"] == (9.0, "flag --set")


def test_a_hosted_model_costs_its_list_price_and_no_surcharge() -> None:
    """A budget must allow for writing a cache, a comparison must not: it would flatter us."""
    model, url = "claude-haiku-4-5", "https://api.anthropic.com/v1"
    record = found(
        "--inputs", TEMPLATE, **NEEDED, hosted_discount=0, hosted_model=model, hosted_url=url
    )
    listed = list_price(model, url).dollars_per_million
    most = find_price(model, url, None, None, prompt_tokens=0).dollars_per_million
    price = sources(record)["hosted_price_per_million_input_tokens"][0]
    assert price == listed[0] < most[0]


def test_a_price_as_a_number_and_a_name_for_one(tmp_path: Path) -> None:
    """A flag of either kind wins over the file; both in one place are a contradiction."""
    file = tmp_path / "own.toml"
    numbers_ = TEMPLATE.read_text().replace("serving_machine = ", "serving_price_per_hour = 3 # ")
    file.write_text(numbers_)

    def price(inputs: Path, **more: object) -> Any:
        record = found("--inputs", inputs, **NEEDED, **more)
        return sources(record)["serving_price_per_hour"][0]

    assert price(TEMPLATE, serving_price_per_hour=2) == 2
    assert price(file) == 3
    assert price(file, serving_machine="aws g5.xlarge") == 1.006
    machines = '["azure nc24ads a100 v4", "runpod a100 80gb"]'
    assert price(file, serving_machine=machines) == [1.79, 3.673]
    file.write_text('serving_machine = "aws g5.xlarge"\n' + numbers_)
    code, _, err = cost("--inputs", file, **NEEDED)
    assert code == 2
    assert "has both serving_machine and serving_price_per_hour: give one of them" in err
    code, _, err = cost("--inputs", TEMPLATE, prices=None, **NEEDED)
    assert code == 2
    assert "serving_machine needs a file of prices: give one with --prices" in err


def test_the_printed_result_without_a_run(tmp_path: Path) -> None:
    """With --out the record goes elsewhere."""
    code, out, _ = cost("--inputs", TEMPLATE, "--out", tmp_path / "new", **NEEDED)
    assert code == 0
    for text in (
        *("flag --set", "calendar", "10,000,000", "at 1,000,000 messages a month"),
        *("encoder, 2 cores", "60%", "1.006 USD an hour on 2026-06-17, https://"),
    ):
        assert text in out
    assert (tmp_path / "new" / "cost.json").is_file()


def test_a_missing_input_is_an_error_that_names_it(tmp_path: Path) -> None:
    """No input is built in."""
    file = tmp_path / "inputs.toml"
    file.write_text(TEMPLATE.read_text().replace("labelling_hours =", "# "))
    code, _, err = cost("--inputs", file, **NEEDED)
    assert code == 2
    assert "the cost needs labelling_hours:" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("utilization=1", "there is no input 'utilization'"),
        ("utilisation=much", "utilisation is 'much'; it must be a number"),
        ("replicas=1.5", "replicas must be a whole number"),
        ("messages_per_s=[9, 3]", "a range is [lowest, highest]"),
        ("utilisations=[3]", "utilisation is 3.0; it is a share"),
        ("currency=EUR", "is in USD, and currency is EUR"),
        ("serving_machine=pdp-11", "has no machine 'pdp-11'"),
        ("hosted_model=gpt-0", "no price is known for 'gpt-0'"),
        ("serving=[{speed=1}]", "serving 1: there is no field 'speed'"),
    ],
)
def test_a_wrong_input_is_one_line_and_code_2(run: Path, arguments: str, problem: str) -> None:
    code, _, err = cost(run, "--inputs", TEMPLATE, "--set", arguments, **TOKENS)
    assert code == 2
    assert problem in err
    assert err.count("\n") == 1
    assert not (run / "cost.json").exists()


# The hosted model's tokens.


@pytest.fixture
def run_on(sealed: Dataset, run: Path) -> Path:
    training = json.loads((run / "training.json").read_text())
    training["dataset"] |= {"digest": sealed.digest, "directory": str(sealed.directory)}
    (run / "training.json").write_text(json.dumps(training))
    return run


def test_a_hosted_model_pays_for_the_instruction_and_every_label(
    sealed: Dataset, run_on: Path
) -> None:
    """An estimate from the bytes of the prompt that label and duel send, with its range. The run's
    87.5 are tokens of the adapter's prompt, which has no list of labels."""
    given = sources(found(run_on, "--inputs", TEMPLATE))
    question = make_question(sealed.train[0].message, redacts=True)
    assert question is not None
    prompt = make_prompt(sealed.taxonomy, question, 0)
    size = len(prompt.system.encode()) + len(prompt.user.encode())
    (low, high), source = given["input_tokens_per_message"]
    assert low < size / 4 < high
    assert low == pytest.approx(0.6 * high)
    assert source.startswith("estimate: the prompt with all labels, ")
    assert given["output_tokens_per_message"][1].startswith("estimate: the label as JSON, ")


def test_the_tokens_that_its_server_counted_in_the_duel_come_first(run_on: Path) -> None:
    record = duel_record(evaluation_json())
    hosted = candidate("gpt", "recorded", 0.9, (0.8, 0.95), 1.0, 2.0)
    hosted["elsewhere"] = {"no_label": 0, "prompt_tokens": 612.5, "answer_tokens": 9.25}
    record["candidates"].append(hosted)
    (run_on / "duel").mkdir()
    (run_on / "duel" / DUEL.name).write_text(json.dumps(record))
    given = sources(found(run_on, "--inputs", TEMPLATE))
    assert given["input_tokens_per_message"][0] == 612.5
    assert given["output_tokens_per_message"][0] == 9.25
    assert given["input_tokens_per_message"][1].endswith("gpt, as its server counted")


def test_without_the_dataset_the_tokens_are_missing_and_not_the_encoders(run: Path) -> None:
    code, _, err = cost(run, "--inputs", TEMPLATE)
    assert code == 2
    assert "the cost needs input_tokens_per_message" in err


# Ranges, and ways to serve.


def test_a_range_of_an_input_is_a_range_of_the_break_even(run: Path) -> None:
    """Its ends are those of the inputs' ends; the middle is between them."""

    def days(**more: object) -> Any:
        given = TOKENS | {"messages_per_month": 3e8, "hosted_discount": 0} | more
        return found(run, "--inputs", TEMPLATE, **given)

    cheap, dear = (days(labelling_hours=hours) for hours in (20, 90))
    both = days(labelling_hours=[20, 90])
    assert both["break_even_days_range"] == [cheap["break_even_days"], dear["break_even_days"]]
    assert cheap["break_even_days"] < both["break_even_days"] < dear["break_even_days"]
    never = days(messages_per_s=[0.01, 20])
    assert never["break_even_days_range"][1] is None
    assert never["pays_from_range"][1] is None


SERVINGS = [
    Serving("small", (0.1, 0.1), (100.0, 400.0)),
    Serving("large", (2.0, 4.0), (50.0, 50.0)),
]


def test_ways_to_serve_by_hand() -> None:
    """730.5 hours. 400 messages/s at 30 % are 315,576,000 a month for 73.05, which is 0.23 a
    million; a hosted message costs 0.0011, so 73.05 are 66,409 of them."""
    found = list(by_kind(WORKED, WORKED, SERVINGS, (0.3, 0.6)))
    assert [(each.model, each.utilisation) for each in found] == [
        ("small", 0.3), ("small", 0.6), ("large", 0.3), ("large", 0.6),
    ]  # fmt: skip
    assert found[0].per_million == pytest.approx((0.2315, 0.9259), rel=1e-3)
    assert found[0].pays_from == pytest.approx((66_409, 66_409), rel=1e-4)
    assert found[2].pays_from == pytest.approx((730.5 * 2 / 0.0011, 730.5 * 4 / 0.0011))


def test_a_replica_that_cannot_carry_the_volume_it_would_need_never_pays() -> None:
    slow = Serving("slow", (2.0, 4.0), (0.4, 0.8))
    cheap, dear = next(by_kind(WORKED, WORKED, [slow], (1.0,))).pays_from
    assert cheap is not None
    assert dear is None


# The file of prices.


MACHINE = {
    "name": "box",
    "holds": "2 cores",
    "where": "here",
    "currency": "USD",
    "per_hour": 0.1,
    "source": "https://example.org/prices",
    "date": dt.date(2026, 1, 2),
}
TODAY = dt.date(2026, 7, 1)


def write_prices(path: Path, *machines: dict[str, Any]) -> Path:
    lines = []
    for machine in machines:
        lines.append("[[machine]]")
        for key, value in machine.items():
            written = value.isoformat() if isinstance(value, dt.date) else json.dumps(value)
            lines.append(f"{key} = {written}")
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"per_hour": 0}, "per_hour: Input should be greater than 0"),
        ({"date": dt.date(2026, 7, 2)}, "which is in the future"),
        ({"source": "a friend"}, "source: String should match pattern '^https://'"),
    ],
)
def test_a_price_without_a_source_and_a_day_is_no_price(
    tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    path = write_prices(tmp_path / "prices.toml", MACHINE | change)
    with pytest.raises(BadInput, match=re.escape(problem)):
        read_prices(path, TODAY)
    without = {key: value for key, value in MACHINE.items() if key != "source"}
    with pytest.raises(BadInput, match="source: Field required"):
        read_prices(write_prices(path, without), TODAY)
    with pytest.raises(BadInput, match="box: is there twice"):
        read_prices(write_prices(path, MACHINE, MACHINE), TODAY)


@pytest.mark.parametrize(("days", "stale"), [(180, False), (181, True)])
def test_an_old_price_is_called_stale(tmp_path: Path, days: int, stale: bool) -> None:
    """Wherever it is shown."""
    read = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=days)
    path = write_prices(tmp_path / "prices.toml", MACHINE | {"date": read})
    given = {"serving_machine": "box", "serving": "[]", "training_price_per_hour": 1}
    code, out, err = cost("--inputs", TEMPLATE, prices=path, **NEEDED, **given)
    assert code == 0, err
    assert ("STALE: read 181 days ago; read it again" in out) is stale
    assert f"0.1 USD an hour on {read}, https://example.org/prices" in out
