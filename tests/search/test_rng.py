from __future__ import annotations

from zlib import crc32

import numpy as np

from evoswarm.search.rng import stream


def test_a_stream_is_philox_over_seed_purpose_generation_and_particle():
    entropy = [7, crc32(b"move"), 3, 12]
    expected = np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy))).random(4)
    assert stream(7, "move", 3, 12).random(4).tolist() == expected.tolist()


def test_every_part_of_the_key_changes_the_stream():
    keys = [(7, "move", 3, 12), (8, "move", 3, 12), (7, "mix", 3, 12), (7, "move", 4, 12), (7, "move", 3, 13)]
    assert len({stream(*key).random() for key in keys}) == len(keys)


def test_streams_of_neighboring_particles_are_not_correlated():
    draws = np.array([stream(1, "move", 1, i).random(200) for i in range(20)])
    off = np.corrcoef(draws) - np.eye(20)
    assert np.abs(off).max() < 0.35
