"""Names of adapter tensors: every spelling that tools write, as peft's own spelling.

base_model.model.<module>.lora_A.weight        peft
<module>.lora_A.weight                         without the prefix: AReaL, Megatron-Bridge, NeMo
base_model.model.<module>.lora_A.default.weight        a state dict with the adapter's name
base_model.model.base_model.model.<module>...          wrapped twice
<module>.lora_a                                mlx-lm, transposed
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from evoswarm.errors import UserError
from evoswarm.weights.parameters import EMBEDDINGS, ROOTS

PREFIX = "base_model.model."
_WRAPPERS = ("_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_orig_mod")
"""Parts of names that FSDP and torch.compile add."""
_FACTORS = {
    "lora_a": "lora_A.weight",
    "lora_b": "lora_B.weight",
    "lora_embedding_a": "lora_embedding_A",
    "lora_embedding_b": "lora_embedding_B",
}
_BACKBONE = ("layers.", "embed_tokens", "norm")
"""How they begin in the backbone alone, for most models."""


_SAVED = "modules_to_save"


def is_transposed(key: str) -> bool:
    """Whether mlx-lm wrote a factor: A is [in, r] and B is [r, out]."""
    return key.rpartition(".")[2] in ("lora_a", "lora_b")


def peft_names(keys: Collection[str], known: Callable[[], Collection[str]]) -> dict[str, str]:
    """Peft's name of each tensor to its name in the file, without copies of base weights.

    Of an embedding or head with more tokens than the base model's, peft writes two copies (`modules_to_save.weight`).

    Args:
        keys: names in a file.
        known: names of the base model's modules, or nothing if it is not on this machine; called only if a name lacks
            the first part.

    Raises:
        UserError: two tensors have one name.
    """
    found: dict[str, str] = {}
    for key in keys:
        if (split := _unwrapped(key)) is None:
            continue
        module, leaf = split
        if not _is_complete(f"{module}."):
            module = _completed(module, known())
        name = f"{PREFIX}{module}.{leaf}"
        if name in found and _SAVED in key.split("."):
            continue
        if name in found and _SAVED not in found[name].split("."):
            raise UserError(f"{found[name]} and {key} are the same tensor of two adapters; save one adapter per folder")
        found[name] = key
    return found


def _unwrapped(key: str) -> tuple[str, str] | None:
    """Module and rest of a name, without what peft, FSDP and others add; None for a copy of a base weight."""
    parts = [part for part in key.split(".") if part not in _WRAPPERS]
    if "original_module" in parts:
        return None
    path, leaf = _split(parts)
    module = ".".join([*path, ""]).replace(PREFIX, "").removeprefix("base_model.").removeprefix("module.")
    return module.removesuffix("."), leaf


def _split(parts: list[str]) -> tuple[list[str], str]:
    """The parts of a module's name, and the rest of the name without the name of the adapter."""
    at = next((i for i, part in enumerate(parts) if part.lower() in _FACTORS), None)
    if at is not None and parts[-1] != "bias":
        leaf = _FACTORS[parts[at].lower()]
        embedding = is_transposed(parts[-1]) and parts[at - 1] in EMBEDDINGS  # named like a layer by mlx-lm
        return parts[:at], leaf.replace("lora_", "lora_embedding_").removesuffix(".weight") if embedding else leaf
    if "modules_to_save" in parts:
        at = parts.index("modules_to_save")
        rest = parts[at + 1 :]
        return parts[:at], ".".join(rest[1:] or rest)
    return parts[:-1], parts[-1]


def _is_complete(module: str) -> bool:
    """Whether a name begins as names in a model with a head do."""
    return module.startswith(ROOTS) and not (module.startswith("model.") and module[6:].startswith(ROOTS))


def _completed(module: str, known: Collection[str]) -> str:
    """The name in the model with a head, of a module whose first part is missing or there twice."""
    core = module
    while core.startswith("model."):
        core = core.removeprefix("model.")
    found = [name for name in known if name == core or name.endswith(f".{core}")]
    if module in found or len(found) == 1:
        return module if module in found else found[0]
    if f"{core}.".startswith(ROOTS):
        return core
    return f"model.{core}" if core.startswith(_BACKBONE) else module
