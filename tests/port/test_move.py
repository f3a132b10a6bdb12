"""Experts of one base model on another version of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapters import weights_of
from peft import PeftModel
from tiny_models import load, make_tokenizer, save_llama
from tiny_models import save_adapter as write_adapter
from wegeft_helpers import adapted, logits

from evoswarm.errors import UserError
from evoswarm.port.pool import port_expert, port_pool


@pytest.fixture
def bases(tmp_path: Path) -> tuple[Path, Path]:
    return save_llama(tmp_path / "old", seed=0), save_llama(tmp_path / "new", seed=9)


def save_adapter(base: Path, folder: Path, **settings: Any) -> Path:
    write_adapter(base, folder, **settings)
    return folder


def port(bases: tuple[Path, Path], source: Path, output: Path) -> Path:
    old, new = bases
    return port_expert(source, output, old=str(old), new=str(new))


def test_a_lora_stays_as_it_is_and_names_the_new_base(bases: tuple[Path, Path], tmp_path: Path) -> None:
    source = save_adapter(bases[0], tmp_path / "a", seed=1)
    folder = port(bases, source, tmp_path / "out")
    before, after = weights_of(source), weights_of(folder)
    assert before.keys() == after.keys() and all(np.array_equal(before[n], after[n]) for n in before)
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == str(bases[1])
    assert PeftModel.from_pretrained(load(bases[1]), folder)


def test_a_whole_tensor_of_an_adapter_keeps_its_difference_from_the_base(
    bases: tuple[Path, Path], tmp_path: Path
) -> None:
    source = save_adapter(bases[0], tmp_path / "a", seed=1, modules_to_save=["lm_head"])
    model = PeftModel.from_pretrained(load(bases[1]), port(bases, source, tmp_path / "out")).eval()
    old, new = (load(base).lm_head.weight for base in bases)
    trained = PeftModel.from_pretrained(load(bases[0]), source).base_model.model.lm_head.modules_to_save.default.weight
    ported = model.base_model.model.lm_head.modules_to_save.default.weight
    assert not torch.equal(trained, old)
    torch.testing.assert_close(ported, new + (trained - old), rtol=0, atol=1e-6)


def test_a_checkpoint_keeps_its_difference_from_the_base(bases: tuple[Path, Path], tmp_path: Path) -> None:
    expert = save_llama(tmp_path / "expert", seed=3)
    folder = port(bases, expert, tmp_path / "out")
    models = [load(place).state_dict() for place in (*bases, expert, folder)]
    for name in models[0]:
        old, new, trained, ported = (weights[name] for weights in models)
        torch.testing.assert_close(ported, new + (trained - old), rtol=0, atol=1e-6)
    assert (folder / "tokenizer.json").exists()


@torch.no_grad()
def test_of_wegeft_the_lora_for_the_old_base_is_ported(bases: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = bases
    model = adapted(old)
    model.save_pretrained(tmp_path / "a")
    folder = port(bases, tmp_path / "a", tmp_path / "out")
    plain, merged = load(old).state_dict(), model.merge_and_unload().state_dict()
    expected = load(new)
    for name, parameter in expected.named_parameters():
        parameter += merged[name] - plain[name]
    found = PeftModel.from_pretrained(load(new), folder).eval()
    torch.testing.assert_close(logits(found), logits(expected), rtol=1e-3, atol=1e-3)


def test_a_whole_pool_is_ported_under_its_names(bases: tuple[Path, Path], tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "b")):
        save_adapter(bases[0], tmp_path / "pool" / name, seed=seed)
    folders = port_pool(tmp_path / "pool", tmp_path / "out", old=str(bases[0]), new=str(bases[1]))
    assert [folder.name for folder in folders] == ["a", "b"]
    with pytest.raises(UserError, match="is not empty; choose a new folder"):
        port_pool(tmp_path / "pool", tmp_path / "out", old=str(bases[0]), new=str(bases[1]))


def test_another_vocabulary_is_refused_by_the_name_of_a_token(bases: tuple[Path, Path], tmp_path: Path) -> None:
    source, (old, new) = save_adapter(bases[0], tmp_path / "a", seed=1), bases
    path = new / "tokenizer.json"
    data = json.loads(path.read_text())
    ids = data["model"]["vocab"]
    ids["a"], ids["b"] = ids["b"], ids["a"]
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match=r"new: has another vocabulary than .*old \(token 'a' and 1 more\)"):
        port_pool(source, tmp_path / "out", old=str(old), new=str(new))


def test_added_tokens_are_no_other_vocabulary(bases: tuple[Path, Path], tmp_path: Path) -> None:
    source, (old, new) = save_adapter(bases[0], tmp_path / "a", seed=1), bases
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["<tool>"])
    tokenizer.save_pretrained(new)
    assert port_pool(source, tmp_path / "out", old=str(old), new=str(new))


def test_other_shapes_are_refused_by_the_name_of_a_tensor(bases: tuple[Path, Path], tmp_path: Path) -> None:
    expert = save_llama(tmp_path / "expert", seed=3)
    wide = save_llama(tmp_path / "wide", seed=4, intermediate_size=128)
    with pytest.raises(UserError, match=r"down_proj.weight: .*wide has 8192 values, .*expert has 6144"):
        port_expert(expert, tmp_path / "out", old=str(bases[0]), new=str(wide))
    assert not (tmp_path / "out").exists()
