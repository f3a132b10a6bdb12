"""Rows with one coefficient per expert and span of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from evoswarm.errors import UserError
from evoswarm.rows import BasisVector, LayersVector

LayerSpans = Annotated[
    int | None,
    Field(
        ge=1,
        description="Cut the layers into this many spans, each with its own coefficients; null: one span per layer.",
    ),
]


def span_basis(experts: Sequence[str], *, layers: int, spans: int | None) -> list[BasisVector]:
    """One vector per expert and span, spans of an expert next to each other.

    Spans have equal length; some are a layer longer if they do not divide evenly.

    Raises:
        UserError: more spans than layers.
    """
    spans = layers if spans is None else spans
    if spans > layers:
        raise UserError(f"search.layer_spans is {spans}, the experts have {layers} layer(s): set it to at most that")
    ends = [layers * s // spans for s in range(spans + 1)]
    edges = list(zip(ends[:-1], ends[1:], strict=True))
    return [LayersVector(name, first, end - 1) for name in experts for first, end in edges]
