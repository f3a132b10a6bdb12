"""A model that ranks cannot share is refused from its configuration alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from evoswarm.engine.vllm_split import check_split
from evoswarm.errors import UserError

LLAMA = {"model_type": "llama", "num_hidden_layers": 1, "vocab_size": 99}


def model(folder: Path, heads: int, kv_heads: int, rows: int, **more: object) -> str:
    sizes = {
        "hidden_size": 64 * heads,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": rows,
    }
    (folder / "config.json").write_text(json.dumps(LLAMA | sizes | more))
    return str(folder)


@pytest.mark.parametrize(
    ("sizes", "ranks", "says"),
    [
        ((10, 2, 960), 4, "has 10 attention heads, which 4 ranks cannot share; use 1 or 2 or 10"),
        ((12, 12, 962), 3, "has 962 rows of the MLP, which 3 ranks cannot share; use 1 or 2"),
        ((12, 3, 960), 2, "has 3 key-value heads, which 2 ranks cannot share; use 1 or 3 or 6 or 12"),
    ],
)
def test_what_cannot_be_divided_is_one_line_with_what_can(
    tmp_path: Path, sizes: tuple[int, int, int], ranks: int, says: str
) -> None:
    path = model(tmp_path, *sizes)
    with pytest.raises(UserError) as caught:
        check_split(path, ranks, trust_remote_code=False)
    assert str(caught.value) == f"engine.args.tensor_parallel_size: {path} {says}"


@pytest.mark.parametrize(
    ("sizes", "ranks"), [((64, 8, 28672), 16), ((64, 8, 28672), 4), ((10, 2, 960), 1), ((8, 1, 96), 8)]
)
def test_key_value_heads_are_divided_or_each_is_on_several_ranks(
    tmp_path: Path, sizes: tuple[int, int, int], ranks: int
) -> None:
    check_split(model(tmp_path, *sizes), ranks, trust_remote_code=False)


def test_the_language_model_of_a_model_with_images_counts(tmp_path: Path) -> None:
    text = {"model_type": "gemma3_text", "num_attention_heads": 6, "num_key_value_heads": 2}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": text}))
    with pytest.raises(UserError, match="has 6 attention heads"):
        check_split(str(tmp_path), 4, trust_remote_code=False)


@pytest.mark.slow
def test_experts_are_checked_after_vllm_has_imported_transformers() -> None:
    code = (
        "from transformers.utils import is_scipy_available; is_scipy_available(); "
        "from evoswarm.weights.optional import without_unused\n"
        "with without_unused(): import evoswarm.engine.check"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
