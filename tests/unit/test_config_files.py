"""Every file that ships in config/ is read by its reader."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from desk.settings import load_settings as load_desk
from trainer.cost_inputs import collect_inputs
from trainer.prices import read_prices
from trainer.store.rules import load_rules
from trainer.training.recipe import load_recipe
from worker.contract import Taxonomy
from worker.settings import load_settings as load_worker

CONFIG = Path(__file__).parents[2] / "config"


def read_recipe(path: Path) -> object:
    places = {"base": Path("base"), "dataset": Path("data"), "run": Path("run")}
    return load_recipe(path, places)


def read_cost(path: Path) -> object:
    """With what a run would measure."""
    measured = ("training_hours", "messages_per_s", "input_tokens_per_message",
                "output_tokens_per_message")  # fmt: skip
    sets = [f"{name}=1" for name in measured]
    return collect_inputs(None, path, sets=sets, prices=CONFIG / "prices.toml")


READERS: Mapping[str, Callable[[Path], object]] = {
    "bank_taxonomy.toml": Taxonomy.from_toml,
    "compose/worker.toml": load_worker,
    "cost.toml": read_cost,
    "desk.toml": load_desk,
    "gate.toml": load_rules,
    "prices.toml": lambda path: read_prices(path, dt.datetime.now(dt.UTC).date()),
    "taxonomy.toml": Taxonomy.from_toml,
    "trainer-cpu.toml": read_recipe,
    "trainer-encoder.toml": read_recipe,
    "trainer.toml": read_recipe,
    "worker.toml": load_worker,
}


def test_every_file_has_a_reader() -> None:
    found = {str(path.relative_to(CONFIG)) for path in CONFIG.rglob("*.toml")}
    assert found == set(READERS)


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_ships_is_read(name: str, tmp_path: Path) -> None:
    """And one with a key too many is refused: its reader does look at it."""
    READERS[name](CONFIG / name)
    wrong = tmp_path / Path(name).name
    wrong.write_text("no_such_key = 1\n" + (CONFIG / name).read_text("utf-8"), encoding="utf-8")
    with pytest.raises(Exception, match="no_such_key"):
        READERS[name](wrong)
