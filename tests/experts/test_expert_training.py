"""Training a pool: results, resume after a kill, and failures of single experts."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from tiny_models import load, make_tokenizer
from training_helpers import LONG, plain_config, result_bytes, training_config, wait_for, write_data

import evoswarm
from evoswarm.callbacks import Callbacks
from evoswarm.config.load import parse_config, parse_training
from evoswarm.config.training import Optimization, TrainingData
from evoswarm.errors import UserError
from evoswarm.experts.encode import encode
from evoswarm.experts.pool import train_pool
from evoswarm.experts.trainer import collator, interruptible
from evoswarm.weights.expert import read_json


def losses(config: object, name: str) -> list[float]:
    record = read_json(config.pool / name / "training.json")  # type: ignore[attr-defined]
    return list(record["loss"]["by_step"])


def test_a_run_accepts_a_trained_pool(tiny_llama: Path, tmp_path: Path) -> None:
    said: list[str] = []
    config = training_config(
        tmp_path, tiny_llama, "a", "b", training={"batch_size": 8, "learning_rate": 0.02, "epochs": 6}
    )
    records = train_pool(config, callbacks=Callbacks(notify=lambda event: said.append(event["text"])))
    assert sorted(path.name for path in config.pool.iterdir()) == [".training", "a", "b"]
    for name, record in records.items():
        assert record["steps"] == 18 and record["loss"]["last_tenth"] < 0.8 * record["loss"]["first"]
        card = (config.pool / name / "README.md").read_text()
        assert f"{name}.jsonl" in card and "| seed | 0 |" in card and "0.02, cosine, warm-up 0.1" in card
    assert any(text.startswith("a: 24 examples") for text in said)
    assert any(text.startswith("b: finished, loss") for text in said)
    records_of_task = [{"question": word, "answer": word[::-1]} for word in ("abc", "fed", "cab")]
    (tmp_path / "task.json").write_text(json.dumps({"dev": records_of_task, "test": records_of_task[:1]}))
    run = {
        "model": str(tiny_llama),
        "pool": "pool",
        "search": {"population": 3, "max_generations": 1},
        "utility": {"type": "exact_match", "data": "task.json", "max_new_tokens": 4, "prompt": {"chat_template": True}},
        "backend": {"type": "local"},
    }
    summary = evoswarm.run(parse_config(run, root=tmp_path))
    assert set(summary["best"]["recipe"]) <= {"a", "b"}


def test_the_seed_determines_the_trained_pool(tiny_llama: Path, tmp_path: Path) -> None:
    pools = {}
    for name, seed in [("first", 0), ("second", 0), ("third", 1)]:
        config = training_config(tmp_path, tiny_llama, "a", pool=name, seed=seed)
        train_pool(config)
        pools[name] = result_bytes(config.pool)
    assert pools["first"] == pools["second"] != pools["third"]


def test_a_packed_batch_has_the_same_loss_as_a_padded_one(tiny_llama: Path, tmp_path: Path) -> None:
    encoded = encode(TrainingData(path=write_data(tmp_path / "a.jsonl")), make_tokenizer(), max_length=64)
    rows = [{"input_ids": i.tolist(), "labels": x.tolist()} for i, x in zip(encoded.ids, encoded.labels, strict=True)]
    model, found = load(tiny_llama), []
    model.config.use_cache = False  # as in training: with a cache, transformers does not detect packed rows
    for packing in (False, True):
        batch = collator(make_tokenizer(), Optimization(packing=packing))(rows[:6])
        assert len(batch["input_ids"]) == (1 if packing else 6)
        found.append(model(**batch).loss.item())
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.parametrize("changes", [{"packing": True}, {"gradient_checkpointing": True}, {"micro_batch_size": 2}])
def test_memory_saving_options_give_the_same_losses(
    tiny_llama: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    training = {"batch_size": 8, "learning_rate": 0.01}
    usual = training_config(tmp_path, tiny_llama, "a", pool="usual", training=training)
    other = training_config(tmp_path, tiny_llama, "a", pool="other", training=training | changes)
    train_pool(usual)
    train_pool(other)
    assert losses(other, "a") == pytest.approx(losses(usual, "a"), rel=1e-3)


def test_bf16_changes_the_losses_slightly_and_keeps_float32_adapters(tiny_llama: Path, tmp_path: Path) -> None:
    training = {"batch_size": 8, "learning_rate": 0.01}
    usual = training_config(tmp_path, tiny_llama, "a", pool="usual", training=training)
    half = training_config(tmp_path, tiny_llama, "a", pool="half", training=training | {"bf16": True})
    train_pool(usual)
    train_pool(half)
    assert losses(half, "a") != losses(usual, "a")
    assert losses(half, "a") == pytest.approx(losses(usual, "a"), rel=0.05)
    from safetensors.torch import load_file

    assert {t.dtype for t in load_file(half.pool / "a/adapter_model.safetensors").values()} == {torch.float32}


def test_a_finished_expert_is_kept_and_changed_settings_are_rejected(tiny_llama: Path, tmp_path: Path) -> None:
    config = training_config(tmp_path, tiny_llama, "a", "b")
    first = train_pool(config)
    shutil.rmtree(config.pool / "b")
    before = result_bytes(config.pool)
    assert train_pool(config)["a"] == first["a"]
    assert result_bytes(config.pool)["a"] == before["a"] and set(result_bytes(config.pool)) == {"a", "b"}
    other = training_config(tmp_path, tiny_llama, "a", "b", training={"batch_size": 4})
    with pytest.raises(UserError, match="pool/a: was trained with a different training .*; choose another pool, or"):
        train_pool(other)


def test_a_nan_loss_stops_only_that_expert(tiny_llama: Path, tmp_path: Path) -> None:
    plain = plain_config(tmp_path, tiny_llama, "good", "wild", "fine")
    plain["experts"]["wild"] = {"data": "wild.jsonl", "training": {"batch_size": 8, "learning_rate": 1e38}}
    config = training_config(tmp_path, tiny_llama, "good", "wild", "fine", experts=plain["experts"])
    with pytest.raises(
        UserError, match=r"1 of 3 experts failed: wild: the loss is (nan|inf) at step \d; lower"
    ) as caught:
        train_pool(config)
    assert "the other 2 are in" in str(caught.value)
    before = result_bytes(config.pool)
    assert set(before) == {"good", "fine"}
    tamer = training_config(tmp_path, tiny_llama, "good", "wild", "fine")
    train_pool(tamer)
    assert result_bytes(tamer.pool).items() > before.items() and (tamer.pool / "wild").is_dir()


def test_a_conflicting_folder_is_reported_before_the_training(tiny_llama: Path, tmp_path: Path) -> None:
    config = training_config(tmp_path, tiny_llama, "a")
    (config.pool / "a").mkdir(parents=True)
    (config.pool / "a" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="pool/a: already exists"):
        train_pool(config)
    assert not (config.pool / ".training" / "a").exists()


def test_every_bad_data_set_is_reported_before_the_training(tiny_llama: Path, tmp_path: Path) -> None:
    config = training_config(tmp_path, tiny_llama, "a", "b", "c")
    (tmp_path / "b.jsonl").write_text('{"prompt": "x", "completion": ""}\n')
    (tmp_path / "c.jsonl").write_text("{oops\n")
    with pytest.raises(UserError, match="expert b: .*no trainable token.*; expert c: .*line 1: broken JSON"):
        train_pool(config)
    assert result_bytes(config.pool) == {}


def test_a_rerun_after_a_kill_ends_in_the_same_bytes(tiny_llama: Path, tmp_path: Path) -> None:
    plain = plain_config(tmp_path, tiny_llama, "a", training=LONG)
    (tmp_path / "it.yaml").write_text(yaml.safe_dump(plain))
    command = [sys.executable, "-m", "evoswarm", "experts", "train", "it.yaml", "--json"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    progress = tmp_path / "pool/.training/a/progress.json"
    wait_for(lambda: progress.exists() and json.loads(progress.read_text())["step"] >= 25)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "pool/a").exists()
    checkpoints = {path.name for path in (tmp_path / "pool/.training/a/steps").iterdir()}
    assert "checkpoint-20" in checkpoints
    before = json.loads(progress.read_text())["seconds"]
    record = train_pool(parse_training(plain, root=tmp_path))["a"]
    assert before > 0 and record["seconds"] > before
    assert record["steps"] == len(record["loss"]["by_step"]) == 72
    undisturbed = training_config(tmp_path, tiny_llama, "a", pool="other", training=LONG)
    train_pool(undisturbed)
    assert result_bytes(tmp_path / "pool") == result_bytes(undisturbed.pool)


def test_a_backward_pass_can_be_interrupted() -> None:
    model = torch.nn.Sequential(*[torch.nn.Linear(512, 512) for _ in range(30)])
    interruptible(model)
    loss = model(torch.ones(512, 512)).sum()
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(KeyboardInterrupt):
            loss.backward()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert model[0].weight.grad is None  # the backward pass did not reach it


@pytest.mark.slow
def test_ctrl_c_ends_a_training_with_one_line(tiny_llama: Path, tmp_path: Path) -> None:
    plain = plain_config(tmp_path, tiny_llama, "a", training=LONG | {"epochs": 600})
    (tmp_path / "it.yaml").write_text(yaml.safe_dump(plain))
    command = [sys.executable, "-m", "evoswarm", "experts", "train", "it.yaml"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    progress = tmp_path / "pool/.training/a/progress.json"
    wait_for(lambda: progress.exists() and json.loads(progress.read_text())["step"] >= 10)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in said
    assert said.splitlines()[-1].endswith("stopped; rerun the command to resume from the newest checkpoints")


CLI_BAD = {
    "a key": ({"trainning": {}}, "unknown key trainning; did you mean training?"),
    "a nested key": ({"experts": {"a": {"data": "a.jsonl", "x": 1}}}, "unknown key experts.a.x"),
    "no experts": ({"experts": {}}, "experts"),
    "a name": ({"experts": {"../a": "a.jsonl"}}, "'../a' is no name for an expert"),
    "micro batches": ({"training": {"batch_size": 8, "micro_batch_size": 3}}, "no multiple of micro_batch_size 3"),
    "a schedule": (
        {"training": {"schedule": "cosinus"}},
        "training.schedule 'cosinus' is unknown; choose one of linear, cosine",
    ),
    "an argument": ({"training": {"args": {"adam_beta3": 1}}}, "did you mean adam_beta"),
    "an argument of its own": ({"training": {"args": {"seed": 1}}}, "training.args.seed is set by evoswarm"),
    "no logging": ({"training": {"args": {"logging_strategy": "no"}}}, "training.args.logging_strategy is set by"),
    "no saving": ({"training": {"args": {"save_strategy": "no"}}}, "training.args.save_strategy is set by"),
    "a number of modules": ({"method": {"type": "lora", "target_modules": 5}}, "method.target_modules: must be a list"),
    "a pool at a URL": ({"pool": "s3://bucket/pool"}, "pool: is a URL"),
    "data at a URL": ({"experts": {"a": "s3://bucket/a.jsonl"}}, "is a URL"),
    "a model": ({"model": "./nothing"}, "no such folder"),
}


@pytest.mark.parametrize("case", CLI_BAD)
def test_a_wrong_config_gives_one_clear_error_line(tiny_llama: Path, tmp_path: Path, case: str) -> None:
    changes, words = CLI_BAD[case]
    with pytest.raises(UserError) as caught:
        train_pool(parse_training(plain_config(tmp_path, tiny_llama, "a") | changes, root=tmp_path))
    assert words in str(caught.value) and "\n" not in str(caught.value)
