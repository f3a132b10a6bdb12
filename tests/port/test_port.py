"""The winner of a run on another version of its base model."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from tiny_models import save_adapter, save_llama
from typer.testing import CliRunner

import evoswarm
from evoswarm.callbacks import Callbacks
from evoswarm.cli.main import app
from evoswarm.config.load import parse_config
from evoswarm.errors import Stopped, UserError
from evoswarm.loop.evaluate import measure
from evoswarm.loop.history import written_config
from evoswarm.port.config import PortConfig
from evoswarm.port.pool import port_pool
from evoswarm.port.result import Scored, change
from evoswarm.port.run import port

WORDS = ("the quick", "brown fox", "jumps over", "the lazy", "dog and", "cat")


def start(
    folder: Path, *, checkpoints: bool = False, callbacks: Callbacks | None = None, utility: dict | None = None
) -> Path:
    """A run of two generations whose task is to score the options of questions; its directory."""
    base = save_llama(folder / "base", seed=0)
    save_llama(folder / "next", seed=0, spread=0.28)
    for seed, name in enumerate("ab"):
        if checkpoints:
            save_llama(folder / "pool" / name, seed=seed + 20)
        else:
            save_adapter(base, folder / "pool" / name, seed=seed)
    examples = [{"question": word, "choices": list("stuv"), "answer": i % 4} for i, word in enumerate(WORDS)]
    (folder / "d.json").write_text(json.dumps({"dev": examples, "test": examples}))
    config = {
        "name": "r",
        "model": str(base),
        "pool": str(folder / "pool"),
        "search": {"population": 3, "max_generations": 2, "ensemble_size": 1},
        "utility": {"type": "multiple_choice", "data": str(folder / "d.json"), "label_base": 0} | (utility or {}),
        "backend": {"type": "local"},
        "output": str(folder / "runs"),
    }
    checked = parse_config(config, root=folder)
    evoswarm.run(checked, **({"callbacks": callbacks} if callbacks else {}))
    return checked.run_dir


@pytest.mark.parametrize("checkpoints", [False, True])
def test_the_table_has_the_utilities_that_evaluate_gives(tmp_path: Path, checkpoints: bool) -> None:
    run_dir = start(tmp_path, checkpoints=checkpoints)
    new, output = str(tmp_path / "next"), tmp_path / "out"
    result = port(PortConfig(run_dir, new, output, scales=(0.5, 1.0)))
    models = {line["model"]: line for line in result["models"]}
    old_config = written_config(run_dir)
    new_config = old_config.with_(model=new)
    expected = {
        "old base": (old_config, None),
        "old winner": (old_config, run_dir / "best"),
        "new base": (new_config, None),
        "ported winner": (new_config, output / "best"),
    }
    for name, (config, adapter) in expected.items():
        for split in ("validation", "test"):
            found = measure(config, adapter=adapter, recipe=None, split=split)
            assert models[name][split] == found.utility, (name, split)
    assert result["scales"][f"{result['scale']:g}"] == max(result["scales"].values())
    assert json.loads((output / "port.json").read_text())["models"] == result["models"]
    assert models["old winner"]["from_old_winner"] is None
    assert models["ported winner"]["from_old_winner"]["lost"] >= 0


def test_a_scale_multiplies_what_the_winner_changes(tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from tiny_models import load

    run_dir = start(tmp_path)
    port(PortConfig(run_dir, str(tmp_path / "next"), tmp_path / "out", scales=(0.5,)))
    plain = load(tmp_path / "next").state_dict()
    deltas = []
    for adapter in (run_dir / "best", tmp_path / "out" / "best"):
        merged = PeftModel.from_pretrained(load(tmp_path / "next"), adapter).merge_and_unload().state_dict()
        deltas.append({name: merged[name] - plain[name] for name in plain})
    full, half = deltas
    assert any(tensor.abs().max() > 0.01 for tensor in full.values())
    for name in full:
        torch.testing.assert_close(half[name], 0.5 * full[name], rtol=1e-4, atol=1e-5)


def test_the_best_so_far_of_an_unfinished_run_is_ported(tmp_path: Path) -> None:
    seen: list[str] = []

    def notify(event: dict) -> None:
        seen.append(event["kind"])

    with pytest.raises(Stopped):
        start(tmp_path, callbacks=Callbacks(notify=notify, stop=lambda: seen.count("generation") >= 1))
    said: list[str] = []
    run_dir = tmp_path / "runs" / "r"
    result = port(PortConfig(run_dir, str(tmp_path / "next"), tmp_path / "out", scales=(1.0,)), say=said.append)
    assert any("the run is not finished; porting the best so far" in line for line in said)
    config = written_config(run_dir)
    old = measure(config, adapter=tmp_path / "out" / "so_far", recipe=None, split="test")
    assert {line["model"]: line for line in result["models"]}["old winner"]["test"] == old.utility


def test_changed_data_are_refused(tmp_path: Path) -> None:
    run_dir = start(tmp_path)
    data = json.loads((tmp_path / "d.json").read_text())
    data["dev"][0]["question"] = "another"
    (tmp_path / "d.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match="the data has changed since the run"):
        port(PortConfig(run_dir, str(tmp_path / "next"), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("finished", [True, False])
def test_the_definition_of_the_utility_stays_that_of_the_run(tmp_path: Path, finished: bool) -> None:
    """Flips count against the old base model, on both base models."""
    seen: list[str] = []
    stop = Callbacks(notify=lambda event: seen.append(event["kind"]), stop=lambda: seen.count("generation") >= 1)
    with nullcontext() if finished else pytest.raises(Stopped):
        start(tmp_path, utility={"penalty": {"flips": 0.5}}, callbacks=None if finished else stop)
    new, out = str(tmp_path / "next"), tmp_path / "out"
    models = {m["model"]: m for m in port(PortConfig(tmp_path / "runs" / "r", new, out))["models"]}
    plain = written_config(tmp_path / "runs" / "r")
    plain = plain.with_(utility=plain.utility.with_(penalty=None))
    for split in ("validation", "test"):
        old = measure(plain, adapter=None, recipe=None, split=split).scores
        for name, adapter in (("new base", None), ("ported winner", out / "best")):
            scores = measure(plain.with_(model=new), adapter=adapter, recipe=None, split=split).scores
            lost = sum(max(0.0, one - other) for one, other in zip(old, scores, strict=True))
            assert models[name][split] == pytest.approx((sum(scores) - 0.5 * lost) / len(scores)), (name, split)


def test_an_interrupted_port_is_resumed(tmp_path: Path) -> None:
    run_dir, output = start(tmp_path), tmp_path / "out"
    config = PortConfig(run_dir, str(tmp_path / "next"), output)

    def stop(text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        port(config, say=stop)
    assert (output / "winner").exists() and not (output / "port.json").exists()
    resumed = port(config)
    assert resumed["models"] == port(PortConfig(run_dir, config.model, tmp_path / "other"))["models"]
    with pytest.raises(UserError, match="out: is not empty; choose another folder"):
        port(PortConfig(run_dir, config.model, output, scales=(1.0,)))


def test_settings_that_results_depend_on_cannot_be_changed(tmp_path: Path) -> None:
    config = PortConfig(start(tmp_path), str(tmp_path / "next"), tmp_path / "out", overrides=["utility.options=texts"])
    with pytest.raises(UserError, match="--set utility.options: the run was measured with another value"):
        port(config)
    assert not (tmp_path / "out").exists()


def test_a_base_model_without_tokenizer_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    run_dir = start(tmp_path)
    for path in (tmp_path / "next").glob("tokenizer*"):
        path.unlink()
    with pytest.raises(UserError, match="next: has no tokenizer, so its vocabulary is unknown; put its tokenizer.json"):
        port(PortConfig(run_dir, str(tmp_path / "next"), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_other_shapes_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    run_dir, out = start(tmp_path), tmp_path / "out"
    wide = str(save_llama(tmp_path / "wide", seed=0, intermediate_size=128))
    shapes = r"down_proj.weight is \[64, 96\], the base model's is \[64, 128\].*a base model of the same shapes"
    with pytest.raises(UserError, match=shapes):
        port(PortConfig(run_dir, wide, out))
    with pytest.raises(UserError, match=shapes):
        port_pool(tmp_path / "pool", out, old=str(tmp_path / "base"), new=wide)
    assert not out.exists()


@pytest.mark.slow
def test_a_search_from_the_ported_winner_starts_there(tmp_path: Path) -> None:
    run_dir, output = start(tmp_path), tmp_path / "out"
    arguments = ["port", str(run_dir), "--model", str(tmp_path / "next"), "-o", str(output), "--search", "--json"]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, found.output
    result = json.loads(found.stdout)
    models = {line["model"]: line for line in result["models"]}
    assert models["searched again"]["validation"] >= models["ported winner"]["validation"]
    config = written_config(output / "search")
    assert config.model == str(tmp_path / "next") and config.search.start == {"winner": result["scale"]}
    summary = json.loads((output / "search" / "summary.json").read_text())
    assert set(summary["initial"]["all"]) == {"a", "b", "winner"}


def test_flips_and_inconsistency_by_hand() -> None:
    before = Scored(0.5, np.array([1, 1, 0, 0, 0, np.nan]), ["a", "b", "c", "d", "e", None])
    after = Scored(0.5, np.array([1, 0, 1, 0, 0, 0]), ["a", "x", "y", "d", "z", None])
    found = change(before, after)
    assert (found.lost, found.gained) == (1, 1)
    assert found.negative_flip_rate == 1 / 6
    assert found.inconsistency == 2 / 6  # one lost, one wrong in another way


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "MISSING"], "MISSING"),
        (["--scale", "0"], "--scale: give finite numbers other than 0"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    run_dir = start(tmp_path)
    given = ["--model", str(tmp_path / "next")] if "--model" not in arguments else []
    found = CliRunner().invoke(app, ["port", str(run_dir), "-o", str(tmp_path / "out"), *given, *arguments])
    assert isinstance(found.exception, UserError) and message in str(found.exception)
    assert "\n" not in str(found.exception) and not (tmp_path / "out").exists()
