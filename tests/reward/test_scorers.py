"""Scoring models on CPU: what they read, padding, long texts, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import END, EOS, PAD, make_tokenizer, save_llama
from tiny_scorers import QUESTIONS, TEXTS, change, save_internlm2, save_scorer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from evoswarm.errors import UserError
from evoswarm.reward.texts import TextEncoder
from evoswarm.utility.scoring import Exchange, ScoringModel

EXCHANGES = [Exchange(question, answer) for question, answer in zip(QUESTIONS, TEXTS, strict=True)]
Copied = Callable[..., Path]


def scores(model: Path, texts: list[Exchange] = EXCHANGES, **settings: Any) -> list[tuple[float, ...]]:
    found = ScoringModel(model=str(model), **settings).start().score(texts)
    assert all(one.error is None for one in found)
    return [one.logits for one in found]


def by_hand(model: Path, *given: Any, **settings: Any) -> list[float]:
    """The outputs of transformers for one text alone, without padding."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    inputs = tokenizer(*given, return_tensors="pt", **settings)
    with torch.inference_mode():
        logits = AutoModelForSequenceClassification.from_pretrained(model).eval()(**inputs).logits
    return list(map(float, logits[0]))


def refusal(model: Path, **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        ScoringModel(model=str(model), **settings).inspect()
    assert "\n" not in str(caught.value) and str(model) in str(caught.value)
    return str(caught.value)


def test_a_chat_is_read_in_the_models_own_template_without_more_special_tokens(reward_model: Path) -> None:
    texts = [*EXCHANGES, Exchange("Hi", "fine", system="Be kind.")]
    expected = [f"<s>[user]{text.question}[assistant]{text.answer}" for text in EXCHANGES]
    expected.append("<s>[system]Be kind.[user]Hi[assistant]fine")
    alone = [by_hand(reward_model, text, add_special_tokens=False) for text in expected]
    assert scores(reward_model, texts) == [pytest.approx(row, abs=1e-5) for row in alone]


def test_a_pair_has_the_tokenizers_special_tokens_and_says_which_text_is_which(toxicity: Path) -> None:
    alone = [by_hand(toxicity, text.question, text.answer) for text in EXCHANGES]
    assert scores(toxicity, input="pair") == [pytest.approx(row, abs=1e-5) for row in alone]
    alone = [by_hand(toxicity, text.answer) for text in EXCHANGES]
    assert scores(toxicity, input="answer") == [pytest.approx(row, abs=1e-5) for row in alone]


def test_scores_depend_neither_on_the_order_nor_on_the_batch(reward_model: Path) -> None:
    whole = scores(reward_model)
    assert scores(reward_model, EXCHANGES[::-1])[::-1] == [pytest.approx(row, abs=1e-5) for row in whole]
    assert scores(reward_model, batch_size=1) == [pytest.approx(row, abs=1e-5) for row in whole]
    assert len({round(row[0], 4) for row in whole}) == len(whole)


@pytest.mark.parametrize("pad", [None, EOS, PAD, 7])
def test_a_missing_or_shared_padding_token_changes_nothing(reward_model: Path, copied: Copied, pad: int | None) -> None:
    model = copied(reward_model, pad_token_id=pad)
    change(model, "tokenizer_config.json", pad_token="</s>" if pad == EOS else None, padding_side="left")
    assert scores(model) == [pytest.approx(row, abs=1e-5) for row in scores(reward_model)]


def test_padding_tokens_at_the_end_of_a_text_are_not_where_a_score_is_read(reward_model: Path, copied: Copied) -> None:
    model = copied(reward_model, pad_token_id=EOS)
    (model / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}</s>")
    alone = [by_hand(model, f"{t.question}{t.answer}</s>", add_special_tokens=False) for t in EXCHANGES]
    assert scores(model) == [pytest.approx(row, abs=1e-5) for row in alone]


def test_a_reward_token_ends_the_text(reward_model: Path, copied: Copied) -> None:
    model = copied(reward_model, reward_token_id=4)
    expected = [
        by_hand(model, f"<s>[user]{t.question}[assistant]{t.answer}<end>", add_special_tokens=False) for t in EXCHANGES
    ]
    assert scores(model) == [pytest.approx(row, abs=1e-5) for row in expected]


def test_another_template_can_be_given(reward_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.jinja"
    path.write_text("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}")
    alone = [
        by_hand(reward_model, f"<user>{t.question}<assistant>{t.answer}", add_special_tokens=False) for t in EXCHANGES
    ]
    assert scores(reward_model, chat_template=path) == [pytest.approx(row, abs=1e-5) for row in alone]


def test_a_text_that_is_too_long_fails_or_loses_the_start_of_the_question(reward_model: Path) -> None:
    long = Exchange("abc" * 100, "answer")
    fails = ScoringModel(model=str(reward_model)).start().score([long, EXCHANGES[0]])
    assert fails[0].error is not None and "324 tokens, the model takes 256" in fails[0].error
    assert fails[0].logits == () and fails[1].error is None
    cut = ScoringModel(model=str(reward_model), too_long="cut", max_length=40).start()
    (one, other) = cut.score([long, EXCHANGES[0]])
    assert (one.cut, other.cut) == (True, False)
    short = Exchange(long.question[-(40 - 24) :], "answer")
    assert one.logits == pytest.approx(scores(reward_model, [short])[0], abs=1e-5)
    (hopeless,) = cut.score([Exchange("Why", "x" * 41)])
    assert hopeless.error is not None and "the answer alone" in hopeless.error


def test_an_answer_alone_loses_its_end(toxicity: Path) -> None:
    scorer = ScoringModel(model=str(toxicity), input="answer", too_long="cut").start()
    (one,) = scorer.score([Exchange("", "ab" * 50)])
    (same,) = scorer.score([Exchange("", ("ab" * 50)[:63])])
    assert one.cut and not same.cut and one.logits == pytest.approx(same.logits, abs=1e-5)


def test_lengths_are_in_the_models_tokens(reward_model: Path) -> None:
    found = ScoringModel(model=str(reward_model)).start().score([Exchange("Why", "four"), Exchange("Why", "")])
    assert [one.tokens for one in found] == [5, 1]  # with <s>, which this tokenizer adds


def test_an_overflow_is_a_failed_text(reward_model: Path, copied: Copied) -> None:
    model = copied(reward_model)
    tensors = load_file(model / "model.safetensors")
    save_file(
        {k: v * (float("inf") if k == "score.weight" else 1) for k, v in tensors.items()}, model / "model.safetensors"
    )
    (one,) = ScoringModel(model=str(model)).start().score(EXCHANGES[:1])
    assert one.logits == () and one.error is not None and "not a finite number" in one.error


def test_facts_are_read_without_the_weights(reward_model: Path, toxicity: Path) -> None:
    assert ScoringModel(model=str(reward_model)).inspect().labels == ("reward",)
    assert ScoringModel(model=str(toxicity), input="answer").inspect().labels == ("neutral", "toxic")


def test_a_generative_model_is_refused_and_never_gets_a_random_head(tmp_path: Path) -> None:
    model = save_llama(tmp_path / "llama")
    assert "is a generative model (LlamaForCausalLM) without a score head" in refusal(model)
    with pytest.raises(UserError, match="without a score head"):
        ScoringModel(model=str(model)).start()


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_files_without_the_head_are_refused_even_if_the_config_names_it(tmp_path: Path, kind: str) -> None:
    model = save_scorer(tmp_path / kind, kind=kind)
    tensors = load_file(model / "model.safetensors")
    kept = {name: t for name, t in tensors.items() if not name.startswith(("score.", "classifier."))}
    save_file(kept, model / "model.safetensors", metadata={"format": "pt"})
    assert "ForSequenceClassification) without a score head: its files do not contain" in refusal(model)


def test_files_without_a_layer_are_refused(reward_model: Path, copied: Copied) -> None:
    model = copied(reward_model, num_hidden_layers=3)
    with pytest.raises(UserError, match=r"do not contain model\.layers\.2"):
        ScoringModel(model=str(model)).start()


def test_weights_as_a_pickle_are_refused(reward_model: Path, copied: Copied) -> None:
    model = copied(reward_model)
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    assert "a pickle" in refusal(model) and "AutoModelForSequenceClassification.from_pretrained" in refusal(model)


def test_a_missing_tokenizer_or_folder_is_named(reward_model: Path, copied: Copied, tmp_path: Path) -> None:
    model = copied(reward_model)
    for path in model.glob("tokenizer*"):
        path.unlink()
    assert "the tokenizer cannot be loaded" in refusal(model)
    assert "no such folder" in refusal(tmp_path / "none")


def test_a_model_without_template_or_with_one_that_hides_the_answer_is_refused(
    reward_model: Path, other_reward_model: Path, copied: Copied
) -> None:
    assert "has no chat template; set chat_template" in refusal(other_reward_model)
    assert ScoringModel(model=str(other_reward_model), input="pair").inspect().labels == ("reward",)
    model = copied(reward_model)
    (model / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert "leaves out the" in refusal(model)


def test_a_tokenizer_of_another_model_is_refused(reward_model: Path, copied: Copied) -> None:
    model = copied(reward_model)
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["answer"])
    tokenizer.save_pretrained(model)
    with pytest.raises(UserError, match="its vocabulary has only"):
        ScoringModel(model=str(model)).start().score([Exchange("Why", "an answer")])


def test_reasoning_about_a_limit(reward_model: Path, copied: Copied) -> None:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(reward_model)
    model = str(reward_model)
    assert TextEncoder(ScoringModel(model=model), config).longest == 256
    assert TextEncoder(ScoringModel(model=model, max_length=90), config).longest == 90
    assert TextEncoder(ScoringModel(model=model, max_length=9000), config).longest == 256


@pytest.mark.slow
def test_vllm_gives_the_same_scores(reward_model: Path, toxicity: Path, copied: Copied) -> None:
    shared = copied(reward_model, pad_token_id=EOS)
    (shared / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}</s>")
    for model, how in [(shared, "chat"), (toxicity, "pair")]:
        expected = scores(model, input=how)
        scorer = ScoringModel(model=str(model), input=how, engine="vllm", args={"enforce_eager": True}).start()
        found = [one.logits for one in scorer.score(EXCHANGES)]
        assert found == [pytest.approx(row, abs=1e-4) for row in expected], how
        assert [one.logits for one in scorer.score(EXCHANGES[::-1])][::-1] == [
            pytest.approx(r, abs=1e-4) for r in found
        ]
        scorer.close()


@pytest.mark.slow
def test_vllm_reads_the_reward_of_internlm2_at_its_reward_token(reward_model: Path, tmp_path: Path) -> None:
    model = save_internlm2(reward_model, tmp_path / "internlm2", reward_token_id=END)
    scorer = ScoringModel(model=str(model), engine="vllm", trust_remote_code=True, args={"enforce_eager": True}).start()
    found = [one.logits for one in scorer.score(EXCHANGES)]
    scorer.close()
    texts = [f"<s>[user]{text.question}[assistant]{text.answer}<end>" for text in EXCHANGES]
    expected = [by_hand(reward_model, text, add_special_tokens=False) for text in texts]
    assert found == [pytest.approx(row, abs=1e-4) for row in expected]


def test_code_that_comes_with_a_model_does_not_run_unless_it_is_trusted(reward_model: Path, tmp_path: Path) -> None:
    model = save_internlm2(reward_model, tmp_path / "internlm2", reward_token_id=END)
    assert "comes with code of its own; set trust_remote_code: true" in refusal(model)
    assert ScoringModel(model=str(model), trust_remote_code=True).inspect().labels == ("reward",)


@pytest.mark.parametrize("name", ["LlamaForTokenClassification", "Qwen2ForProcessRewardModel"])
def test_a_head_that_scores_tokens_is_refused(reward_model: Path, copied: Copied, name: str) -> None:
    assert f"is {name}, which does not score whole texts" in refusal(copied(reward_model, architectures=[name]))
