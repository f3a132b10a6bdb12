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
from evoswarm.weights.noise import CHUNK
from evoswarm.weights.tensorfile import TensorFile, TensorSpec

Kind = Literal["adapter", "checkpoint"]
ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
INDEX_FILE = "model.safetensors.index.json"
_MARKS = (ADAPTER_CONFIG, ADAPTER_FILE, "adapter_model.bin", "config.json", "model.safetensors", INDEX_FILE)


@dataclass(frozen=True)
class Expert:
    """A named adapter or checkpoint in the pool; its tensors are read lazily."""

    name: str
    path: Path
    kind: Kind
    config: dict[str, Any]
    files: tuple[TensorFile, ...]

    @cached_property
    def specs(self) -> dict[str, TensorSpec]:
        """The tensors of all files, by name."""
        return {name: spec for file in self.files for name, spec in file.specs.items()}

    @cached_property
    def _where(self) -> dict[str, TensorFile]:
        return {name: file for file in self.files for name in file.specs}

    @property
    def nbytes(self) -> int:
        """Total size of the tensors in bytes."""
        return sum(spec.nbytes for spec in self.specs.values())

    def flat(self, tensor: str) -> np.ndarray:
        """A tensor as a read-only array [numel] in the expert's data type."""
        return self._where[tensor].flat(tensor)

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
        config = {k: v for k, v in self.config.items() if k not in ("base_model_name_or_path", "_name_or_path")}
        digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
        for file in self.files:
            with file.path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()

    def non_finite(self) -> list[str]:
        """Names of the tensors with NaN or infinite values; reads all values."""
        return [name for name, spec in sorted(self.specs.items()) if spec.is_float and not _finite(self.flat(name))]


def _finite(flat: np.ndarray, step: int = 64 * CHUNK) -> bool:
    return all(bool(np.isfinite(flat[start : start + step]).all()) for start in range(0, flat.size, step))


def is_expert_folder(path: Path) -> bool:
    """Whether `path` looks like an adapter or checkpoint folder. It may be unreadable."""
    return path.is_dir() and any((path / name).exists() for name in _MARKS)


def open_expert(path: Path, *, name: str | None = None) -> Expert:
    """Open an adapter or checkpoint folder.

    Raises:
        UserError: there is no expert, it is a pickle, or a file is missing, truncated or damaged.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; an expert is a folder with {ADAPTER_CONFIG} or config.json")
    name = name or path.name
    if (path / ADAPTER_CONFIG).exists():
        return _open_adapter(path, name)
    if (path / "config.json").exists():
        if not (files := checkpoint_files(path)):
            raise UserError(f"{path}: {no_weights(path)}")
        return Expert(name, path, "checkpoint", read_json(path / "config.json"), tuple(map(TensorFile, files)))
    raise UserError(
        f"{path}: has neither {ADAPTER_CONFIG} nor config.json; an expert is a PEFT adapter or a checkpoint written "
        "by save_pretrained"
    )


def _open_adapter(path: Path, name: str) -> Expert:
    if not (path / ADAPTER_FILE).exists():
        if (path / "adapter_model.bin").exists():
            raise UserError(
                f"{path}: adapter_model.bin is a pickle, which can run code and is not read; convert it where you "
                "trust it: PeftModel.from_pretrained(base, folder).save_pretrained(folder)"
            )
        raise UserError(f"{path}: {ADAPTER_FILE} is missing; save the adapter with peft's save_pretrained")
    return Expert(name, path, "adapter", read_json(path / ADAPTER_CONFIG), (TensorFile(path / ADAPTER_FILE),))


def no_weights(path: Path) -> str:
    """The error message for a checkpoint folder without safetensors."""
    if any(path.glob("*.bin")):
        return (
            "its weights are a pickle, which can run code and is not read; convert it where you trust it: "
            "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder)"
        )
    return "model.safetensors is missing; save the checkpoint with save_pretrained"


def checkpoint_files(path: Path) -> list[Path]:
    """The safetensors files of a checkpoint folder, sharded or not; empty if there are none.

    Raises:
        UserError: the index names a shard that is missing or outside the folder.
    """
    index = path / INDEX_FILE
    if not index.exists():
        return [path / "model.safetensors"] if (path / "model.safetensors").exists() else []
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
