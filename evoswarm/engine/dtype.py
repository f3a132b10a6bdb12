"""The data type that a base model is computed in."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig

from evoswarm.engine.loading import ModelLoading
from evoswarm.errors import UserError
from evoswarm.weights.expert import checkpoint_files, read_json
from evoswarm.weights.hub import model_folder

FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
"""Data types of safetensors that a model can be computed in."""


def device_of(device: str | None = None) -> str:
    """The torch device of an engine: by default the GPU if there is one."""
    return device or ("cuda" if torch.cuda.is_available() else "cpu")


def computed_dtype(
    model: str, settings: ModelLoading, *, device: str, native: Callable[[str], bool] | None = None
) -> tuple[str, str | None]:
    """The data type of a base model on a device, and a message for the user if it is not what was saved.

    `dtype: auto` is the saved data type (that of the configuration, or else of the files), except on a CPU without
    instructions for it: bfloat16 on such a CPU was 90 times slower than float32.

    Args:
        model: base model folder or hub name.
        settings: `dtype` and `trust_remote_code`.
        device: torch device.
        native: whether the CPU has instructions for a data type; None: `cpu_has`.

    Returns:
        A torch name such as "bfloat16", and the message or None. "auto" if the model does not say what it was saved in,
        and its files are not on this machine.

    Raises:
        OSError, ValueError: the model's configuration cannot be read.
    """
    if settings.dtype != "auto":
        return settings.dtype, None
    folder = model_folder(model, weights=False)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=settings.trust_remote_code)
    saved: Any = config.dtype or config.get_text_config().dtype or _dtype_of_files(Path(folder))
    if saved is None:
        return "auto", None
    name = str(saved).removeprefix("torch.")
    if not device.startswith("cpu") or name == "float32" or (native or cpu_has)(name):
        return name, None
    text = f"{model} is saved in {name}, which this CPU has no instructions for: it is computed in float32"
    return "float32", f"{text} (engine.dtype: {name} keeps it, and is many times slower)"


def _dtype_of_files(folder: Path) -> torch.dtype | None:
    """That of the first floating-point tensor of the checkpoint's files, as in transformers. vLLM would take every
    float32 model without a type in its configuration for a 16-bit one."""
    for path in checkpoint_files(folder)[:1]:
        with suppress(SafetensorError), safe_open(path, framework="pt") as file:  # loading reports a damaged file
            kinds = (file.get_slice(name).get_dtype() for name in file.keys())  # noqa: SIM118
            return next((FLOATS[kind] for kind in kinds if kind in FLOATS), None)
    return None


def quantized(model: str) -> str:
    """What to do about a quantized base model that does not load, as the end of a message; empty for other models."""
    try:
        settings = read_json(Path(model) / "config.json").get("quantization_config")
    except UserError:
        return ""
    if not isinstance(settings, dict):
        return ""
    return (
        f"; it is quantized ({settings.get('quant_method', 'unknown method')}), so set `model` to the unquantized base"
    )


def cpu_has(dtype: str, capabilities: dict[str, Any] | None = None) -> bool:
    """Whether a CPU multiplies matrices of a 16-bit data type by its own instructions.

    Args:
        dtype: "bfloat16" or "float16".
        capabilities: as of `torch.cpu.get_capabilities`; None: of this CPU. torch before 2.12 cannot tell, which
            counts as no.
    """
    if capabilities is None:
        capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    mark = {"bfloat16": "bf16", "float16": "fp16"}.get(dtype, dtype)
    return any(present is True and key.endswith(mark) for key, present in capabilities.items())
