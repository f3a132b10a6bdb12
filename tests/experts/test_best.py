"""The best LoRA of a run in other forms: truncated, and merged into the base model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tiny_models import load, save_adapter, save_llama
from typer.testing import CliRunner

import evoswarm
from evoswarm.cli.main import app
from evoswarm.config.load import parse_config


def run(folder: Path, *, tied: bool, **changes: object) -> Path:
    """A finished run of one generation over experts with unrelated A; its directory."""
    base = save_llama(folder / "base", tied=tied)
    for seed, name in enumerate("ab"):
        save_adapter(base, folder / "pool" / name, seed=seed, target_modules=["q_proj", "embed_tokens"])
    examples = [{"question": question, "answer": "x"} for question in ("the quick", "brown")]
    (folder / "d.json").write_text(json.dumps({"dev": examples, "test": examples}))
    config = {
        "model": str(base),
        "pool": str(folder / "pool"),
        "search": {"population": 3, "max_generations": 1, "ensemble_size": 1},
        "utility": {"type": "exact_match", "data": str(folder / "d.json"), "max_new_tokens": 2},
        "backend": {"type": "local"},
        "output": str(folder / "runs"),
    }
    checked = parse_config(config | changes, root=folder)
    evoswarm.run(checked)
    return checked.run_dir


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("tied", [False, True])
def test_a_merged_export_has_the_outputs_of_the_adapter(tmp_path: Path, tied: bool) -> None:
    folder, ids = run(tmp_path, tied=tied), torch.tensor([[1, 20, 30, 40]])
    result = CliRunner().invoke(app, ["export", str(folder), "-o", str(tmp_path / "merged"), "--merged"])
    assert result.exit_code == 0, result.output
    adapter = PeftModel.from_pretrained(load(tmp_path / "base"), folder / "best").eval()
    torch.testing.assert_close(load(tmp_path / "merged")(ids).logits, adapter(ids).logits, rtol=1e-5, atol=1e-5)
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["tie_word_embeddings"] is False  # the LoRA changes the embedding alone
    assert (tmp_path / "merged" / "tokenizer.json").exists() and (tmp_path / "merged" / "recipe.json").exists()


def test_export_rank_truncates_the_best_and_says_what_is_kept(tmp_path: Path) -> None:
    folder = run(tmp_path, tied=False, export={"rank": 2})
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["space"]["space"] == "product" and 0 < summary["best"]["kept"] < 1
    assert json.loads((folder / "best" / "truncation.json").read_text())["kept"] == summary["best"]["kept"]
    result = CliRunner().invoke(app, ["export", str(folder), "-o", str(tmp_path / "one"), "--rank", "1"])
    assert result.exit_code == 0 and "rank 1 keeps " in result.output
    assert json.loads((tmp_path / "one" / "adapter_config.json").read_text())["r"] == 1
