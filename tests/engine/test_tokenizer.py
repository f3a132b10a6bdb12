"""Which tokenizer and chat template a run uses, and what is said about its prompts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from real_tokenizers import CHATML, GEMMA, LLAMA3, TOKENIZERS, bytes_bpe
from tiny_models import save_adapter

from evoswarm.config.load import parse_config
from evoswarm.engine.tokenizer import RunTokenizer, check_prompts, run_tokenizer
from evoswarm.errors import UserError
from evoswarm.loop.inputs import check_prompts as check_inputs
from evoswarm.loop.inputs import read_inputs
from evoswarm.utility import Chat
from evoswarm.utility.types import Choose, Generate

Save = Callable[..., Path]
QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Qwen's base: the vocabulary of ChatML, no template, another end token."""
    bytes_bpe(QWEN, eos_token="<|endoftext|>").save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes an expert's folder: with a tokenizer, and a template as transformers or an older version saves it."""

    def saved(name: str, tokenizer: Any = None, template: str | None = None, *, jinja: bool = True) -> Path:
        folder = tmp_path / "experts" / name
        folder.mkdir(parents=True)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
        if template is not None and jinja:
            (folder / "chat_template.jinja").write_text(template)
        elif template is not None:
            settings = folder / "tokenizer_config.json"
            before = json.loads(settings.read_text()) if settings.exists() else {}
            settings.write_text(json.dumps(before | {"chat_template": template}))
        return folder

    return saved


def chosen(base: Path, *folders: Path, **settings: Any) -> RunTokenizer:
    return run_tokenizer(str(base), {f.name: f for f in folders}, trust_remote_code=False, **settings)


def test_the_base_models_tokenizer_is_used_if_the_experts_bring_none_or_the_same(base: Path, save: Save) -> None:
    same = [save(name, bytes_bpe(QWEN, eos_token="<|endoftext|>", pad_token="<|im_end|>")) for name in "ab"]
    for folders in ([save("c")], same):
        found = chosen(base, *folders)
        assert found.notices == () and found.tokenizer.name_or_path == str(base)
        assert found.tokenizer.pad_token == "<|endoftext|>"


@pytest.mark.parametrize("jinja", [True, False])
def test_a_chat_template_on_which_the_experts_agree_is_used_and_said(base: Path, save: Save, jinja: bool) -> None:
    found = chosen(base, save("a", template=CHATML, jinja=jinja), save("b"), save("c", template=CHATML + "\n"))
    assert found.tokenizer.chat_template == CHATML and found.tokenizer.name_or_path == str(base)
    assert found.notices == ("the chat template that was saved with a, c is used; the base model has none",)
    assert chosen(base, save("d", template=CHATML), chats=False).notices == ()


def test_the_tokenizer_and_template_of_a_training_belong_to_its_checkpoints(base: Path, save: Save) -> None:
    (base / "chat_template.jinja").write_text(GEMMA)
    trained = save("a", TOKENIZERS["qwen"]())
    for name in ("checkpoint-10", "other"):
        (trained / name).mkdir()
    found = chosen(base, trained / "checkpoint-10")
    assert (found.tokenizer.eos_token, found.tokenizer.chat_template) == ("<|im_end|>", CHATML)
    assert [notice.endswith("is used; the base model has another one") for notice in found.notices] == [True, True]
    (trained / "checkpoint-10" / "chat_template.jinja").write_text(LLAMA3)
    assert chosen(base, trained / "checkpoint-10").tokenizer.chat_template == LLAMA3
    assert chosen(base, trained / "other").notices == ()


def test_a_byte_order_mark_is_no_part_of_a_template_and_an_empty_file_is_none(base: Path, save: Save) -> None:
    folder = save("a")
    (folder / "chat_template.jinja").write_bytes(b"\xef\xbb\xbf" + CHATML.encode())
    assert chosen(base, folder).tokenizer.chat_template == CHATML
    (folder / "chat_template.jinja").write_text(" \n")
    assert chosen(base, folder).tokenizer.chat_template is None
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": LLAMA3}))
    assert chosen(base, folder).tokenizer.chat_template == LLAMA3


def test_chat_templates_on_which_the_experts_do_not_agree_are_said_and_not_used(base: Path, save: Save) -> None:
    (base / "chat_template.jinja").write_text(GEMMA)
    found = chosen(base, save("a", template=CHATML), save("b", template=LLAMA3), save("c", template=CHATML))
    assert found.tokenizer.chat_template == GEMMA
    (notice,) = found.notices
    assert "a, c / b were saved with different chat templates; the base model's is used" in notice
    assert chosen(base, save("d", template=GEMMA + "\n")).notices == ()


def test_a_tokenizer_on_which_the_experts_agree_is_used_with_its_template_and_end_token(base: Path, save: Save) -> None:
    found = chosen(base, save("a", TOKENIZERS["qwen"]()), save("b", TOKENIZERS["qwen"]()), save("c"))
    assert found.tokenizer.eos_token == "<|im_end|>" and found.tokenizer.chat_template == CHATML
    assert found.notices == (
        "the tokenizer that was saved with a, b is used; the base model has another one",
        "the chat template that was saved with a, b is used; the base model has none",
    )


def test_a_token_for_padding_makes_no_other_tokenizer_but_another_start_of_prompts_does(base: Path, save: Save) -> None:
    padded = bytes_bpe([*QWEN, "<|PAD_TOKEN|>"], eos_token="<|endoftext|>", pad_token="<|PAD_TOKEN|>")
    assert chosen(base, save("a", padded)).notices == ()
    started = bytes_bpe(QWEN, eos_token="<|endoftext|>", bos="<|im_start|>")
    (notice,) = chosen(base, save("b", started)).notices
    assert notice == "the tokenizer that was saved with b is used; the base model has another one"


def test_added_tokens_of_the_experts_are_one_token_in_prompts(tmp_path: Path, save: Save) -> None:
    bytes_bpe(["<|endoftext|>"], eos_token="<|endoftext|>").save_pretrained(tmp_path / "base")
    found = chosen(tmp_path / "base", save("a", TOKENIZERS["qwen"]()))
    made = found.encoder()
    ids = made.prompt(Chat((("user", "hi"),)))
    assert ids[0] == found.tokenizer.convert_tokens_to_ids("<|im_start|>")
    rows = len(found.tokenizer) - 2
    with pytest.raises(UserError, match=rf"has token {ids[0]} .'<.im_start.>'., and the base model's vocabulary has"):
        found.encoder(rows=rows).prompt(Chat((("user", "hi"),)))
    assert found.encoder(ends=[rows, 3], rows=rows).ends == (3,)


def test_the_experts_tokenizer_is_used_if_the_base_model_has_none(tmp_path: Path, save: Save) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    found = chosen(tmp_path / "base", save("a", TOKENIZERS["qwen"]()))
    assert found.tokenizer.chat_template == CHATML
    assert found.notices == ("the tokenizer that was saved with a is used; the base model has none",)
    with pytest.raises(UserError, match="base: the tokenizer cannot be loaded"):
        chosen(tmp_path / "base", save("b"))
    with pytest.raises(UserError, match="base: the tokenizer cannot be loaded"):
        chosen(tmp_path / "base", tmp_path / "experts" / "a", save("c", TOKENIZERS["llama 3"]()))


def test_the_default_of_several_templates_and_that_of_a_processor_are_the_base_models(base: Path, save: Save) -> None:
    (base / "chat_template.json").write_text(json.dumps({"chat_template": LLAMA3}))
    assert chosen(base).tokenizer.chat_template == LLAMA3
    settings = json.loads((base / "tokenizer_config.json").read_text())
    several = [{"name": "default", "template": CHATML}, {"name": "tool_use", "template": "x"}]
    (base / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": several}))
    found = chosen(base, save("a", template=CHATML))
    assert (found.tokenizer.chat_template, found.notices) == (CHATML, ())


def test_tokenizers_on_which_the_experts_do_not_agree_are_said_and_not_used(base: Path, save: Save) -> None:
    found = chosen(base, save("a", TOKENIZERS["qwen"]()), save("b", TOKENIZERS["llama 3"]()), chats=False)
    assert found.tokenizer.name_or_path == str(base)
    assert found.notices == ("a / b were saved with different tokenizers; the base model's is used",)


def test_a_tokenizer_that_cannot_be_loaded_is_said_and_not_used(base: Path, save: Save) -> None:
    folder = save("a")
    (folder / "tokenizer.json").write_text("{}")
    found = chosen(base, folder)
    assert found.tokenizer.name_or_path == str(base)
    assert found.notices[0].startswith("the tokenizer that was saved with a is not used: ")


def notices(name: str, *prompts: Any, longest: int | None = None) -> list[str]:
    requests = [p if isinstance(p, Generate | Choose) else Generate(p, 4) for p in prompts]
    return check_prompts(RunTokenizer(TOKENIZERS[name]()), requests, longest=longest, rows=10**6)


def test_what_is_odd_about_prompts_is_said_before_the_run() -> None:
    assert notices("llama 3", "hi", Chat((("user", "hi"),)), Choose("a", (" b", " cd"))) == []
    assert "twice" in notices("llama 3", "short", "<|begin_of_text|>the longer one")[0]
    assert "does not take a system message" in notices("gemma", Chat((("system", "s"), ("user", "u"))))[0]
    assert notices("llama 2", "2 + 2 =</s>") == [
        "prompts end with the end token </s>; end them where the answer starts"
    ]
    assert len(notices("gpt-2", "a<|endoftext|>")) == 1 and notices("gpt-2", "") == []


def test_a_prompt_that_the_model_cannot_answer_is_refused_before_the_run() -> None:
    with pytest.raises(UserError, match="a prompt has 82 tokens, the model takes 20"):
        notices("llama 2", "hi", "5 " * 40, longest=20)
    with pytest.raises(UserError, match="a prompt has 11 tokens, the model takes 10"):
        notices("gpt-2", Choose("a", ("b", "b" * 11)), longest=10)


def test_validate_renders_prompts_without_loading_the_model(tiny_llama: Path, tmp_path: Path) -> None:
    import shutil

    model = shutil.copytree(tiny_llama, tmp_path / "model")
    for name in "ab":
        save_adapter(model, tmp_path / "pool" / name)
    (tmp_path / "x.json").write_text(json.dumps([{"question": "2 + 3", "answer": "5"}]))
    (model / "chat_template.jinja").write_text(GEMMA)
    prompt = {"chat_template": True, "system": "Be brief."}
    utility = {"type": "exact_match", "data": {"path": "x.json", "test": None}, "prompt": prompt}
    config = parse_config({"model": str(model), "pool": "pool", "utility": utility}, root=tmp_path)
    inputs = read_inputs(config)
    (model / "model.safetensors").unlink()
    assert "does not take a system message" in check_inputs(config, inputs)[0]
    (model / "chat_template.jinja").write_text("{{ raise_exception('never') }}")
    with pytest.raises(UserError, match=r"cannot be used \(never\); set utility.prompt.chat_template: false"):
        check_inputs(config, inputs)
