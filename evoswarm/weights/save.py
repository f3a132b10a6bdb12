"""Saves weights: a PEFT adapter, a sharded checkpoint, or a basis vector."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from evoswarm.place import replacing_folder
from evoswarm.rows import Row
from evoswarm.weights.adapter import ADAPTER_CONFIG, ADAPTER_FILE
from evoswarm.weights.lora_config import product_config
from evoswarm.weights.materialize import Materializer
from evoswarm.weights.members import MIXING
from evoswarm.weights.mixfile import MIX, mix_of
from evoswarm.weights.pool import Pool
from evoswarm.weights.tensorfile import TensorSpec, write_safetensors
from evoswarm.weights.truncate import FILE as TRUNCATION
from evoswarm.weights.truncate import LowRank

SHARD_BYTES = 2 << 30
"""Maximum file size of a saved checkpoint. Saving needs memory for only one tensor."""
TOKENIZER = (
    *(
        "tokenizer.json",
        "tokenizer.model",
        "spiece.model",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "added_tokens.json",
    ),
    *("special_tokens_map.json", "tokenizer_config.json"),
)
TEMPLATE = ("chat_template.jinja", "chat_template.json")
"""Files of a tokenizer, and of its chat template."""
_NOT_OF_PROMPTS = frozenset(
    ("truncation", "padding", "model_max_length", "padding_side", "truncation_side", "pad_token", "name_or_path")
)
"""Settings of a tokenizer without influence on prompts, in which the tools that train adapters differ."""

Tensors = Callable[[list[TensorSpec]], Iterator[tuple[str, np.ndarray]]]
"""From specs to names and arrays, in the same order."""


def save_expert(
    materializer: Materializer, row: Row, folder: Path, *, base: str, shard_bytes: int = SHARD_BYTES
) -> None:
    """Write the weights of `row` to a folder of the pool's kind; see `write_expert` and `mix_of`."""
    pool = materializer.pool
    if pool.kind == "model":
        content = json.dumps(mix_of(pool, materializer.one(row)[MIXING].tolist(), base=base), indent=2)
        with replacing_folder(folder) as new:
            _write_text(new / MIX, content + "\n")
        return
    tensors, layout = partial(_tensors, materializer, row), materializer.layout(row)
    write_expert(materializer.pool, layout, tensors, folder, base=base, shard_bytes=shard_bytes)


def save_best(materializer: Materializer, row: Row, folder: Path, *, base: str, rank: int | None) -> float | None:
    """`save_truncated` with a rank, `save_expert` without."""
    if rank is not None:
        return save_truncated(materializer, row, folder, base=base, rank=rank)
    save_expert(materializer, row, folder, base=base)
    return None


def save_truncated(materializer: Materializer, row: Row, folder: Path, *, base: str, rank: int) -> float:
    """Write the weights of `row` as a LoRA of at most this rank, and `truncation.json`.

    Returns:
        The share of the squared Frobenius norm of the products B A that it keeps.
    """
    pool = materializer.pool
    low = LowRank(materializer, row, rank)
    write_expert(pool, low.layout, low.tensors, folder, base=base, config=product_config(pool.experts, low.layout))
    modules = {module: one.share for module, one in low.found.items()}
    _write_text(folder / TRUNCATION, json.dumps({"rank": rank, "kept": low.share, "modules": modules}, indent=2) + "\n")
    return low.share


def write_expert(
    pool: Pool,
    layout: list[TensorSpec],
    tensors: Tensors,
    folder: Path,
    *,
    base: str,
    config: dict[str, Any] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write tensors of this layout to a folder of the pool's kind, atomically.

    Adapters load with `PeftModel.from_pretrained`, checkpoints with `AutoModelForCausalLM.from_pretrained`. A `folder`
    that exists is replaced. `base` is for the adapter's config; from a folder, a checkpoint's tokenizer is copied. The
    tokenizer of adapters is copied if they agree on one.
    `config` is adapter_config.json, if it is not that of the pool's particles.
    """
    with replacing_folder(folder) as new:
        if pool.kind == "adapter":
            config = (config or pool.adapter_for(layout)) | {"base_model_name_or_path": base, "inference_mode": True}
            _write_text(new / ADAPTER_CONFIG, json.dumps(config, indent=2, sort_keys=True) + "\n")
            write_safetensors(new / ADAPTER_FILE, layout, tensors(layout), metadata={"format": "pt"})
            _copy_tokenizer([expert.path for expert in pool.experts], new)
        else:
            first = pool.experts[0]
            _copy_settings(first.path, new)
            if first.config != first.original:
                _write_text(new / "config.json", json.dumps(first.config, indent=2, sort_keys=True) + "\n")
            _copy_settings(Path(base), new)
            _write_shards(layout, tensors, new, shard_bytes)


def save_vector(materializer: Materializer, row: Row, path: Path) -> None:
    """Write the sum of `row` in fp32 as one basis vector (re-basing)."""
    specs = [replace(block.spec, dtype="F32") for block in materializer.pool.mixed_blocks]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_safetensors(path, specs, ((spec.name, array) for spec, array in materializer.direction(row)))


def _tensors(materializer: Materializer, row: Row, specs: list[TensorSpec]) -> Iterator[tuple[str, np.ndarray]]:
    parts = {part.name: part for part in materializer.pool.parts}
    for name, array in materializer.stream([row], parts=[parts[spec.name] for spec in specs]):
        yield name, array[0]
        del array  # free it before the next one is created, so that only one is in memory


def _write_shards(layout: list[TensorSpec], tensors: Tensors, folder: Path, limit: int) -> None:
    parts: list[list[TensorSpec]] = [[]]
    for spec in layout:
        if parts[-1] and sum(s.nbytes for s in parts[-1]) + spec.nbytes > limit:
            parts.append([])
        parts[-1].append(spec)
    shards = {f"model-{i:05}-of-{len(parts):05}.safetensors": specs for i, specs in enumerate(parts, start=1)}
    if len(parts) == 1:
        shards = {"model.safetensors": parts[0]}
    for name, specs in shards.items():
        write_safetensors(folder / name, specs, tensors(specs), metadata={"format": "pt"})
    if len(shards) > 1:
        total = sum(spec.nbytes for spec in layout)
        where = {spec.name: name for name, specs in shards.items() for spec in specs}
        index = {"metadata": {"total_size": total}, "weight_map": where}
        _write_text(folder / "model.safetensors.index.json", json.dumps(index, indent=2) + "\n")


def _copy_settings(source: Path, folder: Path) -> None:
    """Copy a checkpoint's configuration and tokenizer; keep existing files."""
    for path in sorted(source.iterdir()) if source.is_dir() else ():
        wanted = path.suffix in (".json", ".model", ".txt", ".jinja") and not path.name.endswith(".index.json")
        if wanted and path.is_file() and not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)


def _copy_tokenizer(experts: Sequence[Path], folder: Path) -> None:
    """Copy the tokenizer that lies next to adapters if all that have one agree; likewise the chat template."""
    for names in (TOKENIZER, TEMPLATE):
        having = [path for path in experts if any((path / name).exists() for name in names)]
        found = [{name: _meaning(path / name) for name in names if (path / name).exists()} for path in having]
        for name in found[0] if found and all(one == found[0] for one in found) else ():
            shutil.copyfile(having[0] / name, folder / name)


def _meaning(path: Path) -> str:
    """A hash of what of a tokenizer's file has an influence on prompts."""
    content: Any = path.read_bytes()
    if path.suffix == ".json":
        with suppress(ValueError):
            read = json.loads(content)
            used = {key: read[key] for key in read if key not in _NOT_OF_PROMPTS} if isinstance(read, dict) else read
            content = json.dumps(used, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()


def _write_text(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
