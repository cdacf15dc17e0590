"""Scoring: the same scores in every batch, and an unchanged model afterwards."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch

from trainer.errors import ProofFailed
from trainer.model import scoring
from trainer.model.forward import Layout
from trainer.model.lora_model import LoraModel
from trainer.model.scoring import (
    BATCH_SIZE,
    BATCH_TOKENS,
    Scorer,
    Scores,
    make_verified_scorer,
    token_batches,
)
from worker.contract import Code

pytestmark = pytest.mark.slow

PREFIX = tuple(range(5, 25))
TOKENS = (40, 41, 42)
CODES = {str(token): Code(str(token), token) for token in TOKENS}
WORDS = {
    "a": Code("a", 40, (50, 2)),
    "b": Code("b", 40, (51, 2)),
    "c": Code("c", 40, (51, 52, 2)),
    "d": Code("d", 41, (2,)),
}


@pytest.fixture(scope="module")
def model(make_lora_model: Callable[..., LoraModel]) -> LoraModel:
    torch.manual_seed(1)
    model = make_lora_model(dropout=0.5)
    with torch.no_grad():
        for weights in model.trainable_parameters():
            weights.add_(torch.randn_like(weights) * 0.1)
    return model


@pytest.fixture(scope="module")
def prompts() -> list[tuple[int, ...]]:
    rng = random.Random(3)
    return [
        PREFIX + tuple(rng.randrange(3, 300) for _ in range(length)) for length in (3, 9, 1, 30, 9)
    ]


def test_scores_are_those_of_the_whole_vocabulary_in_the_given_order(
    model: LoraModel, prompts: list[tuple[int, ...]]
) -> None:
    found = Scorer(model, PREFIX, CODES, layout="cached").score(prompts)
    model.peft_model.eval()
    for at, prompt in enumerate(prompts):
        with torch.inference_mode():
            logits = model.causal_lm(input_ids=torch.tensor([prompt])).logits[0, -1]
        wanted = torch.log_softmax(logits, dim=-1)
        assert found.logprobs[at] == pytest.approx(wanted[list(TOKENS)].numpy(), abs=1e-4)
        assert found.in_set[at] == (int(wanted.argmax()) in TOKENS)
    assert found.seconds > 0


def test_codes_of_several_tokens_are_scored_where_they_part(
    model: LoraModel, prompts: list[tuple[int, ...]]
) -> None:
    found = Scorer(model, PREFIX, WORDS, layout="cached").score(prompts)
    model.peft_model.eval()

    def next_token(prompt: tuple[int, ...]) -> torch.Tensor:
        with torch.inference_mode():
            logits = model.causal_lm(input_ids=torch.tensor([prompt])).logits[0, -1]
        return torch.log_softmax(logits, dim=-1)

    for at, prompt in enumerate(prompts):
        first, second, third = (next_token((*prompt, *path)) for path in ((), (40,), (40, 51)))
        wanted = [
            first[40] + second[50],
            first[40] + second[51] + third[2],
            first[40] + second[51] + third[52],
            first[41],
        ]
        assert found.logprobs[at] == pytest.approx([float(each) for each in wanted], abs=1e-3)
        inside = [int(first.argmax()) in (40, 41)]
        best = int(found.logprobs[at].argmax())
        if best < 3:  # the other branches are not on the way to "d"
            inside.append(int(second.argmax()) in (50, 51))
        if best in (1, 2):
            inside.append(int(third.argmax()) in (2, 52))
        assert found.in_set[at] == all(inside)
    assert found.seconds > 0


def test_only_the_way_to_the_best_code_says_whether_an_answer_is_a_label(
    model: LoraModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = {2: ([0.02, 0.98], True), 3: ([0.5, 0.1], False), 4: ([0.4, 0.4], True)}

    def next_token(_: Scorer, prompts: list[tuple[int, ...]], *__: object, **___: object) -> Scores:
        shares, inside = steps[len(prompts[0])]
        return Scores(np.log([shares]), np.array([inside]), 0.1)

    monkeypatch.setattr(Scorer, "_next_token", next_token)
    found = Scorer(model, (), WORDS, layout="whole").score([(5, 6)])
    assert found.logprobs.argmax() == 3
    assert found.in_set.tolist() == [True]
    steps[2] = ([0.98, 0.02], True)
    found = Scorer(model, (), WORDS, layout="whole").score([(5, 6)])
    assert found.logprobs.argmax() == 0
    assert found.in_set.tolist() == [False]


@pytest.mark.parametrize("layout", ["packed", "cached", "whole"])
@pytest.mark.parametrize("batch_size", [2, 64])
def test_the_batch_changes_rounding_alone(
    model: LoraModel, prompts: list[tuple[int, ...]], layout: Layout, batch_size: int
) -> None:
    scorer = Scorer(model, PREFIX, CODES, layout)
    found = scorer.score(prompts, batch_size=batch_size)
    wanted = Scorer(model, PREFIX, CODES, layout="cached").score(prompts)
    assert np.abs(found.logprobs - wanted.logprobs).max() < 1e-4


def test_a_batch_holds_so_many_tokens_and_no_more() -> None:
    rng = random.Random(5)
    lengths = [rng.randrange(1, 700) for _ in range(500)] + [5000, 4096, 4097]
    batches = list(token_batches(lengths))
    assert sorted(at for batch in batches for at in batch) == list(range(len(lengths)))
    assert [lengths[batch[0]] for batch in batches] == sorted(
        (lengths[batch[0]] for batch in batches), reverse=True
    )
    for batch in batches:
        longest = max(lengths[at] for at in batch)
        assert len(batch) == 1 or longest * len(batch) <= BATCH_TOKENS
        assert len(batch) <= BATCH_SIZE
    assert [lengths[at] for at in batches[0]] == [5000]
    assert list(token_batches([], rows=3)) == []
    assert [len(batch) for batch in token_batches([1] * 7, rows=3)] == [3, 3, 1]


def test_dropout_is_off_while_scoring_and_on_again_after_it(
    model: LoraModel, prompts: list[tuple[int, ...]]
) -> None:
    scorer = Scorer(model, PREFIX, CODES, layout="cached")
    model.peft_model.train()
    first, second = scorer.score(prompts), scorer.score(prompts)
    assert np.array_equal(first.logprobs, second.logprobs)
    assert model.peft_model.training
    model.peft_model.eval()
    scorer.score(prompts)
    assert not model.peft_model.training


def test_a_prefix_that_cannot_be_shared_runs_with_every_prompt(
    model: LoraModel, prompts: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some architectures crop their cache."""
    refused = ["cached"]

    def verify(*_: object, layout: Layout) -> None:
        if layout in refused:
            raise ProofFailed("the short forward pass differs")

    monkeypatch.setattr(scoring, "verify_forward", verify)
    assert make_verified_scorer(model, PREFIX, CODES, prompts).layout == "whole"
    refused.append("whole")
    with pytest.raises(ProofFailed):
        make_verified_scorer(model, PREFIX, CODES, prompts)
    refused.clear()
    assert make_verified_scorer(model, PREFIX, CODES, prompts).layout == "cached"
    assert make_verified_scorer(model, (), CODES, prompts).layout == "whole"
