"""WeGeFT's settings, as stored in adapter_config.json."""

from __future__ import annotations

from dataclasses import dataclass

from peft.config import PeftConfig
from peft.utils import PeftType

TARGETS = ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj")
"""The Llama modules that the paper adapts."""


@dataclass
class WeGeFTConfig(PeftConfig):
    """Configuration of a [`WeGeFTModel`]. The defaults are the paper's.

    Args:
        r: Rank of phi and psi, [r, in] each.
        wegeft_alpha: The update is scaled by `wegeft_alpha / r`.
        wegeft_dropout: Dropout on the frozen weight, before the product with phi.
        shared: True: one pair (phi, psi) per module type, shared by all layers; False: one pair per layer.
        target_modules: Names of the modules to adapt, a regular expression, or "all-linear".
        exclude_modules: Names, or a regular expression, of modules to leave alone.
        layers_to_transform: Indices of the layers to adapt; None: all.
        layers_pattern: Name of the list of layers, if it is not a common one.
        modules_to_save: Modules that are fully trained and saved.
        fan_in_fan_out: The weights are stored as [in, out] (GPT-2). Detected automatically.
        init_weights: True: phi starts at zero, so that the model starts unchanged; False: random phi, for tests.
    """

    r: int = 64
    wegeft_alpha: float = 128
    wegeft_dropout: float = 0.1
    shared: bool = True
    target_modules: set[str] | list[str] | str | None = None
    exclude_modules: set[str] | list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    fan_in_fan_out: bool = False
    init_weights: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType.WEGEFT
        if self.r < 1:
            raise ValueError(f"r must be at least 1, not {self.r}")
        if not 0 <= self.wegeft_dropout < 1:
            raise ValueError(f"wegeft_dropout must be in [0, 1), not {self.wegeft_dropout}")
        if self.target_modules is None:
            self.target_modules = list(TARGETS)
        if isinstance(self.target_modules, list | tuple):
            self.target_modules = set(self.target_modules)
        if isinstance(self.exclude_modules, list | tuple):
            self.exclude_modules = set(self.exclude_modules)
