"""An engine whose installs do not take effect, or leave a trace, is refused at its start."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from adapters import config_of, weights_of

from evoswarm.engine import TransformersEngine
from evoswarm.engine.selfcheck import probe, self_check
from evoswarm.engine.transformers import HfEngine
from evoswarm.errors import UserError

Weights = Mapping[str, np.ndarray]


class NeverInstalls(HfEngine):
    """As with weights that a CUDA graph does not see."""

    def install(self, weights: Weights | None) -> None:
        super().install(None if weights is None else weights)
        super().install(None)

    def wrong_weights(self, weights: Weights) -> str | None:
        return None


class NeverReturns(HfEngine):
    """The base does not come back."""

    def install(self, weights: Weights | None) -> None:
        if weights is not None:
            super().install(weights)


class MergesWrongly(HfEngine):
    """One weight of the merge is off."""

    @torch.no_grad()
    def install(self, weights: Weights | None) -> None:
        super().install(weights)
        if weights is not None:
            self.model.get_parameter("model.layers.1.self_attn.q_proj.weight")[0, 0] += 0.1


def started(kind: type[HfEngine], base: Path, adapter: Path) -> HfEngine:
    return kind(TransformersEngine(), model=str(base), adapter=config_of(adapter))


def shapes(adapter: Path) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in weights_of(adapter).items()}


def test_a_sound_engine_passes_and_has_the_base_afterwards(tiny_llama: Path, adapters: Path) -> None:
    engine = started(HfEngine, tiny_llama, adapters / "a")
    before = {name: tensor.clone() for name, tensor in engine.model.state_dict().items()}
    self_check(engine, probe(shapes(adapters / "a")))
    assert all(torch.equal(tensor, before[name]) for name, tensor in engine.model.state_dict().items())


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (NeverInstalls, "an adapter does not change its answers"),
        (NeverReturns, "the base model's answers change when it is installed again"),
        (MergesWrongly, r"model\.layers\.1\.self_attn\.q_proj\.weight is not the merged weight after an install"),
    ],
)
def test_an_engine_that_fails_is_refused_in_one_line(
    tiny_llama: Path, adapters: Path, kind: type[HfEngine], reason: str
) -> None:
    with pytest.raises(UserError, match=rf"failed its self-check \({reason}\)"):
        self_check(started(kind, tiny_llama, adapters / "a"), probe(shapes(adapters / "a")))


def test_an_engine_for_checkpoints_that_changes_when_the_base_is_installed_is_refused(tiny_llama: Path) -> None:
    class PacksTwice(HfEngine):
        def install(self, weights: Weights | None) -> None:
            self.model.get_parameter("model.layers.1.mlp.up_proj.weight").data.mul_(-1)

    self_check(HfEngine(TransformersEngine(), model=str(tiny_llama), adapter=None), None)
    with pytest.raises(UserError, match="the base model's answers change when it is installed again"):
        self_check(PacksTwice(TransformersEngine(), model=str(tiny_llama), adapter=None), None)


@pytest.mark.parametrize("needed", [False, True])
def test_only_engines_that_were_not_tested_are_checked(
    tiny_llama: Path, adapters: Path, monkeypatch: pytest.MonkeyPatch, needed: bool
) -> None:
    class Engine(NeverReturns):
        needs_check = needed

    engine = started(Engine, tiny_llama, adapters / "a")
    zeros = {name: np.zeros(shape, np.float32) for name, shape in shapes(adapters / "a").items()}
    if needed:
        with pytest.raises(UserError, match="self-check"):
            TransformersEngine().self_check(engine, lambda: zeros)
    else:
        TransformersEngine().self_check(engine, lambda: zeros)
