"""Generation numbers of 10,000 and more in file names."""

from __future__ import annotations

from pathlib import Path

import pytest

from evoswarm.callbacks import Callbacks, Event
from evoswarm.loop.checkpoint import generations_saved, restore_newest, save_checkpoint
from evoswarm.loop.directory import RunDirectory, generation_name, generation_of
from evoswarm.search import make_search
from evoswarm.search.model_swarms import ModelSwarms
from evoswarm.storage.mirror import Mirror


def write_run(folder: Path, last: int) -> None:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "inputs.json").write_text("{}")
    for generation in (9998, 9999, 10000):
        if generation <= last:
            (folder / "checkpoints" / f"{generation_name(generation)}.safetensors").write_text(str(last))


@pytest.mark.parametrize(("here", "there"), [(10000, 9999), (9999, 10000)])
def test_a_run_continues_from_whichever_side_has_the_newer_checkpoint(tmp_path: Path, here: int, there: int) -> None:
    write_run(tmp_path / "here", here)
    write_run(tmp_path / "there", there)
    messages: list[str] = []

    def add(event: Event) -> None:
        messages.append(event["text"])

    with Mirror(f"local://{tmp_path}/there", tmp_path / "here", patience=0, callbacks=Callbacks(add)):
        newest = tmp_path / "here/checkpoints/gen_10000.safetensors"
        assert newest.read_text() == "10000"
    assert (tmp_path / "there/checkpoints/gen_10000.safetensors").read_text() == "10000"
    assert any("has more of this run" in message for message in messages) == (here > there)


def test_the_newest_checkpoint_is_the_one_with_the_highest_number(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    directory.create()
    for generation in (9999, 10000):
        search = make_search(ModelSwarms(population=3), experts=["a", "b"], seed=0)
        while not search.finished_generation:
            search.tell([0.5] * len(search.ask().particles))
        search.generation = generation
        save_checkpoint(directory, search)
    assert generations_saved(directory) == [9999, 10000]
    fresh = make_search(ModelSwarms(population=3), experts=["a", "b"], seed=0)
    assert restore_newest(directory, fresh, last=10000) == [] and fresh.generation == 10000


def test_names_hold_the_number_of_their_generation() -> None:
    for generation in (0, 3, 9999, 10000, 123456):
        assert generation_of(f"{generation_name(generation)}.safetensors") == generation
    assert generation_of("final.jsonl") is None
