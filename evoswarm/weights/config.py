"""The settings of a pool of experts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from evoswarm.place import Place
from evoswarm.section import Section


class PoolConfig(Section):
    """The experts. A bare string or list in place of this section is `experts`."""

    experts: Place | list[Place]
    """A folder of expert folders (sorted by name), or a list of expert folders: PEFT adapters, or full checkpoints of
    one architecture. Folders may be URLs (s3://, gs://, or anything fsspec supports): every node keeps a copy. In a
    list, experts may also have names on the Hugging Face hub (owner/name, or owner/name@revision)."""
    include_base: bool = False
    """Add the base model itself to the pool as the expert `base`. Moves are affine (coefficients sum to 1); with the
    base model in the pool, the coefficients of the other experts can have any sum."""
    space: Literal["product", "factors"] | None = None
    """How LoRA experts are mixed. product: their products B A, exactly; ranks and target modules may differ, and a
    particle has the sum of the ranks. factors: A and B one by one, which needs experts of one form that were trained
    from the same first A. null: factors for such experts, product for all others; see also
    `prefer_product`."""
    prefer_product: bool | None = None
    """With `space: null`, product for all LoRA experts. null: true for the searches
    `bayes`, `evogm` and `pso_merging`, else false."""
    check_values: bool = True
    """Read every value once before the run starts, to find NaN and infinities."""


class ExportConfig(Section):
    """The files of the best expert."""

    rank: int | None = Field(None, ge=1)
    """Truncate the best LoRA to this rank, by SVD of each B A. null: the rank that it has, which in product space is
    the sum of its experts' ranks. The summary says which share of the squared norm is kept (`best.kept`). Utilities
    are those of the full rank."""
