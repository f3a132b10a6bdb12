"""Re-basing: sum up the noise of many mutations so that the basis stays small.

The noise part of every row of a state is saved as one vector, and these vectors replace all noise columns. Columns [:n]
are the experts.
"""

from __future__ import annotations

import numpy as np

from evoswarm.search.state import State, flatten, map_rows


def noise_parts(state: State, n: int) -> np.ndarray:
    """The noise columns of all rows of a state [L, J - n]."""
    rows = [array for array in flatten(state)[0].values() if array.ndim == 2 and len(array)]
    return np.concatenate(rows)[:, n:] + 0.0


def plan(state: State, n: int, limit: int) -> np.ndarray | None:
    """The distinct noise parts [R, J] to save, expert columns 0; [0, J]: drop unused columns; None: nothing due."""
    parts = noise_parts(state, n)
    used = parts != 0
    living = int(used.any(axis=0).sum())
    noisy = parts[used.any(axis=1)]
    first = {line.tobytes(): k for k, line in reversed(list(enumerate(noisy)))}
    rows = np.pad(noisy[sorted(first.values())], ((0, 0), (n, 0)))
    if living > limit and len(rows) < living:
        return rows
    return rows[:0] if living < parts.shape[1] else None


def replace(state: State, n: int, rows: np.ndarray) -> None:
    """Replace the noise part of every row by 1.0 times the column of the equal planned row."""
    column = {line.tobytes(): k for k, line in enumerate(rows[:, n:])}

    def change(array: np.ndarray) -> np.ndarray:
        saved = np.zeros((len(array), len(rows)))
        for i, part in enumerate(array[:, n:] + 0.0):
            if part.any():
                saved[i, column[part.tobytes()]] = 1.0
        return np.concatenate([array[:, :n], saved], axis=1)

    map_rows(state, change)
