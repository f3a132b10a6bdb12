"""Converts the config's `method` to a peft config, and determines whether its experts can be evolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from torch import nn
from transformers.pytorch_utils import Conv1D

import evoswarm.experts.wegeft  # noqa: F401  registers WeGeFT with peft
from evoswarm.config.training import Method
from evoswarm.engine.load import first_line
from evoswarm.errors import UserError, did_you_mean

Route = Literal["plain", "converted", "none"]
_LORA = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}
VARIANTS: dict[str, dict[str, Any]] = {
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    **{name: {"init_lora_weights": name} for name in ("pissa", "olora", "corda", "lora_ga", "loftq")},
}
"""LoRA variants with their own names, and their settings in LoraConfig."""
DEFAULTS: dict[str, dict[str, Any]] = {
    "lora": _LORA,
    "miss": {"target_modules": "all-linear"},
    "vera": {"target_modules": "all-linear"},
}
"""Defaults that differ from peft's. GENOME's for LoRA; WeGeFT's are in its own config."""
_CONVERTED = ("wegeft", "miss", "vera")
CHANGES_BASE = ("pissa", "olora", "corda", "lora_ga")
"""Initializations that subtract the initial adapter from the base weights: W + s (B A - B0 A0)."""
_REASONS = {
    "dora": "its magnitude makes the merge non-linear",
    "loftq": "it is trained on quantised base weights, and what they lost is of full rank",
    "adalora": "it prunes ranks, in each expert others",
    "ia3": "it rescales activations",
    "boft": "it rotates the weights",
    "oft": "it rotates the weights",
    "hra": "it rotates the weights",
    "loha": "its update is of full rank",
    "lokr": "its update is of full rank",
    "fourierft": "its update is of full rank",
    "randlora": "its update is of full rank",
}


@dataclass(frozen=True)
class Chosen:
    """A training method.

    Attributes:
        name: its name in the user's config.
        config: peft's config.
        route: plain: peft saves plain LoRA. converted: there is an exact conversion to plain LoRA. none: there is none.
        reason: why there is no conversion.
    """

    name: str
    config: PeftConfig
    route: Route
    reason: str = ""

    @property
    def changes_base(self) -> bool:
        """Whether the initial adapter was subtracted from the base weights."""
        return str(getattr(self.config, "init_lora_weights", "")).lower().startswith(CHANGES_BASE)


def choose(method: Method) -> Chosen:
    """The method with its peft config.

    Raises:
        UserError: the method or a key is unknown, or peft rejects a value.
    """
    name = method.type.lower()
    kinds = {str(kind.value).lower(): config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    if name not in {**kinds, **VARIANTS}:
        known = sorted({*kinds, *VARIANTS})
        raise UserError(f"method {method.type!r} is not known; {did_you_mean(name, known, kind='methods')}")
    kind = "lora" if name in VARIANTS else name
    settings = DEFAULTS.get(kind, {}) | VARIANTS.get(name, {}) | method.settings
    make = kinds[kind]
    wrong = sorted(set(settings) - set(make.__dataclass_fields__))
    if wrong:
        fields = sorted(set(make.__dataclass_fields__) - set(PeftConfig.__dataclass_fields__))
        hint = did_you_mean(wrong[0], fields, kind=f"settings of {make.__name__}")
        raise UserError(f"method.{wrong[0]} is not a setting of {name}; {hint}")
    if str(settings.get("init_lora_weights")).lower() == "eva":
        raise UserError(
            "method: EVA's ranks differ between experts, so that they could not be mixed; use pissa or corda"
        )
    try:
        config = make(**({"task_type": "CAUSAL_LM"} | _nested(settings)))
    except (TypeError, ValueError, ImportError, AttributeError) as error:
        raise UserError(f"method {name}: {first_line(error)}") from None
    return Chosen(name, config, *_route(name, config))


def _nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the settings of CorDA, LoRA-GA and LoftQ to the objects that peft needs."""
    from peft.tuners.lora.config import CordaConfig, LoftQConfig, LoraGAConfig

    result = dict(settings)
    for initialisation, key, make, start in (
        ("corda", "corda_config", CordaConfig, {"corda_method": "kpm"}),
        ("lora_ga", "lora_ga_config", LoraGAConfig, {}),
        ("loftq", "loftq_config", LoftQConfig, {}),
    ):
        if settings.get("init_lora_weights") == initialisation:
            result[key] = make(**(start | dict(settings.get(key) or {})))
    return result


def _route(name: str, config: PeftConfig) -> tuple[Route, str]:
    kind = str(config.peft_type.value).lower()
    if kind == "lora":
        variant = "dora" if config.use_dora else str(config.init_lora_weights).lower()
        if variant in _REASONS:
            return "none", _REASONS[variant]
        return ("converted", "") if variant.startswith(CHANGES_BASE) else ("plain", "")
    if kind == "miss" and config.init_weights == "bat":
        return "none", "with init_weights: bat its update depends on the weights in a non-linear way"
    if kind in _CONVERTED and getattr(config, "bias", "none") != "none":
        return "none", "trained biases are no part of a LoRA of it"
    if kind in _CONVERTED and config.modules_to_save:
        return "none", "modules_to_save are no part of a LoRA of it"
    if kind in _CONVERTED:
        return "converted", ""
    if config.is_prompt_learning:
        return "none", "it learns prompts, and there are no weights to merge"
    return "none", _REASONS.get(kind, "no exact conversion of it to plain LoRA is known")


def check_targets(chosen: Chosen, model: nn.Module) -> None:
    """Check that every target module exists.

    Raises:
        UserError: one does not exist; the error lists the existing ones.
    """
    named = getattr(chosen.config, "target_modules", None)
    if named is None or isinstance(named, str):
        return
    if not isinstance(named, set | list | tuple) or not all(isinstance(target, str) for target in named):
        raise UserError("method.target_modules: must be a list of names of modules, or one regular expression")
    modules = [name for name, _ in model.named_modules()]
    for target in sorted(named):
        if not any(name == target or name.endswith(f".{target}") for name in modules):
            linear = {n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D)}
            raise UserError(
                f"method.target_modules: the model has no module {target!r}; its linear ones are "
                f"{', '.join(sorted(linear))}"
            )
