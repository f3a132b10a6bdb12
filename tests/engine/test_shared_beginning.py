"""Few-shot prompts: the beginning that they share is computed once for a particle, and changes no answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evoswarm.engine import TransformersEngine
from evoswarm.engine.transformers import HfEngine
from evoswarm.weights.expert import open_expert

SHOTS = "Question: 1 + 1?\nAnswer: 2\n\nQuestion: 2 + 2?\nAnswer: 4\n\n"
PROMPTS = [f"{SHOTS}Question: {text}\nAnswer:" for text in ("3 + 4?", "12 + 5?", "x", "9 - 9?")]
DRAFTS = [" 7", " 17", " no", " 0"]
OPTIONS = [[" one", " two two"], [" 17", " 4", " x"], [" a", " bc"], [" 0", " 1"]]
LETTERS = [["A", "B", "C"]] * 4


def everything(engine: HfEngine, prompts: list[str], of: slice) -> tuple[list[list[Any]], list[list[float]]]:
    """Texts, which must be equal, and scores, which must be close, for each prompt of a slice."""
    asked = prompts[of]
    texts = [engine.generate(asked, max_new_tokens=8), engine.verify(asked, DRAFTS[of], max_new_tokens=8)]
    scores = [engine.loglikelihood(asked, options[of]) for options in (OPTIONS, LETTERS)]
    return _by_prompt(texts), [[s.logprob for row in rows for s in row] for rows in _by_prompt(scores)]


def _by_prompt(answers: list[Any]) -> list[list[Any]]:
    return [list(row) for row in zip(*answers, strict=True)]


def widths(engine: HfEngine) -> list[tuple[int, ...]]:
    """Shapes of the inputs of every forward pass from now on."""
    shapes: list[tuple[int, ...]] = []
    engine.model.register_forward_pre_hook(
        lambda _, __, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    return shapes


@pytest.mark.parametrize(("model", "skipped"), [("tiny_llama", 0), ("tiny_gpt2", len(SHOTS) // 2)])
def test_answers_and_scores_are_those_of_whole_prompts(
    request: pytest.FixtureRequest, model: str, skipped: int
) -> None:
    engine = HfEngine(TransformersEngine(device="cpu"), model=str(request.getfixturevalue(model)), adapter=None)
    prompts = [prompt[skipped:] for prompt in PROMPTS]
    alone = [everything(engine, prompts, slice(i, i + 1)) for i in range(len(prompts))]  # one prompt shares nothing
    assert len({str(texts) for texts, _ in alone}) > 1
    shapes = widths(engine)
    for i, (texts, scores) in enumerate(zip(*everything(engine, prompts, slice(None)), strict=True)):
        assert [texts] == alone[i][0]
        assert scores == pytest.approx(alone[i][1][0], abs=1e-4)
    beginning = len(engine._encoder.prompt((SHOTS + "Question: ")[skipped:]))
    assert max(width for rows, width in shapes if rows > 1) < beginning


def test_the_beginning_is_computed_once_for_a_particle_and_anew_for_the_next(tiny_llama: Path, adapters: Path) -> None:
    experts = [open_expert(adapters / name) for name in "ab"]
    engine = HfEngine(TransformersEngine(device="cpu"), model=str(tiny_llama), adapter=experts[0].config)
    alone = HfEngine(TransformersEngine(device="cpu"), model=str(tiny_llama), adapter=experts[0].config)
    shapes = widths(engine)
    for expert in (*experts, experts[0]):
        weights = {name: expert.flat(name).reshape(spec.shape) for name, spec in expert.specs.items()}
        engine.install(weights)
        alone.install(weights)
        shapes.clear()
        expected = [alone.generate([prompt], max_new_tokens=6)[0] for prompt in PROMPTS]
        assert engine.generate(PROMPTS[:2], max_new_tokens=6) == expected[:2]
        assert engine.generate(PROMPTS[2:], max_new_tokens=6) == expected[2:]
        beginnings = [shape for shape in shapes if shape[0] == 1]
        assert beginnings == [(1, len(engine._encoder.prompt(SHOTS + "Question: ")))]
