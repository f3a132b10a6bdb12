"""What a user hears about a model or tokenizer that cannot be loaded, and the settings of an engine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evoswarm.engine import FakeEngine, TransformersEngine
from evoswarm.engine.fake import EchoEngine
from evoswarm.engine.transformers import HfEngine
from evoswarm.errors import UserError


@pytest.fixture
def model(tiny_llama: Path, tmp_path: Path) -> Path:
    """A private copy of the model that a test may damage."""
    return Path(shutil.copytree(tiny_llama, tmp_path / "model"))


def refusal(model: Path | str) -> str:
    with pytest.raises(UserError) as caught:
        HfEngine(TransformersEngine(device="cpu"), model=str(model), adapter=None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_model_folder_is_named(tmp_path: Path) -> None:
    assert f"{tmp_path / 'none'}: no such folder" in refusal(tmp_path / "none")


def test_a_hub_model_that_cannot_be_had_is_named() -> None:
    assert refusal("nobody/nothing").startswith("nobody/nothing: not in the hub's cache")


def test_a_model_folder_without_tokenizer_says_which_files_to_add(model: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model / name).unlink()
    assert "put tokenizer.json and tokenizer_config.json of the base model into its folder" in refusal(model)


def test_a_damaged_tokenizer_file_is_a_user_error(model: Path) -> None:
    (model / "tokenizer.json").write_text('{"version": "1.0", "model": 3}')
    assert "the tokenizer cannot be loaded" in refusal(model)


def test_a_model_with_only_pickled_weights_is_refused_with_the_way_out(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    text = refusal(model)
    assert "its weights are a pickle" in text and "save_pretrained" in text


@pytest.mark.parametrize(
    "settings",
    [
        {"quant_method": "gptq", "bits": 4, "group_size": 32},
        {"quant_method": "awq", "bits": 4},
        {"quant_method": "bitsandbytes", "load_in_8bit": True},
    ],
    ids=lambda settings: settings["quant_method"],
)
def test_a_quantized_base_that_does_not_load_is_named_with_the_way_out(model: Path, settings: dict[str, Any]) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    assert refusal(model).endswith(
        f"it is quantized ({settings['quant_method']}), so set `model` to the unquantized base"
    )


def test_a_truncated_model_file_is_a_user_error(model: Path) -> None:
    data = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(data[: len(data) // 2])
    assert "the base model cannot be loaded" in refusal(model)


def test_a_model_without_config_is_a_user_error(model: Path) -> None:
    (model / "config.json").unlink()
    assert "cannot be loaded" in refusal(model)


def set_tokens(model: Path, **tokens: str | None) -> None:
    path = model / "tokenizer_config.json"
    path.write_text(json.dumps({k: v for k, v in (json.loads(path.read_text()) | tokens).items() if v is not None}))


def test_a_tokenizer_without_pad_or_eos_answers_the_same_in_a_batch_and_alone(model: Path) -> None:
    set_tokens(model, pad_token=None)
    engine = HfEngine(TransformersEngine(device="cpu"), model=str(model), adapter=None)
    assert engine.tokenizer.pad_token_id == engine.tokenizer.eos_token_id
    padded = engine.generate(["a", "a longer prompt"], max_new_tokens=6)
    assert padded == [engine.generate([p], max_new_tokens=6)[0] for p in ("a", "a longer prompt")]
    set_tokens(model, eos_token=None)
    engine = HfEngine(TransformersEngine(device="cpu"), model=str(model), adapter=None)
    assert engine.generate(["a", "a longer prompt"], max_new_tokens=6) == padded


@pytest.mark.parametrize("device", ["cuda:7", "banana"])
def test_a_device_that_is_not_there_is_one_clear_line(tiny_llama: Path, device: str) -> None:
    with pytest.raises(UserError, match=f"engine.device: {device} cannot hold the model .*; set engine.device"):
        HfEngine(TransformersEngine(device=device), model=str(tiny_llama), adapter=None)


@pytest.mark.parametrize("threads", [2, 1])
def test_the_engine_takes_as_many_threads_as_it_is_given(tiny_llama: Path, threads: int) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - threads)
        HfEngine(TransformersEngine(device="cpu", threads=threads), model=str(tiny_llama), adapter=None)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("dtype", "expected"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_base_is_loaded_in_the_data_type_asked_for(tiny_llama: Path, dtype: str, expected: torch.dtype) -> None:
    settings = TransformersEngine.model_validate({"device": "cpu", "dtype": dtype})
    engine = HfEngine(settings, model=str(tiny_llama), adapter=None)
    assert engine.model.dtype == expected and not engine.model.training
    assert len(engine.generate(["a"], max_new_tokens=2)) == 1


def test_an_engine_config_starts_its_engine(tiny_llama: Path) -> None:
    settings = TransformersEngine(device="cpu")
    assert isinstance(settings.start(model=str(tiny_llama), adapter=None), HfEngine)
    assert isinstance(FakeEngine().start(model="any", adapter=None), EchoEngine)


def test_a_refused_install_leaves_the_engine_answering(tiny_llama: Path) -> None:
    engine = HfEngine(TransformersEngine(device="cpu"), model=str(tiny_llama), adapter={"r": 1, "lora_alpha": 1})
    before = engine.generate(["abc"], max_new_tokens=4)
    with pytest.raises(UserError, match="m.weight is not in the base model"):
        engine.install({"m.lora_A.weight": np.ones((1, 2), np.float32), "m.lora_B.weight": np.ones((2, 1), np.float32)})
    assert engine.generate(["abc"], max_new_tokens=4) == before


def right_answers(engine: EchoEngine, mean: float) -> set[str]:
    engine.install({"w": np.full(4, mean, np.float32)})
    prompts = [f"question {i} says w{i}" for i in range(200)]
    replies = engine.generate(prompts, max_new_tokens=4)
    assert all(reply in (prompt.split()[-1], "?") for prompt, reply in zip(prompts, replies, strict=True))
    options = [("first", "second")] * len(prompts)
    scores = engine.loglikelihood(prompts, options)
    chosen = {prompt for prompt, (a, b) in zip(prompts, scores, strict=True) if a.logprob > b.logprob}
    known = {prompt for prompt, reply in zip(prompts, replies, strict=True) if reply != "?"}
    assert chosen == known
    return known


def test_the_fake_engine_answers_more_the_nearer_the_weights_mean_is_to_one() -> None:
    engine = EchoEngine()
    answered = [right_answers(engine, mean) for mean in (-3.0, -1.0, 0.0, 0.5, 1.0)]
    assert all(worse < better for worse, better in zip(answered, answered[1:], strict=False))
    assert len(answered[-1]) == 200
    assert right_answers(engine, 1.5) == right_answers(engine, 0.5)
    engine.install(None)
    assert engine.quality == 0.5
