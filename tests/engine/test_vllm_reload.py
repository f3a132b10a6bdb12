"""What a reload of vLLM's weights leaves as it was, and is done here instead."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from evoswarm.engine.vllm_internals import packed_again, process_shared, unused


class UnquantizedEmbeddingMethod:
    """Named as vLLM's; packs the weight where the layer cannot see it."""

    moe_kernel: Any = None

    def process_weights_after_loading(self, layer: Any) -> None:
        layer.packed = layer.weight.detach().clone()


class Layer(nn.Module):
    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight, self.quant_method = weight, UnquantizedEmbeddingMethod()
        self.quant_method.process_weights_after_loading(self)


def test_a_head_that_is_the_embedding_is_packed_again_and_other_layers_are_not() -> None:
    shared, own = (nn.Parameter(torch.ones(2)) for _ in range(2))
    model = nn.ModuleDict({"embedding": Layer(shared), "head": Layer(shared), "other": Layer(own)})
    with torch.no_grad():
        shared.mul_(3)
        own.mul_(3)
    process_shared(model)
    assert [layer.packed.tolist() for layer in model.values()] == [[3, 3], [3, 3], [1, 1]]


def test_kernels_of_mixtures_are_made_again_where_they_are_reloaded_and_come_back_elsewhere() -> None:
    model = nn.ModuleList([Layer(nn.Parameter(torch.ones(1))) for _ in range(3)])
    for number, layer in enumerate(model[:2]):
        layer.quant_method.moe_kernel = f"kernel {number}"
    with packed_again(model):
        assert [layer.quant_method.moe_kernel for layer in model] == [None, None, None]
        model[0].quant_method.moe_kernel = "new"
    assert [layer.quant_method.moe_kernel for layer in model] == ["new", "kernel 1", None]


def test_modules_that_read_images_are_known_by_their_names() -> None:
    class Reads(nn.Module):
        _tower_model_names = ("vision_tower", "multi_modal_projector")

    assert "vision_tower.layers.0.q_proj".startswith(unused(Reads()))
    assert not "language_model.layers.0.q_proj".startswith(unused(Reads()))
    assert not "vision_tower.layers.0".startswith(unused(nn.Module()))
