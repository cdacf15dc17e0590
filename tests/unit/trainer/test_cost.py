"""The cost of an adapter: computed by hand for comparison, and its inputs."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.support.trainer_world import engine_json, evaluation_json, training_json
from trainer.cli.main import app
from trainer.cost import (
    DAYS_PER_MONTH,
    HOURS_PER_MONTH,
    UNITS,
    CostInputs,
    at_volume,
    by_volume,
    compute_cost,
)

TEMPLATE = Path(__file__).parents[3] / "config" / "cost.toml"

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


def test_labelling_is_part_of_break_even() -> None:
    """Without it the adapter would seem to pay for itself in a day."""
    free = compute_cost(replace(WORKED, labelling_hours=0.0))
    assert free.planned.break_even_days == pytest.approx(3 / 369.5 * DAYS_PER_MONTH)


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
    rows = by_volume(WORKED, [1.0, 13_149_000.0, 13_149_001.0, 30e6])
    assert [row.replicas for row in rows] == [1, 1, 2, 3]
    assert rows[-1].serving == pytest.approx(3 * 730.5)
    assert at_volume(replace(WORKED, replicas=4), 1.0).serving == pytest.approx(4 * 730.5)


amounts = st.floats(0.01, 1e4)


@settings(max_examples=100, deadline=None)
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
    ("name", "value"),
    [
        ("utilisation", 1.1),
        ("utilisation", 0.0),
        ("replicas", 0),
        ("messages_per_s", 0.0),
        ("training_hours", -1.0),
        ("labelling_hours", float("nan")),
    ],
)
def test_an_input_out_of_range_is_named(name: str, value: float) -> None:
    change: Any = {name: value}
    with pytest.raises(ValueError, match=f"^{name} is"):
        compute_cost(replace(WORKED, **change))


def measured_run(run: Path, *engines: tuple[str, float]) -> Path:
    (run / "evaluation").mkdir(parents=True)
    training = training_json(seconds=5400.0, training_seconds=5300.0, tokens_per_message=87.5)
    training["machine"]["processes"] = 2
    (run / "training.json").write_text(json.dumps(training))
    evaluation = evaluation_json(engines=[engine_json(*engine) for engine in engines])
    (run / "evaluation" / "evaluation.json").write_text(json.dumps(evaluation))
    return run


def cost(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["cost", *map(str, arguments)], env={"COLUMNS": "200"})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def sources(record: dict[str, Any]) -> dict[str, tuple[Any, str]]:
    return {given["name"]: (given["value"], given["source"]) for given in record["inputs"]}


def test_every_input_has_its_source(tmp_path: Path) -> None:
    """Flags win over the file, and the file over the run's measurements."""
    run = measured_run(tmp_path / "run", ("transformers", 20.0))
    code, out, err = cost(run, "--inputs", TEMPLATE, "--set", "replicas=3", "--json")
    assert (code, err) == (0, "")
    record = json.loads(out)
    assert record == json.loads((run / "cost.json").read_text())
    assert (record["schema"], record["currency"]) == ("cost/1", "EUR")
    found = sources(record)
    assert set(found) == {*UNITS, "currency", "volumes", "hours_per_month"}
    hours, source = found["training_hours"]
    assert hours == pytest.approx(3.0)
    assert source.endswith("training.json, 5400 s on 2 processes")
    assert found["input_tokens_per_message"][0] == 87.5
    assert found["messages_per_s"][0] == 20.0
    assert "evaluation.json, engine transformers" in found["messages_per_s"][1]
    assert found["utilisation"][1] == f"file {TEMPLATE}"
    assert found["replicas"] == (3, "flag --set")
    assert [row["messages_per_month"] for row in record["by_volume"]] == [1e5, 1e6, 1e7]

    file = tmp_path / "own.toml"
    file.write_text(TEMPLATE.read_text() + "\nmessages_per_s = 7.0\n")
    record = json.loads(cost(run, "--inputs", file, "--json")[1])
    assert sources(record)["messages_per_s"] == (7.0, f"file {file}")
    record = json.loads(cost(run, "--inputs", file, "--set", "messages_per_s=9", "--json")[1])
    assert sources(record)["messages_per_s"] == (9.0, "flag --set")


def test_the_printed_result_without_a_run(tmp_path: Path) -> None:
    """With --out the record goes elsewhere."""
    given = ["training_hours=2", "input_tokens_per_message=900", "messages_per_s=50"]
    sets = [part for setting in given for part in ("--set", setting)]
    code, out, _ = cost("--inputs", TEMPLATE, *sets, "--out", tmp_path / "new")
    assert code == 0
    for text in ("flag --set", "calendar", "10,000,000", "at 1,000,000 messages a month"):
        assert text in out
    assert (tmp_path / "new" / "cost.json").is_file()


@pytest.mark.parametrize(
    "name", [*(unit for unit in UNITS if unit in TEMPLATE.read_text()), "currency", "volumes"]
)
def test_a_missing_input_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    """No input is built in."""
    data = tomllib.loads(TEMPLATE.read_text())
    data |= {"training_hours": 1, "input_tokens_per_message": 9, "messages_per_s": 5}
    del data[name]
    file = tmp_path / "inputs.toml"
    file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in data.items()))
    code, out, err = cost("--inputs", file)
    assert (code, out) == (2, "")
    assert f"the cost needs {name}:" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--engine", "vllm", "--set", "utilization=1"], "there is no input 'utilization'"),
        (
            ["--engine", "vllm", "--set", "utilisation=2"],
            "flag --set: utilisation is 2.0; it is a share",
        ),
        (
            ["--engine", "vllm", "--set", "utilisation=much"],
            "utilisation is 'much'; it must be a number",
        ),
        (["--engine", "vllm", "--set", "replicas=1.5"], "replicas must be a whole number"),
        (["--engine", "vllm", "--set", "volumes=5"], "volumes must be a list"),
        (["--engine", "vllm", "--set", "currency=5"], "currency must be text"),
        (["--engine", "vllm", "--set", "utilisation"], "key=value"),
        (["--engine", "vlm"], "has no engine 'vlm': choose one of vllm, transformers"),
        ([], "measured vllm (90 messages/s), transformers (20 messages/s): choose the one"),
        (["--inputs", "nowhere.toml"], "nowhere.toml: No such file"),
    ],
)
def test_a_wrong_input_is_one_line_and_code_2(
    tmp_path: Path, arguments: list[str], problem: str
) -> None:
    run = measured_run(tmp_path / "run", ("vllm", 90.0), ("transformers", 20.0))
    code, _, err = cost(run, "--inputs", TEMPLATE, *arguments)
    assert code == 2
    assert problem in err
    assert err.count("\n") == 1
    assert not (run / "cost.json").exists()


def test_the_error_of_a_run_without_measurements_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    code, _, err = cost(tmp_path / "run", "--inputs", TEMPLATE)
    assert code == 2
    assert "the cost needs training_hours" in err
    assert "training.json has no value" in err
    assert cost(tmp_path / "no", "--inputs", TEMPLATE)[0] == 2
    (tmp_path / "run" / "training.json").write_text('{"schema": "training/9"}')
    assert (
        "its schema is 'training/9', not 'training/2'"
        in cost(tmp_path / "run", "--inputs", TEMPLATE)[2]
    )


def test_the_template_marks_every_figure_as_an_example() -> None:
    lines = TEMPLATE.read_text().splitlines()
    figures = [line for line in lines if re.match(r"(# )?\w+ = ", line)]
    assert len(figures) >= len(UNITS)
    assert all("example" in line for line in figures)
