"""Training of the toy models on hand-made cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from evoswarm.toy import make
from evoswarm.toy.skills import Example
from evoswarm.toy.tokenizer import make_tokenizer
from evoswarm.toy.train import IGNORE, encode, learning_rate, parameter_groups


def test_only_the_answer_and_its_end_token_are_in_the_loss() -> None:
    tokenizer = make_tokenizer()
    ids, labels = encode(tokenizer, [Example("add 3 4", "7", "add"), Example("rev ab", "ba", "rev")])
    counted = [tokenizer.decode(row[row != IGNORE]) for row in labels]
    assert counted == ["7</s>", "ba</s>"]
    assert tokenizer.decode(ids[1]) == "<s><user>rev ab<assistant>ba</s>"
    assert ids[0][labels[0] != IGNORE].tolist() == labels[0][labels[0] != IGNORE].tolist()


def test_the_learning_rate_warms_up_and_decays_to_a_tenth() -> None:
    rates = [learning_rate(step, 100, 1.0) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[100] == pytest.approx(0.1)


def test_a_parameter_uses_the_last_rate_whose_key_is_in_its_name() -> None:
    module = nn.ModuleDict({"lora_A": nn.Linear(2, 3, bias=False), "lora_B": nn.Linear(3, 2, bias=False)})
    groups = parameter_groups(module, {"": 1.0, "lora_A": 0.5})
    assert [(group["peak"], [tuple(p.shape) for p in group["params"]]) for group in groups] == [
        (1.0, [(2, 3)]),
        (0.5, [(3, 2)]),
    ]


def test_the_seed_determines_the_weights_and_the_global_state_is_restored(tmp_path: Path) -> None:
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    tensors = []
    for name, seed in [("a", 1), ("b", 1), ("c", 2)]:
        settings: Any = {"seed": seed, "steps": 2, "log": lambda line: None}
        make.make_base(tmp_path / name / "base", **settings)
        make.make_expert(tmp_path / name / "base", tmp_path / name / "rev", skill="rev", **settings)
        tensors.append(load_file(tmp_path / name / "rev" / "adapter_model.safetensors"))
    first, second, third = tensors
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], third[key]) for key in first)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)
