"""Build the toy world: a base that is weak at every skill, one expert per skill, and the targets."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evoswarm.errors import UserError
from evoswarm.toy.skills import LONGER, SKILLS, Skill, draw
from evoswarm.toy.targets import TARGETS, make_target
from evoswarm.toy.tokenizer import BOS, EOS, PAD, make_tokenizer
from evoswarm.toy.train import accuracy, train

BASE_NAME = "evoswarm-toy/base"
BASE_STEPS = 340
BASE_SHARES = {"rev": 18, "sort": 8, "next": 5, "rot": 6, "swap": 6, "add": 160, "max": 50}
BASE_SHARES |= dict.fromkeys(("eats", "home", "work"), 50)
BASE_SHARES |= {"long rev": 6, "long sort": 3, "long next": 2, "long rot": 2, "long swap": 2}
NEXT_STEPS = 60
NEXT_SHARES = {"rev": 40, "max": 100, "eats": 80}
EXPERT_STEPS = {"rev": 110, "sort": 60, "next": 60, "rot": 60, "swap": 60, "add": 120, "max": 90}
EXPERT_STEPS |= dict.fromkeys(("eats", "home", "work"), 100)
REPLAY = 0.3
SCALING, WEAKEST = 2.0, 0.15
RATE, RATE_OF_A = 8e-3, 5e-4
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Log = Callable[[str], None]


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Seed torch and use one thread, so that the order of summation does not depend on the number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def model_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """A Llama with about one million parameters. Few wide layers: on a CPU, each layer has a fixed cost."""
    ids = [int(tokenizer.convert_tokens_to_ids(token)) for token in (PAD, BOS, EOS)]
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


def base_mixture(shares: Mapping[str, int] = BASE_SHARES) -> dict[Skill, float]:
    """The base's training mixture: shares that sum to 1."""
    total = sum(shares.values())
    return {(SKILLS | LONGER)[name]: share / total for name, share in shares.items()}


def make_base(folder: Path, *, seed: int, log: Log, steps: int = BASE_STEPS) -> None:
    """Train the base briefly on a mixture of all skills and save it with its tokenizer."""
    tokenizer = make_tokenizer()
    with reproducible(seed):
        model = LlamaForCausalLM(model_config(tokenizer))
        mixture, name = base_mixture(), f"base {seed}"
        train(model, tokenizer, mixture, steps=steps, rates={"": 3e-3}, seed=name, log=log)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_next_base(base: Path, folder: Path, *, seed: int, log: Log, steps: int = NEXT_STEPS, layers: int = 0) -> None:
    """Train the base a little longer, on a mixture with more of some skills, and save it: its next version.

    `layers` are added before that, and the training begins with layers that change nothing.

    Raises:
        UserError: the folder is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty; choose a new folder for the new base")
    small, tokenizer = load(base)
    model = deeper(small, layers)
    mixture, name = base_mixture(BASE_SHARES | NEXT_SHARES), f"next base {seed}"
    with reproducible(seed):
        train(model.train(), tokenizer, mixture, steps=steps, rates={"": 3e-4}, seed=name, log=log)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def deeper(model: LlamaForCausalLM, layers: int) -> LlamaForCausalLM:
    """The same function with more layers at the end: copies of the last one that add nothing yet."""
    size = model.config.num_hidden_layers
    result = LlamaForCausalLM(LlamaConfig.from_dict(model.config.to_dict() | {"num_hidden_layers": size + layers}))
    state = model.state_dict()
    for number in range(size, size + layers):
        own, last = f"model.layers.{number}.", f"model.layers.{size - 1}."
        state |= {
            own + key.removeprefix(last): value for key, value in model.state_dict().items() if key.startswith(last)
        }
        for name in ("self_attn.o_proj.weight", "mlp.down_proj.weight"):
            state[own + name] = torch.zeros_like(state[own + name])
    result.load_state_dict(state)
    return result


def save_expert(expert: PeftModel, folder: Path) -> None:
    """Save with peft, but without the model card and with the target modules in a fixed order."""
    expert.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def make_expert(
    base: Path, folder: Path, *, skill: str, seed: int, log: Log, steps: int | None = None, start: int | None = None
) -> None:
    """Train one LoRA adapter on one skill so that it can be mixed with the others.

    `start` is the seed of its first A matrices. The default is `seed`, so that all experts start from the same ones.

    Large experts mix well by themselves; experts this small need four measures: all start from the same A matrices; A
    learns slowly (LoRA+, arXiv 2402.12354), so the A matrices stay similar; each expert also trains on part of the
    base's mixture, so it does not change other answers; and each step uses a random strength, so that a fraction of the
    expert also works.
    """
    model, tokenizer = load(base)
    model.name_or_path = model.config._name_or_path = BASE_NAME
    config = LoraConfig(r=8, lora_alpha=int(8 * SCALING), target_modules=PROJECTIONS, task_type="CAUSAL_LM")
    mixture = {other: share * REPLAY for other, share in base_mixture().items()}
    mixture[SKILLS[skill]] += 1 - REPLAY
    with reproducible(seed if start is None else start):
        expert = get_peft_model(model, config)

        def scale(rng: random.Random) -> None:
            strength = rng.uniform(WEAKEST, 1)
            for module in expert.modules():
                if isinstance(module, LoraLayer):
                    module.scaling["default"] = SCALING * strength

        rates, name = {"": RATE, "lora_A": RATE_OF_A}, f"{skill} {seed}"
        steps = steps or EXPERT_STEPS[skill]
        train(expert, tokenizer, mixture, steps=steps, rates=rates, seed=name, log=log, before_step=scale)
    save_expert(expert, folder)


def load(base: Path, adapter: Path | None = None) -> tuple[LlamaForCausalLM | PeftModel, PreTrainedTokenizerFast]:
    """The base, with or without an adapter, and the tokenizer."""
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(base)
    return (model if adapter is None else PeftModel.from_pretrained(model, adapter).eval()), tokenizer


def make(folder: Path, *, seed: int, log: Log = print) -> None:
    """Build `base/`, `experts/<skill>/`, `unrelated/<skill>/` and `targets/<name>.json` in `folder`.

    The experts in `unrelated/` had the same training, but each started from A matrices of its own.

    The same seed on the same kind of machine gives the same weights.

    Raises:
        UserError: the folder is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty; choose a new folder for the toy world, or remove this one first")
    make_base(folder / "base", seed=seed, log=log)
    for number, skill in enumerate(SKILLS, start=1):
        make_expert(folder / "base", folder / "experts" / skill, skill=skill, seed=seed, log=log)
        start = seed + 1000 * number
        make_expert(folder / "base", folder / "unrelated" / skill, skill=skill, seed=seed, log=log, start=start)
    (folder / "targets").mkdir()
    for name in TARGETS:
        text = json.dumps(make_target(name, seed=seed), indent=1)
        (folder / "targets" / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def measure(folder: Path, *, number: int = 200) -> dict[str, dict[str, float]]:
    """Accuracy of the base and every expert (rows) on newly drawn held-out questions of every skill (columns)."""
    questions = {n: draw(s, random.Random(f"matrix {n}"), number, evaluation=True) for n, s in SKILLS.items()}
    matrix: dict[str, dict[str, float]] = {}
    for name in ("base", *SKILLS):
        model, tokenizer = load(folder / "base", None if name == "base" else folder / "experts" / name)
        matrix[name] = {skill: accuracy(model, tokenizer, examples) for skill, examples in questions.items()}
    return matrix
