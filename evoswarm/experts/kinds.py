"""What evoswarm knows about each training method: its defaults, and into what its experts convert."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Kind:
    """How evoswarm treats one training method.

    Attributes:
        settings: defaults that differ from peft's.
        no_lora: why its update is no LoRA; empty: it converts exactly.
        no_merge: why it cannot be merged into the weights; empty: it can.
        lora: it is a variant of LoRA with its own name.
        changes_base: it changes the base weights before the training starts.
        recomputed: peft changes the base weights in the same way when it loads a saved adapter.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    no_lora: str = ""
    no_merge: str = ""
    lora: bool = False
    changes_base: bool = False
    recomputed: bool = True


_LORA = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}
_LINEAR = {"target_modules": "all-linear"}


def _initialized(name: str, *, recomputed: bool) -> Kind:
    """A LoRA that `init_lora_weights` initializes from the base weights: W + s (B A - B0 A0)."""
    return Kind(_LORA | {"init_lora_weights": name}, lora=True, changes_base=True, recomputed=recomputed)


def _unmergeable(reason: str, **settings: Any) -> Kind:
    return Kind(settings, no_lora=reason, no_merge=reason)


_EXACT = Kind(_LINEAR)
_FULL_RANK = Kind(_LINEAR, no_lora="its update is of full rank")
_ROTATION = Kind(_LINEAR, no_lora="it rotates the weights, which is of full rank")
_ROUTED = "its weights depend on the input"
KINDS: dict[str, Kind] = {
    "lora": Kind(_LORA),
    "rslora": Kind(_LORA | {"use_rslora": True}, lora=True),
    "dora": Kind(_LORA | {"use_dora": True}, lora=True),
    "pissa": _initialized("pissa", recomputed=True),
    "olora": _initialized("olora", recomputed=True),
    "corda": _initialized("corda", recomputed=False),
    "lora_ga": _initialized("lora_ga", recomputed=False),
    "loftq": Kind(
        _LORA | {"init_lora_weights": "loftq"},
        no_lora="it is trained on quantized base weights, and the quantization error has full rank",
        lora=True,
        recomputed=False,
    ),
    "kasa": Kind(_LORA | {"kasa_config": {}}, lora=True, changes_base=True),
    "wegeft": Kind(),
    **dict.fromkeys(("miss", "vera", "hra", "loha", "gralora", "delora", "deft"), _EXACT),
    **dict.fromkeys(("psoft", "tinylora", "vblora", "unilora", "pvera", "adamss"), _EXACT),
    "adalora": Kind(_LINEAR | {"total_step": 1_000_000_000}),  # AllocateRanks sets the real number
    **dict.fromkeys(("lokr", "fourierft", "c3a", "waveft", "randlora", "hira", "glora"), _FULL_RANK),
    **dict.fromkeys(("peanut", "frod", "shira"), _FULL_RANK),
    "osf": Kind(_LINEAR, no_lora="its update has twice the rank of its trained part, which is half of the full rank"),
    **dict.fromkeys(("boft", "oft", "road"), _ROTATION),
    "ia3": Kind(no_lora="it rescales activations, which is of full rank"),
    "ln_tuning": Kind(no_lora="it trains whole layer norms"),
    "supertuning": Kind(no_lora="it trains single entries of the weights"),
    "trainable_tokens": Kind(no_lora="it trains single rows of the embedding"),
    "beft": _unmergeable("it trains biases, which most models do not have"),
    "lily": _unmergeable(_ROUTED, **_LINEAR),
    "poly": _unmergeable(_ROUTED, **_LINEAR),
    "xlora": _unmergeable(_ROUTED),
    "shadow": _unmergeable("it is a second model beside the base"),
}
"""Training methods by name. LoRA's defaults are GENOME's; WeGeFT's are in its own config. To add a conversion, add the
layer to `evoswarm.experts.factors`. A test trains every method of the installed peft."""

UNKNOWN = _unmergeable("it is newer than this version of evoswarm")
PROMPTS = _unmergeable("it learns prompts, and there are no weights to merge")
