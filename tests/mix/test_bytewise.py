"""Models of different vocabularies that write together byte by byte."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from mix_helpers import config_of, opened, save_other
from tiny_models import BOS, CHARACTERS, PAD, SPECIAL, UNK, load, make_tokenizer, save_adapter
from tiny_models import END as END_TOKEN
from tokenizers import Tokenizer, decoders, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import evoswarm
from evoswarm.backend.mix import require_answers
from evoswarm.backend.worker import Worker
from evoswarm.callbacks import Callbacks, Event
from evoswarm.config import RunConfig
from evoswarm.engine import TransformersEngine
from evoswarm.engine.combined.bytewise import ByteEngine
from evoswarm.engine.combined.combination import Combination, Member
from evoswarm.engine.combined.covers import END
from evoswarm.engine.combined.token_bytes import token_bytes
from evoswarm.engine.transformers import HfEngine
from evoswarm.errors import Stopped, UserError
from evoswarm.loop.evaluate import measure
from evoswarm.loop.inputs import check_prompts, read_inputs
from evoswarm.serve.combined import offer_of
from evoswarm.serve.offer import Choice
from evoswarm.utility import Choose, Generate, Request, Single, Split, Utility
from evoswarm.utility.types import Chat
from evoswarm.weights.mixfile import read_mix

World = tuple[Path, dict[str, Any]]
CONFIG = TransformersEngine()
PROMPTS = ["2 + 2 = ?", "name a color that is not red", "x"]
SAMPLE = "What is 2 + 3?  Füße 数 \N{GRINNING FACE} hello\nworld"


def engine_of(*folders: Path, mixing: list[float]) -> ByteEngine:
    members = [Member(str(folder)) for folder in folders]
    engine = ByteEngine(CONFIG, combination=Combination("mix", members[0], tuple(members)))
    engine.install({"mixing": np.array(mixing, np.float32)})
    return engine


@pytest.fixture(scope="module")
def letters(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of single characters that writes no special token within an answer, and has one token that ends it."""
    folder, model = tmp_path_factory.mktemp("letters"), load(tiny_llama)
    with torch.no_grad():
        model.lm_head.weight[[PAD, BOS, UNK, END_TOKEN]] = 0
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 with a byte-level vocabulary."""
    return save_other(tmp_path_factory.mktemp("other"))


@torch.inference_mode()
def test_bytes_of_a_real_model_have_the_sum_one_and_its_own_mass(other: Path) -> None:
    """The first byte: the sum over the tokens that begin with it."""
    engine = engine_of(other, mixing=[1.0])
    (reader,) = engine._readers
    ids = reader.encoder.prompt("What is")
    reading = reader.read([ids], limit=9, stop=())
    found = reading.probabilities([0])[0]
    tokens = load(other)(torch.tensor([ids])).logits[0, -1].double().softmax(-1).numpy()
    expected = np.zeros(END + 1)
    for number, word in token_bytes(reader.encoder).items():
        expected[END if number in reader.encoder.ends else word[0]] += tokens[number]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    for byte in "answer \N{EURO SIGN}".encode():
        reading.append(0, byte)
        assert reading.probabilities([0]).sum() == pytest.approx(1)


def test_kept_keys_and_values_change_nothing(other: Path) -> None:
    engine, texts = engine_of(other, mixing=[1.0]), ["The answer is 5. hello", "q", SAMPLE]
    prompts = ["What is 2?", "a longer prompt than this", "x"]
    together = engine.loglikelihood(prompts, [(text,) for text in texts])
    (reader,) = engine._readers
    reader.network.branches = False
    anew = engine.loglikelihood(prompts, [(text,) for text in texts])
    alone = [engine.loglikelihood([prompt], [(text,)])[0] for prompt, text in zip(prompts, texts, strict=True)]
    for one in (anew, alone):
        assert [row[0].logprob for row in one] == pytest.approx([row[0].logprob for row in together], abs=1e-3)


# answers


def test_one_model_of_single_characters_gives_its_own_answers(letters: Path, other: Path) -> None:
    alone = HfEngine(CONFIG, model=str(letters), adapter=None)
    engine = engine_of(letters, other, mixing=[1.0, 0.0])
    prompts = [*PROMPTS, Chat((("user", "hello"),))]
    for stop in ((), ("e",), ("</s>", "ab")):
        expected = alone.generate(prompts, max_new_tokens=20, stop=stop)
        assert engine.generate(prompts, max_new_tokens=20, stop=stop) == expected
    expected = alone.loglikelihood(PROMPTS, [(" red", "blue", "x")] * 3)
    found = engine.loglikelihood(PROMPTS, [(" red", "blue", "x")] * 3)
    for ours, theirs in zip(itertools.chain(*found), itertools.chain(*expected), strict=True):
        assert (ours.tokens, ours.greedy) == (theirs.tokens, theirs.greedy)
        # Special tokens write nothing: the mass of other tokens has the sum 1.
        assert theirs.logprob <= ours.logprob < theirs.logprob + 0.05


def test_two_equal_models_with_different_tokens_answer_as_one(letters: Path, tmp_path: Path) -> None:
    """The second one has the same characters with other numbers."""
    size = len(CHARACTERS)
    order = [*range(len(SPECIAL)), *(len(SPECIAL) + i for i in np.random.default_rng(1).permutation(size))]
    tokenizer, model = make_tokenizer(), load(letters)
    with torch.no_grad():
        for one in (model.get_input_embeddings(), model.get_output_embeddings()):
            one.weight.copy_(one.weight[order].clone())
    model.save_pretrained(tmp_path)
    names = tokenizer.convert_ids_to_tokens(order)
    core = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[], unk_token="<unk>"))
    core.decoder, core.post_processor = decoders.Fuse(), tokenizer.backend_tokenizer.post_processor
    core.add_special_tokens(list(SPECIAL))
    settings = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=core, **settings).save_pretrained(tmp_path)
    expected = HfEngine(CONFIG, model=str(letters), adapter=None).generate(PROMPTS, max_new_tokens=12)
    for mixing in ([0.5, 0.5], [0.0, 1.0], [1.7, -0.7]):
        assert engine_of(letters, tmp_path, mixing=mixing).generate(PROMPTS, max_new_tokens=12) == expected


LINES = ["What is 2 + 3? The answer is 5.", "user assistant system 78 44", "Q: A: model hello world"]


@pytest.fixture(scope="module")
def trained(tiny_llama: Path, other: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The Llama and the GPT-2, which have learned some lines."""
    return [taught(source, tmp_path_factory.mktemp("taught")) for source in (tiny_llama, other)]


def taught(source: Path, folder: Path) -> Path:
    tokenizer, model = AutoTokenizer.from_pretrained(source), load(source).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.2 if parameter.dim() > 1 else 1)
    rows = [[*tokenizer(line).input_ids, tokenizer.eos_token_id] for line in LINES]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    labels = torch.tensor([row + [-100] * (width - len(row)) for row in rows])
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(120):
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("mixing", [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
def test_trained_models_write_what_they_have_learned(trained: list[Path], mixing: list[float]) -> None:
    """Alone, a model gives its own answers, with tokens of several bytes; together, they agree."""
    prompts, rest = (
        ["What is", "user", "Q:"],
        [" 2 + 3? The answer is 5.", " assistant system 78 44", " A: model hello world"],
    )
    engine = engine_of(*trained, mixing=mixing)
    assert engine.generate(prompts, max_new_tokens=30) == rest
    for folder in (folder for folder, weight in zip(trained, mixing, strict=True) if weight == 1):
        alone = HfEngine(CONFIG, model=str(folder), adapter=None)
        for limit in (1, 4, 30):
            expected = alone.generate(prompts, max_new_tokens=limit)
            assert engine.generate(prompts, max_new_tokens=limit) == expected
        options = [(text,) for text in rest]
        scores = zip(alone.loglikelihood(prompts, options), engine.loglikelihood(prompts, options), strict=True)
        for theirs, ours in scores:
            assert ours[0].logprob == pytest.approx(theirs[0].logprob, abs=0.02)


def test_mixed_answers_are_those_of_the_mixed_bytes(tiny_llama: Path, other: Path) -> None:
    engine = engine_of(tiny_llama, other, mixing=[0.6, 0.4])
    answers = engine.generate(PROMPTS, max_new_tokens=10)
    assert answers == [engine.generate([prompt], max_new_tokens=10)[0] for prompt in PROMPTS]
    scores = engine.verify(PROMPTS, answers, max_new_tokens=10, logprobs=True)
    assert [one.reply for one in scores] == answers
    parts = [engine_of(tiny_llama, mixing=[1.0]), engine_of(other, mixing=[1.0])]
    first = [(chr(i),) for i in range(32, 127)]
    whole = [engine.loglikelihood(["x"], [one])[0][0].logprob for one in first]
    each = [[part.loglikelihood(["x"], [one])[0][0].logprob for one in first] for part in parts]
    mixed = 0.6 * np.exp(each[0]) + 0.4 * np.exp(each[1])
    np.testing.assert_allclose(np.exp(whole), mixed, rtol=1e-4)
    assert scores[0].logprob is not None and scores[0].logprob < 0


def test_a_model_that_cannot_write_a_character_is_left_out(tiny_llama: Path, other: Path) -> None:
    engine, alone = engine_of(tiny_llama, other, mixing=[0.5, 0.5]), engine_of(other, mixing=[1.0])
    both, one = (e.loglikelihood(["x"], [("ü",)])[0][0].logprob for e in (engine, alone))
    # The first byte has half of its probability, and the second one all of it.
    assert both == pytest.approx(one + math.log(0.5), abs=1e-3)
    none = engine_of(tiny_llama, mixing=[1.0]).loglikelihood(["x"], [("ü",)])[0][0].logprob
    assert none < -80


def test_an_answer_ends_where_no_model_goes_on(tiny_llama: Path, other: Path) -> None:
    engine = engine_of(tiny_llama, other, mixing=[0.5, 0.5])
    for answer in engine.generate(PROMPTS, max_new_tokens=3):
        assert len(answer.encode()) <= 3 * max(map(len, token_bytes(engine._readers[1].encoder).values()))
    assert engine_of(tiny_llama, other, mixing=[0.0, 0.0]).generate(PROMPTS, max_new_tokens=3) == ["", "", ""]


def test_a_character_that_the_limit_cuts_is_dropped(tmp_path: Path) -> None:
    """The model writes the first byte of a character, whose rest the limit cuts."""
    folder = save_other(tmp_path)
    model = load(folder)
    byte = next(
        n for n, word in token_bytes(engine_of(folder, mixing=[1.0])._readers[0].encoder).items() if word == b"\xc3"
    )
    with torch.no_grad():
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.copy_(model.lm_head.weight[byte] * 100)
    model.save_pretrained(folder)
    assert engine_of(folder, mixing=[1.0]).generate(["x"], max_new_tokens=1) == [""]
    assert engine_of(folder, mixing=[1.0]).generate(["x"], max_new_tokens=2) == ["\N{REPLACEMENT CHARACTER}"]


def test_whole_texts_are_refused(tiny_llama: Path) -> None:
    with pytest.raises(UserError, match="no likelihood of whole texts"):
        engine_of(tiny_llama, mixing=[1.0]).rolling(["a text"])


# runs


@pytest.fixture(scope="module")
def world(tiny_llama: Path, other: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A pool of a Llama of characters, a GPT-2 of bytes and an adapter, and questions with answers of a letter."""
    folder = tmp_path_factory.mktemp("world")
    shutil.copytree(tiny_llama, folder / "base")
    shutil.copytree(other, folder / "pool" / "other")
    save_adapter(folder / "base", folder / "pool" / "tuned", seed=2)
    rows = [{"id": i, "question": f"say {'abcdefgh'[i % 8]}", "answer": "abcdefgh"[i * 3 % 8]} for i in range(20)]
    (folder / "letters.json").write_text(json.dumps({"dataset": "letters", "dev": rows[:12], "test": rows[12:]}))
    task = {"type": "chrf", "data": "letters.json", "prompt": {"template": "{question}:"}, "max_new_tokens": 4}
    return folder, {
        "name": "bytes",
        "model": "base",
        "pool": {"kind": "models", "experts": "pool", "include_base": True},
        "utility": task,
        "search": {"type": "model_swarms", "population": 3, "max_generations": 2},
        "engine": {"batch_size": 8},
        "backend": {"type": "local"},
    }


@pytest.fixture(scope="module")
def finished(world: World, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A finished run."""
    config = config_of(world[1], world[0], tmp_path_factory.mktemp("runs"))
    evoswarm.run(config)
    return config


def test_a_run_ends_with_coefficients_that_give_the_same_utility_again(finished: RunConfig) -> None:
    summary, mix = evoswarm.run(finished), read_mix(finished.run_dir / "best")
    assert mix is not None and mix.kind == "models"
    again = measure(finished, adapter=finished.run_dir / "best", recipe=None, split="test")
    assert again.utility == summary["best"]["test"]


def test_a_run_that_is_stopped_ends_in_the_same_bytes(world: World, finished: RunConfig, tmp_path: Path) -> None:
    config, seen = config_of(world[1], world[0], tmp_path), list[Event]()

    def stop() -> bool:
        return sum(event["kind"] == "progress" for event in seen) >= 4

    with pytest.raises(Stopped):
        evoswarm.run(config, callbacks=Callbacks(notify=seen.append, stop=stop))
    evoswarm.run(config, resume="must")
    for name in ("generations.jsonl", "recipe.json", "best/mix.json"):
        assert (config.run_dir / name).read_bytes() == (finished.run_dir / name).read_bytes()


def test_a_worker_and_the_check_of_prompts_give_every_model_its_own_tokenizer(world: World, tmp_path: Path) -> None:
    config = config_of(world[1], world[0], tmp_path)
    inputs = read_inputs(config)
    assert check_prompts(config, inputs) == []
    worker = Worker(config, pool=inputs.pool, utility=inputs.utility)
    assert isinstance(worker._engine, ByteEngine) and worker.notices == []
    worker.close()


def test_a_prompt_that_is_too_long_for_one_model_is_refused_with_its_name(world: World, tmp_path: Path) -> None:
    config = config_of(world[1], world[0], tmp_path, f"utility.prompt.template={'x' * 200}{{question}}")
    with pytest.raises(UserError, match="model other: .* a prompt has .* tokens, the model takes 128"):
        check_prompts(config, read_inputs(config))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("engine={type: vllm}", "its vocabulary is not that of .*; next-token scores .* engine.type transformers"),
        ("pool={kind: steering, small_model: base, experts: [pool/other]}", "its vocabulary is not that of"),
    ],
)
def test_what_cannot_write_together_is_refused_before_any_work(
    world: World, tmp_path: Path, change: str, why: str
) -> None:
    config = config_of(world[1], world[0], tmp_path, change)
    with pytest.raises(UserError, match=why) as error:
        require_answers(config, *opened(config))
    assert "\n" not in str(error.value)


class Rolling:
    """A utility that reads an answer and asks for the likelihood of a text."""

    splits = ("validation", "test")

    def requests(self, split: Split) -> list[Request]:
        return [Generate("x", max_new_tokens=4), Choose("", ("a text",), rolling=True)]

    def follow(self, split: Split, index: int, response: Single) -> None:
        return None


def test_the_likelihood_of_whole_texts_is_refused_before_any_work(world: World, tmp_path: Path) -> None:
    config = config_of(world[1], world[0], tmp_path)
    with pytest.raises(UserError, match="give no likelihood of whole texts; .* leave that task out"):
        require_answers(config, opened(config)[0], cast(Utility, Rolling()))


def test_the_winner_of_different_vocabularies_is_not_served(finished: RunConfig) -> None:
    with pytest.raises(UserError, match="its vocabulary is not that of .* combines only models of one vocabulary"):
        offer_of(finished.run_dir, Choice())
