"""What experts were trained on, as methods of a comparison read it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evoswarm.compare.bench import Bench
from evoswarm.compare.routing import Router, read_texts, training_records
from evoswarm.compare.trained import merged_data, solved_examples
from evoswarm.config.load import parse_config
from evoswarm.errors import UserError


def file(folder: Path, text: str | bytes, name: str = "a.jsonl") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_records_come_one_after_another_from_each_file(tmp_path: Path) -> None:
    first = file(tmp_path, '{"question": "a"}\n\n{"question": "b"}\n')
    second = file(tmp_path, '{"question": "c\u2028d"}\n', "b.jsonl")
    assert [record["question"] for record in merged_data([first, second])] == ["a", "c\u2028d", "b"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"question": "a"}\n{broken\n{"question": "b"}\n', "a.jsonl, line 2: broken JSON"),
        (b'{"question": "\xff"}', "not UTF-8"),
        ("[1, 2]\n", "every line must be an object"),
        ("[" * 100_000, "line 1: is nested too deeply"),
        ('{"other": "a"}\n', "no record has a text"),
    ],
)
def test_damaged_data_is_one_clear_line(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_texts(file(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nope.jsonl: no such file"):
        training_records(tmp_path / "nope.jsonl")


@pytest.mark.parametrize("text", ['{"question": "same"}', '{"question": "?!"}'])
def test_texts_without_two_words_are_refused_by_the_router(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="fewer than two different words"):
        Router.of({"a": file(tmp_path, text)}, temperature=0.1)


def test_lora_same_examples_trains_on_the_prompts_that_engines_get(
    tiny_llama: Path, adapters: Path, tmp_path: Path
) -> None:
    (tmp_path / "x.json").write_text(json.dumps([{"question": f"{n} + 1", "answer": str(n + 1)} for n in range(3)]))
    (tmp_path / "own.jinja").write_text(
        "{% for m in messages %}({{ m['role'] }}){{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}(assistant){% if thinking is not false %}<think>{% endif %}{% endif %}"
    )
    prompts = {
        "chat": {"chat_template": "own.jinja", "chat_template_kwargs": {"thinking": False}, "system": "Add."},
        "plain": {"answer_prefix": " ="},
    }
    tasks = {
        name: {"type": "exact_match", "mode": mode, "data": {"path": "x.json", "test": None}, "prompt": prompt}
        for (name, prompt), mode in zip(prompts.items(), ("text", "numeric"), strict=True)
    }
    settings = {"model": str(tiny_llama), "pool": str(adapters), "utility": {"type": "multi_task", "tasks": tasks}}
    bench = Bench(parse_config(settings, root=tmp_path), tmp_path / "bench")
    tokenizer = bench.engines.tokenizer().tokenizer
    texts = [
        (tokenizer.decode(record["input_ids"]), tokenizer.decode([i for i in record["labels"] if i >= 0]))
        for record in solved_examples(bench)
    ]
    assert texts[0] == ("(system)Add.(user)0 + 1(assistant)1</s>", "1</s>")
    assert texts[3] == ("<s>0 + 1 = 1</s>", " 1</s>")
    encoder = bench.engines.tokenizer().encoder()
    for request, record in zip(bench.utility.requests("validation"), solved_examples(bench), strict=True):
        start = encoder.prompt(request.prompt)
        assert tuple(record["input_ids"][: len(start)]) == start
        assert [label >= 0 for label in record["labels"]] == [i >= len(start) for i in range(len(record["labels"]))]
