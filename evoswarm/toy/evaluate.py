"""A small batched evaluator to build and describe the toy world. Runs use evoswarm's engines instead."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from evoswarm.toy.skills import Example
from evoswarm.toy.tokenizer import prompt_text

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
