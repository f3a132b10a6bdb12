"""Creates tiny models, tokenizers and adapters with seeded random weights."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, processors
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<end>")
PAD, BOS, EOS, UNK, END = range(5)
CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
TARGETS = ["q_proj", "v_proj", "down_proj"]


def make_tokenizer(**changes: Any) -> PreTrainedTokenizerFast:
    """One token per character; adds BOS before plain text."""
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *CHARACTERS])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    core.decoder = decoders.Fuse()
    core.add_special_tokens(list(SPECIAL))
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"} | changes
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, clean_up_tokenization_spaces=False, **names)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def save_llama(
    folder: Path, *, seed: int = 0, tied: bool = False, shard: str = "1GB", spread: float = 0.3, **settings: Any
) -> Path:
    """Write a random Llama and its tokenizer. `spread` is the standard deviation of the weights."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "max_position_embeddings": 256}
    config = LlamaConfig(
        vocab_size=len(SPECIAL) + len(CHARACTERS),
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=spread,
        tie_word_embeddings=tied,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=[EOS, END],
        **sizes | settings,
    )
    return _save(LlamaForCausalLM(config), folder, shard)


def save_gpt2(folder: Path, *, seed: int = 0) -> Path:
    """Write a random GPT-2 and its tokenizer."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=len(SPECIAL) + len(CHARACTERS),
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=64,
        initializer_range=0.3,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    return _save(GPT2LMHeadModel(config), folder, "1GB")


def _save(model: PreTrainedModel, folder: Path, shard: str) -> Path:
    model.save_pretrained(folder, max_shard_size=shard)
    make_tokenizer().save_pretrained(folder)
    return folder


def load(folder: Path, **settings: Any) -> PreTrainedModel:
    """Load a model with transformers."""
    return AutoModelForCausalLM.from_pretrained(folder, **settings).eval()


def save_adapter(
    base: Path, folder: Path, *, seed: int = 0, dtype: torch.dtype = torch.float32, **lora: Any
) -> PeftModel:
    """Write a LoRA adapter with random A, B and other trained tensors; returns the adapted model.

    Args:
        base: the base model.
        folder: the adapter's folder.
        seed: seed for all trained tensors.
        dtype: the adapter's dtype.
        lora: settings of LoraConfig.
    """
    settings = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS, "task_type": "CAUSAL_LM"} | lora
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(load(base), LoraConfig(**settings))
        generator = torch.Generator().manual_seed(seed + 1000)
        for _, tensor in sorted(model.named_parameters()):
            if tensor.requires_grad:
                tensor.data.copy_(torch.randn(tensor.shape, generator=generator).mul_(0.1))  # in place: some are tied
                if dtype != torch.float32:
                    tensor.data = tensor.data.to(dtype)
        model.save_pretrained(folder)
        model.to(torch.float32)
    return model.eval()
