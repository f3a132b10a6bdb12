"""Small real tokenizers of the kinds that users have, trained on a few lines and loaded from their files."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoTokenizer,
    GPTSw3Tokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

TEXT = ["What is 2 + 3? The answer is 5.", "user assistant system 78 44\nQ: A: model hello world"] * 3
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
ALTERNATE = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    + ALTERNATE
    + "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}"
    "<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}" + ALTERNATE + "{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %}{{ m['content'] }}</s>{% endif %}{% endfor %}"
)


def bytes_bpe(special: list[str], *, bos: str | None = None, **names: Any) -> PreTrainedTokenizerFast:
    """Byte-level BPE (GPT-2, Qwen, Llama 3); with `bos`, its post-processor adds it, as Llama 3's does."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    core.train_from_iterator(TEXT, trainer)
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    post = processors.ByteLevel(trim_offsets=False)
    if bos is not None:
        adds = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))])
        post = processors.Sequence([post, adds])
        names["bos_token"] = bos
    core.post_processor = post
    return PreTrainedTokenizerFast(tokenizer_object=core, **{"clean_up_tokenization_spaces": False} | names)


def pieces(**names: Any) -> LlamaTokenizer:
    """BPE over pieces with a space mark, as Llama 2, Mistral and Gemma have; special tokens `<unk>`, `<s>`, `</s>`."""
    core = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    first = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    core.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=400, special_tokens=first, show_progress=False))
    trained = json.loads(core.to_str())["model"]
    merges = [tuple(merge) for merge in trained["merges"]]
    return LlamaTokenizer(vocab=trained["vocab"], merges=merges, **{"add_bos_token": True} | names)


def sentence_pieces(folder: Path) -> PreTrainedTokenizerBase:
    """A tokenizer that runs the sentencepiece library, with a template that adds BOS and EOS itself."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT * 3),
        model_writer=model,
        vocab_size=330,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    folder.mkdir(exist_ok=True)
    (folder / "spiece.model").write_bytes(model.getvalue())
    return GPTSw3Tokenizer(str(folder / "spiece.model"), name_or_path="AI-Sweden-Models/gpt-sw3-126m")


def gemma(**names: Any) -> PreTrainedTokenizerBase:
    """`<bos>` added, no system role."""
    turns = ["<start_of_turn>", "<end_of_turn>"]
    return pieces(bos_token="<bos>", eos_token="<eos>", extra_special_tokens=turns, chat_template=GEMMA, **names)


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    "llama 3": lambda: bytes_bpe(
        ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"],
        bos="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        clean_up_tokenization_spaces=True,
        chat_template=LLAMA3,
    ),
    "qwen": lambda: bytes_bpe(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHATML,
    ),
    "gpt-2": lambda: bytes_bpe(["<|endoftext|>"], bos_token="<|endoftext|>", eos_token="<|endoftext|>"),
    "llama 2": pieces,
    "llama 2 with end token": lambda: pieces(add_eos_token=True),
    "mistral with end token alone": lambda: pieces(add_bos_token=False, add_eos_token=True, chat_template=MISTRAL),
    "gemma": gemma,
    "gemma with end token": lambda: gemma(add_eos_token=True, pad_token="<unk>"),
}
"""Each made anew."""


def from_disk(tokenizer: PreTrainedTokenizerBase, folder: Path) -> PreTrainedTokenizerBase:
    """Saved and loaded again."""
    tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)
