"""Supervised training of the toy base and its experts: next-token loss on the answer and the end token only."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from evoswarm.toy.skills import Example, Skill, draw
from evoswarm.toy.tokenizer import EOS, prompt_text

BATCH = 128
IGNORE = -100


def encode(tokenizer: PreTrainedTokenizerFast, examples: list[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels, both int64 [B, T], right-padded; labels are `IGNORE` outside the answer."""
    prompts = tokenizer([prompt_text(e.question) for e in examples]).input_ids
    answers = tokenizer([e.answer + EOS for e in examples]).input_ids
    width = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    ids = torch.full((len(examples), width), int(tokenizer.pad_token_id))
    labels = torch.full_like(ids, IGNORE)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor(prompt + answer)
        labels[row, len(prompt) : end] = torch.tensor(answer)
    return ids, labels


def learning_rate(step: int, steps: int, peak: float, warm_up: float = 0.1) -> float:
    """Linear warm-up over the first `warm_up` of the steps, then cosine decay to a tenth of the peak."""
    warm = max(1, int(warm_up * steps))
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (0.55 + 0.45 * math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def parameter_groups(model: torch.nn.Module, rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """One optimizer group per rate. A parameter belongs to the last key that occurs in its name."""
    groups: dict[str, list[torch.nn.Parameter]] = {key: [] for key in rates}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[[key for key in rates if key in name][-1]].append(parameter)
    return [{"params": parameters, "peak": rates[key]} for key, parameters in groups.items()]


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    mixture: Mapping[Skill, float],
    *,
    steps: int,
    rates: Mapping[str, float],
    seed: str,
    log: Callable[[str], None],
    before_step: Callable[[random.Random], None] = lambda rng: None,
) -> None:
    """Train the parameters that require gradients, in place, on questions drawn from `mixture` (skill to share).

    `rates` are peak learning rates; see `parameter_groups`.
    """
    rng = random.Random(seed)
    groups = parameter_groups(model, rates)
    parameters = [p for group in groups for p in group["params"]]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0)
    model.train()
    for step in range(steps):
        before_step(rng)
        skills = rng.choices(list(mixture), weights=list(mixture.values()), k=BATCH)
        ids, labels = encode(tokenizer, [draw(skill, rng, 1, evaluation=False)[0] for skill in skills])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, group["peak"])
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 50 == 0 or step + 1 == steps:
            log(f"{seed}: step {step + 1}/{steps}, loss {loss.item():.3f}")
    model.eval()


MAX_NEW_TOKENS = 8


@torch.inference_mode()
def answer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, questions: list[str], *, batch_size: int = 256
) -> list[str]:
    """Greedy answers, in the same order as the questions."""
    answers: list[str] = []
    for start in range(0, len(questions), batch_size):
        prompts = [prompt_text(question) for question in questions[start : start + batch_size]]
        batch = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
        output = model.generate(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        answers += tokenizer.batch_decode(output[:, batch.input_ids.shape[1] :], skip_special_tokens=True)
    return answers


def accuracy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, examples: list[Example]) -> float:
    """Fraction of the examples that the model answers exactly."""
    answers = answer(model, tokenizer, [example.question for example in examples])
    return sum(a == e.answer for a, e in zip(answers, examples, strict=True)) / len(examples)
