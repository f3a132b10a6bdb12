"""Merging writes the fp32 result, rounded once, into the tensor that an engine holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from adapters import config_of, weights_of
from tiny_models import load

from evoswarm.engine import merge
from evoswarm.engine.install import Installer
from evoswarm.engine.pristine import Pristine
from evoswarm.errors import UserError


@pytest.mark.parametrize("dtype", merge.FLOATS)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("block", [1, 1000, 1 << 18])
def test_a_merge_is_the_exact_sum_rounded_once(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, transposed: bool, block: int
) -> None:
    monkeypatch.setattr(merge, "BLOCK", block)
    torch.manual_seed(0)
    a, b = torch.randn(5, 70), torch.randn(33, 5)
    pristine = torch.randn(33, 70).to(dtype)
    exact = pristine.double() + 0.37 * (b.double() @ a.double())
    pristine, exact = (pristine.T, exact.T) if transposed else (pristine, exact)
    target = torch.full_like(pristine, torch.nan)
    merge.Merge(target, pristine, a, b, 0.37, transposed).write()
    torch.testing.assert_close(target.double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-5)
    merge.Merge(pristine, pristine, a, b, 0.37, transposed).write()
    assert torch.equal(pristine, target)


def test_a_shard_is_written_in_place_and_nothing_around_it() -> None:
    fused = torch.zeros(12, 8)
    merge.Merge(fused[4:8], torch.zeros(4, 8), torch.ones(1, 8), torch.ones(4, 1), 2.0).write()
    assert fused.sum(dim=1).tolist() == [0] * 4 + [16] * 4 + [0] * 4


def test_a_quantized_base_is_refused(tiny_llama: Path, adapters: Path) -> None:
    model = load(tiny_llama, dtype=torch.float32)
    quantized = model.model.layers[0].self_attn.q_proj
    quantized.weight = torch.nn.Parameter(quantized.weight.to(torch.float8_e4m3fn), requires_grad=False)
    before = quantized.weight.view(torch.uint8).clone()
    with pytest.raises(
        UserError, match=r"q_proj\.weight is float8_e4m3fn in the base model; .* `model` to the unquantized base"
    ):
        Installer(model, config_of(adapters / "a")).install(weights_of(adapters / "a"))
    assert torch.equal(quantized.weight.view(torch.uint8), before)


def test_each_tensor_has_one_pristine_copy_of_its_first_state() -> None:
    pristine, tensor = Pristine("auto"), torch.ones(3)
    pristine.keep([tensor, tensor])
    tensor.zero_()
    pristine.keep([tensor])
    assert pristine.places == {"cpu": 12}
    pristine.restore(tensor)
    assert tensor.tolist() == [1, 1, 1]


def test_only_what_was_adapted_before_and_is_not_now_is_restored(tiny_llama: Path, adapters: Path) -> None:
    weights = weights_of(adapters / "a")
    queries = {name: array for name, array in weights.items() if "q_proj" in name}
    others = {name: array for name, array in weights.items() if "q_proj" not in name}
    one, two = load(tiny_llama), load(tiny_llama)
    installer = Installer(one, config_of(adapters / "a"))
    installer.install(queries)
    assert all("q_proj" in name for name in installer.adapted)
    installer.install(others)
    Installer(two, config_of(adapters / "a")).install(others)
    assert all(torch.equal(x, y) for x, y in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    installer.install(None)
    assert installer.adapted == set()
