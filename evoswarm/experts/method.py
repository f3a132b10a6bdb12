"""Converts the config's `method` to a peft config, and determines whether its experts can be evolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class Kind:
    """How evoswarm treats one training method."""

    settings: dict[str, Any] = field(default_factory=dict)
    """Defaults that differ from peft's."""
    route: Route = "none"
    """plain: peft saves plain LoRA. converted: there is an exact conversion to plain LoRA. none: there is none."""
    reason: str = "no exact conversion of it to plain LoRA is known"
    """Why there is no conversion."""
    lora: bool = False
    """It is a variant of LoRA with its own name."""
    changes_base: bool = False
    """It subtracts the initial adapter from the base weights: W + s (B A - B0 A0)."""


_LORA = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}
_LINEAR = {"target_modules": "all-linear"}


def _initialized(name: str) -> Kind:
    """A LoRA that `init_lora_weights` initializes from the base weights."""
    return Kind(_LORA | {"init_lora_weights": name}, "converted", lora=True, changes_base=True)


_FULL_RANK = Kind(reason="its update is of full rank")
_ROTATION = Kind(reason="it rotates the weights")
KINDS: dict[str, Kind] = {
    "lora": Kind(_LORA, "plain"),
    "rslora": Kind(_LORA | {"use_rslora": True}, "plain", lora=True),
    "dora": Kind(_LORA | {"use_dora": True}, reason="its magnitude makes the merge non-linear", lora=True),
    "pissa": _initialized("pissa"),
    "olora": _initialized("olora"),
    "corda": _initialized("corda"),
    "lora_ga": _initialized("lora_ga"),
    "loftq": Kind(
        _LORA | {"init_lora_weights": "loftq"},
        reason="it is trained on quantized base weights, and the quantization error has full rank",
        lora=True,
    ),
    "wegeft": Kind(route="converted"),
    "miss": Kind(_LINEAR, "converted"),
    "vera": Kind(_LINEAR, "converted"),
    "adalora": Kind(reason="it prunes different ranks in each expert"),
    "ia3": Kind(reason="it rescales activations"),
    "boft": _ROTATION,
    "oft": _ROTATION,
    "hra": _ROTATION,
    "loha": _FULL_RANK,
    "lokr": _FULL_RANK,
    "fourierft": _FULL_RANK,
    "randlora": _FULL_RANK,
}
"""Training methods by name. LoRA's defaults are GENOME's; WeGeFT's are in its own config. A method of peft that is not
listed has peft's defaults and no conversion. To add a conversion, add the layer to `evoswarm.experts.convert`."""


@dataclass(frozen=True)
class Chosen:
    """A training method: its name in the user's config, peft's config, and what `Kind` says about these settings."""

    name: str
    config: PeftConfig
    route: Route
    reason: str
    changes_base: bool


def choose(method: Method) -> Chosen:
    """The method with its peft config.

    Raises:
        UserError: the method or a key is unknown, or peft rejects a value.
    """
    name = method.type.lower()
    configs = {str(kind.value).lower(): config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    known = configs | {variant: configs["lora"] for variant, kind in KINDS.items() if kind.lora}
    if name not in known:
        raise UserError(f"method {method.type!r} is not known; {did_you_mean(name, sorted(known), kind='methods')}")
    settings = KINDS.get(name, Kind()).settings | method.settings
    make = known[name]
    wrong = sorted(set(settings) - set(make.__dataclass_fields__))
    if wrong:
        fields = sorted(set(make.__dataclass_fields__) - set(PeftConfig.__dataclass_fields__))
        hint = did_you_mean(wrong[0], fields, kind=f"settings of {make.__name__}")
        raise UserError(f"method.{wrong[0]} is not a setting of {name}; {hint}")
    if str(settings.get("init_lora_weights")).lower() == "eva":
        raise UserError("method: EVA's ranks differ between experts, so they cannot be mixed; use pissa or corda")
    try:
        config = make(**({"task_type": "CAUSAL_LM"} | _nested(settings)))
    except (TypeError, ValueError, ImportError, AttributeError) as error:
        raise UserError(f"method {name}: {first_line(error)}") from None
    kind = _kind_of(config)
    reason = _obstacle(config, kind)
    return Chosen(name, config, "none" if reason else kind.route, reason, kind.changes_base)


def _nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the settings of CorDA, LoRA-GA and LoftQ to the objects that peft needs."""
    from peft.tuners.lora.config import CordaConfig, LoftQConfig, LoraGAConfig

    configs = {"corda": CordaConfig, "lora_ga": LoraGAConfig, "loftq": LoftQConfig}
    name = settings.get("init_lora_weights")
    if name not in configs:
        return dict(settings)
    start = {"corda_method": "kpm"} if name == "corda" else {}
    return {**settings, f"{name}_config": configs[name](**(start | (settings.get(f"{name}_config") or {})))}


def _kind_of(config: PeftConfig) -> Kind:
    name = str(config.peft_type.value).lower()
    if name != "lora":
        return KINDS.get(name, Kind())
    variant = "dora" if config.use_dora else str(config.init_lora_weights).lower()
    return next((kind for name, kind in KINDS.items() if kind.lora and variant.startswith(name)), KINDS["lora"])


def _obstacle(config: PeftConfig, kind: Kind) -> str:
    """Why these settings of the method cannot be converted; empty: they can."""
    if kind.route == "none":
        return "it learns prompts, and there are no weights to merge" if config.is_prompt_learning else kind.reason
    if kind.lora or kind.route == "plain":
        return ""
    if getattr(config, "init_weights", None) == "bat":
        return "with init_weights: bat its update depends on the weights in a non-linear way"
    if getattr(config, "bias", "none") != "none":
        return "trained biases are not part of a LoRA"
    return "modules_to_save are not part of a LoRA" if config.modules_to_save else ""


def check_targets(chosen: Chosen, model: nn.Module) -> None:
    """Check that every target module exists.

    Raises:
        UserError: one does not exist; the error lists the existing ones.
    """
    named = getattr(chosen.config, "target_modules", None)
    if named is None or isinstance(named, str):
        return
    if not isinstance(named, set | list | tuple) or not all(isinstance(target, str) for target in named):
        raise UserError("method.target_modules: must be a list of module names, or one regular expression")
    modules = dict(model.named_modules())
    for target in sorted(named):
        if not any(f".{name}".endswith(f".{target}") for name in modules):
            linear = {n.rpartition(".")[2] for n, m in modules.items() if isinstance(m, nn.Linear | Conv1D)}
            known = ", ".join(sorted(linear))
            raise UserError(f"method.target_modules: the model has no module {target!r}; its linear ones are {known}")
