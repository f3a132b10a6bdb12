"""Making the toy world: a base, an expert per skill, the targets."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evoswarm.toy.evaluate import accuracy
from evoswarm.toy.skills import COMPOSITIONS, SKILLS, draw
from evoswarm.toy.targets import TARGETS, make_target
from evoswarm.toy.tokenizer import BOS, EOS, PAD, make_tokenizer
from evoswarm.toy.train import train

BASE_NAME = "evoswarm/toy-base"
BASE_SHARES = {
    "rev": 0.35, "sort": 0.12, "next": 0.3, "rot": 0.35, "add": 2.5, "max": 0.8, "cnt": 0.8,
    "eats": 0.6, "home": 0.6, "work": 0.6,
}  # fmt: skip
BASE_STEPS = 300
COMPOSITION_SHARE = 0.05
EXPERT_STEPS = {"rev": 60, "sort": 60, "next": 60, "rot": 60, "add": 160, "max": 80, "cnt": 60, "eats": 50, "home": 50, "work": 50}
EXPERT_LR = 5e-3
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Log = Callable[[str], None]


def model_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """A Llama of about one million parameters: few, wide layers, because on a CPU each layer costs a fixed time."""
    ids = tokenizer.convert_tokens_to_ids([PAD, BOS, EOS])
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=160,
        intermediate_size=448,
        num_hidden_layers=3,
        num_attention_heads=5,
        num_key_value_heads=5,
        head_dim=32,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        initializer_range=0.05,
        pad_token_id=ids[0],
        bos_token_id=ids[1],
        eos_token_id=ids[2],
    )


def build_base(folder: Path, *, seed: int, log: Log) -> None:
    """Train the base on a mixture of everything, briefly, and save it with its tokenizer."""
    tokenizer = make_tokenizer()
    torch.manual_seed(seed)
    model = LlamaForCausalLM(model_config(tokenizer))
    mixture = {SKILLS[name]: share for name, share in BASE_SHARES.items()}
    mixture |= dict.fromkeys(COMPOSITIONS.values(), COMPOSITION_SHARE)
    train(model, tokenizer, mixture, steps=BASE_STEPS, batch_size=192, peak=3e-3, seed=f"base {seed}", log=log)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def build_expert(base: Path, folder: Path, *, skill: str, seed: int, log: Log) -> None:
    """Train one LoRA adapter on one skill. All experts start from the same A matrices, so they can be mixed."""
    model, tokenizer = load(base)
    torch.manual_seed(seed)
    config = LoraConfig(r=8, lora_alpha=16, target_modules=PROJECTIONS, task_type="CAUSAL_LM")
    model.name_or_path = BASE_NAME
    expert = get_peft_model(model, config)
    train(
        expert, tokenizer, {SKILLS[skill]: 1.0}, steps=EXPERT_STEPS[skill], batch_size=128, peak=EXPERT_LR,
        seed=f"{skill} {seed}", log=log,
    )  # fmt: skip
    expert.peft_config["default"].base_model_name_or_path = BASE_NAME
    expert.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)


def load(base: Path, adapter: Path | None = None):
    """The base, or the base with one adapter, and the tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    return (model if adapter is None else PeftModel.from_pretrained(model, adapter).eval()), tokenizer


def build(folder: Path, *, seed: int = 0, log: Log = print) -> None:
    """Make the whole toy world in `folder`: `base/`, `experts/<skill>/`, `targets/<name>.json`."""
    build_base(folder / "base", seed=seed, log=log)
    for skill in SKILLS:
        build_expert(folder / "base", folder / "experts" / skill, skill=skill, seed=seed, log=log)
    (folder / "targets").mkdir(parents=True, exist_ok=True)
    for name in TARGETS:
        text = json.dumps(make_target(name, seed=seed), indent=1)
        (folder / "targets" / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def skill_matrix(folder: Path, *, examples: int = 200) -> dict[str, dict[str, float]]:
    """Accuracy of the base and of every expert (rows) on fresh held-out questions of every skill (columns)."""
    questions = {n: draw(s, random.Random(f"matrix {n}"), examples, evaluation=True) for n, s in SKILLS.items()}
    matrix: dict[str, dict[str, float]] = {}
    for name in ("base", *SKILLS):
        model, tokenizer = load(folder / "base", None if name == "base" else folder / "experts" / name)
        matrix[name] = {skill: accuracy(model, tokenizer, asked) for skill, asked in questions.items()}
    return matrix
