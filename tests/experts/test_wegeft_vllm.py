"""WeGeFT on the real vLLM: exported to LoRA, and as a particle of phi and psi."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from evoswarm.config.load import parse_config
from evoswarm.engine import VllmEngine as VllmConfig
from evoswarm.engine.base import Engine
from evoswarm.experts.export import export
from evoswarm.experts.wegeft import WeGeFTConfig
from evoswarm.loop.evaluate import measure
from evoswarm.toy import world
from evoswarm.toy.config import target_config
from evoswarm.utility import Chat
from evoswarm.weights.expert import open_expert

pytest.importorskip("vllm", reason="installed by the Makefile on Linux x86-64")

BASE = world() / "base"
ARGS = {"max_model_len": 64, "enforce_eager": True}
PROMPTS = [Chat((("user", question),)) for question in ("rev abcd", "sort dbac", "next dbaj", "add 12 34", "swap abcd")]
Logits = list[list[float]]


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WeGeFT adapter that changes the toy base's outputs."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(BASE)
    model = get_peft_model(base, WeGeFTConfig(r=8, wegeft_alpha=16, init_weights=False, task_type="CAUSAL_LM"))
    folder = tmp_path_factory.mktemp("wegeft") / "native"
    model.save_pretrained(folder)
    return folder


def weights(folder: Path) -> dict[str, np.ndarray]:
    opened = open_expert(folder)
    return {name: opened.flat(name).reshape(spec.shape) for name, spec in opened.specs.items()}


def said(engine: Engine) -> Any:
    options = [["abcd", "dcba", "46"]] * len(PROMPTS)
    return [[score.logprob for score in row] for row in engine.loglikelihood(PROMPTS, options)]


@torch.no_grad()
def said_by_peft(folder: Path) -> Any:
    from evoswarm.toy.make import load

    base, tokenizer = load(BASE)
    model = PeftModel.from_pretrained(base, folder).eval()
    rows = []
    for chat in PROMPTS:
        ((_, question),) = chat.messages
        start = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        row = []
        for option in ("abcd", "dcba", "46"):
            prompt, answer = (tokenizer(text, add_special_tokens=False).input_ids for text in (start, option))
            scores = model(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
            row.append(sum(float(scores[len(prompt) - 1 + i, token]) for i, token in enumerate(answer)))
        rows.append(row)
    return rows


@pytest.mark.parametrize("mode", ["merged", pytest.param("multi_lora", marks=pytest.mark.slow)])
def test_vllm_with_the_export_agrees_with_peft_and_the_original(native: Path, tmp_path: Path, mode: str) -> None:
    export(native, tmp_path / "lora", model=str(BASE))
    config = VllmConfig(adapter_mode=mode, args=ARGS)  # type: ignore[arg-type]
    engine = config.start(model=str(BASE), adapter=open_expert(tmp_path / "lora").config)
    engine.install(None)
    base = np.array(said(engine))
    engine.install(weights(tmp_path / "lora"))
    expected = np.array(said_by_peft(native))
    assert np.abs(np.array(said(engine)) - expected).max() < 1e-3
    assert np.abs(base - expected).max() > 0.5


@pytest.mark.slow
def test_a_particle_of_phi_and_psi_gives_the_predictions_of_its_lora(native: Path, tmp_path: Path) -> None:
    export(native, tmp_path / "lora", model=str(BASE))
    found = {}
    for engine in ("transformers", "vllm"):
        data = target_config("letters", algorithm="model_swarms")
        data["utility"]["data"] = {"path": data["utility"]["data"], "limit": 50}
        data["engine"] |= {"type": engine} | ({"args": ARGS} if engine == "vllm" else {})
        config = parse_config(data | {"output": str(tmp_path)}, root=tmp_path)
        for name, folder in {"native": native, "lora": tmp_path / "lora"}.items():
            evaluation = measure(config, adapter=folder, recipe=None, split="validation")
            assert evaluation.error is None
            found[engine, name] = evaluation.predictions
    assert found["vllm", "native"] == found["vllm", "lora"] == found["transformers", "native"]
    assert len(set(found["vllm", "native"])) > 5
