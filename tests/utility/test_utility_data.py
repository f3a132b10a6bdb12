from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evoswarm.errors import UserError

Make = Callable[..., Any]
Refusal = Callable[..., str]
Write = Callable[[str, Any], Path]

RECORDS = [{"question": f"What is {n} + 0?", "answer": str(n)} for n in range(3)]
OTHERS = [{"question": "What is 9 + 0?", "answer": "9"}]


def jsonl(records: list[Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def csv(records: list[dict[str, str]]) -> str:
    return "".join(
        f'"{r["question"]}",{r["answer"]}\r\n' for r in [{"question": "question", "answer": "answer"}, *records]
    )


@pytest.fixture(params=["json", "json list", "jsonl", "csv", "parquet", "folder", "single folders"])
def data(request: pytest.FixtureRequest, write: Write, tmp_path: Path) -> dict[str, Any]:
    """The same examples in each format."""
    if request.param == "json":
        write("x.json", {"dev": RECORDS, "test": OTHERS})
        return {"path": "x.json"}
    if request.param == "folder":
        import datasets

        splits = {"dev": datasets.Dataset.from_list(RECORDS), "test": datasets.Dataset.from_list(OTHERS)}
        datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "x"))
        return {"path": "x"}
    if request.param == "single folders":
        import datasets

        datasets.Dataset.from_list(RECORDS).save_to_disk(str(tmp_path / "x"))
        write("t.jsonl", jsonl(OTHERS))
        return {"path": "x", "test": "t.jsonl"}
    suffix = request.param.split()[0]
    for name, records in (("v", RECORDS), ("t", OTHERS)):
        if suffix == "parquet":
            from pyarrow import Table, parquet

            parquet.write_table(Table.from_pylist(records), tmp_path / f"{name}.parquet")
        else:
            write(f"{name}.{suffix}", {"json": json.dumps, "jsonl": jsonl, "csv": csv}[suffix](records))
    return {"path": f"v.{suffix}", "test": f"t.{suffix}"}


def test_every_format_gives_the_same_examples(make: Make, tmp_path: Path, data: dict[str, Any]) -> None:
    utility = make("exact_match", tmp_path, data=data)
    assert [utility.example("validation", i) for i in range(3)] == [{**r, "id": str(i)} for i, r in enumerate(RECORDS)]
    assert [utility.size(split) for split in ("validation", "test")] == [3, 1]
    assert utility.example("test", 0)["answer"] == "9"
    assert utility.warnings == []


def test_columns_are_mapped_and_the_original_fields_stay(make: Make, write: Write) -> None:
    root = write("x.json", {"train": [{"problem": "2?", "answer": "long", "gold": "2", "key": "k1"}]})
    columns = {"question": "problem", "answer": "gold", "id": "key"}
    utility = make(
        "exact_match", root, data={"path": "x.json", "validation": "train", "test": None, "columns": columns}
    )
    fields = {"question": "2?", "answer": "2", "id": "k1", "problem": "2?", "gold": "2", "key": "k1"}
    assert utility.example("validation", 0) == fields


def test_columns_can_be_swapped(make: Make, write: Write) -> None:
    root = write("x.json", [{"question": "2", "answer": "two?"}])
    columns = {"question": "answer", "answer": "question"}
    utility = make("exact_match", root, data={"path": "x.json", "test": None, "columns": columns})
    assert utility.example("validation", 0) == {"question": "two?", "answer": "2", "id": "0"}


def test_limits_take_the_first_examples_of_each_split(make: Make) -> None:
    utility = make("exact_match", data={"path": "numbers.json", "limit": 2, "test_limit": 1})
    assert [utility.example("validation", i)["answer"] for i in range(utility.size("validation"))] == ["1,000", "-3"]
    assert utility.size("test") == 1


def test_without_a_test_split_its_size_is_zero(make: Make) -> None:
    utility = make("exact_match", data={"path": "numbers.json", "test": None})
    assert utility.size("test") == 0
    assert utility.requests("test") == []


def test_the_hash_depends_only_on_the_data_in_use(make: Make, write: Write) -> None:
    root = write("a.json", {"dev": RECORDS, "test": OTHERS, "train": OTHERS})
    write("b.json", {"dev": RECORDS, "test": OTHERS})
    hashes = [
        make("exact_match", root, data=data).sha256
        for data in (
            {"path": "a.json"},
            {"path": "b.json"},
            {"path": "a.json", "limit": 2},
            {"path": "a.json", "test": None},
        )
    ]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3
    shots = make("exact_match", root, data="a.json", prompt={"few_shot": 1})
    assert shots.sha256 not in hashes


def test_line_separators_in_a_json_string_do_not_split_the_record(make: Make, write: Write) -> None:
    root = write("x.jsonl", '{"question": "a\u2028b", "answer": "c"}\n\n')
    assert (
        make("exact_match", root, data={"path": "x.jsonl", "test": None}).example("validation", 0)["question"]
        == "a\u2028b"
    )


def test_a_byte_order_mark_is_ignored(make: Make, write: Write) -> None:
    root = write("x.csv", "\ufeffquestion,answer\nq,a\n")
    assert make("exact_match", root, data={"path": "x.csv", "test": None}).example("validation", 0)["question"] == "q"


def test_repeated_ids_are_replaced_by_indices_with_a_warning(make: Make, write: Write) -> None:
    records = [{"question": str(n), "answer": str(n), "id": identity} for n, identity in enumerate("xyxx")]
    utility = make("exact_match", write("x.json", {"dev": records}), data={"path": "x.json", "test": None})
    assert [utility.example("validation", i)["id"] for i in range(4)] == ["0", "1", "2", "3"]
    (warning,) = utility.warnings
    assert "dev: 2 of 4 ids repeat an earlier one (first: 'x')" in warning


def test_a_repeated_record_is_rejected(make: Make, write: Write) -> None:
    records = [{"question": q, "answer": "1", "id": identity} for q, identity in (("a", "x"), ("b", "x"), ("a", "x"))]
    with pytest.raises(UserError) as caught:
        make("exact_match", write("x.json", {"dev": records}), data={"path": "x.json", "test": None})
    line = str(caught.value)
    assert "dev[2] (id 'x'): repeats" in line and "dev[0] (id 'x') in every field; remove one of them" in line
    assert "\n" not in line


def test_the_overlap_of_splits_ignores_white_space(make: Make, write: Write) -> None:
    dev = [{"question": q, "answer": "1"} for q in ("one  two", "three", "four")]
    test = [
        {"question": q, "answer": "1", "id": f"t{i}"} for i, q in enumerate(("One two", "one\ntwo ", "four", "five"))
    ]
    utility = make("exact_match", write("x.json", {"dev": dev, "test": test}), data="x.json")
    (warning,) = utility.warnings
    assert "THE SPLITS OVERLAP: 2 of 4 test questions" in warning
    assert "first test ids: t1, t2" in warning


def test_equal_splits_are_reported_as_equal(make: Make) -> None:
    (warning,) = make("exact_match", data={"path": "numbers.json", "test": "dev"}).warnings
    assert "THE VALIDATION AND THE TEST SPLIT ARE EQUAL, all 4 questions" in warning


def test_only_examples_in_use_count_as_overlap(make: Make) -> None:
    data = {"path": "numbers.json", "validation": "dev", "test": "dev", "limit": 1}
    (warning,) = make("exact_match", data=data).warnings
    assert "1 of 4 test questions" in warning


@pytest.mark.parametrize(
    ("name", "content", "settings", "words"),
    [
        ("x.json", None, {}, ["x.json does not exist"]),
        ("x.txt", "hello", {}, ["unknown format '.txt'", ".jsonl", "save_to_disk"]),
        ("x", "hello", {}, ["unknown format 'without suffix'"]),
        ("x.json", b'["caf\xe9"]', {}, ["not UTF-8", "byte 5 is 0xe9"]),
        ("x.json", '{"dev": [\n{"a" 1}]}', {}, ["line 2", "broken JSON"]),
        ("x.json", '{"a": 1}\n{"a": 2}', {}, ["line 2", ".jsonl"]),
        ("x.jsonl", '{"a": 1}\n{"a": "\\ud800"}', {}, ["x.jsonl, line 2", "half a character", "ud800"]),
        ("x.json", '[{"a": 1' + "0" * 5000 + "}]", {}, ["x.json: ", "4300 digits", "quotes"]),
        ("x.json", "3", {}, ["has no split"]),
        ("x.json", {"dev": {"a": 1}}, {}, ["has no split"]),
        ("x.jsonl", '{"a": 1}\n\n{"a" 2}', {}, ["x.jsonl, line 3", "broken JSON"]),
        ("x.csv", "question,answer,answer\na,b,c\n", {}, ["x.csv: column 'answer' occurs twice; rename or remove"]),
        ("x.csv", "question,answer\na,b\nc\n", {}, ["x.csv, line 3", "1 cells", "header has 2"]),
        ("x.csv", 'question,answer\n"a"b,c\n', {}, ["x.csv, line 2", "broken CSV"]),
        ("x.parquet", "no parquet", {}, ["not a readable Parquet file"]),
        ("x.json", {"dev": [], "test": OTHERS}, {}, ["x.json: dev", "empty"]),
        ("x.jsonl", "\n", {}, ["x.jsonl: validation", "empty"]),
        ("x.json", {"train": RECORDS, "test": OTHERS}, {}, ["no split 'dev'", "data.validation", "train, test"]),
        ("x.json", {"dev": RECORDS}, {}, ["no split 'test'", "data.test", "one of: dev"]),
        ("x.json", RECORDS, {}, ["holds one split", "data.test", "null"]),
        ("x.json", RECORDS, {"validation": "valid"}, ["holds one split", "data.validation", "leave it out"]),
        ("x.json", RECORDS, {"test": "y.json"}, ["y.json does not exist"]),
        ("x.json", {"dev": RECORDS, "test": ["a"]}, {}, ["x.json: test[0]", "an object of named fields, not str"]),
        ("x.json", {"dev": [{"question": "a"}], "test": OTHERS}, {}, ["dev[0] (id '0')", "'answer' is missing"]),
        (
            "x.json",
            {"dev": [{"question": "a", "gold": "b", "id": 5}], "test": OTHERS},
            {},
            ["dev[0] (id '5')", "the record has question, gold, id", "columns: {answer: ...}"],
        ),
        ("x.json", {"dev": [{"question": "a", "answer": None}], "test": OTHERS}, {}, ["'answer' is null"]),
        (
            "x.json",
            {"dev": RECORDS, "test": OTHERS},
            {"columns": {"answer": "gold"}},
            ["dev[0]", "maps 'answer' to 'gold'", "the record has question, answer"],
        ),
    ],
)
def test_bad_data_gives_one_error_line_with_the_location(
    refusal: Refusal, write: Write, tmp_path: Path, name: str, content: Any, settings: dict[str, Any], words: list[str]
) -> None:
    if content is not None:
        write(name, content)
    message = refusal("exact_match", tmp_path, data={"path": name, **settings})
    assert [word for word in words if word not in message] == []


def test_a_second_file_must_contain_one_split(refusal: Refusal, write: Write) -> None:
    root = write("x.json", {"dev": RECORDS})
    write("y.json", {"a": RECORDS, "b": RECORDS})
    message = refusal("exact_match", root, data={"path": "x.json", "test": "y.json"})
    assert "y.json" in message
    assert "a, b" in message


def test_a_folder_that_is_not_a_data_set_is_rejected(refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    assert "not a folder written by datasets' save_to_disk" in refusal("exact_match", tmp_path, data="x")


def test_a_broken_data_set_folder_is_rejected(refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "dataset_dict.json").write_text('{"splits": ["dev"]}')
    assert "datasets cannot load this folder" in refusal("exact_match", tmp_path, data="x")


@pytest.mark.parametrize("name", ["validation", "valid", "val"])
def test_the_usual_names_of_a_validation_split_are_found_without_being_set(make: Make, write: Write, name: str) -> None:
    records = [{"question": q, "answer": "1"} for q in ("one", "two")]
    data = write("usual.json", {name: records, "test": records[:1], "train": records})
    utility = make("exact_match", data, data="usual.json")
    assert (utility.size("validation"), utility.size("test")) == (2, 1)


@pytest.mark.parametrize(("different", "says"), [(1, True), (15, True), (16, False), (30, False)])
def test_examples_that_mostly_repeat_each_other_are_reported(
    make: Make, write: Write, different: int, says: bool
) -> None:
    dev = [{"question": f"q{i % different}", "answer": "1", "id": str(i)} for i in range(30)]
    utility = make("exact_match", write("x.json", {"dev": dev}), data={"path": "x.json", "test": None})
    expected = f"x.json: only {different} of 30 validation examples are different requests"
    assert [expected in warning for warning in utility.warnings] == ([True] if says else [])
