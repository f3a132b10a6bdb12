"""Converts the config's `method` to a peft config, and determines into what its experts convert."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from torch import nn
from transformers.pytorch_utils import Conv1D

import evoswarm.experts.wegeft  # noqa: F401  registers WeGeFT with peft
from evoswarm.config.training import Method, Save
from evoswarm.errors import UserError, did_you_mean, first_line
from evoswarm.experts.kinds import KINDS, PROMPTS, UNKNOWN, Kind
from evoswarm.weights.kinds import variants


@dataclass(frozen=True)
class Chosen:
    """A training method: its name in the user's config, peft's config, what is known about it, and its obstacles.

    Attributes:
        no_lora: why its experts cannot be saved as LoRA; empty: they can.
        no_merge: why they cannot be saved as checkpoints; empty: they can.
    """

    name: str
    config: PeftConfig
    kind: Kind
    no_lora: str
    no_merge: str

    @property
    def plain(self) -> bool:
        """Whether peft itself saves plain LoRA on the original base."""
        return _is_plain(self.config, self.kind) and not self.no_lora

    def require(self, save: Save) -> None:
        """Check that experts can be saved in this form.

        Raises:
            UserError: they cannot.
        """
        if save == "lora" and self.no_lora:
            other = (
                "" if self.no_merge else "; save: checkpoint merges them into whole checkpoints, which can be evolved"
            )
            raise UserError(
                f"method {self.name}: cannot be converted to LoRA, because {self.no_lora}{other}{self._ends}"
            )
        if save == "checkpoint" and self.no_merge:
            raise UserError(f"method {self.name}: cannot be merged, because {self.no_merge}{self._ends}")

    @property
    def _ends(self) -> str:
        return "; choose another method, or train experts that cannot be evolved with save: native"


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
    settings = KINDS.get(name, UNKNOWN).settings | method.settings
    make = known[name]
    wrong = sorted(set(settings) - set(make.__dataclass_fields__))
    if wrong:
        fields = sorted(set(make.__dataclass_fields__) - set(PeftConfig.__dataclass_fields__))
        hint = did_you_mean(wrong[0], fields, kind=f"settings of {make.__name__}")
        raise UserError(f"method.{wrong[0]} is not a setting of {name}; {hint}")
    try:
        config = make(**({"task_type": "CAUSAL_LM"} | _nested(settings)))
    except (TypeError, ValueError, ImportError, AttributeError) as error:
        raise UserError(f"method {name}: {first_line(error)}") from None
    return described(config, name=name)


def _nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the settings of CorDA, EVA, LoRA-GA and LoftQ to the objects that peft needs."""
    from peft.tuners.lora.config import CordaConfig, EvaConfig, LoftQConfig, LoraGAConfig

    configs = {"corda": CordaConfig, "eva": EvaConfig, "lora_ga": LoraGAConfig, "loftq": LoftQConfig}
    name = settings.get("init_lora_weights")
    if name not in configs:
        return dict(settings)
    start = {"corda_method": "kpm"} if name == "corda" else {}
    return {**settings, f"{name}_config": configs[name](**(start | (settings.get(f"{name}_config") or {})))}


def described(config: PeftConfig, *, name: str | None = None) -> Chosen:
    """A peft config and what is known about it."""
    kind = _kind_of(config)
    return Chosen(name or _name(config), config, kind, _no_lora(config, kind), _no_merge(config, kind))


def _name(config: PeftConfig) -> str:
    return str(config.peft_type.value).lower()


def _kind_of(config: PeftConfig) -> Kind:
    name = _name(config)
    if config.is_prompt_learning or config.is_adaption_prompt:
        return PROMPTS
    if name != "lora":
        return KINDS.get(name, UNKNOWN)
    variant = "kasa" if config.kasa_config is not None else str(config.init_lora_weights).lower()
    return next((kind for name, kind in KINDS.items() if kind.lora and variant.startswith(name)), KINDS["lora"])


def _no_lora(config: PeftConfig, kind: Kind) -> str:
    """Why these settings of the method do not convert to LoRA; empty: they do."""
    settings = config.to_dict()
    if _is_plain(config, kind) or kind.no_lora:
        return kind.no_lora
    if reason := _variant(settings, except_for=("lora",)):
        return reason
    start = str(settings.get("init_lora_weights")).lower()
    if variants(settings) and any(kind.changes_base and start.startswith(name) for name, kind in KINDS.items()):
        return f"init_lora_weights {start} and {next(iter(variants(settings)))} both change the weights"
    if settings.get("init_weights") == "bat":
        return "with init_weights: bat its update depends on the weights in a non-linear way"
    if settings.get("sample_at_inference"):
        return "with sample_at_inference its answers are random"
    if settings.get("bias", "none") != "none":
        return "trained biases are not part of a LoRA"
    return "modules_to_save are not part of a LoRA" if settings.get("modules_to_save") else ""


def _is_plain(config: PeftConfig, kind: Kind) -> bool:
    return config.peft_type.value == "LORA" and not kind.changes_base and not variants(config.to_dict())


def _no_merge(config: PeftConfig, kind: Kind) -> str:
    """Why these settings of the method cannot be merged into the weights; empty: they can."""
    if kind.no_merge or config.peft_type.value != "LORA":
        return kind.no_merge
    return _variant(config.to_dict(), except_for=("lora", "checkpoint"))


def _variant(settings: Mapping[str, Any], *, except_for: tuple[str, ...]) -> str:
    """The rule of `variants`, which is also the pool's."""
    found = (f"of {key}: {one.why}" for key, one in variants(settings).items() if one.into not in except_for)
    return next(found, "")


def check_targets(chosen: Chosen, model: nn.Module) -> None:
    """Check that every target module exists.

    Raises:
        UserError: one does not exist; the error lists the existing ones.
    """
    named = chosen.config.to_dict().get("target_modules")
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
