"""Rows as data."""

from __future__ import annotations

import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from evoswarm.rows import ExpertVector, LayersVector, NoiseVector, Row, SavedVector

VECTORS = [
    ExpertVector("code"),
    ExpertVector("größe/ü"),
    LayersVector("math", 0, 3),
    NoiseVector(1, 2, 3, 0.5, 0.01),
    SavedVector("vectors/g-3.safetensors"),
]


@given(st.lists(st.tuples(st.sampled_from(VECTORS), st.floats(allow_nan=False)), max_size=9))
def test_a_row_is_the_same_after_it_was_sent(terms: list[tuple[ExpertVector, float]]) -> None:
    row = Row(tuple(terms))
    sent = pickle.loads(pickle.dumps(row))
    assert sent == row and hash(sent) == hash(row) and sent.to_list() == row.to_list()


def test_whole_coefficients_stay_what_they_are() -> None:
    row = Row(((ExpertVector("a"), 1), (ExpertVector("b"), -2)))
    assert pickle.loads(pickle.dumps(row)) == row


def test_a_sent_row_takes_a_few_bytes_per_expert() -> None:
    basis = [ExpertVector(f"expert-{number}") for number in range(1000)]
    assert len(pickle.dumps(Row.of(basis, np.linspace(0.1, 1, 1000)))) < 25_000
