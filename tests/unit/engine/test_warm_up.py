"""Warm-up covers what will come."""

from tests.support.toy_adapter import toy_manifest
from worker.engine.warm_up import warm_up_rounds


def test_every_prompt_is_one_that_the_engine_may_get() -> None:
    """Each begins and ends like a real one, and the longest possible is among them."""
    manifest = toy_manifest()
    spec = manifest.prompt
    rounds = list(warm_up_rounds(manifest, [golden.ids for golden in manifest.golden]))
    prompts = [prompt for batch in rounds for prompt in batch]
    assert all(prompt[: len(spec.prefix_ids)] == spec.prefix_ids for prompt in prompts)
    assert all(prompt[-len(spec.suffix_ids) :] == spec.suffix_ids for prompt in prompts)
    assert max(map(len, prompts)) == spec.max_prompt_tokens
    assert rounds[0] == [manifest.golden[0].ids]


def test_batches_have_many_sizes() -> None:
    sizes = {len(batch) for batch in warm_up_rounds(toy_manifest(), [])}
    assert min(sizes) == 1
    assert max(sizes) >= 32
