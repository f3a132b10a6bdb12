"""Whether a model can be split over ranks (tensor parallelism). Does not import vLLM."""

from __future__ import annotations

from typing import Any

from evoswarm.errors import UserError
from evoswarm.weights.hub import model_folder

MOST = 64
"""Up to how many ranks are suggested."""
SIZES = {"num_attention_heads": "attention heads", "intermediate_size": "rows of the MLP"}


def check_split(model: str, ranks: int, *, trust_remote_code: bool) -> None:
    """
    Raises:
        UserError: the model has something that this number of ranks cannot share.
    """
    if ranks == 1:
        return
    from transformers import AutoConfig

    folder = model_folder(model, weights=False)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code).get_text_config()
    if problem := _undivided(config, ranks):
        possible = [str(number) for number in range(1, MOST + 1) if not _undivided(config, number)]
        raise UserError(
            f"engine.args.tensor_parallel_size: {model} has {problem}, which {ranks} ranks cannot share; use "
            f"{' or '.join(possible)}"
        )


def _undivided(config: Any, ranks: int) -> str | None:
    """The size that cannot be divided. Key-value heads are divided, or each is on several ranks."""
    for name, what in SIZES.items():
        size = getattr(config, name, None)
        if isinstance(size, int) and size % ranks:
            return f"{size} {what}"
    heads = getattr(config, "num_key_value_heads", None)
    if isinstance(heads, int) and max(heads, ranks) % min(heads, ranks):
        return f"{heads} key-value heads"
    return None
