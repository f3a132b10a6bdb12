"""The larger base of the toy world."""

from __future__ import annotations

import torch

from evoswarm.toy import world
from evoswarm.toy.make import deeper, load


def test_added_layers_change_nothing_before_they_are_trained() -> None:
    small, tokenizer = load(world() / "base")
    large = deeper(small, 2).eval()
    assert large.config.num_hidden_layers == small.config.num_hidden_layers + 2
    ids = tokenizer("rev abcd", return_tensors="pt").input_ids
    with torch.inference_mode():
        assert torch.equal(large(ids).logits, small(ids).logits)
        assert torch.equal(deeper(small, 0)(ids).logits, small(ids).logits)
