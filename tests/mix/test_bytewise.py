"""Models of different vocabularies that write together byte by byte."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mix_helpers import save_other
from tiny_models import BOS, CHARACTERS, PAD, SPECIAL, UNK, load, make_tokenizer
from tiny_models import END as END_TOKEN
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from evoswarm.engine import TransformersEngine
from evoswarm.engine.combined.bytewise import ByteEngine
from evoswarm.engine.combined.combination import Combination, Member
from evoswarm.engine.combined.covers import END
from evoswarm.engine.combined.token_bytes import token_bytes
from evoswarm.engine.transformers import HfEngine
from evoswarm.errors import UserError

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
    for stop in ((), ("e",), ("</s>", "ab")):
        expected = alone.generate(PROMPTS, max_new_tokens=20, stop=stop)
        assert engine.generate(PROMPTS, max_new_tokens=20, stop=stop) == expected
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
