"""One expert on disk: a PEFT adapter folder or a full checkpoint folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from evoswarm.errors import UserError
from evoswarm.weights.adapter import (
    ADAPTER_CONFIG,
    ADAPTER_FILE,
    MLX_FILE,
    adapter_files,
    adapter_tensors,
    peft_config,
)
from evoswarm.weights.merge import lora_modules
from evoswarm.weights.noise import CHUNK
from evoswarm.weights.stored import Stored
from evoswarm.weights.tensorfile import TensorFile, TensorSpec

SAMPLE = 1024
"""Values at each end of a tensor that a quick check reads."""
Kind = Literal["adapter", "checkpoint", "model"]
"""A model is an adapter or checkpoint that runs as it is, as a member of a mix; see `members`."""
MODEL_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_MARKS = (ADAPTER_CONFIG, ADAPTER_FILE, MLX_FILE, "adapter_model.bin", "config.json", MODEL_FILE, INDEX_FILE)


@dataclass(frozen=True)
class Expert:
    """A named adapter or checkpoint in the pool; its tensors are read lazily.

    Attributes:
        name: its name in the pool.
        path: the folder that holds its files.
        kind: adapter, checkpoint or model.
        config: adapter_config.json or config.json, as peft or transformers would write it.
        files: its safetensors files.
        stored: its tensors by name; the names of adapters are peft's.
        original: the configuration as it is on disk.
    """

    name: str
    path: Path
    kind: Kind
    config: dict[str, Any]
    files: tuple[TensorFile, ...]
    stored: dict[str, Stored]
    original: dict[str, Any]

    @cached_property
    def specs(self) -> dict[str, TensorSpec]:
        """The tensors by name."""
        return {name: stored.spec for name, stored in self.stored.items()}

    @property
    def nbytes(self) -> int:
        """Total size of the tensors in bytes."""
        return sum(spec.nbytes for spec in self.specs.values())

    def flat(self, tensor: str) -> np.ndarray:
        """A tensor as a read-only array [numel] in the expert's data type."""
        return self.stored[tensor].flat()

    def tensor(self, name: str) -> np.ndarray:
        """A tensor as a read-only array of its shape."""
        return self.flat(name).reshape(self.specs[name].shape)

    def tensors(self) -> dict[str, np.ndarray]:
        """All tensors by name."""
        return {name: self.tensor(name) for name in self.specs}

    @cached_property
    def sha256(self) -> str:
        """Content hash of the configuration and all files."""
        # Paths do not affect the content.
        config = {k: v for k, v in self.original.items() if k not in ("base_model_name_or_path", "_name_or_path")}
        digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
        for file in self.files:
            with file.path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()

    def non_finite(self, *, samples: bool = False) -> list[str]:
        """Names of the tensors with NaN or infinite values; reads all values, or the first and last `SAMPLE`."""
        floats = (name for name, spec in sorted(self.specs.items()) if spec.is_float)
        return [name for name in floats if not all(map(_finite, _parts(self.flat(name), samples=samples)))]


def _parts(flat: np.ndarray, *, samples: bool) -> list[np.ndarray]:
    return [flat[:SAMPLE], flat[-SAMPLE:]] if samples else [flat]


def _finite(flat: np.ndarray, step: int = 64 * CHUNK) -> bool:
    return all(bool(np.isfinite(flat[start : start + step]).all()) for start in range(0, flat.size, step))


def is_expert_folder(path: Path) -> bool:
    """Whether `path` looks like an adapter or checkpoint folder. It may be unreadable."""
    return path.is_dir() and any((path / name).exists() for name in _MARKS)


def open_expert(path: Path, *, name: str | None = None, model: str | None = None) -> Expert:
    """Open an adapter or checkpoint folder. `model`, the base model, completes names of tensors that lack a part.

    Raises:
        UserError: there is no expert, it is a pickle, or a file is missing, truncated or damaged.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; an expert is a folder with {ADAPTER_CONFIG} or config.json")
    name = name or path.name
    if (path / ADAPTER_CONFIG).exists():
        return _open_adapter(path, name, model)
    if (path / "config.json").exists():
        if not (found := checkpoint_files(path)):
            raise UserError(f"{path}: {no_weights(path)}")
        files, config = tuple(map(TensorFile, found)), read_json(path / "config.json")
        stored = {key: Stored.of(file, key) for file in files for key in file.specs}
        return Expert(name, path, "checkpoint", config, files, stored, config)
    if (path / "mix.json").exists():
        raise UserError(
            f"{path}: is a mix of models (mix.json), which has no weights of its own; `evoswarm evaluate --adapter` "
            "and `evoswarm serve` take it"
        )
    raise UserError(
        f"{path}: has neither {ADAPTER_CONFIG} nor config.json; an expert is a PEFT adapter or a checkpoint written "
        "by save_pretrained"
    )


def _open_adapter(path: Path, name: str, model: str | None) -> Expert:
    files = tuple(map(TensorFile, adapter_files(path)))
    original = read_json(path / ADAPTER_CONFIG)
    config = peft_config(path, original)
    try:
        stored = adapter_tensors(files, config, model=model)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if not config.get("target_modules") and (modules := _modules(stored)):
        config = config | {"target_modules": modules}
    return Expert(name, path, "adapter", config, files, stored, original)


def _modules(stored: dict[str, Stored]) -> list[str]:
    """The modules that an adapter adapts."""
    try:
        return list(lora_modules(stored))
    except UserError:  # half a pair, which the pool's checks report
        return []


def no_weights(path: Path, auto_class: str = "AutoModelForCausalLM") -> str:
    """The error message for a checkpoint folder without safetensors, which transformers loads by `auto_class`."""
    if any(path.glob("*.bin")):
        return (
            "its weights are a pickle, which can run code and is not read; convert it where you trust it: "
            f"{auto_class}.from_pretrained(folder).save_pretrained(folder)"
        )
    return "model.safetensors is missing; save the checkpoint with save_pretrained"


def checkpoint_files(path: Path) -> list[Path]:
    """The safetensors files of a checkpoint folder, sharded or not; empty if there are none.

    As in transformers, model.safetensors counts if there is one, and the index and its shards do not.

    Raises:
        UserError: the index names a shard that is missing or outside the folder.
    """
    if (path / MODEL_FILE).exists():
        return [path / MODEL_FILE]
    index = path / INDEX_FILE
    if not index.exists():
        return []
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise UserError(f"{index}: has no weight_map from tensor to file; save the checkpoint again")
    names = sorted(set(shards.values()))
    for name in names:
        if Path(name).name != name:
            raise UserError(f"{index}: shard {name!r} points outside the folder")
        if not (path / name).exists():
            raise UserError(f"{path / name}: named by {index.name} but missing; copy the whole checkpoint")
    return [path / name for name in names]


def unread_shards(path: Path) -> bool:
    """Whether a folder has, besides model.safetensors, an index of other files, which are not read."""
    if not (path / MODEL_FILE).exists() or not (path / INDEX_FILE).exists():
        return False
    shards = read_json(path / INDEX_FILE).get("weight_map")
    return isinstance(shards, dict) and set(shards.values()) != {MODEL_FILE}


def other_weights(path: Path) -> list[str]:
    """Names of safetensors files next to a model.safetensors without an index, which are not read."""
    if not (path / MODEL_FILE).exists() or (path / INDEX_FILE).exists():
        return []
    return sorted(file.name for file in path.glob("*.safetensors") if file.name != MODEL_FILE)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        UserError: missing, not UTF-8, not JSON or not an object.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path}: is not valid JSON ({error})") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: must contain a JSON object")
    return data
