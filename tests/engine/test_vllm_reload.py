"""What a reload of vLLM's weights leaves as it was, and is done here instead."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from evoswarm.engine.vllm_internals import process_shared


class UnquantizedEmbeddingMethod:
    """Named as vLLM's; packs the weight where the layer cannot see it."""

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
