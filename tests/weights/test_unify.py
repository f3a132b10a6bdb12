"""Experts whose files differ although they can be mixed exactly: heads, vocabularies, data types."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from foreign_adapters import FILE, exported, logits
from safetensors.torch import load_file, save_file
from tiny_models import CHARACTERS, SPECIAL, load, make_tokenizer, save_adapter, save_llama

from evoswarm.errors import UserError
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.pool import open_pool

TOKENS = len(SPECIAL) + len(CHARACTERS)
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def change(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def resize(folder: Path, tokens: int) -> None:
    """Pads a checkpoint as trainers do."""
    model = load(folder)
    model.resize_token_embeddings(tokens)
    model.save_pretrained(folder)


def checkpoints(folder: Path, *, tied: bool) -> tuple[Path, Path]:
    """A base model, and a pool of two experts of it."""
    for seed, name in enumerate("ab"):
        save_llama(folder / "pool" / name, seed=seed + 1, tied=tied)
    return save_llama(folder / "model", tied=tied), folder / "pool"


def run(folder: Path) -> torch.Tensor:
    """The logits of a checkpoint over the tokens of the tokenizer."""
    with torch.no_grad():
        return load(folder, dtype=torch.float32)(torch.arange(5, 25)[None]).logits[..., :TOKENS]


def refusal(pool: Path, base: Path) -> str:
    with pytest.raises(UserError) as caught:
        open_pool(PoolConfig(experts=pool), model=str(base))
    return str(caught.value)


def test_a_head_that_repeats_the_tied_embedding_is_left_out(tmp_path: Path) -> None:
    base, pool = checkpoints(tmp_path, tied=True)
    change(pool / "b", lambda t: t.update({HEAD: t[EMBEDDING].clone()}))
    for name in "ab":
        best = exported(pool, base, name, tmp_path / f"best-{name}")
        assert torch.equal(run(best), run(pool / name)) and HEAD not in load_file(best / "model.safetensors")


def test_a_head_of_its_own_does_not_fit_a_model_that_ties_it(tmp_path: Path) -> None:
    base, pool = checkpoints(tmp_path, tied=True)
    change(pool / "b", lambda t: t.update({HEAD: t[EMBEDDING] + 1}))
    assert "b: its head differs from its embedding, and the model has one tensor for both" in refusal(pool, base)


def test_a_tied_expert_of_an_untied_model_gets_its_embedding_as_its_head(tmp_path: Path) -> None:
    base, pool = checkpoints(tmp_path, tied=False)
    (tied,) = (save_llama(pool / "c", seed=9, tied=True),)
    best = exported(pool, base, "c", tmp_path / "best")
    assert torch.equal(run(best), run(tied))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("padded", ["a", "b", "ab", "model"])
def test_padded_vocabularies_are_those_of_the_model(tmp_path: Path, padded: str, tied: bool) -> None:
    base, pool = checkpoints(tmp_path, tied=tied)
    for folder in [base] if padded == "model" else [pool / name for name in padded]:
        resize(folder, 128)
    opened = open_pool(PoolConfig(experts=pool), model=str(base))
    want = 128 if padded == "model" else TOKENS
    assert {spec.shape[0] for spec in opened.layout if spec.name in (EMBEDDING, HEAD)} == {want}
    for name in "ab":
        best = exported(pool, base, name, tmp_path / f"best-{name}")
        assert json.loads((best / "config.json").read_text())["vocab_size"] == want
        assert torch.equal(run(best), run(pool / name))
    assert any("its vocabulary of" in line for line in opened.warnings)


def test_a_vocabulary_with_tokens_that_the_model_does_not_have_is_refused(tmp_path: Path) -> None:
    base, pool = checkpoints(tmp_path, tied=False)
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.save_pretrained(pool / "b")
    resize(pool / "b", 128)
    text = refusal(pool, base)
    assert "b: its tokenizer has the token '<|im_start|>' and 1 more, for which the base model has no row" in text


def test_adapters_with_a_padded_embedding_fit_the_model(tmp_path: Path, tiny_llama: Path) -> None:
    padded = save_llama(tmp_path / "padded")
    resize(padded, 128)
    for seed, name in enumerate("ab"):
        whole = {"modules_to_save": ["embed_tokens", "lm_head"], "target_modules": ["q_proj"]}
        save_adapter(padded, tmp_path / "pool" / name, seed=seed, **whole)
    best = exported(tmp_path / "pool", tiny_llama, "b", tmp_path / "best")
    want = logits(padded, tmp_path / "pool" / "b")[..., :TOKENS]
    assert torch.allclose(logits(tiny_llama, best), want, atol=1e-6, rtol=0)


def test_adapted_embeddings_and_heads_of_a_padded_vocabulary_fit_the_model(tmp_path: Path, tiny_llama: Path) -> None:
    padded = save_llama(tmp_path / "padded")
    resize(padded, 128)
    for seed, name in enumerate("ab"):
        save_adapter(padded, tmp_path / "pool" / name, seed=seed, target_modules=["embed_tokens", "lm_head"])
    best = exported(tmp_path / "pool", tiny_llama, "b", tmp_path / "best")
    assert load_file(best / FILE)["base_model.model.lm_head.lora_B.weight"].shape == (TOKENS, 4)
    want = logits(padded, tmp_path / "pool" / "b")[..., :TOKENS]
    assert torch.allclose(logits(tiny_llama, best), want, atol=1e-6, rtol=0)


@pytest.mark.parametrize("other", [torch.bfloat16, torch.float16])
def test_checkpoints_of_different_data_types_keep_every_bit(tmp_path: Path, other: torch.dtype) -> None:
    base, pool = checkpoints(tmp_path, tied=False)
    load(pool / "a").to(other).save_pretrained(pool / "a")
    for name in "ab":
        best = exported(pool, base, name, tmp_path / f"best-{name}")
        with torch.no_grad():
            loaded = load(best)
            assert loaded.dtype == torch.float32
            assert torch.equal(loaded(torch.arange(5, 25)[None]).logits, run(pool / name))


@pytest.mark.parametrize("space", ["factors", "product"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("lora", [{"lora_alpha": 3}, {"use_rslora": True}, {"alpha_pattern": {"v_proj": 11}}])
def test_scales_and_data_types_of_adapters_are_converted_exactly(
    tmp_path: Path, tiny_llama: Path, space: str, dtype: torch.dtype, lora: dict[str, object]
) -> None:
    save_adapter(tiny_llama, tmp_path / "pool" / "a", seed=0, dtype=torch.bfloat16)
    save_adapter(tiny_llama, tmp_path / "pool" / "b", seed=1, dtype=dtype, **lora)
    best = exported(tmp_path / "pool", tiny_llama, "b", tmp_path / "best", space=space)
    want = logits(tiny_llama, tmp_path / "pool" / "b")
    assert torch.allclose(logits(tiny_llama, best), want, atol=1e-5, rtol=0)
