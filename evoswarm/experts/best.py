"""Other forms of a run's best LoRA: at a lower rank, or merged into the base model."""

from __future__ import annotations

import shutil
from pathlib import Path

from evoswarm.engine import TransformersEngine
from evoswarm.engine.config import ModelEngine
from evoswarm.errors import UserError
from evoswarm.loop.card import model_card
from evoswarm.loop.directory import RunDirectory
from evoswarm.loop.history import written_config
from evoswarm.rows import Row
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.expert import read_json
from evoswarm.weights.materialize import Materializer
from evoswarm.weights.pool import Pool, open_pool
from evoswarm.weights.save import save_truncated

TRUNCATED = (
    "This LoRA was truncated to rank {rank}, which keeps {kept:.1%} of its squared norm; the utility above was measured"
    " before that."
)


def write_best(run_dir: Path, output: Path, *, rank: int | None, merged: bool) -> float | None:
    """Copy the best expert of a run and its model card; or write it at a lower rank, or merged.

    Returns:
        With a rank, the share of the squared norm that it keeps.

    Raises:
        UserError: it is no LoRA and was to be changed, or the base model cannot be loaded.
    """
    if rank is None and not merged:
        shutil.copytree(RunDirectory(run_dir).best, output, dirs_exist_ok=True)
        return None
    kept = None if rank is None else write_truncated(run_dir, output, rank=rank)
    if merged:
        write_merged(run_dir, output)
    _write_card(run_dir, output, merged=merged, note="" if kept is None else TRUNCATED.format(rank=rank, kept=kept))
    return kept


def _write_card(run_dir: Path, output: Path, *, merged: bool, note: str) -> None:
    """The run's model card, for weights of another form."""
    directory = RunDirectory(run_dir)
    summary, recipe = read_json(directory.summary), read_json(directory.recipe)
    form = recipe | {"kind": "checkpoint"} if merged else recipe
    card = model_card(written_config(run_dir), summary, form, note=note)
    (output / "README.md").write_text(card, encoding="utf-8")


def write_truncated(run_dir: Path, output: Path, *, rank: int) -> float:
    """Write the best LoRA of a run at a lower rank.

    Returns:
        The share of the squared norm that it keeps.

    Raises:
        UserError: it is no LoRA.
    """
    pool = _best(run_dir)
    return save_truncated(
        Materializer(pool), Row.one(pool.names[0]), output, base=written_config(run_dir).model, rank=rank
    )


def write_merged(run_dir: Path, output: Path, *, expert: Path | None = None) -> None:
    """Write the base model with the best LoRA of a run merged in, and its tokenizer. Needs memory for the model.

    `expert` is the folder of another LoRA of the run.

    Raises:
        UserError: it is no LoRA, or the base model cannot be loaded.
    """
    from evoswarm.engine.install import Installer
    from evoswarm.engine.load import load_model
    from evoswarm.engine.tokenizer import run_tokenizer

    pool, config = _best(run_dir, expert), written_config(run_dir)
    trust = isinstance(config.engine, ModelEngine) and config.engine.trust_remote_code
    model = load_model(config.model, TransformersEngine(device="cpu", trust_remote_code=trust))
    Installer(model, pool.adapter).install(Materializer(pool).one(Row.one(pool.names[0])))
    if model.get_input_embeddings().weight is not model.get_output_embeddings().weight:
        model.config.tie_word_embeddings = False  # the LoRA changes one of them
    model.save_pretrained(output)
    best = {"best": pool.experts[0].path}
    run_tokenizer(config.model, best, trust_remote_code=trust).tokenizer.save_pretrained(output)


def _best(run_dir: Path, expert: Path | None = None) -> Pool:
    folder = expert or RunDirectory(run_dir).best
    pool = open_pool(PoolConfig(experts=[folder.resolve()]), model=written_config(run_dir).model, alone=True)
    if pool.space is None:
        raise UserError(f"{run_dir}: its best expert is no LoRA, so it is exported as it is; omit --rank and --merged")
    return pool
