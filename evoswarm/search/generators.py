"""Two small networks that turn poor coefficients into good ones and back, as CycleGAN does with images.

Source: EvoGM (arXiv 2605.29295), L_total = a_c L_cyc + a_o L_opt; its code for the networks and weights.
Shape legend: B rows of a batch, D coefficients.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

HIDDEN = (128, 256, 256, 256, 128)
"""Widths of the hidden layers (EvoGM code)."""
CYCLE = 100.0
"""Weight of cycle consistency against the pull to the winners (EvoGM code)."""

Layers = list[np.ndarray]
"""Weights [in, out] and biases [out] of a network, in turns."""


def network(rng: np.random.Generator, size: int) -> Layers:
    """A network from D to D coefficients, with PyTorch's first weights U(-1, 1) / sqrt(in)."""
    widths = (size, *HIDDEN, size)
    shapes = [shape for a, b in zip(widths[:-1], widths[1:], strict=True) for shape in ((a, b), (b,))]
    bounds = [width**-0.5 for width in widths[:-1] for _ in range(2)]
    pairs = zip(shapes, bounds, strict=True)
    return [rng.uniform(-bound, bound, shape).astype(np.float32) for shape, bound in pairs]


def forward(layers: Layers, x: np.ndarray) -> list[np.ndarray]:
    """Input, hidden layers (ReLU) and output (tanh) of a network for x [B, D]."""
    found = [x]
    for k in range(0, len(layers), 2):
        z = found[-1] @ layers[k] + layers[k + 1]
        found.append(np.tanh(z) if k + 2 == len(layers) else np.maximum(z, 0))
    return found


def backward(layers: Layers, found: Sequence[np.ndarray], slope: np.ndarray) -> tuple[Layers, np.ndarray]:
    """Gradients of the layers, and of the input [B, D], from that of the output [B, D]."""
    gradients: Layers = []
    slope = slope * (1 - found[-1] ** 2)
    for k in reversed(range(0, len(layers), 2)):
        x = found[k // 2]
        gradients[:0] = [x.T @ slope, slope.sum(axis=0)]
        slope = slope @ layers[k].T
        if k:
            slope = slope * (x > 0)
    return gradients, slope


def losses(better: Layers, worse: Layers, winners: np.ndarray, losers: np.ndarray) -> tuple[Layers, Layers]:
    """Gradients of 100 (|W(B(l)) - l|^2 + |B(W(w)) - w|^2) + |B(l) - mean w|^2, all squares means.

    B turns losers l [B, D] into winners, W turns winners w [B, D] into losers.
    """
    fake = forward(better, losers)
    lost = forward(worse, fake[-1])
    poor = forward(worse, winners)
    won = forward(better, poor[-1])
    scale = 2 / losers.size
    of_worse, slope = backward(worse, lost, CYCLE * scale * (lost[-1] - losers))
    of_better, _ = backward(better, fake, slope + scale * (fake[-1] - winners.mean(axis=0)))
    more_better, slope = backward(better, won, CYCLE * scale * (won[-1] - winners))
    more_worse, _ = backward(worse, poor, slope)
    add = zip(of_better + of_worse, more_better + more_worse, strict=True)
    total = [a + b for a, b in add]
    return total[: len(better)], total[len(better) :]


def improve(
    rows: np.ndarray, winners: np.ndarray, losers: np.ndarray, *, rng: np.random.Generator, epochs: int, rate: float
) -> np.ndarray:
    """Rows [P, D] moved toward the winners, each in [-1, 1], by networks that are trained on winners and losers first.

    Every epoch takes as many losers as winners (or the reverse), and one step of Adam.
    """
    better, worse = (network(rng, rows.shape[1]) for _ in range(2))
    size, layers = min(len(winners), len(losers)), better + worse
    first, second = ([np.zeros_like(layer) for layer in layers] for _ in range(2))
    good, poor = winners.astype(np.float32), losers.astype(np.float32)
    for step in range(1, epochs + 1):
        batch = [part[rng.permutation(len(part))[:size]] for part in (good, poor)]
        gradients = [g for side in losses(better, worse, *batch) for g in side]
        for layer, gradient, m, v in zip(layers, gradients, first, second, strict=True):
            m += 0.1 * (gradient - m)
            v += 0.001 * (gradient**2 - v)
            layer -= rate * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
    return forward(better, rows.astype(np.float32))[-1].astype(float)
