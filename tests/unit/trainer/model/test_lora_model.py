"""The fast LoRA forward pass equals PEFT's, and leaves special cases to it."""

from __future__ import annotations

import pytest
import torch

from trainer.model.lora_model import _ROUNDED, add_by_addmm

pytestmark = pytest.mark.slow


class Net(torch.nn.Module):
    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.first = torch.nn.Linear(12, 20, dtype=dtype)
        self.last = torch.nn.Linear(20, 6, bias=False, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.last(torch.relu(self.first(x)))
        return found


def pair(
    dtype: torch.dtype = torch.float32, dropout: float = 0.0, use_dora: bool = False
) -> tuple[torch.nn.Module, torch.nn.Module, int]:
    """The same model twice, as PEFT makes it and changed, and how many layers were."""
    from peft import LoraConfig, get_peft_model  # takes seconds

    models = []
    for _ in range(2):
        torch.manual_seed(0)
        config = LoraConfig(
            r=3,
            lora_alpha=5,
            target_modules=["first", "last"],
            lora_dropout=dropout,
            use_dora=use_dora,
            init_lora_weights=False,
        )
        models.append(get_peft_model(Net(dtype), config))
    return models[0], models[1], add_by_addmm(models[1])


def run(model: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    torch.manual_seed(1)
    found = model(x)
    found.float().square().sum().backward()
    return found, [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_outputs_and_gradients_are_those_of_peft(dropout: float) -> None:
    expected, changed, layers = pair(dropout=dropout)
    assert layers == 2
    assert expected.state_dict().keys() == changed.state_dict().keys()
    x = torch.randn(2, 7, 12)
    (a, gradients), (b, found) = run(expected, x), run(changed, x)
    torch.testing.assert_close(a, b)
    assert len(found) == len(gradients) == 4
    for wanted, gradient in zip(gradients, found, strict=True):
        torch.testing.assert_close(gradient, wanted)


def test_under_autocast_it_differs_by_rounding_alone() -> None:
    expected, changed, _ = pair()
    exact = expected(x := torch.randn(64, 12))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        a, b = expected(x), changed(x)
    assert a.dtype == b.dtype == torch.bfloat16
    error = (b.float() - exact).norm() / exact.norm()
    assert error < 1.5 * (a.float() - exact).norm() / exact.norm() + 1e-4


def test_frozen_weights_are_rounded_once_for_autocast() -> None:
    """Until they change, or are used without autocast."""
    from peft.tuners.lora import Linear

    _, model, _ = pair()
    layer = next(each for each in model.modules() if isinstance(each, Linear))
    x = torch.randn(5, 12)

    def under_autocast() -> tuple[torch.Tensor, list[torch.Tensor]]:
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return run(model, x)

    first, gradients = under_autocast()
    kept = vars(layer)[_ROUNDED]
    again, same = under_autocast()
    assert vars(layer)[_ROUNDED] is kept
    assert torch.equal(first, again)
    assert all(map(torch.equal, gradients, same))
    with torch.no_grad():
        layer.base_layer.weight.mul_(2)
    assert not torch.equal(under_autocast()[0], first)
    model(x)
    assert _ROUNDED not in vars(layer)


def test_a_layer_with_its_own_forward_keeps_it() -> None:
    from peft import LoraConfig, get_peft_model

    class Shifted(torch.nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - as torch names it
            return super().forward(input) + 1

    net = Net()
    net.last = Shifted(20, 6, bias=False)
    model = get_peft_model(net, LoraConfig(r=3, target_modules=["first", "last"]))
    expected = model(x := torch.randn(5, 12))
    assert add_by_addmm(model) == 1
    torch.testing.assert_close(model(x), expected)


def test_what_is_not_plain_is_left_to_peft() -> None:
    from peft.tuners.lora import Linear

    assert pair(use_dora=True)[2] == 0
    for dtype in (torch.float32, torch.bfloat16):
        expected, changed, _ = pair(dtype)
        x = torch.randn(5, 12).to(dtype)
        torch.testing.assert_close(expected(x), changed(x))
        for model in (expected, changed):
            model.base_model.disable_adapter_layers()  # type: ignore[operator, union-attr]
        torch.testing.assert_close(expected(x), changed(x))
        for model in (expected, changed):
            model.base_model.enable_adapter_layers()  # type: ignore[operator, union-attr]
            model.base_model.merge_adapter()  # type: ignore[operator, union-attr]
        assert all(m.merged for m in changed.modules() if isinstance(m, Linear))
        torch.testing.assert_close(expected(x), changed(x))
