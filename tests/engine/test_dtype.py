"""The data type that a base model is computed in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from architectures import save_architecture
from tiny_models import load, make_tokenizer, save_llama

from evoswarm.engine.dtype import computed_dtype, cpu_has
from evoswarm.engine.load import load_model
from evoswarm.engine.transformers_config import TransformersEngine

AVX2 = {"avx2": True, "avx512_bf16": False, "amx_bf16": False, "avx512_fp16": False, "num_logical_cores": 2}
ZEN4 = AVX2 | {"avx512_bf16": True}


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("bf16")
    load(save_llama(folder / "saved")).to(torch.bfloat16).save_pretrained(folder / "halved")
    make_tokenizer().save_pretrained(folder / "halved")
    return str(folder / "halved")


def auto(model: str, device: str, *, native: bool) -> tuple[str, str | None]:
    return computed_dtype(model, TransformersEngine(), device=device, native=lambda name: native)


def test_auto_on_a_cpu_without_bf16_instructions_computes_in_float32_and_says_so(halved: str) -> None:
    dtype, text = auto(halved, "cpu", native=False)
    assert dtype == "float32" and text is not None
    assert "is saved in bfloat16" in text and "computed in float32" in text


def test_auto_is_the_saved_type_on_a_gpu_and_on_a_cpu_with_instructions(halved: str) -> None:
    assert auto(halved, "cuda:0", native=False) == ("bfloat16", None)
    assert auto(halved, "cpu", native=True) == ("bfloat16", None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_configuration_without_a_type_has_that_of_the_files(tmp_path: Path, dtype: torch.dtype) -> None:
    """vLLM's own `auto` would take 16 bits for both."""
    load(save_llama(tmp_path / "saved")).to(dtype).save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if "dtype" not in k}))
    assert auto(str(tmp_path / "model"), "cuda:0", native=False) == (str(dtype).removeprefix("torch."), None)


def test_the_type_of_a_model_with_images_is_that_of_its_text_model_or_its_own(tmp_path: Path) -> None:
    save_architecture("gemma3", tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"dtype": "bfloat16"}))
    assert auto(str(tmp_path / "model"), "cuda:0", native=False)[0] == "bfloat16"


def test_a_given_type_is_kept(halved: str) -> None:
    given = TransformersEngine(dtype="bfloat16")
    assert computed_dtype(halved, given, device="cpu", native=lambda name: False) == ("bfloat16", None)


def test_a_cpu_is_known_by_its_instructions() -> None:
    assert cpu_has("bfloat16", ZEN4) and not cpu_has("float16", ZEN4)
    assert not cpu_has("bfloat16", AVX2) and not cpu_has("bfloat16", {})


def test_the_model_is_loaded_in_the_computed_type(halved: str) -> None:
    config = TransformersEngine(device="cpu")
    assert str(load_model(halved, config).dtype) == f"torch.{computed_dtype(halved, config, device='cpu')[0]}"
    assert load_model(halved, TransformersEngine(dtype="bfloat16")).dtype == torch.bfloat16
