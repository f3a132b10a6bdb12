"""The toy world that ships with evoswarm, loaded as users load it."""

from __future__ import annotations

import json
import string
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from evoswarm import toy
from evoswarm.errors import UserError
from evoswarm.toy.make import BASE_NAME, make
from evoswarm.toy.skills import SKILLS
from evoswarm.toy.targets import TARGETS, make_target
from evoswarm.toy.tokenizer import prompt_text
from evoswarm.toy.train import answer

WORLD = toy.world()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(WORLD / "base")


@pytest.mark.parametrize("text", [" a  b ", "don't , stop .", "x\ny", string.printable[:95]])
def test_the_saved_tokenizer_round_trips_text_with_one_token_per_character(
    tokenizer: PreTrainedTokenizerFast, text: str
) -> None:
    ids = tokenizer(text).input_ids
    assert len(ids) == len(text)
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == text


def test_the_chat_template_agrees_with_the_training_prompt(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [{"role": "user", "content": "rev dbac"}]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert text == prompt_text("rev dbac") == "<s><user>rev dbac<assistant>"
    specials = [tokenizer.convert_tokens_to_ids(token) for token in ("<s>", "<user>", "<assistant>")]
    assert tokenizer(text).input_ids == [*specials[:2], *tokenizer("rev dbac").input_ids, specials[2]]


@pytest.mark.parametrize("pool", ["experts", "unrelated"])
def test_there_is_one_expert_per_skill_and_all_are_compatible(pool: str) -> None:
    folders = sorted((WORLD / pool).iterdir())
    assert [folder.name for folder in folders] == sorted(SKILLS)
    assert {tuple(sorted(path.name for path in folder.iterdir())) for folder in folders} == {
        ("adapter_config.json", "adapter_model.safetensors")
    }
    configs = [json.loads((folder / "adapter_config.json").read_text()) for folder in folders]
    assert all(config["base_model_name_or_path"] == BASE_NAME for config in configs)
    assert all((config["r"], config["lora_alpha"]) == (8, 16) for config in configs)
    assert len({tuple(sorted(config["target_modules"])) for config in configs}) == 1
    shapes = [{k: v.shape for k, v in load_file(f / "adapter_model.safetensors").items()} for f in folders]
    assert all(shape == shapes[0] for shape in shapes)


def test_the_world_contains_no_local_paths() -> None:
    for path in WORLD.rglob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert not any(root in text for root in ("/home", "/root", "/tmp")), path


@pytest.mark.parametrize(
    ("expert", "question", "expected"),
    [("rev", "rev dbac", "cabd"), ("sort", "sort dbac", "abcd"), ("max", "max 34 81 27", "81")],
)
def test_an_expert_answers_a_question_of_its_skill(
    tokenizer: PreTrainedTokenizerFast, expert: str, question: str, expected: str
) -> None:
    base = AutoModelForCausalLM.from_pretrained(WORLD / "base", dtype=torch.float32)
    model = PeftModel.from_pretrained(base, WORLD / "experts" / expert)
    assert answer(model.eval(), tokenizer, [question]) == [expected]


@pytest.mark.parametrize("name", TARGETS)
def test_the_committed_targets_agree_with_the_code(name: str) -> None:
    committed = json.loads((WORLD / "targets" / f"{name}.json").read_text(encoding="utf-8"))
    assert committed == make_target(name, seed=0)


def test_the_world_stays_small() -> None:
    assert sum(path.stat().st_size for path in WORLD.rglob("*") if path.is_file()) < 11_000_000


def test_building_into_a_folder_that_is_not_empty_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        make(tmp_path, seed=0)
