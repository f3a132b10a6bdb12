"""One random stream per purpose, generation and particle.

A draw does not depend on earlier draws. So no random state has to be saved: a search restored at any generation draws
the same numbers, and a failed particle does not shift the numbers of others.
"""

from __future__ import annotations

from zlib import crc32

import numpy as np


def stream(seed: int, purpose: str, generation: int = 0, particle: int = 0) -> np.random.Generator:
    """The random stream of (seed, purpose, generation, particle); all integers are 0 or more.

    Example:
        stream(7, "move", 3, 12).random(4)   # r_v, r_p, r_g, r_w of particle 12 in generation 3
    """
    entropy = [seed, crc32(purpose.encode()), generation, particle]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))
