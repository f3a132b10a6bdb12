"""Arrow as a row of a comparison."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tiny_models import save_adapter, save_llama

from evoswarm.compare.arrow import routing_problem
from evoswarm.compare.run import compare
from evoswarm.config.compare import CompareConfig, parse_compare
from evoswarm.engine import TransformersEngine
from evoswarm.engine.arrow import ArrowEngine
from evoswarm.errors import UserError
from evoswarm.utility import Split, make_utility
from evoswarm.weights.expert import Expert, open_expert
from evoswarm.weights.pool import open_pool


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("base") / "base")


def config_of(base: Path, folder: Path, **engine: str) -> CompareConfig:
    questions = [
        {"question": f"say {word}", "answer": "abcd"[n % 4]}
        for n, word in enumerate("abcdefghijklmnopqrstuvwxyz0123456789")
    ]
    options = [{**line, "choices": list("abcd")} for line in questions]
    (folder / "d.json").write_text(json.dumps({"dev": options[:20], "test": options[20:36]}))
    data = {
        "name": "cmp",
        "model": str(base),
        "pool": "experts",
        "utility": {"type": "multiple_choice", "options": "texts", "data": "d.json"},
        "engine": {"type": "transformers", **engine},
        "backend": {"type": "local"},
        "compare": {"methods": ["arrow"], "seeds": [0], "budget": 4},
    }
    return parse_compare(data, root=folder)


def experts_in(base: Path, folder: Path, *settings: dict[str, object]) -> list[Expert]:
    for number, lora in enumerate(settings):
        save_adapter(base, folder / "experts" / f"e{number}", seed=number, **lora)
    return [open_expert(path) for path in sorted((folder / "experts").iterdir())]


def test_the_row_is_the_best_number_of_experts_and_each_try_is_charged(base: Path, tmp_path: Path) -> None:
    experts_in(base, tmp_path, {}, {"lora_alpha": 40}, {"lora_alpha": 80})
    config = config_of(base, tmp_path)
    (line,) = compare(config)["targets"]["target"]["lines"]
    experts = open_pool(config.first.pool, model=str(base)).experts
    engine = ArrowEngine(TransformersEngine(), model=str(base), experts=experts)
    answers = {"validation": "abcd" * 5, "test": "abcd" * 4}
    found = {}
    for top_k in (1, 2, 3):
        engine.route(top_k)
        found |= {(split, top_k): right(engine, config, split, wanted) for split, wanted in answers.items()}
    best = max((1, 2, 3), key=lambda top_k: found["validation", top_k])
    assert line["evaluations"] == 3 and line["validation"] == pytest.approx(found["validation", best])
    assert line["utility"]["mean"] == pytest.approx(found["test", best])


def right(engine: ArrowEngine, config: CompareConfig, split: Split, answers: str) -> float:
    """The share of examples whose answer is the most likely option."""
    requests = make_utility(config.first.utility, root=config.first.root).requests(split)
    lines = engine.loglikelihood([r.prompt for r in requests], [r.options for r in requests])
    chosen = ["abcd"[max(range(4), key=lambda k: line[k].logprob)] for line in lines]
    return sum(one == other for one, other in zip(chosen, answers, strict=True)) / len(answers)


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        ({"r": 8}, r"needs experts of one rank, and .*lora_A.weight is \[4, 96\] in e0 and \[8, 96\] in e1"),
        ({"target_modules": ["q_proj"]}, "needs experts of the same modules, and e0 and e1 differ in .*down_proj"),
        ({"modules_to_save": ["lm_head"]}, "linear layers alone, and e1 has lm_head.weight as a whole"),
        ({"target_modules": ["embed_tokens"]}, "and e1 adapts the embedding model.embed_tokens"),
    ],
)
def test_experts_of_other_forms_are_refused_by_name(base: Path, tmp_path: Path, second: dict, reason: str) -> None:
    experts = experts_in(base, tmp_path, {}, second)
    assert routing_problem(experts[:1]) is None
    assert re.search(reason, str(routing_problem(experts)))


def test_alphas_may_differ_and_checkpoints_are_refused(base: Path, tmp_path: Path) -> None:
    assert routing_problem(experts_in(base, tmp_path, {}, {"lora_alpha": 1})) is None
    assert routing_problem([open_expert(base)]) == (
        "routes tokens to LoRA adapters of linear layers alone, and base is a checkpoint"
    )


def test_what_cannot_route_is_refused_before_anything_runs(base: Path, tmp_path: Path) -> None:
    experts_in(base, tmp_path, {}, {"r": 8})
    with pytest.raises(UserError, match="compare.methods: arrow needs experts of one rank"):
        compare(config_of(base, tmp_path))
    with pytest.raises(UserError, match="arrow routes tokens, which engine.type fake cannot; use transformers"):
        compare(config_of(base, tmp_path, type="fake"))
    assert not (tmp_path / "runs" / "cmp" / "target").exists()
