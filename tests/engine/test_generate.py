"""Greedy generation: what is answered does not depend on the company, and ends where it should."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import END, EOS, UNK, load, make_tokenizer
from transformers import AutoTokenizer, GenerationConfig

from evoswarm.engine import TransformersEngine
from evoswarm.engine.base import answer
from evoswarm.engine.transformers import HfEngine
from evoswarm.errors import UserError
from evoswarm.utility import Chat
from evoswarm.utility.types import Choose, Generate

PROMPTS = ["a", "What is 2 + 3?", "The quick brown fox jumps over the lazy dog.", "zz zz"]


@pytest.fixture(scope="module", params=["tiny_llama", "tiny_gpt2"])
def engine(request: pytest.FixtureRequest) -> HfEngine:
    folder = request.getfixturevalue(request.param)
    return HfEngine(TransformersEngine(device="cpu"), model=str(folder), adapter=None)


@pytest.fixture(scope="module")
def llama(tiny_llama: Path) -> HfEngine:
    return HfEngine(TransformersEngine(device="cpu"), model=str(tiny_llama), adapter=None)


def always(engine: HfEngine, monkeypatch: pytest.MonkeyPatch, order: list[int]) -> None:
    """Make the model emit the tokens of `order`, one per step, whatever it is asked."""
    forward, step = engine.model.forward, iter(order)

    def scripted(*args: object, **kwargs: object):  # type: ignore[no-untyped-def]
        output = forward(*args, **kwargs)
        output.logits[:, -1] = 0
        output.logits[:, -1, next(step)] = 1
        return output

    monkeypatch.setattr(engine.model, "forward", scripted)


def test_a_prompt_is_continued_the_same_alone_and_in_a_batch(engine: HfEngine) -> None:
    together = engine.generate(PROMPTS, max_new_tokens=12)
    assert together == [engine.generate([prompt], max_new_tokens=12)[0] for prompt in PROMPTS]
    assert len(set(together)) > 1


def test_generation_is_the_greedy_choice_of_a_plain_forward_loop(engine: HfEngine) -> None:
    ids = engine.tokenizer(PROMPTS[1]).input_ids
    length = len(ids)
    with torch.no_grad():
        for _ in range(8):
            ids.append(int(engine.model(torch.tensor([ids])).logits[0, -1].argmax()))
    ends = [i for i, token in enumerate(ids[length:]) if token in (EOS, END)]
    expected = engine.tokenizer.decode(ids[length : length + (ends[0] if ends else 8)], skip_special_tokens=True)
    assert engine.generate([PROMPTS[1]], max_new_tokens=8) == [expected]


@pytest.mark.parametrize("end", [EOS, END])
def test_generation_stops_at_each_end_token_of_the_model(
    llama: HfEngine, monkeypatch: pytest.MonkeyPatch, end: int
) -> None:
    letters = llama.tokenizer("abcd", add_special_tokens=False).input_ids
    always(llama, monkeypatch, [*letters[:2], end, *letters[2:]])
    assert llama.generate(["x", "yy"], max_new_tokens=5) == ["ab", "ab"]


def test_generation_ends_with_its_budget(llama: HfEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    letters = llama.tokenizer("abcd", add_special_tokens=False).input_ids
    always(llama, monkeypatch, letters)
    assert llama.generate(["x"], max_new_tokens=3) == ["abc"]


@pytest.mark.parametrize(
    ("stop", "text"),
    [((), "ab\ncd"), (("\n",), "ab"), (("c", "b"), "a"), (("b\nc",), "a"), (("z",), "ab\ncd"), (("a",), "")],
)
def test_text_is_cut_at_the_first_stop_string(
    llama: HfEngine, monkeypatch: pytest.MonkeyPatch, stop: tuple[str, ...], text: str
) -> None:
    always(llama, monkeypatch, llama.tokenizer("ab\ncd", add_special_tokens=False).input_ids)
    assert llama.generate(["x"], max_new_tokens=5, stop=stop) == [text]


def test_a_stop_string_that_is_a_special_token_ends_the_answer_without_further_steps(
    llama: HfEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = llama.tokenizer("ab", add_special_tokens=False).input_ids
    always(llama, monkeypatch, [*letters, UNK])
    assert llama.generate(["x"], max_new_tokens=9, stop=("z", "<unk>")) == ["ab"]


def test_sampling_settings_that_come_with_a_model_are_not_used(tiny_llama: Path, tmp_path: Path) -> None:
    expected = HfEngine(TransformersEngine(device="cpu"), model=str(tiny_llama), adapter=None).generate(
        PROMPTS, max_new_tokens=12
    )
    model = load(tiny_llama)
    model.generation_config = GenerationConfig(
        repetition_penalty=5.0, num_beams=3, do_sample=True, temperature=0.7, eos_token_id=[EOS, END]
    )
    model.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    engine = HfEngine(TransformersEngine(device="cpu"), model=str(tmp_path), adapter=None)
    assert engine.generate(PROMPTS, max_new_tokens=12) == expected


def test_plain_text_and_chat_begin_with_exactly_one_bos(llama: HfEngine) -> None:
    bos = llama.tokenizer.bos_token_id
    chat = Chat((("system", "be kind"), ("user", "hi")))
    for prompt in ("hi", chat):
        ids = llama._encoder.prompt(prompt)
        assert ids[0] == bos and ids.count(bos) == 1
    assert llama.tokenizer.decode(llama._encoder.prompt(chat)) == "<s>[system]be kind[user]hi[assistant]"
    assert llama.tokenizer.decode(llama._encoder.option(chat, " A")[1]) == " A"


def test_a_chat_is_continued_as_the_text_that_its_template_makes(llama: HfEngine) -> None:
    chat = llama.generate([Chat((("user", "hi"),))], max_new_tokens=6)
    assert chat == llama.generate(["[user]hi[assistant]"], max_new_tokens=6)


def test_a_tokenizer_without_chat_template_is_a_user_error(tiny_llama: Path) -> None:
    engine = HfEngine(TransformersEngine(device="cpu"), model=str(tiny_llama), adapter=None)
    engine.tokenizer.chat_template = None
    with pytest.raises(
        UserError, match="chat template cannot be used .the tokenizer has none.*utility.prompt.chat_template: false"
    ):
        engine.generate([Chat((("user", "hi"),))], max_new_tokens=2)
    engine.tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(UserError, match="no system role"):
        engine.generate([Chat((("user", "hi"),))], max_new_tokens=2)


def test_a_prompt_longer_than_the_models_context_is_a_user_error(engine: HfEngine) -> None:
    limit = engine.model.config.max_position_embeddings
    with pytest.raises(UserError, match=f"a prompt has {limit + 1} tokens, the model takes {limit}"):
        engine.generate(["x" * limit], max_new_tokens=1)
    with pytest.raises(UserError, match="shorten the prompts"):
        engine.loglikelihood(["x" * limit], [["y", "z"]])
    assert len(engine.generate(["x"], max_new_tokens=1)) == 1


def test_an_empty_prompt_is_continued_from_the_first_token(engine: HfEngine) -> None:
    assert engine.generate(["", "abc"], max_new_tokens=3)[0] == engine.generate([""], max_new_tokens=3)[0]


def test_requests_of_different_budgets_come_back_in_their_order(llama: HfEngine) -> None:
    requests = [Generate(p, max_new_tokens=n) for p, n in zip(PROMPTS, (3, 6, 3, 6), strict=True)]
    expected = [llama.generate([r.prompt], max_new_tokens=r.max_new_tokens)[0] for r in requests]
    assert [reply.response for reply in answer(llama, requests)] == expected
    choose = [Choose(prompt, (" a", " b")) for prompt in PROMPTS[:2]]
    assert [reply.response for reply in answer(llama, choose)] == llama.loglikelihood(PROMPTS[:2], [(" a", " b")] * 2)


def test_a_llama_tokenizer_comes_back_from_disk_as_it_was_saved(tiny_llama: Path) -> None:
    made, loaded = make_tokenizer(), AutoTokenizer.from_pretrained(tiny_llama)
    text = "Q: 2 + 3 = ?\n\tA:  five  <end> é"
    assert loaded(text).input_ids == made(text).input_ids
    assert loaded(text, add_special_tokens=False).input_ids == made(text, add_special_tokens=False).input_ids
    plain = "Q: 2 + 3 = ?\nA:  five."
    assert loaded.decode(loaded(plain).input_ids, skip_special_tokens=True) == plain
    assert loaded.chat_template == made.chat_template and loaded.eos_token_id == EOS


def test_a_context_that_is_full_ends_only_the_answers_that_fill_it(engine: HfEngine) -> None:
    longest = engine.model.config.max_position_embeddings
    prompts = ["ab", "x" * (longest - 4), "y" * (longest - 9)]
    together = engine.generate(prompts, max_new_tokens=7)
    assert together == [engine.generate([prompt], max_new_tokens=7)[0] for prompt in prompts]
    with pytest.raises(
        UserError, match=f"has {longest} tokens, the model takes {longest} with the first of the answer"
    ):
        engine.generate(["x" * (longest - len(engine._encoder.prompt("")))], max_new_tokens=1)


def test_an_answer_ends_where_the_model_takes_no_more(engine: HfEngine) -> None:
    longest = engine.model.config.max_position_embeddings
    prompts = ["x" * (longest - 4), "y" * (longest - 4)]
    texts = engine.generate(prompts, max_new_tokens=50)
    assert texts == [found.reply for found in engine.verify(prompts, texts, max_new_tokens=50)]
    assert {len(engine._encoder.option(p, t)[1]) for p, t in zip(prompts, texts, strict=True)} <= {1, 2, 3, 4, 5}
