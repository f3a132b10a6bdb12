"""Texts that join and leave a batch of several models, as in a server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import load, save_llama

from evoswarm.engine.combined import running
from evoswarm.engine.combined.running import Running, Text
from evoswarm.engine.network import SingleNetwork

BOTH, FIRST, SECOND = ([1, 1, -1], [0, 1, 0], [0, 0, 1])


@pytest.fixture(scope="module")
def networks(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, SingleNetwork]:
    large = save_llama(tmp_path_factory.mktemp("large"), seed=3, hidden_size=96)
    return {1: SingleNetwork(load(tiny_llama)), 2: SingleNetwork(load(large))}


def text(coefficients: list[float], seed: int, length: int) -> Text:
    ids = np.random.default_rng(seed).integers(5, 90, length).tolist()
    return Text(np.array(coefficients, np.float32), ids, [])


@torch.inference_mode()
def check(steps: Running, networks: dict[int, SingleNetwork], texts: list[Text]) -> None:
    """Step, and compare with whole texts that are computed alone."""
    found = set()
    for batch in steps.step(texts):
        for row, one in enumerate(batch.texts):
            found.add(one)
            for i, logits in zip(batch.active, batch.logits, strict=True):
                expected = networks[i].model(torch.tensor([one.prompt + one.output])).logits[0, -1]
                torch.testing.assert_close(logits[row, 0], expected, atol=1e-4, rtol=1e-4)
    assert found == set(texts)


def test_texts_that_join_and_leave_have_the_logits_they_have_alone(networks) -> None:
    steps, rng = Running(networks), np.random.default_rng(0)
    texts = [text(BOTH, 1, 12), text(FIRST, 2, 3), text(BOTH, 3, 7), text(SECOND, 4, 5)]
    for number in range(14):
        check(steps, networks, texts)
        for one in texts:
            one.output.append(int(rng.integers(5, 90)))
        if number in (2, 3, 7):
            texts.append(text([BOTH, FIRST, SECOND][number % 3], 10 + number, 4 + 3 * number))
        if number in (4, 5, 9):
            del texts[0]
    assert len(steps._batches) <= 4


def test_batches_of_the_same_models_become_one(networks) -> None:
    steps = Running(networks)
    texts = []
    for number in range(4):
        texts.append(text(BOTH, number, 3 + number))
        check(steps, networks, texts)
        for one in texts:
            one.output.append(7)
    check(steps, networks, texts)
    assert len(steps._batches) == 1


def test_a_text_that_has_not_grown_by_one_token_is_computed_anew(networks) -> None:
    """A server may take a prompt in parts, take a text back, or restart it."""
    steps = Running(networks)
    texts = [text(BOTH, 1, 6), text(BOTH, 2, 9)]
    check(steps, networks, texts)
    texts[0].output.append(8)
    check(steps, networks, texts)  # the second one stands still
    texts[0].output += [9, 10]
    texts[1].output.append(11)
    check(steps, networks, texts)
    check(steps, networks, texts[:1])
    check(steps, networks, texts)


def test_many_new_texts_are_computed_in_parts(networks, monkeypatch) -> None:
    monkeypatch.setattr(running, "MOST_TOKENS", 20)
    steps = Running(networks)
    texts = [text(BOTH, seed, 8) for seed in range(5)] + [text(BOTH, 9, 40)]
    check(steps, networks, texts)
    assert [len(batch.texts) for batch in steps._batches] == [2, 2, 1, 1]
