"""Particles are installed into fused and split tensors in place, through what the model's own loader copies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapters import VARIANTS, config_of, weights_of
from safetensors.torch import load_file
from tiny_models import load, save_adapter, save_llama
from transformers import LlamaConfig, LlamaForCausalLM

from evoswarm.engine.in_place import InPlace
from evoswarm.engine.install import Installer
from evoswarm.engine.merged import Change, MergedBase
from evoswarm.engine.pristine import Pristine
from evoswarm.engine.shards import find_shards
from evoswarm.engine.vllm_ranks import received
from evoswarm.weights.model_names import ModelNames
from evoswarm.weights.tensorfile import shared_file

FUSED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}
PARTS = {part: (name, parts.index(part)) for name, parts in FUSED.items() for part in parts}
Tensors = dict[str, torch.Tensor]


class Rank:
    """One rank's part of a model, loaded as vLLM does it: parts fused, outputs and inputs split, embeddings padded."""

    def __init__(self, checkpoint: Tensors, rank: int, of: int) -> None:
        self.rank, self.of, self.parameters = rank, of, Tensors()
        for name, tensor in checkpoint.items():
            target, _, length = self._place(name, tensor)
            size = [length, *tensor.shape[1:]]
            if name.split(".")[-2] in ("o_proj", "down_proj") and tensor.ndim == 2:
                size = [tensor.shape[0], tensor.shape[1] // of]
            have = self.parameters.get(target)
            rows = 0 if have is None else len(have)
            self.parameters[target] = torch.zeros(rows + size[0], *size[1:])
        self.load(iter(checkpoint.items()))

    def _place(self, name: str, tensor: torch.Tensor) -> tuple[str, int, int]:
        """The parameter, the place among its parts, and this rank's length along the first dimension."""
        parts = name.split(".")
        if parts[-2] in PARTS:
            fused, number = PARTS[parts[-2]]
            return ".".join([*parts[:-2], fused, parts[-1]]), number, len(tensor) // self.of
        return name, 0, len(tensor)

    def load(self, tensors: Iterator[tuple[str, torch.Tensor]]) -> None:
        for name, tensor in tensors:
            target, number, length = self._place(name, tensor)
            parameter, kind = self.parameters[target], name.split(".")[-2]
            if kind in PARTS:
                start = self._start(target, number, length)
                parameter.narrow(0, start, length).copy_(tensor.narrow(0, self.rank * length, length))
            elif kind in ("o_proj", "down_proj") and tensor.ndim == 2:
                width = parameter.shape[1]
                parameter.data.copy_(tensor.narrow(1, self.rank * width, width))
            else:
                parameter[: len(tensor)].copy_(tensor)

    def _start(self, target: str, number: int, length: int) -> int:
        """Where a part begins: q, k and v may differ in size, so the rest is cut in equal parts behind the first."""
        rows = len(self.parameters[target])
        count = len(FUSED[target.split(".")[-2]])
        return 0 if number == 0 else rows - (count - number) * length


def merged(base: Path, adapter: Path | None) -> Tensors:
    model = load(base)
    if adapter is not None:
        Installer(model, config_of(adapter)).install(weights_of(adapter))
    return dict(model.state_dict())


@pytest.fixture(scope="module")
def biased_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("biased") / "llama", attention_bias=True, mlp_bias=True)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_rank_holds_its_part_of_the_merged_model(
    biased_llama: Path, tmp_path: Path, variant: str, ranks: int
) -> None:
    save_adapter(biased_llama, tmp_path / "a", **VARIANTS[variant])
    checkpoint = load_file(biased_llama / "model.safetensors")
    base = MergedBase(
        checkpoint.items, names=ModelNames(load(biased_llama)), adapter=config_of(tmp_path / "a"), fused=FUSED
    )
    expected = {name: t for name, t in merged(biased_llama, tmp_path / "a").items() if name in checkpoint}
    change = base.change(weights_of(tmp_path / "a"))
    for number in range(ranks):
        rank, untouched = (Rank(checkpoint, number, ranks) for _ in range(2))
        in_place = InPlace(base, rank.load, Pristine("auto"), complete=ranks == 1)
        assert in_place.prepare(change.names)
        wanted = Rank(expected, number, ranks).parameters
        for _ in range(2):
            in_place.install(change)
            for name, tensor in rank.parameters.items():
                torch.testing.assert_close(tensor, wanted[name], rtol=1e-6, atol=1e-6)
            in_place.install(Change())
            assert all(torch.equal(tensor, untouched.parameters[name]) for name, tensor in rank.parameters.items())


def test_modules_that_a_later_adapter_adds_start_from_the_base(biased_llama: Path, tmp_path: Path) -> None:
    save_adapter(biased_llama, tmp_path / "a", target_modules=["q_proj"])
    save_adapter(biased_llama, tmp_path / "b", target_modules=["k_proj", "down_proj"])
    checkpoint = load_file(biased_llama / "model.safetensors")
    base, rank = (
        MergedBase(
            checkpoint.items, names=ModelNames(load(biased_llama)), adapter=config_of(tmp_path / "a"), fused=FUSED
        ),
        Rank(checkpoint, 0, 1),
    )
    in_place = InPlace(base, rank.load, Pristine("auto"), complete=True)
    for name in "ab":
        change = base.change(weights_of(tmp_path / name))
        assert in_place.prepare(change.names)
        in_place.install(change)
    expected = Rank({n: t for n, t in merged(biased_llama, tmp_path / "b").items() if n in checkpoint}, 0, 1)
    for name, tensor in rank.parameters.items():
        torch.testing.assert_close(tensor, expected.parameters[name], rtol=1e-6, atol=1e-6)


def test_a_loader_that_turns_a_tensor_is_followed() -> None:
    tensor, parameter = torch.arange(12.0).view(3, 4), torch.zeros(4, 3)
    shards = find_shards(lambda named: [parameter.copy_(t.T) for _, t in named], [("w", tensor)], complete=True)
    assert shards is not None and shards["w"][0].transposed
    assert torch.equal(shards["w"][0].part(tensor), parameter)


@pytest.mark.parametrize(
    "load",
    [
        lambda target, tensor: target.copy_(tensor + 1),
        lambda target, tensor: target[:1].copy_(tensor[:1]),
        lambda target, tensor: None,
    ],
)
def test_a_loader_that_does_more_than_copying_is_not_trusted(load: Any) -> None:
    target = torch.zeros(3, 4)
    tensors = [("w", torch.ones(3, 4))]
    assert find_shards(lambda named: [load(target, t) for _, t in named], tensors, complete=True) is None


def resident(path: Path) -> int:
    """Bytes of a mapped file that this process has touched."""
    size, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(maxsplit=1)[0]:
            inside = str(path) in line
        elif inside and line.startswith("Rss:"):
            size += 1024 * int(line.split()[1])
    return size


def test_a_rank_reads_only_its_part_of_weights_in_a_shared_file() -> None:
    width, inner, name = 64, 1 << 16, "model.layers.0.self_attn.q_proj"
    checkpoint = {f"{name}.weight": torch.zeros(inner, width)}
    shape = {"hidden_size": width, "head_dim": inner, "num_attention_heads": 1, "num_hidden_layers": 1, "vocab_size": 8}
    with torch.device("meta"):
        names = ModelNames(LlamaForCausalLM(LlamaConfig(**shape)))
    base = MergedBase(checkpoint.items, names=names, adapter={"r": 16, "lora_alpha": 16}, fused=FUSED)
    rng = np.random.default_rng(0)
    factors = {"A": rng.standard_normal((16, width), np.float32), "B": rng.standard_normal((inner, 16), np.float32)}
    weights = {f"base_model.model.{name}.lora_{part}.weight": array for part, array in factors.items()}
    rank = Rank(checkpoint, 1, 2)
    in_place = InPlace(base, rank.load, Pristine("auto"), complete=False)
    with shared_file(weights) as path:
        change = base.change(received(path))
        assert in_place.prepare(change.names)
        in_place.install(change)
        read = resident(Path("memfd:evoswarm-weights"))
    product = torch.from_numpy(factors["B"][inner // 2 :] @ factors["A"])
    torch.testing.assert_close(rank.parameters["model.layers.0.self_attn.qkv_proj.weight"], product)
    size = sum(array.nbytes for array in factors.values())
    assert size / 2 <= read < 0.6 * size
